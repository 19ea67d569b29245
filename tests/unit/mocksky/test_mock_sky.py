"""The mock sky's truth, light and votes."""

from dataclasses import replace

import numpy as np
import pytest

from mocksky import arms, artifacts, populations, profiles, votes
from mocksky.populations import (
    BLENDS,
    ELLIPTICAL,
    ORDINARY,
    PLANTED,
    SPIRAL,
    galaxy_at,
    ordinary_galaxy,
    planted_galaxy,
    stream,
)
from mocksky.rendering import cutout_of
from rarezoo.data.surveys.mock import Mock
from rarezoo.data.trees import named_tree

pytestmark = pytest.mark.unit

ARTIFACTS = ("satellite_trail", "saturation_spike", "missing_band", "bleed", "ghost")
RATES = dict.fromkeys(PLANTED, 0.016)
# Of the sky of seed 3 and of two galaxies of seed 1, before there were blends.
PLANTED_THEN = {
    0: "shredded", 2: "off_centre_ring", 3: "satellite_trail", 5: "missing_band", 19: "bleed", 26: "missing_band",
    28: "merging_pair",
}  # fmt: skip
RADII_THEN = [27.1341, 7.1248, 5.3183, 5.2819, 8.3776, 3.9373]
MERGING_THEN, TRAILED_THEN = [35.2635, 0.7848, 0.9263], [0.1137, 0.6583]


def galaxy_of_kind(kind, *, number=0, **changes):
    return replace(ordinary_galaxy(stream(5, number, "truth"), kind=kind), **changes)


def empty_scene(*, side=48, field=24.0, seeing=1.5):
    return profiles.Scene(side=side, field=field, seeing=seeing)


# --- truth


@pytest.mark.parametrize("index", [0, 7, 4321])
def test_a_galaxy_depends_on_seed_and_number_alone(index):
    once, again = (galaxy_at(index, seed=3, rates=RATES) for _ in range(2))
    assert once == again
    assert once.shown.radius != galaxy_at(index, seed=4, rates=RATES).shown.radius


def test_the_default_sky_has_enough_of_everything_planted():
    survey = Mock()
    kinds = [galaxy_at(row, seed=survey.seed, rates=survey.rates).shown.population for row in range(survey.n)]
    for population in PLANTED:
        # 96 expected, σ = 10.
        assert 60 <= kinds.count(population) <= 150, population


def test_a_rate_of_zero_plants_nothing():
    kinds = {galaxy_at(index, seed=0, rates={"shells": 1.0}).shown.population for index in range(20)}
    assert kinds == {"shells"}
    assert {galaxy_at(index, seed=0, rates={}).shown.population for index in range(50)} == {ORDINARY}


@pytest.mark.parametrize("population", [*PLANTED, *BLENDS])
def test_volunteers_vote_on_an_ordinary_host(population):
    for number in range(20):
        pair = planted_galaxy(stream(1, number, "truth"), population)
        assert pair.shown.population == population
        assert pair.host.population == ORDINARY
        host = pair.host
        planted_only = (host.clump_share, host.bulge_offset, host.lopsidedness, host.shells, host.companion)
        assert not any((*planted_only, host.fragment, host.severity)), "volunteers must not see what is planted"
        assert host.arms != 1


def test_blends_changed_no_sky_that_has_none():
    """The numbers were written down before blends were added."""
    shown = [galaxy_at(index, seed=3, rates=RATES).shown for index in range(40)]
    planted = {index: galaxy.population for index, galaxy in enumerate(shown) if galaxy.population != ORDINARY}
    assert planted == PLANTED_THEN
    assert [round(galaxy.radius, 4) for galaxy in shown[:6]] == RADII_THEN
    merging, trailed = (planted_galaxy(stream(1, 0, "truth"), name) for name in ("merging_pair", "satellite_trail"))
    assert [round(getattr(merging.shown, name), 4) for name in ("inclination", "companion", "severity")] == MERGING_THEN
    assert [round(getattr(trailed.shown, name), 4) for name in ("spoiled", "severity")] == TRAILED_THEN


def test_blends_are_planted_if_the_rates_name_them():
    rates = {"one_armed": 0.2, **dict.fromkeys(BLENDS, 0.1)}
    kinds = [galaxy_at(index, seed=0, rates=rates).shown.population for index in range(200)]
    assert {*kinds} == {ORDINARY, *rates}
    before = [galaxy_at(index, seed=0, rates={"one_armed": 0.2}).shown for index in range(200)]
    assert [kind == "one_armed" for kind in kinds] == [galaxy.population == "one_armed" for galaxy in before]


# What each blend is made of, and what takes one of both features away again.
PARTS = {
    "one_armed_merging": (
        ("arms", "lopsidedness", "companion", "severity"),
        {"companion": 0.0},
        {"arms": 2, "bulge_offset": 0.0, "lopsidedness": 0.0},
    ),
    "ring_with_shells": (
        ("ring", "bulge_offset", "shells", "severity"),
        {"shells": 0},
        {"arms": 2, "ring": 0.0, "bulge_offset": 0.0, "lopsidedness": 0.0},
    ),
    "clumpy_with_trail": (
        ("clump_share", "lopsidedness", "severity"),
        {"population": "low_mass_barred_clumpy"},
        {"clumps": 0, "clump_share": 0.0, "bulge_offset": 0.0, "lopsidedness": 0.0, "bar_strength": 0.0},
    ),
}


def test_this_file_describes_every_blend():
    assert PARTS.keys() == BLENDS.keys()


@pytest.mark.parametrize("blend", BLENDS)
def test_a_blend_has_both_features(blend):
    for number in range(10):
        pair = planted_galaxy(stream(1, number, "truth"), blend)
        assert all(getattr(pair.shown, name) > 0 for name in PARTS[blend][0])
        assert (pair.shown.arms == 1) == (blend == "one_armed_merging")


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("taken", [1, 2], ids=["without the second", "without the first"])
def test_both_features_of_a_blend_are_visible(blend, taken):
    changed = []
    for number in range(4):
        shown = planted_galaxy(stream(8, number, "truth"), blend).shown
        alone = replace(shown, **PARTS[blend][taken])
        both, single = (coarse_picture(galaxy, stream(8, number, "pixels")) for galaxy in (shown, alone))
        changed.append((np.abs(both - single).max(axis=2) > 12).mean())
    assert np.median(changed) > 0.06


def test_only_the_planted_one_armed_have_one_arm():
    assert all(ordinary_galaxy(stream(2, number, "truth")).arms != 1 for number in range(300))
    assert all(planted_galaxy(stream(2, number, "truth"), "one_armed").shown.arms == 1 for number in range(20))


def test_the_local_sample_is_believable():
    galaxies = [ordinary_galaxy(stream(0, number, "truth")) for number in range(1500)]
    magnitude, radius, seeing = (
        np.array([getattr(galaxy, name) for galaxy in galaxies]) for name in ("magnitude", "radius", "seeing")
    )
    assert magnitude.min() > 13.7
    assert magnitude.max() < 17.8
    assert 0.9 < np.median(seeing) < 1.5
    assert np.median(radius[magnitude < 16]) > 1.3 * np.median(radius[magnitude > 17])
    # Random orientations: cos i is uniform.
    tilt = np.cos(np.radians([galaxy.inclination for galaxy in galaxies]))
    assert np.allclose(np.quantile(tilt, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.05)


# --- light


def test_the_total_flux_is_kept():
    import galsim

    grey = np.ones(3, dtype=np.float32)
    for fill in ("map", "points", "profile"):
        scene = empty_scene()
        if fill == "map":
            scene.add_map(np.exp(-(scene.x**2 + scene.y**2) / 8), flux=12.0, colour=grey)
        elif fill == "points":
            scene.add_points(np.array([0.3, -2.0]), np.array([1.0, 0.2]), np.array([1.0, 3.0]), flux=12.0, colour=grey)
        else:
            scene.add_profile(galsim.Exponential(half_light_radius=1.5), x=0.4, y=-0.2, flux=12.0, colour=grey)
        total = scene.light().sum(axis=(1, 2)) * scene.scale**2
        assert np.allclose(total, 12.0, rtol=0.03), fill


@pytest.mark.parametrize("seeing", [1.2, 2.0])
def test_a_star_is_as_wide_as_the_seeing(seeing):
    scene = empty_scene(side=64, field=12.8, seeing=seeing)
    scene.add_points(np.zeros(1), np.zeros(1), np.ones(1), flux=100.0, colour=np.ones(3, dtype=np.float32))
    light = scene.light()[0]
    above_half = (light > light.max() / 2).sum() * scene.scale**2
    assert 2 * np.sqrt(above_half / np.pi) == pytest.approx(seeing, rel=0.12)


@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (3.1, -4.3), (-7.0, 2.0)])
def test_galsim_and_our_own_code_draw_at_the_same_place(x, y):
    import galsim

    places = []
    for fill in ("points", "profile"):
        scene = empty_scene(side=64, field=32.0)
        colour = np.ones(3, dtype=np.float32)
        if fill == "points":
            scene.add_points(np.array([x]), np.array([y]), np.ones(1), flux=1.0, colour=colour)
        else:
            scene.add_profile(galsim.Gaussian(half_light_radius=0.3), x=x, y=y, flux=1.0, colour=colour)
        light = scene.light()[0]
        rows, columns = np.mgrid[:64, :64]
        places.append([(rows * light).sum() / light.sum(), (columns * light).sum() / light.sum()])
    assert np.allclose(*places, atol=0.1)


def test_light_off_the_patch_is_left_out():
    import galsim

    scene = empty_scene()
    colour = np.ones(3, dtype=np.float32)
    scene.add_profile(galsim.Exponential(half_light_radius=0.5), x=500, y=0, flux=9.0, colour=colour, reach=5.0)
    scene.add_points(np.array([500.0]), np.array([0.0]), np.ones(1), flux=9.0, colour=colour)
    assert np.abs(scene.light()).max() < 1e-6


def test_the_sky_is_as_noisy_as_the_survey_is_deep():
    # At the camera's own scale noise is correlated a little: large areas keep the white noise's variance.
    scale = 0.262
    noise = profiles.with_noise(np.zeros((3, 192, 192), dtype=np.float32), stream(0, 0, "pixels"), scale=scale)
    blocks = noise.reshape(3, 16, 12, 16, 12).mean(axis=(2, 4))
    per_arcsec = blocks.std(axis=(1, 2)) * 12 * scale
    assert np.allclose(per_arcsec, profiles._SKY, rtol=0.15)


def test_nothing_observed_is_black():
    light = np.full((3, 32, 32), 5.0, dtype=np.float32)
    light[1] = np.nan
    picture = profiles.picture_of(profiles.with_noise(light, stream(0, 0, "pixels"), scale=0.3))
    assert picture[..., 1].max() == 0
    assert picture[..., 0].min() > 50


def test_old_galaxies_are_redder_than_spirals():
    def redness(kind):
        pictures = [
            cutout_of(galaxy_of_kind(kind, number=number, neighbours=0.0), stream(5, number, "pixels"), side=32)
            for number in range(12)
        ]
        middle = np.stack(pictures)[:, 12:20, 12:20].astype(float)
        return float((middle[..., 0] - middle[..., 2]).mean())

    assert redness(ELLIPTICAL) > redness(SPIRAL) + 15


@pytest.mark.parametrize("population", [ORDINARY, *PLANTED, *BLENDS])
def test_a_cutout_is_the_same_twice(population):
    shown = (
        galaxy_of_kind(SPIRAL) if population == ORDINARY else planted_galaxy(stream(6, 1, "truth"), population).shown
    )
    once, again = (cutout_of(shown, stream(6, 1, "pixels"), side=32) for _ in range(2))
    assert once.dtype == np.uint8
    assert once.shape == (32, 32, 3)
    assert np.array_equal(once, again)
    assert not np.array_equal(once, cutout_of(shown, stream(6, 2, "pixels"), side=32))


@pytest.mark.parametrize("population", [*PLANTED, *BLENDS])
def test_a_planted_feature_is_visible(population):
    """The picture differs from its host's in many places."""
    changed = []
    for number in range(4):
        pair = planted_galaxy(stream(8, number, "truth"), population)
        host, shown = (coarse_picture(galaxy, stream(8, number, "pixels")) for galaxy in (pair.host, pair.shown))
        changed.append((np.abs(shown - host).max(axis=2) > 12).mean())
    assert np.median(changed) > 0.06


def test_noise_alone_is_not_visible():
    galaxy = planted_galaxy(stream(8, 1, "truth"), "shells").host
    host, again = (coarse_picture(galaxy, stream(8, number, "pixels")) for number in (1, 2))
    assert (np.abs(again - host).max(axis=2) > 12).mean() < 0.02


def coarse_picture(galaxy, rng):
    """A cutout of the galaxy alone, averaged over 4 × 4 pixels so that noise counts for little."""
    cutout = cutout_of(replace(galaxy, neighbours=0.0), rng, side=48).astype(float)
    return cutout.reshape(12, 4, 12, 4, 3).mean(axis=(1, 3))


@pytest.mark.parametrize("population", ARTIFACTS)
def test_an_artifact_spoils_the_light(population):
    clean = np.full((3, 48, 48), 0.01, dtype=np.float32)
    galaxy = planted_galaxy(stream(3, 0, "truth"), population).shown
    bad = artifacts.spoiled(clean, galaxy, stream(3, 0, "pixels"), scale=0.3)
    assert bad.shape == clean.shape
    assert np.isnan(bad).any() == (population == "missing_band")
    assert not np.array_equal(bad, clean, equal_nan=True)


def test_other_populations_have_no_artifact():
    clean = np.ones((3, 16, 16), dtype=np.float32)
    galaxy = planted_galaxy(stream(3, 0, "truth"), "shells").shown
    assert artifacts.spoiled(clean, galaxy, stream(3, 0, "pixels"), scale=0.3) is clean


# --- arms, rings, bars, shells


@pytest.mark.parametrize("inclination", [0.0, 35.0, 70.0])
def test_projecting_a_disk_and_back_changes_nothing(inclination):
    x, y = np.array([1.0, -2.0, 0.5]), np.array([0.3, 4.0, -1.0])
    seen_x, seen_y = arms.on_sky(x, y, inclination=inclination, position_angle=33.0)
    plane = arms.plane_of(seen_x, seen_y, inclination=inclination, position_angle=33.0)
    assert np.allclose(plane.radius, np.hypot(x, y), atol=1e-5)
    assert np.allclose(plane.azimuth, np.arctan2(y, x), atol=1e-5)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_number_of_arms_is_the_one_that_was_set(count):
    scene = empty_scene(side=96, field=20.0)
    plane = arms.plane_of(scene.x, scene.y, inclination=0.0, position_angle=0.0)
    light = arms.spiral_arms(
        plane, stream(0, 0, "pixels"), arms=count, pitch=20.0, start=1.0, end=8.0, phase=0.4, warp=0 * scene.x
    )
    around = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    row, column = (np.rint(4.0 * f(around) / scene.scale + (scene.grid - 1) / 2).astype(int) for f in (np.sin, np.cos))
    waves = np.abs(np.fft.rfft(light[row, column]))
    assert waves[1:].argmax() + 1 == count


def test_one_arm_leaves_the_other_side_dark():
    scene = empty_scene(side=96, field=20.0)
    plane = arms.plane_of(scene.x, scene.y, inclination=0.0, position_angle=0.0)
    light = arms.single_arm(plane, pitch=18.0, start=2.0, turns=0.6, phase=0.0, warp=0 * scene.x)
    assert light[scene.y > 1].max() > 0.9
    # The arm has ended before it comes round to where it began.
    assert light[(scene.y < -1) & (scene.x > 1)].max() < 0.35


def test_a_ring_is_where_it_should_be():
    scene = empty_scene()
    plane = arms.plane_of(scene.x, scene.y, inclination=50.0, position_angle=20.0)
    light = arms.ring(plane, radius=5.0, width=0.4)
    assert np.average(plane.radius, weights=light) == pytest.approx(5.0, abs=0.1)


def test_a_bar_is_longer_than_broad_and_ends():
    scene = empty_scene()
    plane = arms.plane_of(scene.x, scene.y, inclination=0.0, position_angle=0.0)
    light = arms.bar(plane, length=4.0, breadth=1.2, angle=0.0)
    assert light[np.hypot(scene.x, scene.y) > 6].max() < 0.01
    spread = [np.sqrt(np.average(axis**2, weights=light)) for axis in (scene.x, scene.y)]
    assert spread[0] > 2 * spread[1]


def test_shells_end_sharply_and_fade_inwards():
    scene = empty_scene(side=192, field=24.0)
    light = arms.shell_arcs(
        scene.x, scene.y, stream(1, 0, "pixels"), shells=1, inner=6.0, outer=6.0, axis=0.0, flattening=1.0, blur=0.1
    )
    radius = np.hypot(scene.x, scene.y)
    edge = radius.flat[light.argmax()]
    assert light[radius > edge + 0.8].max() < 0.02 * light.max()
    assert light[np.abs(radius - edge + 0.8) < 0.1].max() > 0.2 * light.max()


# --- votes


@pytest.mark.parametrize("volunteers", [1, 5, 40])
def test_every_volunteer_who_reaches_a_question_answers_it(volunteers):
    tree = named_tree("desi")
    for number in range(40):
        galaxy = ordinary_galaxy(stream(4, number, "truth"))
        counts = votes.drawn_votes(galaxy, tree, stream(4, number, "votes"), volunteers=volunteers)
        assert counts.dtype == np.float32
        assert counts.min() >= 0
        assert np.array_equal(counts, np.round(counts))
        totals = tree.totals(counts[None])[0]
        assert totals[0] >= 1
        for question, total in zip(tree.questions, totals, strict=True):
            if question.asked_after:
                assert total == counts[tree.answers.index(question.asked_after)]


@pytest.mark.parametrize("number", range(5))
def test_expected_fractions_fit_the_tree(number):
    tree = named_tree("desi")
    expected = votes.expected_fractions(ordinary_galaxy(stream(9, number, "truth")))
    assert set(expected) == {question.name for question in tree.questions}
    for question in tree.questions:
        assert len(expected[question.name]) == len(question.answers)
        assert expected[question.name].sum() == pytest.approx(1)
        assert expected[question.name].min() > 0


FACE_ON = {
    "magnitude": 15.0, "radius": 4.5, "seeing": 1.1, "inclination": 15.0, "pitch": 24.0, "arms": 2,
    "arm_contrast": 0.9, "young_share": 0.4, "bulge_fraction": 0.1, "disturbance": 0.0, "spoiled": 0.01,
    "bar_strength": 0.0, "ring": 0.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("question", "answer", "changes"),
    [
        ("smooth-or-featured", 1, {}),
        ("disk-edge-on", 0, {"inclination": 88.0}),
        ("has-spiral-arms", 0, {}),
        ("has-spiral-arms", 1, {"arms": 0}),
        ("bar", 0, {"bar_strength": 1.0, "bar_length": 0.6}),
        ("bar", 2, {}),
        ("bulge-size", 4, {"bulge_fraction": 0.0}),
        ("bulge-size", 2, {"bulge_fraction": 0.26}),
        ("how-rounded", 2, {"inclination": 88.0}),
        ("spiral-winding", 0, {"pitch": 9.0}),
        ("spiral-winding", 2, {"pitch": 34.0}),
        ("spiral-arm-count", 1, {}),
        ("spiral-arm-count", 2, {"arms": 3}),
        ("merging", 0, {}),
        ("smooth-or-featured", 2, {"spoiled": 0.8}),
    ],
)
def test_a_clear_feature_gets_most_votes(question, answer, changes):
    galaxy = galaxy_of_kind(SPIRAL, **{**FACE_ON, **changes})
    assert int(np.argmax(votes.expected_fractions(galaxy)[question])) == answer


@pytest.mark.parametrize("worse", [{"radius": 2.0}, {"magnitude": 18.5}, {"seeing": 3.5}, {"pitch": 8.0}])
def test_small_faint_blurred_and_tight_spirals_are_missed(worse):
    clear, poor = (galaxy_of_kind(SPIRAL, **{**FACE_ON, **changes}) for changes in ({}, worse))
    seen, missed = (votes.expected_fractions(galaxy)["has-spiral-arms"][0] for galaxy in (clear, poor))
    assert missed < seen - 0.05


def test_ellipticals_are_smooth():
    galaxy = galaxy_of_kind(ELLIPTICAL, disturbance=0.0, spoiled=0.01, roundness=0.97)
    expected = votes.expected_fractions(galaxy)
    assert expected["smooth-or-featured"][0] > 0.85
    assert int(np.argmax(expected["how-rounded"])) == 0


def test_votes_do_not_separate_the_kinds_of_artifact():
    shares = {
        population: np.mean([
            planted_galaxy(stream(0, number, "truth"), population).host.spoiled for number in range(60)
        ])
        for population in ARTIFACTS
    }  # fmt: skip
    assert max(shares.values()) - min(shares.values()) < 1e-12
    assert 0.1 < shares["bleed"] < 0.3


def test_streams_of_one_galaxy_differ():
    draws = {stream(0, 1, name).integers(2**60) for name in populations._STREAMS}
    assert len(draws) == len(populations._STREAMS)
