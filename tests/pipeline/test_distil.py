"""``rarezoo distil`` and ``rarezoo benchmark distil`` as commands, killed and started again."""

import hashlib
import signal
import time

import numpy as np
import pytest

from tests.pipeline.conftest import run_command, start_command

SET = [
    "data=mock", "data.n=280", "data.side=32", "data.cache=cache", "data.workers=1", "set.classes=populations",
    "data.rates={off_centre_ring: 0.42, merging_pair: 0.42}", "set.only=[off_centre_ring,merging_pair]",
    "set.train=70", "set.validation=15", "set.test=30", "set.side=16", "set.zoom=1.0",
]  # fmt: skip
SMALL = [
    "experts.count=2", "experts.epochs=3", "experts.width=8", "matching.iterations=40", "matching.check_every=20",
    "matching.steps=4", "matching.check_steps=10",
]  # fmt: skip


def hashes(folder):
    files = ["distilled.npz", "distilled.fits", "experts/expert-0000.npy", "experts/expert-0001.npy"]
    return [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files[1:]], np.load(folder / files[0])


@pytest.mark.slow
def test_a_distillation_that_was_killed_continues_to_the_same_bytes(tmp_path):
    command = ["rarezoo", "distil", *SET, *SMALL, "method=trajectories", "logger=none"]
    run_command(*command, "out=whole", cwd=tmp_path)
    process = start_command(*command, "out=parts", cwd=tmp_path)
    state = tmp_path / "parts" / "state" / "matching.pt"
    while not state.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "parts" / "distilled.npz").exists()
    run_command(*command, "out=parts", cwd=tmp_path)
    (first, images), (second, again) = hashes(tmp_path / "whole"), hashes(tmp_path / "parts")
    assert first == second
    assert np.array_equal(images["images"], again["images"])


@pytest.mark.pipeline
def test_the_size_of_the_paper_can_be_planned(tmp_path):
    plan = run_command("rarezoo", "distil", "profile=paper", "dry_run=true", "out=paper", cwd=tmp_path).out
    assert "594,441 weights" in plan
    assert "6.06 GB" in plan
    assert "100 experts × 50 epochs" in plan


@pytest.mark.pipeline
def test_a_plan_counts_the_images_that_a_student_sees(tmp_path):
    plan = run_command("rarezoo", "distil", "profile=processor_ten", "dry_run=true", "out=ten", cwd=tmp_path).out
    assert "9 classes × 10 images" in plan
    # 300 iterations of 20 steps that see 10 of the 90 images.
    assert "60,000 images" in plan


@pytest.mark.pipeline
def test_a_distillation_without_a_survey_or_encoder_is_refused(tmp_path):
    assert "data=gz2" in run_command("rarezoo", "distil", "out=x", cwd=tmp_path, expect=2).message
    words = ["rarezoo", "distil", "data=mock", "data.n=20", "data.side=16", "method=features", "out=x"]
    small = ["set.train=2", "set.validation=1", "set.test=1", "set.recipe=['smooth=`smooth-or-featured_smooth`']"]
    assert "features.checkpoint" in run_command(*words, *small, cwd=tmp_path, expect=2).message
    words = ["rarezoo", "distil", "data=mock", "method=dm", "features.checkpoint=efficientnet_b0.mock", "out=x"]
    assert "method=features" in run_command(*words, cwd=tmp_path, expect=2).message


@pytest.mark.pipeline
def test_a_frozen_encoder_distils_with_random_networks_and_warns_without(tmp_path, tiny_checkpoint):
    words = ["rarezoo", "distil", *SET, "method=features", f"features.checkpoint={tiny_checkpoint}", "logger=none"]
    words += ["features.steps=6", "features.views=1", "features.networks=2", "per_class=2"]
    run_command(*words, "out=held", cwd=tmp_path)
    images = np.load(tmp_path / "held" / "distilled.npz")["images"]
    assert images.shape == (4, 3, 16, 16)
    assert len({image.tobytes() for image in images}) == 4
    assert "and of 2 random networks" in (tmp_path / "held" / "card.md").read_text()
    alone = run_command(*words[:-2], "features.networks=0", "out=alone", cwd=tmp_path)
    assert "other networks learned nothing" in alone.text
