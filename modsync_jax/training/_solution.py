"""A trained network, and a way to read one from its run's folder."""

import dataclasses
import os
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from modsync_jax import loss_indexed, methods, networks, reporting
from modsync_jax._names import listed
from modsync_jax.calculus import Field
from modsync_jax.problems import Problem
from modsync_jax.training import _export, _folder

PyTree = Any
_EVALUATED_AT_ONCE = 2**17  # coordinates of points at once: 64 MB for a derivative by each


@dataclasses.dataclass(frozen=True)
class Solution:
    """A trained network: call it with points.

    Attributes:
      network: the Flax module.
      coordinates: the name of each entry of a point.
      params: its parameters and the unknowns, `{"network": ..., "unknowns": ...}`, with masks
        applied.
      trained: the parameters as they were trained; `ModSyncParams` for a method with thresholds.
      result: the content of `result.json`; empty for a run that is not finished.
      metrics: the rows of `metrics.csv`.
    """

    network: nn.Module
    coordinates: tuple[str, ...]
    params: PyTree
    trained: PyTree
    result: Mapping[str, Any]
    metrics: list[_folder.Row]

    def __repr__(self) -> str:
        kind, outcome = type(self.network).__name__, "not finished"
        if self.result:
            errors = self.result["errors"]
            value = errors["relative_l2"]["selected"] if errors else self.result["loss"]["selected"]
            measure = "relative L2 error" if errors else "loss"
            by = self.result.get("trained_by", self.result["method"])
            outcome = f"{self.result['problem']} by {by}: {measure} {value:.2e}"
            outcome += f" at step {self.result['selected_step']:,}"
        within = {n: f" ({low:.4g} to {high:.4g})" for n, (low, high) in self.intervals.items()}
        named = "".join(f", {n} = {v:.4g}{within.get(n, '')}" for n, v in self.unknowns.items())
        points = f"points [N, {len(self.coordinates)}] of ({listed(self.coordinates)})"
        return f"Solution: {outcome}{named}\n  {kind} of {self.size:,} parameters\n  u({points})"

    @property
    def unknowns(self) -> dict[str, float]:
        """The numbers found for the problem's unknown coefficients, by name.

        A vector has an entry for each of its numbers, `c[0]`, and a field its mean over the domain.
        """
        if self.result:
            return dict(self.result["unknowns"])
        return reporting.unknowns(self.metrics[-1]) if self.metrics else {}

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """The 95% confidence intervals of the unknown numbers, by name.

        They need measurements and at most 5,000 parameters, and come from the Gauss-Newton matrix.
        """
        found = self.result.get("intervals", {})
        return {name: (low, high) for name, (low, high) in found.items()}

    @property
    def size(self) -> int:
        """The number of the network's parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params["network"]))

    @property
    def field(self) -> Field:
        """The network as a field, for the derivatives of `modsync_jax.calculus`."""
        return field_of(self.network, self.coordinates, self.params["network"])

    def __call__(self, points: Array | np.ndarray) -> Array:
        """The field's values `[N, m]` at points `[N, d]`."""
        return self._evaluate(jax.vmap(self.field), points)

    def values(self, problem: Problem) -> dict[str, Any]:
        """The values of the problem's unknowns: arrays `[]` or `[n]`, and fields as `Field`s."""
        return problem.values(self.params["unknowns"])

    def observed(self, problem: Problem, points: Array | np.ndarray) -> Array:
        """The problem's observed quantities `[N, q]` at points `[N, d]`."""
        observed = partial(problem.observed, self.field, self.values(problem))
        return self._evaluate(observed, points)

    def residuals(self, problem: Problem, points: Array | np.ndarray) -> dict[str, Array]:
        """The residuals of the equation at points `[N, d]`, `[N]` by name."""
        term = partial(problem.term("residual"), self.field, self.values(problem))
        return self._evaluate(term, points)

    def export(self, folder: str | os.PathLike, outputs: tuple[str, ...] = ()) -> list[Path]:
        """Writes the network for other programs, as plain NumPy and as a program of JAX.

        `network.py` and `network.npz` need NumPy alone: `from network import network`. What
        `network.jax` holds needs JAX alone, on a CPU, GPU or TPU, and takes any number of points:
        `jax.export.deserialize(path.read_bytes()).call(points)`.

        Args:
          folder: the folder for the files; it need not exist.
          outputs: the names of the values, for the docstring of the NumPy function.

        Returns:
          The files: `network.jax` alone for a network of the user's own.
        """
        return _export.write(self, folder, outputs)

    def _evaluate(self, function: Callable[[Array], Any], points: Array | np.ndarray) -> Any:
        points = jnp.asarray(points, jax.tree.leaves(self.params)[0].dtype)
        if points.ndim != 2:
            raise ValueError(f"points have the shape {list(points.shape)}; it must be [N, d]")
        with jax.default_matmul_precision("highest"):
            at_once = _EVALUATED_AT_ONCE // points.shape[1]
            chunks = jnp.array_split(points, 1 + len(points) // at_once)
            parts = [function(chunk) for chunk in chunks]
            return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def field_of(network: nn.Module, coordinates: tuple[str, ...], variables: PyTree) -> Field:
    """Returns a network with its variables as a field, which takes jets if the network does."""

    def u(x: Any) -> Any:
        return network.apply(variables, x)

    return Field(u, coordinates, getattr(network, "takes_jets", False))


def load(run: str | os.PathLike, *, network: nn.Module | None = None) -> Solution:
    """Loads the best parameters of a run so far; `load("runs/x")(points)` evaluates them.

    Damaged checkpoints are skipped with a warning. A result that belongs to other parameters than
    the returned ones is then left out.

    Args:
      run: the run's folder.
      network: the module, if the run was trained with a module of the user's.

    Raises:
      RunError: when the folder holds no run or no checkpoint, or needs another network.
    """
    config = _folder.read_config(run)
    if network is None:
        if config["architecture"] is None:
            raise _folder.RunError(
                f"{run} was trained with a network of its own; give load(run, network=)"
            )
        kind = networks.NETWORKS[config["network"]]
        network = kind(**config["architecture"], param_dtype=jnp.dtype(config["dtype"]))
    step, trained = _folder.read_best(run, warnings.warn)
    result = _folder.read_result(run) if (Path(run) / "result.json").exists() else {}
    if result and result["steps"] != step:
        warnings.warn(
            f"the parameters in {run} are those of step {step}, but its result is that of step "
            f"{result['steps']}, which is left out",
            stacklevel=2,
        )
        result = {}
    method = config["method"]
    beside = loss_indexed.NONE if method == methods.OWN else methods.indexed(method)
    return Solution(
        network,
        tuple(config["coordinates"]),
        beside.export(trained),
        trained,
        result,
        [row for row in _folder.read_metrics(run) if row["step"] <= step],
    )
