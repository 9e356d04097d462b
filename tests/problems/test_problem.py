"""The `Problem` itself: terms, objectives, unknowns, and the checks at construction."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modsync_jax.calculus import Field, partials
from modsync_jax.problems import Problem, data, derivative, value
from modsync_jax.sampling import box


def heat_residual(u, x, nu):
    u_t, u_xx = partials(u, x, "t", "xx")
    return {"pde": u_t - nu * u_xx}


def mode(p):  # solves the heat equation with nu = 0.1
    return jnp.exp(-0.1 * jnp.pi**2 * p[:1]) * jnp.sin(jnp.pi * p[1:])


GRID = box(t=(0, 1), x=(0, 1)).grid((4, 5))

# An inverse problem: nu is trained, from measurements.
HEAT = Problem(
    name="heat",
    domain=box(t=(0, 1), x=(0, 1)),
    residual=heat_residual,
    conditions={
        "initial": value("t=0", lambda x: jnp.sin(jnp.pi * x[1])),
        "left": value("x=0", 0.0),
        "right": value("x=1", 0.0),
        "measured": data(GRID, np.asarray(jax.vmap(mode)(jnp.asarray(GRID)))),
    },
    points={"residual": 64, "initial": 8, "left": 9, "right": 10},
    unknowns={"nu": 0.5},
)


def field_of(params):
    scale = params["network"]
    return Field(lambda p: scale * mode(p), ("t", "x")), params["unknowns"]


def params(scale=1.0, nu=0.1):
    return {"network": jnp.float32(scale), "unknowns": {"nu": jnp.float32(nu)}}


def test_terms_are_the_residual_and_the_conditions():
    assert HEAT.terms == ("residual", "initial", "left", "right", "measured")
    assert HEAT.coordinates == ("t", "x")
    assert sorted(HEAT.sample(jax.random.key(0))) == sorted(HEAT.terms)


def test_a_problem_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        HEAT.name = "other"


@pytest.mark.parametrize("grouping", ["grouped", "each"])
def test_residual_vectors_have_the_objectives_as_squared_norms(grouping):
    batch = HEAT.sample(jax.random.key(0))
    weights = {"residual": 3.0}
    objectives = HEAT.objectives(field_of, grouping, weights)
    vectors = HEAT.residual_vectors(field_of, grouping, weights)
    assert vectors.keys() == objectives.keys()
    p = params(scale=1.7, nu=0.3)
    for name, vector in vectors.items():
        r = vector(p, batch)
        assert r.ndim == 1
        # 1e-5: float32 sums in another order.
        np.testing.assert_allclose(jnp.sum(r**2), objectives[name](p, batch), rtol=1e-5)
    with pytest.raises(ValueError, match="unknown objective in weights 'residul'"):
        HEAT.residual_vectors(field_of, grouping, {"residul": 1.0})


def test_conditions_on_faces_are_one_objective_and_data_its_own():
    batch = HEAT.sample(jax.random.key(0))
    each = HEAT.objectives(field_of, grouping="each")
    grouped = HEAT.objectives(field_of)
    assert sorted(each) == sorted(HEAT.terms)
    assert sorted(grouped) == ["boundary", "measured", "residual"]
    p = params(scale=1.7, nu=0.3)
    initial = np.asarray(batch["initial"], np.float64)[:, 1]
    # 1e-5: float32 means of a few numbers against float64 ones.
    np.testing.assert_allclose(
        each["initial"](p, batch), np.mean((0.7 * np.sin(np.pi * initial)) ** 2), rtol=1e-5
    )
    faces = sum(each[name](p, batch) for name in ("initial", "left", "right"))
    np.testing.assert_allclose(grouped["boundary"](p, batch), faces, rtol=1e-6)
    for name in ("residual", "measured"):
        np.testing.assert_array_equal(grouped[name](p, batch), each[name](p, batch))
    with pytest.raises(ValueError, match="'paper' is called 'grouped' now"):
        HEAT.objectives(field_of, grouping="paper")


def flow(**changes):
    """Two equations of two outputs, with initial conditions, walls and data."""

    def residual(u, x):
        (u_t, v_t), (u_x, _) = partials(u, x, "t", "x")
        return {"momentum": u_t + 2 * u(x)[1], "mass": v_t - u_x}

    conditions = {
        "left": value("x=0", 0.0, component="u"),
        "start": value("t=0", lambda x: jnp.array([x[1], 1.0])),
        "rate": derivative("t=0", "t", 0.0),
        "end": value("t=1", 0.0),
        "seen": data(GRID, np.ones((20, 2))),
    }
    settings = {
        "name": "flow", "domain": box(t=(0, 1), x=(0, 1)), "residual": residual,
        "conditions": conditions, "outputs": ("u", "v"),
        "points": {"residual": 6, "left": 3, "start": 4, "rate": 4, "end": 5}, **changes,
    }  # fmt: skip
    return Problem(**settings)


def wave(params):
    return Field(lambda x: params * jnp.array([jnp.sin(x[0] + x[1]), x[0] * x[1]]), ("t", "x")), {}


def test_initial_conditions_and_equations_may_be_objectives():
    problem = flow()
    assert problem.equations == ("residual.momentum", "residual.mass")
    assert problem.objective_terms("natural") == {
        "boundary": ("left", "end"),
        "initial": ("start", "rate"),
        "residual.momentum": ("residual.momentum",),
        "residual.mass": ("residual.mass",),
        "seen": ("seen",),
    }
    assert list(problem.objective_terms("all")) == [*problem.equations, *problem.conditions]
    assert HEAT.equations == ("residual",)
    assert sorted(HEAT.objective_terms("natural")) == [
        "boundary",
        "initial",
        "measured",
        "residual",
    ]
    assert HEAT.objective_terms("all") == HEAT.objective_terms("each")
    steady = flow(domain=box(y=(0, 1), x=(0, 1)), residual=lambda u, x: {"pde": u(x)[0]}, points={
        "residual": 6, "left": 3}, conditions={"left": value("x=0", 0.0)})  # fmt: skip
    assert sorted(steady.objective_terms("natural")) == ["boundary", "residual"]


@pytest.mark.parametrize("grouping", ["natural", "all"])
def test_equations_apart_are_the_whole_residual(grouping):
    problem = flow()
    batch = problem.sample(jax.random.key(0))
    whole = problem.objectives(wave, "each")
    found = problem.objectives(wave, grouping, {"residual.mass": 3.0})
    vectors = problem.residual_vectors(wave, grouping, {"residual.mass": 3.0})
    p = jnp.float32(1.3)
    for name, vector in vectors.items():
        # 1e-5: float32 sums in another order.
        np.testing.assert_allclose(jnp.sum(vector(p, batch) ** 2), found[name](p, batch), rtol=1e-5)
    t, x = np.asarray(batch["residual"], np.float64).T
    momentum = 1.3 * (np.cos(t + x) + 2 * t * x)
    mass = 1.3 * (x - np.cos(t + x))
    np.testing.assert_allclose(
        found["residual.momentum"](p, batch), np.mean(momentum**2), rtol=1e-5
    )
    np.testing.assert_allclose(found["residual.mass"](p, batch), 3 * np.mean(mass**2), rtol=1e-5)
    parts = found["residual.momentum"](p, batch) + found["residual.mass"](p, batch) / 3
    np.testing.assert_allclose(parts, whole["residual"](p, batch), rtol=1e-5)


def test_mistakes_about_equations_are_one_line():
    with pytest.raises(ValueError, match="unknown equation 'mas'; did you mean 'mass'"):
        flow().term("residual.mas")(*wave(1.0), jnp.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"a condition cannot be called 'residual\.mass'"):
        flow(conditions={"residual.mass": value("x=0", 0.0)})
    named = flow().adding(initial=data(GRID, np.ones((20, 2))))
    with pytest.raises(ValueError, match="'initial' is the objective of conditions on faces"):
        named.objective_terms("natural")


def test_objectives_vanish_at_the_solution_only_with_the_true_unknown():
    batch = HEAT.sample(jax.random.key(0))
    objectives = HEAT.objectives(field_of)
    for objective in objectives.values():
        assert objective(params(), batch) < 1e-9  # float32 roundings, squared
    grads = jax.grad(objectives["residual"])(params(nu=0.5), batch)
    # u_t - ν u_xx = (ν - 0.1) π² u, so d/dν of its mean square is 2 · 0.4 · π⁴ mean(u²).
    u = np.asarray(jax.vmap(mode)(batch["residual"]), np.float64)
    np.testing.assert_allclose(grads["unknowns"]["nu"], 0.8 * np.pi**4 * np.mean(u**2), rtol=1e-4)


def test_an_objective_needs_only_its_own_points():
    batch = HEAT.sample(jax.random.key(0))
    for name, objective in HEAT.objectives(field_of, grouping="each").items():
        assert objective(params(), {name: batch[name]}).shape == ()


def test_weights_are_factors_of_objectives():
    batch = HEAT.sample(jax.random.key(0))
    p = params(scale=2.0)
    plain = HEAT.objectives(field_of)
    weighted = HEAT.objectives(field_of, weights={"boundary": 10.0})
    np.testing.assert_allclose(
        weighted["boundary"](p, batch), 10 * plain["boundary"](p, batch), rtol=1e-6
    )
    np.testing.assert_array_equal(weighted["residual"](p, batch), plain["residual"](p, batch))


@pytest.mark.long
def test_sampling_and_objectives_run_inside_scan_and_vmap():
    objectives = HEAT.objectives(field_of)

    def step(carry, key):
        return carry, objectives["residual"](carry, HEAT.sample(key))

    keys = jax.random.split(jax.random.key(0), 3)
    _, losses = jax.jit(lambda p: jax.lax.scan(step, p, keys))(params(nu=0.3))
    singly = [objectives["residual"](params(nu=0.3), HEAT.sample(key)) for key in keys]
    np.testing.assert_allclose(losses, singly, rtol=1e-5)  # float32 sums in another order
    many = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[params(nu=v) for v in (0.1, 0.3)])
    values = jax.vmap(lambda p: objectives["residual"](p, HEAT.sample(keys[0])))(many)
    np.testing.assert_allclose(values[1], losses[0], rtol=1e-5)


@pytest.mark.long
def test_points_sampler_and_dtype_can_be_replaced(x64):
    batch = HEAT.sample(jax.random.key(0), {"left": 3}, "latin-hypercube", jnp.float64)
    assert batch["left"].shape == (3, 2)
    assert batch["right"].shape == (10, 2)
    assert {leaf.dtype for leaf in jax.tree.leaves(batch)} == {jnp.dtype(jnp.float64)}
    strata = np.sort(np.floor(np.asarray(batch["residual"]) * 64), axis=0)
    np.testing.assert_array_equal(strata, np.arange(64)[:, None] * np.ones(2))


def test_terms_draw_independent_points():
    batch = HEAT.sample(jax.random.key(0), {"left": 9, "right": 9})
    assert not np.array_equal(batch["left"][:, 0], batch["right"][:, 0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"points": {"residual": 4, "lefty": 3}},
            r"unknown term in points 'lefty'; did you mean 'left'",
        ),
        ({"points": {"residual": 0}}, r"points of 'residual' must be at least 1, got 0"),
        ({"points": {"left": 4}}, r"points must say how many points 'residual' draws"),
        ({"sampler": "unifrom"}, r"unknown sampler 'unifrom'; did you mean 'uniform'"),
        ({"outputs": ()}, r"outputs must be distinct names"),
        ({"conditions": {"residual": value("x=0", 0.0)}}, r"cannot be called 'residual'"),
        (
            {"residual": lambda u, x, nu: {"pde": x}},
            r"heat, residual: 'pde' of the residual must be one number.*has shape \(2,\)",
        ),
        (
            {"residual": lambda u, x, nu: {"pde": u(x)[:, None]}},
            r"must be one number at a point.*has shape \(1, 1\)",
        ),
        ({"residual": lambda u, x, nu: u(x)}, r"residual must return named values"),
        (
            {"reference": lambda points: points[:, 0]},
            r"heat: reference must return \[N, 1\].*each of u, here.*returned \(2,\); add an axis",
        ),
        ({"reference": lambda points: points}, r"here \(2, 1\), but returned \(2, 2\)"),
        (
            {"observe": lambda u, x, nu: u(x)},
            r"heat, observe: observe must return named values",
        ),
        (
            {"observe": lambda u, x, nu: {"flux": x}},
            r"heat, observe: 'flux' of observe must be one number.*has shape \(2,\)",
        ),
        (
            {
                "observe": lambda u, x, nu: {"a": x[0], "b": x[1]},
                "reference": lambda points: points[:, :1],
            },
            r"must return \[N, 2\].*each of a, b, here \(3, 2\), but returned \(3, 1\)",
        ),
    ],
)
def test_a_problem_that_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(HEAT, **changes)


def test_by_default_the_outputs_are_observed():
    assert HEAT.quantities == ("u",)
    field, unknowns = field_of(params(scale=3.0))
    points = jnp.asarray(GRID, jnp.float32)
    observed = HEAT.observed(field, unknowns, points)
    np.testing.assert_array_equal(observed, jax.vmap(field)(points))


def test_quantities_are_observed_in_the_order_of_their_names():
    """Two that are not in alphabetical order, of the field's derivatives and of the unknown."""

    def observe(u, x, nu):
        values, u_x = partials(u, x, "", "x")
        return {"value": values, "flux": -nu * u_x[0]}

    problem = dataclasses.replace(HEAT, observe=observe)
    assert problem.quantities == ("value", "flux")
    points = np.asarray(GRID, np.float32)
    observed = jax.jit(lambda p, points: problem.observed(*field_of(p), points))(
        params(scale=2.0, nu=0.3), points
    )
    t, x = np.asarray(points, np.float64).T
    decay = 2 * np.exp(-0.1 * np.pi**2 * t)
    expected = np.stack(
        [decay * np.sin(np.pi * x), -0.3 * np.pi * decay * np.cos(np.pi * x)], axis=1
    )
    np.testing.assert_allclose(observed, expected, atol=2e-6)  # float32, values up to 2


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"unknown term 'inital'; did you mean 'initial'"):
        HEAT.term("inital")
    with pytest.raises(ValueError, match=r"unknown grouping 'alone'.*known: all, each, grouped"):
        HEAT.objectives(field_of, grouping="alone")
    with pytest.raises(ValueError, match=r"unknown objective in weights 'boundry'"):
        HEAT.objectives(field_of, weights={"boundry": 1.0})
    with pytest.raises(ValueError, match=r"unknown term in points 'boundary'"):
        HEAT.sample(jax.random.key(0), {"boundary": 3})


def test_a_problem_without_conditions_has_one_objective():
    free = dataclasses.replace(HEAT, conditions={}, points={"residual": 4})
    assert list(free.objectives(field_of)) == ["residual"]


# --- mistakes in a user's functions ---------------------------------------------------------------


def not_unpacked(u, x, nu):
    return {"pde": partials(u, x, "t") - nu}


def numpy_function(u, x, nu):
    return {"pde": u(x) - np.sin(x[0])}


def python_if(u, x, nu):
    if x[0] > 0:
        return {"pde": u(x)}
    return {"pde": -u(x)}


def python_float(u, x, nu):
    return {"pde": u(x) * float(x[0])}


def unknown_name(u, x, nu):
    return {"pde": u(x) + viscosity}  # noqa: F821


MISTAKES = {
    not_unpacked: r"partials\(u, x, \"t\"\) - nu.*returns a tuple.*unpack it: \(u_t,\) = partials",
    numpy_function: r"np.sin\(x\[0\]\).*use jax.numpy, such as jnp.sin for np.sin",
    python_if: r"'if x\[0\] > 0:': a Python if.*use jnp.where",
    python_float: r"float\(x\[0\]\).*can't depend on a traced value; use jax.numpy",
    unknown_name: r"NameError: name 'viscosity' is not defined",
    lambda u, x: {"pde": u(x)}: r"unexpected keyword argument 'nu'; it is called with",
    lambda u, nu: {"pde": u(nu)}: r"argument.*it is called with \(u, x, nu=nu\)",
}


@pytest.mark.parametrize("residual", MISTAKES)
def test_a_mistake_in_an_equation_is_the_user_s_line_and_one_sentence(residual):
    with pytest.raises(ValueError, match=MISTAKES[residual]) as said:
        dataclasses.replace(HEAT, residual=residual)
    text = str(said.value)
    assert text.startswith("heat, residual: ") and "\n" not in text
    if residual.__name__ != "<lambda>":
        first = residual.__code__.co_firstlineno
        line = int(re.search(r"test_problem.py, line (\d+)", text)[1])
        assert first < line <= first + 2
    assert said.value.__suppress_context__  # no hundred lines of JAX's above it


def test_a_mistake_in_a_target_or_an_observation_is_one_line_too():
    conditions = {**HEAT.conditions, "left": value("x=0", lambda x: np.sin(x[0]))}
    with pytest.raises(ValueError, match=r"heat, left: .*use jax.numpy"):
        dataclasses.replace(HEAT, conditions=conditions)
    with pytest.raises(ValueError, match=r"heat, observe: .*returns a tuple"):
        dataclasses.replace(HEAT, observe=lambda u, x, nu: {"q": 2 - partials(u, x, "t")})
