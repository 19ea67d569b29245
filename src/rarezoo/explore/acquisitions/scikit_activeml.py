"""The strategies of scikit-activeml, for comparison: they look for the border between two classes."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from rarezoo.errors import ConfigError, MissingDependency
from rarezoo.explore.acquisition import Acquisition, State
from rarezoo.explore.choose import INTERESTING
from rarezoo.settings import option, setting


@option("acquisition", "scikit_activeml")
@dataclass
class ScikitActiveML(Acquisition):
    """Show the galaxies that a pool strategy of scikit-activeml asks for, with logistic regression as its classifier."""

    needs_model: ClassVar[bool] = False
    strategy: str = setting("UncertaintySampling", "class in skactiveml.pool, such as QueryByCommittee")

    def values(self, state: State) -> Float[np.ndarray, " n"]:
        """Return the utility of each galaxy; 0 for those that are rated."""
        try:
            import skactiveml.pool
            from skactiveml.classifier import SklearnClassifier
        except ImportError as problem:
            raise MissingDependency(
                "scikit-activeml", extra="benchmark", purpose="A strategy of scikit-activeml"
            ) from problem
        from sklearn.linear_model import LogisticRegression

        kind: Any = getattr(skactiveml.pool, self.strategy, None)
        if kind is None:
            raise ConfigError("scikit-activeml has no such strategy", value=self.strategy, fix="See skactiveml.pool.")
        answers = np.full(len(state), np.nan)
        answers[state.rated] = state.interest > INTERESTING
        classifier = SklearnClassifier(LogisticRegression(class_weight="balanced", C=0.05), classes=[0, 1])
        seed = int(state.rng.integers(2**31))
        name = "ensemble" if self.strategy == "QueryByCommittee" else "clf"
        given: Any = classifier
        if name == "ensemble":
            from sklearn.ensemble import BaggingClassifier

            given = SklearnClassifier(
                BaggingClassifier(LogisticRegression(class_weight="balanced", C=0.05), random_state=seed),
                classes=[0, 1],
            )
        _, utilities = kind(random_state=seed).query(
            state.features, answers, **{name: given}, batch_size=1, return_utilities=True
        )
        return np.nan_to_num(np.asarray(utilities)[0], nan=0.0)
