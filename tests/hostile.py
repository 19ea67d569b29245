"""Texts that an output could take for something else than text: the ids, names and notes that tests send through all of them.

``RAN`` is the JavaScript variable that any of them sets if a page runs it.
"""

RAN = "rarezoo_ran"
_JS = f"window.{RAN}=1"

HTML = [
    f"<script>{_JS}</script>", f"</script><script>{_JS}</script>", f"<img src=x onerror={_JS}>", "<!--", "-->", "]]>",
    f'" onmouseover="{_JS}', f"' onfocus='{_JS}' autofocus='", f"<svg/onload={_JS}>", f"javascript:{_JS}",
    "&lt;b&gt;", "&#60;i&#62;", f"</title><script>{_JS}</script>", f"</style><script>{_JS}</script>",
    f"<iframe srcdoc='<script>parent.{RAN}=1</script>'>", "<base href=https://example.org/>", f"\\u003cscript\\u003e{_JS}",
]  # fmt: skip
CSS = ["red; background: url(https://example.org/)", "x) ; } body { display: none } /*", "expression(alert(1))"]
TEMPLATES = [
    "{{ 7 * 7 }}", "{% raw %}", "{# x #}", "${7*7}", "${oc.env:HOME}", "#{7*7}", "{0.__class__}", "{about}", "%s%n%d",
    "%(asctime)s", "$x^2$", r"$\frac{1}{0}$", "$$", "`id`", "$(id)", "; rm -rf ~", "| cat /etc/passwd", "&& id", "!!",
]  # fmt: skip
FORMULAS = ["=1+1", "=HYPERLINK(\"https://example.org\")", "+1-2", "-1+2", "@SUM(1)", "\t=1", "=cmd|' /C calc'!A0"]
MARKDOWN = [
    "![x](https://example.org/x.png)", f"[x](javascript:{_JS})", "# x", "- x", "1. x", "> x", "| a | b |", "***", "`x`",
    "```", "__x__", "~~x~~", "[ ] x", "x\n\n# y", "---\nlicense: mit\n---",
]  # fmt: skip
FORMATS = [
    "} # text={x", "a;circle(1,2,3)", "J1\ncircle(10,10,5)", "# composite(1,2,3)", "'quoted'", '"quoted"', 'a""b', "a,b",
    "a\tb", "END", "COMMENT x", "HIERARCH x", "a\\", r"a\xe9", r"\\", "\\N", "NaN", "nan", "null", "None", "True", "1e3",
    "0x10", "<TD>", "<!DOCTYPE x [<!ENTITY y SYSTEM 'file:///etc/passwd'>]>", "&y;", "yes", "~", "!!python/object:os.system",
]  # fmt: skip
CONTROL = [
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b]8;;https://example.org\x1b\\x", "a\x00b", "bell\x07", "back\x08\x08",
    "a\rb", "a\r\nb", "a\nb", "a\x0bb", "a\x0cb", "a\x7fb", "a\x85b", "a\x9b31mb", "a\u2028b", "a\u2029b",
    "\u202eabc", "\u2066abc", "a\ufeffb", "\ufeffa", "a\ufffeb",
]  # fmt: skip
PATHS = [
    "../x", "../../../etc/passwd", "/etc/passwd", "..", ".", "a/b", "a/../b", "..\\x", "C:\\x", "//host/x", "~/x", "CON",
    "nul.txt", "aux", ".hidden", "-rf", "--help", "a*b", "[ab]", "a?b", "**", "file:///etc/passwd", "https://example.org/x",
    "s3://bucket/x", "hf://x", "zip://x::y",
]  # fmt: skip
UNICODE = [
    "é", "e\u0301", "J1", "j1", "ﬁ", "fi", "K", "\u212a", "🌌", "a" * 400, "é" * 200, "א", "a\u200bb", " a", "a ", " ", "\u00a0",
    "__proto__", "constructor", "toString", "id_str", "class_id", "_step", "index",
]  # fmt: skip

TEXTS = list(
    dict.fromkeys([*HTML, *CSS, *TEMPLATES, *FORMULAS, *MARKDOWN, *FORMATS, *CONTROL, *PATHS, *UNICODE])
)  # fmt: skip
