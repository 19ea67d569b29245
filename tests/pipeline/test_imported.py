"""Embeddings of another network: a table is imported as a store, and methods are compared on it."""

import json

import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.pipeline

GALAXIES, MEMBERS, WIDTH = 300, 40, 6


@pytest.fixture(scope="module")
def home(cli, tmp_path_factory):
    """A store that was imported from a table with one tight group, and a table that names a part of the group."""
    home, random = tmp_path_factory.mktemp("imported"), np.random.default_rng(0)
    embeddings = random.normal(size=(GALAXIES, WIDTH))
    embeddings[:MEMBERS] = 6 + 0.1 * random.normal(size=(MEMBERS, WIDTH))
    ids = [f"J{row:04d}" for row in range(GALAXIES)]
    columns = {f"feat_{axis}": values for axis, values in enumerate(embeddings.T)}
    pd.DataFrame({"name": ids, **columns}).to_parquet(home / "theirs.parquet")
    pd.DataFrame({"id_str": ids[:MEMBERS], "label": "ring"}).to_csv(home / "known.csv", index=False)
    cli("rarezoo", "store", "import", "theirs.parquet", "out=store", "id_column=name", "columns=feat_*", cwd=home)
    return home


def benchmark(cli, home, *words, expect=0):
    return cli("rarezoo", "benchmark", "answers", "store=store", "seeds=1", "refits=0", *words, cwd=home, expect=expect)


def test_methods_are_compared_on_an_imported_store(cli, home):
    words = ["answers=known.csv", "methods=[leaf_10,random]", "out=compared"]
    out = benchmark(cli, home, *words).out
    assert "1 population;" in out
    outcome = json.loads((home / "compared" / "answers" / "sky1" / "leaf_10.whole.json").read_text())
    assert outcome["status"] == "done"
    scores = pd.read_csv(home / "compared" / "answers" / "results.csv").set_index("method")
    assert scores.found["leaf_10"] == 1
    assert scores.discovery["leaf_10"] > scores.discovery["random"]
    assert benchmark(cli, home, *words).out == out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["methods=[leaf_10]"], "answers=FILE.csv"),
        (["answers=known.csv", "methods=[leaf_10]", "checkpoint=nowhere"], "nowhere"),
    ],
    ids=["no table of known objects", "a checkpoint that does not exist"],
)
def test_what_an_imported_store_does_not_have_is_named_in_one_message(cli, home, words, named):
    assert named in benchmark(cli, home, *words, "out=refused", expect=2).message
