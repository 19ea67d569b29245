"""A run folder belongs to one command with one set of settings."""

import pytest

from rarezoo import runs, tables
from rarezoo.errors import OutputError

pytestmark = pytest.mark.unit


def test_a_claimed_folder_takes_the_same_command_again_and_no_other(tmp_path):
    settings = {"seed": 1, "model": {"input_size": 64}}
    runs.claim(tmp_path, verb="train", settings=settings)
    assert runs.claim(tmp_path, verb="train", settings=settings) == tmp_path
    with pytest.raises(OutputError, match=r"settings.model.input_size 64 → 96"):
        runs.claim(tmp_path, verb="train", settings={**settings, "model": {"input_size": 96}})


def test_settings_that_were_refused_can_be_corrected_in_the_same_folder_by_the_same_command(tmp_path):
    runs.claim(tmp_path, verb="probe", settings={"kind": "number"}, begun=lambda folder: False)
    runs.claim(tmp_path, verb="probe", settings={"kind": "classes"}, begun=lambda folder: False)
    assert "classes" in (tmp_path / "settings.json").read_text()
    with pytest.raises(OutputError, match="verb probe → train"):
        runs.claim(tmp_path, verb="train", settings={"kind": "classes"}, begun=lambda folder: False)


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert runs.digest({"a": 1, "b": 2}) == runs.digest({"b": 2, "a": 1}) != runs.digest({"a": 1, "b": 3})


def claimed(folder, inputs, **more):
    return runs.claim(folder, verb="train", settings={"data": {"table": "/a/b.csv", "n": 3}}, inputs=inputs, **more)


def test_a_claimed_folder_takes_the_same_inputs_again_and_names_the_one_that_changed(tmp_path):
    before = {"survey": {"ids": "a" * 64, "votes": "b" * 64}, "weights": None}
    claimed(tmp_path, lambda: before)
    claimed(tmp_path, lambda: before)
    with pytest.raises(OutputError, match=r"other inputs: survey.votes bbbbbbbbbbbb → cccccccccccc\."):
        claimed(tmp_path, lambda: {**before, "survey": {"ids": "a" * 64, "votes": "c" * 64}})
    with pytest.raises(OutputError, match="other inputs: weights None → d"):
        claimed(tmp_path, lambda: {**before, "weights": "d"})
    claimed(tmp_path, lambda: before)


def test_a_place_may_change_and_another_setting_may_not(tmp_path):
    def claim(table, n):
        settings = {"data": {"table": table, "n": n}}
        return runs.claim(tmp_path, verb="train", settings=settings, inputs=lambda: {"s": "x"}, places=["data.table"])

    claim("/a/b.csv", 3)
    claim("/c/d.csv", 3)
    assert "/c/d.csv" in (tmp_path / "settings.json").read_text()
    with pytest.raises(OutputError, match=r"other settings: settings.data.n 3 → 4\."):
        claim("/c/d.csv", 4)


def test_the_content_of_an_input_is_read_only_if_its_stamp_has_changed(tmp_path):
    def stamped(stamp, content):
        return lambda: {"images": runs.Stamped(stamp, content)}

    claimed(tmp_path, stamped("monday", lambda: "a"))
    claimed(tmp_path, stamped("monday", lambda: 1 / 0))
    claimed(tmp_path, stamped("tuesday", lambda: "a"))
    claimed(tmp_path, stamped("tuesday", lambda: 1 / 0))
    with pytest.raises(OutputError, match="other inputs: images a → b"):
        claimed(tmp_path, stamped("wednesday", lambda: "b"))
    with pytest.raises(ZeroDivisionError):
        claimed(tmp_path, stamped("", lambda: 1 / 0))


def test_until_a_run_has_begun_its_inputs_may_change(tmp_path):
    for content in ("a", "b"):
        claimed(tmp_path, lambda content=content: {"x": content}, begun=lambda folder: False)
    claimed(tmp_path, lambda: {"x": "b"})
    with pytest.raises(OutputError, match="other inputs"):
        claimed(tmp_path, lambda: {"x": "c"})


def test_a_run_of_an_earlier_version_is_refused_with_a_reason(tmp_path):
    claimed(tmp_path, None)
    with pytest.raises(OutputError, match="earlier rarezoo, which did not record what it was made from"):
        claimed(tmp_path, lambda: {"x": "a"})


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", "null", "3", chr(0) * 40])
def test_a_damaged_record_is_one_message_or_written_again_where_nothing_is_lost(tmp_path, content):
    (tmp_path / "settings.json").write_text(content)
    (tmp_path / "train.log").touch()
    claimed(tmp_path, lambda: {"x": "a"})
    (tmp_path / "settings.json").write_text(content)
    (tmp_path / "result.csv").touch()
    with pytest.raises(OutputError, match=r"cannot be known .* damaged file .*delete that folder"):
        claimed(tmp_path, lambda: {"x": "a"})
    assert (tmp_path / "result.csv").exists()


def test_a_recorded_place_is_found_after_it_was_moved_with_the_folder_that_recorded_it(tmp_path):
    (tmp_path / "new" / "survey").mkdir(parents=True)
    (tmp_path / "new" / "runs" / "embed").mkdir(parents=True)

    def relocated(path, recorded_in):
        return runs.relocated(path, recorded_in=recorded_in, folder=tmp_path / "new" / "runs" / "embed")

    assert relocated("/old/survey", "/old/runs/embed") == str(tmp_path / "new" / "survey")
    for path, recorded_in in (("/old/lost", "/old/runs/embed"), ("/old/survey", ""), ("desi", "/old/runs/embed")):
        assert relocated(path, recorded_in) == path


def test_a_recorded_stamp_without_its_hash_is_read_again(tmp_path):
    record = {
        "verb": "train",
        "settings": {"data": {"table": "/a/b.csv", "n": 3}},
        "inputs": {"images": {"stamp": "s"}},
    }
    tables.write_json(record, tmp_path / runs.SETTINGS_FILE)
    with pytest.raises(OutputError, match=r"images None → h"):
        claimed(tmp_path, lambda: {"images": runs.Stamped("s", lambda: "h")})


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_no_folder_can_have_is_refused(tmp_path, name):
    with pytest.raises(OutputError, match=r"no name of a folder.*out=DIR"):
        runs.claim(tmp_path / name, verb="train", settings={})


@pytest.mark.parametrize(("file", "kind"), [("manifest.json", "an embedding store"), ("card.json", "a checkpoint")])
def test_a_run_is_never_written_into_a_store_or_a_checkpoint(tmp_path, file, kind):
    (tmp_path / file).write_text("{}")
    with pytest.raises(OutputError, match=f"the output folder is {kind}"):
        runs.claim(tmp_path, verb="cluster", settings={})
    assert [path.name for path in tmp_path.iterdir()] == [file]


def test_a_folder_with_a_file_that_would_be_replaced_is_refused(tmp_path):
    (tmp_path / "predictions.csv").write_text("mine")
    with pytest.raises(OutputError, match=r"would replace: .*predictions\.csv"):
        runs.claim(tmp_path, verb="probe", settings={}, writes=["predictions.parquet", "predictions.csv"])
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]
    (tmp_path / "predictions.csv").rename(tmp_path / "mine.csv")
    runs.claim(tmp_path, verb="probe", settings={}, writes=["predictions.csv"])
    (tmp_path / "predictions.csv").write_text("of the run")
    runs.claim(tmp_path, verb="probe", settings={}, writes=["predictions.csv"])
