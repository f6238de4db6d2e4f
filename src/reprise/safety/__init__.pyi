from .attacks import AttackResult as AttackResult, cw_l0 as cw_l0, jsma as jsma, l0_distance as l0_distance
from .black_box import BlackBox as BlackBox
from .safety_testing import (
    Certificate as Certificate,
    FeatureGame as FeatureGame,
    Features as Features,
    SearchResult as SearchResult,
    exhaustive as exhaustive,
    grid_features as grid_features,
    lipschitz_certificate as lipschitz_certificate,
    mcts as mcts,
    random_search as random_search,
    saliency_distribution as saliency_distribution,
    sift_features as sift_features,
    uniform_features as uniform_features,
)
