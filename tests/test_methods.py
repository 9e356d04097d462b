"""Names of methods: what they mean, and what is wrong with those that mean nothing."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modsync_jax import aggregators, balancing, citations, methods, with_thresholds

GRADS = {"w": jnp.array([[1.0, 2.0, -1.0], [0.5, -3.0, 0.2]])}
PARAMS = {"w": jnp.ones(3)}
EXTRA = {"losses": jnp.array([1.0, 2.0]), "residual_jacobian_traces": jnp.array([1.0, 4.0])}


def update(tx):
    return tx.update(GRADS, tx.init(PARAMS), PARAMS, **EXTRA)[0]["w"]


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("sum", lambda: [aggregators.sum()]),
        ("dcgd", lambda: [aggregators.dcgd()]),
        ("norm", lambda: [balancing.norm_balance(2), aggregators.sum()]),
        ("norm+sum", lambda: [balancing.norm_balance(2), aggregators.sum()]),
        ("ntk+config", lambda: [balancing.ntk(2), aggregators.config()]),
        (
            "lra+sa+upgrad",
            lambda: [
                balancing.lra(2, 0),
                balancing.self_adaptive(2),
                aggregators.upgrad(),
            ],
        ),
    ],
)
def test_parts_are_chained_in_their_order_before_the_optimiser(name, steps):
    got = update(methods.build(name, optax.sgd(0.1), num_objectives=2, reference=0))
    np.testing.assert_array_equal(got, update(optax.chain(*steps(), optax.sgd(0.1))))


@pytest.mark.long
def test_modsync_masks_what_its_base_moves():
    params = with_thresholds({"w": jnp.ones((3, 2))}, 2)
    grads = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), params)
    tx = methods.build("modsync+norm+dcgd", optax.sgd(0.1), num_objectives=2)
    base = methods.build("norm+dcgd", optax.sgd(0.1), num_objectives=2)
    got = tx.update(grads, tx.init(params), params)[0].weights
    expected = base.update(grads.weights, base.init(params.weights), params.weights)[0]
    np.testing.assert_array_equal(got["w"], expected["w"])
    assert methods.indexed("modsync+norm+dcgd").kept and not methods.indexed("norm+dcgd").kept


@pytest.mark.parametrize("name", methods.names())
def test_a_method_is_assembled_while_something_is_traced(name):
    """As sweeps do, whose numbers are traced."""

    def assemble(rate):
        methods.build(name, optax.adam(rate), learning_rate=rate, num_objectives=2)
        return rate

    assert jax.eval_shape(assemble, 1e-3).shape == ()


SHARED = sorted(name for name, part in methods.PARTS.items() if part.kind != "beside")


@pytest.mark.parametrize("name", SHARED)
def test_every_part_builds_and_updates_under_jit(name):
    tx = methods.build(name, optax.adam(1e-3), num_objectives=2)
    if methods.parse(name).alternates:
        grads, extra = jax.tree.map(lambda g: g[0], GRADS), {"objective": 0}
    else:
        grads, extra = GRADS, EXTRA
    updates, _ = jax.jit(lambda g: tx.update(g, tx.init(PARAMS), PARAMS, **extra))(grads)
    assert updates["w"].shape == (3,) and jnp.isfinite(updates["w"]).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dcdg", "unknown method 'dcdg'; did you mean 'dcgd'"),
        ("lra+dcdg", "method 'lra\\+dcdg': unknown part 'dcdg'; did you mean 'dcgd'"),
        ("", "unknown method ''"),
        ("modsync", "needs a base, for example modsync\\+dcgd"),
        ("dcgd+lra", "in this order and each once"),
        ("lra+modsync+dcgd", "in this order and each once"),
        ("dcgd+config", "in this order and each once"),
        ("lra+lra+dcgd", "in this order and each once"),
        ("modsync+modsync+dcgd", "in this order and each once"),
        ("modsync+m-config", "m-config does not combine with others"),
        ("modsync+magnitude+dcgd", "modsync and magnitude both cut weights"),
        ("magnitude+adapters", "in this order and each once"),
        ("multi-adam+dcgd", "multi-adam does not combine with others"),
    ],
)
def test_names_that_mean_nothing_are_explained(name, message):
    with pytest.raises(ValueError, match=message):
        methods.parse(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cagrad(d=0.3)", "unknown hyperparameter of cagrad 'd' \\(known: c, groups, rescale\\)"),
        ("cagrad(0.3)", "'cagrad\\(0.3\\)' is not name\\(hyperparameter=value,...\\)"),
        ("cagrad(c=0.3", "is not name\\(hyperparameter=value"),
        ("cagrad(c=f(x))", "is not name\\(hyperparameter=value"),
        ("lra(num_objectives=2)", "unknown hyperparameter of lra 'num_objectives'"),
        ("modsync(beta=1)+dcgd", "hyperparameters of modsync are settings of the run"),
    ],
)
def test_hyperparameters_that_mean_nothing_are_explained(name, message):
    with pytest.raises(ValueError, match=message):
        methods.parse(name)


def test_hyperparameters_reach_their_parts():
    name = "norm(every=3, decay=1e+0)+cagrad(c=0.3)"
    steps = [balancing.norm_balance(2, every=3, decay=1.0), aggregators.cagrad(0.3)]
    got = update(methods.build(name, optax.sgd(0.1), num_objectives=2))
    np.testing.assert_array_equal(got, update(optax.chain(*steps, optax.sgd(0.1))))
    assert not np.array_equal(got, update(methods.build("norm+cagrad", optax.sgd(0.1))))
    assert str(methods.parse(name)) == "norm(every=3,decay=1.0)+cagrad(c=0.3)"
    apart = methods.build("dcgd(groups=leaf)", optax.sgd(0.1))
    np.testing.assert_array_equal(
        update(apart), update(optax.chain(aggregators.dcgd(groups="leaf"), optax.sgd(0.1)))
    )
    with pytest.raises(ValueError, match="c is -1; it must be between 0"):
        methods.build("cagrad(c=-1)", optax.sgd(0.1))


def test_every_sensible_combination_is_a_name():
    kinds = {kind: [n for n, p in methods.PARTS.items() if p.kind == kind]
             for kind in ("balancing", "aggregator")}  # fmt: skip
    for mask, balance, base in itertools.product(
        ("", "modsync+"), ("", *(f"{b}+" for b in kinds["balancing"])), kinds["aggregator"]
    ):
        assert methods.parse(mask + balance + base)
    assert set(methods.names()) >= {"sum", "lra", "m-config", "modsync+pcgrad"}


# --- citations ------------------------------------------------------------------------------------


def test_every_part_problem_and_entry_has_its_source():
    from modsync_jax import directions, problems
    from modsync_jax.training import _phases

    used = set()
    for part in methods.PARTS.values():
        assert citations.ENTRIES[part.citation].fields["year"].isdigit()
        used.add(part.citation)
    for name in problems.names():
        used |= set(citations.keys("sum", name))
    network = ["modified-mlp", "piratenet", "factorized", "fourier_features", "periods", "adaptive"]
    network.append("omega")
    used |= set(citations.keys("sum", network=network))
    others = ["momentum", "sketch", "rad", "r3", "balance", "causal", "attention"]
    others += directions.KINDS
    used |= set(citations.keys("sum", optimizer=[*_phases.KINDS, *others]))
    assert used == set(citations.ENTRIES)  # no entry that nothing leads to


def test_bibtex_has_an_entry_for_each_thing_that_was_used():
    text = citations.bibtex("modsync+lra+dcgd", "burgers", "piratenet")
    for key in ("modsync_jax", "modsync", "lra", "dcgd", "burgers", "piratenet"):
        assert f"{{{key},\n" in text
    assert "config" not in text
    assert text.count("{") == text.count("}")
    assert citations.bibtex("dcgd", "my_problem.py:heat") == citations.bibtex("dcgd")


def test_short_forms_name_authors_and_year():
    short = {key: citations.ENTRIES[key].short for key in ("dcgd", "config", "pcgrad", "mgda")}
    assert short == {
        "dcgd": "Hwang & Lim 2024",
        "config": "Liu, Chu & Thuerey 2025",
        "pcgrad": "Yu et al. 2020",
        "mgda": "Désidéri 2012",
    }


def test_cite_prints_and_names_what_it_does_not_know(capsys):
    import modsync_jax

    modsync_jax.cite("config", problem="helmholtz2d")
    assert "Liu, Qiang" in capsys.readouterr().out
    with pytest.raises(ValueError, match="did you mean 'burgers'"):
        modsync_jax.cite("dcgd", problem="burger")
    with pytest.raises(ValueError, match="unknown network 'pirate'"):
        modsync_jax.cite("dcgd", network="pirate")
