"""Random directions, along which sums of many second derivatives are estimated.

A Laplacian in 50 dimensions is the sum of 50 second derivatives. Its estimate needs those along a
few random directions, whatever the dimension. The directions are a function of the point: they are
others at each new point, and the same as long as a point stays. So a loss on points that stay is a
fixed function, as line searches need it, and no state is needed.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from modsync_jax.sampling import mixed

KINDS = ("hutchinson", "stde")


class Directions(NamedTuple):
    """How a sum Σ c_i ∂²u/∂x_i² over coordinates is estimated, without bias.

    The square of an estimate is biased: a mean square of residuals rises by the estimate's
    variance.

    Attributes:
      kind: `"hutchinson"`: along vectors of random signs (Hu, Shi, Karniadakis & Kawaguchi,
        arXiv:2312.14499), whose variance is 2/V times the sum of squares of the mixed derivatives;
        `"stde"`: along random coordinates, different ones, times their number over V (Hu et al.,
        arXiv:2307.12306; Shi et al., arXiv:2412.00088), whose variance is that of the terms.
      number: V, the number of directions at a point.
    """

    kind: str
    number: int

    def second(
        self, x: Array, axes: Sequence[int], coefficients: Sequence[ArrayLike]
    ) -> tuple[Array, Mapping[tuple[int, int], ArrayLike]]:
        """Returns directions, and the second derivatives along them that estimate the sum.

        Args:
          x: the point, `[d]`.
          axes: the coordinates of the sum, n of them, more than `number`.
          coefficients: their coefficients, `[n]` numbers or arrays.

        Returns:
          Directions `[V, d]`, or `[2 V, d]`; and coefficients of derivatives along the i-th and the
          j-th of them, by `(i, j)`.
        """
        among, number = jnp.asarray(axes), self.number
        if self.kind == "stde":
            chosen = jnp.argsort(jax.random.bits(key_of(x), (len(axes),)))[:number]
            rows = jax.nn.one_hot(among[chosen], len(x), dtype=x.dtype)
            factors = jnp.stack(list(map(jnp.asarray, coefficients)))[chosen]
            share = len(axes) / number
            return rows, {(k, k): share * factors[k] for k in range(number)}
        signs = _signs(key_of(x), number, len(axes)).astype(x.dtype)
        rows = jnp.zeros((number, len(x)), x.dtype).at[:, among].set(signs)
        if _same(coefficients):
            return rows, {(k, k): coefficients[0] / number for k in range(number)}
        factors = jnp.stack(list(map(jnp.asarray, coefficients))).astype(x.dtype)
        scaled = rows.at[:, among].multiply(factors)
        both = jnp.concatenate([rows, scaled])
        return both, {(k, number + k): 1 / number for k in range(number)}


def _same(coefficients: Sequence[ArrayLike]) -> bool:
    """Whether all coefficients are known to be equal: one object, or the same number."""
    if all(isinstance(c, float | int) for c in coefficients):
        return len(set(coefficients)) == 1
    return all(c is coefficients[0] for c in coefficients)


def read(text: str) -> Directions | None:
    """Returns the directions of `"hutchinson:16"`, or None for `"exact"`.

    Raises:
      ValueError: on any other text.
    """
    if text == "exact":
        return None
    kind, _, number = text.partition(":")
    if kind not in KINDS or not number.isdecimal() or int(number) < 1:
        allowed = " or ".join(f"{kind}:16" for kind in KINDS)
        raise ValueError(
            f"laplacian is {text!r}; it must be exact, or a number of directions, {allowed}"
        )
    return Directions(kind, int(number))


def key_of(x: Array) -> Array:
    """Returns a PRNG key that is a function of a point `[d]`, of all bits of its numbers."""
    words = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(x), jnp.uint32).reshape(-1)
    salts = np.random.default_rng(0).integers(2**32, size=(2, len(words)), dtype=np.uint32)
    data = jnp.sum(mixed(words ^ salts), axis=1, dtype=jnp.uint32)
    return jax.random.wrap_key_data(data, impl="threefry2x32")


def _signs(key: Array, number: int, n: int) -> Array:
    """Returns random signs `[number, n]`, one bit of the key's stream for each."""
    words = jax.random.bits(key, (number, -(-n // 32), 1), jnp.uint32)
    bits = (words >> jnp.arange(32, dtype=jnp.uint32)) & 1
    return 1 - 2 * bits.reshape(number, -1)[:, :n].astype(jnp.int32)
