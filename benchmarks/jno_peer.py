"""The package `jax-numerical-operators` (jNO) on its own losses, points and optimiser.

Its SSBroyden minimises the sum of its mean squares, in a network of the size of the recipe's. Its
points stay, as in its examples: its optimiser takes the gradient's change at a draw for curvature,
and Burgers blew up with redrawn points. A seed is that of the network; the points are those of the
package's own seed. Its own loss selects. The package needs Python 3.12 and
brings mesh generators, so it has an environment of its own:

    python3.12 -m venv .venv-jno
    .venv-jno/bin/pip install -e . jax-numerical-operators
    .venv-jno/bin/python -m benchmarks.frontier --peers=jno --problems=burgers,helmholtz2d
"""

import time
from typing import Any

import equinox as eqx
import foundax
import jax
import jax.numpy as jnp
import jno
import numpy as np
from jax import Array
from jno.utils.adaptive.callbacks import Callback

from modsync_jax import problems
from modsync_jax.training import TrainConfig, _measure

from . import rows

_EVERY = 50  # iterations between two evaluations
_MOST = 10_000_000  # iterations, more than any run takes


def train(
    problem: str, settings: dict[str, Any], started: float, seconds: float, kept: int
) -> dict[str, Any]:
    """Trains until so many seconds after `started`, and returns what a row of results holds."""
    if problem not in _EQUATIONS:
        raise SystemExit(f"jno has no {problem} here; it has {', '.join(_EQUATIONS)}")
    config = TrainConfig.from_settings(settings)
    found = problems.get(problem)
    jno.setup("runs/jno")
    mlp = foundax.mlp(
        in_features=2,
        hidden_dims=config.width,
        num_layers=config.depth,
        activation=jnp.tanh,
        key=jax.random.key(config.seed),
    )
    network = jno.nn(mlp)
    network.optimizer(jno.optimizers.ssbroyden())
    inside, face = 2 * config.points["residual"], 2 * min(found.points.values())
    losses = _EQUATIONS[problem](network, inside, face)
    watch = _Watch(_measure.references(found, config), started, seconds)
    jno.core(losses).solve(_MOST, callbacks=[watch])
    times, errors, scores = zip(*watch.seen, strict=True)
    return {
        "parameters": sum(x.size for x in jax.tree.leaves(eqx.filter(mlp, eqx.is_inexact_array))),
        "loss_weights": {},
        "steps": watch.steps,
        **rows.history(times, errors, scores, kept),
    }


class _Watch(Callback):
    """Looks at the network every 50 iterations, and ends the run when its time is over."""

    def __init__(self, references: dict[str, tuple[Array, Array]], started: float, seconds: float):
        self.points, self.true = references["test"]
        self.started, self.seconds = started, seconds
        self.seen: list[tuple[float, float, float]] = []
        self.steps = 0
        self.static: Any = None

    def on_solve_begin(self, **solver: Any) -> None:
        self.static = eqx.combine(solver["static"], solver["frozen"])
        self.values = eqx.filter_jit(lambda network: jax.vmap(network)(self.points))

    def on_epoch_end(self, **solver: Any) -> bool:
        self.steps += 1
        if solver["epoch"] % _EVERY:
            return False
        (network,) = eqx.combine(solver["trainable"], self.static).values()
        error = self.values(network) - self.true
        relative = float(jnp.linalg.norm(error) / jnp.linalg.norm(self.true))
        now = time.time() - self.started
        self.seen.append((now, relative, float(solver["total_loss"])))
        return now >= self.seconds


def _field(network: Any, domain: Any, tag: str, count: int) -> tuple[Any, Any, Any]:
    """The two coordinates on a part of a rectangle, and the network's field there."""
    one, other, _ = domain.variable(tag, sample=(count, None), split=True)
    return one, other, network(jno.np.concat([one, other], axis=-1)).bind(x=one, y=other)


def _burgers(network: Any, inside: int, face: int) -> list[Any]:
    """Time is the first coordinate of the rectangle."""
    domain = jno.shape.rect(0.0, -1.0, 1.0, 1.0).domain()
    _, _, u = _field(network, domain, "interior", inside)
    equation = u.x + u * u.y - 0.01 / np.pi * u.yy
    _, x, start = _field(network, domain, "left", face)
    sides = [_field(network, domain, side, face)[2] for side in ("bottom", "top")]
    return [equation.mse, (start + jno.np.sin(np.pi * x)).mse, *(u.mse for u in sides)]


def _helmholtz2d(network: Any, inside: int, face: int) -> list[Any]:
    domain = jno.shape.rect(-1.0, -1.0, 1.0, 1.0).domain()
    x, y, u = _field(network, domain, "interior", inside)
    exact = jno.np.sin(np.pi * x) * jno.np.sin(4 * np.pi * y)
    equation = u.xx + u.yy + u - (1 - 17 * np.pi**2) * exact
    sides = [_field(network, domain, side, face)[2] for side in ("left", "right", "bottom", "top")]
    return [equation.mse, *(u.mse for u in sides)]


_EQUATIONS = {"burgers": _burgers, "helmholtz2d": _helmholtz2d}
