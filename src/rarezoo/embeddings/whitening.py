"""Principal components of embeddings at unit variance, or nearer to it than they were.

Shape letters: n galaxies, D width of the embeddings, c components.
"""

import numpy as np
from jaxtyping import Float, Float32
from threadpoolctl import threadpool_limits

# Rows that are projected together: their result stays in the cache of a core.
_BLOCK = 1024


def principal_axes(
    embeddings: Float[np.ndarray, "n D"], *, components: int, power: float = 1.0
) -> tuple[Float32[np.ndarray, " D"], Float32[np.ndarray, "D c"]]:
    """Return the mean of embeddings and their principal axes, each divided by a power of the scatter along it.

    Parameters
    ----------
    embeddings : (n, D) array of floats
    components : int
        Largest number of axes. Directions in which the embeddings do not vary beyond rounding are left out.
    power : float
        1 gives every component unit variance, 0 leaves its variance as it is.

    Returns
    -------
    mean : (D,) float32
    axes : (D, c) float32
        The axis of the largest variance first.
    """
    mean = embeddings.mean(axis=0, dtype=np.float64)
    # One thread: BLAS would add in an order that depends on their number.
    with threadpool_limits(1, user_api="blas"):
        covariance = np.cov((embeddings - mean).astype(np.float64), rowvar=False).reshape(len(mean), len(mean))
        variances, axes = np.linalg.eigh(covariance)
    variances, axes = variances[::-1], axes[:, ::-1]
    # Where the scatter is below the resolution of float32 at the largest scatter, a direction holds rounding errors.
    varied = int(np.sum(variances > variances[0] * len(mean) * np.finfo(np.float32).eps ** 2))
    components = min(components, varied)
    # The sign of an eigenvector is arbitrary: its largest entry is made positive.
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(len(mean))])
    scaled = (axes * signs)[:, :components] / np.sqrt(variances[:components]) ** power
    return mean.astype(np.float32), scaled.astype(np.float32)


def projected(
    embeddings: Float32[np.ndarray, "n D"], mean: Float32[np.ndarray, " D"], axes: Float32[np.ndarray, "D c"]
) -> Float32[np.ndarray, "n c"]:
    """Return embeddings projected on axes: a row has the same bits whatever rows stand beside it.

    The products are added axis by axis because BLAS does not promise that.
    """
    result = np.zeros((len(embeddings), axes.shape[1]), np.float32)
    for first in range(0, len(embeddings), _BLOCK):
        block = slice(first, first + _BLOCK)
        for values, axis in zip((embeddings[block] - mean).T, axes, strict=True):
            result[block] += values[:, None] * axis
    return result
