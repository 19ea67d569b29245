"""The one way to a galaxy's pixels."""

from abc import ABC, abstractmethod

import numpy as np
from jaxtyping import UInt8


class ImageSource(ABC):
    """Cutouts by row of the catalogue. Picklable, and safe to use from several worker processes."""

    @abstractmethod
    def cutout(self, row: int) -> UInt8[np.ndarray, "height width 3"]:
        """One galaxy's pixels, any size, 0–255.

        Raises:
            DataError: the image is missing or unreadable (``ids`` names the galaxy).
        """
