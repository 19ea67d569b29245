"""A network that was trained on votes is finetuned on labels, and its checkpoint is used like any other."""

import csv
import json
import logging
import shutil
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import rarezoo as rz
from rarezoo.benchmark.few_labels import Task
from rarezoo.benchmark.finetuned import Finetuned, ZoobotClassifier
from rarezoo.data.label_answers import label_tree, predicted_values
from rarezoo.data.own_labels import OwnLabels
from rarezoo.errors import CheckpointError, ConfigError, DataError
from rarezoo.explore.labels import Labels
from rarezoo.explore.rating import Rating
from rarezoo.zoo.checkpoint import Checkpoint
from rarezoo.zoo.encoder import encoder_of_start
from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
from rarezoo.zoo.network import build_network

pytestmark = pytest.mark.pipeline
QUICK = {"epochs": 2, "workers": 0, "accelerator": "cpu", "batch_size": 16}
SMALL = {"turns": 2, **QUICK}


@pytest.fixture(scope="module")
def smooth(tiny_survey, tmp_path_factory):
    """A table of ids and labels of 48 galaxies of the tiny survey: whether volunteers said smooth, and the share."""
    galaxies = tiny_survey.mock().open()
    share = galaxies.tree.fractions(galaxies.votes)[:48, 0]
    table = tmp_path_factory.mktemp("labels") / "labels.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "smooth", "share"])
        for galaxy, value in zip(galaxies.ids[:48], share, strict=True):
            writer.writerow([galaxy, int(value > np.median(share)), f"{value:.4f}"])
    return table


@pytest.fixture(scope="module")
def finetuned(made_once, cli, tiny_survey, tiny_checkpoint, smooth):
    """The tiny network, finetuned by the command line on the label ``smooth``."""

    def train(folder):
        words = [
            "train.objective=labels", f"objective.labels={smooth}", "objective.label=smooth",
            f"model.start={tiny_checkpoint}", "train.epochs=2", "train.workers=0", "train.freeze_stages=-2",
            "train.head_start=fitted", "train.mixup=0.2", "train.batch_size=16", "objective.balance=sampling",
            "logger=none",
        ]  # fmt: skip
        cli("train.py", *tiny_survey.words, *words, f"out={folder}", cwd=folder.parent)

    return made_once("finetuned", train)


def test_a_finetuned_checkpoint_embeds_with_its_predictions_and_is_clustered(
    cli, finetuned, tiny_survey, tiny_checkpoint, smooth, tmp_path
):
    card = json.loads((finetuned / "card.json").read_text())
    assert card["encoder"]["input_size"] == 32
    assert card["labels"] == {"kind": "binary", "names": ["smooth"], "source": "labels.csv"}
    assert card["label_metrics"][0]["auc_interval"]
    assert "balanced accuracy" in (finetuned / "README.md").read_text()
    assert str(smooth.parent) not in (finetuned / "card.json").read_text()
    trunk = {name: value for name, value in load_file(finetuned / "weights.safetensors").items() if "conv_stem" in name}
    before = load_file(tiny_checkpoint / "weights.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in trunk.items())

    words = [f"checkpoint={finetuned}", "workers=0", "out=store"]
    cli("embed.py", *tiny_survey.words, *words, cwd=tmp_path)
    store = rz.EmbeddingStore.open(tmp_path / "store")
    assert store.manifest.answers == ("smooth_yes", "smooth_no")
    labels = OwnLabels.read(smooth, label="smooth")
    columns = store.read([f"{answer}_fraction" for answer in store.manifest.answers])
    fractions = np.column_stack([column.to_numpy() for column in columns.columns])
    probability = predicted_values(labels, store.manifest.answers, fractions, source="the store")
    assert probability.shape == (260, 1)
    assert ((probability > 0) & (probability < 1)).all()
    other = OwnLabels.read(smooth, label="share", kind="number")
    with pytest.raises(DataError, match="smooth_yes"):
        predicted_values(other, store.manifest.answers, fractions, source="the store")

    words = [
        "compress=pca", "compress@drawing=pca", "drawing.n_components=2", "clusterer.min_samples=5",
        "clusterer.min_cluster_size=5", "significance.surveys=5", "stability.refits=0", "beyond=false", "images=false",
        "select=everything", "logger=none",
    ]  # fmt: skip
    cli("cluster.py", "store=store", *words, "out=search", cwd=tmp_path)
    search = rz.Search.open(tmp_path / "search")
    assert len(search.members) == 260


def test_a_finetuned_checkpoint_is_shown_and_exported_and_its_worst_predictions_are_drawn(
    cli, finetuned, tiny_survey, smooth, tmp_path
):
    assert "balanced accuracy" in cli("rarezoo", "zoo", "show", finetuned, cwd=tmp_path).out
    compared = cli("rarezoo", "zoo", "show", finetuned, finetuned, cwd=tmp_path).out
    assert compared.count("| smooth ") == 2
    assert "AUC" in compared
    cli("rarezoo", "zoo", "export", finetuned, "format=timm", "out=exported", cwd=tmp_path)
    assert (tmp_path / "exported" / "model.safetensors").exists()
    words = ["rarezoo", "zoo", "worst", finetuned, *tiny_survey.words, "workers=0", "count=6", "out=worst.png"]
    assert "labels=FILE" in cli(*words, cwd=tmp_path, expect=2).message
    cli(*words, f"labels={smooth}", cwd=tmp_path)
    with smooth.open() as file:
        labels = {row["id"]: int(row["smooth"]) for row in csv.DictReader(file)}
    with (tmp_path / "worst.csv").open() as file:
        worst = list(csv.DictReader(file))
    assert len(worst) == 6
    assert all(float(row["observed"]) == (labels[row["id_str"]] == (row["answer"] == "yes")) for row in worst)
    errors = [abs(float(row["predicted"]) - float(row["observed"])) for row in worst]
    assert errors == sorted(errors, reverse=True)
    assert (tmp_path / "worst.png").exists()


@pytest.mark.parametrize(
    ("label", "kind", "trained"),
    [("share", "number", "frozen"), pytest.param("smooth", "classes", "frozen", marks=pytest.mark.slow)],
)
def test_python_finetunes_on_other_kinds_of_labels_and_returns_at_once_the_second_time(
    tiny_survey, tiny_checkpoint, smooth, tmp_path, label, kind, trained
):
    first, again = (
        rz.finetune(
            tiny_checkpoint, tiny_survey.mock(), smooth, label=label, kind=kind, out=tmp_path / "net",
            trained=trained, **SMALL,
        )
        for _ in range(2)
    )  # fmt: skip
    assert first.sha256 == again.sha256
    measured = first.card["label_metrics"]
    assert [row["label"] for row in measured] == ([label] if kind == "number" else ["0", "1"])
    assert set(first.tree.answers) == {"0", "1"} if kind == "classes" else len(first.tree.answers) == 2


def test_the_head_of_a_checkpoint_is_kept_for_the_same_label_and_not_for_another(finetuned):
    known = Checkpoint.open(finetuned)
    encoder = encoder_of_start(EfficientNetB0(start=str(finetuned)), given=())
    same = build_network(encoder, known.tree)
    other = build_network(encoder, label_tree(OwnLabels.read({"J1": 1, "J2": 0}, label="rough")))
    assert torch.allclose(same.head.weight, known.network.head.weight)
    assert other.head.weight.shape == same.head.weight.shape
    assert not torch.allclose(other.head.weight, same.head.weight)
    assert torch.allclose(other.bottleneck.weight, same.bottleneck.weight)


def test_a_start_decides_the_input_and_another_size_or_architecture_is_refused(
    cli, tiny_survey, tiny_checkpoint, smooth, tmp_path, caplog
):
    words = [f"objective.labels={smooth}", "objective.label=smooth", f"model.start={tiny_checkpoint}"]
    # 224 is the default, which a setting that was not given has too.
    words = ["train.py", *tiny_survey.words, "objective=labels", *words, "model.input_size=224", "out=refused"]
    assert "model.input_size=224" in cli(*words, cwd=tmp_path, expect=2).message
    with caplog.at_level(logging.WARNING, logger="rarezoo"):
        assert encoder_of_start(EfficientNetB0(start=str(tiny_checkpoint))).input_size == 32
    assert "model.input_size=32" in caplog.text
    given = {"label": "smooth", "out": tmp_path / "net", **QUICK}
    encoder = EfficientNetB0(start=str(tiny_checkpoint), input_size=64)
    with pytest.raises(ConfigError, match=r"model\.input_size=32.*model\.input_size=64.*Leave"):
        rz.finetune(encoder, tiny_survey.mock(), smooth, **given)
    with pytest.raises(ConfigError, match="model=efficientnet_b0"):
        rz.finetune(rz.MaxViTTiny(start=str(tiny_checkpoint)), tiny_survey.mock(), smooth, **given)
    with pytest.raises(ConfigError, match="frozen, last, all"):
        rz.finetune(tiny_checkpoint, tiny_survey.mock(), smooth, trained="head", **given)
    with pytest.raises(DataError, match="elsewhere"):
        rz.finetune(tiny_checkpoint, tiny_survey.mock(), {"elsewhere": 1, "nowhere": 0}, **given)
    assert not (tmp_path / "net").exists()


def test_zoobots_encoder_from_a_local_folder_is_a_start_and_another_one_is_refused(tiny_survey, smooth, tmp_path):
    encoder = EfficientNetB0(input_size=32, bottleneck="8")
    torch.manual_seed(5)
    published = encoder.trunk().state_dict()
    (tmp_path / "zoobot").mkdir()
    save_file(published, tmp_path / "zoobot" / "model.safetensors")
    start = EfficientNetB0(input_size=32, bottleneck="8", start=str(tmp_path / "zoobot"))
    kept = build_network(start, label_tree(OwnLabels.read({"J1": 1, "J2": 0}))).trunk.state_dict()
    assert torch.equal(kept["conv_stem.weight"], published["conv_stem.weight"])
    (tmp_path / "other").mkdir()
    save_file({"stem.weight": torch.zeros(3)}, tmp_path / "other" / "model.safetensors")
    with pytest.raises(CheckpointError, match="another architecture"):
        rz.finetune(tmp_path / "other", tiny_survey.mock(), smooth, label="smooth", out=tmp_path / "no", **QUICK)


@pytest.mark.parametrize("method", ["finetuned", pytest.param("zoobot", marks=pytest.mark.slow)])
def test_contestants_that_see_images_predict_the_galaxies_that_are_wanted(
    tiny_survey, tiny_checkpoint, smooth, tmp_path, method
):
    pytest.importorskip("lightning")
    mine = OwnLabels.read(smooth, label="smooth")
    wanted = tiny_survey.mock().open().ids[100:120]
    task = Task(mine, wanted, 3, tiny_survey.mock(), tmp_path / "scratch")
    contestant = {
        "finetuned": Finetuned({"start": str(tiny_checkpoint)}, "frozen", SMALL),
        "zoobot": ZoobotClassifier({"start": str(tiny_checkpoint)}, epochs=2),
    }[method]
    first = contestant.probabilities(task)
    assert first.shape == (20,)
    assert ((first > 0) & (first < 1)).all()
    assert np.std(first) > 0
    with pytest.raises(DataError, match="survey"):
        contestant.probabilities(replace(task, survey=None))


def test_a_validation_loss_that_is_never_finite_is_refused(cli, tiny_survey, tiny_checkpoint, smooth, tmp_path):
    words = [
        "train.py", *tiny_survey.words, "train.objective=labels", f"objective.labels={smooth}",
        "objective.label=smooth", f"model.start={tiny_checkpoint}", "train.epochs=1", "train.workers=0",
        "train.learning_rate=1e30", "train.warmup_epochs=0", "train.batch_size=64", "logger=none", "out=wild",
    ]  # fmt: skip
    assert "train.learning_rate" in cli(*words, cwd=tmp_path, expect=2).message


@pytest.mark.slow
def test_two_processes_finetune_on_ratings_and_their_network_is_exported(
    start_process, ended, cli, tiny_survey, tiny_checkpoint, smooth, tmp_path
):
    onnxruntime = pytest.importorskip("onnxruntime")
    with smooth.open() as file, Labels.open(tmp_path / "rated" / "labels.sqlite", survey="made up") as ratings:
        ratings.add(
            [Rating(row["id"], "smooth", float(row["smooth"]), "answer", "ann") for row in csv.DictReader(file)]
        )
    words = [
        "train.py", *tiny_survey.words, "experiment=finetune_all", "objective.labels=rated", "objective.label=smooth",
        f"model.start={tiny_checkpoint}", "train.epochs=3", "train.workers=0", "train.accelerator=cpu",
        "objective.balance=sampling", "logger=none",
    ]  # fmt: skip
    together = ["train.batch_size=8", "train.devices=2", "train.strategy=ddp", "out=two"]
    ended(start_process(*words, *together, cwd=tmp_path))
    cli(*words, "train.batch_size=16", "out=one", cwd=tmp_path)
    losses, steps = [], []
    for name in ("one", "two"):
        with (tmp_path / name / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        losses.append(float(rows[-1]["validation/loss"]))
        steps.append(rows[-1]["step"])
    assert steps[0] == steps[1], "each process takes half of the galaxies"
    assert losses[1] == pytest.approx(losses[0], abs=0.3)
    known = Checkpoint.open(tmp_path / "two")
    assert known.card["labels"]["names"] == ["smooth"]
    cli("rarezoo", "zoo", "export", "two", "format=onnx", "out=onnx", cwd=tmp_path)
    images = np.random.default_rng(0).random((2, 3, 32, 32), dtype=np.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx"))
    (said,) = session.run(["concentrations"], {"images": images})
    with torch.inference_mode():
        expected = known.network(torch.from_numpy(images)).concentrations.numpy()
    np.testing.assert_allclose(said, expected, rtol=1e-3)


@pytest.mark.slow
def test_a_test_split_without_positives_is_warned_of_and_its_card_has_no_numbers_for_them(
    tiny_survey, tiny_checkpoint, tmp_path, caplog
):
    ids = tiny_survey.mock().open().ids[:60].tolist()
    cells = {**{galaxy: int(row < 10) for row, galaxy in enumerate(ids)}, "elsewhere": 1, "far away": 1}
    labels = OwnLabels.read(cells)
    # A seed with which the positives of the test split are those that the survey does not have.
    for seed in range(2000):
        splits = dict(zip(labels.ids, labels.splits(seed=seed), strict=True))
        if {galaxy for galaxy in cells if cells[galaxy] and splits[galaxy] == "test"} == {"elsewhere", "far away"}:
            break
    with caplog.at_level(logging.WARNING, logger="rarezoo"):
        made = rz.finetune(
            tiny_checkpoint, tiny_survey.mock(), cells, label="ring", trained="frozen", out=tmp_path / "net",
            objective={"split_seed": seed}, **SMALL,
        )  # fmt: skip
    assert "the test split has no galaxy" in caplog.text
    (row,) = made.card["label_metrics"]
    assert (row["positive"], row["auc"]) == (0, None)
    assert "AUC" in (tmp_path / "net" / "README.md").read_text()


@pytest.mark.slow
def test_a_finetuning_that_was_killed_goes_on_and_ends_with_the_same_weights(
    cli, start_process, tiny_survey, tiny_checkpoint, smooth, tmp_path, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    shutil.copyfile(smooth, tmp_path / "labels.csv")
    words = [
        "train.py", *tiny_survey.words, "experiment=finetune_all", "objective.labels=labels.csv",
        "objective.label=smooth", f"model.start={tiny_checkpoint}", "train.epochs=4", "train.workers=0",
        "train.batch_size=8", "train.save_every=1", "train.mixup=0.2", "objective.balance=sampling", "logger=none",
    ]  # fmt: skip
    cli(*words, "out=straight", cwd=tmp_path)
    process = start_process(*words, "out=killed", cwd=tmp_path)
    while not (tmp_path / "killed" / ".training" / "last.ckpt").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "card.json").exists()
    text = (tmp_path / "labels.csv").read_text()
    (tmp_path / "labels.csv").write_text(text.replace(",1,", ",0,", 3))
    refused = cli(*words, "out=killed", cwd=tmp_path, expect=2)
    assert "targets of the objective" in refused.message
    (tmp_path / "labels.csv").write_text(text)
    cli(*words, "out=killed", cwd=tmp_path)
    for name in ("weights.safetensors", "metrics.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name
