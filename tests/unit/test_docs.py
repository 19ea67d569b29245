"""The documentation site covers what exists: every command and every public name."""

import re
import sys
from pathlib import Path

import pytest

import rarezoo
from rarezoo.cli import JOBS

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]


@pytest.fixture
def commands(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "hooks"))
    import commands

    yield commands
    del sys.modules["commands"]


def test_the_page_of_commands_has_the_help_of_every_command(commands):
    text = commands.commands_markdown()
    assert re.findall(r"^### rarezoo (.+)$", text, flags=re.MULTILINE) == sorted(
        JOBS, key=lambda name: list(dict.fromkeys(job.heading for job in JOBS.values())).index(JOBS[name].heading)
    )
    assert "significance.surveys: int = 20" in text
    assert commands.PLACE in (ROOT / "docs" / "reference" / "commands.md").read_text()


def test_every_public_name_is_in_the_reference():
    pages = "\n".join(path.read_text() for path in (ROOT / "docs" / "reference" / "api").glob("*.md"))
    documented = set(re.findall(r"^::: (\S+)$", pages, flags=re.MULTILINE))
    public = {f"{module}.{name}" for name, module in rarezoo._PUBLIC.items()}
    # Errors are documented together.
    assert public - documented - {"rarezoo.errors.RarezooError"} == set()
    assert "rarezoo.errors" in documented


def test_the_readme_is_short_and_its_links_exist():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 140
    links = re.findall(r"\]\((?!https?://)([^)#]+)", text)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
