"""What the search box and the button "more like this" find."""

from collections.abc import Sequence
from typing import Any

from rarezoo import tables
from rarezoo.explore.app.galaxies import ShownGalaxies


class Finder:
    """Finds galaxies by id, position, words, or likeness.

    Parameters
    ----------
    galaxies
        The galaxies.
    """

    def __init__(self, galaxies: ShownGalaxies) -> None:
        self.galaxies = galaxies

    def similar(self, ids: Sequence[str], *, against: Sequence[str], k: int) -> dict[str, Any]:
        found = self.galaxies.store.neighbours(ids[0], k)
        return {"galaxies": [{tables.ID: name} for name in found["neighbour"]], "message": ""}

    def words(self, text: str, *, k: int) -> dict[str, Any]:
        return {"galaxies": [], "message": ""}

    def find(self, text: str, *, k: int) -> dict[str, Any]:
        """Return the galaxies that a text means."""
        wanted = text.strip()
        if wanted in self.galaxies.rows:
            return {"galaxies": [{tables.ID: wanted}], "title": f"Galaxy {wanted}", "why": "search", "message": ""}
        return {"galaxies": [], "title": "", "why": "", "message": "There is no such galaxy."}
