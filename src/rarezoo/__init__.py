"""Find rare classes of galaxies in the representations of neural networks, with the evidence that each class is real.

A survey is trained on or embedded, the embedding is searched, and the result of a search answers questions::

    import rarezoo as rz

    survey = rz.Catalogue("galaxies.csv", images="cutouts", votes="desi")
    checkpoint = rz.train(survey, model="efficientnet_b0", out="checkpoints/mine")
    store = rz.embed(survey, checkpoint, out="runs/mine/store")
    search = rz.search(store, out="runs/mine/search")
    search.classes
    search[3].gallery()

Names are imported when they are first used, so that ``import rarezoo`` takes no time, and torch is needed only by what
trains or embeds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rarezoo.home import use_temporary_caches

__version__ = "0.2.0"

_PUBLIC = {
    "train": "rarezoo.training.fit",
    "finetune": "rarezoo.training.finetune",
    "embed": "rarezoo.embeddings.embed",
    "search": "rarezoo.searches.run",
    "judge": "rarezoo.embeddings.judge",
    "probe": "rarezoo.prediction.probe",
    "Survey": "rarezoo.data.survey",
    "Galaxies": "rarezoo.data.survey",
    "Catalogue": "rarezoo.data.surveys.catalogue",
    "Hats": "rarezoo.data.surveys.hats",
    "HuggingFace": "rarezoo.data.surveys.huggingface",
    "Gz2": "rarezoo.data.surveys.gz2",
    "Mock": "rarezoo.data.surveys.mock",
    "Checkpoint": "rarezoo.zoo.checkpoint",
    "EmbeddingStore": "rarezoo.embeddings.store",
    "NeighbourIndex": "rarezoo.embeddings.neighbours",
    "Search": "rarezoo.searches.result",
    "FoundClass": "rarezoo.searches.result",
    "OwnLabels": "rarezoo.data.own_labels",
    "Probe": "rarezoo.prediction.probe",
    "Labels": "rarezoo.explore.labels",
    "Rating": "rarezoo.explore.rating",
    "Session": "rarezoo.explore.session",
    "TrainRun": "rarezoo.training.fit",
    "EmbedRun": "rarezoo.embeddings.embed",
    "SearchRun": "rarezoo.searches.run",
    "JudgeRun": "rarezoo.embeddings.judge",
    "FrozenStore": "rarezoo.embeddings.frozen",
    "Select": "rarezoo.searches.select",
    "Significance": "rarezoo.searches.significance",
    "Stability": "rarezoo.searches.stability",
    "ImageAndCatalogue": "rarezoo.searches.features.catalogue",
    "Contrast": "rarezoo.searches.features.contrast",
    "EfficientNetB0": "rarezoo.zoo.encoders.efficientnet_b0",
    "MaxViTTiny": "rarezoo.zoo.encoders.maxvit_tiny",
    "option": "rarezoo.settings",
    "setting": "rarezoo.settings",
    "Settings": "rarezoo.settings",
    "RarezooError": "rarezoo.errors",
}
__all__ = ["__version__", *_PUBLIC]

# Before numba and matplotlib are imported, which look for their folders at once.
use_temporary_caches()

if TYPE_CHECKING:
    from rarezoo.data.survey import Galaxies as Galaxies
    from rarezoo.data.survey import Survey as Survey
    from rarezoo.data.surveys.catalogue import Catalogue as Catalogue
    from rarezoo.data.surveys.gz2 import Gz2 as Gz2
    from rarezoo.data.surveys.hats import Hats as Hats
    from rarezoo.data.surveys.huggingface import HuggingFace as HuggingFace
    from rarezoo.data.surveys.mock import Mock as Mock
    from rarezoo.errors import RarezooError as RarezooError
    from rarezoo.settings import Settings as Settings
    from rarezoo.settings import option as option
    from rarezoo.settings import setting as setting


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'rarezoo' has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
