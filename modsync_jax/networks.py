"""Networks for fields, as Flax modules: from points `[..., d]` to values `[..., m]`."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from modsync_jax._names import lookup

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "sin": jnp.sin,
    "gelu": jax.nn.gelu,
    "swish": jax.nn.swish,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "relu": jax.nn.relu,
}


class MLP(nn.Module):
    """A fully connected network.

    Kernels start Xavier normal (Glorot & Bengio 2010; Flax cuts the normal distribution off at two
    standard deviations and corrects the variance), biases at zero.

    Attributes:
      width: units of each hidden layer.
      depth: number of hidden layers; a linear output layer follows them.
      outputs: m, the number of values.
      activation: a name in `ACTIVATIONS`.
      shift: with `scale`, inputs are standardised to `(x - shift) / scale`, one number for each
        coordinate; both empty leaves inputs as they are. The mean and standard deviation of the
        domain are the usual choice.
      scale: see `shift`.
      param_dtype: dtype of the parameters.

    Raises:
      ValueError: a width, depth or number of outputs below 1, an unknown activation, or `shift` and
        `scale` that do not fit each other or the points.
    """

    width: int
    depth: int
    outputs: int = 1
    activation: str = "tanh"
    shift: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    param_dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        for name in ("width", "depth", "outputs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        lookup("activation", self.activation, ACTIVATIONS)
        if len(self.shift) != len(self.scale) or 0 in self.scale:
            raise ValueError(
                "shift and scale need one number each for every coordinate, and no scale of zero;"
                f" got shift={self.shift}, scale={self.scale}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the values `[..., outputs]` at the points `x` of shape `[..., d]`."""
        if self.scale:
            if x.shape[-1] != len(self.scale):
                raise ValueError(
                    f"shift and scale have {len(self.scale)} coordinates, but the points have shape"
                    f" {x.shape}"
                )
            x = (x - jnp.asarray(self.shift, x.dtype)) / jnp.asarray(self.scale, x.dtype)
        activation = ACTIVATIONS[self.activation]
        for _ in range(self.depth):
            x = activation(self._dense(self.width, x))
        return self._dense(self.outputs, x)

    def derivatives(
        self, variables: Mapping[str, Any], x: Array, orders: Collection[tuple[int, ...]]
    ) -> dict[tuple[int, ...], Array] | None:
        """Returns derivatives up to the second order, carried through the layers together.

        Every layer multiplies the value and its derivatives by the same kernel, which is faster
        than nested forward mode and equal to it but for rounding.

        Args:
          variables: what `init` returned.
          x: one point, `[d]`.
          orders: tuples of ascending axes: `()` the value, `(0,)`, `(0, 1)`, `(1, 1)`.

        Returns:
          Values `[outputs]` for at least these orders; None if one is above the second.
        """
        if any(len(order) > 2 for order in orders):
            return None
        seconds = sorted(order for order in orders if len(order) == 2)
        firsts = sorted({(axis,) for order in orders for axis in order})
        shift, scale = (jnp.asarray(v, x.dtype) for v in (self.shift or 0, self.scale or 1))
        units = jnp.eye(len(x), dtype=x.dtype) / scale
        carried: dict[tuple[int, ...], Array] = {(): (x - shift) / scale}
        carried |= {(axis,): units[axis] for (axis,) in firsts}
        for index in range(self.depth + 1):
            layer = variables["params"][f"Dense_{index}"]
            z = {order: value @ layer["kernel"] for order, value in carried.items()}
            z[()] = z[()] + layer["bias"]
            if index < self.depth:
                value, slope, curvature = _with_derivatives(ACTIVATIONS[self.activation], z[()])
                carried = {(): value}
                carried |= {order: slope * z[order] for order in firsts}
                for i, j in seconds:
                    bent = curvature * z[i,] * z[j,]
                    carried[i, j] = bent + slope * z[i, j] if (i, j) in z else bent
        return z

    def _dense(self, features: int, x: Array) -> Array:
        xavier = nn.initializers.xavier_normal()
        return nn.Dense(features, kernel_init=xavier, param_dtype=self.param_dtype)(x)


def _with_derivatives(activation: Callable[[Array], Array], z: Array) -> tuple[Array, Array, Array]:
    """Returns an elementwise function's values and first two derivatives."""
    ones = jnp.ones_like(z)

    def with_slope(z: Array) -> tuple[Array, Array]:
        return jax.jvp(activation, (z,), (ones,))

    (value, slope), (_, curvature) = jax.jvp(with_slope, (z,), (ones,))
    return value, slope, curvature
