"""Check the shapes and types of arrays while tests run, wherever an annotation of jaxtyping states them.

``install`` puts a hook on the import of our packages. Every function with an annotation such as
``Float32[np.ndarray, "n D"]`` then checks its arrays with beartype at each call, and letters that stand twice in a
signature must stand for the same number. Other annotations are not checked: mypy does that without running the code.
"""

import functools
import importlib._bootstrap_external
import importlib.util
import typing
from pathlib import Path

import jaxtyping
from beartype import BeartypeConf, beartype

PACKAGES = ("rarezoo", "mocksky", "seeded_umap")
# As in mypy, an integer may stand where a float is expected.
_INTEGERS_ARE_NUMBERS = BeartypeConf(is_pep484_tower=True)
SOURCE = Path(__file__).parents[1] / "src"


def install():
    """Check arrays in all modules of our packages that are imported from now on."""
    hook = jaxtyping.install_import_hook(list(_modules()), "tests.shapes.arrays_checked").hook
    find_spec = hook.find_spec

    def find_spec_of_ours(*arguments, **settings):
        spec = find_spec(*arguments, **settings)
        if spec is not None:
            spec.loader.get_code = _with_own_file_name(spec.loader.get_code)
        return spec

    hook.find_spec = find_spec_of_ours


def _with_own_file_name(get_code):
    """Return a ``get_code`` that ends the other name of compiled files which jaxtyping sets for a module of ours.

    jaxtyping keeps that name until the module has run, and with it everything that the module imports. Python then
    looks for compiled files of torch and others under that name, finds none and compiles them from their source.
    """

    @functools.wraps(get_code)
    def get_own_code(name):
        try:
            return get_code(name)
        finally:
            importlib._bootstrap_external.cache_from_source = importlib.util.cache_from_source

    return get_own_code


def _modules():
    """List the modules that the hook can take: Numba compiles functions itself and cannot read a checked function."""
    for package in PACKAGES:
        for file in sorted((SOURCE / package).rglob("*.py")):
            if "numba" not in file.read_text() and file.name != "__init__.py":
                yield ".".join(file.relative_to(SOURCE).with_suffix("").parts)


def arrays_checked(function):
    """Return a function that checks those of its arguments and results whose annotations name shapes."""
    annotations = dict(getattr(function, "__annotations__", {}))
    stated = {name: annotation for name, annotation in annotations.items() if _names_a_shape(annotation)}
    if not stated:
        return function
    function.__annotations__ = stated
    try:
        checked = beartype(conf=_INTEGERS_ARE_NUMBERS)(function)
    finally:
        function.__annotations__ = annotations
    return functools.wraps(function)(checked)


def _names_a_shape(annotation):
    if isinstance(annotation, type) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return any(_names_a_shape(part) for part in typing.get_args(annotation))
