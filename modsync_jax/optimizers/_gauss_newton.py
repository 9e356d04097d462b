"""The Gauss-Newton method with adaptive damping (Levenberg-Marquardt), on a residual vector."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.flatten_util import ravel_pytree

from modsync_jax._ranges import check_range

PyTree = Any

_GAIN = 1e-4  # the least share of the predicted decrease that makes a step


class GaussNewtonState(NamedTuple):
    """State of the Gauss-Newton method.

    Attributes:
      value: the loss at the present parameters, [], or infinity when it is not known.
      damping: λ of the next step, [], or 0 before the first one.
      growth: the factor of λ at the next step that fails, [].
      last: the latest step, in the structure of the parameters.
      evaluations: steps that were tried in the latest iteration, [] int32.
    """

    value: Array
    damping: Array
    growth: Array
    last: PyTree
    evaluations: Array


class _Linear(NamedTuple):
    """Residuals near the present parameters, `r + J δ`.

    Attributes:
      residuals: r, `[M]`.
      apply: from δ `[n]` to J δ `[M]`.
      solve: from λ and δ₀ to the δ that minimises `‖r + J δ‖² + λ ‖δ - δ₀‖²`.
      scale: the size of JᵀJ, to which the first λ is relative, [].
    """

    residuals: Array
    apply: Callable[[Array], Array]
    solve: Callable[[Array, Array], Array]
    scale: Array


class _Tried(NamedTuple):
    """Steps under trial: the latest one `[n]`, the loss after it, λ, its growth, and outcomes."""

    step: Array
    value: Array
    damping: Array
    growth: Array
    evaluations: Array
    done: Array


def gauss_newton(
    *,
    damping: float = 1e-3,
    momentum: float = 0.0,
    max_evaluations: int = 8,
    cg: int = 0,
    sketch: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Levenberg-Marquardt: steps of a loss `‖r‖²` that solve its linear least-squares problem.

    The step δ minimises `‖r + J δ‖² + λ ‖δ - μ δ₋‖²`, with the latest step δ₋: in the primal form
    `(JᵀJ + λI) δ = -Jᵀr + λ μ δ₋`, or in the dual one where there are fewer residuals than
    parameters, `δ = μ δ₋ - Jᵀ (JJᵀ + λI)⁻¹ (r + μ J δ₋)`. It is taken if the loss falls. λ then
    changes with the gain, the ratio of the loss's decrease to the predicted one, by Nielsen's rule;
    if the loss does not fall, a larger λ is tried with the same J.

    `update(grad, state, params, residual_fn=..., jacobian_fn=..., key=...)` ignores the gradient.
    `residual_fn(params)` is r, `[M]`. `jacobian_fn(params)` is the pair of r and J, `[M, n]`, with
    columns in the order of `jax.flatten_util.ravel_pytree`; it is not asked for where `cg` is above
    0. `key` is a PRNG key for the sketch.

    Without J, conjugate gradients solve the primal form by products with J and Jᵀ. Each iteration
    costs about one gradient. A random sketch of JᵀJ preconditions them: its large eigenvalues are
    found by as many products, once a step.

    Args:
      damping: the first λ, as a share of the largest entry on the diagonal of JᵀJ, or without J of
        the curvature along the gradient; not negative.
      momentum: μ in [0, 1].
      max_evaluations: steps to try in one iteration, 1 or more.
      cg: the most iterations of conjugate gradients for each step that is tried; 0 to factorise a
        matrix of J instead.
      sketch: the rank of the preconditioner, 0 for none.

    Raises:
      ValueError: on an argument out of range; at an update, if there is no `jacobian_fn` or no
        `key` where one is needed.

    References:
      Nielsen, "Damping parameter in Marquardt's method", IMM-REP-1999-05; Goldshlager, Abrahamsen &
      Lin 2024 (SPRING) for the momentum and the dual form; Frangella, Tropp & Udell 2023,
      "Randomized Nyström preconditioning", Algorithms 2.1 and 5.1 for the sketch.
    """
    check_range("damping", damping, 0.0)
    check_range("momentum", momentum, 0.0, 1.0)
    check_range("max_evaluations", max_evaluations, 1)
    check_range("cg", cg, 0)
    check_range("sketch", sketch, 0)
    if sketch and not cg:
        raise ValueError("sketch preconditions conjugate gradients, but cg=0 factorises instead")

    def init_fn(params: PyTree) -> GaussNewtonState:
        x, _ = ravel_pytree(params)
        return GaussNewtonState(
            value=jnp.array(jnp.inf, x.dtype),
            damping=jnp.zeros((), x.dtype),
            growth=jnp.full((), 2.0, x.dtype),
            last=jax.tree.map(jnp.zeros_like, params),
            evaluations=jnp.zeros((), jnp.int32),
        )

    def update_fn(
        updates: PyTree,
        state: GaussNewtonState,
        params: PyTree = None,
        *,
        residual_fn: Callable[[PyTree], Array],
        jacobian_fn: Callable[[PyTree], tuple[Array, Array]] | None = None,
        key: Array | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, GaussNewtonState]:
        del updates, extra_args
        x, unravel = ravel_pytree(params)
        if cg:
            if sketch and key is None:
                raise ValueError(
                    "gauss_newton with a sketch needs a PRNG key; pass update(..., key=key)"
                )
            linear = _by_products(lambda y: residual_fn(unravel(y)), x, cg, sketch, key)
        elif jacobian_fn is None:
            raise ValueError("gauss_newton needs update(..., jacobian_fn=...), or cg above 0")
        else:
            linear = _factorised(*jacobian_fn(params))
        last = momentum * ravel_pytree(state.last)[0]
        value = linear.residuals @ linear.residuals
        first = jnp.where(state.damping > 0, state.damping, damping * linear.scale)

        def attempt(tried: _Tried) -> _Tried:
            step = linear.solve(tried.damping, last)
            after, model = residual_fn(unravel(x + step)), linear.residuals + linear.apply(step)
            new = after @ after
            gain = (value - new) / (value - model @ model)
            # Comparisons with NaN are False: a failed factorisation asks for more damping.
            good = (gain > _GAIN) & (new < value)
            shrink = jnp.maximum(1 / 3, 1 - (2 * gain - 1) ** 3)
            factor = jnp.where(good, shrink, tried.growth)
            return _Tried(
                step=jnp.where(good, step, 0.0),
                value=jnp.where(good, new, value),
                damping=jnp.maximum(tried.damping, jnp.finfo(x.dtype).tiny) * factor,
                growth=jnp.where(good, 2.0, 2 * tried.growth),
                evaluations=tried.evaluations + 1,
                done=good,
            )

        start = _Tried(
            step=jnp.zeros_like(x),
            value=value,
            damping=first,
            growth=state.growth,
            evaluations=jnp.zeros((), jnp.int32),
            done=jnp.array(False),
        )
        tried = jax.lax.while_loop(
            lambda t: ~t.done & (t.evaluations < max_evaluations), attempt, start
        )
        step = unravel(tried.step)
        after = GaussNewtonState(
            value=tried.value,
            damping=tried.damping,
            growth=jnp.minimum(tried.growth, 2.0**10),
            last=step,
            evaluations=tried.evaluations,
        )
        return step, after

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _factorised(r: Array, jacobian: Array) -> _Linear:
    """The residuals by their Jacobian, solved by a Cholesky factor of the smaller product."""
    count, size = jacobian.shape
    primal = size <= count
    product = jacobian.T @ jacobian if primal else jacobian @ jacobian.T
    slope = jacobian.T @ r

    def solve(lam: Array, center: Array) -> Array:
        factor = jnp.linalg.cholesky(product + lam * jnp.eye(len(product), dtype=r.dtype))
        found = jax.scipy.linalg.cho_solve
        if primal:
            return found((factor, True), lam * center - slope)
        return center - jacobian.T @ found((factor, True), r + jacobian @ center)

    return _Linear(r, lambda step: jacobian @ step, solve, jnp.square(jacobian).sum(0).max())


def _by_products(
    residuals: Callable[[Array], Array], x: Array, most: int, rank: int, key: Array | None
) -> _Linear:
    """The residuals by products with their Jacobian, solved by conjugate gradients."""
    r, apply = jax.linearize(residuals, x)
    pull = jax.linear_transpose(apply, x)
    slope = pull(r)[0]
    ahead = apply(slope)

    def product(step: Array) -> Array:
        return pull(apply(step))[0]

    sketched = _nystrom(product, key, x, rank) if rank and key is not None else None

    def preconditioner(lam: Array) -> Callable[[Array], Array] | None:
        if sketched is None:
            return None
        vectors, values = sketched
        shares = (values[-1] - values) / (values + lam)
        return lambda v: v + vectors @ (shares * (vectors.T @ v))

    def solve(lam: Array, center: Array) -> Array:
        return jax.scipy.sparse.linalg.cg(
            lambda step: product(step) + lam * step,
            lam * center - slope,
            x0=center,
            tol=float(jnp.finfo(x.dtype).eps) ** 0.5,
            maxiter=most,
            M=preconditioner(lam),
        )[0]

    scale = ahead @ ahead / jnp.maximum(slope @ slope, jnp.finfo(x.dtype).tiny)
    return _Linear(r, apply, solve, scale)


def _nystrom(
    product: Callable[[Array], Array], key: Array, like: Array, rank: int
) -> tuple[Array, Array]:
    """Eigenvectors and falling eigenvalues of a Nyström approximation; at most n of them."""
    tests = jnp.linalg.qr(jax.random.normal(key, (like.size, rank), like.dtype))[0]
    seen = jax.lax.map(product, tests.T).T
    shift = like.size**0.5 * jnp.finfo(like.dtype).eps * jnp.linalg.norm(seen)
    seen += shift * tests  # makes the Cholesky factor exist
    factor = jnp.linalg.cholesky(tests.T @ seen)
    root = jax.scipy.linalg.solve_triangular(factor, seen.T, lower=True).T
    vectors, singular, _ = jnp.linalg.svd(root, full_matrices=False)
    return vectors, jnp.maximum(jnp.square(singular) - shift, 0.0)
