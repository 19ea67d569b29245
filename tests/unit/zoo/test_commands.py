"""``rarezoo zoo``: what it says of checkpoints that are absent, damaged or without metrics."""

import pytest
import torch

from rarezoo import cli as apps
from rarezoo.data.trees import Question, QuestionTree
from rarezoo.zoo.checkpoint import Checkpoint
from rarezoo.zoo.encoders.efficientnet_b0 import EfficientNetB0
from rarezoo.zoo.network import build_network

pytestmark = pytest.mark.unit
TREE = QuestionTree("small", (Question("shape", ("shape_smooth", "shape_disk")),))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("zoo")
    torch.manual_seed(0)
    encoder = EfficientNetB0(input_size=32, bottleneck="8")
    network = build_network(encoder, TREE).eval()
    for name in ("sound", "worn"):
        Checkpoint.save(root / name, network=network, encoder=encoder, tree=TREE, card={}, dtype="float16")
    with (root / "worn" / "weights.safetensors").open("ab") as weights:
        weights.write(b"?")
    return root


@pytest.fixture
def zoo(root, monkeypatch, capsys):
    """``rarezoo zoo WORDS``: exit status, standard output and standard error."""

    def run(*words):
        monkeypatch.setattr("sys.argv", ["rarezoo", "zoo", *words, f"root={root}"])
        with pytest.raises(SystemExit) as end:
            apps.main()
        return end.value.code, *capsys.readouterr()

    return run


def test_without_metrics_or_survey_the_table_has_dashes(zoo):
    _, out, _ = zoo("list")
    cells = [cell.strip() for cell in out.splitlines()[2].strip("|").split("|")]
    assert cells[0] == "sound"
    assert cells[6:9] == ["–", "–", "–"]


def test_no_checkpoints_at_all(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["rarezoo", "zoo", "list", f"root={tmp_path}"])
    with pytest.raises(SystemExit, match="2"):
        apps.main()
    assert "no checkpoints: " in capsys.readouterr().err


@pytest.mark.parametrize("action", ["show", "check"])
def test_no_such_checkpoint(zoo, action):
    status, out, err = zoo(action, "absent")
    assert status == 2
    assert "no checkpoint: absent" in out + err


def test_a_checkpoint_is_shown_by_name_and_by_folder(zoo, root):
    assert zoo("show", "sound") == zoo("show", str(root / "sound"))
    assert zoo("show", "sound")[1].startswith("# sound")


def test_check_goes_on_after_a_failure_and_succeeds_without_one(zoo):
    status, out, err = zoo("check", "worn", "sound")
    assert [line.split(":")[0] for line in out.splitlines()] == ["worn", "sound"]
    assert (status, err) == (2, "rarezoo: not sound: worn. Get them again; the lines above say why.\n")
    assert zoo("check", "sound")[0] == 0


def test_a_worn_checkpoint_is_neither_exported_nor_pushed(zoo, tmp_path):
    out = tmp_path / "out"
    for words in (["export", "worn", "format=timm", f"out={out}"], ["push", "worn", "repository=user/worn"]):
        status, _, err = zoo(*words)
        assert status == 2
        assert "corrupted" in err
    assert not out.exists()


def test_offline_push_and_pull_say_so(zoo):
    for words in (["push", "sound", "repository=user/net"], ["pull", "user/net"]):
        assert zoo(*words)[0] == 2
        assert "the hub is switched off here: user/net. Unset HF_HUB_OFFLINE." in zoo(*words)[2]


def test_every_format_can_be_chosen_and_several_checkpoints_stand_side_by_side(zoo):
    from rarezoo.zoo import commands, export

    assert set(commands.FORMATS) == set(export.FORMATS)
    status, out, _ = zoo("show", "sound", "worn")
    assert status == 0
    assert "RMSE worn" in out.splitlines()[0]
