"""What the tests of the live page share: a small search on disk, and a client that asks its server."""

from types import SimpleNamespace

import pytest
from made_up import survey_on_disk
from starlette.testclient import TestClient

from rarezoo.explore.app.api import Api
from rarezoo.explore.app.classes import ShownClasses
from rarezoo.explore.app.galaxies import ShownGalaxies
from rarezoo.explore.app.guard import Access
from rarezoo.explore.app.page import application
from rarezoo.explore.labels import Labels
from rarezoo.explore.ranking import RatingSettings
from rarezoo.explore.session import Session
from rarezoo.searches.result import Search

TOKEN = "a-token-that-nobody-guesses"
SETTINGS = RatingSettings(beside=[], components=0)


@pytest.fixture(scope="session")
def searched(tmp_path_factory):
    """Folder of a search of 60 galaxies; tests write their ratings elsewhere."""
    return survey_on_disk(tmp_path_factory.mktemp("searched"))


@pytest.fixture(scope="session")
def search(searched):
    """The search, opened with its survey and with what a model learns from, once for all tests."""
    opened = Search.open(searched)
    return opened, ShownGalaxies(opened), SETTINGS.features(opened.store)


@pytest.fixture
def served(search, tmp_path):
    """Starts the application on a database of its own; what it returns has a client with the token, and the ratings."""
    opened = []

    def serve(*, read_only=False, database="labels.sqlite", headers=None, images=True, source=None):
        opened_search, galaxies, features = search
        if source is not None or not images:
            galaxies, features = ShownGalaxies(source or opened_search, images=images), None
        served_from = source or opened_search
        labels = Labels.of(served_from, tmp_path / database, read_only=read_only)
        session = Session(served_from, labels, settings=SETTINGS, features=features)
        classes = None
        if source is None:
            classes = ShownClasses(opened_search, survey=galaxies.survey, file=tmp_path / "decisions.json")
        api = Api(session, labels, galaxies, by="", read_only=read_only, classes=classes)
        access = Access(TOKEN, frozenset({"127.0.0.1", "localhost", "::1"}), read_only=read_only)
        app = application(api, access)
        bearer = {"authorization": f"Bearer {TOKEN}"} if headers is None else headers
        client = TestClient(
            app, base_url="http://127.0.0.1:8765", headers=bearer, raise_server_exceptions=False
        )  # fmt: skip
        opened.extend([client, session, labels])
        return SimpleNamespace(client=client, labels=labels, session=session, app=app, folder=tmp_path)

    yield serve
    for one in opened:
        one.close()


@pytest.fixture
def grade():
    """Makes a rating as the page sends it."""

    def made(galaxy, value=4, **changes):
        return {
            "id_str": galaxy, "label": "interesting", "kind": "grade", "value": value, "by": "ann", "why": "model",
            "round": 1, "seconds": 1.5, "at": "2026-01-31T12:00:00.123Z", **changes,
        }  # fmt: skip

    return made
