"""References for evolution equations without a formula: Fourier modes in x, ETDRK4 in time.

The equations are u_t = L u + P g(u) for t in [0, 1], periodic in x in [-1, 1]. L and P are
polynomials in ∂/∂x, and g is a function of the value. A reference is computed once, in float64, in
a fraction of a second.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Symbol = Callable[[NDArray], NDArray]
"""A polynomial in ∂/∂x, as a function from each mode's `iπk` to its factor."""

_STENCIL = 4  # time levels in each interpolation


def evolve(
    initial: Callable[[NDArray], NDArray],
    linear: Symbol,
    outer: Symbol,
    inner: Callable[[NDArray], NDArray],
    points: int,
    steps: int,
) -> Callable[[NDArray], NDArray]:
    """Returns the solution of u_t = L u + P g(u), from points `[N, 2]`, (t, x), to `[N]`.

    The method is exponential time differencing of fourth order; its coefficients are means over
    circles in the complex plane (Kassam & Trefethen 2005). The result interpolates between grid
    points by trigonometric functions and between time levels by a cubic.

    Args:
      initial: u(0, x).
      linear: L.
      outer: P.
      inner: g.
      points: points of the grid in x, even.
      steps: time steps.
    """
    slope = 1j * np.pi * np.arange(points // 2 + 1)
    factors = outer(slope)

    def nonlinear(modes: NDArray) -> NDArray:
        return factors * np.fft.rfft(inner(np.fft.irfft(modes, points)))

    start = np.fft.rfft(initial(np.arange(points) * 2 / points - 1))
    levels = _etdrk4(start, linear(slope), nonlinear, steps)
    levels *= np.where(np.arange(points // 2 + 1) % (points // 2), 2, 1) / points
    return lambda at: _interpolate(levels, slope, at)


def _etdrk4(
    modes: NDArray, linear: NDArray, nonlinear: Callable[[NDArray], NDArray], steps: int
) -> NDArray:
    """Returns the modes `[steps + 1, M]` at all time levels of [0, 1]."""
    z = linear / steps
    r = z[:, None] + np.exp(2j * np.pi * (np.arange(32) + 0.5) / 32)
    full, half = np.exp(z), np.exp(z / 2)
    numerators = (
        r**2 * (np.exp(r / 2) - 1),
        -4 - r + np.exp(r) * (4 - 3 * r + r**2),
        2 + r + np.exp(r) * (r - 2),
        -4 - 3 * r - r**2 + np.exp(r) * (4 - r),
    )
    q, first, middle, last = (np.mean(n / r**3, axis=1) / steps for n in numerators)
    levels = [modes]
    for _ in range(steps):
        at_start = nonlinear(modes)
        a = half * modes + q * at_start
        at_a = nonlinear(a)
        at_b = nonlinear(half * modes + q * at_a)
        at_end = nonlinear(half * a + q * (2 * at_b - at_start))
        modes = full * modes + first * at_start + 2 * middle * (at_a + at_b) + last * at_end
        levels.append(modes)
    return np.stack(levels)


def _interpolate(levels: NDArray, slope: NDArray, points: NDArray) -> NDArray:
    """Returns values `[N]` at points `[N, 2]`, in chunks because memory grows as N M."""
    chunks = np.array_split(np.asarray(points, np.float64), 1 + len(points) // 1024)
    return np.concatenate([_interpolate_chunk(levels, slope, *chunk.T) for chunk in chunks])


def _interpolate_chunk(levels: NDArray, slope: NDArray, t: NDArray, x: NDArray) -> NDArray:
    place = t * (len(levels) - 1)
    first = np.clip(place.astype(int) - _STENCIL // 2 + 1, 0, len(levels) - _STENCIL)
    nodes = np.arange(_STENCIL)
    modes = np.zeros((len(t), len(slope)), complex)
    for node in nodes:
        others = nodes[nodes != node]
        weight = np.prod((place - first)[:, None] - others, axis=1) / np.prod(node - others)
        modes += weight[:, None] * levels[first + node]
    return np.einsum("nk,nk->n", modes, np.exp(slope * (x[:, None] + 1))).real
