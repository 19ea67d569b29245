"""Embedding a survey: every galaxy once, in order, under one checkpoint. Images and network are stand-ins."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

from rarezoo import tables
from rarezoo.data.images import ImageSource
from rarezoo.data.survey import Galaxies, Survey, open_survey
from rarezoo.data.trees import Question, QuestionTree
from rarezoo.embeddings import embed
from rarezoo.embeddings.embed import EmbedRun, expected_fractions, turned
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, DataError, StoreError
from rarezoo.settings import option, setting
from rarezoo.zoo.network import Prediction

pytestmark = pytest.mark.unit

TREE = QuestionTree(
    "own", (Question("bar", ("bar_no", "bar_yes"), None), Question("arms", ("arms_1", "arms_2", "arms_3"), "bar_yes"))
)


class Grey(ImageSource):
    """Cutout i is grey of brightness i; some cannot be read."""

    def __init__(self, bad: tuple[int, ...]) -> None:
        self.bad = bad

    def cutout(self, row: int) -> np.ndarray:
        if row in self.bad:
            raise DataError("truncated image", value=f"g{row}.jpg", fix="Get it again.", ids=[f"g{row}"])
        return np.full((4, 4, 3), row, dtype=np.uint8)


@pytest.fixture
def grey_survey():
    """A survey class, known to the registry for the length of a test."""
    from rarezoo import settings as registry

    @option("data", "grey")
    @dataclass
    class GreySurvey(Survey):
        n: int = setting(10, "galaxies")
        bad: list[int] = field(default_factory=list)

        def _read(self) -> Galaxies:
            ids = [f"g{row}" for row in range(self.n)]
            kinds = tables.CATALOGUE.columns
            columns = {name: pa.nulls(self.n, kind) for name, kind in kinds.items()}
            table = pa.table({**columns, tables.ID: ids, tables.IMAGE: ids})
            return Galaxies(table, Grey(tuple(self.bad)))

    yield GreySurvey
    registry._OPTIONS["data"].pop("grey")


class Brightness(torch.nn.Module):
    """Embedding (brightness, 1 − brightness); concentrations that sum to 10 per question."""

    seen: list[int]

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def forward(self, images: torch.Tensor) -> Prediction:
        level = images.mean(dim=(1, 2, 3))[:, None]
        self.seen += (level[:, 0] * 255).round().int().tolist()
        ones = torch.ones_like(level)
        return Prediction(
            torch.cat([level, 1 - level], 1),
            torch.cat([4 * ones, 6 * ones, ones, 2 * ones, 7 * ones], 1),
        )


@pytest.fixture
def network(monkeypatch) -> Iterator[Brightness]:
    """The network of the checkpoint that every name opens."""
    network = Brightness()

    def opened(name: str) -> SimpleNamespace:
        view = lambda image: image.float() / 255  # noqa: E731
        return SimpleNamespace(name=name, network=network, tree=TREE, width=2, sha256=f"sha of {name}", view=view)

    monkeypatch.setattr(embed.Checkpoint, "open", opened)
    return network


def job(survey, tmp_path, **settings):
    return EmbedRun(
        data=survey,
        checkpoint="grey.v1",
        out=str(tmp_path),
        workers=0,
        **{"batch_size": 4, "shard_rows": 3, **settings},
    )


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
@pytest.mark.parametrize("shard_rows", [1, 3, 10, 100])
def test_every_galaxy_is_embedded_once_and_in_order(grey_survey, network, tmp_path, batch_size, shard_rows):
    store = job(grey_survey(), tmp_path, batch_size=batch_size, shard_rows=shard_rows).run()
    table = store.read()
    assert table[tables.ID].to_pylist() == [f"g{row}" for row in range(10)]
    np.testing.assert_allclose(store.embeddings()[:, 0], np.arange(10) / 255, atol=1e-6)
    assert table["arms_3_fraction"].to_pylist() == pytest.approx([0.7] * 10)
    assert network.seen == list(range(10))


@pytest.mark.parametrize("turns", [1, 4])
@pytest.mark.parametrize("batch_size", [1, 7, 16, 20, 64, 100])
def test_on_a_processor_the_network_sees_a_few_images_at_a_time_and_the_result_is_the_same(
    grey_survey, network, tmp_path, batch_size, turns
):
    batches, forward = [], network.forward

    def counted(images):
        batches.append(len(images))
        return forward(images)

    network.forward = counted
    few, many = grey_survey(n=70), {"shard_rows": 1000, "turns": turns}
    store = job(few, tmp_path / "store", batch_size=batch_size, **many).run()
    assert max(batches) == min(batch_size, 16)
    assert sum(batches) == 70 * turns
    others = job(few, tmp_path / "others", batch_size=16, **many).run()
    assert store.read().equals(others.read())
    np.testing.assert_allclose(store.embeddings()[:, 0], np.arange(70) / 255, atol=1e-6)


def test_parts_of_a_batch_give_what_the_whole_batch_gives():
    """A real network: the parts are joined in their order, and differ from the whole by rounding only."""
    from rarezoo.data.trees import named_tree
    from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
    from rarezoo.zoo.network import build_network

    with torch.random.fork_rng():
        torch.manual_seed(0)
        tree = named_tree("desi")
        network = build_network(EfficientNetB0(input_size=32, bottleneck=16), tree).eval()
        images = torch.rand(40, 3, 32, 32)

    def rows(size):
        batches = [SimpleNamespace(images=part, rows=torch.arange(len(part))) for part in images.split(size)]
        checkpoint = SimpleNamespace(network=network, tree=tree)
        done = list(embed.embedded(batches, checkpoint, precision="float32", turns=1))
        return np.concatenate([part.embeddings for part in done]), np.concatenate([part.fractions for part in done])

    with torch.inference_mode():
        whole = network(images).embedding.numpy()
    embeddings, fractions = rows(40)
    scatter = whole.std(axis=0).max()
    np.testing.assert_allclose(embeddings, whole, rtol=0, atol=1e-4 * scatter)
    for size in (16, 32):
        same_embeddings, same_fractions = rows(size)
        np.testing.assert_array_equal(same_embeddings, embeddings)
        np.testing.assert_array_equal(same_fractions, fractions)
    for size in (1, 7):
        near_embeddings, near_fractions = rows(size)
        np.testing.assert_allclose(near_embeddings, embeddings, rtol=0, atol=1e-4 * scatter)
        np.testing.assert_allclose(near_fractions, fractions, rtol=0, atol=1e-5)


def test_the_manifest_ties_survey_checkpoint_and_settings(grey_survey, network, tmp_path):
    survey = grey_survey(n=7)
    manifest = job(survey, tmp_path, dtype="float16").run().manifest
    assert (manifest.survey, manifest.survey_sha256) == ("grey", survey.open().sha256)
    assert (manifest.checkpoint, manifest.checkpoint_sha256) == ("grey.v1", "sha of grey.v1")
    assert (manifest.dtype, manifest.precision, manifest.rows) == ("float16", "float32", 7)
    assert manifest.answers == TREE.answers
    assert open_survey(EmbeddingStore.open(tmp_path).manifest.survey_settings) == survey


def test_a_lost_shard_is_embedded_again_in_the_batches_that_it_was_made_in(grey_survey, network, tmp_path):
    before = job(grey_survey(), tmp_path).run().read()
    (tmp_path / "shard-00001.parquet").unlink()
    network.seen.clear()
    assert job(grey_survey(), tmp_path, batch_size=2).run().read().equals(before)
    assert network.seen == [2, 3, 4, 5]
    job(grey_survey(), tmp_path).run()
    assert network.seen == [2, 3, 4, 5]


@pytest.mark.parametrize("bad", [[0], [2, 3], [3, 4, 5], [9], [0, 1, 2, 3, 4, 5, 6, 7, 8]])
def test_bad_images_are_skipped_and_listed_when_asked(grey_survey, network, tmp_path, bad):
    store = job(grey_survey(bad=bad, on_bad_image="skip"), tmp_path).run()
    kept = [row for row in range(10) if row not in bad]
    assert list(store.ids) == [f"g{row}" for row in kept]
    np.testing.assert_allclose(store.embeddings()[:, 0], np.array(kept) / 255, atol=1e-6)
    assert (tmp_path / "skipped.csv").read_text().split() == ["id_str", *(f"g{row}" for row in bad)]


def test_a_bad_image_stops_the_run_and_what_was_done_is_kept(grey_survey, network, tmp_path):
    with pytest.raises(DataError, match=r"truncated image: g7.jpg .galaxies g7"):
        job(grey_survey(bad=[7]), tmp_path, batch_size=3).run()
    assert sorted(path.name for path in tmp_path.glob("*.parquet")) == ["shard-00000.parquet", "shard-00001.parquet"]
    network.seen.clear()
    assert len(job(grey_survey(bad=[7], on_bad_image="skip"), tmp_path).run().ids) == 9
    assert network.seen == [4, 5, 6, 8, 9]


def test_no_image_at_all_is_reported(grey_survey, network, tmp_path):
    with pytest.raises(StoreError, match="no image of the survey could be read: 3 skipped"):
        job(grey_survey(n=3, bad=[0, 1, 2], on_bad_image="skip"), tmp_path).run()


def test_another_survey_or_checkpoint_does_not_go_on_with_the_store(grey_survey, network, tmp_path):
    job(grey_survey(), tmp_path).run()
    with pytest.raises(StoreError, match=r"survey_sha256, rows differ"):
        job(grey_survey(n=11), tmp_path).run()
    with pytest.raises(StoreError, match=r"checkpoint, checkpoint_sha256 differ: checkpoint grey.v1 → other"):
        EmbedRun(data=grey_survey(), checkpoint="other", out=str(tmp_path), shard_rows=3).run()


def test_what_is_not_finite_is_refused_with_the_ids(grey_survey, network, tmp_path):
    network.forward = lambda images: Prediction(images.mean(dim=(2, 3))[:, :2].log(), torch.ones(len(images), 5))
    with pytest.raises(StoreError, match=r"embeddings that float32 cannot hold: 1 galaxies .galaxies g0"):
        job(grey_survey(), tmp_path).run()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "int8"}, "dtype.*int8"),
        ({"precision": "fp8"}, "precision.*fp8"),
        ({"batch_size": 0}, "batch_size.*0"),
        ({"shard_rows": 0}, "shard_rows.*0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(grey_survey, network, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        job(grey_survey(), tmp_path, **settings).run()


def test_expected_fractions_sum_to_one_per_question():
    alphas = torch.tensor([[1.0, 3.0, 2.0, 2.0, 4.0]])
    torch.testing.assert_close(expected_fractions(alphas, TREE), torch.tensor([[0.25, 0.75, 0.25, 0.25, 0.5]]))


@pytest.mark.parametrize("turns", [1, 2, 4, 8])
def test_turns_are_different_orientations_of_the_same_pixels(turns):
    images = torch.arange(54, dtype=torch.uint8).reshape(2, 3, 3, 3)
    seen = list(turned(images, turns=turns))
    assert torch.equal(seen[0], images)
    assert len({batch[0].numpy().tobytes() for batch in seen}) == turns
    assert all(torch.equal(batch.flatten(2).sort().values, images.flatten(2).sort().values) for batch in seen)


def test_a_turned_galaxy_has_the_same_row_when_all_turns_are_averaged():
    images = torch.rand(2, 3, 5, 5)
    rows = [
        torch.stack([view[:, :, 0, 1] for view in turned(seen, turns=8)]).mean(dim=0)
        for seen in (images, images.rot90(1, (2, 3)), images.flip(2))
    ]
    torch.testing.assert_close(rows[0], rows[1])
    torch.testing.assert_close(rows[0], rows[2])


def test_turns_are_remembered_and_not_mixed(grey_survey, network, tmp_path):
    store = job(grey_survey(), tmp_path, turns=4).run()
    assert store.manifest.turns == 4
    np.testing.assert_allclose(store.embeddings()[:, 0], np.arange(10) / 255, atol=1e-6)
    with pytest.raises(StoreError, match="turns"):
        job(grey_survey(), tmp_path, turns=1).run()
    with pytest.raises(ConfigError, match="turns: 3"):
        job(grey_survey(), tmp_path, turns=3).run()
