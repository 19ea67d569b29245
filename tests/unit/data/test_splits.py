"""Splits follow from ids alone, and near-identical images share one."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
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
    picture, other = soft_noise(0), soft_noise(1)
    brighter = np.clip(picture.astype(int) + 5, 0, 255).astype(np.uint8)
    pixels = np.stack([picture, other, reencoded(picture, format="JPEG", quality=80), brighter])
    images = stack(pixels)
    groups = near_identical(fingerprints(images, 4, cache=tmp_path / "prints.npy"))
    assert groups[0] == groups[2] == groups[3] != groups[1]
    np.testing.assert_array_equal(np.load(tmp_path / "prints.npy"), fingerprints(images, 4))


def direct_groups(prints):
    """Group by definition: chains of pairs above the threshold."""
    similar = prints @ prints.T > 0.9965
    np.fill_diagonal(similar, True)
    groups = np.arange(len(prints))
    for _ in range(len(prints)):
        groups = np.array([groups[row].min() for row in similar])
    return np.unique(groups, return_inverse=True)[1]


@given(
    kinds=st.lists(st.integers(0, 4), min_size=1, max_size=30), noise=st.sampled_from([0.0, 0.02, 0.06]),
    unreadable=st.sets(st.integers(0, 29)),
)  # fmt: skip
def test_groups_are_those_of_the_definition(kinds, noise, unreadable):
    random = np.random.default_rng(0)
    prints = random.normal(size=(5, 40))[kinds] + noise * random.normal(size=(len(kinds), 40))
    prints = (prints / np.linalg.norm(prints, axis=1, keepdims=True)).astype(np.float32)
    prints[[row for row in unreadable if row < len(kinds)]] = 0
    np.testing.assert_array_equal(near_identical(prints), direct_groups(prints))


def test_thousands_of_copies_of_a_picture_need_little_memory():
    """25,000 copies have 300 million pairs; all of them would be 5 GB."""
    random = np.random.default_rng(0)
    copies = np.tile(random.normal(size=576), (25000, 1)).astype(np.float32)
    copies[::10] += 1e-4 * random.normal(size=(2500, 576)).astype(np.float32)
    prints = copies / np.linalg.norm(copies, axis=1, keepdims=True)
    tracemalloc.start()
    groups = near_identical(prints)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert set(groups) == {0}
    assert peak < 200e6


def test_even_pictures_are_alike_if_their_grey_is(stack):
    greys = [0, 0, 90, 90, 200]
    pixels = np.array(greys, dtype=np.uint8)[:, None, None, None] * np.ones((1, 30, 30, 3), dtype=np.uint8)
    assert near_identical(fingerprints(stack(pixels), 5)).tolist() == [0, 0, 1, 1, 2]


def test_a_placeholder_is_in_the_training_split_and_a_warning_counts_it(caplog):
    ids = np.array([f"galaxy-{row}" for row in range(1000)], dtype=object)
    splits = split_of(ids, validation_share=0.2, test_share=0.2)
    groups = np.arange(1000)
    groups[:500] = 0
    groups[500:515] = 500  # the same galaxy under several ids
    joined = joined_splits(splits, ids, groups)
    assert set(joined[:500]) == {"train"}
    assert len(set(joined[500:515])) == 1
    np.testing.assert_array_equal(joined[515:], splits[515:])
    assert np.isin(joined[515:], ["validation", "test"]).mean() > 0.3
    assert "500 of 1000 images" in caplog.text
    assert "15 of 1000" not in caplog.text
