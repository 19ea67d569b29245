"""``rarezoo demo``, small: every stage, the truth beside the members, and what was found."""

import json

import pyarrow.parquet as pq
import pytest

from rarezoo.errors import CheckpointNotFound

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def demo(cli, tmp_path_factory):
    home = tmp_path_factory.mktemp("demo")
    done = cli("rarezoo", "demo", "galaxies=200", "surveys=5", "refits=0", cwd=home)
    return home, done, json.loads((home / "runs" / "demo" / "demo.json").read_text())


def test_it_says_how_long_it_takes_then_a_line_per_stage_and_what_was_found(demo):
    home, done, record = demo
    stages = ["survey", "train", "embed", "search", "physical"]
    assert list(record["seconds"]) == stages
    lines = [line for line in done.err.splitlines() if line.startswith(("The ", "["))]
    assert "minutes" in lines[0]
    assert "efficientnet_b0.mock" in lines[1]
    assert [line for line in lines if line.endswith(" s")] == lines[3::2]
    assert record["planted"] == len(record["populations"]) == 11
    assert record["planted_found"] == sum(row["found"] for row in record["populations"])
    assert all(row["population"] in done.out for row in record["populations"])
    assert f"{record['planted_found']} of 11 planted populations were found" in done.out
    assert (home / record["page"]).is_file()


def test_without_its_checkpoint_it_says_that_it_starts_from_random_weights(monkeypatch, caplog, tmp_path):
    from rarezoo.training import short
    from rarezoo.zoo import cards

    monkeypatch.setattr(cards, "released_roots", lambda: [tmp_path / "site-packages" / "rarezoo" / "checkpoints"])
    monkeypatch.chdir(tmp_path)
    assert short.start_folder("efficientnet_b0.mock") == "none"
    assert "cannot be found" in caplog.text
    with pytest.raises(CheckpointNotFound, match="mine"):
        short.start_folder("mine")
    monkeypatch.undo()


def test_truth_lies_beside_the_members(demo):
    home, *_ = demo
    members, truth = (pq.read_table(home / "runs" / "demo" / f"{name}.parquet") for name in ("members", "truth"))
    assert set(members["id_str"].to_pylist()) == set(truth["id_str"].to_pylist())
    assert "ordinary" in truth["population"].to_pylist()


def test_physical_properties_are_compared_at_the_end(demo):
    home, done, _ = demo
    assert "properties.parquet: 200 of 200 galaxies by position" in done.out
    assert (home / "runs" / "demo" / "physical" / "index.html").is_file()


def test_classes_and_cards_are_printed_in_the_terminal(cli, demo):
    home, *_ = demo
    shown = cli("rarezoo", "zoo", "show", "runs/demo/efficientnet_b0.demo", cwd=home)
    assert "| smooth-or-featured " in shown.out
    classes = cli("rarezoo", "classes", "list", "runs/demo", cwd=home)
    expected = pq.read_table(home / "runs" / "demo" / "classes.parquet").num_rows
    assert len(classes.out.splitlines()) == expected + 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("zoo", "show", "nowhere"), "no checkpoint: nowhere"),
        (("classes", "list", "nowhere"), "no finished search: nowhere"),
        (("duplicates", "--folder", "nowhere"), "python -m benchmarks duplicates"),
    ],
)
def test_mistakes_end_in_one_message(cli, tmp_path, words, message):
    assert message in cli("rarezoo", *words, cwd=tmp_path, expect=2).message
