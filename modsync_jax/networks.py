"""Networks for fields, as Flax modules: from points `[..., d]` to values `[..., m]`.

`MLP`, `ModifiedMLP` and `PirateNet` share their settings. Their parts, `Dense`, `Activation`,
`FourierFeatures` and `Periodic`, are modules for other networks too. All are built from the
operations of `modsync_jax.jets`. So they also map jets to jets, and derivatives pass through the
layers together with the values; `takes_jets` marks such networks.

Parameters of two axes are kernels, and ModSync's default gives thresholds to kernels alone. Biases,
slopes, the factors of factorised kernels and the frequencies of Fourier features have one axis or
none.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from modsync_jax import jets
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


class Network(nn.Module):
    """The shared part of all networks here: the embedding of points, and the layers.

    Attributes:
      width: units of each hidden layer.
      depth: number of hidden layers (of blocks in `PirateNet`); a linear output layer follows them.
      outputs: m, the number of values.
      activation: a name in `ACTIVATIONS`, or several with slashes between, which the layers take
        in turn: `sin/tanh`.
      shift: inputs become `(x - shift) / scale`, with one number for each coordinate; if both are
        empty, inputs stay as they are. The mean and standard deviation of the domain are the usual
        choice.
      scale: see `shift`.
      omega: a factor of what enters the first layer, as ω₀ of Sitzmann et al., Implicit Neural
        Representations with Periodic Activation Functions, NeurIPS 2020. Xavier's initialisation
        makes the first kernel small, because a layer has many more units than a point coordinates.
      periods: the period of each coordinate, 0 for those that have none; see `Periodic`.
      fourier_features: number of random Fourier features, 0 for none; see `FourierFeatures`.
      fourier_scale: standard deviation of their frequencies.
      factorized: whether kernels are factorised; see `Dense`.
      adaptive: the factor n of adaptive activations, 0 for fixed ones; see `Activation`.
      param_dtype: dtype of the parameters.

    Raises:
      ValueError: a width, depth or number of outputs below 1, an unknown activation, or `shift`,
        `scale` and `periods` that do not fit each other or the points.
    """

    width: int
    depth: int
    outputs: int = 1
    activation: str = "tanh"
    shift: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    omega: float = 1.0
    periods: tuple[float, ...] = ()
    fourier_features: int = 0
    fourier_scale: float = 1.0
    factorized: bool = False
    adaptive: float = 0.0
    param_dtype: Any = jnp.float32

    takes_jets: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("width", "depth", "outputs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in self.activation.split("/"):
            lookup("activation", name, ACTIVATIONS)
        if len(self.shift) != len(self.scale) or 0 in self.scale:
            raise ValueError(
                "shift and scale need one number each for every coordinate, and no scale of zero;"
                f" got shift={self.shift}, scale={self.scale}"
            )
        if self.fourier_features % 2 or self.fourier_features < 0:
            raise ValueError(
                f"fourier_features must be even, a cosine and a sine for each frequency, got"
                f" {self.fourier_features}"
            )
        super().__post_init__()

    def embed(self, x: Any) -> Any:
        """Returns the input of the first layer for points `[..., d]`."""
        for name in ("scale", "periods"):
            given = getattr(self, name)
            if given and x.shape[-1] != len(given):
                raise ValueError(
                    f"{name} has {len(given)} coordinates, but the points have shape {x.shape}"
                )
        raw = x
        if self.scale:
            x = (x - np.asarray(self.shift, x.dtype)) * (1 / np.asarray(self.scale, x.dtype))
        if any(self.periods):
            free = [axis for axis, period in enumerate(self.periods) if not period]
            x = jets.concatenate([Periodic(self.periods)(raw), jets.take(x, free)])
        if self.fourier_features:
            x = FourierFeatures(self.fourier_features, self.fourier_scale, self.param_dtype)(x)
        return x if self.omega == 1 else x * self.omega

    def dense(self, features: int, x: Any) -> Any:
        """Returns a linear layer of `x`."""
        return Dense(features, self.factorized, self.param_dtype)(x)

    def layer(self, features: int, x: Any, index: int = 0) -> Any:
        """Returns the hidden layer of `x` with this index."""
        names = self.activation.split("/")
        activation = Activation(names[index % len(names)], self.adaptive, self.param_dtype)
        return activation(self.dense(features, x))


class MLP(Network):
    """A fully connected network; attributes and errors as in `Network`."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Returns the values `[..., outputs]` at the points `x` of shape `[..., d]`."""
        x = self.embed(x)
        for index in range(self.depth):
            x = self.layer(self.width, x, index)
        return self.dense(self.outputs, x)


class ModifiedMLP(Network):
    """A network whose hidden layers H are gated by two encoders of the input, U and V.

    Each hidden layer passes on `(1 - H) U + H V`. Attributes and errors as in `Network`.

    References:
      Wang, Teng and Perdikaris, Understanding and Mitigating Gradient Flow Pathologies in
      Physics-Informed Neural Networks, SISC 2021, Section 2.6; as in the authors' code, the first
      hidden layer is gated too.
    """

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Returns the values `[..., outputs]` at the points `x` of shape `[..., d]`."""
        x = self.embed(x)
        u, v = self.layer(self.width, x), self.layer(self.width, x)
        for index in range(self.depth):
            x = _gate(self.layer(self.width, x, index), u, v)
        return self.dense(self.outputs, x)


class PirateNet(Network):
    """A network of residual blocks that start as the identity; training adds their depth.

    A block has three layers and passes on `α h + (1 - α) x`, with a trainable α that starts at 0.
    Encoders of the input gate the first two layers, as in `ModifiedMLP`. Attributes and errors as
    in `Network`; the authors use random Fourier features.

    References:
      Wang, Li, Chen and Perdikaris, PirateNets: Physics-informed Deep Learning with Residual
      Adaptive Networks, JMLR 2024, Eq. 4.1-4.7; the output layer starts Xavier normal and is not
      fitted to data.
    """

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Returns the values `[..., outputs]` at the points `x` of shape `[..., d]`."""
        x = self.embed(x)
        u, v = self.layer(self.width, x), self.layer(self.width, x)
        for index in range(self.depth):
            alpha = self.param(f"alpha_{index}", nn.initializers.zeros_init(), (), self.param_dtype)
            h = _gate(self.layer(self.width, x, 3 * index), u, v)
            h = _gate(self.layer(self.width, h, 3 * index + 1), u, v)
            x = alpha * self.layer(x.shape[-1], h, 3 * index + 2) + (1.0 - alpha) * x
        return self.dense(self.outputs, x)


NETWORKS: Mapping[str, type[Network]] = {
    "mlp": MLP,
    "modified-mlp": ModifiedMLP,
    "piratenet": PirateNet,
}


class Constrained(nn.Module):
    """A network that satisfies conditions exactly: `offset(x) + distance(x) * network(x)`.

    Attributes:
      network: the network.
      offset: any smooth function with the wanted values on the boundary, from a point `[d]` to
        values `[m]`.
      distance: any smooth function that is zero there and nowhere else, from a point `[d]` to `[m]`
        or `[1]`.

    References:
      Lagaris, Likas and Fotiadis, Artificial Neural Networks for Solving Ordinary and Partial
      Differential Equations, IEEE TNN 1998, Eq. 2.
    """

    network: nn.Module
    offset: Callable[[Array], Array]
    distance: Callable[[Array], Array]

    @property
    def takes_jets(self) -> bool:
        """Whether the network takes jets."""
        return getattr(self.network, "takes_jets", False)

    def __call__(self, x: Any) -> Any:
        """Returns the values `[..., m]` at the points `x` of shape `[..., d]`."""
        return jets.call(self.offset, x) + jets.call(self.distance, x) * self.network(x)


class Dense(nn.Module):
    """A linear layer.

    Kernels start Xavier normal (Glorot & Bengio 2010; Flax cuts the normal distribution off at two
    standard deviations and corrects the variance), biases at zero.

    Attributes:
      features: number of outputs.
      factorized: whether the kernel is `exp(s) * v`. Each output has a trained s, drawn from N(1,
        0.1²), and v is chosen so that the product starts Xavier normal (random weight
        factorisation, Wang, Wang, Seidman & Perdikaris, arXiv:2210.01274). Thresholds then cut v.
      param_dtype: dtype of the parameters.
    """

    features: int
    factorized: bool = False
    param_dtype: Any = jnp.float32

    takes_jets: ClassVar[bool] = True

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Returns `x @ kernel + bias`, `[..., features]`, for `x` of shape `[..., n]`."""
        shape, dtype = (x.shape[-1], self.features), self.param_dtype
        xavier = nn.initializers.xavier_normal()
        if self.factorized:
            factor = jnp.exp(self.param("log_factor", _around_one, shape[1:], dtype))
            kernel = factor * self.param("kernel", lambda key: xavier(key, shape, dtype) / factor)
        else:
            kernel = self.param("kernel", xavier, shape, dtype)
        bias = self.param("bias", nn.initializers.zeros_init(), shape[1:], dtype)
        return jets.linear(kernel, x, bias)


class Activation(nn.Module):
    """An activation function, by a name in `ACTIVATIONS`.

    Attributes:
      function: the name.
      adaptive: n > 0 makes it `f(n a x)` with a trained a that starts at 1 / n (Jagtap, Kawaguchi &
        Karniadakis, Adaptive Activation Functions Accelerate Convergence in Deep and
        Physics-Informed Neural Networks, JCP 2020, Eq. 7); 0 leaves it fixed.
      param_dtype: dtype of the parameter.
    """

    function: str
    adaptive: float = 0.0
    param_dtype: Any = jnp.float32

    takes_jets: ClassVar[bool] = True

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Returns the values, in the shape of `x`."""
        if self.adaptive:
            start = nn.initializers.constant(1 / self.adaptive)
            x = self.adaptive * self.param("slope", start, (), self.param_dtype) * x
        return jets.elementwise(ACTIVATIONS[self.function], x)


class FourierFeatures(nn.Module):
    """Cosines and sines of random directions: `cos(B x), sin(B x)`.

    The frequencies B are drawn normal with the network's other parameters, and are not trained:
    their gradient is zero.

    Attributes:
      features: number of outputs, half of them cosines.
      scale: standard deviation of B.
      param_dtype: dtype of the frequencies.

    References:
      Tancik et al., Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional
      Domains, NeurIPS 2020, Eq. 5, with 2π part of the scale.
    """

    features: int
    scale: float = 1.0
    param_dtype: Any = jnp.float32

    takes_jets: ClassVar[bool] = True

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Returns `[..., features]` for `x` of shape `[..., n]`."""
        shape = (x.shape[-1], self.features // 2)
        # Frequencies have one axis, so that they get no thresholds.
        normal = nn.initializers.normal(self.scale)
        flat = self.param("frequencies", normal, (shape[0] * shape[1],), self.param_dtype)
        return _cos_and_sin(jets.linear(jax.lax.stop_gradient(flat).reshape(shape), x))


class Periodic(nn.Module):
    """Cosine and sine of the coordinates that have a period; others are left out.

    A network of these inputs is periodic, and so are all its derivatives.

    Attributes:
      periods: the period of each coordinate, 0 for those that have none.

    References:
      Dong and Ni, A Method for Representing Periodic Functions and Enforcing Exactly Periodic
      Boundary Conditions with Deep Neural Networks, JCP 2021.
    """

    periods: tuple[float, ...]

    takes_jets: ClassVar[bool] = True

    def __call__(self, x: Any) -> Any:
        """Returns `[..., 2 p]`, p the number of periods that are not 0, for `x` `[..., d]`."""
        axes = [axis for axis, period in enumerate(self.periods) if period]
        frequencies = np.asarray([2 * np.pi / self.periods[axis] for axis in axes], x.dtype)
        return _cos_and_sin(jets.take(x, axes) * frequencies)


def _cos_and_sin(x: Any) -> Any:
    return jets.concatenate([jets.elementwise(jnp.cos, x), jets.elementwise(jnp.sin, x)])


def _gate(h: Any, u: Any, v: Any) -> Any:
    return u + h * (v - u)


def _around_one(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    return 1 + 0.1 * jax.random.normal(key, shape, dtype)
