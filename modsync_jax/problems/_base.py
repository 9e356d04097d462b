"""A PDE problem as data, and the pure functions that training needs of it.

A problem knows neither networks nor training. It draws batches of points from a key, evaluates
named residuals at them, and gathers those into scalar objectives.
"""

import contextvars
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from modsync_jax import blocks, sampling
from modsync_jax._moved import missing
from modsync_jax._names import unknown
from modsync_jax.blocks import Sum
from modsync_jax.calculus import Field
from modsync_jax.problems._conditions import Condition, DataCondition
from modsync_jax.problems._explain import explained
from modsync_jax.problems._unknowns import AnyUnknown, Start, Unknown
from modsync_jax.sampling import Domain, Sampler

Batch = dict[str, Any]
PyTree = Any
Unknowns = Mapping[str, Any]
Objective = Callable[[Any, Batch], Array]

GROUPINGS = ("grouped", "natural", "each", "all")
RESIDUAL = "residual"
# Whether a problem is checked when it is made: not where a family makes it again, in every trace.
_CHECKED = contextvars.ContextVar("checked", default=True)
_PLACES = 1_000  # points at which unknown fields are described


class Weighted(NamedTuple):
    """Points of a term that count differently in its loss, the mean of `w r²`.

    Attributes:
      points: as drawn, arrays whose leading axis is N.
      weights: w, `[N]`, not negative.
    """

    points: Any
    weights: Array


class Family(NamedTuple):
    """The problems of all values of some coefficients, which are unknown.

    Attributes:
      make: from values by keyword to the problem.
      names: the names of the unknown coefficients.
      start: the problem of their starting values.
    """

    make: Callable[..., "Problem"]
    names: tuple[str, ...]
    start: "Problem"


class _Known(NamedTuple):
    """What a problem evaluates at a point, with values in place of its unknowns."""

    domain: Domain
    residual: Callable[..., Mapping[str, Array]]
    conditions: Mapping[str, Condition]
    observe: Callable[..., Mapping[str, Array]] | None


def term_of(part: str) -> str:
    """Returns the term of a part: `"residual"` of its equation `"residual.mass"`."""
    return RESIDUAL if part.startswith(f"{RESIDUAL}.") else part


def points_of(batch: Batch, part: str) -> Any:
    """Returns the points of a part; equations share those of the residual."""
    return batch[term_of(part)]


def without_weights(batch: Batch) -> Batch:
    """Returns a batch whose points all count the same."""
    return {k: p.points if isinstance(p, Weighted) else p for k, p in batch.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """A PDE with its conditions.

    Its terms are `"residual"` and the conditions, by name. Everything is checked when the problem
    is made. For this it is traced once, without computing numbers, so no shape can broadcast into a
    wrong answer later.

    Attributes:
      name: the problem's name.
      domain: the region where the equation holds, such as `box(t=(0, 1), x=(-1, 1))`.
      residual: `(u, x, **unknowns) -> {"pde": value, ...}`, values that vanish for the solution at
        a point `x` of shape `[d]`; each has the shape `[]` or `[1]`.
      conditions: the conditions by name.
      points: the number of points that each term draws; a `data` condition without a number uses
        all its points.
      outputs: names of the m values of the field.
      unknowns: what training finds beside the network, by name; a number is the start of an
        `Unknown`. The residual gets their values by keyword, a field as a `Field`.
      observe: `(u, x, **unknowns) -> {"speed": value, ...}`, the q quantities that pictures show
        and the reference gives, in the form of a residual's values; the outputs by default.
      reference: the quantities of the solution, from points `[N, d]` to values `[N, q]`, if it is
        known.
      coefficients: the values behind residual, conditions and reference, by name: a record from
        which `problems.get` can make the problem again.
      sampler: name of the sampler in `modsync_jax.sampling`.
      standardize: whether the network should see standardised coordinates.
      source: the source of the problem, its settings and its reference.
      family: where `problems.get` made coefficients unknown, the problems of all their values.

    Raises:
      ValueError: something does not fit; one sentence says what.
    """

    name: str
    domain: Domain
    residual: Callable[..., Mapping[str, Array]]
    conditions: Mapping[str, Condition]
    points: Mapping[str, int]
    outputs: tuple[str, ...] = ("u",)
    unknowns: Mapping[str, float | AnyUnknown] = dataclasses.field(default_factory=dict)
    observe: Callable[..., Mapping[str, Array]] | None = None
    reference: Callable[[np.ndarray], ArrayLike] | None = None
    coefficients: Mapping[str, float | Array | AnyUnknown] = dataclasses.field(default_factory=dict)
    sampler: str = "uniform"
    standardize: bool = False
    source: str = ""
    family: Family | None = None

    def __post_init__(self) -> None:
        if not _CHECKED.get():
            return
        for name in self.conditions:
            if term_of(name) == RESIDUAL:
                raise ValueError(
                    f"{self.name}: a condition cannot be called {name!r}, a name of the equation"
                )
        if not self.outputs or len(set(self.outputs)) < len(self.outputs):
            raise ValueError(
                f"{self.name}: outputs must be distinct names, at least one, got {self.outputs}"
            )
        counts, sampler = self._counts(None), sampling.get(self.sampler)
        for name in self.terms:
            try:
                jax.eval_shape(partial(self._trace, name, counts, sampler))
            except Exception as error:
                raise ValueError(f"{self.name}, {name}: {explained(error, self._gets)}") from None
        self._check_observed()

    def __getattr__(self, name: str) -> Any:
        raise missing("Problem", name, {"groups": "Problem.objective_terms"})

    @property
    def _gets(self) -> str:
        known = "".join(f", {name}={name}" for name in self.unknowns)
        return f"(u, x{known}): the field, a point and the unknowns (targets: the point alone)"

    @property
    def coordinates(self) -> tuple[str, ...]:
        """The name of each entry of a point, as in the domain."""
        return self.domain.coordinates

    @property
    def terms(self) -> tuple[str, ...]:
        """`"residual"` and the names of the conditions."""
        return (RESIDUAL, *self.conditions)

    @cached_property
    def equations(self) -> tuple[str, ...]:
        """The parts of the residual: `"residual"`, or `"residual.mass"`, ... if it has several."""
        found = self._names_of(lambda known, u, x: known.residual(u, x))
        return tuple(f"{RESIDUAL}.{name}" for name in found) if len(found) > 1 else (RESIDUAL,)

    @cached_property
    def quantities(self) -> tuple[str, ...]:
        """Names of the q quantities that pictures show and the reference gives."""
        return tuple(self._names_of(self._observe))

    def _names_of(self, values: Callable[[_Known, Field, Array], Mapping[str, Array]]) -> list[str]:
        """The names of the values at a point, in their order."""
        names: list[str] = []

        def trace(x: Array) -> None:  # `eval_shape` sorts dictionaries
            names.extend(values(self._known(self._first_values()), self._any_field(), x))

        jax.eval_shape(trace, jnp.zeros(len(self.coordinates)))
        return names

    @property
    def measured(self) -> dict[str, DataCondition]:
        """The conditions that are measurements, by name."""
        return {n: c for n, c in self.conditions.items() if isinstance(c, DataCondition)}

    @property
    def truths(self) -> dict[str, float]:
        """The true values of unknown numbers by name, `c[0]`, ... of a vector, where known."""
        numbers = {n: u for n, u in self.trained.items() if isinstance(u, Unknown)}
        found = [u.labelled(n, u.truth) for n, u in numbers.items() if u.truth is not None]
        return {name: value for of in found for name, value in of.items()}

    @cached_property
    def trained(self) -> dict[str, AnyUnknown]:
        """The unknowns by name, those given as numbers too."""
        return {
            name: Unknown(given) if isinstance(given, float | int) else given
            for name, given in self.unknowns.items()
        }

    def begin(self, key: Array, dtype: DTypeLike = jnp.float32) -> dict[str, PyTree]:
        """Returns what is trained of the unknowns, at their start.

        Args:
          key: a PRNG key, for unknown fields.
          dtype: the floating dtype of the numbers.
        """
        return {
            name: sought.begin(jax.random.fold_in(key, index), dtype)
            for index, (name, sought) in enumerate(self.trained.items())
        }

    def values(self, trained: Mapping[str, PyTree]) -> dict[str, Any]:
        """Returns the values of the unknowns from what is trained of them.

        Numbers are arrays `[]` or `[n]`, and fields are `Field`s.
        """
        return {
            name: sought.value(trained[name], self.coordinates)
            for name, sought in self.trained.items()
        }

    def readings(self, values: Unknowns) -> dict[str, Array]:
        """Returns single numbers that describe the unknowns, for tables and figures.

        Args:
          values: what `values` returned.

        Returns:
          A number by its name, and the numbers of a vector as `c[0]`, `c[1]`, ...; of a field the
          mean over the domain, as `k (mean)`, and its relative L2 error as `k (error)` if the truth
          is known.
        """
        found: dict[str, Array] = {}
        for name, sought in self.trained.items():
            if isinstance(sought, Unknown):
                found |= sought.labelled(name, values[name])
                continue
            with jax.ensure_compile_time_eval():
                uniform = sampling.get("uniform")
                points = self.domain.sample(jax.random.key(0), _PLACES, uniform, jnp.float32)
            at_points = jax.vmap(values[name])(points)[:, 0]
            found[f"{name} (mean)"] = at_points.mean()
            if sought.truth is not None:
                true = np.reshape(sought.truth(np.asarray(points, np.float64)), -1)
                error = jnp.linalg.norm(at_points - true) / np.linalg.norm(true)
                found[f"{name} (error)"] = error
        return found

    def adding(self, **conditions: Condition) -> "Problem":
        """Returns the problem with further conditions, such as `measurements=data(...)`.

        Raises:
          ValueError: a name that is in use, and as `Problem`.
        """
        for name in conditions:
            if name in self.terms:
                raise ValueError(f"{self.name} has a condition {name!r} already; take another name")
        return dataclasses.replace(self, conditions={**self.conditions, **conditions})

    def sample(
        self,
        key: Array,
        points: Mapping[str, int] | None = None,
        sampler: str | None = None,
        dtype: DTypeLike = jnp.float32,
    ) -> Batch:
        """Draws the points of every term.

        Args:
          key: a PRNG key.
          points: numbers of points that replace the problem's own.
          sampler: name of a sampler that replaces the problem's own.
          dtype: floating dtype of the points.

        Returns:
          For each term a pytree of arrays whose leading axis is its points: `[N, d]` for all but
          measurements.

        Raises:
          ValueError: points for a term that does not exist, no points for an existing term, a
            number below 1, or an unknown sampler.
        """
        counts = self._counts(points)
        draw = sampling.get(sampler or self.sampler)
        keys = jax.random.split(key, len(self.terms))
        return {
            name: self._draw(name, keys[i], counts, draw, dtype)
            for i, name in enumerate(self.terms)
        }

    def term(self, name: str) -> Callable[[Field, Unknowns, Any], dict[str, Array]]:
        """Returns the pointwise residuals of one term, `(u, unknowns, points) -> {"pde": [N]}`.

        The points are `batch[name]`, or the same as `Weighted`. `"residual.mass"` is the residual's
        equation `mass` alone, at the residual's points.

        Raises:
          ValueError: no such term; when the function is traced, a value of the wrong shape.
        """
        if term_of(name) not in self.terms:
            raise unknown("term", name, self.terms)
        if term_of(name) != name:
            return self._equation(name)

        def at_point(known: _Known, u: Field, point: Any) -> dict[str, Array]:
            if isinstance(point, Weighted):
                root = jnp.sqrt(point.weights)
                return {k: root * r for k, r in at_point(known, u, point.points).items()}
            if name == RESIDUAL:
                return _scalars(known.residual(u, point), "the residual")
            return known.conditions[name].residual(u, point, known.domain, self.outputs)

        def pointwise(u: Field, unknowns: Unknowns, points: Any) -> dict[str, Array]:
            return jax.vmap(partial(at_point, self._known(unknowns), u))(points)

        return pointwise

    def _equation(self, part: str) -> Callable[[Field, Unknowns, Any], dict[str, Array]]:
        whole, name = self.term(RESIDUAL), part.removeprefix(f"{RESIDUAL}.")

        def pointwise(u: Field, unknowns: Unknowns, points: Any) -> dict[str, Array]:
            found = whole(u, unknowns, points)
            if name not in found:
                raise unknown("equation", name, found)
            return {name: found[name]}

        return pointwise

    def pointwise(self, u: Field, unknowns: Unknowns, batch: Batch) -> dict[str, dict[str, Array]]:
        """Returns all residual vectors, `{"residual": {"pde": [N]}, "left": {"u": [N]}}`."""
        return {name: self.term(name)(u, unknowns, points) for name, points in batch.items()}

    def observed(self, u: Field, unknowns: Unknowns, points: Array) -> Array:
        """Returns the quantities `[N, q]` of a field at points `[N, d]`, ordered as their names."""
        known = self._known(unknowns)

        def at_point(x: Array) -> Array:
            return jnp.stack(list(self._observe(known, u, x).values()))

        return jax.vmap(at_point)(points)

    def objective_terms(self, grouping: str = "grouped") -> dict[str, tuple[str, ...]]:
        """Returns the terms of each objective, or parts of the residual.

        Args:
          grouping: `"grouped"` for the paper's two objectives, `"residual"` and `"boundary"` (all
            conditions on faces), and one more for each `data` condition, by its own name;
            `"natural"` for the same with initial conditions apart, `"initial"`, and with each of
            several equations apart, `"residual.mass"`; `"each"` for every term by its own name;
            `"all"` for every condition and every equation.

        Raises:
          ValueError: another grouping, or a data condition that is called `"boundary"` beside
            others.
        """
        if grouping == "paper":
            raise ValueError("objectives='paper' is called 'grouped' now")
        if grouping not in GROUPINGS:
            raise unknown("grouping", grouping, GROUPINGS)
        equations = self.equations if grouping in ("natural", "all") else (RESIDUAL,)
        if grouping in ("each", "all"):
            return {name: (name,) for name in (*equations, *self.conditions)}
        of_data = self.measured
        groups = dict.fromkeys((n for n in self.conditions if n not in of_data), "boundary")
        if grouping == "natural":
            groups |= dict.fromkeys(self._initial, "initial")
        for name in groups.values():
            if name in of_data:
                raise ValueError(
                    f"{self.name}: {name!r} is the objective of conditions on faces; give the data "
                    "condition another name"
                )
        found: dict[str, tuple[str, ...]] = {}
        for condition, name in groups.items():
            found[name] = (*found.get(name, ()), condition)
        return found | {name: (name,) for name in (*equations, *of_data)}

    @property
    def _initial(self) -> list[str]:
        """The conditions at the first time."""
        start = next((face for face in self.domain.faces if face.startswith("t=")), "")
        return [n for n, c in self.conditions.items() if getattr(c, "face", None) == start]

    def term_losses(
        self,
        field_of: Callable[[Any], tuple[Field, Unknowns]],
        block_points: int | None = None,
        place: Callable[[Any], Any] = lambda points: points,
    ) -> dict[str, Objective]:
        """Returns the mean square of each term, summed over its named values, without weights.

        Args:
          field_of: from trained parameters to the field and the unknowns.
          block_points: the number of points of a term that memory holds at once, all by default;
            see `modsync_jax.blocks.summed`.
          place: a function that gets the points of a term, or a block of them, before their
            residuals are computed, and places them on devices.

        Returns:
          For each term a pure function `(params, batch) -> scalar`, where `batch` is what `sample`
          returned.

        Raises:
          ValueError: a block of no points.
        """
        return self._means(self.terms, field_of, block_points, place)

    def _means(
        self,
        parts: Iterable[str],
        field_of: Callable[[Any], tuple[Field, Unknowns]],
        block_points: int | None,
        place: Callable[[Any], Any],
    ) -> dict[str, Objective]:
        """The mean squares of terms, or of parts of the residual; see `term_losses`."""

        def sum_of_squares(part: str, params: Any, points: Any) -> Array:
            residuals = self.term(part)(*field_of(params), place(points))
            return jnp.sum(jnp.stack([jnp.sum(jnp.square(r)) for r in residuals.values()]))

        sums: dict[str, Sum] = {part: partial(sum_of_squares, part) for part in parts}
        if block_points is not None:
            sums = {part: blocks.summed(function, block_points) for part, function in sums.items()}

        def mean(part: str, params: Any, batch: Batch) -> Array:
            points = points_of(batch, part)
            return sums[part](params, points) / _count(points)

        return {part: partial(mean, part) for part in sums}

    def objectives(
        self,
        field_of: Callable[[Any], tuple[Field, Unknowns]],
        grouping: str = "grouped",
        weights: Mapping[str, float | Array] | None = None,
        block_points: int | None = None,
        place: Callable[[Any], Any] = lambda points: points,
    ) -> dict[str, Objective]:
        """Returns the scalar objectives, each a function of its own points only.

        An objective is the sum over its terms of their losses.

        Args:
          field_of: from trained parameters to the field and the unknowns.
          grouping: as in `objective_terms`.
          weights: fixed factors by objective, 1 where none is given.
          block_points: as in `term_losses`.
          place: as in `term_losses`.

        Returns:
          For each objective a pure function `(params, batch) -> scalar`, where `batch` is what
          `sample` returned.

        Raises:
          ValueError: an unknown grouping, a weight for an objective that does not exist, or a block
            of no points.
        """
        weighted = self._weighted_groups(grouping, weights)
        parts = [part for _, own in weighted.values() for part in own]
        means = self._means(parts, field_of, block_points, place)

        def objective(
            weight: float | Array, own: tuple[str, ...], params: Any, batch: Batch
        ) -> Array:
            return weight * jnp.sum(jnp.stack([means[part](params, batch) for part in own]))

        return {name: partial(objective, *of) for name, of in weighted.items()}

    def residual_vectors(
        self,
        field_of: Callable[[Any], tuple[Field, Unknowns]],
        grouping: str = "grouped",
        weights: Mapping[str, float | Array] | None = None,
    ) -> dict[str, Callable[[Any, Batch], Array]]:
        """Returns each objective's residuals as one vector; its squared norm is the objective.

        Pointwise residuals are scaled by the root of weight / points. Tangent kernels are those of
        these vectors. Arguments and errors as in `objectives`.

        Returns:
          For each objective a pure function `(params, batch) -> [M]`.
        """

        def vector(weight: float | Array, own: tuple[str, ...], params: Any, batch: Batch) -> Array:
            u, unknowns = field_of(params)
            residuals = self.pointwise(u, unknowns, {p: points_of(batch, p) for p in own})
            named = [r for values in residuals.values() for r in values.values()]
            return jnp.concatenate([jnp.sqrt(weight / len(r)) * r for r in named])

        weighted = self._weighted_groups(grouping, weights).items()
        return {name: partial(vector, weight, terms) for name, (weight, terms) in weighted}

    def _weighted_groups(
        self, grouping: str, weights: Mapping[str, float | Array] | None
    ) -> dict[str, tuple[float | Array, tuple[str, ...]]]:
        """Returns each objective's weight and parts."""
        groups, weights = self.objective_terms(grouping), weights or {}
        for name in weights:
            if name not in groups:
                raise unknown("objective in weights", name, groups)
        return {name: (weights.get(name, 1.0), parts) for name, parts in groups.items()}

    def _counts(self, points: Mapping[str, int] | None) -> dict[str, int]:
        counts = {**self.points, **(points or {})}
        for name, count in counts.items():
            if name not in self.terms:
                raise unknown("term in points", name, self.terms)
            if count < 1:
                raise ValueError(f"points of {name!r} must be at least 1, got {count}")
        if "residual" not in counts:
            raise ValueError("points must say how many points 'residual' draws")
        return counts

    def _draw(
        self, name: str, key: Array, counts: Mapping[str, int], sampler: Sampler, dtype: DTypeLike
    ) -> Any:
        if name == RESIDUAL:
            return self.domain.sample(key, counts[name], sampler, dtype)
        return self.conditions[name].sample(self.domain, key, counts.get(name), sampler, dtype)

    def _trace(self, name: str, counts: Mapping[str, int], sampler: Sampler) -> dict[str, Array]:
        """Evaluates one term of an arbitrary smooth field, to find its shapes."""
        points = self._draw(name, jax.random.key(0), counts, sampler, jnp.float32)
        return self.term(name)(self._any_field(), self._first_values(), points)

    def _first_values(self) -> dict[str, Any]:
        return self.values(self.begin(jax.random.key(0)))

    def _any_field(self) -> Field:
        return Field(lambda x: jnp.full(len(self.outputs), jnp.sum(x)), self.coordinates)

    def _known(self, unknowns: Unknowns) -> _Known:
        """Returns this problem with values of its unknowns, in all that they change."""
        observe = self.observe and partial(self.observe, **unknowns)
        own = _Known(self.domain, partial(self.residual, **unknowns), self.conditions, observe)
        if self.family is None:
            return own
        names, start = self.family.names, self.family.start
        rest = {name: value for name, value in unknowns.items() if name not in names}
        checked = _CHECKED.set(False)
        try:
            made = self.family.make(**_numbers(unknowns, names))._known(rest)
        finally:
            _CHECKED.reset(checked)
        conditions = {
            name: made.conditions[name] if condition is start.conditions.get(name) else condition
            for name, condition in self.conditions.items()
        }
        # From the family, unless it was replaced in this problem.
        return _Known(
            (made if self.domain is start.domain else own).domain,
            (made if self.residual is start.residual else own).residual,
            conditions,
            (made if self.observe is start.observe else own).observe,
        )

    def _observe(self, known: _Known, u: Field, x: Array) -> dict[str, Array]:
        """Returns the quantities at one point, as scalars."""
        if known.observe is None:
            return dict(zip(self.outputs, u(x), strict=True))
        return _scalars(known.observe(u, x), "observe")

    def _check_observed(self) -> None:
        try:
            q = len(self.quantities)
        except Exception as error:
            raise ValueError(f"{self.name}, observe: {explained(error, self._gets)}") from None
        if self.reference is None:
            return
        points = np.tile(self.domain.mean, (q + 1, 1))  # N is not q: no match by accident
        try:
            shape = np.shape(self.reference(points))
        except jax.errors.TracerArrayConversionError:
            return  # coefficients are traced, but a reference needs numbers
        if shape != (q + 1, q):
            hint = "; add an axis, values[:, None]" if len(shape) == 1 else ""
            raise ValueError(
                f"{self.name}: reference must return [N, {q}] for points [N, d], a column for each"
                f" of {', '.join(self.quantities)}, here {(q + 1, q)}, but returned {shape}{hint}"
            )


def _numbers(unknowns: Unknowns, names: tuple[str, ...]) -> dict[str, Any]:
    """The arguments of a family; numbers that are no tracers as floats, whose range is known."""

    def argument(value: Any) -> Any:
        traced = isinstance(value, jax.core.Tracer) or not isinstance(value, Array)
        return value if traced or value.ndim else Start(value)

    return {name: argument(unknowns[name]) for name in names}


def _count(points: Any) -> int:
    """Returns N, the leading axis of all arrays in the points of a term."""
    return len(jax.tree.leaves(points)[0])


def _scalars(values: Mapping[str, Array], owner: str) -> dict[str, Array]:
    """Returns named values at a point as scalars, so that nothing can broadcast."""
    if not isinstance(values, Mapping) or not values:
        raise ValueError(f"{owner} must return named values, {{'pde': ...}}, but returned {values}")
    for name, value in values.items():
        if jnp.shape(value) not in ((), (1,)):
            raise ValueError(
                f"{name!r} of {owner} must be one number at a point, shape () or (1,), but has"
                f" shape {jnp.shape(value)}; name each one of several"
            )
    return {name: jnp.reshape(value, ()) for name, value in values.items()}
