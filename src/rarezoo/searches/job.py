"""``cluster.py``: a search, and its place in a sweep."""

from dataclasses import dataclass

from rarezoo.searches.run import SearchRun
from rarezoo.settings import setting


@dataclass(kw_only=True)
class ClusterJob(SearchRun):
    """A search, and its place in a sweep."""

    vary: list[str] = setting([], "SETTING:VALUE …, changed against the rest of the command, as a sweep's jobs do")
    sensitivity: bool = setting(False, "a multirun ends with the page of `rarezoo sensitivity`")
