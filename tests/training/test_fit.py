import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reprise.training import Diverged, History, fit, predict

X = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))


def test_same_seed_same_bits():
    weights = []
    for _ in range(2):
        model = net()
        torch.manual_seed(1)
        fit(model, X, Y, steps=10, batch_size=16, optimizer="sgd", learning_rate=0.1)
        weights.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_equals_a_plain_loop(name):
    plain = net().eval()
    model = net().eval()
    model[2].p = plain[2].p = 0.0
    torch.manual_seed(1)
    fit(model, X, Y, steps=7, batch_size=25, optimizer=name, learning_rate=0.1, weight_decay=0.01)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[name]
    optimizer = kind(plain.parameters(), lr=0.1, weight_decay=0.01, **({"momentum": 0.9} if name == "sgd" else {}))
    torch.manual_seed(1)
    order = torch.cat([torch.randperm(50) for _ in range(4)])
    for index in order[: 7 * 25].split(25):
        optimizer.zero_grad()
        F.cross_entropy(plain(X[index]), Y[index]).backward()
        optimizer.step()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_long_gradients_are_clipped():
    def step(clip_norm):
        model = nn.Linear(3, 1)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        inputs = 100 * X[:, :3]
        fit(model, inputs, X[:, :1], loss=F.mse_loss, steps=1, batch_size=50, optimizer="sgd", learning_rate=1.0,
            clip_norm=clip_norm)  # fmt: skip
        moved = [after.detach() - start for after, start in zip(model.parameters(), before, strict=True)]
        return float(torch.cat([part.flatten() for part in moved]).norm())

    assert step(None) > 100
    assert step(0.5) == pytest.approx(0.5, rel=1e-4)
    with pytest.raises(ValueError, match="clip_norm must be above 0"):
        step(0.0)


def test_batches_are_full_and_run_through_shuffled_epochs():
    seen = []
    fit(
        nn.Linear(1, 1), torch.arange(10.0)[:, None], torch.zeros(10, 1), loss=F.mse_loss, steps=5, batch_size=4,
        learning_rate=0.0, transform=lambda batch: seen.append(batch.flatten()) or batch,
    )  # fmt: skip
    assert [len(batch) for batch in seen] == [4] * 5
    order = torch.cat(seen)
    for epoch in order.split(10):
        assert sorted(epoch.tolist()) == list(range(10))
    assert order[:10].tolist() != order[10:].tolist()


def test_epochs_and_reports():
    reports = []
    history = fit(net(), X, Y, epochs=2.5, batch_size=10, on_step=lambda *report: reports.append(report))
    assert history.steps == 12  # round(2.5 * 50 / 10), halves to even
    assert [report[:2] for report in reports] == [(step, 12) for step in range(1, 13)]
    assert history.losses == [(step, values["loss"]) for step, _, values in reports]
    many = []
    fit(net(), X, Y, steps=101, batch_size=10, on_step=lambda step, *_: many.append(step))
    assert many == [*range(2, 101, 2), 101]


@pytest.mark.parametrize("warmup", [0.0, 0.3])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_learning_rate_in_closed_form(schedule, warmup):
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.4)
    rates = []
    optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    fit(model, X, Y, steps=20, batch_size=10, optimizer=optimizer, schedule=schedule, warmup=warmup)
    rising = round(20 * warmup)
    expected = [0.4 * (step + 1) / rising for step in range(rising)]
    for step in range(rising, 20):
        wave = 0.5 * (1 + math.cos(math.pi * (step - rising) / (20 - rising)))
        expected.append(0.4 * (wave if schedule == "cosine" else 1))
    assert rates == pytest.approx(expected)
    assert optimizer.param_groups[0]["lr"] == 0.4  # as it came


def test_every_module_keeps_its_mode():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[1].eval()
    seen = []
    fit(model, X, Y, steps=2, batch_size=10, on_step=lambda *_: seen.append(model[1].training))
    predict(model, X)
    assert seen == [True, True]
    assert [module.training for module in model] == [True, False, True] and model.training
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        predict(model, X[:, :2])
    with pytest.raises(ValueError, match="optimizer"):
        fit(model, X, Y, steps=2, batch_size=10, optimizer="lamb")
    assert [module.training for module in model] == [True, False, True]


def test_divergence_raises_or_stops():
    def loss(output, target):
        calls.append(1)
        return F.cross_entropy(output, target) * (torch.nan if len(calls) == 3 else 1)

    calls = []
    with pytest.raises(Diverged, match="step 3 of 9"):
        fit(net(), X, Y, loss=loss, steps=9, batch_size=10)
    calls.clear()
    history = fit(net(), X, Y, loss=loss, steps=9, batch_size=10, diverged="stop")
    assert (history.steps, history.diverged_at, len(calls)) == (2, 3, 3)


def test_a_last_update_that_breaks_the_weights_is_found():
    model = nn.Linear(3, 2)
    model.weight.register_hook(lambda gradient: gradient * torch.inf)
    history = fit(model, X, Y, steps=1, batch_size=10, diverged="stop")
    assert history == History(steps=1, losses=history.losses, diverged_at=1)
    with pytest.raises(Diverged):
        fit(nn.Linear(3, 2), X, Y, steps=50, batch_size=10, optimizer="sgd", learning_rate=1e38)


def test_pictures_train_channels_last_with_the_same_result():
    x, y = torch.randint(256, (32, 1, 6, 6), dtype=torch.uint8), torch.randint(2, (32,))
    outputs = []
    for channels_last in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 2))
        seen = []
        model[0].register_forward_pre_hook(lambda _, arguments, seen=seen: seen.append(arguments[0].stride()))
        fit(model, x, y, steps=5, batch_size=16, transform=lambda b: b.float() / 255, channels_last=channels_last)
        assert seen[0] == ((36, 1, 6, 1) if channels_last else (36, 36, 6, 1))
        assert model[1].weight.is_contiguous(memory_format=torch.channels_last) == channels_last
        outputs.append(predict(model, x, transform=lambda b: b.float() / 255))
    torch.testing.assert_close(*outputs)


def test_a_used_optimiser_keeps_the_layout_it_knows():
    """Fused Adam walks raw memory: averages and weights in different layouts would be mixed up."""
    x, y = torch.randn(16, 3, 5, 5), torch.randint(2, (16,))
    results = []
    for fused in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(36, 2))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=fused)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        fit(model, x, y, steps=4, batch_size=16, optimizer=optimizer)
        results.append(predict(model, x))
    torch.testing.assert_close(*results, atol=1e-4, rtol=1e-4)


def test_volumes_train():
    model = nn.Sequential(nn.Conv3d(1, 2, 2), nn.Flatten(), nn.Linear(2, 2))
    assert fit(model, torch.randn(8, 1, 2, 2, 2), torch.randint(2, (8,)), steps=2, batch_size=4).steps == 2


def test_predictions_may_enter_another_training():
    model = net()
    outputs = predict(model, X, batch_size=7)
    model.eval()
    torch.testing.assert_close(outputs, model(X).detach())
    assert not outputs.requires_grad
    nn.Linear(2, 1)(outputs).sum().backward()  # an inference tensor would fail here


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": None}, "either epochs or steps"),
        ({"epochs": 1}, "either epochs or steps"),
        ({"steps": 0}, "above 0"),
        ({"steps": None, "epochs": -1.0}, "above 0"),
        ({"batch_size": 51}, "batch_size 51 does not fit 50"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"targets": Y[:9]}, "50 inputs came with 9 targets"),
        ({"optimizer": "lamb"}, "unknown optimizer 'lamb'"),
        ({"schedule": "linear"}, "unknown schedule"),
        ({"warmup": 1.0}, "warmup"),
        ({"diverged": "ignore"}, "diverged"),
        ({"model": nn.ReLU()}, "ReLU has no parameters"),
        ({"model": nn.Linear(3, 2).requires_grad_(False)}, "frozen"),
        ({"inputs": torch.zeros(50, 3, 2, 2).byte()}, "pictures are bytes"),
    ],
)
def test_bad_input(change, message):
    arguments = {"model": net(), "inputs": X, "targets": Y, "steps": 1, "batch_size": 10} | change
    with pytest.raises(ValueError, match=message):
        fit(**arguments)


def test_bad_predictions():
    with pytest.raises(ValueError, match="no inputs"):
        predict(net(), X[:0])
    with pytest.raises(ValueError, match="no parameters"):
        predict(nn.ReLU(), X)
    with pytest.raises(ValueError, match="pictures are bytes"):
        predict(nn.Conv2d(1, 1, 1), torch.zeros(2, 1, 3, 3).byte())
