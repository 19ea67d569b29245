"""The committed atlas.js and rate.js are those that their sources in web/ give."""

import hashlib
import json
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]
ASSETS = ROOT / "src" / "rarezoo" / "report" / "assets"


@pytest.mark.parametrize("bundle", [ASSETS / "atlas.js", ASSETS.parents[1] / "explore" / "assets" / "rate.js"])
def test_bundle_was_built_from_these_sources(bundle):
    web = ROOT / "web"
    sources = [
        "build.mjs",
        "package-lock.json",
        "package.json",
        *sorted(f"src/{path.name}" for path in web.glob("src/*")),
    ]
    state = hashlib.sha256()
    for name in sources:
        state.update(f"{name}\n".encode() + (web / name).read_bytes())
    output = re.match(r"/\* .*sources sha256 ([0-9a-f]{64});", bundle.read_text())
    assert output is not None
    assert output[1] == state.hexdigest(), "make atlas builds it again"


def test_lock_file_names_no_registry():
    assert "resolved" not in (ROOT / "web" / "package-lock.json").read_text()


def test_licences_are_those_of_the_versions_that_are_locked():
    """Of all that ships: some packages come inside another, where the bundler does not see them."""
    packages = json.loads((ROOT / "web" / "package-lock.json").read_text())["packages"]
    locked = {name.removeprefix("node_modules/"): package for name, package in packages.items() if name}
    text = (ASSETS / "atlas-licences.txt").read_text()
    result = dict(re.findall(r"^(\S+) (\d+\.\d+\.\d+\S*) \(", text, re.MULTILINE))
    assert result == {name: locked[name]["version"] for name in result}
    shipped = {name.rpartition("node_modules/")[2] for name, package in locked.items() if not package.get("dev")}
    assert shipped | {"kdbush"} == set(result)
    assert len(re.findall(r"Permission\s", text)) == len(result)
