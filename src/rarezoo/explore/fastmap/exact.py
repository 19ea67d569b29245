"""Products that are the same for a row whatever rows stand beside it, which BLAS does not promise."""

import numba
import numpy as np
from jaxtyping import Float32


@numba.njit(cache=True)
def products(rows: Float32[np.ndarray, "n D"], axes: Float32[np.ndarray, "D k"]) -> Float32[np.ndarray, "n k"]:
    """rows @ axes, added axis by axis."""
    found = np.zeros((rows.shape[0], axes.shape[1]), np.float32)
    for row in range(rows.shape[0]):
        for axis in range(rows.shape[1]):
            for column in range(axes.shape[1]):
                found[row, column] += rows[row, axis] * axes[axis, column]
    return found
