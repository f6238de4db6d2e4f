import pytest
import torch

from reprise.training import accuracy

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
