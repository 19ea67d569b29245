"""Text encoders of other packages are found, used and checked."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from rarezoo import settings
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError
from rarezoo.explore.similar_command import SimilarRun
from rarezoo.explore.text import TextEncoder, vector_of

pytestmark = pytest.mark.unit
GROUPS = "rarezoo.text_encoders"
DIRECTIONS = {"red": [1, 0, 0], "blue": [0, 1, 0]}


@dataclass
class Colours:
    """A text encoder that knows two words."""

    def encode(self, texts):
        return np.array([DIRECTIONS[text] for text in texts], dtype=np.float64)


@dataclass
class Wide:
    """A text encoder for other embeddings."""

    def encode(self, texts):
        return np.zeros((len(texts), 512))


@dataclass
class Silent:
    """No text encoder."""


@pytest.fixture
def installed(monkeypatch):
    """Install text encoders by name, as entry points of another package."""

    def install(**encoders):
        points = [EntryPoint(name, f"{__name__}:{kind.__name__}", GROUPS) for name, kind in encoders.items()]
        monkeypatch.setattr(EntryPoint, "load", lambda point: encoders[point.name])
        monkeypatch.setattr(settings, "entry_points", lambda group: points if group == GROUPS else [])

    yield install
    settings._OPTIONS.pop("text_encoder", None)


@pytest.fixture
def store(tmp_path):
    vectors = np.array([[9, 1, 0], [1, 9, 1], [-5, -5, 2], [-5, -5, -3]], dtype=np.float32)
    return EmbeddingStore.from_array(["r", "b", "c", "d"], vectors, out=tmp_path / "store", name="net")


def test_the_protocol_tells_encoders_from_other_classes():
    assert isinstance(Colours(), TextEncoder)
    assert not isinstance(Silent(), TextEncoder)


def test_galaxies_are_ranked_by_the_vector_of_a_text(installed, store):
    installed(colours=Colours)
    assert vector_of("red", width=3).tolist() == [1, 0, 0]
    text = SimilarRun(search_or_store=str(store.folder), text="blue", k=2).run()
    rows = [line.split("|")[2].strip() for line in text.splitlines() if line.startswith("| ")]
    assert rows[0] == "id_str"
    mean = store.embeddings().mean(axis=0)
    centred, asked = store.embeddings() - mean, np.array([0, 1, 0]) - mean
    order = np.argsort(-(centred @ asked) / np.linalg.norm(centred, axis=1))
    assert rows[2:] == [store.ids[row] for row in order[:2]]


@pytest.mark.parametrize(
    ("encoders", "asked", "message"),
    [
        ({}, {}, "no text encoder is installed: text=red. Install a package"),
        ({"a": Colours, "b": Wide}, {}, "several text encoders are installed: a, b"),
        ({"a": Colours}, {"encoder": "z"}, "unknown text_encoder: z. Choose one of: a"),
        ({"a": Wide}, {}, r"embeddings are 3 wide: vectors of shape \(1, 512\)"),
        ({"a": Silent}, {}, "needs a method encode: a"),
    ],
)
def test_an_encoder_that_cannot_be_used_is_refused_with_a_way_out(installed, encoders, asked, message):
    installed(**encoders)
    with pytest.raises(ConfigError, match=message):
        vector_of("red", width=3, **asked)
