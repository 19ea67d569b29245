"""What the server answers, and that a rating is on disk when it says so."""

import csv
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from rarezoo.embeddings.store import EmbeddingStore
from rarezoo.errors import OutputError
from rarezoo.explore.labels import Labels
from rarezoo.searches.decisions import Decision, Decisions

pytestmark = pytest.mark.unit

ODD = ["../g é<b>", "g#1?x=2&y", "g\"'%2e/.."]


def get(server, path, **parameters):
    answer = server.client.get(f"/api/{path}", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def post(server, path, body, *, expect=200):
    answer = server.client.post(f"/api/{path}", json=body)
    assert answer.status_code == expect, answer.text
    if expect != 200:
        assert set(answer.json()) == {"error", "fix"}
    return answer.json()


def test_about_says_what_is_served(served, grade):
    server = served()
    about = get(server, "about")
    assert (about["title"], about["galaxies"], about["classes"]) == ("made <b>up</b>", 60, 2)
    assert about["images"]
    assert not about["read_only"]
    post(server, "ratings", [grade("g0005"), grade("g0006", 1, label="ring", kind="tag")])
    about = get(server, "about")
    assert about["people"] == ["ann"]
    assert about["tags"] == {"ring": 1}
    assert {known["label"]: known["rated"] for known in about["labels"]} == {"interesting": 1, "ring": 1}


def test_the_next_galaxies_are_not_those_on_the_screen_and_not_those_of_others(served):
    server = served()
    first = [one["id_str"] for one in get(server, "next", by="ann", count=12)["galaxies"]]
    second = [one["id_str"] for one in get(server, "next", by="ann", count=12, skip=first)["galaxies"]]
    others = [one["id_str"] for one in get(server, "next", by="ben", count=12)["galaxies"]]
    assert len({*first, *second, *others}) == 36
    one = get(server, "next", by="ann", count=1)["galaxies"][0]
    assert set(one) == {"id_str", "why", "round", "score", "uncertainty", "nearest_rated"}


def test_what_is_rated_is_not_shown_again_and_the_model_learns(served, grade):
    server = served()
    shown = [one["id_str"] for one in get(server, "next", by="ann", count=10)["galaxies"]]
    sent = [grade(galaxy, 5 * (row % 2), at=f"2026-01-31T12:00:{row:02d}Z") for row, galaxy in enumerate(shown)]
    post(server, "ratings", {"ratings": sent})
    server.session.wait("interesting")
    later = get(server, "next", by="ann", count=48)["galaxies"]
    assert not {one["id_str"] for one in later} & set(shown)
    assert all(one["score"] is not None and one["nearest_rated"] in shown for one in later)
    ranking = get(server, "ranking", first=10)["galaxies"]
    assert [row["rank"] for row in ranking] == list(range(1, 11))
    progress = get(server, "progress")
    assert (progress["rated"], progress["interesting"], progress["galaxies"]) == (10, 5, 60)


@pytest.mark.parametrize("galaxy", [*ODD, "g0005"])
def test_a_galaxy_of_any_id_is_found_by_path_and_by_parameter(served, galaxy):
    server = served()
    about = get(server, "galaxy", id=galaxy)
    assert about["id_str"] == galaxy
    if galaxy == "g0005":
        assert get(server, f"galaxy/{galaxy}") == about
        assert (about["ra"], about["dec"], about["class_id"]) == (5.0, -8.75, 1)
        assert dict(about["catalogue"])["mass"] == 9.05
        assert about["answers"][0] == {"name": "disk-edge-on_yes", "fraction": 0.8}
        assert all("5.000000" in link["url"] and "-8.750000" in link["url"] for link in about["links"])
    assert Image.open(io.BytesIO(server.client.get("/api/image", params={"id": galaxy}).content)).size == (24, 24)


def test_the_links_are_those_of_the_atlas():
    from pathlib import Path

    from rarezoo.explore.app.galaxies import PAGES

    source = (Path(__file__).parents[4] / "web" / "src" / "galaxy.js").read_text(encoding="utf-8")
    for name, page in PAGES.items():
        assert f'["{name}", (ra, dec) => `{page.replace("{", "${")}`]' in source


def test_images_are_stretched_cut_and_kept_by_the_browser(served):
    server = served()
    plain = np.asarray(Image.open(io.BytesIO(server.client.get("/api/image/g0008?format=png").content)))
    bright = np.asarray(Image.open(io.BytesIO(server.client.get("/api/image/g0008?format=png&stretch=asinh").content)))
    expected = np.round(255 * np.arcsinh(10 * (plain / 255)) / np.arcsinh(10))
    assert np.abs(bright - expected).max() <= 1
    answer = server.client.get("/api/image/g0008?side=48")
    assert Image.open(io.BytesIO(answer.content)).size == (48, 48)
    assert answer.headers["content-type"] == "image/webp"
    assert answer.headers["cache-control"].startswith("private")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("galaxy/nobody", 404), ("galaxy?id=", 404), ("image/nobody", 404), ("similar?id=nobody", 404),
        ("similar", 400), ("words?q=", 400), ("find", 400),
        ("image/g0005?stretch=much", 400), ("image/g0005?format=exe", 400), ("image/g0005?side=1", 400),
        ("image/g0005?side=100000", 400), ("image/g0005?side=-1", 400), ("image/g0005?side=²", 400),
        ("next?by=ann&count=49", 400), ("next?by=ann&count=x", 400), ("next?by=ann&count=0", 400), ("next", 400),
        ("next?by=%00", 400), ("next?by=ann&label=", 400), ("ranking?first=1e9", 400),
        ("progress?label=" + "x" * 200, 400),
        ("classes/7", 404), ("classes/x", 404), ("nothing", 404), ("undo", 405),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_answered_says_why(served, path, status):
    answer = served().client.get(f"/api/{path}")
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "fix"}
    assert all(answer.json().values())


def test_ratings_are_on_disk_when_they_are_answered(served, grade):
    server = served()
    sent = [grade("g0005"), grade(ODD[0], None, kind="answer"), grade("g0007", 1, kind="artifact", label="artifact")]
    saved = post(server, "ratings", {"ratings": sent})["saved"]
    assert [row["entry"] for row in saved] == [1, 2, 3]
    with Labels.open(server.folder / "labels.sqlite", survey=server.labels.survey, read_only=True) as again:
        rows = again.log().to_pylist()
    assert [(row["id_str"], row["value"], row["kind"]) for row in rows] == [
        ("g0005", 4.0, "grade"), (ODD[0], None, "answer"), ("g0007", 1.0, "artifact"),
    ]  # fmt: skip
    assert (rows[0]["by"], rows[0]["why"], rows[0]["round"], rows[0]["seconds"]) == ("ann", "model", 1, 1.5)
    assert rows[0]["at"].isoformat() == "2026-01-31T12:00:00.123000+00:00"


def test_ratings_that_are_sent_again_are_kept_once(served, grade):
    server = served()
    sent = [grade("g0005"), grade("g0006", 2, at="2026-01-31T12:00:01.5+01:00"), grade("g0005")]
    first = post(server, "ratings", sent)["saved"]
    again = served()
    assert post(again, "ratings", sent)["saved"] == first == post(server, "ratings", sent)["saved"]
    assert again.labels.log().num_rows == 2
    assert post(server, "ratings", [grade("g0005", at="2026-01-31T12:00:00.124Z")])["saved"][0]["entry"] == 3


def test_a_name_is_known_again_however_its_letters_are_written(served, grade):
    server = served()
    sent = [grade("g0005", by="Jose\u0301 "), grade("g0005", by="Jos\u00e9")]
    assert [row["entry"] for row in post(server, "ratings", sent)["saved"]] == [1, 1]


def test_two_servers_on_one_database_lose_nothing(served, grade):
    servers = [served(), served()]

    def rate(number):
        sent = [grade(f"g{5 + number:04d}", number % 6, at=f"2026-01-31T12:00:{number:02d}Z", by=f"p{number % 2}")]
        return post(servers[number % 2], "ratings", sent)["saved"][0]["entry"]

    with ThreadPoolExecutor(4) as workers:
        entries = sorted(workers.map(rate, range(40)))
    assert entries == list(range(1, 41))
    assert {row["id_str"] for row in servers[0].labels.log().to_pylist()} == {f"g{row:04d}" for row in range(5, 45)}


@pytest.mark.parametrize(
    "changes",
    [
        {"id_str": "nobody"}, {"id_str": None}, {"id_str": ["g0005"]}, {"value": 6}, {"value": -1}, {"value": "4"},
        {"value": True}, {"value": None}, {"kind": "decision"}, {"kind": None}, {"label": ""}, {"label": "a\x00b"},
        {"label": "x" * 101}, {"by": ""}, {"by": "a\nb"}, {"by": 7}, {"at": "yesterday"}, {"at": 12},
        {"at": "9999-12-31T23:59:59Z"}, {"at": "0001-01-01T00:00:00+23:59"}, {"seconds": -1}, {"seconds": "long"},
        {"round": "one"}, {"round": -1},
        {"kind": "artifact"}, {"why": "\x1b[2J"}, {"by": "\ud800"}, {"value": 10**400}, {"round": 10**400},
        {"value": float("nan")}, {"seconds": float("inf")},
    ],
)  # fmt: skip
def test_what_is_no_rating_is_refused_with_all_that_came_with_it(served, grade, changes):
    server = served()
    import json

    body = json.dumps([grade("g0006"), grade("g0005", **changes)])
    answer = server.client.post("/api/ratings", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error", "fix"}
    assert server.labels.log().num_rows == 0


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[" * 100_000, b"null", b"7", b'"x"', b'{"ratings": 3}', b"[1]", b"\xff", b"NaN", b'[{"a": NaN}]'],
)  # fmt: skip
def test_what_is_no_json_of_ratings_is_refused(served, body):
    server = served()
    for path in ("ratings", "undo", "decisions"):
        answer = server.client.post(f"/api/{path}", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, (path, answer.text)
        assert set(answer.json()) == {"error", "fix"}


def test_more_ratings_than_are_taken_at_once_are_refused(served, grade):
    post(served(), "ratings", [grade("g0005", at=None)] * 1001, expect=400)


def test_a_database_that_cannot_be_written_now_is_no_mistake_of_the_page(served, grade, monkeypatch):
    server = served()

    def full(ratings, *, once):
        raise OutputError("the disk is full", value="labels.sqlite", fix="Free some space.")

    monkeypatch.setattr(server.session, "rate", full)
    answer = post(server, "ratings", [grade("g0005")], expect=503)
    assert answer == {"error": "the disk is full: labels.sqlite", "fix": "Free some space."}
    monkeypatch.undo()
    assert post(server, "ratings", [grade("g0005")])["saved"]


def test_a_bug_is_answered_too(served, monkeypatch):
    server = served()
    monkeypatch.setattr(server.session, "progress", lambda label: 1 / 0)
    answer = server.client.get("/api/progress")
    assert answer.status_code == 500
    assert "ZeroDivisionError" in answer.json()["error"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_undo_takes_back_the_last_or_a_certain_entry_once(served, grade):
    server = served()
    entries = [row["entry"] for row in post(server, "ratings", [grade("g0005"), grade("g0006")])["saved"]]
    for body in ({"by": "ben", "entry": entries[0]}, {"by": "ann", "entry": 99}, {"by": "ann", "entry": "1"}, {}):
        post(server, "undo", body, expect=400)
    assert post(server, "undo", {"by": "ann", "entry": entries[0]})["undone"]["id_str"] == "g0005"
    assert post(server, "undo", {"by": "ann", "entry": entries[0]})["undone"] is None
    assert [row["id_str"] for row in get(server, "ratings", by="ann")["ratings"]] == ["g0006"]
    assert post(server, "undo", {"by": "ann"})["undone"]["id_str"] == "g0006"
    assert post(server, "undo", {"by": "ann"})["undone"] is None
    assert server.labels.log().num_rows == 4


def test_the_ratings_of_a_person_are_listed_the_last_first(served, grade):
    server = served()
    post(server, "ratings", [grade("g0005"), grade("g0006", by="ben"), grade("g0007", 1, label="ring", kind="tag")])
    assert [row["id_str"] for row in get(server, "ratings")["ratings"]] == ["g0007", "g0006", "g0005"]
    assert [row["id_str"] for row in get(server, "ratings", by="ann", label="interesting")["ratings"]] == ["g0005"]
    assert [row["id_str"] for row in get(server, "ratings", id=["g0006", "g0007"], first=1)["ratings"]] == ["g0007"]
    assert get(server, "galaxy", id="g0006")["ratings"][0]["by"] == "ben"


def test_the_export_has_every_entry_and_can_be_read_back(served, grade, tmp_path):
    server = served()
    post(server, "ratings", [grade(ODD[0]), grade("g0006", 1, label="ring", kind="tag")])
    post(server, "undo", {"by": "ann"})
    answer = server.client.get("/api/export")
    assert answer.headers["content-disposition"] == 'attachment; filename="labels.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["id_str"], row["label"], row["undoes"]) for row in rows] == [
        (ODD[0], "interesting", ""), ("g0006", "ring", ""), ("g0006", "ring", "2"),
    ]  # fmt: skip
    (tmp_path / "labels.csv").write_bytes(answer.content)
    other = served(database="other.sqlite")
    other.labels.read_table(tmp_path / "labels.csv")
    assert other.labels.interest("interesting") == {ODD[0]: 0.8}
    only = server.client.get("/api/export?label=ring").text
    assert ODD[0] not in only


# --- classes


def test_the_classes_are_listed_by_rank_and_shown_as_in_the_atlas(served):
    server = served()
    listed = get(server, "classes")["classes"]
    assert [(row["class_id"], row["size"], row["grade"]) for row in listed] == [
        (0, 15, "significant"), (1, 15, "candidate"),
    ]  # fmt: skip
    card = get(server, "classes/1")
    assert [gallery["name"] for gallery in card["galleries"]] == ["exemplars", "random", "outskirts", "outside"]
    assert all(galaxy["id"] for gallery in card["galleries"] for galaxy in gallery["galaxies"])
    assert card["size"] == 15
    assert len(card["sky"]["ra"]) == 15
    assert sum(card["cells"]["counts"]) == 60
    assert {answer["name"] for answer in card["answers"]} == {"smooth-or-featured_smooth", "disk-edge-on_yes"}


def test_decisions_are_kept_in_a_file_that_classes_apply_reads(served):
    server = served()
    post(server, "decisions", {"class_id": 0, "decision": "keep", "name": "round <b>"})
    post(server, "decisions", {"class_id": 1, "decision": "merge", "merge_into": 0})
    decisions = Decisions.read(server.folder / "decisions.json")
    assert decisions.items == (Decision(0, "keep", "round <b>"), Decision(1, "merge", merge_into=0))
    assert get(server, "decisions")["classes"][1]["merge_into"] == 0
    assert get(server, "classes")["classes"][0]["decision"]["name"] == "round <b>"
    assert get(server, "classes/1")["decision"]["decision"] == "merge"
    (server.folder / "saved.json").write_bytes(server.client.get("/api/decisions").content)
    assert Decisions.read(server.folder / "saved.json") == decisions
    post(server, "decisions", {"class_id": 1})
    assert [item.class_id for item in Decisions.read(server.folder / "decisions.json").items] == [0]


def test_half_a_character_is_refused_before_anything_is_kept(served):
    server = served()
    content = b'{"class_id": 0, "decision": "keep", "name": "\\ud800"}'
    answer = server.client.post("/api/decisions", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert not (server.folder / "decisions.json").exists()
    assert server.client.get("/api/classes").status_code == 200


@pytest.mark.parametrize(
    "body",
    [{}, {"class_id": 7, "decision": "keep"}, {"class_id": "x"}, {"class_id": 0, "decision": "eat"},
     {"class_id": 0, "decision": "merge"}, {"class_id": 0, "decision": "merge", "merge_into": 0},
     {"class_id": 0, "decision": "merge", "merge_into": 1}, {"class_id": 0, "name": "x" * 61}, {"class_id": True}],
)  # fmt: skip
def test_what_is_no_decision_is_refused_and_the_others_stay(served, body):
    server = served()
    post(server, "decisions", {"class_id": 1, "decision": "merge", "merge_into": 0})
    post(server, "decisions", body, expect=400)
    assert Decisions.read(server.folder / "decisions.json").items == (Decision(1, "merge", merge_into=0),)


def test_a_file_of_decisions_about_another_search_is_left_as_it_is(served):
    server = served()
    text = '{"rarezoo": "decisions", "schema": 1, "search": "another", "classes": []}'
    (server.folder / "decisions.json").write_text(text)
    answer = post(server, "decisions", {"class_id": 0, "decision": "keep"}, expect=400)
    assert "another search" in answer["error"]
    assert (server.folder / "decisions.json").read_text() == text


# --- a store, and a survey that is not there


def test_a_store_without_survey_and_classes_is_served_too(served, tmp_path):
    vectors = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    store = EmbeddingStore.from_array([f"s{row}" for row in range(30)], vectors, out=tmp_path / "store", name="made_up")
    server = served(source=store)
    about = get(server, "about")
    assert (about["images"], about["classes"], about["galaxies"]) == (False, None, 30)
    assert get(server, "classes") == {"classes": []}
    assert server.client.get("/api/classes/0").status_code == 404
    assert server.client.get("/api/decisions").status_code == 404
    assert server.client.get("/api/image/s3").status_code == 404
    assert get(server, "galaxy/s3")["catalogue"] == []
    assert len(get(server, "next", by="ann", count=5)["galaxies"]) == 5


def test_without_images_there_is_no_catalogue_but_all_else(served):
    server = served(images=False)
    assert not get(server, "about")["images"]
    assert get(server, "galaxy/g0005")["catalogue"] == []
    assert get(server, "galaxy/g0005")["answers"]
    assert server.client.get("/api/image/g0005").status_code == 404
    assert get(server, "classes/1")["size"] == 15


def test_one_galaxy_can_be_rated(served, tmp_path, grade):
    store = EmbeddingStore.from_array(["alone"], np.ones((1, 4), np.float32), out=tmp_path / "one", name="made_up")
    server = served(source=store)
    assert [one["id_str"] for one in get(server, "next", by="ann", count=12)["galaxies"]] == ["alone"]
    post(server, "ratings", [grade("alone")])
    server.session.wait("interesting")
    assert get(server, "next", by="ann", count=12)["galaxies"] == []
    assert get(server, "progress")["rated"] == 1


# --- search


def test_more_like_this_names_the_nearest_and_says_what_is_left_out(served):
    server = served()
    # Of the made-up galaxies, those whose row is a multiple of four are of class 0; 48 and 52 share a picture.
    found = get(server, "similar", id="g0048", k=5)
    names = [one["id_str"] for one in found["galaxies"]]
    assert sum(int(name[1:]) % 4 == 0 for name in names if name not in ODD) >= 3
    assert "g0048" not in names
    scores = [one["score"] for one in found["galaxies"]]
    assert scores == sorted(scores, reverse=True)
    found = get(server, "similar", id="g0048", k=58)
    assert "g0052" not in [one["id_str"] for one in found["galaxies"]]
    assert found["message"] == "Left out: 1 with the same picture."
    many = get(server, "similar", id=["g0008", "g0012"], against=["g0005"], k=500)
    assert many["about"]["against"] == ["g0005"]
    both = server.client.get("/api/similar", params={"id": "g0008", "against": "g0008"})
    assert both.status_code == 400


@pytest.mark.parametrize(
    ("text", "galaxy"),
    [
        ("g0005", "g0005"), (" g0005 ", "g0005"), (ODD[0], ODD[0]), ("5 -8.75", "g0005"), ("5.001, -8.751", "g0005"),
        ("00:20:00 -08:45:00", "g0005"), ("https://www.legacysurvey.org/viewer?ra=5&dec=-8.75", "g0005"),
        ("g004", "g0040"), ("round and smoth", None),
    ],
)  # fmt: skip
def test_the_search_box_takes_ids_positions_links_and_words(served, text, galaxy):
    found = get(served(), "find", q=text, k=5)
    assert found["title"]
    if galaxy is not None:
        assert found["galaxies"][0]["id_str"] == galaxy
    else:
        assert found["why"] == "words"
        assert "smooth" in found["message"]
        rows = [int(one["id_str"][1:]) for one in found["galaxies"] if one["id_str"] not in ODD]
        assert len(rows) >= 4
        assert all(row % 4 == 0 for row in rows)


def test_a_tag_is_a_set_of_examples(served, grade):
    server = served()
    tag = {"label": "beads", "kind": "tag", "value": 1}
    post(server, "ratings", [grade("g0008", **tag), grade("g0012", **tag), grade("g0005", **{**tag, "value": 0})])
    found = get(server, "find", q="beads", k=4)
    assert [one["id_str"] for one in found["galaxies"][:2]] == ["g0008", "g0012"]
    assert "g0005" not in [one["id_str"] for one in found["galaxies"]]


@pytest.mark.parametrize(
    "text",
    ["", "  ", "xyzzy", "400 95", "200 80", "https://example.org/", "/etc/passwd", "../g.png", "x" * 5000, "\x00"],
)
def test_what_the_search_box_does_not_understand_is_answered_with_what_it_would(served, text):
    answer = served().client.get("/api/find", params={"q": text})
    assert answer.status_code == 400, answer.text
    assert answer.json()["fix"]


def test_the_search_box_reads_no_file_of_the_server(served, tmp_path):
    Image.new("RGB", (24, 24)).save(tmp_path / "galaxy.png")
    answer = served().client.get("/api/find", params={"q": str(tmp_path / "galaxy.png")})
    assert answer.status_code == 400


def test_a_galaxy_that_was_skipped_at_embedding_is_named_as_such(served, tmp_path, grade):
    from made_up import survey_on_disk

    from rarezoo.embeddings.store import EmbeddingStore

    whole = EmbeddingStore.open(survey_on_disk(tmp_path / "made", galaxies=12).parent / "store")
    store = EmbeddingStore.from_array(
        whole.ids[:-1], whole.embeddings()[:-1], out=tmp_path / "store", name="made_up", survey=whole.survey()
    )
    server = served(source=store)
    answer = server.client.get(f"/api/galaxy/{whole.ids[-1]}")
    assert answer.status_code == 404
    assert "image" in answer.json()["error"]
    post(server, "ratings", [grade(str(whole.ids[-1]))], expect=400)


def test_an_id_that_is_nearly_one_is_answered_with_that_one(served):
    answer = served().client.get("/api/galaxy/g00005")
    assert answer.status_code == 404
    assert "g0005" in answer.json()["fix"]
