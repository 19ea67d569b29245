"""The mock sky drawn by several processes, killed, and drawn on."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from rarezoo.data.surveys.mock import Mock

pytestmark = pytest.mark.pipeline

_SCRIPT = """
from rarezoo.data.surveys.mock import Mock
Mock(n=1200, side=24, workers=1, cache={cache!r}).open()
"""


def blocks(cache):
    return sorted(cache.glob("mock-*/*.npy"))


@pytest.mark.slow
def test_any_number_of_workers_draws_the_same_sky(tmp_path):
    for workers in (1, 2):
        Mock(n=540, side=16, workers=workers, cache=str(tmp_path / str(workers))).open()
    first, two = blocks(tmp_path / "1"), blocks(tmp_path / "2")
    assert [path.name for path in first] == [path.name for path in two]
    assert len(first) == 2
    assert all(left.read_bytes() == right.read_bytes() for left, right in zip(first, two, strict=True))


@pytest.mark.slow
def test_kill_9_leaves_whole_blocks_and_the_next_run_goes_on(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", _SCRIPT.format(cache=str(tmp_path))], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not blocks(tmp_path) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before = {path: path.stat().st_mtime_ns for path in blocks(tmp_path)}
    assert 1 <= len(before) < 3
    galaxies = Mock(n=1200, side=24, workers=2, cache=str(tmp_path)).open()
    assert len(blocks(tmp_path)) == 3
    assert {path: path.stat().st_mtime_ns for path in before} == before
    fresh = Mock(n=1200, limit=3, side=24, workers=1, cache=str(tmp_path / "fresh")).open()
    for row in range(3):
        assert np.array_equal(galaxies.images.cutout(row), fresh.images.cutout(row))
