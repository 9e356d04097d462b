"""A small network and losses that fight over it, for tests of what is trained beside weights."""

import jax.numpy as jnp
import numpy as np


def network(units, outputs):
    """Random weights of a hidden layer and a linear one, of points `[N, 2]`."""
    rng = np.random.default_rng(0)
    return {
        "bias": jnp.asarray(rng.normal(size=units)),
        "in": jnp.asarray(rng.normal(size=(2, units))),
        "out": jnp.asarray(rng.normal(size=(units, outputs))),
    }


def loss(k, weights):
    """Loss k, which wants all outputs to be k at points of its own."""
    x = jnp.asarray(np.random.default_rng(k).normal(size=(8, 2)))
    return jnp.mean((jnp.tanh(x @ weights["in"] + weights["bias"]) @ weights["out"] - k) ** 2)
