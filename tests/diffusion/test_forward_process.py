import pytest
import torch
from hypothesis import given, settings, strategies as st

from reprise.diffusion import ForwardProcess, betas, denoising_loss

X = torch.tensor([[1.0, -2.0], [3.0, 0.5], [0.25, -1.0]])
NOISE = torch.tensor([[0.3, -0.7], [1.2, 2.0], [-0.4, 0.1]])
T = torch.tensor([0, 50, 99])


def test_noise_and_v_are_those_of_diffusers():
    """diffusers 0.42.1, DDPMScheduler(100, "squaredcos_cap_v2"): add_noise and get_velocity."""
    process = ForwardProcess("squared_cosine", 100, prediction="v")
    noisy = [[1.0072218, -2.0169563], [2.9414754, 1.7904084], [-0.3998767, 0.0995072]]
    v = [[0.2747802, -0.6495287], [-1.3370576, 1.0219772], [-0.2501971, 1.0000491]]
    torch.testing.assert_close(process.add_noise(X, NOISE, T), torch.tensor(noisy), rtol=0, atol=2e-6)
    torch.testing.assert_close(process.target(X, NOISE, T), torch.tensor(v), rtol=0, atol=2e-6)


@settings(max_examples=25, deadline=None)
@given(
    prediction=st.sampled_from(["epsilon", "sample", "v"]), shape=st.sampled_from([(), (3,), (2, 4)]),
    name=st.sampled_from(["linear", "scaled_linear", "squared_cosine"]), single=st.booleans(),
)  # fmt: skip
def test_a_right_prediction_gives_back_data_and_noise(prediction, shape, name, single):
    process = ForwardProcess(name, 50, prediction=prediction)
    x0, noise = torch.randn(2, 5, *shape, dtype=torch.float64)
    t = torch.tensor(7) if single else torch.tensor([0, 3, 20, 48, 49])
    x, output = process.add_noise(x0, noise, t), process.target(x0, noise, t)
    torch.testing.assert_close(process.to_sample(output, x, t), x0)
    torch.testing.assert_close(process.to_epsilon(output, x, t), noise)


def test_a_process_of_given_betas_is_that_of_their_name():
    named, given_betas = ForwardProcess("linear", 30), ForwardProcess(betas("linear", 30))
    assert torch.equal(named.alpha_bars, given_betas.alpha_bars) and len(given_betas) == 30
    assert len(ForwardProcess()) == 1000


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v"])
def test_the_loss_is_the_error_against_the_target(prediction):
    process, weight = ForwardProcess("linear", 100, prediction=prediction), torch.tensor(0.5, requires_grad=True)

    def net(x, t):
        return weight * x + t[:, None]

    errors = (net(process.add_noise(X, NOISE, T), T) - process.target(X, NOISE, T)).square()
    losses = [denoising_loss(process, net, X, t=T, noise=NOISE, reduction=r) for r in ("none", "example", "mean")]
    for loss, expected in zip(losses, (errors, errors.mean(1), errors.mean()), strict=True):
        torch.testing.assert_close(loss, expected)
    losses[2].backward()
    assert weight.grad != 0


def test_the_best_prediction_of_gaussian_data_has_the_known_loss():
    """Data N(0, s^2): the noise is known up to the share a s^2 / (a s^2 + 1 - a) of its variance."""
    process, s = ForwardProcess("squared_cosine", 100), 0.5
    t = torch.full((200_000,), 40)
    kept = process.alpha_bars[40]
    total = kept * s**2 + 1 - kept
    loss = denoising_loss(process, lambda x, t: x * ((1 - kept).sqrt() / total), s * torch.randn(200_000, 1), t=t)
    assert float(loss) == pytest.approx(float(kept * s**2 / total), rel=0.02)


def test_steps_are_drawn_from_the_whole_chain():
    seen = []
    denoising_loss(ForwardProcess("linear", 5), lambda x, t: seen.append(t) or x, torch.zeros(500, 1))
    assert seen[0].unique().tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_types_are_kept(dtype):
    assert ForwardProcess().add_noise(X.to(dtype), NOISE.to(dtype), T).dtype == dtype


PROCESS = ForwardProcess("linear", 100)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ForwardProcess("linear", prediction="x0"), 'prediction is "epsilon", "sample" or "v", not \'x0\''),
        (lambda: ForwardProcess("quadratic"), "unknown schedule 'quadratic'"),
        (lambda: ForwardProcess(betas("linear", 10), 20), "10 betas came with steps=20"),
        (lambda: PROCESS.add_noise(X, NOISE, torch.tensor([0, 1, 100])), r"steps lie in 0..99; they go from 0 to 100"),
        (lambda: PROCESS.add_noise(X, NOISE, torch.tensor([0, 1, -1])), "they go from -1 to 1"),
        (lambda: PROCESS.add_noise(X, NOISE, torch.tensor([0, 1])), "one for each of the 3 examples"),
        (lambda: PROCESS.add_noise(X, NOISE, torch.zeros(3)), "one integer.*not torch.float32"),
        (lambda: PROCESS.add_noise(X, NOISE[:1], T), r"noise has shape \(1, 2\), the data \(3, 2\)"),
        (lambda: PROCESS.to_sample(X[:, :1], X, T), r"the network's output has shape \(3, 1\)"),
        (lambda: denoising_loss(PROCESS, lambda x, t: x[:, :1], X), "the network's output has shape"),
        (lambda: denoising_loss(PROCESS, lambda x, t: x, X, reduction="sum"), 'reduction is "mean", "example"'),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
