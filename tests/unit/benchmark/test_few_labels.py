"""The few-labels board: its draws, what is kept, and the adapter for a table of one's own."""

import numpy as np
import pandas as pd
import pytest

from rarezoo.benchmark.few_labels import FewLabelsRun, read_contestants
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, DataError
from rarezoo.settings import conf_dir

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """Settings of a board on a table of one's own, with two starts: one that knows the kind, and one that does not."""
    folder, random = tmp_path_factory.mktemp("few"), np.random.default_rng(0)
    ids, lens = [f"g{row}" for row in range(400)], np.arange(400) % 8 == 0
    (folder / "known.csv").write_text("id_str,lens\n" + "\n".join(f"{i},{int(yes)}" for i, yes in zip(ids, lens, strict=True)))
    for name, shift in (("ours", 3), ("untrained", 0)):
        vectors = random.normal(size=(400, 6)) + shift * lens[:, None] * np.eye(6)[0]
        EmbeddingStore.from_array(ids, vectors.astype(np.float32), out=folder / name, name=name)
    return {
        "store": str(folder / "ours"), "starts": [f"untrained={folder / 'untrained'}"], "table": str(folder / "known.csv"),
        "answers": ["lens=lens"], "contestants": ["probe_embedding", "untrained"], "positives": [3, 10, 90],
        "draws": "0-2", "out": str(folder / "out"),
    }  # fmt: skip


def test_a_start_that_knows_the_kind_is_above_one_that_does_not(board):
    text = FewLabelsRun(**board).run()
    found = pd.read_csv(f"{board['out']}/results.csv").groupby(["contestant", "positives"])["auc"].mean()
    assert found["probe_embedding", 10] > 0.85 > 0.65 > found["untrained", 10]
    assert "lens is 1" in text or "lens (lens is 1)" in text
    assert 90 not in found.index.get_level_values("positives")  # there are 50 galaxies of the kind


def test_what_was_computed_is_kept_and_what_is_damaged_is_computed_again(board, tmp_path):
    settings = {**board, "contestants": ["untrained"], "positives": [3], "out": str(tmp_path)}
    FewLabelsRun(**settings).run()
    first, second, _ = files = sorted((tmp_path / "draws").iterdir())
    before = first.stat().st_mtime_ns
    whole = second.read_text()
    second.write_text(whole[:20])
    FewLabelsRun(**settings).run()
    assert first.stat().st_mtime_ns == before
    assert second.read_text() == whole
    assert len(files) == 3


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"contestants": ["prob"]}, ConfigError, ["prob", "probe"]),
        ({"contestants": ["imagenet_last"]}, ConfigError, ["imagenet_last=FOLDER"]),
        ({"starts": ["runs/random"]}, ConfigError, ["NAME=FOLDER"]),
        ({"table": ""}, DataError, ["table="]),
        ({"positives": [46]}, DataError, ["51"]),
    ],
)
def test_a_board_that_cannot_be_made_is_refused(board, changes, error, message):
    with pytest.raises(error) as refused:
        FewLabelsRun(**{**board, **changes}).run()
    assert all(part in str(refused.value) for part in message), refused.value


def test_every_contestant_of_the_configuration_can_be_read():
    names = [contestant.name for contestant in read_contestants(conf_dir() / "contestant")]
    assert {"probe", "imagenet_last", "imagenet_inner", "untrained", "votes", "photometry"} <= set(names)
