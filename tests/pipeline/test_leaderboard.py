"""Multiruns through their doors: one page at the end, whatever the launcher and though a job fails."""

import re

import pytest

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]

SEARCH = [
    "compress=pca", "compress@drawing=pca", "drawing.n_components=2", "stability.refits=0", "logger=none",
    "~preset", "significance.surveys=0", "clusterer.min_cluster_size=5", "store=a", "clusterer.min_samples=3,4,5000",
]  # fmt: skip
LAUNCHERS = {"basic": [], "joblib": ["hydra/launcher=joblib"], "submitit": ["hydra/launcher=submitit_local"]}


@pytest.fixture(scope="module")
def home(two_networks, tmp_path_factory):
    """A folder with a link to a store."""
    home = tmp_path_factory.mktemp("home")
    (home / "a").symlink_to(two_networks / "a")
    return home


@pytest.fixture(scope="module")
def stderr(start_process, ended, home):
    """Standard error of the same sweep under every launcher, each with jobs that fail."""
    # A launcher sends the state of Hydra to processes of its own; that of a test's process does not travel.
    return {
        name: ended(start_process("cluster.py", "-m", *SEARCH, *words, f"out={name}/sweep", cwd=home), expect=2).err
        for name, words in LAUNCHERS.items()
    }


def test_a_sweep_ends_with_a_whole_page_though_jobs_fail(home, stderr):
    assert "leaderboard: basic/sweep/leaderboard.html" in stderr["basic"]
    assert "too few" in stderr["basic"]
    page = (home / "basic" / "sweep" / "leaderboard.html").read_text()
    assert "3 searches, 2 of them finished" in page
    assert len(re.findall(r'<span class="state">failed</span>', page)) == 1
    assert len(re.findall(r'<td colspan="\d+" class="reason">[^<]*too few', page)) == 1
    assert re.search(r"url\([^)]*/report/images/class-\d{3}-exemplars.jpg\)", page)
    assert page.count('<span class="cutout"') >= 4


def test_the_page_is_the_same_under_every_launcher(home, stderr):
    pages = {name: (home / name / "sweep" / "leaderboard.html").read_bytes() for name in LAUNCHERS}
    assert all(f"leaderboard: {name}/sweep" in err for name, err in stderr.items())
    assert pages["joblib"] == pages["basic"]
    assert pages["submitit"] == pages["basic"]


def test_by_verb_from_files_alone(cli, home, stderr):
    page = home / "basic" / "sweep" / "leaderboard.html"
    before = page.read_bytes()
    page.unlink()
    out = cli("rarezoo", "leaderboard", "basic/sweep", cwd=home).out
    assert out.strip() == "basic/sweep/leaderboard.html"
    assert page.read_bytes() == before


def test_networks_trained_by_a_sweep_have_a_page_too(cli, home, tiny_survey):
    words = [
        *tiny_survey.words, "data.limit=120", "model.input_size=32", "model.bottleneck=8,16", "train.epochs=2",
        "train.batch_size=32", "train.workers=0", "logger=none",
    ]  # fmt: skip
    err = cli("train.py", "-m", *words, "out=networks", cwd=home).err
    assert "leaderboard: networks/leaderboard.html" in err
    page = (home / "networks" / "leaderboard.html").read_text()
    assert "2 networks, 2 of them finished" in page
    assert page.count("<polyline") == 2
    assert len(re.findall(r'href="[^"]*model.bottleneck%3D(?:8|16)%2C[^"]*README.md"', page)) == 2
