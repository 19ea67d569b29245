"""The layout of mwalmsley/gz_evo, as folders that the test writes."""

import sys

import datasets
import numpy as np
import pytest
from PIL import Image

from rarezoo.data.survey import open_survey
from rarezoo.data.surveys.huggingface import HuggingFace
from rarezoo.errors import DataError, MissingDependency

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
