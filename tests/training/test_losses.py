import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits, make_blobs
from sklearn.frozen import FrozenEstimator
from sklearn.svm import LinearSVC
from torch import nn
from torch.nn import functional as F

from reprise.training import L2SVMLoss, calibrate, fit, predict, svm_predict, svm_targets


def batch(n=6, k=4, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, k, generator=generator, dtype=dtype) * 2, torch.randint(k, (n,), generator=generator)


def definition(scores, targets, C):
    """Equation by equation, in a loop."""
    total = 0.0
    for row, target in zip(scores.tolist(), targets.tolist(), strict=True):
        for k, f in enumerate(row):
            total += max(0.0, 1 - (1 if k == target else -1) * f) ** 2
    return C * total


def test_definition_and_reductions():
    scores, targets = batch()
    summed = definition(scores, targets, C=0.7)
    n, k = scores.shape
    for reduction, value in (("sum", summed), ("sum_classes", summed / n), ("mean", summed / (n * k))):
        assert float(L2SVMLoss(0.7, reduction)(scores, targets)) == pytest.approx(value)


def test_zero_scores_cost_one():
    readout = nn.Linear(5, 3)
    loss = L2SVMLoss(regularize=readout)(torch.zeros(4, 3), torch.tensor([0, 2, 1, 1]))
    torch.testing.assert_close(loss, 1 + readout.weight.square().mean())


def test_satisfied_margins():
    """Where every y f >= 1 only the penalty is left, and scores get no gradient at all."""
    readout = nn.Linear(5, 3)
    scores = (1.5 * svm_targets(torch.tensor([0, 1, 2, 2]), 3)).requires_grad_()
    loss = L2SVMLoss(regularize=readout)(scores, torch.tensor([0, 1, 2, 2]))
    loss.backward()
    torch.testing.assert_close(loss, readout.weight.square().mean())
    assert torch.equal(scores.grad, torch.zeros(4, 3))


def test_gradients_in_closed_form():
    """-2 C y max(0, 1 - y f) / (N K), and 2 W / (number of weights) on top for the read-out."""
    features, targets = torch.randn(8, 5), torch.randint(3, (8,))
    readout = nn.Linear(5, 3)
    scores = readout(features)
    scores.retain_grad()
    L2SVMLoss(C=0.3, regularize=readout)(scores, targets).backward()
    y = svm_targets(targets, 3)
    expected = -2 * 0.3 * y * (1 - y * scores.detach()).clamp(min=0) / 24
    torch.testing.assert_close(scores.grad, expected)
    torch.testing.assert_close(readout.weight.grad, expected.T @ features + 2 * readout.weight.detach() / 15)
    torch.testing.assert_close(readout.bias.grad, expected.sum(0))


def test_gradcheck():
    scores, targets = batch()
    assert ((1 - svm_targets(targets, 4) * scores).abs() > 1e-3).all()  # away from the kink of the derivative
    scores.requires_grad_()
    for reduction in ("mean", "sum_classes", "sum"):
        assert torch.autograd.gradcheck(L2SVMLoss(reduction=reduction), (scores, targets))
        assert torch.autograd.gradgradcheck(L2SVMLoss(reduction=reduction), (scores, targets))


def test_derivative_is_continuous_at_margin_one():
    slopes = []
    for margin in (1 - 1e-6, 1.0, 1 + 1e-6):
        score = torch.tensor([[margin]], dtype=torch.float64, requires_grad=True)
        L2SVMLoss()(score, torch.tensor([1])).backward()
        slopes.append(float(score.grad))
    assert slopes == pytest.approx([0, 0, 0], abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(2, 9), st.integers(0, 1000))
def test_permuting_classes_changes_nothing(n, k, seed):
    scores, targets = batch(n, k, seed)
    order = torch.randperm(k, generator=torch.Generator().manual_seed(seed))
    loss = L2SVMLoss()
    torch.testing.assert_close(loss(scores, targets), loss(scores[:, order], order.argsort()[targets]))


def test_linear_in_c_down_to_weight_decay_alone():
    scores, targets = batch(dtype=torch.float32)
    readout = nn.Linear(5, 4)
    values = [L2SVMLoss(C, regularize=readout)(scores, targets).item() for C in (1e-30, 1.0, 2.0)]
    assert values[0] == pytest.approx(float(readout.weight.detach().square().mean()))
    assert values[2] - values[1] == pytest.approx(values[1] - values[0], rel=1e-5)


def test_binary_form():
    scores, targets = torch.randn(9, 1), torch.randint(2, (9,))
    y = torch.where(targets == 1, 1.0, -1.0)
    expected = (1 - y * scores[:, 0]).clamp(min=0).square().mean()
    torch.testing.assert_close(L2SVMLoss()(scores, targets), expected)
    torch.testing.assert_close(L2SVMLoss()(scores, y[:, None]), expected)


def test_signs_and_classes_are_the_same_targets():
    scores, targets = batch()
    signs = svm_targets(targets, 4)
    before = targets.clone()
    for either in (signs, signs.long(), signs.double()):
        torch.testing.assert_close(L2SVMLoss()(scores, either), L2SVMLoss()(scores, targets))
    assert torch.equal(targets, before)


def test_penalties():
    scores, targets = batch(dtype=torch.float32)
    readout = nn.Linear(5, 4)
    weight = readout.weight.detach()
    for reduction, penalty, expected in (
        ("mean", "l2", weight.square().mean()),
        ("mean", "l1", weight.abs().mean()),
        ("sum_classes", "l2", weight.square().sum() / 2),
        ("sum", "l2", weight.square().sum() / 2),
        ("sum", "l1", weight.abs().sum()),
    ):
        with_penalty = L2SVMLoss(1.0, reduction, penalty, readout)(scores, targets)
        torch.testing.assert_close(with_penalty - L2SVMLoss(1.0, reduction)(scores, targets), expected)


def test_read_out_stays_out_of_the_loss():
    assert list(L2SVMLoss(regularize=nn.Linear(2, 2)).parameters()) == []


def test_is_none_of_the_losses_of_torch():
    scores, targets = batch()
    signs = svm_targets(targets, 4)
    one_hot = torch.full((6, 4), -1).index_put_((torch.arange(6), torch.tensor(0)), targets)
    ours = float(L2SVMLoss()(scores, targets))
    for other in (
        nn.MultiMarginLoss(p=2)(scores, targets),
        nn.MultiLabelMarginLoss()(scores, one_hot),
        F.hinge_embedding_loss(scores, signs),
    ):
        assert abs(float(other) - ours) > 1e-2


@pytest.mark.parametrize("classes", [2, 5])
def test_linear_svc(classes):
    """On fixed features a converged head is scikit-learn's LinearSVC (whose penalty includes the intercept)."""
    x, y = make_blobs(120, 4, centers=classes, cluster_std=3.0, random_state=0)
    x = (x - x.mean(0)) / x.std(0)
    C = 0.5
    peer = LinearSVC(C=C, loss="squared_hinge", dual=False, tol=1e-10, max_iter=10_000).fit(x, y)
    features = torch.from_numpy(np.c_[x, np.ones(len(x))])  # the intercept as one more weight
    head = nn.Linear(5, 1 if classes == 2 else classes, bias=False).double()
    loss = L2SVMLoss(C, reduction="sum", regularize=head)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss(head(features), torch.from_numpy(y).long())
        value.backward()
        return value

    optimizer.step(closure)
    scores = head(features).detach()
    np.testing.assert_allclose(scores.squeeze(1).numpy(), peer.decision_function(x), atol=1e-4)
    assert (svm_predict(scores).numpy() == peer.predict(x)).all()
    # The objective at the peer's solution is not below ours.
    at_peer = np.c_[peer.coef_, peer.intercept_[:, None]]
    ours = closure().item()
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(at_peer))
        assert loss(head(features), torch.from_numpy(y).long()) >= ours - 1e-8


def test_takes_the_place_of_cross_entropy():
    """Any network with a linear last layer trains under it: the penalised layer is named, nothing else changes."""
    digits = load_digits()
    x, y = torch.from_numpy(digits.data / 16).float(), torch.from_numpy(digits.target).long()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    fit(model, x[:1000], y[:1000], loss=L2SVMLoss(regularize=model[2]), steps=300, learning_rate=5e-3)
    scores = predict(model, x[1000:])
    assert float((svm_predict(scores) == y[1000:]).float().mean()) > 0.85


def test_predict_rules():
    scores = torch.tensor([[0.2, 0.9, -1.0], [-0.8, -0.1, -0.3], [0.0, -0.5, -2.0], [-1.0, -1.0, 0.1]])
    assert svm_predict(scores).tolist() == [1, 1, 0, 2]
    assert svm_predict(scores, rule="sign").tolist() == [0, 0, 0, 2]  # ties go to the lowest class
    for rule in ("score", "sign"):
        assert svm_predict(torch.tensor([[-0.1], [0.0], [0.1]]), rule).tolist() == [0, 0, 1]


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_calibration_is_platts(classes):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(max(2, classes), (300,), generator=generator)
    scores = svm_targets(labels, classes) + torch.randn(300, classes, generator=generator)
    probabilities = calibrate(scores[:200], labels[:200])(scores[200:])
    assert probabilities.shape == (100, classes)
    assert ((probabilities > 0) & (probabilities < 1)).all()
    if classes != 2:  # scikit-learn wants a single score for two classes
        peer = CalibratedClassifierCV(FrozenEstimator(Scores().fit(scores, labels.numpy())), method="sigmoid")
        peer.fit(scores[:200].numpy(), labels[:200].numpy())
        expected = peer.predict_proba(scores[200:].numpy())[:, -classes:]
        np.testing.assert_allclose(probabilities.numpy(), expected, atol=2e-3)


class Scores(LinearSVC):
    """A classifier whose decision function is its input."""

    def fit(self, x, y):
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, x):
        return x[:, 0] if x.shape[1] == 1 else x


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"C": 0}, "C must be above 0"),
        ({"C": float("nan")}, "C must be above 0"),
        ({"reduction": "none"}, "reduction"),
        ({"penalty": "l3"}, "penalty"),
        ({"regularize": nn.ReLU()}, "ReLU has no weight"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        L2SVMLoss(**arguments)


@pytest.mark.parametrize(
    ("scores", "targets", "message"),
    [
        (torch.randn(3, 4), torch.tensor([0, 1, 4]), r"0\.\.3; they go from 0 to 4"),
        (torch.randn(3, 4), torch.tensor([0, -1, 2]), "go from -1 to 2"),
        (torch.randn(3, 1), torch.tensor([0, 1, 2]), r"0\.\.1"),
        (torch.randn(0, 4), torch.tensor([]).long(), r"of shape \(0, 4\)"),
        (torch.randn(3), torch.tensor([0, 1, 2]), r"scores must be floats of shape \(N, K\)"),
        (torch.ones(3, 4).long(), torch.tensor([0, 1, 2]), "scores must be floats"),
        (torch.randn(3, 4), F.one_hot(torch.tensor([0, 1, 2]), 4), "one-hot"),
        (torch.randn(3, 4), torch.full((3, 4), torch.nan), "hold -1 and"),
        (torch.randn(3, 4), torch.tensor([0, 1]), r"need targets of shape \(3,\)"),
        (torch.randn(3, 4), torch.tensor([0.0, 1.0, 2.0]), "integers"),
    ],
)
def test_bad_input(scores, targets, message):
    with pytest.raises(ValueError, match=message):
        L2SVMLoss()(scores, targets)


def test_bad_rule_and_classes():
    with pytest.raises(ValueError, match="rule"):
        svm_predict(torch.randn(2, 2), "margin")
    with pytest.raises(ValueError, match="num_classes"):
        svm_targets(torch.tensor([0]), 0)
