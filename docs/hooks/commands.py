"""Hook of MkDocs: writes the help of every command into the page of commands, so that the page is always current."""

from typing import Any

from rarezoo.cli import JOBS, command_help

PLACE = "<!-- commands -->"


def commands_markdown() -> str:
    """Return the help of all commands as Markdown, in the order and under the headings of ``rarezoo --help``."""
    parts = []
    for heading in dict.fromkeys(job.heading for job in JOBS.values()):
        parts.append(f"## {heading}")
        for name, job in JOBS.items():
            if job.heading != heading:
                continue
            text = command_help(name, [], usage=f"rarezoo {name}")
            parts.append(f"### rarezoo {name}\n\nThis command can {job.help}.\n\n```text\n{text}\n```")
    return "\n\n".join(parts)


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Replace the mark on the page of commands by the help of all commands."""
    return markdown.replace(PLACE, commands_markdown()) if PLACE in markdown else markdown
