"""Linear interpreters: exactness, Jacobians, adjoints, every kind of unit, and networks left as they were."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.sparse.linalg import eigs, svds
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.explain import LinearScope, linear_interpreter


def images(channels: int = 3, side: int = 8, n: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(channels + side)
    return torch.randn(n, channels, side, side, dtype=torch.float64, generator=generator)


def prepared(net: nn.Module) -> nn.Module:
    """Double precision, evaluation mode, and norms that do something."""
    torch.manual_seed(1)
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.ConvTranspose2d)):
            module.reset_parameters()
        if getattr(module, "affine", False) or isinstance(module, nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
        if isinstance(getattr(module, "running_var", None), Tensor):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net.double().eval()


class Block(nn.Module):
    """The basic block of a ResNet with one in-place ReLU used twice."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += self.skip(x)
        return self.relu(out)


class UNet(nn.Module):
    """Instance norm, transposed convolution, functional calls and concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.norm1 = nn.Conv2d(3, 4, 3, 2, 1), nn.InstanceNorm2d(4, affine=True)
        self.inner, self.norm2 = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), nn.GroupNorm(2, 4)
        self.up, self.out = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(7, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.leaky_relu(self.norm1(self.down(x)), 0.1, inplace=True)
        b = torch.cat([a, self.norm2(self.inner(a)).clamp(min=0)], dim=1)
        return torch.tanh(self.out(torch.cat([F.relu(self.up(b)), x], 1)))


class SuperResolution(nn.Module):
    """EDSR-like."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, 4, 3, padding=1, bias=bias), nn.Conv2d(1, 3, 3, padding=1, bias=bias)
        self.blocks = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1, bias=bias) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h = start = self.head(x)
        for conv in self.blocks:
            h = h + 0.5 * conv(h).relu()
        h = self.tail(F.pixel_shuffle(h + start, 2))
        return h + F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)


class Gated(nn.Module):
    """Squeeze and excitation, GELU, a product of two equal signals, and constants of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.squeeze = nn.Conv2d(3, 4, 3), nn.Linear(4, 4)
        self.grid = nn.Parameter(torch.randn(1, 6, 6))
        self.norm = nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        h = F.gelu(self.conv(x) + self.grid)
        gate = torch.sigmoid(self.squeeze(h.mean((2, 3))))
        h = gate.view(len(x), -1, 1, 1) * h
        return self.norm(h * F.silu(h) - 0.3).flatten(1)


def vgg(bias: bool = True, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=bias), act(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1, bias=bias), act(), nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.Flatten(), nn.Linear(54, 5, bias=bias),
    )  # fmt: skip


def gap_classifier() -> nn.Sequential:
    return nn.Sequential(Block(3, 4), Block(4, 6, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))


NETWORKS = {"vgg": vgg, "resnet": gap_classifier, "unet": UNet, "sr": SuperResolution, "gated": Gated}
LINEAR_UNITS = {"vgg", "resnet", "sr"}  # what they freeze are ReLU and max pooling only


@pytest.fixture(params=NETWORKS)
def net(request: pytest.FixtureRequest) -> nn.Module:
    return prepared(NETWORKS[request.param]())


def jacobian(net: nn.Module, x: Tensor) -> Tensor:
    y = torch.func.jacrev(lambda t: net(t[None])[0])(x[0])
    return y.reshape(-1, x.numel())


# --- exactness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pointwise", ["gain", "tangent"])
def test_the_interpreter_gives_the_networks_own_output_and_does_not_touch_lane_0(net, pointwise):
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        model, x = copy.deepcopy(net).to(dtype), images(n=3).to(dtype)
        scope, plain = LinearScope(model, pointwise=pointwise), model(x)
        y0, y1 = scope(x, x)
        assert torch.equal(y0, plain)
        assert (y1 - plain).abs().max() < tolerance
        residual = scope(x, torch.zeros_like(x))[1]
        assert (scope(x, x, constants=False)[1] + residual - plain).abs().max() < tolerance


def test_all_read_outs_belong_to_one_matrix(net):
    x = images()
    it = linear_interpreter(net, x)
    F0 = it.matrix()
    inputs, outputs = x[0].numel(), it.output.numel()
    assert F0.shape == (outputs, inputs)
    torch.testing.assert_close(F0 @ x.flatten() + it.residual.flatten(), it.output.flatten())
    torch.testing.assert_close(it.columns([5, 60, 100]).flatten(1), F0[:, [5, 60, 100]].T)
    torch.testing.assert_close(it.columns([(0, 0, 5), (1, 7, 3)]).flatten(1), F0[:, [5, 123]].T)
    torch.testing.assert_close(it.rows([0, outputs - 1]).flatten(1), F0[[0, -1]])
    probes = torch.randn(3, *x.shape[1:], dtype=torch.float64)
    torch.testing.assert_close(it.apply(probes).flatten(1), probes.flatten(1) @ F0.T)
    torch.testing.assert_close(it.affine(probes), it.apply(probes) + it.residual)
    z = torch.randn(2, *it.output_shape, dtype=torch.float64)
    torch.testing.assert_close(it.adjoint(z).flatten(1), z.flatten(1) @ F0)
    torch.testing.assert_close(it.adjoint(z[0]), it.adjoint(z)[0])
    operator = it.as_linear_operator()
    np.testing.assert_allclose(operator @ np.eye(inputs)[:, :3], F0[:, :3].numpy(), atol=1e-10)
    np.testing.assert_allclose(operator.rmatvec(np.eye(outputs)[0]), F0[0].numpy(), atol=1e-10)
    torch.testing.assert_close(sum(it.residual_by_source().values()), it.residual)


@settings(max_examples=12, deadline=None)
@given(name=st.sampled_from(sorted(NETWORKS)), a=st.floats(-3, 3), b=st.floats(-3, 3), seed=st.integers(0, 99))
def test_linearity_and_adjoint(name, a, b, seed):
    it = linear_interpreter(prepared(NETWORKS[name]()), images())
    generator = torch.Generator().manual_seed(seed)
    u, v = torch.randn(2, *it.input_shape, dtype=torch.float64, generator=generator)
    z = torch.randn(it.output_shape, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(it.apply(a * u + b * v), a * it.apply(u) + b * it.apply(v), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close((it.apply(u) * z).sum(), (u * it.adjoint(z)).sum(), rtol=1e-9, atol=1e-9)


def test_several_images_hold_their_probes_in_image_major_order(net):
    x, probes = images(n=2), torch.randn(6, 3, 8, 8, dtype=torch.float64)
    y0, y1 = LinearScope(net)(x, probes)
    torch.testing.assert_close(y0, net(x))
    for i in range(2):
        it = linear_interpreter(net, x[i : i + 1])
        torch.testing.assert_close(it.affine(probes[3 * i : 3 * i + 3]), y1[3 * i : 3 * i + 3])


# --- against the Jacobian ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(LINEAR_UNITS))
def test_with_relu_and_max_pooling_f_is_the_jacobian(name):
    net, x = prepared(NETWORKS[name]()), images()
    it, J = linear_interpreter(net, x, units=("relu", "max_pool2d", "mul", "batch_norm")), jacobian(net, x)
    torch.testing.assert_close(it.matrix(), J)
    torch.testing.assert_close(it.residual.flatten(), net(x).flatten() - J @ x.flatten())


@pytest.mark.parametrize("act", [nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ReLU6, nn.Hardtanh])
def test_other_piecewise_linear_units(act):
    net, x = prepared(vgg(act=act)), images()
    pointwise = "tangent" if act in (nn.ReLU6, nn.Hardtanh) else "gain"
    torch.testing.assert_close(linear_interpreter(net, x, pointwise=pointwise).matrix(), jacobian(net, x))


@pytest.mark.parametrize("act", [nn.Sigmoid, nn.Tanh, nn.GELU, nn.SiLU, nn.ELU, nn.Softplus])
def test_gains_are_not_slopes(act):
    net, x = nn.Sequential(act()).eval(), images(1, 3)
    it = linear_interpreter(net, x)
    torch.testing.assert_close(it.matrix(), torch.diag((act()(x) / x).flatten()))
    assert (it.matrix() - jacobian(net, x)).abs().max() > 0.05
    assert it.residual.abs().max() < 1e-12
    tangent = linear_interpreter(net, x, pointwise="tangent")
    torch.testing.assert_close(tangent.matrix(), jacobian(net, x))
    torch.testing.assert_close(tangent.affine(x[0]), it.output)


@pytest.mark.parametrize(("act", "gain", "constant"), [(nn.Tanh, 1.0, 0), (nn.GELU, 0.5, 0), (nn.Sigmoid, 0, 0.5)])
def test_near_zero_the_gain_is_the_slope_or_the_value_is_a_constant(act, gain, constant):
    x = torch.tensor([[0.0, 1e-9, -1e-9]], dtype=torch.float64)
    it = linear_interpreter(nn.Sequential(act()).eval(), x)
    torch.testing.assert_close(it.matrix(), gain * torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(it.residual, torch.full((3,), constant, dtype=torch.float64), rtol=0, atol=1e-8)
    torch.testing.assert_close(it.affine(x[0]), it.output)


# --- residuals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: vgg(bias=False), lambda: SuperResolution(bias=False)])
def test_without_biases_nothing_is_left(make):
    net, x = prepared(make()), images()
    it = linear_interpreter(net, x)
    assert torch.equal(it.residual, torch.zeros_like(it.residual))
    torch.testing.assert_close(it.apply(x[0]), net(x)[0])
    torch.testing.assert_close(net(3 * x), 3 * net(x))  # positively homogeneous


def test_a_folded_norm_gives_the_same_map():
    net, x = (
        prepared(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())),
        images(),
    )
    folded = torch.nn.utils.fuse_conv_bn_eval(net[0], net[1])
    one, other = linear_interpreter(net, x), linear_interpreter(nn.Sequential(folded, *net[2:]).eval(), x)
    torch.testing.assert_close(one.matrix(), other.matrix())
    torch.testing.assert_close(one.residual, other.residual)
    torch.testing.assert_close(one.residual_by_source()["normalization"], other.residual_by_source()["bias"])
    assert one.residual_by_source()["bias"].abs().max() == 0
    with torch.no_grad():
        folded.bias.zero_()
    assert linear_interpreter(nn.Sequential(folded, *net[2:]).eval(), x).residual.abs().max() == 0


def test_residuals_are_the_bias_gradients():
    """As in FullGrad: for ReLU networks r_c is the sum over all biases of b dy_c/db."""
    net, x = prepared(vgg()), images()
    it, biases = linear_interpreter(net, x), [p for name, p in net.named_parameters() if name.endswith("bias")]
    for c, logit in enumerate(net(x)[0]):
        gradients = torch.autograd.grad(logit, biases, retain_graph=True)
        total = sum((b * g).sum() for b, g in zip(biases, gradients, strict=True))
        torch.testing.assert_close(it.residual[c], total.detach())


def test_votes_and_the_residual_add_up_to_the_logit():
    net, x = prepared(gap_classifier()), images()
    it = linear_interpreter(net, x)
    votes = it.contributions()
    assert votes.shape == (5, 8, 8)
    torch.testing.assert_close(votes.sum((1, 2)) + it.residual, net(x)[0])
    torch.testing.assert_close(it.contributions(2), votes[2])
    torch.testing.assert_close(votes[1], (jacobian(net, x)[1].view(3, 8, 8) * x[0]).sum(0))  # input times gradient
    share = it.bias_share()
    torch.testing.assert_close(share, it.residual.abs() / (it.residual.abs() + votes.sum((1, 2)).abs()))
    assert it.bias_share(3) == share[3]


# --- linear networks, singular vectors --------------------------------------------------------------------------------


def test_a_linear_network_has_one_matrix():
    net = prepared(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(2), nn.ConvTranspose2d(4, 2, 3, 2), nn.PixelShuffle(1))
    )
    first, second = (linear_interpreter(net, x) for x in (images(), 1 - images()))
    assert torch.equal(first.matrix(), second.matrix())
    assert torch.equal(first.residual, second.residual)


def test_bicubic_upsampling_has_its_kernel_in_its_rows():
    net = nn.Upsample(scale_factor=2, mode="bicubic").eval()
    it = linear_interpreter(net, images(1, 8))
    assert it.residual.abs().max() == 0
    row = it.rows([(0, 7, 7)])[0, 0]  # at 3.25 in input pixels

    def kernel(d, a=-0.75):
        d = np.abs(d)
        near, far = (a + 2) * d**3 - (a + 3) * d**2 + 1, a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0))

    weights = kernel(np.arange(8) - 3.25)
    np.testing.assert_allclose(row.numpy(), np.outer(weights, weights), atol=1e-12)


@pytest.mark.parametrize("name", ["vgg", "unet", "sr"])
def test_singular_triplets(name):
    it = linear_interpreter(prepared(NETWORKS[name]()), images())
    F0 = it.matrix().numpy()
    U, S, V, error = it.svd(4, iterations=40, tolerance=1e-10)
    np.testing.assert_allclose(S, np.linalg.svd(F0)[1][:4], rtol=1e-8)
    U, V = U.flatten(1).numpy(), V.flatten(1).numpy()
    for vectors in (U, V):
        np.testing.assert_allclose(vectors @ vectors.T, np.eye(4), atol=1e-10)
    np.testing.assert_allclose(F0 @ V.T, U.T * S.numpy(), atol=1e-4)
    assert error <= 1e-10
    np.testing.assert_allclose(np.sort(svds(it.as_linear_operator(), 3)[1]), S.numpy()[2::-1], rtol=1e-6)
    assert it.svd(4, iterations=1).error > 1e-3


def test_svd_of_all_of_a_map_of_low_rank():
    net = prepared(nn.Sequential(nn.Flatten(), nn.Linear(12, 2), nn.Linear(2, 6)))
    it = linear_interpreter(net, images(3, 2))
    np.testing.assert_allclose(it.svd(6).S, np.linalg.svd(it.matrix().numpy())[1], atol=1e-8)


def test_eigenvectors_of_a_square_map():
    it = linear_interpreter(
        prepared(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))), images(1, 6)
    )
    found = eigs(it.as_linear_operator(), 2, return_eigenvectors=False)
    expected = np.linalg.eigvals(it.matrix().numpy())
    np.testing.assert_allclose(np.abs(found).max(), np.abs(expected).max(), rtol=1e-8)


# --- units and spellings ----------------------------------------------------------------------------------------------


def test_max_pooling_ties_go_to_the_first():
    it = linear_interpreter(nn.MaxPool2d(2).eval(), torch.ones(1, 1, 2, 2))
    assert torch.equal(it.matrix(), torch.tensor([[1.0, 0, 0, 0]]))


def test_statistics_are_those_of_x0():
    x, u = images(2, 4, 1), images(2, 5, 1)[..., :4, :4]
    norm = nn.InstanceNorm2d(2)
    y = LinearScope(norm.eval())(x, u)[1]
    mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(y, (u - mean) / (variance + norm.eps).sqrt())


def test_of_two_factors_the_gate_is_frozen():
    class Gate(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3), keepdim=True) * x

    x, u = images(2, 4), torch.randn(1, 2, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(LinearScope(Gate().eval())(x, u)[1], x.mean((2, 3), keepdim=True) * u)


class Lambda(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def written(x):
    x = x.clone()
    x[:, :1] = x[:, 1:2].relu()
    x[:, 1:].relu_().mul_(2)
    return x


def assigned(x):
    x[:, 0] = 0.5
    return x


def accumulated(x):
    first = x.sigmoid()
    kept = first[:, :1]
    first += x
    F.relu_(first)
    return kept + first.mul_(3)


def unpooled(x):
    pooled, index = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(pooled, index, 2)


def convolved(x):
    return F.conv2d(x, torch.linspace(-1, 1, 48).double().view(4, 3, 2, 2))


def rewritten(x):
    """What ReLU and pooling have seen is overwritten."""
    h = x.relu()
    pooled = F.max_pool2d(h, 2)
    h[:, 0] = 0.3
    return h.mean(1, keepdim=True) + F.interpolate(pooled, scale_factor=2)


def written_through_a_view(x):
    h = convolved(x)
    h.flatten(1)[:, :9] = 0.5
    return h.relu()


SPELLINGS = {
    "torch.relu": torch.relu,
    "method": lambda x: x.relu(),
    "in place": lambda x: x.relu_(),
    "clamp": lambda x: x.clamp_(0),
    "threshold": lambda x: F.threshold(x, 0.1, 0.5),
    "elu": lambda x: F.elu_(x),
    "mask": lambda x: x * (x > 0),
    "where": lambda x: torch.where(x > 0.2, x, 0.1 * x),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0.3),
    "assigned": assigned,
    "views": written,
    "views in place": accumulated,
    "unpool": unpooled,
    "rewritten": rewritten,
    "written through a view": written_through_a_view,
    "convolved view": lambda x: convolved(x).view(len(x), -1),
    "convolved mean": lambda x: F.adaptive_avg_pool2d(convolved(x), 1),
    "convolved pool": lambda x: F.max_pool2d(convolved(x).relu(), 2),
    "without gradients": lambda x: x.relu() if torch.is_grad_enabled() else (x + x).clamp(min=0) / 2,
    "reflected": lambda x: 1 - 2 / (3 + x.square()),
    "power": lambda x: x**3 + 2.0,
    "norm by hand": lambda x: (x - x.mean(1, keepdim=True)) / torch.sqrt(x.var(1, keepdim=True) + 1e-5),
    "lrn": lambda x: F.local_response_norm(x, 2),
    "normalize": F.normalize,
    "rms": lambda x: F.rms_norm(x, [8]),
    "layer norm": lambda x: F.layer_norm(x, [8, 8]),
    "abs": torch.abs,
    "sqrt": lambda x: x.relu().sqrt(),
    "amax": lambda x: x.amax((2, 3)),
    "max": lambda x: x.max(1)[0],
    "min": lambda x: x.min(-1, keepdim=True).values,
    "maximum": lambda x: torch.maximum(x, x.flip(1)),
    "constant": lambda x: torch.maximum(x, torch.zeros(1).double()),
    "adaptive max": lambda x: F.adaptive_max_pool2d(x, 3),
    "adaptive mean": lambda x: F.adaptive_avg_pool2d(x, 3),
    "1d": lambda x: F.max_pool1d(x.flatten(2), 3),
    "coordinates": lambda x: torch.cat([x, torch.ones(len(x), 1, 8, 8).double()], 1),
    "pads": lambda x: F.pad(
        F.pad(F.pad(x, (1, 1, 1, 1), mode="reflect"), (1, 0), value=0.7), (0, 1, 1, 0), "replicate"
    ),
    "attention": lambda x: F.scaled_dot_product_attention(x, 2 * x, x - 1),
    "matmul": lambda x: (x @ x.mT).softmax(-1) @ x,
    "einsum": lambda x: torch.einsum("nchw,ndhw->ncd", x, x),
    "softmax": lambda x: x.softmax(1),
    "glu": lambda x: F.glu(x, 2),
    "chunks": lambda x: torch.stack([a * torch.sigmoid(b) for a, b in [x.chunk(2, 2)]]).sum(0),
    "batch in view": lambda x: F.batch_norm(x.reshape(1, -1, 8, 8), None, None, training=True).view(-1, 3, 8, 8),
    "transposed": lambda x: F.linear(x.permute(0, 2, 3, 1).flatten(1, 2), torch.ones(2, 3).double()).transpose(1, 2),
    "shuffles": lambda x: F.pixel_unshuffle(F.channel_shuffle(x, 3), 2),
    "fold": lambda x: F.fold(F.unfold(x, 2), 8, 2),
    "up": lambda x: F.interpolate(F.avg_pool2d(x, 2), size=(7, 9), mode="bilinear"),
    "rows": lambda x: torch.stack(list(x)),
    "decision": lambda x: (x > 0).double() + x.std(),
    "named": lambda x: F.relu(input=F.conv2d(x, weight=torch.ones(1, 3, 2, 2).double())),
    "dynamic weight": lambda x: F.conv2d(x, x[:1, :, :2, :2]),
    "detached": lambda x: x.detach() * x.data.sigmoid(),
    "self": lambda x: (x + x.mean()) / (1 + x.abs()),
    "gather": lambda x: x.gather(1, x.argsort(1)),
    "copy": lambda x: torch.relu(x).copy_(x),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_met(spelling):
    """On its own, with several probes, and on the way back; the picture itself is never overwritten."""
    net, x = Lambda(SPELLINGS[spelling]).eval(), images()
    before = x.clone()
    it = linear_interpreter(net, x)
    assert torch.equal(it.output, net(x.clone())[0])
    probes = torch.cat([x, torch.randn(2, 3, 8, 8, dtype=torch.float64)])
    torch.testing.assert_close(it.affine(probes)[0], it.output)
    torch.testing.assert_close(it.apply(probes)[1], it.apply(probes[1]))
    torch.testing.assert_close(LinearScope(net)(x, probes, constants=False)[1], it.apply(probes))
    z = torch.randn(2, *it.output_shape, dtype=torch.float64)
    torch.testing.assert_close((it.apply(probes[1]) * z[0]).sum(), (it.adjoint(z)[0] * probes[1]).sum())
    torch.testing.assert_close(it.apply(probes[1] + 2 * probes[2]), it.apply(probes[1]) + 2 * it.apply(probes[2]))
    assert torch.equal(x, before)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_memory_layout_changes_nothing(layout):
    net, x = prepared(vgg()), images(n=2)
    probes = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    expected = LinearScope(net)(x, probes)[1]
    torch.testing.assert_close(
        LinearScope(net)(x.to(memory_format=layout), probes.to(memory_format=layout))[1], expected
    )


# --- a user's own units -----------------------------------------------------------------------------------------------


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.frac(x)


@pytest.mark.parametrize("key", ["module", "function", "name"])
def test_a_rule_of_ones_own(key):
    class Shrink(Square):
        pass

    net, x = nn.Sequential(nn.Conv2d(3, 2, 3), Shrink(), nn.Conv2d(2, 1, 1)).double().eval(), images()
    with pytest.raises(NotImplementedError, match=r"no rule for torch.frac in '1' \(Shrink, line \d+ of test_linear"):
        linear_interpreter(net, x)
    extra = {"module": {Square: lambda unit, x0, x1: torch.frac(x0) * x1}}.get(key)
    if key != "module":
        extra = {torch.frac if key == "function" else "frac": lambda unit, x0, x1: unit(x0) / x0 * x1}
    it = linear_interpreter(net, x, extra=extra)
    torch.testing.assert_close(it.affine(x[0]), net(x)[0])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_actions_may_view_what_was_convolved():
    class Unit(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(len(x), -1).frac()

    def action(unit, x0, x1):
        return x1.view(len(x1), -1) * 2

    net, x, probes = nn.Sequential(nn.Conv2d(3, 4, 3), Unit()).double().eval(), images(), images(n=3)
    for key in (Unit, "frac"):
        it = linear_interpreter(net, x, extra={key: action})
        torch.testing.assert_close(it.apply(probes)[1], it.apply(probes[1]))


def test_making_is_one_pass_and_rows_take_none():
    passes = []
    net, x = Lambda(lambda x: passes.append(len(x)) or x.sigmoid().flatten(1)).eval(), images()
    it = linear_interpreter(net, x)
    it.rows([0, 1, 2])
    assert len(passes) == 1
    it.columns([0, 1, 2])
    assert len(passes) == 2
    assert it.residual is it.residual
    assert len(passes) == 3


def test_a_networks_state_is_left_as_found_also_after_an_exception():
    class Broken(Square):
        pass

    net = prepared(nn.Sequential(Block(3, 4), nn.Dropout(), Square(), Broken(), nn.Hardshrink()))
    net[0].conv1.weight.requires_grad_(False)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    objects = [(module, dict(vars(module))) for module in net.modules()]

    def fail(unit, x0, x1):
        raise KeyError("mine")

    for extra, error in (({Square: lambda u, x0, x1: x1}, None), ({Square: fail}, KeyError), ({}, NotImplementedError)):
        grad = torch.is_grad_enabled()
        if error is None:
            linear_interpreter(net, images(), extra=extra).rows([0, 1])
        else:
            with pytest.raises(error):
                linear_interpreter(net, images(), extra=extra)
        assert grad == torch.is_grad_enabled()
        assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
        assert all(parameter.grad is None for parameter in net.parameters())
        for module, attributes in objects:
            assert vars(module).keys() == attributes.keys()
            assert all(vars(module)[key] is value for key, value in attributes.items())
            assert not module._forward_hooks and not module._forward_pre_hooks
    with torch.inference_mode():
        assert linear_interpreter(net[0], images()).rows([0]).shape == (1, 3, 8, 8)


# --- wrong input ------------------------------------------------------------------------------------------------------


def branching(x):
    return x if x.sum() > 0 else -x


def of(function, x):
    return linear_interpreter(Lambda(function).eval(), x)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda net, x: linear_interpreter(net.train(), x), ValueError, "training mode.*model.eval"),
        (lambda net, x: linear_interpreter(net, x[0]), ValueError, r"with its batch dimension.*not \(3, 8, 8\)"),
        (lambda net, x: linear_interpreter(net, x[:, :2]), ValueError, r"conv2d in '0' \(Conv2d.* \(1, 2, 8, 8\)"),
        (lambda net, x: linear_interpreter(net, x[..., :4]), ValueError, r"linear in '7' \(Linear"),
        (lambda net, x: linear_interpreter(net, x.float()), ValueError, "conv2d in '0'"),
        (lambda net, x: linear_interpreter(net, x / 0), ValueError, "NaN or infinite"),
        (lambda net, x: linear_interpreter(net, x.long()), ValueError, "floats"),
        (lambda net, x: linear_interpreter(net, x, batch_size=0), ValueError, "batch_size"),
        (lambda net, x: linear_interpreter(net, x, pointwise="slope"), ValueError, 'not \'slope\''),
        (lambda net, x: linear_interpreter(net, x, eps=0), ValueError, "eps must be above 0"),
        (lambda net, x: linear_interpreter(net, x, units=("rellu",)), ValueError, "rellu"),
        (lambda net, x: linear_interpreter(net, x, units="relu"), ValueError, "collection"),
        (lambda net, x: linear_interpreter(net, x, units=("relu",)), NotImplementedError, "max_pool2d in '2'"),
        (lambda net, x: LinearScope(net)(x, x[..., :4]), ValueError, r"x1 must be like x0.*\(1, 3, 8, 4\)"),
        (lambda net, x: LinearScope(net)(x, x, constants=("biases",)), ValueError, "constants are"),
        (lambda net, x: linear_interpreter(net, x).apply(x[0, 0]), ValueError, r"shape \(3, 8, 8\).*this is \(8, 8\)"),
        (lambda net, x: linear_interpreter(net, x).adjoint(x), ValueError, r"an output has the shape \(5,\)"),
        (lambda net, x: linear_interpreter(net, x).contributions(5), ValueError, "class 5 is out of range.*0 to 4"),
        (lambda net, x: linear_interpreter(net, x).bias_share(-1), ValueError, "class -1 is out of range"),
        (lambda net, x: linear_interpreter(net[:2].eval(), x).contributions(0), ValueError, "no classifier"),
        (lambda net, x: linear_interpreter(net, x).columns([192]), ValueError, "out of range"),
        (lambda net, x: linear_interpreter(net, x).columns([0, -1]), ValueError, "out of range"),
        (lambda net, x: linear_interpreter(net, x).columns([(0, 1, 2), (2, 8, 0)]), ValueError, "out of range"),
        (lambda net, x: linear_interpreter(net, x).rows(3), ValueError, "whole numbers"),
        (lambda net, x: linear_interpreter(net, x).columns([(1, 2)]), ValueError, "one tuple of 3"),
        (lambda net, x: linear_interpreter(net, x).matrix(limit=1000), ValueError, "needs 7,680 bytes"),
        (lambda net, x: linear_interpreter(net, x).svd(6), ValueError, "F has 5 singular values"),
        (lambda net, x: of(branching, x), NotImplementedError, "control flow"),
        (lambda net, x: of(lambda x: x.mean().item() * x, x), NotImplementedError, "item in"),
        (lambda net, x: of(torch.erfinv, x), NotImplementedError, "no rule for torch.erfinv"),
        (lambda net, x: of(lambda x: (x, x), x), ValueError, "returns a tuple"),
        (lambda net, x: of(lambda x: (-1 - x.abs()).log(), x), ValueError, "output holds NaN"),
        (lambda net, x: of(F.dropout, x), ValueError, "dropout in .* is in training mode"),
        (lambda net, x: of(lambda x: torch.zeros(1, 3, 8, 8).double().add_(x), x),
         NotImplementedError, "into a constant in place"),
        (lambda net, x: of(lambda x: x.sum(), x), ValueError, "batch must stay in front"),
    ],
)  # fmt: skip
def test_wrong_input(call, error, message):
    net = prepared(vgg())
    with pytest.raises(error, match=message):
        call(net, images())


def test_memory_does_not_grow_with_depth():
    """The most bytes alive at once in a product with F, against the network's own."""

    def peak(function) -> int:
        with torch.profiler.profile(profile_memory=True) as profile:
            function()
        events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
        return int(np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]).max())

    peaks = []
    for depth in (4, 16):
        net = nn.Sequential(*[m for _ in range(depth) for m in (nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())]).eval()
        x, scope = torch.randn(4, 8, 32, 32), LinearScope(net)
        with torch.inference_mode():
            own = peak(lambda net=net, x=x: net(x))
        peaks.append((own, peak(lambda scope=scope, x=x: scope(x, x, constants=False))))
    (own, ours), (deep_own, deep_ours) = peaks
    assert deep_ours - ours <= deep_own - own + 0.02 * ours
    assert ours <= 3 * own
