"""Texts that an output could take for something else, which tests use as ids, names and notes of every kind.

``RAN`` is the JavaScript variable that any of them sets if a page runs it.
"""

import numpy as np
import pyarrow as pa

from rarezoo import tables

RAN = "rarezoo_ran"
_JS = f"window.{RAN}=1"

HTML = [
    f"<script>{_JS}</script>", f"</script><script>{_JS}</script>", f"<img src=x onerror={_JS}>", "<!--", "-->", "]]>",
    f'" onmouseover="{_JS}', f"' onfocus='{_JS}' autofocus='", f"<svg/onload={_JS}>", f"javascript:{_JS}",
    "&lt;b&gt;", "&#60;i&#62;", f"</title><script>{_JS}</script>", f"</style><script>{_JS}</script>",
    f"<iframe srcdoc='<script>parent.{RAN}=1</script>'>", "<base href=https://example.org/>",
    f"\\u003cscript\\u003e{_JS}",
]  # fmt: skip
CSS = ["red; background: url(https://example.org/)", "x) ; } body { display: none } /*", "expression(alert(1))"]
TEMPLATES = [
    "{{ 7 * 7 }}", "{% raw %}", "{# x #}", "${7*7}", "${oc.env:HOME}", "#{7*7}", "{0.__class__}", "{about}", "%s%n%d",
    "%(asctime)s", "$x^2$", r"$\frac{1}{0}$", "$$", "`id`", "$(id)", "; rm -rf ~", "| cat /etc/passwd", "&& id", "!!",
]  # fmt: skip
FORMULAS = ["=1+1", '=HYPERLINK("https://example.org")', "+1-2", "-1+2", "@SUM(1)", "\t=1", "=cmd|' /C calc'!A0"]
MARKDOWN = [
    "![x](https://example.org/x.png)", f"[x](javascript:{_JS})", "# x", "- x", "1. x", "> x", "| a | b |", "***", "`x`",
    "```", "__x__", "~~x~~", "[ ] x", "x\n\n# y", "---\nlicense: mit\n---",
]  # fmt: skip
FORMATS = [
    "} # text={x", "a;circle(1,2,3)", "J1\ncircle(10,10,5)", "# composite(1,2,3)", "'quoted'", '"quoted"', 'a""b',
    "a,b", "a\tb", "END", "COMMENT x", "HIERARCH x", "a\\", r"a\xe9", r"\\", "\\N", "NaN", "nan", "null", "None",
    "True", "1e3", "0x10", "<TD>", "<!DOCTYPE x [<!ENTITY y SYSTEM 'file:///etc/passwd'>]>", "&y;", "yes", "~",
    "!!python/object:os.system",
]  # fmt: skip
CONTROL = [
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b]8;;https://example.org\x1b\\x", "a\x00b", "bell\x07",
    "back\x08\x08", "a\rb", "a\r\nb", "a\nb", "a\x0bb", "a\x0cb", "a\x7fb", "a\x85b", "a\x9b31mb", "a\u2028b",
    "a\u2029b", "\u202eabc", "\u2066abc", "a\ufeffb", "\ufeffa", "a\ufffeb",
]  # fmt: skip
PATHS = [
    "../x", "../../../etc/passwd", "/etc/passwd", "..", ".", "a/b", "a/../b", "..\\x", "C:\\x", "//host/x", "~/x",
    "CON", "nul.txt", "aux", ".hidden", "-rf", "--help", "a*b", "[ab]", "a?b", "**", "file:///etc/passwd",
    "https://example.org/x", "s3://bucket/x", "hf://x", "zip://x::y",
]  # fmt: skip
UNICODE = [
    "é", "e\u0301", "J1", "j1", "ﬁ", "fi", "K", "\u212a", "🌌", "a" * 400, "é" * 200, "א", "a\u200bb", " a",
    "a ", " ", "\u00a0", "__proto__", "constructor", "toString", "id_str", "class_id", "_step", "index",
]  # fmt: skip

TEXTS = list(
    dict.fromkeys([*HTML, *CSS, *TEMPLATES, *FORMULAS, *MARKDOWN, *FORMATS, *CONTROL, *PATHS, *UNICODE])
)  # fmt: skip

COUNT = len(TEXTS)
HARMLESS = [f"g{row:04d}" for row in range(COUNT)]
_ABOUT_KEYS = ("survey", "checkpoint", "checkpoint_sha256", "version", "title")
# Class 0 has the first half of the galaxies, class 1 most of the others.
LABELS = np.repeat([0, 1, -1], [COUNT // 2, COUNT - COUNT // 2 - 20, 20]).astype(np.int32)


def search(texts):
    """A search in which every text that a user can choose is one of ``texts``."""
    random = np.random.default_rng(0)
    rows = [
        {
            tables.CLASS_ID: class_id, tables.NODE: 100 + class_id, tables.SIZE: int((class_id == LABELS).sum()),
            tables.FRACTION: 0.4, tables.BIRTH: 1.0, tables.DEATH: 3.0, tables.PERSISTENCE: 1.0 + class_id,
            tables.TOP_ANSWERS: texts[class_id::50], tables.FLAGS: texts[class_id::40],
            tables.EXEMPLARS: [texts[row] for row in np.flatnonzero(class_id == LABELS)[:24]],
            tables.CAUSE: texts[3 + class_id], tables.CAUSE_REASON: texts[1 + class_id],
            tables.BEYOND_REASON: texts[5 + class_id], tables.BEYOND_VERDICT: texts[7 + class_id],
        }
        for class_id in (0, 1)
    ]  # fmt: skip
    schema = pa.schema(list(tables.CLASSES.columns.items()))
    classes = pa.Table.from_pylist(rows, schema).append_column(tables.NAME, pa.array([texts[0], texts[2]]))
    ids = pa.array(texts, pa.string())
    fractions = {f"{text}_yes_fraction": random.random(COUNT).astype("f4") for text in texts[::3]}
    notes = {
        f"{text} note": [texts[(row + shift) % 9] for row in range(COUNT)] for shift, text in enumerate(texts[::9])
    }
    return {
        "members": pa.table({
            tables.ID: ids, tables.CLASS_ID: LABELS, tables.PROBABILITY: random.random(COUNT).astype("f4"),
            tables.OUTLIER_SCORE: random.random(COUNT).astype("f4"),
        }),
        "classes": classes,
        "tree": pa.table({tables.PARENT: [99, 99], tables.CHILD: [100, 101], tables.LAMBDA: [1.0, 1.0],
                          tables.CHILD_SIZE: [70, 70]}),
        "map_2d": pa.table({tables.ID: ids, tables.POSITION: tables.vectors(random.random((COUNT, 2)).astype("f4"))}),
        "predictions": pa.table({tables.ID: ids, **fractions}),
        "catalogue": pa.table(
            {tables.ID: ids, tables.RA: random.random(COUNT), tables.DEC: random.random(COUNT), **notes}
        ),
        "truth": pa.table({tables.ID: ids, tables.POPULATION: pa.array([texts[row % 7] for row in range(COUNT)])}),
        "cutouts": lambda wanted: [np.full((8, 8, 3), 9, np.uint8) for _ in wanted],
        "about": {
            **dict(zip(_ABOUT_KEYS, texts, strict=False)), "cuts": [{"cut": texts[4], "dropped": 1, "undecided": 2}],
            "settings": {text: texts for text in texts[:5]}, "seconds": {texts[6]: 1.0},
        },
    }  # fmt: skip
