"""Reference for the lid-driven cavity: the velocity by a spectral method in float64.

The stream function ψ (u = ψ_y, v = -ψ_x) of the steady flow solves

    Δ²ψ = Re (ψ_y Δψ_x - ψ_x Δψ_y) on [0, 1]²,  ψ = 0 and ∂ψ/∂n given on the walls.

The velocity jumps where the moving lid meets a wall, and no polynomial can follow the jump. Near
such a corner ψ = r f(θ) + Re r² h(θ) + ..., where f is the Stokes flow (Taylor 1962) and h its
inertia (Gupta, Manohar & Noble 1981). Both are subtracted. The remainder is a polynomial, found by
collocation at Chebyshev points and Newton's method, as Botella & Peyret (1998) do for velocity and
pressure.

The lid may be regularised in part or whole: its velocity is (1 - ρ) + ρ 16 x² (1 - x)². At ρ = 1 it
meets the walls at rest (Shen 1991), and nothing jumps.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from jax import Array
from numpy.polynomial import Chebyshev, chebyshev
from numpy.typing import NDArray

REYNOLDS = 100.0
DEGREE = 32  # of the polynomial, in x and in y
_QUARTER = np.pi / 2


def lid(x: Array, regularization: float | Array) -> Array:
    """Returns the velocity of the lid at x, of any shape."""
    return 1 - regularization + 16 * regularization * x**2 * (1 - x) ** 2


def velocity(points: np.ndarray, regularization: float | Array = 0.0) -> np.ndarray:
    """Returns the velocity `[N, 2]`, (u, v), in float64 at points `[N, 2]`, (x, y).

    Its error is 4e-5 in the relative L2 norm and at most 6e-4, beside the upper corners. In these
    corners the result is the velocity of the lid.
    """
    x, y = np.asarray(points, np.float64).T
    jump = 1 - float(np.asarray(regularization))
    coefficients = _polynomial(DEGREE, jump)
    smooth_x, smooth_y = (
        chebyshev.chebval2d(2 * x - 1, 2 * y - 1, 2 * chebyshev.chebder(coefficients, axis=axis))
        for axis in (0, 1)
    )
    _, corners_x, corners_y, *_ = _corners(x, y, jump)
    return np.stack([smooth_y + corners_y, -smooth_x - corners_x], axis=1)


def _corners(x: NDArray, y: NDArray, jump: float) -> NDArray:
    """Returns the flow of both upper corners, `[6, N]` as in `_homogeneous`.

    The Stokes flow is proportional to the jump of the lid's velocity, its inertia to the jump's
    square.

    The right corner is the mirror image of the left one. The mirror reverses the rotation, and with
    it the sign of the inertia.
    """
    f, h = _profiles()
    f, h = jump * f, jump**2 * REYNOLDS * h
    with np.errstate(divide="ignore", invalid="ignore"):  # in the corners
        left = _homogeneous(1, f, x, 1 - y) + _homogeneous(2, h, x, 1 - y)
        right = _homogeneous(1, f, 1 - x, 1 - y) - _homogeneous(2, h, 1 - x, 1 - y)
        # Signs of ψ, ψ_x, ψ_y, Δψ_x, Δψ_y, Δ²ψ on the way from distances to x and y.
        return (left.T * (1, 1, -1, 1, -1, 1) + right.T * (1, -1, -1, -1, -1, 1)).T


def _homogeneous(n: int, f: Chebyshev, x: NDArray, y: NDArray) -> NDArray:
    """Returns ψ = rⁿ f(θ), ψ_x, ψ_y, Δψ_x, Δψ_y and Δ²ψ, `[6, N]`.

    Here x and y are the distances from a wall and from the lid, and θ is the angle from the lid.
    """
    r, theta = np.hypot(x, y), np.arctan2(y, x)
    sine, cosine = np.sin(theta), np.cos(theta)
    vorticity = n**2 * f + f.deriv(2)  # Δ(rⁿ f) = rⁿ⁻² (n² f + f'')

    def gradient(power: int, g: Chebyshev) -> tuple[NDArray, NDArray]:  # of r^power g(θ)
        radius, along, across = r ** (power - 1.0), power * g(theta), g.deriv()(theta)
        return radius * (along * cosine - across * sine), radius * (along * sine + across * cosine)

    biharmonic = r ** (n - 4.0) * ((n - 2) ** 2 * vorticity + vorticity.deriv(2))(theta)
    laplacian = gradient(n - 2, vorticity)
    return np.stack([r**n * f(theta), *gradient(n, f), *laplacian, biharmonic])


@cache
def _profiles() -> tuple[Chebyshev, Chebyshev]:
    """Returns f and h of the left corner, on θ from 0, the lid, to π/2, the wall.

    f'''' + 2f'' + f = 0 with f = 0 at both ends, f' = -1 at the lid and 0 at the wall; from it
    h'''' + 4h'' = (f (f + f''))' with h = h' = 0 at both ends.
    """

    def profile(function: Callable[[NDArray], NDArray]) -> Chebyshev:  # degree 24 leaves rounding
        return Chebyshev.interpolate(function, 24, domain=[0, _QUARTER])

    c = 1 / (_QUARTER**2 - 1)
    f = profile(lambda s: c * ((_QUARTER * s - _QUARTER**2) * np.sin(s) + s * np.cos(s)))
    one, angle = profile(np.ones_like), profile(lambda s: s)
    sine, cosine = profile(lambda s: np.sin(2 * s)), profile(lambda s: np.cos(2 * s))

    def twice_integrated(q: Chebyshev) -> Chebyshev:  # h'' + 4h = q, h = h' = 0 at the lid
        return (sine * (cosine * q).integ(lbnd=0) - cosine * (sine * q).integ(lbnd=0)) / 2

    forced = twice_integrated((f * (f + f.deriv(2))).integ(lbnd=0))
    free = [twice_integrated(one), twice_integrated(angle)]
    ends = np.array([[h(_QUARTER), h.deriv()(_QUARTER)] for h in (*free, forced)]).T
    a, b = np.linalg.solve(ends[:, :2], -ends[:, 2])
    return f, forced + a * free[0] + b * free[1]


@cache
def _polynomial(degree: int, jump: float) -> NDArray:
    """Returns the Chebyshev coefficients of ψ without the corners' flow, `[degree + 1] * 2`."""
    nodes, d = _differentiation(degree)
    eye, d2 = np.eye(degree + 1), d @ d
    d_x, d_y = np.kron(d, eye), np.kron(eye, d)
    laplacian_x = np.kron(d2 @ d, eye) + np.kron(d, d2)
    laplacian_y = np.kron(eye, d2 @ d) + np.kron(d2, d)
    biharmonic = np.kron(d2 @ d2, eye) + 2 * np.kron(d2, d2) + np.kron(eye, d2 @ d2)

    x, y = (axis.ravel() for axis in np.meshgrid(nodes, nodes, indexing="ij"))
    depth_x, depth_y = (  # 0 on the walls, 1 beside them, ...
        np.minimum(i, degree - i).ravel() for i in np.indices((degree + 1, degree + 1))
    )
    value, slope_x, slope_y, *higher = _corners(x, y, jump)
    inside = np.minimum(depth_x, depth_y) >= 2

    # One condition on the slope for every point beside a wall. A corner of that ring is beside two
    # walls; there the conditions of lid and floor follow from the others.
    side = (depth_x == 0) & (depth_y >= 1)
    floor = (depth_y == 0) & (depth_x >= 2)
    wall = np.minimum(depth_x, depth_y) == 0
    conditions = np.concatenate([np.eye(len(x))[wall], d_x[side], d_y[floor]])
    moving = np.where(y == 1, lid(x, 1 - jump), 0.0)
    targets = np.concatenate([-value[wall], -slope_x[side], (moving - slope_y)[floor]])

    operators = [m[inside] for m in (d_x, d_y, laplacian_x, laplacian_y, biharmonic)]
    known = [derivative[inside] for derivative in (slope_x, slope_y, *higher)]
    psi = np.zeros(len(x))
    for _ in range(8):  # converged to rounding after six
        p_x, p_y, l_x, l_y, b = (a + m @ psi for a, m in zip(known, operators, strict=True))
        of_p_x, of_p_y, of_l_x, of_l_y, of_b = operators
        residual = b - REYNOLDS * (p_y * l_x - p_x * l_y)
        jacobian = of_b - REYNOLDS * (
            (p_y * of_l_x.T + l_x * of_p_y.T - p_x * of_l_y.T - l_y * of_p_x.T).T
        )
        psi -= np.linalg.solve(
            np.concatenate([jacobian, conditions]),
            np.concatenate([residual, conditions @ psi - targets]),
        )
    basis = np.linalg.inv(chebyshev.chebvander(2 * nodes - 1, degree))
    return basis @ psi.reshape(degree + 1, degree + 1) @ basis.T


def _differentiation(degree: int) -> tuple[NDArray, NDArray]:
    """Returns Chebyshev points from 1 to 0, and their matrix of d/dx (Trefethen 2000)."""
    index = np.arange(degree + 1)
    nodes = np.cos(np.pi * index / degree)
    scale = np.where(index % degree, 1.0, 2.0) * (-1.0) ** index
    matrix = np.outer(scale, 1 / scale) / (nodes[:, None] - nodes + np.eye(degree + 1))
    matrix -= np.diag(matrix.sum(axis=1))
    return (1 + nodes) / 2, 2 * matrix
