import pytest
import torch
from sklearn.metrics import roc_auc_score

from reprise.training import accuracy, auc

SCORES = torch.tensor([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [2.0, 1.0, 3.0]])


@pytest.mark.parametrize(("k", "share"), [(1, 1 / 3), (2, 2 / 3), (3, 1.0)])
def test_top_k(k, share):
    assert accuracy(SCORES, torch.tensor([0, 2, 1]), k) == pytest.approx(share)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_row_with_a_non_finite_score_is_wrong(bad):
    scores = SCORES.clone()
    scores[0, 0] = bad
    assert accuracy(scores, torch.tensor([0, 1, 2])) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("scores", "labels", "k"),
    [(SCORES, torch.zeros(2), 1), (SCORES[0], torch.zeros(3), 1), (SCORES[:0], torch.zeros(0), 1)],
)
def test_wrong_shapes(scores, labels, k):
    with pytest.raises(ValueError, match=r"scores are \(N, K\)"):
        accuracy(scores, labels, k)


@pytest.mark.parametrize("k", [0, 4])
def test_wrong_k(k):
    with pytest.raises(ValueError, match="does not fit 3 classes"):
        accuracy(SCORES, torch.zeros(3, dtype=torch.long), k)


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
