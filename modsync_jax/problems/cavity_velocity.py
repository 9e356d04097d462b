"""Lid-driven cavity at Re = 100, in velocity and pressure.

u u_x + v u_y + p_x = Δu / Re,  u v_x + v v_y + p_y = Δv / Re,  u_x + v_y = 0 on [0, 1]²
(u, v) = (1, 0) on the lid, y = 1, and (0, 0) on the walls

Plain PINNs fail on this one of the two forms (Wang, Teng & Perdikaris 2021). The reference is the
velocity, because the pressure is determined only up to a constant.
"""

from functools import partial

from jax import Array

from modsync_jax.calculus import Field, partials
from modsync_jax.problems import _cavity
from modsync_jax.problems._base import Problem
from modsync_jax.problems._coefficients import coefficient
from modsync_jax.problems._conditions import value
from modsync_jax.sampling import box


def residual(w: Field, x: Array) -> dict[str, Array]:
    """Returns the residuals of momentum and mass at a point `[2]`, (x, y), of w = (u, v, p)."""
    laplacian = {"xx": 1 / _cavity.REYNOLDS, "yy": 1 / _cavity.REYNOLDS}
    values, slopes_x, slopes_y, diffusion = partials(w, x, "", "x", "y", laplacian)
    (u, v, _), (u_x, v_x, p_x), (u_y, v_y, p_y) = values, slopes_x, slopes_y
    return {
        "momentum_x": u * u_x + v * u_y + p_x - diffusion[0],
        "momentum_y": u * v_x + v * v_y + p_y - diffusion[1],
        "mass": u_x + v_y,
    }


def velocity(w: Field, x: Array) -> dict[str, Array]:
    """Returns the velocity at a point `[2]`."""
    values = w(x)
    return {"u": values[0], "v": values[1]}


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
    conditions = {"lid_u": value("y=1", lid, "u"), "lid_v": value("y=1", 0.0, "v")} | {
        f"{name}_{component}": value(face, 0.0, component)
        for name, face in walls.items()
        for component in ("u", "v")
    }
    return Problem(
        name="cavity_velocity",
        domain=box(x=(0, 1), y=(0, 1)),
        residual=residual,
        conditions=conditions,
        points=dict.fromkeys(["residual", *conditions], 128),
        outputs=("u", "v", "p"),
        observe=velocity,
        reference=partial(_cavity.velocity, regularization=regularization),
        coefficients={"regularization": regularization},
        standardize=True,
        source="Wang, Teng & Perdikaris 2021; flow of Ghia, Ghia & Shin 1982",
    )
