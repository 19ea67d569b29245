"""How alike two embeddings are, of which it is known."""

import numpy as np
import pytest

from rarezoo.embeddings.likeness import likeness, linear_cka
from rarezoo.errors import StoreError

pytestmark = pytest.mark.unit


def blob(n, d, seed):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def test_a_turned_and_stretched_embedding_is_the_same():
    first = blob(400, 6, 0)
    turn = np.linalg.qr(blob(6, 6, 1))[0]
    found = likeness(first, 3 * first @ turn + 5, ks=(5, 20), asked=0)
    assert (found.galaxies, found.asked) == (400, 400)
    assert found.cka == pytest.approx(1)
    assert [one.share for one in found.overlaps] == pytest.approx([1, 1], abs=0.005)


def test_unrelated_embeddings_share_what_chance_gives():
    found = likeness(blob(1500, 6, 0), blob(1500, 9, 1), ks=(10, 100, 5000), asked=500)
    assert [one.k for one in found.overlaps] == [10, 100]
    assert found.asked == 500
    for one in found.overlaps:
        assert one.chance == one.k / 1499
        # Shared neighbours are some 500 × 10 × 10 / 1499 ≈ 33 or more: within five standard deviations.
        assert abs(one.share - one.chance) < 5 * np.sqrt(one.chance / (500 * one.k))
    assert found.cka < 0.05


def test_neighbours_are_those_that_all_pairs_give_and_never_the_galaxy_itself():
    first, second = blob(60, 3, 0), blob(60, 3, 1)
    first[1] = first[0]
    near = []
    for one in (first, second):
        units = one - one.mean(axis=0)
        units /= np.linalg.norm(units, axis=1, keepdims=True)
        alike = units @ units.T
        np.fill_diagonal(alike, -np.inf)
        near.append(np.argsort(-alike, axis=1)[:, :7])
    shares = [len(set(a) & set(b)) / 7 for a, b in zip(*near, strict=True)]
    found = likeness(first, second, ks=(7,), asked=0)
    assert found.overlaps[0].share == pytest.approx(np.mean(shares))


def test_cka_is_that_of_its_definition_whatever_the_blocks(monkeypatch):
    first, second = blob(300, 4, 0), blob(300, 7, 1)
    second[:, :2] = first[:, :2]
    x, y = (one - one.mean(axis=0) for one in (first.astype(float), second.astype(float)))
    kernels = [one @ one.T for one in (x, y)]
    expected = np.sum(kernels[0] * kernels[1]) / (np.linalg.norm(kernels[0]) * np.linalg.norm(kernels[1]))
    monkeypatch.setattr("rarezoo.embeddings.likeness._BLOCK", 77)
    assert linear_cka(first, second) == pytest.approx(expected)
    assert linear_cka(first.astype(np.float16), second) == pytest.approx(expected, rel=1e-3)
    assert np.isnan(linear_cka(np.ones((5, 2)), first[:5]))


def test_two_galaxies_are_too_few():
    with pytest.raises(StoreError, match="too few galaxies in common: 2"):
        likeness(blob(2, 3, 0), blob(2, 3, 1))
