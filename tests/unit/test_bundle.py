"""The committed atlas.js is the one that its sources in web/ give."""

import hashlib
import json
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "src" / "rarezoo" / "report" / "assets"


def test_bundle_was_built_from_these_sources():
    web = ROOT / "web"
    sources = [
        "build.mjs",
        "package-lock.json",
        "package.json",
        *sorted(f"src/{one.name}" for one in web.glob("src/*")),
    ]
    state = hashlib.sha256()
    for name in sources:
        state.update(f"{name}\n".encode() + (web / name).read_bytes())
    told = re.match(r"/\* .*sources sha256 ([0-9a-f]{64});", (ASSETS / "atlas.js").read_text())
    assert told is not None
    assert told[1] == state.hexdigest(), "make atlas builds it anew"


def test_lock_file_names_no_registry():
    assert "resolved" not in (ROOT / "web" / "package-lock.json").read_text()


def test_licences_are_told_of_the_versions_that_are_locked():
    """Which packages are in the bundle only its build knows; those asked for must be."""
    web = ROOT / "web"
    packages = json.loads((web / "package-lock.json").read_text())["packages"]
    locked = {(name.removeprefix("node_modules/"), one.get("version")) for name, one in packages.items()}
    told = re.findall(r"^(\S+) (\d+\.\d+\.\d+\S*) \(", (ASSETS / "atlas-licences.txt").read_text(), re.MULTILINE)
    assert set(told) <= locked
    assert {*json.loads((web / "package.json").read_text())["dependencies"], "regl"} <= {name for name, _ in told}
