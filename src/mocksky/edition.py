"""Editions of the mock sky: hashes of the code that draws it, so that what other code drew is not mistaken for it."""

import ast
import hashlib
from functools import cache
from pathlib import Path


def code_sha256(*modules: str) -> str:
    """Return the sha256 (hex) of modules of this package, without their comments and docstrings.

    Parameters
    ----------
    modules
        Names of modules, such as ``arms``.
    """
    state = hashlib.sha256()
    for module in modules:
        tree = ast.parse(Path(__file__).with_name(f"{module}.py").read_bytes())
        for node in ast.walk(tree):
            documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
            if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
        state.update(ast.dump(tree).encode())
    return state.hexdigest()


@cache
def picture_edition() -> str:
    """Return the hash of the code that decides the pixels of a cutout."""
    return code_sha256("arms", "artifacts", "populations", "profiles", "rendering")


@cache
def record_edition() -> str:
    """Return the hash of the code that decides truth, positions and votes."""
    return code_sha256("populations", "records", "votes")
