"""Dense quasi-Newton methods of the self-scaled Broyden family."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.flatten_util import ravel_pytree

from modsync_jax._ranges import check_range

PyTree = Any
Scaling = Callable[[Array, Array, int], tuple[Array, Array]]
"""A member of the family: from b, h and the number n of parameters to φ and τ."""

_FEW = 1e-8  # of |s| |y|: a smaller s·y holds no information about the curvature
_GROWTH = 1.5  # of the first step of a line search after one that needed no second step
_SHORTEST = 0.05  # first step of a line search


class SelfScaledState(NamedTuple):
    """State of a dense quasi-Newton method.

    `optax.value_and_grad_from_state` reads the value and the gradient, so that no iteration
    computes them twice.

    Attributes:
      count: steps since the inverse Hessian was the identity, [] int32.
      inverse_hessian: its approximation H, `[n, n]`.
      value: the loss at the present parameters, [], or infinity when it is not known.
      grad: the loss's gradient there, in the structure of the parameters.
      evaluations: evaluations of the loss and its gradient in the latest line search, [] int32.
      trial: the first step that the next line search tries, in units of the direction, [].
    """

    count: Array  # type: ignore[assignment]
    inverse_hessian: Array
    value: Array
    grad: PyTree
    evaluations: Array
    trial: Array

    def restarted(self, inverse_hessian: Array) -> "SelfScaledState":
        """Returns the state with another H `[n, n]`, if all of its entries are finite."""
        finite = jnp.isfinite(inverse_hessian).all()
        return self._replace(
            count=jnp.where(finite, jnp.maximum(self.count, 1), self.count),
            inverse_hessian=jnp.where(finite, inverse_hessian, self.inverse_hessian),
            trial=jnp.where(finite, 1.0, self.trial),
        )


def bfgs(*, max_evaluations: int = 20) -> optax.GradientTransformationExtraArgs:
    """BFGS: φ = 1 and τ = 1 in the family of `ssbroyden`, where arguments and errors stand."""
    return _quasi_newton(lambda b, h, n: (jnp.ones_like(b), jnp.ones_like(b)), max_evaluations)


def ssbfgs(*, max_evaluations: int = 20) -> optax.GradientTransformationExtraArgs:
    """Self-scaled BFGS: φ = 1 and τ = min(1, 1/b) in the family of `ssbroyden`.

    Arguments and errors stand there.

    References:
      Al-Baali, Computational Optimization and Applications 9, 1998; Urbán, Stefanou & Pons,
      arXiv:2405.04230.
    """
    return _quasi_newton(
        lambda b, h, n: (jnp.ones_like(b), jnp.minimum(1.0, 1.0 / b)), max_evaluations
    )


def ssbroyden(*, max_evaluations: int = 20) -> optax.GradientTransformationExtraArgs:
    """Self-scaled Broyden, a quasi-Newton method with a dense inverse Hessian H and a line search.

    With the step s, the change y of the gradient, `b = sᵀH⁻¹s / yᵀs` and `h = yᵀHy / yᵀs`, the
    family is

        H₊ = (H - Hy yᵀH / yᵀHy + φ (yᵀHy) v vᵀ) / τ + s sᵀ / yᵀs,   v = s / yᵀs - Hy / yᵀHy,

    and φ and τ follow from b and h. Memory and time of a step grow with n² for n parameters. H
    starts as the identity, and is scaled before its first update (Nocedal & Wright, Eq. 6.20). The
    line search is `_search`. It first tries the step that the one before found, or 1.5 times that
    step if the one before tried no other, and at most 1.

    The transformation has the interface of `optax.lbfgs`: `update(grad, state, params, value=...,
    grad=..., value_fn=...)`, with a gradient that is not stacked. If `value` is infinite, it
    computes value and gradient itself. When the loss changes, for example because its points do,
    set `value` in the state to infinity (`optax.tree_utils.tree_set`): H stays.

    Args:
      max_evaluations: evaluations of the loss and its gradient in one line search, 1 or more.

    Returns:
      A transformation from a gradient to the step s.

    Raises:
      ValueError: on `max_evaluations` below 1.

    References:
      Urbán, Stefanou & Pons, arXiv:2405.04230; Al-Baali & Khalfan, "Wide interval for efficient
      self-scaling quasi-Newton algorithms", Optimization Methods and Software 20, 2005.
    """
    return _quasi_newton(_broyden, max_evaluations)


def _broyden(b: Array, h: Array, n: int) -> tuple[Array, Array]:
    """Returns φ and τ of SSBroyden (arXiv:2405.04230)."""
    a = jnp.maximum(b * h - 1, jnp.finfo(b.dtype).tiny)  # Cauchy-Schwarz: not negative
    # h (1 - √(a / (a + 1))) without the difference of two numbers near 1, and then (ρ - 1) / a.
    rho = jnp.minimum(1.0, h / (a + 1) / (1 + jnp.sqrt(a / (a + 1))))
    theta = jnp.clip((1 - b) / b, (rho - 1) / a, 1 / rho)
    volume = 1 + a * theta
    root = jnp.exp(jnp.log(volume) / (1 - n)) if n > 1 else jnp.ones_like(b)
    scale = jnp.minimum(1.0, 1.0 / b)
    above = scale * jnp.minimum(root, 1 / jnp.where(theta > 0, theta, 1.0))
    below = jnp.minimum(scale * root, volume)
    return (1 - theta) / volume, jnp.where(theta > 0, above, below)


def _quasi_newton(scaling: Scaling, max_evaluations: int) -> optax.GradientTransformationExtraArgs:
    check_range("max_evaluations", max_evaluations, 1, float("inf"))

    def init_fn(params: PyTree) -> SelfScaledState:
        x, _ = ravel_pytree(params)
        return SelfScaledState(
            count=jnp.zeros((), jnp.int32),
            inverse_hessian=jnp.eye(x.size, dtype=x.dtype),
            value=jnp.array(jnp.inf, x.dtype),
            grad=jax.tree.map(jnp.zeros_like, params),
            evaluations=jnp.zeros((), jnp.int32),
            trial=jnp.ones((), x.dtype),
        )

    def update_fn(
        updates: PyTree,
        state: SelfScaledState,
        params: PyTree = None,
        *,
        value: Array,
        grad: PyTree,
        value_fn: Callable[[PyTree], Array],
        **extra_args: Any,
    ) -> tuple[PyTree, SelfScaledState]:
        del updates, extra_args
        x, unravel = ravel_pytree(params)
        inverse = state.inverse_hessian

        def flat(x: Array) -> tuple[Array, Array]:
            value, grad = jax.value_and_grad(value_fn)(unravel(x))
            return value, ravel_pytree(grad)[0]

        def line(value: Array, g: Array) -> _Line:
            direction = -(inverse @ g)
            # Rounding can make H indefinite; then it starts again.
            new = (state.count == 0) | ~(g @ direction < 0)
            direction = jnp.where(new, -g, direction)
            first = jnp.where(new, jnp.minimum(1.0, 1 / jnp.linalg.norm(g)), state.trial)
            return _Line(value, g, direction, g @ direction, first.astype(x.dtype), new)

        found = _search(flat, x, line, value, ravel_pytree(grad)[0], max_evaluations)
        g, direction, new = found.line.grad, found.line.direction, found.line.new
        s, y = found.low * direction, found.grad - g
        inverse, learnt = _updated(inverse, new, s, y, -found.low * g, scaling)
        after = SelfScaledState(
            # Without any step, the next one starts from the identity.
            count=jnp.where(found.low > 0, jnp.where(new, 0, state.count) + learnt, 0),
            inverse_hessian=inverse,
            value=found.value,
            grad=unravel(found.grad),
            evaluations=found.evaluations,
            trial=jnp.where(new | (found.low == 0), 1.0, _next_trial(found)),
        )
        return unravel(s), after

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _next_trial(found: "_Found") -> Array:
    """Returns the first step of the next line search.

    Self-scaling makes H too large more often than not: with 1 as the first step, every other search
    needed a second evaluation, and the median step was 0.45 (Burgers and wave, 2,000 iterations).
    """
    longer = jnp.where(found.evaluations == 1, _GROWTH * found.low, found.low)
    return jnp.clip(longer, _SHORTEST, 1.0)


def _updated(
    inverse: Array, new: Array, s: Array, y: Array, bs: Array, scaling: Scaling
) -> tuple[Array, Array]:
    """Returns H after a step, and whether it learnt from it.

    Args:
      inverse: H before the step, `[n, n]`.
      new: whether the identity takes its place, [] bool.
      s: the step, `[n]`; zero if the line search failed.
      y: the change of the gradient, `[n]`.
      bs: H⁻¹ s, `[n]`, for H before the step.
      scaling: the member of the family.
    """
    ys, yy, ss = y @ s, y @ y, s @ s
    learns = ys > _FEW * jnp.sqrt(yy * ss)
    # Where nothing is learnt, all denominators are 1 and all terms are left out.
    ys, yy, ss = (jnp.where(learns, product, 1.0) for product in (ys, yy, ss))
    gamma = ys / yy
    w = jnp.where(new, gamma * y, inverse @ y)
    yhy = jnp.where(learns, y @ w, 1.0)
    b = jnp.where(new, ss / gamma, jnp.where(learns, s @ bs, 1.0)) / ys
    phi, tau = scaling(b, yhy / ys, s.size)
    # H₊ = H/τ + s pᵀ + w qᵀ, so that H is read and written once.
    p = (phi * yhy / ys**2 / tau + 1 / ys) * s - phi / ys / tau * w
    q = -phi / ys / tau * s + (phi - 1) / yhy / tau * w
    sound = learns & jnp.isfinite(p).all() & jnp.isfinite(q).all() & (yhy > 0)
    p, q = (jnp.where(sound, v, 0.0) for v in (p, q))
    kept = jnp.where(new, 0.0, jnp.where(sound, 1 / tau, 1.0))
    unit = jnp.where(new, jnp.where(sound, gamma / tau, 1.0), 0.0)
    eye = jnp.eye(s.size, dtype=s.dtype)
    moved = kept * inverse + unit * eye + s[:, None] * p + w[:, None] * q
    return moved, sound


class _Line(NamedTuple):
    """Where a line search starts, and the way it looks.

    Attributes:
      value, grad: the loss and its gradient `[n]` there.
      direction: `[n]`.
      slope: that of the loss along the direction, [].
      first: the first step to try, [].
      new: whether the identity takes the place of H, [] bool.
    """

    value: Array
    grad: Array
    direction: Array
    slope: Array
    first: Array
    new: Array


class _Found(NamedTuple):
    """A line search under way.

    Attributes:
      line: where it started.
      low: the longest step so far that decreases the loss enough, [].
      value, grad, slope: the loss, its gradient `[n]` and its slope along the direction there.
      high: the shortest step so far that does not, [], infinite at first.
      step: the next step to try, [].
      evaluations: evaluations so far, [] int32; -1 before the one at the start, if it is not known.
      done: whether `low` meets both conditions, [] bool.
    """

    line: _Line
    low: Array
    value: Array
    grad: Array
    slope: Array
    high: Array
    step: Array
    evaluations: Array
    done: Array


def _search(
    value_and_grad: Callable[[Array], tuple[Array, Array]],
    x: Array,
    line: Callable[[Array, Array], _Line],
    value: Array,
    grad: Array,
    most: int,
    decrease: float = 1e-4,
    curvature: float = 0.9,
) -> _Found:
    """Searches a step size that meets the weak Wolfe conditions, by bracketing and interpolation.

    Near the floor of rounding a decrease can't be seen in the values any more. There the
    approximate condition of Hager & Zhang (SIAM J. Optim. 16, 2005) judges it by the slopes. The
    bracketing is that of Lewis & Overton (Math. Programming 141, 2013).

    If the value is infinite, the first evaluation is at the start. It stands in the same loop as
    the others, because the loss and its gradient are most of a program's time to compile.

    If `most` evaluations don't find such a step, `low` is the best one seen, or 0.
    """

    def started(line: _Line) -> _Found:
        return _Found(
            line=line,
            low=jnp.zeros((), x.dtype),
            value=line.value,
            grad=line.grad,
            slope=line.slope,
            high=jnp.full((), jnp.inf, x.dtype),
            step=line.first,
            evaluations=jnp.zeros((), jnp.int32),
            done=jnp.array(False),
        )

    def judged(seen: _Found, v: Array, g: Array) -> _Found:
        value, slope = seen.line.value, seen.line.slope
        here = g @ seen.line.direction
        decreased = v <= value + decrease * seen.step * slope
        floor = 4 * jnp.finfo(x.dtype).eps * jnp.abs(value)
        level = (v <= value + floor) & (here <= (2 * decrease - 1) * slope)
        enough = (decreased | level) & jnp.isfinite(here)  # comparisons with NaN are False
        length = seen.step - seen.low
        # A parabola through the value and slope at `low` and the value here.
        bend = v - seen.value - seen.slope * length
        inside = jnp.where(bend > 0, -0.5 * seen.slope * length / bend, 0.1)
        back = seen.low + jnp.clip(inside, 0.1, 0.5) * length
        # The slopes at `low` and here, continued to zero.
        turn = seen.slope - here
        ahead = jnp.where(turn < 0, here / turn, 4.0)
        beyond = seen.step + jnp.clip(ahead, 0.5, 4.0) * length
        forward = jnp.where(jnp.isinf(seen.high), beyond, (seen.step + seen.high) / 2)
        low, value_, grad_, slope_ = jax.tree.map(
            lambda a, b: jnp.where(enough, a, b),
            (seen.step, v, g, here),
            (seen.low, seen.value, seen.grad, seen.slope),
        )
        return _Found(
            line=seen.line,
            low=low,
            value=value_,
            grad=grad_,
            slope=slope_,
            high=jnp.where(enough, seen.high, seen.step),
            step=jnp.where(enough, forward, back),
            evaluations=seen.evaluations + 1,
            done=enough & (here >= curvature * slope),
        )

    def evaluated(seen: _Found) -> _Found:
        starts = seen.evaluations < 0
        v, g = value_and_grad(jnp.where(starts, x, x + seen.step * seen.line.direction))
        return jax.lax.cond(starts, lambda *_: started(line(v, g)), judged, seen, v, g)

    def searching(seen: _Found) -> Array:
        return ~seen.done & (seen.evaluations < most)

    begun = started(line(jnp.asarray(value, x.dtype), grad))
    begun = begun._replace(evaluations=jnp.where(value < jnp.inf, begun.evaluations, -1))
    return jax.lax.while_loop(searching, evaluated, begun)
