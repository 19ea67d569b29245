"""The layout of mwalmsley/gz_evo, as folders that the test writes."""

import io
import sys
from dataclasses import replace

import datasets
import numpy as np
import pytest
from PIL import Image

from rarezoo.data.survey import open_survey
from rarezoo.data.surveys.huggingface import HuggingFace
from rarezoo.errors import DataError, MissingDependency, RarezooError

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("hub")
    pixels = [np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8) for seed in range(3)]
    content = {
        "image": [Image.fromarray(pixel) for pixel in pixels],
        "id_str": ["a", "b", "c"],
        "dataset_name": ["gz_desi"] * 3,
        "ra": [1.0, 2.0, 3.0],
        "dec": [4.0, 5.0, 6.0],
        "smooth-or-featured_smooth": [3.0, None, 5.0],
    }
    data_set = datasets.Dataset.from_dict(content).cast_column("image", datasets.Image())
    data_set.save_to_disk(str(home / "saved"))
    (home / "parquet").mkdir()
    data_set.to_parquet(str(home / "parquet" / "train-0.parquet"))
    return home, pixels


@pytest.mark.parametrize("kind", ["saved", "parquet"])
def test_both_kinds_of_folder_open(folder, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    galaxies = HuggingFace(name=str(folder[0] / kind), validation_share=0.2).open()
    assert galaxies.ids.tolist() == ["a", "b", "c"]
    assert galaxies.votes[:, 0].tolist() == [3, 0, 5]
    assert galaxies.catalogue["survey"].to_pylist() == ["gz_desi"] * 3
    np.testing.assert_array_equal(galaxies.images.cutout(2), folder[1][2])


def test_columns_whose_names_are_taken_are_kept(folder, tmp_path):
    saved = datasets.load_from_disk(str(folder[0] / "saved")).add_column("split", ["train", "test", "test"])
    saved.save_to_disk(str(tmp_path / "split"))
    catalogue = HuggingFace(str(tmp_path / "split")).open().catalogue
    assert catalogue["split_given"].to_pylist() == ["train", "test", "test"]


def test_a_folder_is_found_from_another_folder(folder, monkeypatch):
    monkeypatch.chdir(folder[0])
    survey = HuggingFace("saved")
    galaxies, recorded = survey.open(), survey.settings()
    monkeypatch.chdir("/")
    assert open_survey(recorded).open().sha256 == galaxies.sha256
    assert HuggingFace("owner/name").settings()["name"] == "owner/name"


def test_without_datasets_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependency, match=r"rarezoo\[huggingface\]"):
        HuggingFace().open()


def test_wrong_column_names_are_named(folder):
    with pytest.raises(DataError, match=r"no column: picture.*there are: image"):
        HuggingFace(name=str(folder[0] / "saved"), image_column="picture").open()


def test_without_a_network_the_message_says_what_to_do(monkeypatch):
    def no_network(*_, **__):
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(datasets, "load_dataset", no_network)
    with pytest.raises(DataError, match=r"hf download .*data.name=DIR"):
        HuggingFace().open()


def saved(tmp_path, content, **features):
    data_set = datasets.Dataset.from_dict(content, features=datasets.Features(features) if features else None)
    data_set.to_parquet(str(tmp_path / "set.parquet"))
    return HuggingFace(str(tmp_path / "set.parquet"), votes="")


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_a_single_parquet_file_opens_from_another_folder(folder, no_cache, monkeypatch):
    monkeypatch.chdir(folder[0] / "parquet")
    survey = HuggingFace("train-0.parquet")
    monkeypatch.chdir("/")
    with pytest.raises(DataError, match="cannot open"):
        survey.open()
    monkeypatch.chdir(folder[0] / "parquet")
    recorded = survey.settings()
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(open_survey(recorded).open().images.cutout(1), folder[1][1])


def test_ids_that_occur_twice_are_refused(tmp_path, no_cache):
    survey = saved(tmp_path, {"id_str": ["a", "a"], "image": [b"x", b"y"]})
    with pytest.raises(RarezooError, match="a"):
        survey.open()


def test_images_may_be_bytes_or_a_struct_of_bytes(folder, tmp_path, no_cache):
    stream = io.BytesIO()
    Image.fromarray(folder[1][0]).save(stream, format="PNG")
    for image in (stream.getvalue(), {"bytes": stream.getvalue(), "path": None}):
        galaxies = saved(tmp_path, {"id_str": ["a"], "image": [image]}).open()
        np.testing.assert_array_equal(galaxies.images.cutout(0), folder[1][0])


def test_unreadable_and_absent_images_name_their_galaxies(tmp_path, no_cache):
    galaxies = saved(
        tmp_path, {"id_str": list("abc"), "image": [b"no image", None, b""]}, id_str=datasets.Value("string"),
        image=datasets.Value("binary"),
    ).open()  # fmt: skip
    for row, galaxy in enumerate("abc"):
        with pytest.raises(DataError, match="unreadable image") as caught:
            galaxies.images.cutout(row)
        assert caught.value.ids == (galaxy,)


def test_paths_out_of_the_folder_of_a_data_set_are_unreadable_unless_allowed(tmp_path, no_cache):
    (tmp_path / "in").mkdir()
    for place in ("in/a.png", "out.png"):
        Image.new("L", (8, 8), 50).save(tmp_path / place)
    paths = [str(tmp_path / "in" / "a.png"), str(tmp_path / "out.png"), "https://example.org/a.png", ""]
    survey = saved(tmp_path / "in", {"id_str": list("abcd"), "image": paths})
    images = survey.open().images
    assert images.cutout(0).mean() == 50
    for row in (1, 2, 3):
        with pytest.raises(DataError, match="unreadable image"):
            images.cutout(row)
    assert replace(survey, allow_outside=True).open().images.cutout(1).mean() == 50


@pytest.mark.parametrize("column", [["x"], [1.5], [{"a": 1}]])
def test_a_column_without_images_is_named(tmp_path, no_cache, column):
    survey = saved(tmp_path, {"id_str": ["a"], "image": column})
    with pytest.raises(DataError, match=r"holds no images|have no scale|unreadable image"):
        survey.open().images.cutout(0)


def test_a_folder_without_parquet_files_is_named(tmp_path):
    with pytest.raises(DataError, match="cannot open the data set"):
        HuggingFace(str(tmp_path)).open()
