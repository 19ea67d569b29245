"""Splits follow from ids alone, and near-identical images share one."""

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from rarezoo.data.duplicates import fingerprints, near_identical
from rarezoo.data.pixels import decoded
from rarezoo.data.splits import joined_splits, split_of
from rarezoo.data.surveys.catalogue import Catalogue
from rarezoo.data.surveys.mock import Mock
from rarezoo.errors import ConfigError

pytestmark = pytest.mark.unit


def test_splits_have_their_shares_and_new_rows_move_no_galaxy():
    ids = [f"galaxy-{i}" for i in range(4000)]
    splits = split_of(ids, validation_share=0.2, test_share=0.1)
    shares = [np.mean(splits == name) for name in ("train", "validation", "test")]
    np.testing.assert_allclose(shares, [0.7, 0.2, 0.1], atol=0.03)
    more = split_of(["new", *ids[::-1]], validation_share=0.2, test_share=0.1)
    np.testing.assert_array_equal(more[1:][::-1], splits)


@pytest.mark.parametrize(("validation", "test"), [(0.6, 0.4), (-0.1, 0.1), (1.0, 0.0)])
def test_shares_that_leave_nothing_to_train_on_raise_when_the_survey_is_made(validation, test):
    with pytest.raises(ConfigError, match=r"validation_?.*share"):
        Mock(validation_share=validation, test_share=test)


def test_near_identical_images_share_a_split_in_training(tmp_path):
    pixels = soft_noise(3)
    for name in ("a", "b", "c", "d", "e", "f"):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / "table.csv").write_text("id_str\na\nb\nc\nd\ne\nf\n")
    settings = {"images": str(tmp_path), "validation_share": 0.3, "test_share": 0.3}
    survey = Catalogue(str(tmp_path / "table.csv"), **settings)
    assert len(set(survey.open().catalogue["split"].to_pylist())) > 1
    assert len(set(survey.training_galaxies(cache=tmp_path).catalogue["split"].to_pylist())) == 1


def test_a_group_takes_the_split_of_its_smallest_id():
    splits = np.array(["train", "test", "validation", "train"], dtype=object)
    ids = np.array(["d", "b", "c", "a"], dtype=object)
    joined = joined_splits(splits, ids, np.array([0, 0, 0, 1]))
    assert joined.tolist() == ["test", "test", "test", "train"]


def soft_noise(seed):
    noise = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (96, 96), dtype=np.uint8))
    return np.asarray(ImageOps.autocontrast(noise.filter(ImageFilter.GaussianBlur(5))).convert("RGB"))


def reencoded(pixels, **settings):
    import io

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, **settings)
    return decoded(stream.getvalue())


def test_a_reencoded_picture_is_found_and_another_galaxy_is_not(tmp_path, stack):
    one, other = soft_noise(0), soft_noise(1)
    brighter = np.clip(one.astype(int) + 5, 0, 255).astype(np.uint8)
    pixels = np.stack([one, other, reencoded(one, format="JPEG", quality=80), brighter])
    images = stack(pixels)
    groups = near_identical(fingerprints(images, 4, cache=tmp_path / "prints.npy"))
    assert groups[0] == groups[2] == groups[3] != groups[1]
    np.testing.assert_array_equal(np.load(tmp_path / "prints.npy"), fingerprints(images, 4))
