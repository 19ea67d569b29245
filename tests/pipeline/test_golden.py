"""What the three commands compute on fixed seeds stays what it was: one training, one store and two small searches.

``golden/freeze.py`` runs the commands and holds their settings; the values that they must give lie beside it as JSON.
Whoever moves a number on purpose renews the files with ``python tests/pipeline/golden/freeze.py --write`` and says in
CHANGELOG which number moved and why.

On the machine that wrote the files (the same processor and versions of the numerical libraries, see ``machine.json``)
every value, rounded to five significant digits, and every digest of a whole table must be equal.

The default search takes a minute and is among the slow tests.

On every machine, also another one, the following must hold.

- Exactly equal: the hash of the mock survey's votes and catalogue, numbers of galaxies, weights and answers, ids, the
  number of rows of every table, and for the PCA search the class of every galaxy.
- Losses of the training within 2 %; numbers of the card within the tolerances of ``TOLERANCES``.
- Embeddings of the store, which a released network makes: the first rows within a twentieth of their scatter (resizing
  may round a pixel the other way on another processor), mean and scatter within 1/500 of it, fractions within 0.005.
- The PCA search: every column of its classes within 1 %, chances of being noise within 20 %.
- The default search, whose UMAP amplifies the last bit of the arithmetic, so that candidates come and go and classes
  get other numbers: about as many classes, most pairs of galaxies together or apart as before, and every significant
  class again, with nearly the same galaxies, isolation, stability and share beyond the answers, and a chance of being
  noise within a factor of 1,000. The limits are wider than what moves when the sixth digit of the embeddings changes.
"""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

pytestmark = pytest.mark.pipeline

_spec = importlib.util.spec_from_file_location("golden_freeze", Path(__file__).parent / "golden" / "freeze.py")
freeze = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(freeze)

PARTS = ("training", "store", "multiscale", "pca")
# The default search fits a dozen maps. Among the quick tests, test_isolated.py finds planted classes by it, and
# test_doors.py makes it twice with the same result.
MULTISCALE = pytest.param("multiscale", marks=pytest.mark.slow)
# Of the card's numbers per question, by what their names contain: relative and absolute tolerance; the first fits.
TOLERANCES = {
    "galaxies": (0, 0),
    "well_observed": (0, 0),
    "coverage": (0, 0.1),
    "linear": (0.1, 1.0),
    "gain": (0, 0.2),
    "": (0.02, 0),
}
# Columns of the default search that are shares between 0 and 1 and do not depend on the scale of the map.
SHARES = ("isolation", "stability", "survived", "beyond", "beyond_low", "beyond_high")
CHANCES = ("p_value", "false_discovery")


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The values that the present code computes, but for the default search."""
    return freeze.quick_values(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module")
def default_search(tmp_path_factory):
    """The values that the present code computes in the default search."""
    return freeze.default_search_values(tmp_path_factory.mktemp("golden_default"))


@pytest.fixture
def present(request):
    """The values that the present code computes; those of the default search only where a test is about it."""
    slow = request.node.get_closest_marker("slow") is not None
    return request.getfixturevalue("default_search" if slow else "quick")


@pytest.fixture(scope="module")
def frozen():
    """The values that were frozen."""
    return {part: freeze.read(part) for part in PARTS}


def differences(present, frozen, *, relative, absolute=0.0, path=""):
    """List the places at which two nested structures differ by more than a tolerance; texts must be equal."""
    if isinstance(frozen, dict) and isinstance(present, dict) and set(frozen) == set(present):
        pairs = [(present[key], frozen[key], f"{path}/{key}") for key in frozen]
    elif isinstance(frozen, list) and isinstance(present, list) and len(frozen) == len(present):
        pairs = [(*both, f"{path}[{row}]") for row, both in enumerate(zip(present, frozen, strict=True))]
    else:
        numbers = all(isinstance(value, (int, float)) for value in (present, frozen))
        close = numbers and math.isclose(present, frozen, rel_tol=relative, abs_tol=absolute)
        return [] if close or present == frozen else [f"{path}: {frozen} became {present}"]
    return [
        line for new, old, place in pairs
        for line in differences(new, old, relative=relative, absolute=absolute, path=place)
    ]  # fmt: skip


@pytest.mark.parametrize("part", ["training", "store", MULTISCALE, "pca"])
def test_every_digit_is_the_same_on_the_machine_that_froze_it(present, frozen, part):
    if freeze.machine() != freeze.read("machine"):
        pytest.skip("The golden values were frozen on another processor or with other versions of the libraries.")
    assert differences(present[part], frozen[part], relative=0) == []


def test_training_sees_the_same_galaxies_and_answers(present, frozen):
    for key in ("survey_sha256", "galaxies", "width", "weights", "answers"):
        assert present["training"][key] == frozen["training"][key]


def test_training_reaches_the_same_losses(present, frozen):
    assert differences(present["training"]["losses"], frozen["training"]["losses"], relative=0.02) == []


def test_the_card_states_the_same_quality(present, frozen):
    new, old = present["training"]["metrics"], frozen["training"]["metrics"]
    assert new.keys() == old.keys()
    changed = []
    for question, numbers in old.items():
        assert new[question].keys() == numbers.keys()
        for name, value in numbers.items():
            relative, absolute = next(tolerance for part, tolerance in TOLERANCES.items() if part in name)
            path = f"{question}/{name}"
            changed += differences(new[question][name], value, relative=relative, absolute=absolute, path=path)
    assert changed == []


def test_the_store_holds_the_same_embeddings(present, frozen):
    new, old = present["store"], frozen["store"]
    for key in ("survey_sha256", "shards", "ids", "shape"):
        assert new[key] == old[key]
    tolerances = {
        "mean": old["std"] / 500,
        "std": old["std"] / 500,
        "first_rows": old["std"] / 20,
        "mean_fractions": 0.005,
    }
    for key, tolerance in tolerances.items():
        assert differences(new[key], old[key], relative=0, absolute=tolerance, path=key) == []


@pytest.mark.parametrize("search", [MULTISCALE, "pca"])
def test_a_search_knows_the_same_galaxies(present, frozen, search):
    new, old = present[search], frozen[search]
    assert (new["galaxies"], new["first_ids"]) == (old["galaxies"], old["first_ids"])
    sizes = [len(members) for members in new["members"].values()]
    assert new["classes"]["size"] == sizes
    assert new["rows"]["classes"] == len(sizes)
    # How many nodes and classes there are is not the same on every machine.
    of_galaxies = set(old["rows"]) - {"tree", "classes"}
    assert {name: new["rows"][name] for name in of_galaxies} == {name: old["rows"][name] for name in of_galaxies}


def test_the_search_in_principal_components_gives_every_galaxy_the_same_class(present, frozen):
    new, old = present["pca"], frozen["pca"]
    # On another processor the last digits of the components differ, and so may a few galaxies at the edge of a class.
    present_labels, frozen_labels = labels_of(new), labels_of(old)
    in_a_class = (present_labels >= 0) | (frozen_labels >= 0)
    assert np.mean(present_labels[in_a_class] == frozen_labels[in_a_class]) >= 0.98
    assert new["rows"]["classes"] == old["rows"]["classes"]
    assert differences(new["mean_probability"], old["mean_probability"], relative=0.01) == []


def test_the_search_in_principal_components_measures_the_same(present, frozen):
    new, old = present["pca"]["classes"], frozen["pca"]["classes"]
    assert new.keys() == old.keys()
    for name, values in old.items():
        # The score of a class is a ratio of small numbers, which one galaxy more or less moves by a quarter.
        relative = 0.3 if name == "significance" else 0.2 if name in CHANCES else 0.02
        # The rank follows the score, so two classes of nearly the same score may change places.
        absolute = 1 if name == "rank" else 0.01
        assert differences(new[name], values, relative=relative, absolute=absolute, path=name) == []


@pytest.mark.slow
def test_the_default_search_finds_about_as_many_classes(present, frozen):
    new, old = present["multiscale"], frozen["multiscale"]
    assert new["classes"].keys() == old["classes"].keys()
    assert differences(new["rows"]["tree"], old["rows"]["tree"], relative=0.05) == []
    assert differences(new["rows"]["classes"], old["rows"]["classes"], relative=0.2) == []


@pytest.mark.slow
def test_the_default_search_keeps_most_galaxies_together_or_apart(present, frozen):
    new, old = (labels_of(values["multiscale"]) for values in (present, frozen))
    in_a_class = (new >= 0) | (old >= 0)
    assert adjusted_rand_score(old[in_a_class], new[in_a_class]) >= 0.4


@pytest.mark.slow
def test_the_default_search_finds_every_significant_class_again(present, frozen):
    new, old = present["multiscale"], frozen["multiscale"]
    found, known = significant(new), significant(old)
    assert len(known) >= 4
    assert len(found) == len(known)
    for class_id in known:
        same = max(found, key=lambda other: overlap(old, class_id, new, other))
        assert overlap(old, class_id, new, same) >= 0.8
        for name in SHARES:
            values = (search["classes"][name][number] for search, number in ((new, same), (old, class_id)))
            # A refit may find a small class whole or nearly so.
            tolerance = 0.2 if name == "stability" else 0.05
            assert differences(*values, relative=0, absolute=tolerance, path=f"{name} of class {class_id}") == []
        for name in CHANCES:
            before, now = old["classes"][name][class_id], new["classes"][name][same]
            assert abs(np.log10(now) - np.log10(before)) <= 3, (name, class_id, before, now)


def significant(search):
    """Return the classes of a search that are hardly noise."""
    return [row for row, chance in enumerate(search["classes"]["false_discovery"]) if chance <= 0.05]


def overlap(old, class_id, new, other):
    """Return the share of the galaxies of two classes that are in both of them."""
    before, now = (set(search["members"][str(number)]) for search, number in ((old, class_id), (new, other)))
    return len(before & now) / len(before | now)


def labels_of(search):
    """Return the class of every galaxy, -1 for none."""
    labels = np.full(search["galaxies"], -1)
    for label, rows in search["members"].items():
        labels[rows] = int(label)
    return labels
