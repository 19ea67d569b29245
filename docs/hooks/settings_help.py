"""Extension of mkdocstrings: shows the help of every setting, and turns roles such as :class: into links."""

import ast
import re
from typing import Any

import griffe

# :class:`~rarezoo.data.survey.Survey` and :meth:`Search.survey`.
_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`(~?)([^`]+)`")
_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


class SettingsHelp(griffe.Extension):
    """Adds to the documentation what is written in other places of the code."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Take the help, the unit and the limits of a field that is made by ``setting(...)`` as its docstring."""
        call = _call(attr.value)
        if call is None or attr.docstring is not None:
            return
        words = {word.arg: ast.unparse(word.value) for word in call.keywords}
        texts = [value for value in (*call.args[1:2], *(w.value for w in call.keywords if w.arg == "help"))]
        parts = [text.value for text in texts if isinstance(text, ast.Constant) and isinstance(text.value, str)]
        if "unit" in words:
            parts.append(f"unit: {ast.literal_eval(words['unit'])}")
        parts += [f"{text} {words[name]}" for name, text in _LIMITS.items() if name in words]
        attr.docstring = griffe.Docstring("; ".join(parts), parent=attr)
        attr.value = ast.unparse(call.args[0]) if call.args else None

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Turn roles of Sphinx into links, where the site has a page for the name."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(_link, obj.docstring.value)


def _call(value: Any) -> ast.Call | None:
    """Return the call of ``setting`` that a field is made by, if it is."""
    text = str(value or "")
    if not text.startswith("setting("):
        return None
    expression = ast.parse(text, mode="eval").body
    return expression if isinstance(expression, ast.Call) else None


def _link(role: re.Match[str]) -> str:
    short, name = role.groups()
    shown = name.rpartition(".")[2] if short or name.startswith("rarezoo.") else name
    return f'<autoref optional identifier="{name}">`{shown}`</autoref>' if "." in name else f"`{shown}`"
