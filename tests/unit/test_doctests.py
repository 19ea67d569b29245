"""Every example in a docstring runs and prints what it says."""

import doctest
import importlib
import os
import pkgutil

import pytest

import mocksky
import rarezoo
import seeded_umap

pytestmark = pytest.mark.unit
MODULES = [
    module.name
    for package in (rarezoo, mocksky, seeded_umap)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name, tmp_path, monkeypatch):
    module = importlib.import_module(name)
    monkeypatch.chdir(tmp_path)
    here = os.getcwd()
    failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    os.chdir(here)
    assert failed == 0
