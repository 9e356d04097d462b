"""Lid-driven cavity at Re = 100, in stream function and pressure.

u = ψ_y,  v = -ψ_x, so that u_x + v_y = 0
u u_x + v u_y + p_x = Δu / Re,  u v_x + v v_y + p_y = Δv / Re on [0, 1]²
(u, v) = (1, 0) on the lid, y = 1, and (0, 0) on the walls

PINNs solve this one of the two forms (Wang, Teng & Perdikaris 2021). The reference is the velocity,
because ψ and p are determined only up to one constant each.
"""

from functools import partial

from jax import Array

from modsync_jax.calculus import Field, partials
from modsync_jax.problems import _cavity
from modsync_jax.problems._base import Problem
from modsync_jax.problems._coefficients import coefficient
from modsync_jax.problems._conditions import derivative
from modsync_jax.sampling import box


def residual(w: Field, x: Array) -> dict[str, Array]:
    """Returns the residuals of momentum at a point `[2]`, (x, y), of w = (ψ, p)."""
    friction = ({"xxy": 1.0, "yyy": 1.0}, {"xxx": -1.0, "xyy": -1.0})  # Δu and Δv
    firsts_x, firsts_y, *higher = partials(w, x, "x", "y", "xx", "xy", "yy", *friction)
    (psi_x, p_x), (psi_y, p_y) = firsts_x, firsts_y
    psi_xx, psi_xy, psi_yy, laplacian_u, laplacian_v = (psi for psi, _ in higher)
    u, u_x, u_y = psi_y, psi_xy, psi_yy
    v, v_x, v_y = -psi_x, -psi_xx, -psi_xy
    return {
        "momentum_x": u * u_x + v * u_y + p_x - laplacian_u / _cavity.REYNOLDS,
        "momentum_y": u * v_x + v * v_y + p_y - laplacian_v / _cavity.REYNOLDS,
    }


def velocity(w: Field, x: Array) -> dict[str, Array]:
    """Returns the velocity at a point `[2]`."""
    (psi_x, _), (psi_y, _) = partials(w, x, "x", "y")
    return {"u": psi_y, "v": -psi_x}


def problem(regularization: float | Array = 0.0) -> Problem:
    """Returns the problem, with the points of its source; `regularization` slows the lid's ends.

    Reports give the error of the vector (u, v). It is no less than the error of the vector's
    length, which the source reports.

    Raises:
      ValueError: a regularisation outside [0, 1].
    """
    regularization = coefficient("regularization", regularization, 0, 1)

    def lid(x: Array) -> Array:
        return _cavity.lid(x[0], regularization)

    walls = {"left": "x=0", "right": "x=1", "bottom": "y=0"}
    conditions = {
        "lid_u": derivative("y=1", "y", lid, "psi"),
        "lid_v": derivative("y=1", "x", 0.0, "psi"),
    } | {
        f"{name}_{component}": derivative(face, along, 0.0, "psi")
        for name, face in walls.items()
        for component, along in (("u", "y"), ("v", "x"))
    }
    return Problem(
        name="cavity_stream",
        domain=box(x=(0, 1), y=(0, 1)),
        residual=residual,
        conditions=conditions,
        points=dict.fromkeys(["residual", *conditions], 128),
        outputs=("psi", "p"),
        observe=velocity,
        reference=partial(_cavity.velocity, regularization=regularization),
        coefficients={"regularization": regularization},
        standardize=True,
        source="Wang, Teng & Perdikaris 2021; flow of Ghia, Ghia & Shin 1982",
    )
