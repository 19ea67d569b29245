r"""Write a user's texts so that terminals, Markdown and figures show them and do not interpret them.

An id, a name or a path may hold any character. Pages escape what HTML would interpret by themselves; this module has
what other outputs need. An escape is written as Python writes it, for example ``\x1b``.

Examples
--------
>>> visible("J1\x1b[31m")
'J1\\x1b[31m'
"""

import logging
import re
from types import TracebackType

# Characters that a terminal or a reader could take for something else: control characters, surrogates,
# separators of lines, and marks that change the direction of the text after them.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_HIDDEN_IN_LINES = re.compile(_HIDDEN.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))
# A password in a URL. It may itself hold a slash or an at sign that is not written as %2F or %40, and a URL that was
# taken for a path has one slash.
_PASSWORD = re.compile(r"(\w:/{1,2}[^\s:/@]*:)\S*@")
_PASSWORD_KEY = re.compile(r"(?i)([?&](?:ssl)?password=)[^\s&]+")
# What escape() writes, and a backslash before such a text.
_ESCAPE = re.compile(r"\\(?:\\|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")
# Punctuation that Markdown interprets inside a line; an underscore inside a word is none.
_MARKDOWN = re.compile(r"[\\`*\[\]<|$~]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])")
# Beginnings of a line that make a heading, a list, a quotation, a rule or a block of code of it.
_MARKDOWN_START = re.compile(r"^(\s*)(#|>|[-+=](?=\s|[-+=]|$)|\d+(?=[.)](?:\s|$)))")


def visible(text: str, *, lines: bool = False) -> str:
    r"""Return a text as it may be shown: characters that a terminal would obey are written as escapes.

    Parameters
    ----------
    text
        Any text.
    lines
        Ends of lines and tabulators stay as they are.

    Examples
    --------
    >>> visible("a\nb"), visible("a\nb", lines=True)
    ('a\\x0ab', 'a\nb')
    """
    return (_HIDDEN_IN_LINES if lines else _HIDDEN).sub(lambda found: _written(found[0]), text)


def without_passwords(text: str) -> str:
    r"""Return a text in which the passwords of URLs are replaced by stars.

    Examples
    --------
    >>> without_passwords("labels=postgresql://ann:secret@host/ratings is no file")
    'labels=postgresql://ann:***@host/ratings is no file'
    """
    return _PASSWORD_KEY.sub(r"\1***", _PASSWORD.sub(r"\1***@", text))


class VisibleFormatter(logging.Formatter):
    r"""Format records of a log so that a user's name cannot control the terminal or start a new line.

    Examples
    --------
    >>> record = logging.makeLogRecord({"msg": "skipped %s", "args": ("J1\x1b[2J\nall is well",)})
    >>> VisibleFormatter("%(message)s").format(record)
    'skipped J1\\x1b[2J\\x0aall is well'
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line of a record."""
        return visible(without_passwords(super().formatMessage(record)))

    def formatException(  # noqa: N802
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        """Return the traceback of a record."""
        return visible(without_passwords(super().formatException(ei)), lines=True)


def escape(text: str, unfit: re.Pattern[str]) -> str:
    r"""Return a text without the characters that a format cannot hold; :func:`unescape` gives the text back.

    Parameters
    ----------
    text
        Any text.
    unfit
        Pattern of one character that the format cannot hold. A text without such characters stays as it is, unless it
        already holds something that looks like an escape.

    Examples
    --------
    >>> unfit = re.compile("[^ -~]")
    >>> escape("J1-é", unfit), escape(r"a\b", unfit), escape(r"a\xe9", unfit)
    ('J1-\\xe9', 'a\\b', 'a\\\\xe9')
    """
    if not (unfit.search(text) or _ESCAPE.search(text)):
        return text
    return unfit.sub(lambda found: _written(found[0]), text.replace("\\", r"\\"))


def unescape(text: str) -> str:
    r"""Return the text that :func:`escape` was given.

    Examples
    --------
    >>> unescape("J1-\\xe9"), unescape(r"a\b"), unescape(r"a\\xe9")
    ('J1-é', 'a\\b', 'a\\xe9')
    """
    return _ESCAPE.sub(lambda found: "\\" if found[0] == r"\\" else chr(int(found[0][2:], 16)), text)


def markdown(text: str) -> str:
    r"""Return a text for a line of Markdown, in which nothing is a link, a picture, HTML, a formula or a new line.

    Examples
    --------
    >>> print(markdown("![x](http://y) <b> bar_strong"))
    !\[x\](http://y) \<b> bar_strong
    """
    line = _MARKDOWN.sub(lambda found: f"\\{found[0]}", visible(text.replace("\n", " ")))
    return _MARKDOWN_START.sub(lambda found: f"{found[1]}{_start(found[2])}", line)


def markdown_passage(text: str) -> str:
    """Return several lines of Markdown with their lists and tables, but without links, pictures, HTML and formulas."""
    return re.sub(r"(?<!\\)[\[<$]", lambda found: f"\\{found[0]}", visible(text, lines=True))


def markdown_code(text: str) -> str:
    """Return a text for a span of code in Markdown, which is written between grave accents."""
    return visible(text.replace("\n", " ")).replace("`", "'")


def figure_text(text: str) -> str:
    r"""Return a text for a figure of matplotlib, which would take what is between two ``$`` for a formula.

    Examples
    --------
    >>> figure_text("$x$")
    '\\$x\\$'
    """
    return visible(text).replace("$", r"\$")


def _written(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _start(beginning: str) -> str:
    return f"{beginning}\\" if beginning[0].isdigit() else f"\\{beginning}"
