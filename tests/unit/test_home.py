"""Without a home folder that can be written, libraries keep their caches in a temporary folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import rarezoo
from rarezoo.home import use_temporary_caches

PACKAGES = Path(rarezoo.__file__).parents[1]


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """An environment without folders of libraries, whose temporary files are in a folder of the test."""
    for name in [name for name in os.environ if name.startswith(("XDG_", "MPL", "WANDB_", "HF_", "TORCH_HOME"))]:
        monkeypatch.delenv(name)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "file").touch()
    return monkeypatch


@pytest.mark.unit
@pytest.mark.parametrize("home", ["file", "file/home", "nowhere/home"])
def test_caches_are_put_into_a_temporary_folder_that_is_named_once(environment, tmp_path, caplog, home):
    environment.setenv("HOME", str(tmp_path / home))
    environment.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    folder = use_temporary_caches()
    assert folder.parent == tmp_path / "temporary"
    assert str(folder) in caplog.text
    assert os.environ["XDG_CACHE_HOME"] == str(folder / "cache")
    assert use_temporary_caches() is None


@pytest.mark.unit
def test_a_home_that_can_be_written_is_used(environment, tmp_path):
    environment.setenv("HOME", str(tmp_path))
    assert use_temporary_caches() is None
    assert "XDG_CACHE_HOME" not in os.environ


@pytest.mark.unit
def test_downloaded_weights_in_a_home_that_is_read_only_are_still_found(environment, tmp_path):
    home = tmp_path / "home"
    (home / ".cache" / "huggingface").mkdir(parents=True)
    environment.setenv("HOME", str(home))
    environment.setattr("os.access", lambda path, mode: home not in (Path(path), *Path(path).parents))
    assert use_temporary_caches() is not None
    assert os.environ["HF_HOME"] == str(home / ".cache" / "huggingface")
    assert os.environ["HOME"] == str(home)


@pytest.mark.unit
def test_a_folder_that_somebody_else_has_made_is_not_used(environment, tmp_path):
    environment.setenv("HOME", str(tmp_path / "file"))
    (tmp_path / "trap").mkdir()
    (tmp_path / "temporary" / f"rarezoo-{os.getuid()}").symlink_to(tmp_path / "trap")
    folder = use_temporary_caches()
    assert folder.resolve() != (tmp_path / "trap").resolve()
    assert not list((tmp_path / "trap").iterdir())


SEARCH = """
import numpy as np
import rarezoo as rz
random = np.random.default_rng(0)
store = rz.EmbeddingStore.from_array(range(150), random.normal(size=(150, 4)), out="store")
from rarezoo.searches.compressors.pca import Pca
search = rz.search(
    store, out="search", compress=Pca(n_components=2), drawing=Pca(n_components=2), images=False,
    significance=rz.Significance(surveys=5), stability=rz.Stability(refits=0),
)
print(len(search.ids))
"""


@pytest.mark.pipeline
@pytest.mark.slow
def test_a_search_needs_neither_a_home_nor_a_package_that_can_be_written(tmp_path):
    packages = tmp_path / "packages"
    shutil.copytree(PACKAGES, packages, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [packages, *packages.rglob("*/")]:
        # Not even the administrator can write into a folder that is a file.
        (folder / "__pycache__").touch()
    (tmp_path / "file").touch()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "MPL", "NUMBA_CACHE"))}
    environment = {
        **kept, "HOME": str(tmp_path / "file" / "home"), "TMPDIR": str(tmp_path), "PYTHONPATH": str(packages),
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    command = [sys.executable, "-c", SEARCH]
    finished = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() == "150"
    assert finished.stderr.count("caches are kept in") == 1
