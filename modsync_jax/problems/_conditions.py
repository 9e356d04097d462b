"""Conditions: pointwise residuals on points other than the collocation points.

A condition draws its points and defines the residual that vanishes there. All conditions on a face
share one class, which compares an operator of the field (its value, its normal derivative, ...)
with a target.
"""

import dataclasses
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from modsync_jax._names import unknown
from modsync_jax.calculus import Field, directional, partials
from modsync_jax.sampling import Boundary, Domain, Face, Sampler

Target = float | Callable[[Array], ArrayLike]
"""A number for every output, or a function from a point `[d]` to values `[m]` (`[]` if m is 1)."""

Operator = Callable[[Field, Array, Boundary], Mapping[str, Array]]
"""A function from a field, a point `[d]` and its face to values `[m]` by suffix of the names."""


class Condition(Protocol):
    """The interface between a `Problem` and a condition."""

    def sample(
        self, domain: Domain, key: Array, count: int | None, sampler: Sampler, dtype: DTypeLike
    ) -> Any:
        """Returns a pytree of arrays whose leading axis is the points."""
        ...

    def residual(
        self, u: Field, point: Any, domain: Domain, outputs: tuple[str, ...]
    ) -> dict[str, Array]:
        """Returns named scalars that vanish at one point (one entry of what `sample` returned)."""
        ...


@dataclasses.dataclass(frozen=True)
class FaceCondition:
    """An operator of the field equals a target on a face; made by `value`, `robin`, `periodic`, ...

    Attributes:
      face: name of the face, such as `"t=0"`.
      operator: the operator of the field.
      target: the value that the operator must have.
      component: the output to which it applies; all of them when None.
    """

    face: str
    operator: Operator
    target: Target = 0.0
    component: str | None = None

    def sample(
        self, domain: Domain, key: Array, count: int | None, sampler: Sampler, dtype: DTypeLike
    ) -> Array:
        """Returns points `[count, d]` on the face; a count is needed."""
        if count is None:
            raise ValueError(f"a condition on the face {self.face!r} needs a number of points")
        return domain.face(self.face).sample(key, count, sampler, dtype)

    def residual(
        self, u: Field, point: Array, domain: Domain, outputs: tuple[str, ...]
    ) -> dict[str, Array]:
        """Returns operator minus target, scalars, at a point `[d]`."""
        values = self.operator(u, point, domain.face(self.face))
        target = self.target(point) if callable(self.target) else self.target
        return {
            name + suffix: difference
            for suffix, value in values.items()
            for name, difference in _differences(value, target, outputs, self.component).items()
        }


@dataclasses.dataclass(frozen=True, eq=False)
class DataCondition:
    """The field equals measurements; made by `data`.

    Attributes:
      points: the places of the measurements, `[N, d]`.
      values: the measurements, `[N, m]`, or `[N, 1]` with a component.
      component: the output that was measured; all of them when None.
      noise: standard deviations of the measurements in the shape of `values`; residuals are
        divided by them.
    """

    points: np.ndarray
    values: np.ndarray
    component: str | None = None
    noise: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.values.ndim != 2 or len(self.points) != len(self.values):
            raise ValueError(
                "data needs points [N, d] and values [N, m] of the same N, got shapes"
                f" {self.points.shape} and {self.values.shape}"
            )
        if not len(self.points):
            raise ValueError("data has no points; give at least one, or leave the condition out")
        if not (np.isfinite(self.points).all() and np.isfinite(self.values).all()):
            row = int(np.flatnonzero(~np.isfinite(np.c_[self.points, self.values]).all(1))[0])
            raise ValueError(f"data has a number that is not finite in row {row}; leave it out")
        if self.noise is not None and not (
            np.isfinite(self.noise).all() and np.all(self.noise > 0)
        ):
            raise ValueError("the noise of data must be positive numbers, standard deviations")

    def sample(
        self, domain: Domain, key: Array, count: int | None, sampler: Sampler, dtype: DTypeLike
    ) -> dict[str, Array]:
        """Returns all measurements, or `count` different random ones if there are more."""
        if self.points.shape[1] != len(domain.coordinates):
            raise ValueError(
                f"data needs points of the coordinates {', '.join(domain.coordinates)}, got shape"
                f" {self.points.shape}"
            )
        batch = {"point": jnp.asarray(self.points, dtype), "value": jnp.asarray(self.values, dtype)}
        if self.noise is not None:
            batch["noise"] = jnp.asarray(self.noise, dtype)
        if count is None or count >= len(self.points):
            return batch
        rows = jax.random.choice(key, len(self.points), (count,), replace=False)
        return {name: array[rows] for name, array in batch.items()}

    def residual(
        self, u: Field, point: Mapping[str, Array], domain: Domain, outputs: tuple[str, ...]
    ) -> dict[str, Array]:
        """Returns field minus measurement, over the noise if it is known, at one measurement."""
        found = _differences(u(point["point"]), point["value"], outputs, self.component)
        if "noise" not in point:
            return found
        return {
            name: found[name] / noise for name, noise in zip(found, point["noise"], strict=True)
        }


def value(face: str, target: Target, component: str | None = None) -> FaceCondition:
    """Dirichlet or initial condition, `u = target`; arguments as in `FaceCondition`."""
    return FaceCondition(face, lambda u, x, _: {"": u(x)}, target, component)


def derivative(face: str, name: str, target: Target, component: str | None = None) -> FaceCondition:
    """Prescribes a partial derivative: `derivative("t=0", "t", g)` is `u_t(0, x) = g(0, x)`.

    Args:
      face: name of the face.
      name: the derivative, as `calculus.partials` names it.
      target: as in `FaceCondition`.
      component: as in `FaceCondition`.
    """

    def operator(u: Field, x: Array, face: Boundary) -> dict[str, Array]:
        return {f"_{name}": partials(u, x, name)[0]}

    return FaceCondition(face, operator, target, component)


def normal_derivative(face: str, target: Target, component: str | None = None) -> FaceCondition:
    """Neumann condition, `∂u/∂n = target`, n outward; arguments as in `FaceCondition`."""

    def operator(u: Field, x: Array, face: Boundary) -> dict[str, Array]:
        return {"_n": directional(u, x, face.normal(x))[1]}

    return FaceCondition(face, operator, target, component)


def robin(
    face: str, a: float, b: float, target: Target, component: str | None = None
) -> FaceCondition:
    """Robin condition, `a u + b ∂u/∂n = target` with n the outward normal.

    Args:
      face: name of the face.
      a: coefficient of the value.
      b: coefficient of the normal derivative.
      target: as in `FaceCondition`.
      component: as in `FaceCondition`.
    """

    def operator(u: Field, x: Array, face: Boundary) -> dict[str, Array]:
        values, slopes = directional(u, x, face.normal(x))
        return {"": a * values + b * slopes}

    return FaceCondition(face, operator, target, component)


def periodic(face: str, order: int = 1, component: str | None = None) -> FaceCondition:
    """Periodic condition: the field agrees on a face of a box and on the opposite face.

    Args:
      face: name of one of the two faces, such as `"x=1"`.
      order: the highest derivative across the face that must agree; 0 compares values only.
      component: as in `FaceCondition`.

    Raises:
      ValueError: a negative order; a face that has no opposite, when the condition is used.
    """
    if order < 0:
        raise ValueError(f"the order of a periodic condition must be at least 0, got {order}")

    def operator(u: Field, x: Array, face: Boundary) -> dict[str, Array]:
        if not isinstance(face, Face):
            raise ValueError(
                "a periodic condition needs a face with an opposite one, as those of a Box"
            )
        names = [face.coordinate * power for power in range(order + 1)]
        here, there = partials(u, x, *names), partials(u, face.opposite.project(x), *names)
        return {
            f"_{name}" if name else "": one - other
            for name, one, other in zip(names, here, there, strict=True)
        }

    return FaceCondition(face, operator, 0.0, component)


def data(
    points: ArrayLike,
    values: ArrayLike,
    component: str | None = None,
    *,
    noise: ArrayLike | None = None,
) -> DataCondition:
    """Measurements: the field equals `values` at `points`.

    Every step uses all measurements, or a random minibatch if the problem gives a number of points.

    Args:
      points: `[N, d]`.
      values: `[N, m]`, or `[N, 1]` with a component.
      component: the output that was measured; all of them when None.
      noise: standard deviations of the measurements, a number or an array that broadcasts to
        `[N, m]`. Residuals are divided by them, so that the loss of a perfect fit is 1 for each
        component.

    Raises:
      ValueError: the shapes do not fit each other, or (when the condition is used) the problem; or
        a noise that is not positive.
    """
    points, values = np.asarray(points), np.asarray(values)
    if noise is not None:
        try:
            noise = np.broadcast_to(np.asarray(noise, np.float64), values.shape)
        except ValueError:
            raise ValueError(
                f"the noise of data must fit values of the shape {values.shape}, got "
                f"{np.shape(noise)}"
            ) from None
    return DataCondition(points, values, component, noise)


def read_data(
    path: str | os.PathLike,
    points: Sequence[str],
    values: Sequence[str],
    *,
    noise: str | Sequence[str] | float | None = None,
    component: str | None = None,
) -> DataCondition:
    """Measurements from a file with a column for each coordinate and value.

    Args:
      path: a `.csv` file with a first line of names, a `.parquet` file, or a `.npz` file of arrays
        `[N]`.
      points: the columns of the coordinates, in the order of the domain.
      values: the columns of the values, in the order of the outputs; one with a component.
      noise: columns of standard deviations, one or one for each value; or a number.
      component: the output that was measured; all of them when None.

    Raises:
      ValueError: a file of another kind or that can't be read, a column that it lacks or that holds
        other than numbers; and as `data`.
    """
    columns = _columns(Path(path))

    def table(names: Sequence[str]) -> np.ndarray:
        found = []
        for name in names:
            if name not in columns:
                raise unknown(f"column of {path}", name, columns)
            try:
                found.append(np.asarray(columns[name], np.float64))
            except ValueError:
                raise ValueError(
                    f"the column {name!r} of {path} holds other than numbers"
                ) from None
        return np.stack(found, axis=1)

    named = [noise] if isinstance(noise, str) else noise
    known = table(named) if isinstance(named, Sequence) else named
    return data(table(points), table(values), component, noise=known)


def _columns(path: Path) -> Mapping[str, Any]:
    """The columns of a file by name."""
    import pyarrow
    from pyarrow import csv, parquet

    if path.suffix not in (".csv", ".parquet", ".npz"):
        raise ValueError(f"{path} is no .csv, .parquet or .npz file")
    try:
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                return {name: arrays[name] for name in arrays.files}
        found = csv.read_csv(path) if path.suffix == ".csv" else parquet.read_table(path)
    except (OSError, ValueError, pyarrow.ArrowException, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} can't be read: {str(error).splitlines()[0]}") from None
    return {name: found[name].to_numpy() for name in found.column_names}


def _differences(
    values: Array, target: ArrayLike, outputs: tuple[str, ...], component: str | None
) -> dict[str, Array]:
    """Returns `values - target` at one point as named scalars, so that nothing can broadcast."""
    if values.shape != (len(outputs),):
        raise ValueError(
            f"the field must return shape ({len(outputs)},) at a point, one value for each of"
            f" {', '.join(outputs)}, but returned {values.shape}"
        )
    if component is not None:
        if component not in outputs:
            raise unknown("component", component, outputs)
        values, outputs = values[outputs.index(component)][None], (component,)
    if not isinstance(target, int | float):  # a number holds for every output
        target = jnp.asarray(target)
        if target.shape != values.shape and (target.shape, values.shape) != ((), (1,)):
            raise ValueError(
                f"the target must have shape {values.shape} at a point, one value for each of"
                f" {', '.join(outputs)}, but has {target.shape}"
            )
    return dict(zip(outputs, values - target, strict=True))
