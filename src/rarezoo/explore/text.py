"""Text encoders of others: they turn a text into a vector in the space of a store's embeddings.

rarezoo has none of its own. A package adds one as a dataclass with a method ``encode``, named as an entry point of the
group ``rarezoo.text_encoders``; then ``rarezoo similar STORE text="a ring" encoder=NAME`` uses it.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from rarezoo.errors import ConfigError
from rarezoo.settings import choice, options

GROUP = "text_encoder"


@runtime_checkable
class TextEncoder(Protocol):
    """What a text encoder can do.

    Examples
    --------
    >>> class Lengths:
    ...     def encode(self, texts):
    ...         return np.array([[len(text), 0.0] for text in texts])
    >>> isinstance(Lengths(), TextEncoder)
    True
    """

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "m D"]:
        """Return a vector for each of m texts, in the space of the embeddings of a store."""


def vector_of(text: str, *, encoder: str = "", width: int) -> Float[np.ndarray, " D"]:
    """Return the vector of a text.

    Parameters
    ----------
    text : str
        What is looked for.
    encoder : str
        Name of the encoder; empty: the only one that is installed.
    width : int
        Width of the store's embeddings.

    Raises
    ------
    ConfigError
        No such encoder is installed, or its vectors have another width.
    """
    known = list(options(GROUP))
    if not known:
        raise ConfigError(
            "no text encoder is installed", value=f"text={text}",
            fix="Install a package that adds one, or use words= for the words of the question trees.",
        )  # fmt: skip
    if not encoder and len(known) > 1:
        raise ConfigError("several text encoders are installed", value=", ".join(known), fix="Name one: encoder=NAME.")
    made = choice(GROUP, encoder or known[0])()
    if not isinstance(made, TextEncoder):
        raise ConfigError("a text encoder needs a method encode", value=encoder or known[0], fix="Correct the package.")
    vectors = np.asarray(made.encode([text]), dtype=np.float64)
    if vectors.shape != (1, width) or not np.isfinite(vectors).all():
        raise ConfigError(
            f"the text encoder {encoder or known[0]} is not one for this store, whose embeddings are {width} wide",
            value=f"vectors of shape {vectors.shape}", fix="Choose another encoder or another store.",
        )  # fmt: skip
    return vectors[0]
