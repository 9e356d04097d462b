"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner, per matrix."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from modsync_jax._ranges import check_range

PyTree = Any


class Basis(NamedTuple):
    """Preconditioner of one kernel of shape `[m, n]`.

    Attributes:
      left: moving average of G Gᵀ, `[m, m]`.
      right: moving average of Gᵀ G, `[n, n]`.
      left_basis: approximate eigenvectors of `left` as columns, `[m, m]`.
      right_basis: those of `right`, `[n, n]`.
    """

    left: Array
    right: Array
    left_basis: Array
    right_basis: Array


class SoapState(NamedTuple):
    """State of `soap` before the learning rate.

    Attributes:
      count: steps so far, [] int32.
      mu: moving average of the gradients, in the structure of the parameters.
      nu: moving average of the squared rotated gradients, in the structure of the parameters.
      bases: a `Basis` for each kernel, None for parameters that are not rotated.
    """

    count: Array  # type: ignore[assignment]
    mu: PyTree
    nu: PyTree
    bases: PyTree


def soap(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: float = 0.95,
    b2: float = 0.95,
    eps: float = 1e-8,
    frequency: int = 10,
    largest: int = 4096,
    weight_decay: float | Array = 0.0,
) -> optax.GradientTransformation:
    """SOAP, an optimiser of single (aggregated) gradients.

    Each kernel's gradient is rotated into the eigenbases of the moving averages of G Gᵀ and Gᵀ G,
    where Adam takes its step, which is rotated back. The bases start as eigenvectors of the first
    gradient and follow by one step of orthogonal iteration (a QR decomposition) every `frequency`
    steps. Parameters that have not two axes, or an axis longer than `largest`, take plain Adam.

    Args:
      learning_rate: step size, or a schedule of it.
      b1: decay of the gradients' average, in [0, 1].
      b2: decay of the averages of their squares and of the preconditioner, in [0, 1].
      eps: term in the denominator.
      frequency: steps between two updates of the bases, 1 or more.
      largest: the longest axis that is rotated.
      weight_decay: decoupled weight decay, times the learning rate.

    Raises:
      ValueError: on a hyperparameter out of range.

    References:
      Vyas et al., arXiv:2409.11321, Algorithm 3 (here the first gradient moves the parameters
      too); for PINNs Wang et al., arXiv:2502.00604.
    """
    for name, value in (("b1", b1), ("b2", b2)):
        check_range(name, value, 0.0, 1.0)
    check_range("frequency", frequency, 1)
    rotation = _scale_by_soap(b1, b2, eps, frequency, largest)
    decay = optax.add_decayed_weights(weight_decay)
    return optax.chain(rotation, decay, optax.scale_by_learning_rate(learning_rate))


def _scale_by_soap(
    b1: float, b2: float, eps: float, frequency: int, largest: int
) -> optax.GradientTransformation:
    def rotates(leaf: Array) -> bool:
        return leaf.ndim == 2 and max(leaf.shape) <= largest

    def init_fn(params: PyTree) -> SoapState:
        def basis(leaf: Array) -> Basis | None:
            if not rotates(leaf):
                return None
            m, n = leaf.shape
            zeros = [jnp.zeros((k, k), leaf.dtype) for k in (m, n)]
            return Basis(*zeros, *[jnp.eye(k, dtype=leaf.dtype) for k in (m, n)])

        zeros = jax.tree.map(jnp.zeros_like, params)
        return SoapState(
            jnp.zeros((), jnp.int32),
            zeros,
            jax.tree.map(jnp.copy, zeros),
            jax.tree.map(basis, params),
        )

    def update_fn(
        updates: PyTree, state: SoapState, params: PyTree = None
    ) -> tuple[PyTree, SoapState]:
        del params
        count = optax.safe_increment(state.count)
        bases = _averaged(updates, state.bases, jnp.where(state.count == 0, 0.0, b2))
        bases = jax.lax.cond(state.count == 0, _eigenbases, lambda b: b, bases)
        mu = optax.tree_utils.tree_update_moment(updates, state.mu, b1, 1)
        turned = rotated(updates, bases)
        nu = optax.tree_utils.tree_update_moment(turned, state.nu, b2, 2)
        first = optax.tree_utils.tree_bias_correction(rotated(mu, bases), b1, count)
        second = optax.tree_utils.tree_bias_correction(nu, b2, count)
        steps = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), first, second)
        moves = rotated(steps, bases, back=True)
        due = (count % frequency == 0) & (state.count > 0)
        bases = jax.lax.cond(due, _iterated, lambda b: b, bases)
        return moves, SoapState(count, mu, nu, bases)

    return optax.GradientTransformation(init_fn, update_fn)


def _each(function: Any, bases: PyTree, *trees: PyTree) -> PyTree:
    """Maps over parameters; `function` gets None where a parameter is not rotated."""
    return jax.tree.map(function, bases, *trees, is_leaf=lambda b: b is None or _is_basis(b))


def _is_basis(node: Any) -> bool:
    return isinstance(node, Basis)


def _averaged(grads: PyTree, bases: PyTree, decay: Array) -> PyTree:
    """Returns the bases with the gradient's outer products in their averages."""

    def one(basis: Basis | None, g: Array) -> Basis | None:
        if basis is None:
            return None
        old = decay.astype(g.dtype)
        return basis._replace(
            left=old * basis.left + (1 - old) * (g @ g.T),
            right=old * basis.right + (1 - old) * (g.T @ g),
        )

    return _each(one, bases, grads)


def rotated(tree: PyTree, bases: PyTree, *, back: bool = False) -> PyTree:
    """Returns arrays in the eigenbases, or from them back."""

    def one(basis: Basis | None, x: Array) -> Array:
        if basis is None:
            return x
        left, right = basis.left_basis, basis.right_basis
        return left @ x @ right.T if back else left.T @ x @ right

    return _each(one, bases, tree)


def _eigenbases(bases: PyTree) -> PyTree:
    """Returns the bases with the eigenvectors of the averages, largest first."""

    def one(basis: Basis | None) -> Basis | None:
        if basis is None:
            return None
        left, right = (jnp.linalg.eigh(m)[1][:, ::-1] for m in (basis.left, basis.right))
        return basis._replace(left_basis=left, right_basis=right)

    return _each(one, bases)


def _iterated(bases: PyTree) -> PyTree:
    """Returns the bases after one orthogonal iteration."""

    def one(basis: Basis | None) -> Basis | None:
        if basis is None:
            return None
        left = jnp.linalg.qr(basis.left @ basis.left_basis)[0]
        right = jnp.linalg.qr(basis.right @ basis.right_basis)[0]
        return basis._replace(left_basis=left, right_basis=right)

    return _each(one, bases)
