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
    """Show the galaxies that a pool strategy of scikit-activeml asks for.

    Its classifier is logistic regression, and a random forest for ``QueryByCommittee``. Until galaxies of both classes
    are known, the order is random.
    """

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
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.linear_model import LogisticRegression

        kind: Any = getattr(skactiveml.pool, self.strategy, None)
        if kind is None:
            raise ConfigError("scikit-activeml has no such strategy", value=self.strategy, fix="See skactiveml.pool.")
        liked = state.interest > INTERESTING
        if not len(liked) or liked.all() or not liked.any():
            return state.rng.random(len(state))
        answers = np.full(len(state), np.nan)
        answers[state.rated] = liked
        seed = int(state.rng.integers(2**31))
        name, model = "clf", LogisticRegression(class_weight="balanced", C=0.05)
        if self.strategy == "QueryByCommittee":
            name, model = "ensemble", RandomForestClassifier(class_weight="balanced", random_state=seed)
        given = SklearnClassifier(model, classes=[0, 1])
        _, utilities = kind(random_state=seed).query(
            state.features, answers, **{name: given}, batch_size=1, return_utilities=True
        )
        return np.nan_to_num(np.asarray(utilities)[0], nan=0.0)
