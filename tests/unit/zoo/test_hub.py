"""Checkpoints through a hub and back: the real client against a small server that speaks the hub's protocol."""

import base64
import hashlib
import json
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

from rarezoo import cli as apps
from rarezoo.data.trees import Question, QuestionTree
from rarezoo.errors import CheckpointError, OutputError
from rarezoo.zoo.checkpoint import Checkpoint
from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
from rarezoo.zoo.hub import pull, push, with_front_matter
from rarezoo.zoo.network import build_network

pytestmark = pytest.mark.unit
TREE = QuestionTree("small", (Question("shape", ("shape_smooth", "shape_disk")),))
TOKEN = "hf_keeper"
REPOSITORY = "volunteer/net.v1"


class Hub(ThreadingHTTPServer):
    """Repositories in memory: path → content of the newest commit, whose name is 40 digits."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.repositories, self.private, self.large, self.asked = {}, set(), {}, []
        self.withheld = ""

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, repository):
        files = self.repositories[repository]
        return hashlib.sha1(b"".join(name.encode() + files[name] for name in sorted(files))).hexdigest()


class Answer(BaseHTTPRequestHandler):
    """The part of the hub's protocol that its client uses to make, fill, list and read a repository of models."""

    protocol_version = "HTTP/1.1"
    ROUTES = (
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("POST", r"/api/models/(.+)/preupload/main", "preupload"),
        ("POST", r"/(.+)\.git/info/lfs/objects/batch", "batch"),
        ("PUT", r"/storage/(\w+)", "store"),
        ("POST", r"/api/models/(.+)/commit/main", "commit"),
        ("GET", r"/api/models/(.+)/tree/(\w+)", "tree"),
        ("GET", r"/api/models/([^/]+/[^/]+)(?:/revision/(\w+))?", "info"),
        ("GET", r"/([^/]+/[^/]+)/resolve/(\w+)/(.+)", "resolve"),
        ("HEAD", r"/([^/]+/[^/]+)/resolve/(\w+)/(.+)", "resolve"),
    )

    def answer(self):
        path = self.path.split("?")[0]
        self.server.asked.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))) if self.command in ("POST", "PUT") else b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self.chunk, b""))
        for method, pattern, name in self.ROUTES:
            match = re.fullmatch(pattern, path)
            if method == self.command and match:
                return getattr(self, name)(body, *match.groups())
        return self.say({"error": "no such page"}, status=404)

    do_GET = do_POST = do_PUT = do_HEAD = answer

    def chunk(self):
        content = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return content

    def log_message(self, *_):
        pass

    def say(self, content, *, status=200, **headers):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(data), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def known(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def refused(self, repository):
        """As the hub does it: who is unknown is told 401 whether or not the repository exists."""
        there = repository in self.server.repositories
        if there and (self.known() or repository not in self.server.private):
            return False
        self.say({"error": "not for you"}, status=404 if self.known() else 401, X_Error_Code="RepoNotFound")
        return True

    def create(self, body):
        if not self.known():
            return self.say({"error": "who are you"}, status=401)
        asked = json.loads(body)
        repository = f"{asked['organization']}/{asked['name']}"
        address = {"url": f"{self.server.endpoint}/{repository}"}
        if repository in self.server.repositories:
            return self.say({"error": "You already created this model repo", **address}, status=409)
        self.server.repositories[repository] = {}
        if asked.get("private") or asked.get("visibility") == "private":
            self.server.private.add(repository)
        return self.say(address)

    def validate(self, body):
        assert json.loads(body)["content"].startswith("---\n")
        self.say({"warnings": [], "errors": []})

    def preupload(self, body, repository):
        if not self.known():
            self.say({"error": "who are you"}, status=401)
        elif not self.refused(repository):
            files = [
                {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
                for file in json.loads(body)["files"]
                for mode in ("lfs" if file["path"].endswith(".safetensors") else "regular",)
            ]
            self.say({"files": files})

    def batch(self, body, repository):
        objects = [
            {**item, "actions": {"upload": {"href": f"{self.server.endpoint}/storage/{item['oid']}"}}}
            for item in json.loads(body)["objects"]
        ]
        self.say({"transfer": "basic", "objects": objects})

    def store(self, body, oid):
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.large[oid] = body
        self.say(b"")

    def commit(self, body, repository):
        files = self.server.repositories[repository]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
        commit = self.server.commit(repository)
        self.say({"commitUrl": f"{self.server.endpoint}/{repository}/commit/{commit}", "commitOid": commit})

    def info(self, _, repository, revision=None):
        if self.refused(repository):
            return None
        commit = self.server.commit(repository)
        if revision not in (None, "main", commit):
            return self.say({"error": "no such revision"}, status=404, X_Error_Code="RevisionNotFound")
        return self.say({"id": repository, "sha": commit, "siblings": []})

    def tree(self, _, repository, revision):
        files = self.server.repositories[repository]
        self.say([{"type": "file", "path": name, "size": len(files[name]), "oid": name} for name in files])

    def resolve(self, _, repository, revision, name):
        if name == self.server.withheld:
            return self.say({"error": "not now"}, status=403)
        content = self.server.repositories[repository][name]
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        return self.say(content, ETag=tag, X_Repo_Commit=revision)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub to itself, and a client that may go online, to it alone."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    address = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    settings = {"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True, "HUGGINGFACE_CO_URL_TEMPLATE": address}
    settings["ENDPOINT"] = server.endpoint
    for name, value in settings.items():
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_HUB_CACHE", "HF_TOKEN_PATH"):
        monkeypatch.setattr(constants, name, str(tmp_path / name))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    huggingface_hub.utils.disable_progress_bars()
    yield server
    huggingface_hub.utils.enable_progress_bars()
    server.shutdown()
    server.server_close()


def saved(folder, *, seed=0):
    torch.manual_seed(seed)
    encoder = EfficientNetB0(input_size=32, bottleneck="8")
    network = build_network(encoder, TREE).eval()
    return Checkpoint.save(folder, network=network, encoder=encoder, tree=TREE, card={}, dtype="float16").folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = saved(tmp_path_factory.mktemp("zoo") / "net.v1")
    (folder / "settings.json").write_text('{"folder": "/home/somebody"}')
    return Checkpoint.open(folder)


@pytest.fixture
def pushed(hub, checkpoint):
    push(checkpoint, repository=REPOSITORY)
    return hub


def test_what_is_pushed_can_be_pulled_and_opens(pushed, checkpoint, tmp_path):
    folder = pull(REPOSITORY, root=tmp_path / "zoo")
    assert folder == tmp_path / "zoo" / "net.v1"
    assert Checkpoint.open("net.v1", root=tmp_path / "zoo").sha256 == checkpoint.sha256
    whole = {"README.md", "card.json", "golden.safetensors", "weights.safetensors"}
    assert {path.name for path in folder.iterdir()} == whole == set(pushed.repositories[REPOSITORY])
    assert list((tmp_path / "zoo").iterdir()) == [folder]


def test_the_hub_gets_a_model_card_with_its_head_and_ours_stays_as_it_was(pushed, checkpoint):
    text = pushed.repositories[REPOSITORY]["README.md"].decode()
    head = huggingface_hub.ModelCard(text).data
    assert (head.license, head.library_name) == ("gpl-3.0", "rarezoo")
    assert {"galaxy-zoo", "efficientnet_b0"} <= set(head.tags)
    ours = (checkpoint.folder / "README.md").read_text()
    assert ours.startswith("# net.v1")
    assert text.endswith(ours)
    assert with_front_matter(text, checkpoint.card) == text


def test_pushing_again_is_a_commit_and_pulling_again_changes_nothing(pushed, checkpoint, tmp_path):
    address = push(checkpoint, repository=REPOSITORY)
    assert address.startswith(f"{pushed.endpoint}/{REPOSITORY}/commit/")
    assert pull(REPOSITORY, root=tmp_path) == pull(REPOSITORY, root=tmp_path, revision="main")


def test_pulling_mends_a_damaged_copy(pushed, checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint.folder, tmp_path / "net.v1")
    (folder / "weights.safetensors").write_bytes(b"damaged")
    assert Checkpoint.open(pull(REPOSITORY, root=tmp_path)).sha256 == checkpoint.sha256
    assert (folder / "settings.json").exists()


def test_pulling_leaves_another_checkpoint_of_that_name_alone(pushed, tmp_path):
    other = saved(tmp_path / "yours" / "net.v1", seed=1)
    before = Checkpoint.open(other).sha256
    with pytest.raises(OutputError, match=r"another checkpoint of that name: .*yours/net\.v1"):
        pull(REPOSITORY, root=tmp_path / "yours")
    assert Checkpoint.open(other).sha256 == before
    (tmp_path / "theirs" / "net.v1").mkdir(parents=True)
    with pytest.raises(OutputError, match="is not a checkpoint"):
        pull(REPOSITORY, root=tmp_path / "theirs")


def test_what_the_hub_gives_is_checked_before_it_is_kept(pushed, tmp_path):
    files = pushed.repositories[REPOSITORY]
    files["weights.safetensors"] = files["weights.safetensors"][:-1] + b"?"
    with pytest.raises(CheckpointError, match=r"refused: .*corrupted.*\(weights\.safetensors\)"):
        pull(REPOSITORY, root=tmp_path / "zoo")
    assert not list((tmp_path / "zoo").iterdir())
    del files["card.json"]
    with pytest.raises(CheckpointError, match="refused: no checkpoint"):
        pull(REPOSITORY, root=tmp_path / "zoo")


def test_an_interrupted_pull_goes_on_where_it_stopped(pushed, tmp_path):
    pushed.withheld = "weights.safetensors"
    with pytest.raises(CheckpointError, match=r"HTTP 403.*Log in"):
        pull(REPOSITORY, root=tmp_path / "zoo")
    assert not (tmp_path / "zoo" / "net.v1").exists()
    pushed.withheld, pushed.asked[:] = "", []
    Checkpoint.open(pull(REPOSITORY, root=tmp_path / "zoo"))
    assert not [asked for asked in pushed.asked if asked.startswith("GET") and asked.endswith("card.json")]


def test_a_private_repository_stays_private(hub, checkpoint, tmp_path, monkeypatch):
    push(checkpoint, repository=REPOSITORY, private=True, token=TOKEN)
    assert hub.private == {REPOSITORY}
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(CheckpointError, match=r"HTTP 401\): volunteer/net\.v1\. Log in"):
        pull(REPOSITORY, root=tmp_path)
    Checkpoint.open(pull(REPOSITORY, root=tmp_path, token=TOKEN))


def test_refusals_say_what_to_do(pushed, checkpoint, tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match=r"HTTP 404\): volunteer/none\. Check the name"):
        pull("volunteer/none", root=tmp_path)
    with pytest.raises(CheckpointError, match=r"HTTP 404\).*the revision"):
        pull(REPOSITORY, root=tmp_path, revision="v9")
    with pytest.raises(CheckpointError, match=r"a/b/c\. Write it as user/name"):
        pull("a/b/c", root=tmp_path)
    with pytest.raises(CheckpointError, match=r"HTTP 401\).*Log in"):
        push(checkpoint, repository=REPOSITORY, token="hf_stranger")
    with pytest.raises(CheckpointError, match=r"ConnectError.*hf download volunteer/net\.v1 --local-dir"):
        pull(REPOSITORY, root=tmp_path, endpoint="http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"switched off here: volunteer/net\.v1\. Unset HF_HUB_OFFLINE"):
        pull(REPOSITORY, root=tmp_path)
    assert not list(tmp_path.glob("net.v1"))


def test_the_verbs_push_and_pull(hub, checkpoint, tmp_path, monkeypatch, capsys):
    for words in (
        ["push", str(checkpoint.folder), f"repository={REPOSITORY}"],
        ["pull", REPOSITORY, f"root={tmp_path}"],
    ):
        monkeypatch.setattr("sys.argv", ["rarezoo", "zoo", *words])
        with pytest.raises(SystemExit) as end:
            apps.main()
        assert end.value.code == 0
    address, folder = capsys.readouterr().out.splitlines()
    assert address.startswith(hub.endpoint)
    assert folder == str(tmp_path / "net.v1")
