"""Problems made from their solution."""

from collections.abc import Callable, Mapping
from typing import Any

from jax import Array

from modsync_jax.calculus import Field
from modsync_jax.problems._base import Problem
from modsync_jax.problems._double import in_double
from modsync_jax.sampling import Domain


def manufactured(
    operator: Callable[[Field, Array], Mapping[str, Array]],
    exact: Callable[[Array], Array],
    *,
    domain: Domain,
    **settings: Any,
) -> Problem:
    """Returns the problem `operator(u) = f`, with the forcing f for which `exact` is the solution.

    This is the method of manufactured solutions (Roache 2002). The forcing is the operator of the
    exact solution, computed by automatic differentiation at every point and in the points' own
    dtype. The reference is the exact solution in float64.

    Args:
      operator: the equation's left side, `(u, x) -> {"pde": value, ...}` as a residual.
      exact: the solution as a JAX function, from a point `[d]` to values `[m]`.
      domain: the region where the equation holds.
      **settings: the other attributes of the `Problem`. Its conditions may take `exact` as target:
        `value("x=0", exact)`.

    Raises:
      ValueError: as `Problem`.

    Example:
      >>> from modsync_jax.calculus import partials
      >>> from modsync_jax.problems import value
      >>> from modsync_jax.sampling import box
      >>> decay = manufactured(
      ...     lambda u, x: {"ode": partials(u, x, "t")[0] + u(x)},
      ...     jnp.exp,
      ...     domain=box(t=(0, 1)),
      ...     name="decay",
      ...     conditions={"initial": value("t=0", jnp.exp)},
      ...     points={"residual": 8, "initial": 1},
      ... )
      >>> zero = Field(jnp.zeros_like, ("t",))
      >>> print(decay.residual(zero, jnp.zeros(1))["ode"])  # -f(0) = -(exp' + exp)(0)
      [-2.]
    """
    solution = Field(exact, domain.coordinates)

    def residual(u: Field, x: Array) -> dict[str, Array]:
        forcing = operator(solution, x)
        return {name: value - forcing[name] for name, value in operator(u, x).items()}

    return Problem(domain=domain, residual=residual, reference=in_double(exact), **settings)
