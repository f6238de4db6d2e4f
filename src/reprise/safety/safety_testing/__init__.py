"""Feature-guided black-box safety testing: key points, the game of two players, tree search, and a certificate."""

from reprise.safety.safety_testing.certificate import Certificate, lipschitz_certificate
from reprise.safety.safety_testing.features import (
    Features,
    grid_features,
    saliency_distribution,
    sift_features,
    uniform_features,
)
from reprise.safety.safety_testing.game import FeatureGame, exhaustive
from reprise.safety.safety_testing.search import SearchResult, mcts, random_search

__all__ = [
    "Certificate",
    "FeatureGame",
    "Features",
    "SearchResult",
    "exhaustive",
    "grid_features",
    "lipschitz_certificate",
    "mcts",
    "random_search",
    "saliency_distribution",
    "sift_features",
    "uniform_features",
]
