"""The traces of the tangent kernel that training balances losses with are exact."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modsync_jax import problems
from modsync_jax.training import TrainConfig, _state, _step
from modsync_jax.training._solution import field_of
from modsync_jax.transform import effective_weights

POINTS = {"residual": 24, "initial": 6, "left": 5, "right": 7}


@pytest.mark.long
@pytest.mark.parametrize("grouping", ["grouped", "each"])
@pytest.mark.parametrize("method", ["ntk", "modsync+ntk+sum"])
def test_loss_weights_of_ntk_are_those_of_the_dense_kernels(x64, method, grouping):
    problem = problems.get("burgers")
    weight = "boundary" if grouping == "grouped" else "left"
    config = TrainConfig(
        method=method,
        depth=2,
        width=8,
        points=POINTS,
        objectives=grouping,
        loss_weights={weight: 3.0},
        dtype="float64",
        sampler="uniform",
    )
    network = _step.network_of(problem, config)
    program = _step.build(problem, network, config)
    start = program.init(0)
    end = jax.jit(lambda state: program.advance(state, 0, 1))(start)
    got = optax.tree_utils.tree_get(end.opt_state, "loss_weights")

    # All points' gradients at once, from vectors whose squared norms are the losses. Thresholds
    # start at 0, where masks keep everything; their derivative by the weights is the mask's slope,
    # so the dense Jacobian is taken through them too.
    key = jax.random.fold_in(jax.random.wrap_key_data(start.key), _state.TRAIN)
    batch = problem.sample(jax.random.fold_in(key, 0), POINTS, "uniform", jnp.float64)

    def fields(params):
        return field_of(network, problem.coordinates, params["network"]), params["unknowns"]

    vectors = problem.residual_vectors(fields, grouping, {weight: 3.0})
    traces = []
    for name in sorted(vectors):

        def of_weights(weights, name=name):
            if not method.startswith("modsync"):
                return vectors[name](weights, batch)
            masked = effective_weights(start.params._replace(weights=weights))
            return vectors[name](masked, batch)

        jacobian = jax.jit(jax.jacrev(of_weights))(_state.weights_of(start.params))
        traces.append(sum(np.sum(np.square(j)) for j in jax.tree.leaves(jacobian)))
    assert np.ptp(traces) > 0.1 * np.max(traces)  # else the weights would say little
    # float64 sums in another order; random probes would be off by tens of percent.
    np.testing.assert_allclose(got, np.sum(traces) / np.array(traces), rtol=1e-9)
