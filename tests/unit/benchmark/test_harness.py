"""Methods from their files, and runs that go on where they stopped."""

import csv
import json
import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from rarezoo.benchmark import harness, results
from rarezoo.benchmark.harness import DONE, FAILED, PART, RESEEDED, TOO_LONG, Trial, TrialFolder, trials_of
from rarezoo.benchmark.methods import Method, Submission, class_similarities, gallery, method_from, read_methods
from rarezoo.benchmark.planted import GENERATION
from rarezoo.benchmark.results import write_null_results, write_results
from rarezoo.benchmark.run import BenchmarkRun
from rarezoo.benchmark.scores import ROW_WIDTH
from rarezoo.benchmark.tiers import ODD, Vectors, labelled, tier_from
from rarezoo.errors import ConfigError, DataError, OutputError, StoreError
from rarezoo.searches.presets import preset

pytestmark = pytest.mark.unit

CONF = Path(__file__).parents[3] / "conf"
TIER = Vectors(galaxies=600, groups=3, smallest=20, largest=100)


@pytest.mark.parametrize(("method", "name"), [("ours", "multiscale"), ("paper", "paper")])
def test_a_method_named_after_a_preset_has_its_settings(method, name):
    (ours,) = read_methods(CONF / "method", [method]).values()
    assert (ours.compress, ours.clusterer) == (preset(name)["compress"], preset(name)["clusterer"])


def test_a_method_may_change_single_settings_of_a_preset():
    whitened = method_from({"kind": "search", "preset": "multiscale", "compress": {"whiten": 64}})
    assert whitened.compress == replace(preset()["compress"], whiten=64)
    with pytest.raises(ConfigError, match="unknown preset: huge"):
        method_from({"kind": "search", "preset": "huge"})


def test_contestants_on_our_map_have_the_map_of_the_default_search():
    methods = read_methods(CONF / "method", ["ours", "leaf_5", "leaf_10", "leaf_30", "plscan"])
    assert [method.compress for method in methods.values()] == [preset()["compress"]] * 5
    leaves = [methods[f"leaf_{neighbours}"].clusterer for neighbours in (5, 10, 30)]
    assert [(leaf.min_samples, leaf.min_cluster_size, leaf.selection) for leaf in leaves] == [
        (5, 10, "leaf"), (10, 10, "leaf"), (30, 10, "leaf")
    ]  # fmt: skip


def several_looks(*looks):
    clusterer = {"option": "fast_hdbscan", "min_samples": 5, "min_cluster_size": 10, "selection": "isolated"}
    compress = {"option": "pca", "n_components": 4}
    return method_from({
        "kind": "looks", "compress": compress, "clusterer": clusterer, "surveys": 8, "galaxies": 500, "looks": [*looks]
    })  # fmt: skip


def test_groups_that_two_looks_see_are_classes_once(tmp_path):
    random = np.random.default_rng(0)
    features = random.normal(size=(600, 8)) * np.linspace(2, 1, 8)
    for first, members in ((0, 40), (40, 25)):
        features[first : first + members] = 2.5 * random.normal(size=8) + 0.1 * random.normal(size=(members, 8))
    features = features.astype(np.float32)
    single = several_looks().run(features, seed=0, cache=tmp_path)
    twice = several_looks({"n_components": 4}).run(features, seed=0, cache=tmp_path)
    other = several_looks({"n_components": 3}, {"whiten": 6}).run(features, seed=0, cache=tmp_path)
    assert np.array_equal(single.labels, twice.labels)
    for found in (single, other):
        for first, members in ((0, 40), (40, 25)):
            label, count = np.unique(found.labels[first : first + members], return_counts=True)
            assert label[count.argmax()] >= 0
            assert count.max() > 0.9 * members
    assert len(np.unique(other.labels[other.labels >= 0])) == other.labels.max() + 1


def test_a_look_with_a_setting_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="n_neighbours"):
        several_looks({"n_neighbours": 50})


def test_k_means_may_work_on_whitened_components(tmp_path):
    # Two groups that differ in a direction of small scatter only, beside one of large scatter.
    random = np.random.default_rng(0)
    groups = np.repeat([0, 1], 100)
    features = np.stack([100 * random.normal(size=200), groups + 0.05 * random.normal(size=200)], axis=1)
    plain, fair = (
        method_from({"kind": "kmeans", "clusters": 2, **more}).run(features.astype(np.float32), seed=0, cache=tmp_path)
        for more in ({}, {"whiten": 2})
    )
    assert abs(np.corrcoef(plain.labels, groups)[0, 1]) < 0.5
    assert abs(np.corrcoef(fair.labels, groups)[0, 1]) > 0.9
    # The settings are written down only where they are used, so that older results stay valid.
    assert not {"whiten", "whiten_power"} & set(method_from({"kind": "kmeans"}).settings())
    assert method_from({"kind": "mixture", "whiten": 8}).settings()["whiten_power"] == 1


def test_every_method_can_be_read_and_written_down():
    for method in read_methods(CONF / "method").values():
        assert method_from(json.loads(json.dumps(method.settings()))) == method
        assert method.about


def test_a_wrong_name_is_reported_with_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown method: our[.] Did you mean ours"):
        read_methods(CONF / "method", ["our"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "kmean"}, "unknown kind of method: kmean"),
        ({"kind": "kmeans", "k": 3}, "do not fit"),
        ({"kind": "kmeans", "features": "pixels"}, "features.*pixels"),
        ({"kind": "search", "compress": {"option": "tsne"}}, "unknown compress: tsne"),
    ],
)
def test_a_file_that_describes_no_method_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        method_from(settings)


def test_a_gallery_shows_the_strongest_class_first_and_its_typical_galaxies():
    labels = np.repeat([0, 1, -1], [15, 4, 1]).astype(np.int32)
    features = np.arange(20, dtype=np.float32)[:, None]
    rows = gallery(labels, features, [1.0, 2.0])
    assert rows.shape == (2, ROW_WIDTH)
    assert set(rows[0]) == {15, 16, 17, 18, -1}
    assert rows[1, 0] == 7


def test_galaxies_are_like_a_class_by_their_angle_to_its_members_and_a_ranking_is_taken_as_it_is():
    labels = np.repeat([0, 1, -1], [2, 2, 1]).astype(np.int32)
    features = np.array([[1, 0], [3, 0], [-1, 0.5], [-1, -0.5], [-2, 0]], np.float32)
    alike = class_similarities(Submission(labels, gallery(labels, features, [2.0, 1.0])), features)
    assert alike.shape == (2, 5)
    assert alike[0, :2] == pytest.approx([1, 1])
    assert (alike[1, 2:] > 0.7).all()
    assert (alike[0, 2:] < -0.7).all()
    nothing = np.full(5, -1, np.int32)
    ranked = class_similarities(Submission(nothing, np.array([[3, 1], [0, 2]], np.int32)), features)
    assert np.argsort(-ranked[0]).tolist() == [3, 1, 0, 2, 4]
    assert class_similarities(Submission(nothing, np.empty((0, ROW_WIDTH), np.int32)), features).shape == (0, 5)


def test_a_library_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "evoc", None)
    method = read_methods(CONF / "method", ["evoc"])["evoc"]
    with pytest.raises(ImportError, match=r"evoc.*rarezoo\[benchmark\]"):
        method.run(np.zeros((5, 2), np.float32), seed=0, cache=tmp_path)


class Thirds(Method):
    """Hands in three classes, in the order of the first feature."""

    seen: tuple = ()

    def run(self, features, *, seed, cache):
        Thirds.seen += (len(features),)
        labels = np.argsort(np.argsort(features[:, 0])).astype(np.int32) * 3 // len(features)
        return Submission(labels, gallery(labels, features, [3.0, 2.0, 1.0]))

    def settings(self):
        return {"kind": "thirds", "about": self.about}


class Failing(Thirds):
    """Does not come to an end."""

    def run(self, features, *, seed, cache):
        raise ConfigError("no classes", value=7, fix="Give up.")

    def settings(self):
        return {"kind": "failing", "about": self.about}


class Here:
    """A worker that does its orders in this process."""

    def run(self, order, *, limit):
        try:
            return {"status": DONE, "seconds": harness.carry_out(order), "message": ""}
        except ConfigError as problem:
            return {"status": FAILED, "seconds": 0.0, "message": str(problem)}


@pytest.fixture
def trials(tmp_path, monkeypatch):
    methods = {"thirds": Thirds(about="in thirds"), "failing": Failing(about="fails")}
    monkeypatch.setattr(harness, "Worker", Here)
    monkeypatch.setattr(harness, "method_from", lambda settings: methods[settings["kind"]])
    monkeypatch.setattr(Thirds, "seen", ())
    return TrialFolder(tmp_path / "vectors", TIER, methods, limit=10)


def test_what_is_done_is_not_done_again_and_what_failed_is(trials):
    wanted = list(trials_of(["thirds", "failing"], [1, 2], refits=1))
    trials.run(wanted)
    assert Thirds.seen == (600, 600, 600, 480)
    assert trials.outcome(Trial("failing", 1))["message"] == "no classes: 7. Give up."
    trials.run(wanted)
    assert len(Thirds.seen) == 4
    (trials.folder / "sky2" / "thirds.whole.json").unlink()
    trials.run(wanted)
    assert len(Thirds.seen) == 5


def test_other_settings_make_another_result(trials):
    trials.run([Trial("thirds", 1)])
    path = trials.folder / "sky1" / "thirds.whole.json"
    content = json.loads(path.read_text())
    content["made_with"]["version"] = "0.0.0"
    path.write_text(json.dumps(content))
    assert trials.outcome(Trial("thirds", 1)) is None


def test_a_folder_holds_skies_of_one_kind(trials, tmp_path):
    trials.run([Trial("thirds", 1)])
    other = TrialFolder(trials.folder, Vectors(galaxies=700, groups=3, largest=100), trials.methods, limit=10)
    with pytest.raises(OutputError, match=r"galaxies 600 → 700"):
        other.run([Trial("thirds", 1)])


@pytest.mark.parametrize(("generation", "written"), [(None, "unknown"), (1, "1")])
def test_results_on_older_skies_are_refused(trials, generation, written):
    trials.run([Trial("thirds", 1)])
    path = trials.folder / "settings.json"
    content = json.loads(path.read_text())
    assert content["settings"].pop("generation") == GENERATION
    path.write_text(json.dumps({**content, "settings": {**content["settings"], "generation": generation}}))
    message = rf"another generator drew: .*vectors \(generation {written}, now {GENERATION}\)[.] Choose another out="
    with pytest.raises(OutputError, match=message):
        trials.run([Trial("thirds", 1)])


def test_results_on_older_skies_are_not_scored_again_as_if_on_todays(tmp_path):
    (tmp_path / "vectors").mkdir()
    (tmp_path / "vectors" / "settings.json").write_text(json.dumps({"settings": {"tier": "vectors"}}))
    with pytest.raises(OutputError, match="another generator"):
        BenchmarkRun(tier="vectors", rescore=True, out=str(tmp_path)).run()


@pytest.fixture
def holding(monkeypatch):
    places = []

    @contextmanager
    def held(place):
        places.append(place)
        yield
        places.remove(place)

    monkeypatch.setattr(harness, "locked", held)
    return places


def test_a_sky_is_made_while_its_place_is_held(tmp_path, monkeypatch, holding):
    made = []

    class Watched(Vectors):
        def sky(self, seed, folder):
            made.append(holding == [folder])
            return super().sky(seed, folder)

    monkeypatch.setattr(harness, "tier_from", lambda settings: Watched(galaxies=500, groups=2, largest=50))
    method = read_methods(CONF / "method", ["random"])["random"].settings()
    order = {
        "folder": tmp_path,
        "tier": {},
        "seed": 1,
        "variant": "whole",
        "stem": "sky1/one",
        "method": method,
    }
    # The time limit of a method begins when its sky is there.
    harness.carry_out(order, begun=lambda: made.append("begun"))
    assert made == [True, "begun"]
    assert not holding


def test_a_sky_is_prepared_once_by_the_process_that_may_start_others_and_while_its_place_is_held(
    trials, monkeypatch, holding
):
    prepared = []

    @dataclass(frozen=True, kw_only=True)
    class Prepared(Vectors):
        def prepare(self, seed, folder):
            prepared.append((seed, holding == [folder], len(Thirds.seen)))
            raise DataError("cannot be drawn", value=seed, fix="Give up.")

    tier = Prepared(galaxies=600, groups=3, smallest=20, largest=100)
    monkeypatch.setattr(Prepared, "settings", lambda _: TIER.settings())
    several = TrialFolder(trials.folder, tier, trials.methods, limit=10)
    trials = list(trials_of(["thirds"], [1, 2], refits=1))
    several.run(trials)
    # Before any search; and that it could not is no end of it.
    assert prepared == [(1, True, 0), (2, True, 0)]
    assert len(Thirds.seen) == 4
    several.run(trials)
    assert len(prepared) == 2


def test_what_took_too_long_is_tried_again_only_if_it_may_take_longer(trials):
    trials.run([Trial("thirds", 1)])
    path = trials.folder / "sky1" / "thirds.whole.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": TOO_LONG}))
    trials.run([Trial("thirds", 1)])
    assert len(Thirds.seen) == 1
    TrialFolder(trials.folder, TIER, trials.methods, limit=20).run([Trial("thirds", 1)])
    assert len(Thirds.seen) == 2


def test_scores_are_read_from_what_is_saved(trials, monkeypatch):
    # Drawing takes a second; the pipeline's test looks at the figure.
    monkeypatch.setattr(results, "_draw", lambda *_: None)
    wanted = list(trials_of(list(trials.methods), [1, 2], refits=1))
    trials.run(wanted)
    table = write_results(trials, [1, 2], refits=1)
    assert "in thirds" in table
    # A method that failed has its row and its reason.
    assert "sky 1 failed: no classes: 7. Give up." in table
    # Labels that are the truth find everything, and no class is false.
    for seed in (1, 2):
        place = trials.folder / f"sky{seed}" / "thirds.whole.npz"
        truth = trials.truth(seed).members
        labels = np.where(truth.any(axis=1), truth.argmax(axis=1), -1)
        np.savez(place, **{**trials.submission(Trial("thirds", seed)), "labels": labels})
    seen = len(Thirds.seen)
    table = first_table(write_results(trials, [1, 2], refits=1))
    row = next(row for row in table if row["method"] == "in thirds")
    wanted = {"found": "3.0 (3.0–3.0)", "impure": "0.0 (0.0–0.0)", "pieces": "0.0 (0.0–0.0)"}
    wanted |= {"classes": "3.0 (3.0–3.0)", "purity": "1.00 (1.00–1.00)"}
    assert {name: row[name] for name in wanted} == wanted
    assert len(Thirds.seen) == seen
    assert {"results.md", "results.csv", "groups.csv", "false.csv"} <= {path.name for path in trials.folder.iterdir()}


def first_table(text):
    """The rows of the first table of a text, each by the names of the columns."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in blocks[0]]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def show(trials, name, seed, *, groups):
    """Replace a gallery by one that shows some groups, one in a row; None: a row without a galaxy of a group."""
    members = trials.truth(seed).members
    rows = [np.flatnonzero(~members.any(axis=1) if at is None else members[:, at])[:ROW_WIDTH] for at in groups]
    path = trials.folder / f"sky{seed}" / f"{name}.whole.npz"
    rows = np.array(rows, np.int32).reshape(-1, ROW_WIDTH)
    np.savez(path, **{**trials.submission(Trial(name, seed)), "rows": rows})


def test_discovery_comes_first_and_sorts_the_methods(trials, monkeypatch):
    monkeypatch.setattr(results, "_draw", lambda *_: None)
    methods = {name: Thirds(about=name) for name in ("ours", "slow", "fast", "failing")}
    methods["failing"] = Failing(about="failing")
    monkeypatch.setattr(
        harness, "method_from", lambda settings: Failing() if settings["kind"] == "failing" else Thirds()
    )
    several = TrialFolder(trials.folder, TIER, methods, limit=10)
    several.run(list(trials_of(list(methods), [1, 2], refits=0)))
    for seed in (1, 2):
        show(several, "fast", seed, groups=[0, 1, 2])
        show(several, "ours", seed, groups=[None, 0, 1])
        show(several, "slow", seed, groups=[*[None] * 60, 0])
    text = write_results(several, [1, 2], refits=0)
    table = first_table(text)
    assert [row["method"] for row in table] == ["fast", "ours", "slow", "failing"]
    assert list(table[0])[1:5] == ["discovery", "seen at 50", "rows to half", "found"]
    assert [row["rows to half"] for row in table] == ["2", "3", "> 100", "–"]
    assert [row["seen at 50"].split()[0] for row in table] == ["1.00", "0.67", "0.00", "–"]
    against = next(line for line in text.splitlines() if "ours minus" in line)
    assert [cell.strip() for cell in against.split("|")[2:5]] == ["discovery", "seen at 50", "found"]
    with (several.folder / "results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0])[:5] == ["method", "seed", "discovery", "seen at 50", "rows to half"]
    assert [row["rows to half"] for row in rows if row["method"] == "slow"] == ["101", "101"]


def test_of_rows_to_half_the_higher_middle_is_printed(trials, monkeypatch):
    monkeypatch.setattr(results, "_draw", lambda *_: None)
    trials.run(list(trials_of(["thirds"], [1, 2, 3], refits=0)))
    show(trials, "thirds", 1, groups=[0, 1])
    show(trials, "thirds", 2, groups=[None, None, 0, 1])
    show(trials, "thirds", 3, groups=[0])
    assert first_table(write_results(trials, [1, 2, 3], refits=0))[0]["rows to half"] == "4"
    # Between a number and "never" there is no middle.
    assert first_table(write_results(trials, [1, 3], refits=0))[0]["rows to half"] == "> 100"


def test_eight_methods_have_a_colour_and_a_name_in_the_figure(trials, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, path, **_: (drawn.append(figure), Path(path).write_bytes(b""))
    )
    methods = {name: Thirds(about=f"method {name}") for name in ("ours", *"abcdefghij")}
    monkeypatch.setattr(harness, "method_from", lambda _: Thirds())
    several = TrialFolder(trials.folder, TIER, methods, limit=10)
    several.run(list(trials_of(list(methods), [1], refits=0)))
    for name in methods:
        show(several, name, 1, groups=[None] if name in "ours fgh" else [0, 1, 2])
    write_results(several, [1], refits=0)
    curves = drawn[0].axes[0].get_lines()
    assert len(curves) == len(methods) + 1
    named = {line.get_label() for line in curves if not line.get_label().startswith("_")}
    assert named == {"ideal order", "method ours", *(f"method {name}" for name in "abcdeij")}
    colours = [line.get_color() for line in curves if line.get_label() in named - {"ideal order"}]
    assert len(set(colours)) == 8
    assert {text.get_text() for text in drawn[0].legends[0].get_texts()} == named


def test_a_class_without_a_planted_galaxy_is_of_no_population(trials, monkeypatch):
    monkeypatch.setattr(results, "_draw", lambda *_: None)
    trials.run([Trial("thirds", 1)])
    truth = trials.truth(1).members
    labels = np.where(truth[:, 1], 0, np.where(truth.any(axis=1), -1, 1))
    np.savez(trials.folder / "sky1" / "thirds.whole.npz", **{**trials.submission(Trial("thirds", 1)), "labels": labels})
    write_results(trials, [1], refits=0)
    with (trials.folder / "false.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["population"], float(row["purity"])) for row in rows] == [("group 1", 1.0), ("", 0.0)]


def test_where_populations_are_known_of_some_galaxies_classes_are_scored_by_what_is_like_them(trials, monkeypatch):
    monkeypatch.setattr(results, "_draw", lambda *_: None)
    monkeypatch.setattr(harness, "tier_from", lambda _: PartlyKnown(galaxies=600, groups=3, smallest=40, largest=60))
    trials.run(list(trials_of(["thirds"], [1, 2], refits=1)))
    assert trials.submission(Trial("thirds", 1))["precisions"].shape == (2, 3, 3)
    assert "precisions" not in trials.submission(Trial("thirds", 1, "part"))
    for seed in (1, 2):
        show(trials, "thirds", seed, groups=[None, 0, 0, *[None] * 60, 2])
    text = write_results(trials, [1, 2], refits=0)
    assert re.search(r"\| method +\| met at 50 +\| discovery +\| rich", text)
    assert "average precision of “most like this class” | group 0" in text
    row = first_table(text)[0]
    # Group 2 comes after the first 50 rows, but counts in the curve: 99 rows with one of three kinds, 37 with another.
    assert row["met at 50"] == "1.0 (1.0–1.0)"
    assert row["discovery"].startswith(f"{(99 + 37) / 300:.2f}")


def test_odd_galaxies_are_counted_beside_what_chance_gives(trials, monkeypatch):
    monkeypatch.setattr(results, "_draw", lambda *_: None)
    tier = PartlyKnown(galaxies=600, groups=3, smallest=40, largest=60, odd=True)
    monkeypatch.setattr(harness, "tier_from", lambda _: tier)
    trials.run([Trial("thirds", 1)])
    show(trials, "thirds", 1, groups=[1, None])
    text = write_results(trials, [1], refits=0)
    row = first_table(text)[0]
    assert list(row)[:4] == ["method", "met at 50", "discovery", "odd shown"]
    assert row["odd shown"] == "10.0"
    share = trials.truth(1).members[:, 1].mean()
    assert f"odd shown: {500 * share:.1f} are expected of 500 random galaxies" in text


@dataclass(frozen=True, kw_only=True)
class PartlyKnown(Vectors):
    """Half of the galaxies were never asked about."""

    odd: bool = False

    def sky(self, seed, folder):
        sky = super().sky(seed, folder)
        known = sky.truth.known.copy()
        known[::2] = False
        names = ("group 0", ODD.name, "group 2") if self.odd else sky.truth.names
        return replace(sky, truth=replace(sky.truth, names=names, members=sky.truth.members & known, known=known))


def test_empty_skies_count_those_with_any_class(trials):
    empty = TrialFolder(trials.folder, Vectors(galaxies=200, groups=0), trials.methods, limit=10)
    empty.run(list(trials_of(["thirds"], [1, 2, 3], refits=0)))
    row = first_table(write_null_results(empty, [1, 2, 3], refits=0))[0]
    assert row["share with any class (95 %)"] == "1.000 (0.292–1.000)"
    # Thirds do not say whether they are main groups.
    assert row["main groups per sky"] == "–"


def test_main_groups_of_empty_skies_are_counted_where_a_method_knows_them(trials, monkeypatch):
    found = iter((2, 1))
    run = Thirds.run
    monkeypatch.setattr(Thirds, "run", lambda *args, **more: replace(run(*args, **more), main_groups=next(found)))
    empty = TrialFolder(trials.folder, Vectors(galaxies=200, groups=0, bulk="mixture"), trials.methods, limit=10)
    empty.run(list(trials_of(["thirds"], [1, 2], refits=0)))
    text = write_null_results(empty, [1, 2], refits=0)
    assert first_table(text)[0]["main groups per sky"] == "1.50"
    assert "bulk mixture" in text


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"tier": "vectors", "seeds": "a-b"}, ["a-b", "range"]),
        ({"tier": "vectors", "seeds": "7-3"}, ["no seed", "7-3"]),
        ({"tier": "vectors", "seeds": "3,1,3"}, ["twice", "3,1,3"]),
        ({"tier": "vectors", "seeds": "3", "workers": 0}, ["workers", "at least 1"]),
        ({"tier": "stars"}, ["tier", "stars", "vectors"]),
        ({"tier": "galaxies", "null_skies": 3}, ["null_skies", "vectors"]),
        ({"tier": "galaxies", "bulk": "mixture"}, ["bulk", "vectors"]),
        ({"tier": "vectors", "bulk": "clumpy"}, ["bulk", "clumpy", "mixture"]),
        ({"tier": "galaxies", "galaxies": 1}, ["do not fit", "1 galaxies", "galaxies="]),
        ({"tier": "galaxies", "rarest": 0}, ["rarest", "at least 1"]),
        ({"tier": "answers"}, ["store="]),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(tmp_path, settings, parts):
    with pytest.raises(ConfigError) as problem:
        BenchmarkRun(**settings, out=str(tmp_path)).run()
    assert all(part in str(problem.value) for part in parts)
    assert not list(tmp_path.iterdir())


def test_without_results_there_is_nothing_to_score(trials):
    with pytest.raises(StoreError, match="no results of this sky: seed 1"):
        write_results(trials, [1], refits=0)


def test_a_sky_that_cannot_be_made_says_why(trials):
    impossible = TrialFolder(trials.folder, Vectors(galaxies=100, groups=3, largest=100), trials.methods, limit=10)
    impossible.run([Trial("thirds", 1)])
    with pytest.raises(StoreError, match=r"seed 1[.] planted groups must leave a bulk of half the galaxies"):
        write_results(impossible, [1], refits=0)


def test_refits_are_of_the_first_skies():
    variants = [trial.variant for trial in trials_of(["a"], [5, 6], refits=1)]
    assert variants == ["whole", "whole", RESEEDED, PART]


def test_a_tier_is_made_again_from_its_settings():
    assert tier_from(json.loads(json.dumps(TIER.settings()))) == TIER


def test_a_table_of_known_objects_says_who_has_which_label(tmp_path):
    path = tmp_path / "known.csv"
    path.write_text("id_str,label\n007,ring\n008,merger\n007,merger\nelsewhere,ring\n")
    truth = labelled(path, np.array(["006", "007", "008"], dtype=object))
    assert truth.names == ("merger", "ring")
    assert truth.members.tolist() == [[False, False], [True, True], [True, False]]
    assert truth.known.all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,label\n1,ring\n", "no table of known objects"),
        ("id_str,label\n9,ring\n", "no id of the store is in"),
        ("id_str,label\n1,\n", "without a label"),
    ],
)
def test_a_table_without_known_objects_is_refused(tmp_path, content, message):
    path = tmp_path / "known.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        labelled(path, np.array(["1"], dtype=object))
