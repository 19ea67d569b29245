"""Files that could come from somebody else are read without running anything that is in them."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from rarezoo.benchmark.harness import Trial, TrialFolder
from rarezoo.benchmark.tiers import Vectors
from rarezoo.cache import kept_array
from rarezoo.errors import CheckpointError, StoreError
from rarezoo.searches.compress import FittedMap
from rarezoo.searches.compressors.pca import Pca
from rarezoo.studies.bottleneck import Measurement
from rarezoo.training.progress import States
from rarezoo.zoo.encoder import local_weights

pytestmark = pytest.mark.unit


class Trap:
    """An object that makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def trap(tmp_path):
    """A trap, which must not have been sprung at the end of the test."""
    mark = tmp_path / "sprung"
    pickle.loads(pickle.dumps(Trap(mark)))
    assert mark.exists()
    mark.unlink()
    yield Trap(mark)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["weights.pth", "pytorch_model.bin", "weights.ckpt", "weights.safetensors"])
@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_first_weights(trap, tmp_path, name, write):
    write({"state_dict": {"weight": torch.zeros(2)}, "extra": trap}, tmp_path / name)
    with pytest.raises(CheckpointError, match="unreadable weights"):
        local_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["last.ckpt", "best.pt"])
def test_the_state_of_a_training(trap, tmp_path, name):
    states = States(tmp_path, every=1)
    for file in (states.last, states.best):
        torch.save({"epoch": 1}, file)
    assert states.readable()
    torch.save({"callbacks": trap}, tmp_path / name)
    assert not states.readable()


def test_an_array_that_is_kept(trap, tmp_path):
    np.save(tmp_path / "values.npy", np.array([trap], dtype=object), allow_pickle=True)
    assert kept_array(tmp_path / "values.npy", lambda: np.arange(3)).tolist() == [0, 1, 2]


def test_a_fitted_map(trap, tmp_path):
    values = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    Pca(n_components=2).fit(values, ids=list(map(str, range(20)))).save(tmp_path)
    with np.load(tmp_path / "state.npz") as stored:
        names = list(stored)
    np.savez(tmp_path / "state.npz", **{name: np.array([trap], dtype=object) for name in names})
    with pytest.raises(StoreError, match="incomplete or damaged"):
        FittedMap.open(tmp_path)


def test_a_measurement_of_the_bottleneck_study(trap, tmp_path):
    np.savez(tmp_path / "measured.npz", checkpoint=np.array([trap], dtype=object))
    with pytest.raises(StoreError, match="unreadable measurement"):
        Measurement.read(tmp_path / "measured.npz")


def test_a_trial_of_the_benchmark(trap, tmp_path):
    trials = TrialFolder(tmp_path, Vectors(galaxies=300, groups=2, smallest=20, largest=30), {}, 1.0)
    (tmp_path / "sky1").mkdir()
    np.savez(tmp_path / "sky1" / "truth.npz", names=np.array([trap], dtype=object))
    with pytest.raises(StoreError, match="no results of this sky"):
        trials.truth(1)
    np.savez(tmp_path / "sky1" / "a.whole.npz", labels=np.array([trap], dtype=object))
    with pytest.raises(StoreError, match="unreadable submission"):
        trials.submission(Trial("a", 1))
