import numpy as np
import pytest
import torch

from reprise.data import Episodes, center_crop, random_crop, random_shift
from reprise.nn import FiLM, SpatialSoftmax, parameters
from reprise.policies import BC, DiffusionPolicy, ObservationEncoder, PictureEncoder, Shapes

SMALL = {"widths": (16, 16), "keypoints": 4, "features": 6}


def pictures(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


# --- cuts -------------------------------------------------------------------------------------------------------------


def test_crops_are_pieces_from_places_of_their_own_and_alike_within_an_example():
    place = torch.arange(10 * 12).reshape(10, 12, 1)  # every pixel names its place
    batch = place.expand(64, 3, 10, 12, 1)
    pieces = random_crop(batch, (7, 8), torch.Generator().manual_seed(0))
    corners = pieces[:, :, 0, 0, 0]
    assert (corners == corners[:, :1]).all()
    assert torch.equal(
        pieces - corners[:, :, None, None, None], (place[:7, :8] - place[0, 0]).expand(64, 3, -1, -1, -1)
    )
    tops, lefts = corners[:, 0] // 12, corners[:, 0] % 12
    assert set(tops.tolist()) == set(range(4)) and set(lefts.tolist()) == set(range(5))
    assert torch.equal(center_crop(batch, (7, 8))[0, 0, ..., 0], place[1:8, 2:10, 0])


def test_shifts_repeat_the_edge():
    batch = torch.arange(5.0).reshape(1, 1, 5, 1).expand(50, 4, 5, 1)
    rows = {tuple(row.tolist()) for row in random_shift(batch, 2, torch.Generator().manual_seed(0))[:, 0, :, 0]}
    assert rows == {(0, 0, 0, 1, 2), (0, 0, 1, 2, 3), (0, 1, 2, 3, 4), (1, 2, 3, 4, 4), (2, 3, 4, 4, 4)}
    assert torch.equal(random_shift(batch, 0), batch)


# --- layers -----------------------------------------------------------------------------------------------------------


def test_spatial_softmax_says_where_something_is():
    layer = SpatialSoftmax(2, keypoints=2)
    layer.conv.weight.data = 1000 * torch.eye(2)[..., None, None]
    layer.conv.bias.data.zero_()
    x = torch.zeros(1, 2, 3, 5)
    x[0, 0, 0, 4] = x[0, 1, 1, 1] = 1  # right above; a little left in the middle
    assert layer(x).tolist() == [[1.0, -1.0, -0.5, 0.0]]
    assert layer(torch.ones(1, 2, 3, 5)).abs().max() < 1e-6  # everywhere: the middle


def test_film_scales_and_shifts_channels():
    film = FiLM(2, 3)
    film.linear.weight.data[0, 0], film.linear.weight.data[5, 1] = 2.0, 7.0  # gamma of channel 0, beta of channel 2
    output = film(torch.ones(1, 3, 2, 2), torch.tensor([[1.0, 1.0]]))
    assert output[0, :, 0, 0].tolist() == [3.0, 1.0, 8.0]


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_published_size():
    """ResNet-18 without its last layer (11,176,512), 1x1 convolution to 32 keypoints, linear layer to 64."""
    with torch.device("meta"):
        net = PictureEncoder((96, 96), backbone="resnet18", crop=(84, 84))
    assert parameters(net) == 11_176_512 + 32 * 513 + 64 * 65


@pytest.mark.parametrize("backbone", ["cnn", "resnet18"])
def test_examples_do_not_mix_and_films_begin_as_nothing(backbone):
    torch.manual_seed(0)
    sizes = SMALL if backbone == "cnn" else SMALL | {"widths": (16, 16, 16, 16)}
    plain = PictureEncoder((32, 40), backbone=backbone, **sizes).eval()
    told = PictureEncoder((32, 40), backbone=backbone, condition_dim=3, **sizes).eval()
    assert not told.load_state_dict(plain.state_dict(), strict=False).unexpected_keys
    batch, condition = pictures(2, 3, 32, 40, 3), torch.randn(2, 3)
    output = plain(batch)
    assert output.shape == (2, 3, 6)
    assert torch.allclose(output[1, 2], plain(batch[1:, 2])[0], atol=1e-5)
    assert torch.allclose(plain.train()(batch[1:])[0], output[1], atol=1e-5)  # nor in training
    assert torch.allclose(told(batch, condition), output, atol=1e-5)
    for film in told.films:
        torch.nn.init.normal_(film.linear.weight)
    changed = told(batch, condition)
    assert not torch.allclose(changed, output, atol=1e-2)
    for i in range(3):
        assert torch.allclose(changed[1, i], told(batch[1:, i], condition[1:])[0], atol=1e-5)


def test_augmentation_is_for_training():
    encoder = PictureEncoder((24, 24), crop=(16, 16), shift=2, **SMALL)
    batch = pictures(1, 24, 24, 3).expand(6, -1, -1, -1)
    assert len(encoder(batch).round(decimals=5).unique(dim=0)) > 3
    encoder.eval()
    assert torch.allclose(encoder(batch), encoder(batch[:1]).expand(6, -1), atol=1e-6)
    middle = PictureEncoder((16, 16), **SMALL).eval()
    middle.load_state_dict(encoder.state_dict())
    assert torch.allclose(middle(batch[:, 4:20, 4:20]), encoder(batch), atol=1e-6)


# --- everything together ----------------------------------------------------------------------------------------------

SHAPES = Shapes(
    {"state": (2,), "top": (24, 24, 3), "images.wrist": (16, 16, 3)},
    action=1, goal={"top": (24, 24, 3), "state": (2,)}, instruction=4,
)  # fmt: skip


def batch_of(B, history=2):
    return {
        "observations": {
            "state": torch.randn(B, history, 2),
            "top": pictures(B, history, 24, 24, 3),
            "images.wrist": pictures(B, history, 16, 16, 3, seed=1),
        },
        "goal": {"top": pictures(B, 24, 24, 3, seed=2), "state": torch.randn(B, 2)},
        "instruction": torch.randn(B, 4),
    }


@pytest.mark.parametrize("film", [False, True])
def test_cameras_states_goal_and_instruction_in_one_vector(film):
    torch.manual_seed(0)
    encoder = ObservationEncoder(SHAPES, history=2, film=film, **SMALL).eval()
    batch = batch_of(3)
    vector = encoder(batch)
    assert vector.shape == (3, encoder.size) and encoder.size == 2 * (2 + 6 + 6) + (6 + 2) + 4
    assert len(encoder.cameras) == 2  # the goal's camera is the observation's
    assert torch.equal(vector[:, :4], batch["observations"]["state"].flatten(1))
    told = (batch["goal"]["state"], batch["instruction"])
    condition = torch.cat(told, 1) if film else None
    assert torch.allclose(vector[:, 4:10], encoder.cameras[0](batch["observations"]["top"], condition)[:, 0], atol=1e-5)
    assert torch.allclose(vector[:, -12:-6], encoder.cameras[0](batch["goal"]["top"], condition), atol=1e-5)
    assert torch.equal(vector[:, -6:], torch.cat(told, 1))
    steps = ObservationEncoder(SHAPES, history=2, per_step=True, film=film, **SMALL).eval()
    steps.load_state_dict(encoder.state_dict())
    each = steps(batch)
    assert each.shape == (3, 2, steps.size) and steps.size == 2 + 6 + 6 + (6 + 2) + 4
    assert torch.allclose(each[:, 0, 2:8], vector[:, 4:10], atol=1e-5)
    assert torch.equal(each[:, 1, -6:], vector[:, -6:])


@pytest.mark.parametrize("kind", [BC, DiffusionPolicy])
def test_policies_learn_from_pictures(kind, tmp_path):
    """The action is where a bright square stands."""
    rng = np.random.default_rng(0)
    places = rng.integers(0, 12, (64, 2))
    images = np.zeros((64, 16, 16, 3), np.uint8)
    for image, (y, x) in zip(images, places, strict=True):
        image[y : y + 4, x : x + 4] = 255
    data = Episodes({"image": images}, places.astype(np.float32), np.arange(1, 65), instructions=("look",) * 64)
    torch.manual_seed(0)
    network = {"width": 64, "blocks": 1, "dropout": 0.0} if kind is BC else {"network": "mlp", "inference_steps": 5}
    policy = kind(
        horizon=1, history=1, observations=("image",), instructions=8, encoder=SMALL | {"film": True}, **network
    )
    policy.fit(data, steps=150, batch_size=64, learning_rate=1e-2)
    seen = {"image": images, "instruction": "look"}
    error = np.abs(policy.act(seen) - places).mean()
    assert error < 1.5, "of 12 pixels"
    policy.save(tmp_path)
    noise = torch.randn(64, 1, 2) if kind is DiffusionPolicy else None
    assert torch.equal(kind.load(tmp_path).plan(seen, noise), policy.plan(seen, noise))


def test_refusals():
    with pytest.raises(ValueError, match="unknown backbone 'vit'"):
        PictureEncoder((16, 16), backbone="vit")
    with pytest.raises(ValueError, match="16 channels do not divide 24"):
        PictureEncoder((16, 16), widths=(24,))
    with pytest.raises(ValueError, match="20x20 cannot be cut out of pictures of 16x16"):
        PictureEncoder((16, 16), crop=(20, 20))
    with pytest.raises(ValueError, match="this policy has none"):
        ObservationEncoder(Shapes({"top": (16, 16, 3)}, action=1), film=True)
    with pytest.raises(ValueError, match="got none"):
        PictureEncoder((16, 16), condition_dim=2, **SMALL)(pictures(1, 16, 16, 3))
    with pytest.raises(ValueError, match="0 pixels or more"):
        random_shift(torch.zeros(1, 4, 4, 3), -1)
