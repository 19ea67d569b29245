"""A wheel is built, installed in a fresh environment and searches a small store there, with its own settings."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
SEARCH = [
    "images=false", "logger=none", "compress=pca", "compress@drawing=pca", "drawing.n_components=2", "~preset",
    "clusterer=hdbscan", "clusterer.min_samples=5", "clusterer.min_cluster_size=10", "clusterer.selection=leaf",
    "significance.surveys=0", "stability.refits=0",
]  # fmt: skip
WRITE_STORE = """
import numpy as np
from rarezoo.embeddings.store import EmbeddingStore

random = np.random.default_rng(0)
embeddings = 9 * np.eye(8)[np.arange(240) % 3] + random.normal(size=(240, 8))
EmbeddingStore.from_array([f"g{row:03d}" for row in range(240)], embeddings.astype("float32"), out="store")
"""


def ended_well(*command, cwd):
    """Run a command without the paths of this checkout and return its standard output."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    finished = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, env=environment, timeout=500
    )
    assert finished.returncode == 0, f"{command}\n{finished.stdout}\n{finished.stderr}"
    return finished.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout, built by the build system that pyproject.toml names."""
    folder = tmp_path_factory.mktemp("wheel")
    ended_well(
        sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps", "-w", folder, ROOT,
        cwd=folder,
    )  # fmt: skip
    (built,) = folder.glob("rarezoo-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of programs of a fresh environment with the wheel; its dependencies are those of this environment."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home / "venv", with_pip=False)
    programs = home / "venv" / "bin"
    ended_well(
        sys.executable, "-m", "pip", "--python", programs / "python", "install", "-q", "--disable-pip-version-check",
        "--no-deps", wheel, cwd=home,
    )  # fmt: skip
    site = ended_well(programs / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home)
    # A path file makes the packages that are installed here visible there, after the wheel's own. Path files of this
    # environment, such as that of an editable install of this checkout, are not followed.
    (Path(site.strip()) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return programs


def test_the_wheel_holds_the_packages_and_the_settings_and_nothing_of_the_tests(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops - {"rarezoo", "mocksky", "seeded_umap"} == {name for name in tops if name.endswith(".dist-info")}
    presets = {path.name for path in (ROOT / "conf" / "preset").glob("*.yaml")}
    assert presets <= {name.split("/")[-1] for name in names if name.startswith("rarezoo/conf/preset/")}
    assert any(name.startswith("rarezoo/report/assets/") for name in names)


def test_an_installed_wheel_searches(installed, tmp_path):
    place = ended_well(installed / "python", "-c", "import rarezoo; print(rarezoo.__file__)", cwd=tmp_path).strip()
    assert Path(place).is_relative_to(installed.parent), "the wheel's own package"
    ended_well(installed / "python", "-c", WRITE_STORE, cwd=tmp_path)
    ended_well(installed / "rarezoo", "cluster", "store=store", "out=search", *SEARCH, cwd=tmp_path)
    labels = pq.read_table(tmp_path / "search" / "members.parquet")["class_id"].to_numpy()
    groups = np.arange(240) % 3
    assert labels.max() == 2
    for label in range(3):
        assert len(set(groups[labels == label])) == 1
    assert (tmp_path / "search" / "report" / "index.html").is_file()


def test_an_installed_wheel_shows_the_presets(installed, tmp_path):
    text = ended_well(installed / "rarezoo", "cluster", "--help", cwd=tmp_path)
    assert "multiscale" in text
