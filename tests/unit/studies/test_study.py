"""The bottleneck study, on jobs whose differences are known."""

import json
from dataclasses import replace

import numpy as np
import pytest

from rarezoo.errors import StoreError
from rarezoo.studies import bottleneck
from rarezoo.studies.bottleneck import BottleneckStudy, StudyJob, paired_interval, study_of
from rarezoo.studies.bottleneck_report import study_content, study_text, verdict
from rarezoo.studies.measurement import GalaxyValues, Measurement, found_by_classifiers
from rarezoo.tables import plain

pytestmark = pytest.mark.unit

GALAXIES, TEST = 240, 80
QUESTIONS = ("smooth-or-featured", "bar")


def galaxies_of(seed=0):
    """What every job is judged on: how hard each galaxy is, and which galaxies are rings."""
    random = np.random.default_rng(seed)
    return random.gamma(4, 1, (TEST, 2)), np.arange(GALAXIES) < 20


def job(*, width=8, cost=0.0, seed=0, rings=0.0, directions=5):
    """A job whose losses are ``cost`` nats above what is common to all, and whose rings stand ``rings`` apart."""
    hard, ring = galaxies_of()
    random = np.random.default_rng([seed, width])
    embeddings = random.normal(size=(GALAXIES, width)).astype(np.float32)
    embeddings[:, directions:] *= 1e-3
    embeddings[ring, 0] += rings
    losses = hard + cost / 2 + random.normal(scale=0.05, size=hard.shape)
    return Measurement(
        checkpoint="0", questions=QUESTIONS, ids=np.arange(GALAXIES).astype(str), embeddings=embeddings,
        test=np.arange(TEST), losses=losses.astype(np.float32),
        squared_errors=np.where(np.arange(2) == 0, 0.04 + cost / 10, np.nan) * np.ones((TEST, 2), np.float32),
        kinds={"ring": ring.astype(np.float32)},
    )  # fmt: skip


def sweep(*, cost=0.0, seeds=3, rings=0.0):
    """Native and 128 dimensions, the latter worse by ``cost`` nats."""
    jobs = {}
    for seed in range(seeds):
        jobs[StudyJob("net", "native", seed)] = job(width=200, seed=seed, rings=rings)
        jobs[StudyJob("net", "128", seed)] = job(width=128, cost=cost, seed=seed)
    return jobs


def test_a_known_cost_is_measured_with_a_short_paired_interval():
    narrow = BottleneckStudy(sweep(cost=0.3), {}).to_pandas().loc[("net", "128")]
    cost = narrow.loc["loss"]
    assert cost.cost == pytest.approx(0.3, abs=0.05)
    assert cost.low < 0.3 < cost.high
    assert cost.low > 0.2
    # Unpaired, 80 galaxies that differ by 2.8 nats say no more than ± 0.6.
    assert cost.high - cost.low < 0.2
    assert narrow.cost["RMSE smooth-or-featured"] == pytest.approx(np.sqrt(0.07) - 0.2, abs=1e-3)
    assert "RMSE bar" not in narrow.index, "a question with too few votes on every galaxy"


def test_without_a_cost_the_interval_contains_zero():
    cost = BottleneckStudy(sweep(), {}).to_pandas().loc[("net", "128", "loss")]
    assert cost.low < 0 < cost.high


def test_the_verdict_is_one_sentence_with_its_uncertainty():
    study = BottleneckStudy(sweep(cost=0.3), {})
    sentence, cost = verdict(study, "net"), study.to_pandas().loc[("net", "128", "loss")]
    assert sentence.startswith("net: 128 dimensions cost +0.3")
    assert f"95 % interval +{cost.low:.4f} … +{cost.high:.4f}; {TEST} test galaxies, 3 seeds" in sentence
    assert f"exclude a cost above +{cost.high:.4f} nats" in sentence
    assert sentence.count(". ") == 0


def test_with_one_seed_the_verdict_says_that_its_scatter_is_unknown():
    study = BottleneckStudy(sweep(cost=0.3, seeds=1), {})
    assert "1 seed, whose own scatter is not in it" in verdict(study, "net")
    assert np.isnan(study.to_pandas().deviation["net", "128", "loss"])
    assert "nan" not in study_text(study)


def test_without_128_or_native_there_is_no_verdict():
    jobs = {place: values for place, values in sweep().items() if place.width != "native"}
    study = BottleneckStudy(jobs, {})
    assert "no verdict on 128" in verdict(study, "net")
    table = study.to_pandas()
    assert table.paired_seeds.eq(0).all()
    assert table[["cost", "low", "high"]].isna().all(axis=None)


def test_intervals_hold_the_truth_as_often_as_they_say_with_three_seeds():
    random, held, sweeps = np.random.default_rng(0), 0, 150
    for _ in range(sweeps):
        offsets, galaxies = random.normal(scale=1, size=(3, 1)), random.normal(size=30)
        differences = offsets + galaxies + random.normal(scale=0.3, size=(3, 30))
        nothing = [GalaxyValues(np.zeros(30))] * 3
        interval = paired_interval([GalaxyValues(row) for row in differences], nothing)
        held += interval.low < 0 < interval.high
    # 95 % of 150 is 142 ± 2.7; drawing the three seeds anew instead holds it 121 times.
    assert held >= 134


def test_nine_galaxies_have_no_interval():
    interval = paired_interval([GalaxyValues(np.arange(9.0))], [GalaxyValues(np.zeros(9))])
    assert interval.value == 4
    assert np.isnan([interval.low, interval.high]).all()


def test_rank_of_the_native_representation_is_that_of_its_directions():
    native = BottleneckStudy(sweep(), {}).to_pandas().loc[("net", "native")]
    assert native.dimensions.eq(200).all()
    assert native.loc["effective rank", "mean"] == pytest.approx(5, abs=0.3)
    assert native.loc["participation ratio", "mean"] == pytest.approx(5, abs=0.4)


def test_rare_kinds_that_only_the_native_width_sees_are_a_cost_in_precision():
    table = BottleneckStudy(sweep(rings=30.0), {}).to_pandas().loc["net"]
    assert table.loc[("native", "average precision ring"), "mean"] > 0.9
    assert table.loc[("128", "average precision ring"), "high"] < -0.5


def test_a_cost_in_what_classifiers_find_has_an_interval_over_draws_or_galaxies_and_seeds():
    random = np.random.default_rng(0)
    jobs = {}
    for seed in range(3):
        draws, resamples = random.normal(0.5, 0.05, size=15), random.normal(0.7, 0.05, size=400)
        for width, worse in (("native", 0.0), ("128", 0.1)):
            learnt = {"10-shot ring": draws - worse, "probe ring": np.concatenate([[0.7 - worse], resamples - worse])}
            jobs[StudyJob("net", width, seed)] = replace(job(width=16, seed=seed), learnt=learnt)
    study = BottleneckStudy(jobs, {})
    table = study.to_pandas().loc[("net", "128")]
    for measure in ("10-shot ring", "probe ring"):
        assert table.cost[measure] == pytest.approx(-0.1)
        # Every draw and every resample has the same difference, so nothing is uncertain.
        assert table.low[measure] == pytest.approx(-0.1)
        assert table.high[measure] == pytest.approx(-0.1)
    text = study_text(study)
    assert "10 galaxies of the kind and 100 others" in text
    assert "four fifths of all galaxies (probe)" in text


def test_classifiers_measure_kinds_of_which_enough_galaxies_are_known():
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(300, 4)).astype(np.float32)
    ring, trail, shell = (np.zeros(300, np.float32) for _ in range(3))
    ring[:30], trail[:6], shell[:4] = 1, 1, 1
    embeddings[:30, 0] += 6
    ring[200:] = np.nan
    learnt = found_by_classifiers(embeddings, {"ring": ring, "trail": trail, "shell": shell})
    assert set(learnt) == {"10-shot ring", "probe ring", "probe trail"}
    assert learnt["10-shot ring"].mean() > 0.8
    assert learnt["probe ring"][0] > 0.9


def test_widths_are_ordered_by_their_number_and_native_comes_last():
    jobs = {StudyJob("net", width, 0): job(width=16) for width in ("native", "128", "8")}
    assert list(BottleneckStudy(jobs, {}).to_pandas().index.unique("width")) == ["8", "128", "native"]


def test_a_measurement_is_read_as_it_was_written(tmp_path):
    before = job()
    before.write(tmp_path / "study.npz")
    after = Measurement.read(tmp_path / "study.npz")
    assert after.questions == QUESTIONS
    np.testing.assert_array_equal(after.embeddings, before.embeddings)
    np.testing.assert_array_equal(after.kinds["ring"], before.kinds["ring"])
    assert list(after.ids) == list(before.ids)


def test_what_classifiers_found_is_read_as_it_was_written(tmp_path):
    before = replace(job(), learnt={"probe ring": np.arange(5.0)})
    before.write(tmp_path / "study.npz")
    np.testing.assert_array_equal(Measurement.read(tmp_path / "study.npz").learnt["probe ring"], np.arange(5.0))


def test_a_damaged_measurement_is_refused(tmp_path):
    (tmp_path / "study.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(StoreError, match="unreadable measurement"):
        Measurement.read(tmp_path / "study.npz")


def place(folder, job, *, finished=True, **train):
    """A job's folder: settings.json, and what stands for a checkpoint."""
    settings = {
        "data": {"option": "mock"}, "train": {"epochs": 1, **train}, "seed": job.seed,
        "model": {"architecture": job.architecture, "bottleneck": job.width},
    }  # fmt: skip
    home = folder / f"{job.architecture}.{job.width}.{job.seed}"
    home.mkdir()
    (home / "settings.json").write_text(json.dumps({"verb": "train", "settings": settings}))
    if finished:
        (home / "card.json").write_text("{}")
    return home


@pytest.fixture
def swept(tmp_path, monkeypatch):
    """A sweep on disk, one job of which has failed and one never begun."""
    jobs = sweep(cost=0.3)
    homes = {
        place(tmp_path, study_job, finished=study_job != StudyJob("net", "128", 1)): values
        for study_job, values in jobs.items()
    }
    never = tmp_path / "net.native.2"
    for file in never.iterdir():
        file.unlink()
    monkeypatch.setattr(bottleneck, "measured", lambda folder, workers: homes[folder])
    return tmp_path


def test_missing_jobs_are_listed_and_the_rest_is_summarised(swept):
    study = study_of(swept)
    text, content = study_text(study), plain(study_content(study))
    assert "missing: net, D = 128, seed 1 (not trained)" in text
    assert "missing: net, D = native, seed 2 (not trained)" in text
    assert [(row["width"], row["seed"]) for row in content["missing"]] == [("128", 1), ("native", 2)]
    narrow = content["architectures"]["net"]["widths"][0]
    assert (narrow["seeds"], narrow["paired_seeds"]) == ([0, 2], 1)
    assert narrow["measures"]["loss"]["against_native"]["value"] == pytest.approx(0.3, abs=0.05)


def test_jobs_trained_in_another_way_are_not_mixed(swept):
    place(swept, StudyJob("net", "16", 0), epochs=7)
    with pytest.raises(StoreError, match=r"differ only in width and seed; these differ in train\.epochs"):
        study_of(swept)


def test_only_the_native_width_which_has_no_bottleneck_may_start_in_another_way(swept, monkeypatch):
    monkeypatch.setattr(bottleneck, "measured", lambda folder, workers: job(width=4))
    place(swept, StudyJob("net", "native", 3), bottleneck_start="random")
    assert StudyJob("net", "native", 3) in study_of(swept).jobs
    place(swept, StudyJob("net", "16", 0), bottleneck_start="random")
    with pytest.raises(StoreError, match=r"these differ in train\.bottleneck_start"):
        study_of(swept)


def test_a_measurement_of_an_older_edition_is_refused(tmp_path):
    job().write(tmp_path / "study.npz")
    with np.load(tmp_path / "study.npz") as kept:
        older = {name: kept[name] for name in kept if name != "edition"}
    np.savez(tmp_path / "study.npz", **older)
    with pytest.raises(StoreError, match=r"unreadable measurement.*Delete it; it is then made again"):
        Measurement.read(tmp_path / "study.npz")


def test_jobs_measured_on_other_galaxies_are_not_mixed(swept, monkeypatch):
    other = {"net.128.2": job(width=4)}
    other["net.128.2"].ids[3] = "another"
    monkeypatch.setattr(bottleneck, "measured", lambda folder, workers: other.get(folder.name) or job(width=4))
    with pytest.raises(StoreError, match="different galaxies"):
        study_of(swept)


def test_a_folder_without_jobs_is_refused(tmp_path):
    with pytest.raises(StoreError, match="no finished job"):
        study_of(tmp_path)
