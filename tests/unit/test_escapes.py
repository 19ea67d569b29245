"""Escapes: what was written can be read again, whatever the text, and nothing that commands a terminal stays."""

import logging
import re

import hostile
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarezoo.errors import DataError
from rarezoo.escapes import VisibleFormatter, escape, figure_text, unescape, visible, without_passwords

pytestmark = pytest.mark.unit
FITS = re.compile(r"[^ -~]| \Z")
texts = st.one_of(st.text(), st.sampled_from(hostile.TEXTS), st.from_regex(r"(\\|x|u|[0-9a-f]){1,12}", fullmatch=True))


@given(texts)
def test_an_escaped_text_fits_and_comes_back(text):
    written = escape(text, FITS)
    assert not FITS.search(written)
    assert unescape(written) == text


@given(texts, texts)
def test_two_texts_are_never_escaped_alike(first, second):
    assert (escape(first, FITS) == escape(second, FITS)) is (first == second)


@given(texts)
def test_what_is_visible_can_be_printed_and_stays_as_it_is(text):
    shown = visible(text)
    assert visible(shown) == shown
    assert shown.isprintable() or all(
        letter.isspace() or ord(letter) > 127 for letter in shown if not letter.isprintable()
    )
    shown.encode()


def test_messages_are_one_line_and_command_nothing():
    for text in hostile.TEXTS:
        message = str(DataError(f"no {text}", value=text, fix=text, ids=[text]))
        assert visible(message) == message
        assert message.splitlines() == [message]


def test_a_log_line_stays_one_line(caplog):
    formatter = VisibleFormatter("%(levelname)s %(message)s")
    for text in hostile.TEXTS:
        record = logging.makeLogRecord({"msg": "left out: %s", "args": (text,), "levelname": "WARNING"})
        assert formatter.format(record).splitlines() == [formatter.format(record)]
        assert formatter.format(record).startswith("WARNING left out: ")


def test_matplotlib_draws_every_text_as_it_is():
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1))
    for text in hostile.TEXTS:
        drawn = figure.text(0, 0, figure_text(text))
        shown, is_formula = drawn._preprocess_math(drawn.get_text())
        assert is_formula is False
        assert shown == visible(text)


@pytest.mark.parametrize("password", ["secret", "se/cr@et", "secret:1", "s%2Fecret"])
@pytest.mark.parametrize("form", [
    "lables=postgresql://ann:{}@host:5432/db is no setting", "postgresql:/ann:{}@host/db", "'postgresql://:{}@host'",
    "postgresql://ann@host/db?sslmode=require&password={}&x=1", "postgres://ann:{}@host https://rarezoo.example/a",
])  # fmt: skip
def test_passwords_of_urls_are_in_no_message_and_no_log(form, password):
    text = form.format(password)
    for shown in (
        without_passwords(text), str(DataError(text, fix=text)),
        VisibleFormatter("%(message)s").format(logging.makeLogRecord({"msg": "%s", "args": (text,)})),
    ):  # fmt: skip
        assert "cr" not in shown.replace("postgres", "")
        assert "host" in shown


@pytest.mark.parametrize("text", ["https://example.org/a?ra=1&dec=2", "J1@J2", "12:22:54.9 +15:49:20", "mailto:a@b.c"])
def test_texts_without_a_password_stay_as_they_are(text):
    assert without_passwords(text) == text
