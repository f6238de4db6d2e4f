import pytest
import torch
from sklearn.metrics import roc_auc_score

from reprise.training import auc


def test_auc_is_that_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (100,), generator=generator)
    for scores in (torch.randn(100, generator=generator), torch.randint(0, 4, (100,), generator=generator).float()):
        assert auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))


def test_auc_of_scores_that_are_not_finite_is_the_worst():
    labels = torch.tensor([0, 1, 0, 1])
    assert auc(torch.full((4,), float("nan")), labels) == 0
    assert auc(torch.tensor([0.0, 1.0, 0.0, float("nan")]), labels) == 0.5


def test_auc_needs_both_classes():
    for scores, labels in ((torch.zeros(2), torch.ones(2)), (torch.zeros(2, 1), torch.tensor([0, 1]))):
        with pytest.raises(ValueError, match="both classes"):
            auc(scores, labels)
