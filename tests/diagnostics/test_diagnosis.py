"""The diagnosis of synthetic problems whose regime is known."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import modsync_jax
from modsync_jax import diagnostics, methods
from modsync_jax.diagnostics import CONFLICT, IMBALANCE, LOW, ORTHOGONAL, Bounds

REGIMES = (CONFLICT, IMBALANCE, LOW, ORTHOGONAL)
SIZE = 60  # weights, a multiple of 2 to 6
NOISE = 0.1


def losses(regime, count, key):
    """K quadratics of a known regime: objectives, where they start, and their batches.

    A batch is noise in the position of each minimum, and moves gradients as fresh points do.
    """
    names = "abcdef"[:count]
    keys = jax.random.split(key, 3)
    curvature = jnp.exp(0.5 * jax.random.normal(keys[0], (count, SIZE)))
    far = 5 * jax.random.normal(keys[1], (SIZE,))  # Adam comes 1 closer in 1,000 steps
    minima, scale = jnp.zeros((count, SIZE)), jnp.ones(count)
    if regime == CONFLICT:  # minima of their own, around the start
        minima, far = jax.random.normal(keys[1], (count, SIZE)), jnp.zeros(SIZE)
    if regime == IMBALANCE:
        scale = scale.at[0].set(1e4)
    if regime == ORTHOGONAL:  # weights of their own, which the others hardly feel
        curvature *= 0.01 + jnp.repeat(jnp.eye(count), SIZE // count, axis=1)

    def loss(k, weights, noise):
        return scale[k] * jnp.sum(curvature[k] * (weights - minima[k] - noise[k]) ** 2) / 2

    objectives = {n: lambda w, noise, k=k: loss(k, w, noise) for k, n in enumerate(names)}
    return objectives, far, lambda key: NOISE * jax.random.normal(key, (count, SIZE))


COUNTS = [
    2,
    *[pytest.param(k, marks=pytest.mark.slow) for k in (3, 4, 5)],
    pytest.param(6, marks=pytest.mark.long),
]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("regime", REGIMES)
def test_known_regimes_are_named_rightly_in_98_of_100_seeds(regime, count):
    def rows(key):
        objectives, start, sampler = losses(regime, count, key)
        return diagnostics.observed(objectives, start, sampler, key=key)[1]

    keys = jax.random.split(jax.random.key(count), 100)
    found = jax.device_get(jax.jit(jax.vmap(rows))(keys))
    names, right = tuple("abcdef"[:count]), 0
    for seed in range(100):
        of_seed = [{n: float(c[seed, i]) for n, c in found.items()} for i in range(10)]
        right += diagnostics.judged(of_seed, names, None, Bounds()).regime == regime
    assert right >= 98


def rows(ratio=1.0, cosine=0.5, spread=0.0, opposed=10):
    """Ten rows of two losses, `opposed` of which have a cosine of the other sign."""
    return [
        {
            "norm_ratio": ratio,
            "cosine/a~b": cosine if i < opposed else -cosine,
            "spread/a~b": spread,
        }
        for i in range(10)
    ]


@pytest.mark.parametrize(
    ("seen", "regime", "borderline"),
    [
        (rows(ratio=1e3), IMBALANCE, ()),
        (rows(ratio=1e3, cosine=-0.9), IMBALANCE, (CONFLICT,)),
        (rows(ratio=11.0), IMBALANCE, (LOW,)),
        (rows(ratio=7.0), LOW, (IMBALANCE,)),
        (rows(cosine=-0.9), CONFLICT, ()),
        (rows(cosine=-0.9, opposed=6), CONFLICT, (LOW,)),
        (rows(cosine=-0.9, opposed=4), LOW, (CONFLICT,)),
        (rows(cosine=-0.09), ORTHOGONAL, (LOW,)),
        (rows(cosine=0.01), ORTHOGONAL, ()),
        (rows(cosine=0.01, spread=0.5), LOW, ()),  # transient: zero in the mean alone
        (rows(ratio=math.inf), IMBALANCE, ()),
    ],
)
def test_borderline_cases_name_both_regimes(seen, regime, borderline):
    found = diagnostics.judged(seen, ("a", "b"), None, Bounds())
    assert (found.regime, found.borderline) == (regime, borderline)
    assert methods.parse(found.method) and found.reason.endswith(".")


def test_bounds_are_parameters():
    seen = rows(ratio=20.0)
    assert diagnostics.judged(seen, ("a", "b"), None, Bounds()).regime == IMBALANCE
    assert diagnostics.judged(seen, ("a", "b"), None, Bounds(ratio=100.0)).regime == LOW


def test_evidence_is_of_the_worst_pair(x64):
    rng = np.random.default_rng(0)
    names, pairs = ("a", "b", "c"), ("a~b", "a~c", "b~c")
    seen = [
        {"norm_ratio": rng.uniform(1, 9)}
        | {f"cosine/{p}": rng.uniform(-1, 1) for p in pairs}
        | {f"spread/{p}": rng.uniform(0, 0.3) for p in pairs}
        for _ in range(10)
    ]
    found = diagnostics.evidence(seen, names, Bounds())
    cosines = {p: np.array([row[f"cosine/{p}"] for row in seen]) for p in pairs}
    squares = {p: cosines[p] ** 2 + [row[f"spread/{p}"] ** 2 for row in seen] for p in pairs}
    longest = max(cosines.values(), key=lambda c: (np.mean(c < -0.1), -c.mean()))
    assert found["lasting"] == np.mean(longest < -0.1)
    assert found["lasting_cosine"] == pytest.approx(longest.mean())
    assert found["rms_cosine"] == pytest.approx(max(np.sqrt(s.mean()) for s in squares.values()))
    ratios = [row["norm_ratio"] for row in seen]
    assert found["norm_ratio"] == pytest.approx(np.prod(ratios) ** 0.1)


def test_any_code_can_ask():
    """One function that returns all losses, and parameters that are no network."""

    def both(w, batch):
        return {"up": jnp.mean((w["x"] - batch) ** 2), "down": jnp.mean((w["x"] + batch) ** 2)}

    found = modsync_jax.diagnose(
        both, {"x": jnp.zeros(3)}, lambda key: 1 + 0.1 * jax.random.normal(key, (3,)), steps=50
    )
    assert found.regime == CONFLICT and found.method == "dcgd" and found.names == ("down", "up")
    assert len(found.rows) == 10 and found.rows[0]["batches"] == 5
    assert found.reason.startswith("In 100% of the training, the gradients of down and up point")
    assert "No conflict is seen after" not in found.reason


def test_a_conflict_that_ended_is_said_to_have_ended():
    early = [*rows(cosine=-0.9, opposed=5)]
    found = diagnostics.judged(early, ("a", "b"), None, Bounds())
    assert found.regime == CONFLICT
    assert "No conflict is seen after 50% of the training." in found.reason
    late = diagnostics.judged(early[::-1], ("a", "b"), None, Bounds())
    assert "No conflict is seen after" not in late.reason


def test_the_reason_names_the_pair_in_conflict():
    names = ("a", "b", "c")
    seen = [
        {"norm_ratio": 1.0}
        | {f"cosine/{p}": c for p, c in {"a~b": 0.3, "a~c": -0.4, "b~c": -0.6}.items()}
        | {f"spread/{p}": 0.0 for p in ("a~b", "a~c", "b~c")}
    ] * 10
    assert (
        "the gradients of b and c point" in diagnostics.judged(seen, names, None, Bounds()).reason
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 9}, "steps is 9; a diagnosis needs 10 or more"),
        ({"objectives": {"a": lambda w, _: jnp.sum(w)}}, "two objectives or more, got a"),
        (
            {"objectives": {n: lambda w, _: jnp.sum(jnp.log(w - 1)) for n in "ab"}},
            "the training is not finite",
        ),
    ],
)
def test_what_can_not_be_diagnosed_is_one_line(change, message):
    given = {
        "objectives": {n: lambda w, _: jnp.sum(w**2) for n in "ab"}, "params": jnp.ones(2),
        "sampler": lambda key: None, **change,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        modsync_jax.diagnose(**given)
