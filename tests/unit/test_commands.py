"""The grammar of the command line, with a command that only the tests know."""

import re
import shlex
import sys
from dataclasses import dataclass

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from rarezoo import cli
from rarezoo.commands import Job, positional_words, read_words
from rarezoo.errors import ConfigError, OutputError
from rarezoo.settings import Settings, setting

pytestmark = pytest.mark.unit


@dataclass(kw_only=True)
class Part(Settings):
    """Settings of a part of the job."""

    table: str = setting("", "a table")
    share: float = setting(0.5, "a share", ge=0, le=1)


@dataclass(kw_only=True)
class Weigh(Settings):
    """A command that says what it was asked."""

    scales: list[str] = setting(help="what is weighed", positional=True)
    out: str = setting("", "where the result goes")
    reuse: str | None = setting(None, "an earlier result")
    classes: list[int] = setting([], "some numbers")
    answers: list[str] = setting([], "some names")
    images: bool = setting(True, "whether there are images")
    min_samples: int = setting(5, "a number", unit="galaxies", ge=1)
    part: Part = setting(Part, "a part")

    def run(self):
        """Return all settings as text."""
        return f"{self.scales} {self.out} {self.reuse} {self.classes} {self.answers} {self.images} {self.part.table}"


JOB = Job("tests.unit.test_commands:Weigh", "weigh something")


@pytest.fixture
def weigh(monkeypatch, capsys, tmp_path):
    """``rarezoo weigh WORDS``: exit status, standard output and standard error."""
    monkeypatch.setitem(cli.JOBS, "weigh", JOB)
    monkeypatch.setattr(Job, "kind", property(lambda self: Weigh))
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr("sys.argv", ["rarezoo", "weigh", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, *capsys.readouterr()

    yield run
    monkeypatch.chdir("/")


@pytest.mark.parametrize(
    "text",
    [
        "~x.csv",
        "gü.csv",
        "g(1).csv",
        "2024_01_15",
        "1e3",
        "a,b",
        "a b",
        "it's",
        "null",
        "[x",
        "a=b",
        "\\",
        "1_000",
        "007",
        "+5",
        "12:30:00",
        "{x}",
        "'a'b'",
        "a\\",
        "range(1,3)",
        "a\nb",
    ],
)
def test_text_is_written_so_that_hydra_reads_what_was_typed(monkeypatch, text):
    monkeypatch.setattr(Job, "kind", property(lambda self: Weigh))
    words = read_words("weigh", JOB, ["thing", f"out={text}", f"part.table={text}"], multirun=False)
    read = {
        override.key_or_group: override.value()
        for override in OverridesParser.create().parse_overrides(words.overrides)
    }
    assert read == {"scales": ["thing"], "out": text, "part.table": text}


@pytest.mark.parametrize("text", ["~x.csv", "1e3", "it's", "a\\", "a\nb"])
def test_text_arrives_as_it_was_typed(weigh, text):
    status, out, err = weigh("thing", f"out={text}", f"part.table={text}")
    assert status == 0, err
    assert out.strip() == f"['thing'] {text} None [] [] True {text}"


@pytest.mark.parametrize("text", ["g(1).csv", "2024_01_15", "[x", "a\\"])
def test_texts_of_a_list_arrive_as_they_were_typed(weigh, text):
    assert weigh("thing", f"answers={text},b")[1] == f"['thing']  None [] {[text, 'b']} True \n"
    assert weigh("thing", "answers=[a(1),~x]")[1] == "['thing']  None [] ['a(1)', '~x'] True \n"


def test_a_path_in_the_home_folder_is_found_there_unless_a_folder_has_that_name(weigh, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert weigh("thing", "part.table=~/g(1).csv")[1].endswith(f" {tmp_path}/home/g(1).csv\n")
    monkeypatch.setitem(cli.JOBS, "weigh", Job(JOB.target, JOB.help, folder=True))
    assert weigh("thing", "out=~/run")[0] == 0
    assert (tmp_path / "home" / "run").is_dir()
    (tmp_path / "~").mkdir()
    (tmp_path / "~" / "own.csv").write_text("")
    assert weigh("thing", "part.table=~/own.csv")[1].endswith(" ~/own.csv\n")


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("part.tabel=~/x", "Did you mean part.table"),
        ("min_samples=g(1)", "min_samples: .*Integer"),
        ("images=~/x", "images: .*bool"),
        ("classes=1,~", "classes.*Integer"),
        ("part.table=${x}", r"part.table=\$\{x\}. .* write \\\$\{"),
        ("part.table=a${", r"part.table=a\$\{. .* write \\\$\{"),
        ("part.table=${a b}", r"part.table=\$\{a b\}. .* write \\\$\{"),
        ("reuse=${reuse}", r"Recursive.*reuse=\$\{reuse\}. .* write \\\$\{"),
        ("classes=${oc.decode:'{a:1}'}", r"classes=.* write \\\$\{"),
        ("hydra.run.dir=~/x", "in quotes"),
    ],
)
def test_characters_of_the_grammar_in_a_wrong_place_are_named_with_the_way_out(weigh, word, named):
    status, _, err = weigh("thing", word)
    assert (status, err.count("\n")) == (2, 1)
    assert re.search(named, err)


def test_dollar_and_brace_are_literal_in_the_name_of_a_file_that_exists(weigh, tmp_path):
    for name in ("a${min_samples}.csv", "${", r"b\${x}.csv"):
        (tmp_path / name).write_text("")
        assert weigh("thing", f"part.table={name}")[1].endswith(f" {name}\n")
        assert weigh(name)[1].startswith(f"[{name!r}]")
    assert weigh("thing", "part.table=c${min_samples}.csv")[1].endswith(" c5.csv\n")
    assert weigh("thing", r"part.table=\${min_samples}")[1].endswith(" ${min_samples}\n")


@pytest.mark.parametrize(
    "words",
    [
        ["thing", "part.table=a/b,a_b"], ["thing", "part.table='a=b','a\\:b'"], ["thing", "min_samples=1,2,1"],
        ["scales=[a],[b]"],
    ],
)  # fmt: skip
def test_jobs_of_a_multirun_never_share_a_folder(weigh, monkeypatch, tmp_path, words):
    monkeypatch.setitem(cli.JOBS, "weigh", Job(JOB.target, JOB.help, folder=True))
    status, _, err = weigh("-m", *words, "out=sweep")
    assert (status, err.count("\n")) == (2, 1)
    assert re.search("would share a folder: .*=.* and .*=", err)
    assert not (tmp_path / "sweep").exists()


def test_the_name_of_the_folder_of_a_multirun_is_taken_as_typed(weigh, monkeypatch, tmp_path):
    monkeypatch.setitem(cli.JOBS, "weigh", Job(JOB.target, JOB.help, folder=True))
    assert weigh("-m", "thing", "min_samples=1,2", "out=1e3,g(1)")[0] == 0
    assert (tmp_path / "1e3,g(1)" / "min_samples=2").is_dir()


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2024_01_15", None), ("1e3", None), ("007", None), ("yes", None),
        ("'2024_01_15'", "2024_01_15"), ("2024-01-15", "2024-01-15"),
    ],
)  # fmt: skip
def test_text_of_a_yaml_file_is_taken_as_written_or_needs_quotes(weigh, monkeypatch, tmp_path, written, read):
    monkeypatch.setitem(cli.JOBS, "weigh", Job(JOB.target, JOB.help, groups=("experiment",)))
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    file = tmp_path / "own" / "experiment" / "mine.yaml"
    file.write_text(f"# @package _global_\npart:\n  table: {written}\nmin_samples: 1_0\n")
    status, out, err = weigh("thing", "--config-dir", str(tmp_path / "own"), "experiment=mine")
    if read is None:
        assert status == 2
        assert f"Write it in quotes: '{written}'" in err
    else:
        assert (status, out) == (0, f"['thing']  None [] [] True {read}\n"), err


def test_positional_words_and_settings_may_be_mixed_and_lists_need_no_brackets(weigh):
    _, out, _ = weigh("a b", "classes=3,5", "c,d", "answers=x,y(1)", "reuse=null", "images=false")
    assert out == "['a b', 'c,d']  None [3, 5] ['x', 'y(1)'] False \n"
    assert weigh("a", "classes=[3,5]")[1] == "['a']  None [3, 5] [] True \n"


def test_a_setting_longer_than_the_name_of_a_file_is_a_setting(weigh):
    long = "x" * 5000
    assert weigh("thing", f"out={long}")[1].startswith(f"['thing'] {long} ")


def test_a_name_with_an_equals_sign_is_positional_unless_it_is_a_setting(weigh, tmp_path):
    (tmp_path / "out=folder").mkdir()
    _, out, _ = weigh("sweep/model=x,seed=1", "seed=1", "out=folder", "out=elsewhere")
    assert out.startswith("['sweep/model=x,seed=1', 'seed=1', 'out=folder'] elsewhere ")


def test_a_setting_that_does_not_exist_is_refused_with_the_nearest(weigh):
    status, _, err = weigh("a", "image=false")
    assert status == 2
    assert "Did you mean images" in err
    assert "part.table" in weigh("a", "part.tabel=x")[2]


def test_values_out_of_bounds_or_of_another_type_are_refused(weigh):
    for words, message in ((["min_samples=0"], "min_samples"), (["part.share=2"], "2"), (["min_samples=x"], "x")):
        status, _, err = weigh("a", *words)
        assert (status, err.count("rarezoo: ")) == (2, 1)
        assert message in err
        assert "Traceback" not in err


def test_what_must_be_given_is_named(weigh):
    status, _, err = weigh("out=x")
    assert status == 2
    assert "SCALE" in err


@pytest.mark.parametrize(
    ("words", "now"),
    [
        (["a", "--out", "DIR"], "rarezoo weigh a out=DIR"),
        (["--no-images", "a"], "rarezoo weigh images=false a"),
        (["a", "--class", "1", "2"], "rarezoo weigh a classes=1,2"),
        (["a", "--min-samples=3"], "rarezoo weigh a min_samples=3"),
    ],
)
def test_old_spellings_are_answered_with_the_new_one(weigh, words, now):
    status, _, err = weigh(*words)
    assert status == 2
    assert f"Run: {now}\n" in err


def test_a_multirun_needs_a_folder_for_each_job(weigh):
    status, _, err = weigh("-m", "a", "min_samples=1,2")
    assert status == 2
    assert "-m" in err


def test_a_multirun_gives_every_job_a_folder_that_is_named_after_what_varies(weigh, monkeypatch, tmp_path):
    monkeypatch.setitem(cli.JOBS, "weigh", Job(JOB.target, JOB.help, folder=True))
    assert "out=" in weigh("-m", "a", "min_samples=1,2")[2]
    status, _, err = weigh("-m", "a", "min_samples=1,2", "part.table=x/y", "out=sweep")
    assert status == 0, err
    folders = sorted(path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    assert folders == ["min_samples=1,part.table=x_y", "min_samples=2,part.table=x_y"]


def test_help_says_type_default_unit_constraint_and_meaning(weigh):
    _, out, _ = weigh("--help")
    assert out.startswith("rarezoo weigh SCALE… KEY=VALUE…   weigh something")
    assert "  min_samples: int = 5 [galaxies] (at least 1)  a number\n" in out
    assert "  part.share: float = 0.5 (at least 0, at most 1)  a share" in out


@pytest.mark.parametrize("command", cli.JOBS)
def test_every_command_has_examples_that_it_understands(command):
    job = cli.JOBS[command]
    text = cli.command_help(command, [], usage=f"rarezoo {command}")
    assert job.examples
    for example in job.examples:
        assert f"  rarezoo {command} {example}".rstrip() in text
        words = shlex.split(example)
        overrides = read_words(command, job, words, multirun=False).overrides
        keys = {override.split("=", 1)[0] for override in overrides}
        assert {field.name for field, word in positional_words(job) if not word.startswith("[")} <= keys
        cli.command_help(command, words, usage=f"rarezoo {command}")


def test_help_says_which_script_is_the_same_command():
    assert "python cluster.py" in cli.command_help("cluster", [], usage="rarezoo cluster")
    assert "rarezoo cluster" in cli.command_help("cluster", [], usage="python cluster.py")


def test_a_former_name_of_a_setting_is_understood():
    words = read_words("compare", cli.JOBS["compare"], ["a", "b", "out=x", "asked=5"], multirun=False)
    assert "queries=5" in words.overrides


def test_all_commands_are_listed_and_an_unknown_one_gets_the_nearest(weigh, monkeypatch, capsys):
    for words, status, text in ((["--help"], 0, "weigh something"), (["wiegh"], 2, "weigh"), (["--version"], 0, "0.")):
        monkeypatch.setattr(sys, "argv", ["rarezoo", *words])
        with pytest.raises(SystemExit, match=str(status)):
            cli.main()
        assert text in "".join(capsys.readouterr())


def test_in_a_multirun_commas_separate_values_and_names_are_plain(monkeypatch):
    monkeypatch.setattr(Job, "kind", property(lambda self: Weigh))
    words = read_words("weigh", JOB, ["s", "out=x", "part.table=~a.csv,b,16", "min_samples=range(1,3)"], multirun=True)
    assert words.overrides == ["scales=['s']", "out=x", "part.table='~a.csv',b,16", "min_samples=range(1,3)"]


def test_an_empty_folder_is_refused():
    with pytest.raises(OutputError, match="out="):
        read_words("cluster", cli.JOBS["cluster"], ["store=x", "out="], multirun=False)


def test_too_many_words_are_refused():
    with pytest.raises(ConfigError, match="typo"):
        read_words("cluster", cli.JOBS["cluster"], ["typo"], multirun=False)
