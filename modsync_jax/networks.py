"""Networks for fields, as Flax modules: from points `[..., d]` to values `[..., m]`.

They are built from the operations of `modsync_jax.jets`, so that they map jets to jets too, and
derivatives pass their layers together with the values; `takes_jets` says so.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from modsync_jax._names import lookup
from modsync_jax.jets import elementwise, linear

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

    takes_jets: ClassVar[bool] = True

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
    def __call__(self, x: Any) -> Any:
        """Returns the values `[..., outputs]` at the points `x` of shape `[..., d]`."""
        x = _standardize(x, self.shift, self.scale)
        for _ in range(self.depth):
            x = elementwise(ACTIVATIONS[self.activation], Dense(self.width, self.param_dtype)(x))
        return Dense(self.outputs, self.param_dtype)(x)


class Dense(nn.Module):
    """A linear layer that jets pass through; its kernel starts Xavier normal, its bias at zero.

    Attributes:
      features: number of outputs.
      param_dtype: dtype of the parameters.
    """

    features: int
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Returns `x @ kernel + bias`, `[..., features]`, for `x` of shape `[..., n]`."""
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.xavier_normal(), shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros_init(), shape[1:], self.param_dtype)
        return linear(kernel, x, bias)


def _standardize(x: Any, shift: tuple[float, ...], scale: tuple[float, ...]) -> Any:
    """Returns `(x - shift) / scale` for points or a jet; `x` where both are empty."""
    if not scale:
        return x
    if x.shape[-1] != len(scale):
        raise ValueError(
            f"shift and scale have {len(scale)} coordinates, but the points have shape {x.shape}"
        )
    return (x - np.asarray(shift, x.dtype)) * (1 / np.asarray(scale, x.dtype))
