"""Parts of a store: every shard is in one part, and files of processes that live are left alone."""

import os

import pytest

from rarezoo import tables
from rarezoo.embeddings.parts import shards_of_part
from rarezoo.errors import ConfigError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("shards", "parts"), [(7, 3), (64, 64), (3, 5), (1, 1), (11, 4)])
def test_every_shard_is_in_one_part(shards, parts):
    found = [shard for part in range(1, parts + 1) for shard in shards_of_part(f"{part}/{parts}", shards=shards)]
    assert found == list(range(shards))


def test_most_of_a_great_number_of_parts_have_no_shard():
    assert shards_of_part("3/99999999999999", shards=4) == [2]
    assert shards_of_part("99999999999999/99999999999999", shards=4) == []


@pytest.mark.parametrize("part", ["0/3", "4/3", "3", "a/b", "-1/2", "1/0", "1/2/3"])
def test_a_part_that_is_none_is_refused(part):
    with pytest.raises(ConfigError, match="part"):
        shards_of_part(part, shards=9)


def test_a_file_is_left_behind_only_if_nobody_writes_it(tmp_path):
    with tables.atomic(tmp_path / "shard-00000.parquet") as partial:
        partial.write_text("half")
        assert not tables.is_left_behind(partial)
        dead = partial.with_name(partial.name.replace(str(os.getpid()), "999999999"))
        elsewhere = partial.with_name(f".shard-00000.parquet.another_machine-{os.getpid()}.partial")
        for path in (dead, elsewhere):
            path.write_text("half")
        assert tables.is_left_behind(dead)
        assert not tables.is_left_behind(elsewhere)
        os.utime(elsewhere, (0, 0))
        assert tables.is_left_behind(elsewhere)
