"""Loaders: an order that follows from the seed, states to resume from, and what an unreadable image does."""

import os
import threading
import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from rarezoo import tables
from rarezoo.data.images import ImageSource
from rarezoo.data.loaders import CutoutLoader, EpochOrder, decoding_processes
from rarezoo.data.survey import Galaxies
from rarezoo.errors import ConfigError, DataError
from rarezoo.zoo.views import inference_view, training_cutout

pytestmark = pytest.mark.unit


class Noise(ImageSource):
    """Galaxy i is noise from seed i; some files are broken."""

    def __init__(self, broken=()):
        self.broken = broken

    def cutout(self, row):
        if row in self.broken:
            raise DataError("unreadable image", value=f"{row}.jpg", fix="Mend it.", ids=[f"g{row}"])
        return np.random.default_rng(row).integers(0, 255, (40, 40, 3), dtype=np.uint8)


class Slow(Noise):
    """So slow that batches are still being made when the first is there."""

    def cutout(self, row):
        time.sleep(0.005)
        return super().cutout(row)


def survey(size=20, broken=()):
    blank = pa.nulls(size, pa.string())
    catalogue = pa.table({tables.ID: [f"g{i}" for i in range(size)], tables.IMAGE: blank, tables.SPLIT: blank})
    votes = np.arange(size * 2, dtype=np.float32).reshape(size, 2)
    return Galaxies(catalogue=catalogue, images=Noise(broken), votes=votes)


def loader(galaxies, *, workers=0, seed=0, **settings):
    rows = np.arange(len(galaxies))
    order = EpochOrder(len(rows), seed=seed)
    return CutoutLoader(
        galaxies, rows, view=training_cutout(32), batch_size=4, workers=workers, order=order, **settings
    )


def test_batches_hold_rows_images_and_votes_that_belong_together():
    galaxies = survey()
    for batch in loader(galaxies):
        assert batch.images.shape == (4, 3, 42, 42)
        assert batch.images.dtype == torch.uint8
        np.testing.assert_array_equal(batch.votes, galaxies.votes[batch.rows])


def test_without_an_order_rows_come_as_they_are():
    rows = np.array([5, 2, 9])
    plain = CutoutLoader(survey(), rows, view=inference_view(32), batch_size=2)
    assert torch.cat([batch.rows for batch in plain]).tolist() == [5, 2, 9]
    assert len(plain) == 2


def test_the_order_follows_from_the_seed_whatever_the_number_of_workers():
    alone, helped = (list(loader(survey(), workers=workers)) for workers in (0, 2))
    for expected, other in zip(alone, helped, strict=True):
        assert torch.equal(expected.rows, other.rows)
        assert torch.equal(expected.images, other.images)
    other_seed = torch.cat([batch.rows for batch in loader(survey(), seed=1)])
    assert other_seed.tolist() != torch.cat([batch.rows for batch in alone]).tolist()


def test_a_negative_number_of_processes_is_refused():
    with pytest.raises(ConfigError, match="workers"):
        loader(survey(), workers=-1)


def test_a_processor_is_left_to_its_network_and_a_gpu_is_fed_by_processes(monkeypatch):
    assert decoding_processes(3) == 3
    for gpu, cores, processes in ((False, 32, 0), (True, 32, 8), (True, 4, 3)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert decoding_processes(None) == processes


def test_batches_left_in_the_middle_leave_no_thread_behind():
    before = threading.active_count()
    batches = iter(loader(replace(survey(), images=Slow())))
    next(batches)
    assert threading.active_count() == before + 1
    batches.close()
    assert threading.active_count() == before


def test_epochs_differ_and_cover_every_galaxy():
    batches = loader(survey())
    first = torch.cat([batch.rows for batch in batches]).tolist()
    batches.sampler.set_epoch(1)
    second = torch.cat([batch.rows for batch in batches]).tolist()
    assert first != second
    assert sorted(first) == sorted(second) == list(range(20))


def test_an_epoch_goes_on_where_its_state_was_saved():
    whole = list(loader(survey()))
    begun = loader(survey())
    steps = iter(begun)
    next(steps), next(steps)
    resumed = loader(survey())
    resumed.load_state_dict(begun.state_dict())
    rest = list(resumed)
    assert len(rest) == 3
    for expected, other in zip(whole[2:], rest, strict=True):
        assert torch.equal(expected.rows, other.rows)
        assert torch.equal(expected.images, other.images)


@pytest.mark.parametrize(
    ("size", "batch", "sizes"),
    [(13, 4, [4, 4, 5]), (12, 4, [4, 4, 4]), (14, 4, [4, 4, 4, 2]), (5, 4, [5]), (4, 4, [4]), (3, 2, [3]), (1, 4, [1]),
     (3, 1, [1, 1, 1])],
)  # fmt: skip
@pytest.mark.parametrize("world", [1, 2])
def test_no_galaxy_is_alone_in_the_last_batch_of_an_epoch(size, batch, sizes, world):
    galaxies = survey(size * world)
    seen = []
    for rank in range(world):
        order = EpochOrder(len(galaxies), seed=0, rank=rank, world=world)
        batches = CutoutLoader(
            galaxies, np.arange(len(galaxies)), view=training_cutout(32), batch_size=batch, order=order
        )
        rows = [batch.rows for batch in batches]
        assert [len(part) for part in rows] == sizes
        assert len(batches) == len(sizes)
        seen += torch.cat(rows).tolist()
    assert sorted(seen) == list(range(len(galaxies)))


def test_a_resumed_epoch_has_the_same_last_batch():
    def begun():
        return CutoutLoader(
            survey(9), np.arange(9), view=training_cutout(32), batch_size=4, order=EpochOrder(9, seed=0)
        )  # fmt: skip

    whole, first = list(begun()), begun()
    next(iter(first))
    resumed = begun()
    resumed.load_state_dict(first.state_dict())
    assert [batch.rows.tolist() for batch in resumed] == [whole[1].rows.tolist()]


def test_a_galaxy_that_unreadable_images_leave_alone_in_a_batch_is_left_out_of_it():
    order = list(EpochOrder(20, seed=0))
    skipping = loader(survey(broken=order[4:7]), on_bad_image="skip")
    assert [len(batch.rows) for batch in skipping] == [4, 4, 4, 4]
    assert order[7] not in torch.cat([batch.rows for batch in skipping])


def test_processes_share_an_epoch_without_overlap():
    parts = [list(EpochOrder(21, seed=0, rank=rank, world=2)) for rank in range(2)]
    assert [len(part) for part in parts] == [11, 11]
    assert set(parts[0]) | set(parts[1]) == set(range(21))


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_image_stops_with_its_id(workers):
    with pytest.raises(DataError, match="unreadable image") as caught:
        list(loader(survey(broken=(7,)), workers=workers))
    assert caught.value.ids == ("g7",)


def test_skipped_images_are_listed_once_and_a_batch_of_nothing_else_vanishes():
    rows = np.arange(6)
    skipping = CutoutLoader(survey(broken=(0, 1, 5)), rows, view=inference_view(32), batch_size=2, on_bad_image="skip")
    for _ in range(2):
        assert torch.cat([batch.rows for batch in skipping]).tolist() == [2, 3, 4]
    assert skipping.skipped == ["g0", "g1", "g5"]
