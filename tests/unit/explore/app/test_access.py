"""The server answers nobody without the token, no page of another site, and no file but its own."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

from rarezoo.errors import ConfigError
from rarezoo.explore.server import listening

pytestmark = pytest.mark.unit

TOKEN = "a-token-that-nobody-guesses"
OURS = "http://127.0.0.1:8765"
READS = [
    "about", "next?by=ann", "galaxy/g0005", "image/g0005", "ranking", "progress", "similar?id=g0005", "words?q=smooth",
    "find?q=g0005", "tags", "classes", "classes/0", "decisions", "ratings", "export",
]  # fmt: skip
CHANGES = ["ratings", "undo", "decisions"]


@pytest.fixture
def stranger(served):
    """A client without a token."""
    return served(headers={}).client


@pytest.mark.parametrize("path", [*READS, "", "nothing", "../api/about", "%2e%2e/about"])
def test_without_the_token_nothing_is_read(stranger, path):
    answer = stranger.get(f"/api/{path}")
    assert answer.status_code == 401
    assert set(answer.json()) == {"error", "fix"}


@pytest.mark.parametrize("path", CHANGES)
def test_without_the_token_nothing_is_changed(stranger, path):
    assert stranger.post(f"/api/{path}", json={}).status_code == 401


@pytest.mark.parametrize("path", READS)
def test_a_wrong_token_is_refused(stranger, path):
    for wrong in (TOKEN[:-1], TOKEN + "x", "é", ""):
        separator = "&" if "?" in path else "?"
        assert stranger.get(f"/api/{path}{separator}token={wrong}").status_code == 403
        header = {"authorization": b"Bearer " + wrong.encode()}
        assert stranger.get(f"/api/{path}", headers=header).status_code in (401, 403)


def test_the_token_is_taken_from_link_header_and_cookie(stranger):
    assert stranger.get(f"/api/about?token={TOKEN}").status_code == 200
    assert stranger.get("/api/about", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert stranger.get("/api/about").status_code == 401
    page = stranger.get(f"/?token={TOKEN}")
    cookie = page.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert stranger.get("/api/about").status_code == 200
    assert TOKEN not in page.text


def test_the_page_without_its_link_says_where_the_link_is(stranger):
    answer = stranger.get("/")
    assert answer.status_code == 401
    assert "rarezoo serve" in answer.text
    assert answer.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    "host", ["example.org", "example.org:8765", "127.0.0.1.example.org", "10.0.0.7", "", "[::1", "a b"]
)
def test_another_host_is_refused(served, host):
    """A page of another site may give our address to a name of its own."""
    assert served().client.get("/api/about", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost:8765", "127.0.0.1:9000", "[::1]:8765", "LOCALHOST"])
def test_loopback_names_are_answered_at_any_port_so_that_a_tunnel_works(served, host):
    assert served().client.get("/api/about", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://example.org"}, {"origin": "http://127.0.0.1:3000"}, {"origin": "null"}, {"origin": "://"},
        {"origin": "http://["},
        {"cookie": f"rarezoo={TOKEN}", "authorization": ""},
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", CHANGES)
def test_another_origin_changes_nothing(served, grade, headers, path):
    server = served(headers={})
    headers = {"authorization": f"Bearer {TOKEN}", **headers}
    headers = {name: value for name, value in headers.items() if value}
    body = {"ratings": [grade("g0005")], "by": "ann", "class_id": 0, "decision": "drop"}
    assert server.client.post(f"/api/{path}", json=body, headers=headers).status_code == 403
    assert server.labels.log().num_rows == 0


def test_the_own_page_changes_things_with_its_cookie(served, grade):
    server = served(headers={"cookie": f"rarezoo={TOKEN}"})
    sent = {"ratings": [grade("g0005")]}
    assert server.client.post("/api/ratings", json=sent, headers={"origin": OURS}).status_code == 200
    assert server.labels.log().num_rows == 1


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_sites_and_other_ports_read_nothing_with_the_cookie(served, site):
    server = served(headers={"cookie": f"rarezoo={TOKEN}"})
    assert server.client.get("/api/image/g0005", headers={"sec-fetch-site": site}).status_code == 403
    assert server.client.get("/api/image/g0005", headers={"sec-fetch-site": "same-origin"}).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_form_of_another_page_is_no_change(served, kind):
    """Browsers send forms to any site without asking; JSON they do not."""
    server = served()
    assert server.client.post("/api/ratings", content=b"{}", headers={"content-type": kind}).status_code == 415


def test_too_large_a_content_is_refused_also_if_it_does_not_say_its_size(served):
    server, kind = served(), {"content-type": "application/json"}
    assert server.client.post("/api/ratings", content=b" " * (1 << 20) + b"{}", headers=kind).status_code == 413
    pieces = (b" " * 65536 for _ in range(20))
    answer = server.client.post("/api/ratings", content=pieces, headers=kind)
    assert answer.status_code == 413
    assert set(answer.json()) == {"error", "fix"}


@pytest.mark.parametrize(
    "path",
    ["/assets/../server.py", "/assets/%2e%2e%2fserver.py", "/assets/..%5cserver.py", "/assets//etc/passwd",
     "/assets/rate.js/../../server.py", "/assets/rate.js%00.css", "/assets/", "/../../etc/passwd", "//etc/passwd",
     "/assets/licences.txt"],
)  # fmt: skip
def test_no_other_file_is_read(served, path):
    """The path is sent as it is: a client that tidies it up would hide the question."""
    app, sent = served().app, []

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message)

    from urllib.parse import unquote

    import anyio

    scope = {
        "type": "http", "method": "GET", "path": unquote(path), "raw_path": path.encode(), "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"authorization", f"Bearer {TOKEN}".encode())], "scheme": "http",
    }  # fmt: skip
    # The tests in a browser may have left an event loop in this thread.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(anyio.run, app, scope, receive, send).result()
    assert sent[0]["status"] == 404
    assert b"import" not in sent[1]["body"]


@pytest.mark.parametrize("path", ["/", "/api/about", "/api/nothing", "/assets/rate.js", "/api/image/g0005"])
def test_every_answer_has_the_headers_that_protect_the_page(served, path):
    headers = served().client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"


def test_the_page_holds_no_script_and_no_style_of_its_own(served):
    text = served().client.get("/").text
    assert "<style" not in text
    assert " style=" not in text
    assert "onclick" not in text
    assert text.count("<script") == text.count('<script src="/assets/') == 1
    assert "made &lt;b&gt;up&lt;/b&gt;" in text


@pytest.mark.parametrize("path", CHANGES)
def test_a_read_only_server_refuses_every_change(served, grade, path):
    first = served()
    first.client.post("/api/ratings", json=[grade("g0005")])
    server = served(read_only=True)
    body = {"ratings": [grade("g0006")], "by": "ann", "class_id": 0, "decision": "drop"}
    answer = server.client.post(f"/api/{path}", json=body)
    assert answer.status_code == 403
    assert "read-only" in answer.json()["error"]
    assert not (server.folder / "decisions.json").exists()
    assert first.labels.log().num_rows == 1
    assert server.client.get("/api/about").json()["read_only"]
    assert len(server.client.get("/api/next?count=5").json()["galaxies"]) == 5


def test_two_tokens_do_not_open_each_others_server(served):
    one = served(headers={}).client
    assert isinstance(one, TestClient)
    assert one.get("/api/about", headers={"cookie": "rarezoo-9000=" + TOKEN}).status_code == 401


@pytest.mark.parametrize("host", ["a" * 70, ".."])
def test_a_host_that_is_no_name_is_one_message(host):
    with pytest.raises(ConfigError, match="no such address: host="), listening(host, 0):
        pass
