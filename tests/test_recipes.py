"""The recipes of docs/drop_in.md run, in the libraries that are installed, and do what they say."""

import importlib
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "drop_in.md").read_text()
FENCE = r"^```{}\n(.*?)^```"


def run(heading, *libraries):
    """The names that the blocks under a heading define, after the first block of the page."""
    for library in libraries:
        pytest.importorskip(library)
    section = re.split(r"^##+ ", PAGE.split(f"### {heading}\n", 1)[1], flags=re.MULTILINE)[0]
    first = re.search(FENCE.format("python"), PAGE, re.MULTILINE | re.DOTALL)
    scope = {}
    exec(first[1], scope)
    code = re.findall(FENCE.format("py"), section, re.MULTILINE | re.DOTALL)
    assert code, heading
    for number, block in enumerate(code):
        exec(compile(block, f"{heading}, block {number}", "exec"), scope)
    return scope


def assert_one_step_of_adam(updates, params):
    """Adam's first step is its rate in every entry that has a gradient."""
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)
    for leaf in jax.tree.leaves(updates):
        # |g| / (|g| + 1e-8): gradients below 1e-5 shorten the step by more than 0.1%.
        assert np.abs(leaf).max() == pytest.approx(1e-3, rel=1e-3)


def test_every_recipe_has_a_test():
    headings = re.findall(r"^### (.*)$", PAGE, re.MULTILINE)
    source = Path(__file__).read_text()
    assert len(headings) == 9
    for heading in headings:
        assert f'"{heading}"' in source, heading


@pytest.mark.long
def test_class_with_losses_trains_and_its_embedding_has_no_thresholds():
    scope = run("A class with `u_net`, `r_net` and `losses`")
    assert scope["losses"].shape == (2,)
    assert scope["pair"].thresholds["FourierEmbs_0"]["kernel"] is None
    assert scope["pair"].thresholds["Dense_0"]["kernel"].shape == (2, 1, 4)
    # By hand, for the first batch: the rows are the gradients of the losses by name.
    model, params, batch = scope["model"], scope["params"], scope["batch"]
    params = {k: jnp.ones(s) / 3 for k, s in (("w1", (2, 16)), ("b1", 16), ("w2", (16, 1)))}
    _, grads = model.losses_and_grads(params, batch)
    for k, name in enumerate(("ics", "res")):
        expected = jax.grad(lambda p, name=name: model.losses(p, batch)[name])(params)
        for leaf in params:
            # float32, second derivatives: entries of some units, a few eps = 1e-7 of each term.
            np.testing.assert_allclose(grads[leaf][k], expected[leaf], rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_train_state():
    scope = run("Flax: `TrainState`", "flax")
    assert scope["train_state"].step == 1
    assert_one_step_of_adam(scope["train_state"].params["w"] - 1.0, scope["params"]["w"])


@pytest.mark.long
def test_nnx_and_its_optimiser():
    flax = pytest.importorskip("flax")
    if tuple(map(int, flax.__version__.split(".")[:2])) < (0, 11):
        pytest.skip("nnx.Optimizer.update takes the model since Flax 0.11")
    scope = run("Flax NNX and its optimiser")
    nnx = scope["nnx"]
    before, after = (
        nnx.to_pure_dict(nnx.state(model, nnx.Param))
        for model in (nnx.Linear(3, 1, rngs=nnx.Rngs(0)), scope["model"])
    )
    # A step of 1e-3 on entries up to 2 in float32: differences are good to 1e-7 / 1e-3.
    assert_one_step_of_adam(jax.tree.map(lambda a, b: a - b, after, before), before)


@pytest.mark.long
def test_equinox():
    scope = run("Equinox", "equinox")
    assert_one_step_of_adam(scope["updates"], scope["params"])
    shapes = [t.shape for t in jax.tree.leaves(scope["pair"].thresholds)]
    assert shapes == [(2, 8, 1), (2, 8, 1), (2, 1, 1)]


@pytest.mark.long
def test_haiku():
    scope = run("Haiku", "haiku")
    assert_one_step_of_adam(scope["updates"], scope["params"])
    assert len(jax.tree.leaves(scope["pair"].thresholds)) == 2


@pytest.mark.long
def test_data_parallel_is_one_device_on_all_points():
    scope = run("Data parallel")
    tx, params, x = scope["tx"], scope["params"], scope["x"]
    losses, grads = scope["losses_and_grads"](params, x)
    updates, _ = tx.update(grads, tx.init(params), params)
    expected = params["w"] + updates["w"]
    # float32 means in another order; the weights are near 1.
    for name in ("new_params", "unchecked_params"):
        np.testing.assert_allclose(scope[name]["w"], expected, rtol=1e-6)
    np.testing.assert_allclose(scope["losses"], losses, rtol=1e-5)


@pytest.mark.long
def test_accumulated_gradients_are_those_of_the_whole_batch():
    scope = run("Gradient accumulation")
    whole = scope["microbatches"].reshape(-1, 3)
    losses, grads = scope["losses_and_grads"](scope["params"], whole)
    # float32 sums of eight rows in another order.
    np.testing.assert_allclose(scope["losses"], losses, rtol=1e-5)
    np.testing.assert_allclose(scope["grads"]["w"], grads["w"], rtol=1e-5)


@pytest.mark.long
def test_frozen_parameters_stay():
    scope = run("Frozen parameters")
    np.testing.assert_array_equal(scope["params"]["frozen"], jnp.ones(2))
    assert_one_step_of_adam(scope["updates"]["w"], scope["params"]["w"])


@pytest.mark.long
def test_jinns_trains_with_its_gradients_by_term():
    """`u' = -u, u(0) = 1`, by `jinns.solve`, against the same steps without jinns's optimiser."""
    jinns = pytest.importorskip("jinns")
    eqx = importlib.import_module("equinox")
    scope = run("jinns")

    class Decay(jinns.loss.ODE):
        def equation(self, t, u, params):
            return jax.grad(lambda t: u(t, params)[0])(t) + u(t, params)

    key = jax.random.key(0)
    u, nn_params = jinns.nn.PINN_MLP.create(
        key=key,
        eqx_list=((eqx.nn.Linear, 1, 8), (jax.nn.tanh,), (eqx.nn.Linear, 8, 1)),
        eq_type="ODE",
    )
    start = scope["Params"](nn_params=nn_params, eq_params={})
    data = jinns.data.DataGeneratorODE(
        key=key, nt=32, tmin=0.0, tmax=1.0, method="grid", temporal_batch_size=32
    )
    loss = jinns.loss.LossODE(
        u=u,
        dynamic_loss=Decay(),
        initial_condition=(0.0, 1.0),
        loss_weights=jinns.loss.LossWeightsODE(dyn_loss=1.0, initial_condition=1.0),
        params=start,
    )
    request = scope["request"]
    result = jinns.solve(
        n_iter=20,
        init_params=start,
        data=data,
        loss=loss,
        optimizer=scope["optimizer"],
        extra_optax_args_and_kwargs=request,
        verbose=False,
    )
    trained, totals = result[0], result[1]
    assert totals[-1] < totals[0]
    shapes = [jax.tree.map(jnp.shape, jax.tree.leaves(p)) for p in (trained, start)]
    assert shapes[0] == shapes[1]
