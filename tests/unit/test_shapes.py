"""The check of array shapes is switched on while tests run."""

import jaxtyping
import numpy as np
import pytest

pytestmark = pytest.mark.unit


def test_an_array_of_the_wrong_shape_is_refused():
    from rarezoo.embeddings.quality import spectrum

    with pytest.raises(jaxtyping.TypeCheckError):
        spectrum(np.zeros(5, dtype=np.float32))
