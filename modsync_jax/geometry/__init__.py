"""Domains of any shape: disks, polygons, boxes, what is made of them, and triangle meshes."""

from modsync_jax.geometry._extruded import Extruded, extruded
from modsync_jax.geometry._mesh import Mesh, mesh, read_mesh
from modsync_jax.geometry._shapes import Shape, ball, disk, polygon, rectangle

__all__ = [
    "Extruded",
    "Mesh",
    "Shape",
    "ball",
    "disk",
    "extruded",
    "mesh",
    "polygon",
    "read_mesh",
    "rectangle",
]
