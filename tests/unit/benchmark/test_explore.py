"""Simulated people: what they answer, what they find, and the tables that compare ways to choose."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from rarezoo import settings as registry
from rarezoo.benchmark.explore import ExploreRun, Pool, Protocol, explorer_from, read_explorers, search
from rarezoo.benchmark.explore_results import without_draws
from rarezoo.data.surveys.catalogue import Catalogue
from rarezoo.embeddings.answers import Answer, Criterion
from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import ConfigError, DataError
from rarezoo.explore.choose import Chooser
from rarezoo.explore.features import Features, Part
from rarezoo.settings import conf_dir

pytestmark = pytest.mark.unit

GALAXIES, WANTED = 300, 24
QUICK = {"ranker": {"option": "ridge"}, "beside": []}


def vectors(seed=0):
    drawn = np.random.default_rng(seed).normal(size=(GALAXIES, 4)).astype(np.float32)
    drawn[:WANTED, 0] += 5
    return drawn


@pytest.fixture(scope="module")
def pool():
    wanted = np.arange(GALAXIES) < WANTED
    features = Features.of([Part("embedding", vectors(), 1.0)])
    start = np.random.default_rng(1).random(GALAXIES)
    return Pool(features, wanted.astype(float), wanted, start)


def explorer(name="mine", **content):
    return explorer_from(name, {**QUICK, **content})


CHANCE = explorer("chance", acquisition={"option": "random"}, choose={"random_share": 0.0})


class TestSearch:
    def test_ratings_are_counted_batch_by_batch(self, pool):
        outcome = search(pool, explorer(), seed=0, labels=45, batch=10)
        assert outcome.labels == [0, 10, 20, 30, 40, 45]
        assert len(outcome.found) == 6
        assert outcome.found[0] == 0
        assert outcome.found == sorted(outcome.found)
        assert outcome.left == WANTED - outcome.found[-1]

    def test_a_model_finds_more_than_chance(self, pool):
        ours, chance = (
            [search(pool, each, seed=seed, labels=60).found[-1] for seed in range(4)] for each in (explorer(), CHANCE)
        )
        assert min(ours) > max(chance)
        assert np.mean(chance) == pytest.approx(60 * WANTED / GALAXIES, abs=3)

    def test_examples_count_as_ratings_and_as_found(self, pool):
        outcome = search(pool, explorer(), seed=0, examples=5, labels=20)
        assert (outcome.labels[0], outcome.found[0]) == (5, 5)
        assert outcome.labels[-1] == 20

    def test_the_same_seed_is_the_same_person_and_another_is_not(self, pool):
        first, again, other = (search(pool, explorer(first="random"), seed=seed, labels=30) for seed in (1, 1, 2))
        assert replace(first, seconds=0) == replace(again, seconds=0)
        assert replace(first, seconds=0) != replace(other, seconds=0)

    def test_a_pool_that_is_smaller_than_the_ratings_is_rated_whole(self, pool):
        small = pool.part(np.r_[0:5, 100:110])
        outcome = search(small, explorer(), seed=0, labels=200)
        assert (outcome.labels[-1], outcome.found[-1], outcome.left) == (15, 5, 0)
        assert outcome.unrated_50 is None

    def test_a_ranking_that_counts_rated_galaxies_is_better_than_one_of_the_rest(self, pool):
        outcome = search(pool, explorer(), seed=0, labels=60)
        assert outcome.precision_50 > 0.4
        assert outcome.unrated_50 < outcome.precision_50
        assert outcome.average_precision is None

    def test_galaxies_that_are_held_out_are_ranked_and_never_touched(self, pool):
        out = np.arange(GALAXIES) % 4 == 0
        rest, untouched = pool.part(np.flatnonzero(~out)), pool.part(np.flatnonzero(out))
        outcome = search(rest, explorer(), seed=0, labels=60, held_out=untouched)
        assert outcome.average_precision > 0.8
        assert outcome.found[-1] <= rest.wanted.sum()

    def test_the_estimate_of_what_is_left_holds_the_truth_in_most_searches(self, pool):
        drawing = explorer(choose={"random_share": 0.3})
        outcomes = [search(pool, drawing, seed=seed, labels=60) for seed in range(20)]
        assert np.mean([each.left_low <= each.left <= each.left_high for each in outcomes]) >= 0.85

    def test_without_blind_draws_nothing_is_estimated(self, pool):
        assert search(pool, CHANCE, seed=0, labels=20).left_low is None


class TestProtocol:
    def test_people_answer_in_grades_or_yes_and_no(self):
        answer = Answer.of(Criterion.parsed("ring=c>0.3"), np.array([0.0, 0.28, 0.55, 1.0, np.nan]))
        graded = Protocol.parsed("graded").interest(answer)
        assert graded[:4].tolist() == pytest.approx([0, 0.2, 0.6, 1])
        assert Protocol.parsed("yes_no").interest(answer)[:4].tolist() == [0, 0, 1, 1]

    @pytest.mark.parametrize("text", ["graded", "yes_no", "yes_no_5", "graded_3"])
    def test_each_has_a_text_of_its_own(self, text):
        protocol = Protocol.parsed(text)
        assert ("no examples" in str(protocol)) == (protocol.examples == 0)

    @pytest.mark.parametrize("text", ["", "yesno", "yes_no_many", "graded_-1"])
    def test_another_text_is_refused(self, text):
        with pytest.raises(ConfigError, match="graded, yes_no"):
            Protocol.parsed(text)


class TestExplorers:
    @pytest.mark.parametrize("path", sorted((conf_dir() / "explorer").glob("*.yaml")), ids=lambda path: path.stem)
    def test_every_file_is_an_explorer_whose_parts_are_registered(self, path):
        content = yaml.safe_load(path.read_text()) or {}
        (read,) = read_explorers(path.parent, [path.stem])
        assert read.about
        for group in ("ranker", "acquisition"):
            if group in content:
                assert isinstance(getattr(read.settings, group), registry.choice(group, content[group]["option"]))

    def test_no_two_files_have_the_same_description(self):
        about = [each.about for each in read_explorers(conf_dir() / "explorer")]
        assert len(set(about)) == len(about)

    def test_a_name_without_a_file_is_refused_with_those_that_exist(self):
        with pytest.raises(ConfigError, match=r"oars.*ours"):
            read_explorers(conf_dir() / "explorer", ["oars"])

    @pytest.mark.parametrize(
        ("content", "what"),
        [
            ({"rankers": {"option": "ridge"}}, "rankers"),
            ({"ranker": {"option": "ridgy"}}, "ridgy"),
            ({"acquisition": {"option": "guess"}}, "guess"),
            ({"weight": -1}, "weight"),
        ],
    )
    def test_a_mistake_in_a_file_is_one_message(self, content, what):
        with pytest.raises(ConfigError, match=what):
            explorer_from("mine", content)

    def test_what_is_not_said_is_the_default(self):
        assert explorer_from("mine", {"choose": {"random_share": 0.4}}).settings.choose.diversity == Chooser().diversity


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A survey whose catalogue knows which galaxies are rings."""
    folder = tmp_path_factory.mktemp("survey")
    names = [f"J{row:03d}" for row in range(GALAXIES)]
    fraction = np.where(np.arange(GALAXIES) < WANTED, 0.9, 0.1)
    fraction[-10:] = np.nan
    pd.DataFrame({"id_str": names, "ring": fraction, "few": [1] + [0] * (GALAXIES - 1)}).to_csv(
        folder / "galaxies.csv", index=False
    )
    (folder / "images").mkdir()
    for name in names:
        Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(folder / "images" / f"{name}.png")
    survey = Catalogue(table=str(folder / "galaxies.csv"), images=str(folder / "images"))
    return EmbeddingStore.from_array(names, vectors(), survey=survey, out=folder / "store").folder


def run(store, folder, **changes):
    options = {
        "store": str(store), "answers": ["ring=ring>0.5"], "explorers": ["ours_no_photometry", "random"],
        "protocols": ["yes_no", "yes_no_5"], "seeds": "0-1", "labels": 30, "out": str(folder),
    }  # fmt: skip
    return ExploreRun(**{**options, **changes})


def test_ours_without_random_galaxies_is_compared_with_those_that_draw_none_either(pool):
    own = explorer_from("ours_no_random", {"choose": {"random_share": 0.0}, "beside": []})
    explorers = [own, *read_explorers(conf_dir() / "explorer", ["random", "ours_no_photometry"])]
    protocol, seeds = "yes or no, no examples", [0, 1]
    once = search(pool, own, seed=0, labels=20)
    found = {"ours_no_random": 8, "random": 5, "ours_no_photometry": 1}
    outcomes = {
        ("ring", explorer.name, protocol, seed): {"whole": replace(once, found=[found[explorer.name] + seed])}
        for explorer in explorers
        for seed in seeds
    }
    title, table = without_draws(outcomes, explorers, protocol, ["ring"], seeds)
    assert "drawn at random" in title
    assert "random order" in table
    assert "+3.0 (+3.0–+3.0)" in table
    # This one draws one galaxy in ten.
    assert "on the embedding alone" not in table
    assert without_draws(outcomes, explorers[1:], protocol, ["ring"], seeds) == []


def test_the_benchmark_writes_tables_and_a_figure_and_searches_nothing_twice(store, tmp_path):
    text = run(store, tmp_path).run()
    assert "24 of 290" in text
    assert text.count("## Found among the rated galaxies") == 2
    results = pd.read_csv(tmp_path / "results.csv")
    assert len(results) == 2 * 2 * 2 * 2
    assert set(results.pool) == {"whole", "part"}
    assert results[results.pool == "part"].average_precision.between(0, 1).all()
    assert results[results.pool == "whole"].average_precision.isna().all()
    for name in ("results.md", "results.png", "results.webp"):
        assert (tmp_path / name).stat().st_size > 500
    files = sorted((tmp_path / "searches").glob("*.json"))
    assert len(files) == 8
    before = {path: path.stat().st_mtime_ns for path in files}
    # One result is lost and one is damaged: both are made again, and the others are not.
    files[0].unlink()
    files[1].write_text("{")
    again = run(store, tmp_path).run()
    after = {path: path.stat().st_mtime_ns for path in files}
    assert [path for path in files if before[path] != after[path]] == files[:2]
    assert json.loads(files[1].read_text())["outcomes"]["whole"]["found"]

    def counts(table):
        return [line.split("worst")[0] for line in table.splitlines() if "worst" in line]

    assert counts(again) == counts(text)


@pytest.mark.parametrize(
    ("changes", "error", "what"),
    [
        ({"answers": ["few=few>0.5"]}, DataError, "few"),
        ({"answers": ["bar=bar>0.5"]}, (ConfigError, DataError), "bar"),
        ({"answers": ["ring"]}, ConfigError, "ring"),
        ({"seeds": "a-b"}, ConfigError, "a-b"),
        ({"protocols": ["maybe"]}, ConfigError, "maybe"),
        ({"explorers": ["oars"]}, ConfigError, "oars"),
    ],
)
def test_a_mistake_is_one_message(store, tmp_path, changes, error, what):
    with pytest.raises(error, match=what):
        run(store, tmp_path, **changes).run()
