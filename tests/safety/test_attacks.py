import itertools

import pytest
import torch
from torch import nn

from reprise.safety import cw_l0, jsma, l0_distance
from reprise.safety.attacks import _jacobian, _most_salient

OUTPUTS = ["softmax", "logits"]


def network(classes=4, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, classes))


def pictures(count=4, channels=1, seed=1):
    return torch.rand(count, channels, 6, 6, generator=torch.Generator().manual_seed(seed))


def named(net, images):
    net.eval()
    labels = net(images).argmax(1)
    net.train()
    return labels


def linear(weights):
    """Class 0 leads by weights . image."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(len(weights), 2, bias=False))
    net[1].weight.data = torch.stack([torch.tensor(weights), torch.zeros(len(weights))])
    return net


ATTACKS = {
    "JSMA-F": jsma,
    "JSMA-Z": lambda *args, **kw: jsma(*args, outputs="logits", **kw),
    "JSMA-F, single, both": lambda *args, **kw: jsma(*args, pairs=False, direction="both", **kw),
    "C&W L0": lambda *args, **kw: cw_l0(*args, steps=25, learning_rate=0.04, **kw),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_found_is_adversarial_and_the_network_is_left_alone(name):
    net, images = network(), pictures()
    labels, before = named(net, images), images.clone()
    result = ATTACKS[name](net, images, labels)
    assert net.training and all(p.grad is None for p in net.parameters()) and torch.equal(images, before)
    assert result.found.any() and result.images.min() >= 0 and result.images.max() <= 1
    assert torch.equal(named(net, result.images) != labels, result.found)
    assert torch.equal(result.distance[result.found], l0_distance(result.images, images)[result.found])
    assert result.distance[~result.found].isinf().all() and torch.equal(
        result.images[~result.found], images[~result.found]
    )


@pytest.mark.parametrize("name", ATTACKS)
def test_target_is_reached(name):
    net, images = network(), pictures()
    labels = named(net, images)
    targets = (labels + 1) % 4
    result = ATTACKS[name](net, images, labels, targets=targets)
    assert result.found.any()
    assert torch.equal(named(net, result.images) == targets, result.found)


@pytest.mark.parametrize("name", ATTACKS)
def test_images_of_a_batch_do_not_meet(name):
    net, images = network(), pictures()
    labels = named(net, images)
    together = ATTACKS[name](net, images, labels)
    alone = [ATTACKS[name](net, images[i : i + 1], labels[i : i + 1]) for i in range(len(images))]
    assert together.distance.tolist() == [result.distance.item() for result in alone]
    assert together.gradients.tolist() == [result.gradients.item() for result in alone]


@pytest.mark.parametrize("name", ATTACKS)
def test_a_misclassified_image_is_its_own_adversarial_image(name):
    net, images = network(), pictures(2)
    result = ATTACKS[name](net, images, (named(net, images) + 1) % 4)
    assert result.distance.tolist() == [0, 0] and torch.equal(result.images, images)


@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("signs", [(1,), (-1,), (1, -1)])
def test_the_most_salient_pixels_are_those_of_the_full_search(together, signs):
    generator = torch.Generator().manual_seed(0)
    alpha, beta = torch.randn(2, 6, 20, generator=generator, dtype=torch.float64)
    saturated = torch.rand(6, len(signs), 20, generator=generator) < 0.3
    saturated[-1] = True
    picked, way, some = _most_salient(alpha, beta, saturated, signs, together)
    for row in range(6):
        best, choice = 0.0, None
        for number, sign in enumerate(signs):
            free = [i for i in range(20) if not saturated[row, number, i]]
            for group in itertools.combinations(free, together):
                a, b = sign * alpha[row, list(group)].sum(), sign * beta[row, list(group)].sum()
                if a > 0 > b and -a * b > best:
                    best, choice = -a * b, (set(group), sign)
        assert bool(some[row]) == (choice is not None)
        if choice:
            assert (set(picked[row].tolist()), int(way[row])) == choice


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_alpha_and_beta_are_the_jacobian(outputs):
    net, images, goals = network().eval(), pictures(channels=1), torch.tensor([0, 3, 1, 2])
    alpha, beta, classes = _jacobian(net, images, goals, outputs)
    values = (lambda x: net(x[None])[0].softmax(0)) if outputs == "softmax" else (lambda x: net(x[None])[0])
    for row, goal in enumerate(goals.tolist()):
        full = torch.func.jacrev(values)(images[row]).flatten(1).double()
        torch.testing.assert_close(alpha[row], full[goal], rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(beta[row], full.sum(0) - full[goal], rtol=1e-4, atol=1e-7)
    assert torch.equal(classes, net(images).argmax(1))


def test_saliency_takes_pixels_in_the_order_of_their_weight():
    net, image = linear([-0.5, -2.0, -1.0, 3.0]), torch.tensor([[[[0.0, 0.0], [0.0, 1.0]]]])
    single = jsma(net, image, torch.tensor([0]), pairs=False, outputs="logits")
    assert not single.found.any()  # class 1's logit has no slope: nothing qualifies
    result = jsma(net, image, torch.tensor([0]), pairs=False)
    assert result.images.flatten().tolist() == [1, 1, 1, 1] and result.distance.item() == 3
    both = jsma(net, image, torch.tensor([0]), pairs=False, direction="both")
    assert both.images.flatten().tolist() == [0, 1, 0, 0] and both.distance.item() == 2
    assert not jsma(net, image, torch.tensor([0]), pairs=False, max_pixels=2).found.any()
    assert jsma(net, image, torch.tensor([0]), pairs=False, max_pixels=3).found.all()


def test_cw_drops_all_pixels_that_are_not_needed():
    net, image = linear([-2.0, -0.1, -0.2, 1.0]), torch.tensor([[[[0.1, 0.1], [0.1, 0.9]]]])
    result = cw_l0(net, image, torch.tensor([0]))
    assert result.distance.item() == 1 and (result.images != image).flatten().tolist() in (
        [True, False, False, False], [False, False, False, True],
    )  # fmt: skip


def test_all_channels_of_a_pixel_count_and_move_together():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, bias=False))
    net[1].weight.data = torch.stack([torch.full((12,), 0.1), torch.tensor([1.0, 0, 0, 0] * 3)])
    image = torch.zeros(1, 3, 2, 2)
    image[0, :, 1, 1] = 1
    result = jsma(net, image, torch.tensor([0]), pairs=False)
    assert result.distance.item() == 1 and result.images[0, :, 0, 0].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": pictures()[0]}, r"images are floats \(N, C, H, W\)"),
        ({"images": (255 * pictures()).byte()}, "not torch.uint8"),
        ({"images": pictures() + 1}, "images are in 0..1"),
        ({"images": pictures() * torch.nan}, "images are in 0..1"),
        ({"labels": torch.zeros(3, dtype=torch.long)}, r"labels are int64 \(N,\)"),
        ({"labels": torch.full((4,), 4)}, "labels are classes 0 to 3, not 4 to 4"),
        ({"targets": torch.full((4,), -1)}, "targets are classes 0 to 3, not -1"),
        ({"targets": torch.zeros(4, dtype=torch.long)}, "a target is the true class"),
        ({"model": nn.Flatten(0)}, "must return finite logits"),
    ],
)
@pytest.mark.parametrize("attack", [jsma, cw_l0])
def test_wrong_input(attack, change, message):
    arguments = {"model": network(), "images": pictures(), "labels": torch.zeros(4, dtype=torch.long)} | change
    with pytest.raises(ValueError, match=message):
        attack(arguments.pop("model"), arguments.pop("images"), arguments.pop("labels"), **arguments)


@pytest.mark.parametrize(
    ("attack", "options", "message"),
    [
        (jsma, {"outputs": "probabilities"}, "outputs is"),
        (jsma, {"direction": "up"}, "direction is"),
        (cw_l0, {"share": 0}, "share is in"),
        (cw_l0, {"steps": 0}, "steps at least 1"),
    ],
)
def test_wrong_options(attack, options, message):
    with pytest.raises(ValueError, match=message):
        attack(network(), pictures(), torch.zeros(4, dtype=torch.long), **options)
