"""The checkpoints in the repository: whole, small enough, sound on this machine, with a card to be believed."""

from pathlib import Path

import pytest

from rarezoo.zoo.cards import checkpoints
from rarezoo.zoo.checkpoint import Checkpoint

pytestmark = pytest.mark.pipeline
ROOT = Path(__file__).parents[2] / "checkpoints"
RELEASED = checkpoints(ROOT)
_MEGABYTE = 1e6


def test_together_they_are_small_enough_for_a_repository():
    sizes = [file.stat().st_size for folder in RELEASED for file in folder.iterdir()]
    assert max(sizes) < 64 * _MEGABYTE
    assert sum(sizes) < 120 * _MEGABYTE


@pytest.mark.parametrize("folder", RELEASED, ids=lambda value: value.name)
def test_opens_by_name_and_says_what_it_said_when_it_was_saved(folder):
    checkpoint = Checkpoint.open(folder.name, root=ROOT)
    assert checkpoint.card["dtype"] == "float16"
    assert checkpoint.width == 128
    assert {"data", "training", "metrics", "licence", "preprocessing"} <= set(checkpoint.card)
    assert (folder / "README.md").read_text().startswith(f"# {folder.name}")
