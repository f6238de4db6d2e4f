"""Modern Hopfield networks against closed forms, PyTorch's attention, and the counts of the published code."""

import copy
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.nn import functional as F

from reprise.nn import (
    AssociativeMemory,
    DenseMemory,
    HebbianMemory,
    Hopfield,
    HopfieldAttention,
    HopfieldLayer,
    HopfieldPooling,
    convert_to_hopfield,
    hopfield,
    parameters,
)
from reprise.nn.hopfield import energy, memory, retrieve, separation, update


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def signs(*shape):
    return torch.randint(0, 2, shape).mul(2).sub(1).float()


def louder(layer, std=0.5):
    """Weights so large that the layer does something."""
    for name, parameter in layer.named_parameters():
        if "norm" not in name and "beta" not in name:
            nn.init.normal_(parameter, std=std)
    return layer


def quiet(*args, **options):
    """A layer without input norms."""
    return louder(Hopfield(*args, **{"state_norm": False, "stored_norm": False, "projection_norm": False} | options))


# --- the memory -------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    N=st.integers(1, 12),
    d=st.integers(1, 8),
    beta=st.floats(0.01, 50),
    scale=st.sampled_from([0.1, 1.0, 5.0]),
)
def test_energy_never_rises_and_is_bounded(seed, N, d, beta, scale):
    X, xi = draw(2, N, d, seed=seed), scale * draw(2, 3, d, seed=seed + 1)
    trace = retrieve(xi, X, beta, steps=4, return_trace=True)
    assert (trace.energies.diff(dim=0) <= 1e-9 * (1 + trace.energies[:-1].abs())).all()
    largest = X.square().sum(-1).amax(-1)[:, None]
    inside = trace.energies[1:]  # after one update a state lies in the convex hull
    assert (inside >= -1e-9).all() and (inside <= 2 * largest + 1e-9).all()


def test_the_update_is_a_gradient_step():
    X, xi = draw(9, 5), draw(4, 5, seed=1).requires_grad_()
    (gradient,) = torch.autograd.grad(energy(xi, X, 2.0).sum(), xi)
    torch.testing.assert_close(update(xi, X, 2.0), xi - gradient)
    settled = retrieve(xi.detach(), X, 2.0, steps=None, eps=1e-12).requires_grad_()
    (gradient,) = torch.autograd.grad(energy(settled, X, 2.0).sum(), settled)
    assert gradient.abs().max() < 1e-9


def test_limits_of_beta_and_a_single_pattern():
    X, xi = draw(9, 5), draw(4, 5, seed=1)
    torch.testing.assert_close(update(xi, X, 1e-9), X.mean(0).expand(4, 5), atol=1e-7, rtol=0)
    torch.testing.assert_close(update(xi, X, 1e6), X[(xi @ X.T).argmax(1)])
    torch.testing.assert_close(update(xi, X[:1], 0.3), X[:1].expand(4, 5))
    assert retrieve(xi, X[:1], 0.3, steps=None, return_trace=True).steps.tolist() == [2] * 4  # the second confirms


def test_orthogonal_patterns_in_closed_form():
    N, norm, beta = 6, 1.5, 0.7
    X = norm * torch.eye(8, dtype=torch.float64)[:N]
    p = retrieve(X, X, beta, return_trace=True).association
    own = np.exp(beta * norm**2)
    expected = (torch.ones(N, N) + (own - 1) * torch.eye(N)) / (own + N - 1)
    torch.testing.assert_close(p, expected.double())


def test_error_bound_holds_for_well_separated_patterns():
    X = 5 * F.normalize(draw(20, 64), dim=1)
    assert hopfield.well_separated(X, beta=1.0).all()
    for distance in (0.0, 0.3, 1.0):
        xi = X + distance * F.normalize(draw(20, 64, seed=1), dim=1)
        error = (update(xi, X, 1.0) - X).norm(dim=1)
        bound = hopfield.retrieval_error_bound(X, 1.0, distance)
        assert (error <= bound).all() and (bound < 1).any()
    bound = hopfield.retrieval_error_bound(2 * torch.eye(3), 1.5, 0.5)  # separation 4, largest norm 2
    torch.testing.assert_close(bound, torch.full((3,), 2 * 2 * np.exp(-1.5 * (4 - 2 * 0.5 * 2)) * 2).float())


def test_separation_by_hand():
    X = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    torch.testing.assert_close(separation(X), torch.tensor([0.0, 2.0, 0.0]))
    assert separation(X[:1]).isinf().all() and hopfield.well_separated(X[:1], 1.0).all()


def test_capacity_of_both_examples_of_the_paper():
    assert hopfield.capacity_constant(d=20, K=3, beta=1, p=0.001) == pytest.approx(3.1546, abs=1e-4)
    assert hopfield.capacity_constant(d=75, K=1, beta=1, p=0.001) == pytest.approx(
        1.3718, abs=1e-4
    )  # the paper cuts digits off
    assert hopfield.capacity_bound(20, 3, 1, 0.001) == pytest.approx(0.001**0.5 * 3.1546 ** (19 / 4), rel=1e-3)
    with pytest.raises(ValueError, match="the theorem needs"):
        hopfield.capacity_bound(3, 0.5, 1, 0.001)
    with pytest.raises(ValueError, match="0 < p <= 1"):
        hopfield.capacity_bound(20, 3, 1, 0.0)


@pytest.mark.parametrize("steps", [1, 3, None])
def test_masked_patterns_are_not_there_and_a_batch_is_its_elements(steps):
    X, xi, mask = draw(3, 7, 4), draw(3, 5, 4, seed=1), torch.arange(7) >= torch.tensor([[7], [4], [1]])
    whole = retrieve(xi, X, 3.0, steps, mask=mask, return_trace=True)
    for i, count in enumerate((7, 4, 1)):
        alone = retrieve(xi[i], X[i, :count], 3.0, steps, return_trace=True)
        torch.testing.assert_close(whole.state[i], alone.state)
        torch.testing.assert_close(whole.energies[: len(alone.energies), i], alone.energies)
        assert whole.steps[i].equal(alone.steps)
        for j in range(5):
            torch.testing.assert_close(retrieve(xi[i, [j]], X[i, :count], 3.0, steps)[0], whole.state[i, j])


@pytest.mark.parametrize("masked", [False, True])
def test_large_memories_are_asked_in_pieces(masked, monkeypatch):
    X, xi = torch.randn(50, 6).double(), torch.randn(7, 6).double().requires_grad_()
    mask = torch.arange(50) % 3 == 0 if masked else None
    whole = retrieve(xi, X, 2.0, 3, mask=mask)
    (expected,) = torch.autograd.grad(whole.sum(), xi)
    monkeypatch.setattr(memory, "LARGE", 7 * 50 - 1)
    monkeypatch.setattr(memory, "_logits", None)  # all associations at once
    found = retrieve(xi, X, 2.0, 3, mask=mask)
    torch.testing.assert_close(found, whole)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), xi)[0], expected)


def test_stopping_on_states():
    X, xi = draw(7, 4), draw(5, 4, seed=1)
    for rule in ("association", "state"):
        trace = retrieve(xi, X, 1.0, None, eps=1e-8, stop_on=rule, return_trace=True)
        torch.testing.assert_close(update(trace.state, X, 1.0), trace.state, atol=1e-6, rtol=0)


def test_metastable_sizes_and_heads():
    p = torch.tensor([[1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.4, 0.06, 0.04]])
    assert hopfield.classify_fixed_point(p).tolist() == [1, 4, 2]
    assert hopfield.classify_fixed_point(p, threshold=0.5).tolist() == [1, 2, 1]

    def over(k):
        return torch.cat([torch.full((3, k), 1 / k), torch.zeros(3, 64 - k)], 1)

    assert hopfield.classify_heads(torch.stack([over(64), over(20), over(6), over(2)])[None]) == [
        "I",
        "II",
        "III",
        "IV",
    ]


def test_associative_memory_stores_five_pictures_and_retrieves_them():
    pictures = draw(5, 28 * 28, dtype=torch.float32)
    memory = AssociativeMemory(pictures)
    half = pictures.clone()
    half[:, 392:] = 0
    torch.testing.assert_close(memory(half), pictures)
    assert memory.nearest(half).tolist() == [0, 1, 2, 3, 4] and memory.association(half).shape == (5, 5)
    assert (memory.energy(memory(half)) <= memory.energy(half)).all() and parameters(memory) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_of_large_patterns(dtype):
    X = (100 * signs(20, 256)).to(dtype)  # their squares are far beyond float16
    assert update(X, X, 1.0).dtype == dtype and update(X, X, 1.0).equal(X) and energy(X, X, 1.0).isfinite().all()


BAD_MEMORY = {
    "beta is an inverse temperature above 0, not 0": lambda x: update(x, x, 0),
    "beta is an inverse temperature above 0, not -1": lambda x: energy(x, x, -1),
    "beta is an inverse temperature above 0, not nan": lambda x: energy(x, x, float("nan")),
    r"not \(3, 4\) and \(3, 3\)": lambda x: update(x, x[:, :3], 1.0),
    r"not \(4,\)": lambda x: update(x[0], x, 1.0),
    "call .float": lambda x: update(x.long(), x.long(), 1.0),
    "no stored patterns": lambda x: update(x, x[:0], 1.0),
    "all its patterns masked": lambda x: update(x, x, 1.0, torch.ones(3, dtype=torch.bool)),
    r"\(..., 3\) booleans": lambda x: update(x, x, 1.0, torch.ones(2, dtype=torch.bool)),
    "eps must be above 0": lambda x: retrieve(x, x, 1.0, None, eps=0),
    "steps is at least 1": lambda x: retrieve(x, x, 1.0, 0),
    "stop_on is": lambda x: retrieve(x, x, 1.0, stop_on="energy"),
    "NaN or infinite": lambda x: AssociativeMemory(x / 0),
    "threshold is a mass": lambda x: hopfield.classify_fixed_point(x, 0),
    "the association is": lambda x: hopfield.classify_heads(x),
}


@pytest.mark.parametrize("message", BAD_MEMORY)
def test_bad_input_of_the_memory(message):
    with pytest.raises(ValueError, match=message):
        BAD_MEMORY[message](torch.ones(3, 4))


def test_nothing_to_retrieve_is_nothing():
    assert update(torch.zeros(0, 4), torch.ones(3, 4), 1.0).shape == (0, 4)
    assert update(torch.zeros(0, 2, 4), torch.ones(0, 3, 4), 1.0).shape == (0, 2, 4)


# --- the classical memories -------------------------------------------------------------------------------------------


def test_hebbian_memory_by_hand_and_its_energy():
    X = signs(3, 40)
    memory = HebbianMemory(X)
    weight = sum(torch.outer(x, x) for x in X).double() / 40
    torch.testing.assert_close(memory.weight, weight.fill_diagonal_(0))
    noisy = X * torch.where(torch.arange(40) < 4, -1, 1)
    for order in ("synchronous", "random"):
        assert memory(noisy, order=order).equal(X)
    start = signs(20, 40)
    assert (memory.energy(memory(start, steps=1, order="random")) <= memory.energy(start)).all()


@pytest.mark.parametrize("degree", [2, 3, 4, 5, None])
def test_dense_memory_compares_the_energies_of_both_bits(degree):
    X, xi = signs(11, 9), signs(6, 9)
    memory = DenseMemory(X, degree)
    expected = xi.clone()
    for j in range(9):
        plus, minus = xi.clone(), xi.clone()
        plus[:, j], minus[:, j] = 1, -1
        gain = memory.energy(minus) - memory.energy(plus)
        expected[:, j] = torch.where(gain.abs() < 1e-9, xi[:, j], gain.sign().float())
    assert memory(xi).equal(expected)
    assert (memory.energy(memory(xi, order="random")) <= memory.energy(xi)).all()


def test_bad_input_of_the_classical_memories():
    for make in (HebbianMemory, DenseMemory):
        with pytest.raises(ValueError, match=r"patterns are \(number, d\) of -1 and \+1"):
            make(torch.zeros(2, 3))
        with pytest.raises(ValueError, match="states are"):
            make(signs(2, 3))(torch.zeros(2, 3))
        with pytest.raises(ValueError, match="order is"):
            make(signs(2, 3))(signs(2, 3), order="sorted")
    with pytest.raises(ValueError, match="degree is"):
        DenseMemory(signs(2, 3), 1)


# --- the layers -------------------------------------------------------------------------------------------------------

PUBLISHED = {
    "Hopfield(20)": (lambda: Hopfield(20), 1_800),
    "Hopfield(20, hidden 8, 8 heads)": (lambda: Hopfield(20, 8, num_heads=8), 5_452),
    "HopfieldPooling(20)": (lambda: HopfieldPooling(20), 1_820),
    "HopfieldLayer(20, quantity 20)": (lambda: HopfieldLayer(20, quantity=20), 2_200),
    "HopfieldPooling(500, hidden 32)": (lambda: HopfieldPooling(500, hidden_size=32, output_size=500), 68_096),
    "Hopfield(64, hidden 32, 8 heads)": (lambda: Hopfield(64, 32, num_heads=8), 66_752),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_of_the_published_code(name):
    make, count = PUBLISHED[name]
    assert parameters(make()) == count


def test_initial_weights():
    layer = Hopfield(200)
    assert layer.q_proj.weight.std().item() == pytest.approx(0.02, rel=0.05) and not layer.q_proj.bias.any()
    assert HopfieldLayer(200, quantity=50).patterns.std().item() == pytest.approx(0.02, rel=0.05)


def masks(L, S):
    padding = torch.arange(S) >= torch.tensor([[S], [3], [1]])
    return {
        "none": {},
        "padding": {"key_padding_mask": padding},
        "causal": {"attn_mask": torch.ones(L, S).tril().log()},
        "booleans": {"attn_mask": torch.ones(L, S).tril() == 0},
        "both": {"key_padding_mask": padding, "attn_mask": torch.ones(L, S).tril() == 0},
        "heads": {"attn_mask": draw(3 * 4, L, S, dtype=torch.float32)},
        "float padding": {"key_padding_mask": draw(3, S, dtype=torch.float32)},
        "float padding, heads": {"key_padding_mask": draw(3, S).float(), "attn_mask": draw(12, L, S).float()},
    }


@pytest.mark.parametrize("kind", masks(2, 6))
@pytest.mark.parametrize("sizes", [{}, {"kdim": 5, "vdim": 9}])
def test_one_update_is_the_attention_of_pytorch(kind, sizes):
    peer = louder(nn.MultiheadAttention(16, 4, batch_first=True, **sizes))
    ours = HopfieldAttention.from_attention(peer)
    q, k, v = (
        draw(3, 5, 16).float(),
        draw(3, 6, sizes.get("kdim", 16)).float(),
        draw(3, 6, sizes.get("vdim", 16)).float(),
    )
    for options in ({}, {"average_attn_weights": False}, {"need_weights": False}):
        out, weights = ours(q, k, v, **masks(5, 6)[kind], **options)
        expected, expected_weights = peer(q, k, v, **masks(5, 6)[kind], **options)
        torch.testing.assert_close(out, expected)
        if expected_weights is None:
            assert weights is None
        else:
            torch.testing.assert_close(weights, expected_weights)


def test_drop_in_layouts_and_gradients():
    x = draw(7, 3, 16).requires_grad_()
    for batch_first, bias in product((False, True), (False, True)):
        peer = louder(nn.MultiheadAttention(16, 4, batch_first=batch_first, bias=bias)).double()
        ours = HopfieldAttention.from_attention(peer)
        for y in (x, x[:, 0]):
            torch.testing.assert_close(ours(y, y, y), peer(y, y, y))
        gradients = [torch.autograd.grad(layer(x, x, x)[0].square().sum(), x)[0] for layer in (ours, peer)]
        torch.testing.assert_close(*gradients)


def test_one_update_equals_scaled_dot_product_attention():
    layer = quiet(8, num_heads=2)
    x = draw(3, 5, 8).float()
    q, k, v = (f(x).view(3, 5, 2, 4).transpose(1, 2) for f in (layer.q_proj, layer.k_proj, layer.v_proj))
    expected = layer.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(3, 5, 8))
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", [nn.TransformerEncoderLayer, nn.TransformerDecoderLayer])
def test_transformer_layers_with_hopfield(make, training):
    layer = make(16, 4, 32, dropout=0.0, batch_first=True).train(training)
    inputs = [draw(2, 5, 16).float()] * (1 if make is nn.TransformerEncoderLayer else 2)
    with torch.no_grad():
        expected = layer(*inputs)
        converted = convert_to_hopfield(layer)
        torch.testing.assert_close(converted(*inputs), expected)
        for module in converted.modules():
            if isinstance(module, Hopfield):
                module.update_steps_max = 3
        assert not torch.allclose(louder(converted)(*inputs), expected)


def iterate(layer, q, k, updates):
    """The update of one sample by the formula: (H, L, S)."""
    for _ in range(updates):
        A = torch.softmax(layer.beta[:, None, None] * q @ k.mT, -1)
        q = A @ k
    return A


@pytest.mark.parametrize("extra", [0, 1, 3])
def test_extra_updates_iterate_the_keys(extra):
    layer = quiet(8, num_heads=2, beta=[0.3, 1.5], update_steps_max=extra, update_steps_eps=1e-12)
    state, stored = draw(1, 3, 8).float(), draw(1, 6, 8, seed=1).float()
    q = layer.q_proj(state)[0].view(3, 2, 4).transpose(0, 1)
    k, v = (f(stored)[0].view(6, 2, 4).transpose(0, 1) for f in (layer.k_proj, layer.v_proj))
    A = iterate(layer, q, k, extra + 1)
    torch.testing.assert_close(layer.association(state, stored)[0], A)
    torch.testing.assert_close(layer(state, stored)[0], layer.out_proj((A @ v).transpose(0, 1).reshape(3, 8)))


def test_until_converged_is_a_fixed_point_and_each_sample_stops_for_itself():
    layer = quiet(8, num_heads=2, beta=2.0, update_steps_max=None, update_steps_eps=1e-3)
    x = torch.cat([draw(1, 4, 8), 0.01 * draw(1, 4, 8)]).float()  # the second settles at once
    double, y = copy.deepcopy(layer).double(), x.double()  # products of another size round differently on some machines
    whole = double.association(y)
    for i in range(2):
        torch.testing.assert_close(double.association(y[[i]])[0], whole[i], rtol=0, atol=1e-14)
    double.update_steps_eps = 1e-5
    assert (double.association(y[[0]])[0] - whole[0]).abs().max() > 1e-12  # one update more is seen
    layer.update_steps_eps = 1e-6
    settled = layer.association(x)
    layer.update_steps_max = 200
    layer.update_steps_eps = 1e-30
    torch.testing.assert_close(layer.association(x), settled, atol=1e-4, rtol=0)


def test_a_layer_that_never_settles_says_so(monkeypatch):
    monkeypatch.setattr("reprise.nn.hopfield.layers.MOST_UPDATES", 2)
    monkeypatch.setattr("reprise.nn.hopfield.memory.MOST_UPDATES", 2)
    with pytest.raises(RuntimeError, match="raise update_steps_eps"):
        quiet(8, beta=1.0, update_steps_max=None, update_steps_eps=1e-30)(draw(1, 3, 8).float())
    with pytest.raises(RuntimeError, match="raise eps"):
        retrieve(draw(3, 8), draw(9, 8, seed=1), 0.5, None, eps=1e-30)


FLAGS = ("state_static", "stored_static", "projection_static")


@pytest.mark.parametrize("flags", list(product((False, True), repeat=3)), ids=str)
@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("extra", [0, None])
def test_a_batch_gives_what_its_elements_give(flags, heads, extra):
    layer = quiet(8, 8, num_heads=heads, update_steps_max=extra, **dict(zip(FLAGS, flags, strict=True)))
    state, stored = draw(3, 2, 8).float(), draw(3, 5, 8, seed=1).float()
    whole = layer(state, stored)
    for i in range(3):
        torch.testing.assert_close(layer(state[[i]], stored[[i]])[0], whole[i])


def test_static_layers_without_output_are_the_memory_itself():
    layer = Hopfield(
        8, **dict.fromkeys(FLAGS, True), output_projection=False,
        state_norm=False, stored_norm=False, projection_norm=False,
    )  # fmt: skip
    state, stored = draw(2, 3, 8).float(), draw(2, 5, 8, seed=1).float()
    assert parameters(layer) == 0 and layer.beta.tolist() == [1.0]
    torch.testing.assert_close(layer(state, stored), update(state, stored, 1.0))
    assert Hopfield(16).beta.item() == Hopfield(16, **dict.fromkeys(FLAGS, True)).beta.item() == 0.25


def test_connected_projections_pass_through_the_keys():
    layer = quiet(8, num_heads=2, projection_connected=True)
    x = draw(2, 5, 8).float()
    k = layer.k_proj(x)
    q, k, v = (y.view(2, 5, 2, 4).transpose(1, 2) for y in (layer.q_proj(x), k, layer.v_proj(k)))
    expected = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 5, 8)
    torch.testing.assert_close(layer(x), layer.out_proj(expected))
    assert parameters(quiet(8, stored_static=True, projection_connected=True).v_proj) == 72


def test_norm_in_the_association_space_is_shared_and_per_head():
    layer = louder(Hopfield(8, 4, num_heads=2, association_norm="affine"))
    assert parameters(layer) - parameters(Hopfield(8, 4, num_heads=2)) == 2 * 4
    with torch.no_grad():
        layer.association_norm.weight.copy_(torch.rand(4))
    x = draw(2, 5, 8).float()
    heads = [linear(norm(x)).view(2, 5, 2, 4).transpose(1, 2) for linear, norm in (
        (layer.q_proj, layer.state_norm), (layer.k_proj, layer.stored_norm)
    )]  # fmt: skip
    q, k = (F.layer_norm(y, (4,), layer.association_norm.weight) for y in heads)
    torch.testing.assert_close(layer.association(x), torch.softmax(q @ k.mT / 2, -1))


def test_a_head_with_beta_zero_is_uniform_and_no_other():
    layer = quiet(8, num_heads=2, beta=(0.0, 3.0), update_steps_max=2)
    A = layer.association(draw(3, 5, 8).float())
    torch.testing.assert_close(A[:, 0], torch.full((3, 5, 5), 0.2))
    assert (A[:, 1] - 0.2).abs().amax() > 0.1


def test_beta_can_be_learned_per_head():
    layer = quiet(8, num_heads=2, beta=0.7, learn_beta=True, update_steps_max=1)
    torch.testing.assert_close(layer.beta, torch.tensor([0.7, 0.7]))
    layer(draw(3, 5, 8).float()).square().sum().backward()
    assert (layer.log_beta.grad != 0).all() and not any(p.grad is None for p in layer.parameters())


@pytest.mark.parametrize("extra", [0, 2])
def test_order_does_not_matter_and_padding_is_not_there(extra):
    pool = louder(HopfieldPooling(8, quantity=3, num_heads=2, update_steps_max=extra))
    bags = draw(2, 6, 8).float()
    padding = torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
    whole = pool(bags, stored_pattern_padding_mask=padding)
    assert whole.shape == (2, 24)
    torch.testing.assert_close(pool(bags[[1], :4])[0], whole[1])
    bags[1, 4:] = 1e6
    torch.testing.assert_close(pool(bags, stored_pattern_padding_mask=padding), whole)
    order = torch.randperm(6)
    torch.testing.assert_close(pool(bags[:, order], stored_pattern_padding_mask=padding[:, order]), whole)
    A = pool.association(bags, stored_pattern_padding_mask=padding)
    assert A.shape == (2, 2, 3, 6) and not A[1, ..., 4:].any()


def test_learned_memory_is_shared_by_the_batch():
    for separate in (False, True):
        layer = louder(HopfieldLayer(8, quantity=5, separate_targets=separate, trainable=False))
        state = draw(3, 2, 8).float()
        patterns = layer.patterns.expand(3, -1, -1)
        values = layer.targets.expand(3, -1, -1) if separate else None
        torch.testing.assert_close(layer(state), Hopfield.forward(layer, state, patterns, values))
        assert layer.association(state).shape == (3, 1, 2, 5) and not layer.patterns.requires_grad
        assert not separate or layer.targets.requires_grad


def test_dropout_activation_and_state_dict():
    layer = louder(Hopfield(8, dropout=0.5, activation="relu", learn_beta=True))
    x = draw(3, 5, 8).float()
    assert not layer(x).equal(layer(x)) and (layer(x) >= 0).all()
    other = Hopfield(8, dropout=0.5, activation="relu", learn_beta=True).eval()
    other.load_state_dict(layer.state_dict())
    assert other(x).equal(layer.eval()(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("extra", [0, 2])
def test_dtypes_layouts_and_empty_batches(dtype, extra):
    layer = louder(Hopfield(8, num_heads=2, update_steps_max=extra), 0.3).eval()
    x = draw(3, 8, 5).float()
    expected = layer(x.mT.contiguous())
    torch.testing.assert_close(layer(x.mT), expected)
    assert layer(x.mT[:0]).shape == (0, 5, 8)
    assert HopfieldPooling(8, update_steps_max=extra)(x.mT[:0]).shape == (0, 8)
    out = layer.to(dtype)(x.mT.to(dtype))
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), expected, atol=0.1, rtol=0.1)
    one = layer.float().association(x.mT, x.mT[:, :1])
    assert (one == 1).all()


ALL = torch.ones(2, 3, dtype=torch.bool)
X = torch.ones(2, 3, 8)
BAD_LAYERS = {
    "8 cannot be divided by 3 heads": lambda: Hopfield(8, num_heads=3),
    "num_heads must be at least 1": lambda: Hopfield(8, num_heads=0),
    "hidden_size must be at least 1": lambda: Hopfield(8, hidden_size=0),
    "update_steps_eps must be above 0": lambda: Hopfield(8, update_steps_eps=0),
    "update_steps_max counts extra": lambda: Hopfield(8, update_steps_max=-1),
    "at least 0 and finite": lambda: Hopfield(8, beta=-1.0),
    "at least 0 and finite, not nan": lambda: Hopfield(8, beta=float("nan")),
    r"one per head \(2\)": lambda: Hopfield(8, num_heads=2, beta=[1.0, 2.0, 3.0]),
    "a learned beta must start above 0": lambda: Hopfield(8, beta=0, learn_beta=True),
    "dropout is a share": lambda: Hopfield(8, dropout=1.0),
    "association_norm is": lambda: Hopfield(8, association_norm="batch"),
    "activation is the name": lambda: Hopfield(8, activation="swoosh"),
    "hidden_size must be that": lambda: Hopfield(8, hidden_size=4, state_static=True),
    "they must agree": lambda: Hopfield(8, stored_pattern_size=4, state_static=True, stored_static=True),
    "cannot be connected": lambda: Hopfield(8, projection_static=True, projection_connected=True),
    "pass through the keys": lambda: Hopfield(8, pattern_projection_size=4, projection_connected=True),
    "not pattern_size 4": lambda: Hopfield(8, pattern_size=4, projection_static=True),
    "without output projection": lambda: Hopfield(8, output_size=4, output_projection=False),
    "quantity is the number": lambda: HopfieldPooling(8, quantity=0),
    "need separate_targets": lambda: HopfieldLayer(8, pattern_projection_size=4),
    r"state patterns are \(batch, length, 8\)": lambda: Hopfield(8)(X[0]),
    "stored patterns are": lambda: Hopfield(8)(X, X[:1]),
    "3 stored patterns came with 2": lambda: Hopfield(8)(X, X, X[:, :2]),
    "there are no stored patterns": lambda: Hopfield(8)(X, X[:, :0]),
    r"no stored pattern to look at, in samples 0, 1;": lambda: HopfieldPooling(8)(X, stored_pattern_padding_mask=ALL),
    "look at, in every sample": lambda: Hopfield(8)(X, association_mask=ALL[0].expand(3, 3)),
    "booleans, True = ignore": lambda: Hopfield(8)(X, stored_pattern_padding_mask=ALL.float()),
    "association_mask is one of": lambda: Hopfield(8)(X, association_mask=ALL),
    "is_causal is a hint": lambda: HopfieldAttention(8, 2)(X, X, X, is_causal=True),
    "no nn.MultiheadAttention in Linear": lambda: convert_to_hopfield(nn.Linear(2, 2)),
    "add_bias_kv": lambda: convert_to_hopfield(nn.MultiheadAttention(8, 2, add_bias_kv=True)),
}


@pytest.mark.parametrize("message", BAD_LAYERS)
def test_bad_input_of_the_layers(message):
    with pytest.raises(ValueError, match=message):
        BAD_LAYERS[message]()
