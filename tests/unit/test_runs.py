"""A run folder belongs to one command with one set of settings."""

import pytest

from rarezoo import runs
from rarezoo.errors import OutputError

pytestmark = pytest.mark.unit


def test_a_claimed_folder_takes_the_same_command_again_and_no_other(tmp_path):
    settings = {"seed": 1, "model": {"input_size": 64}}
    runs.claim(tmp_path, verb="train", settings=settings)
    assert runs.claim(tmp_path, verb="train", settings=settings) == tmp_path
    with pytest.raises(OutputError, match=r"settings.model.input_size 64 → 96"):
        runs.claim(tmp_path, verb="train", settings={**settings, "model": {"input_size": 96}})


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert runs.digest({"a": 1, "b": 2}) == runs.digest({"b": 2, "a": 1}) != runs.digest({"a": 1, "b": 3})
