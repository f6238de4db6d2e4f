import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.nn import functional as F

from reprise.data import Episodes
from reprise.diffusion import EDM, edm_coefficients, sigma_schedule
from reprise.nn import GatedMLP, multiply_adds, parameters
from reprise.policies.mode import (
    CrossAttentionTransformer,
    Experts,
    MoDEBlock,
    MoDEPolicy,
    MoDETransformer,
    Router,
    Routing,
    load_balance,
    mutual_information,
    z_loss,
)
from reprise.testing import check_policy

SMALL = {"embed_dim": 16, "n_layers": 2, "n_heads": 2, "horizon": 4}


def network(seed=0, **options):
    torch.manual_seed(seed)
    net = MoDETransformer(5, 7, 3, **SMALL | options)
    for block in net.blocks:  # at the start all experts are equally probable
        if block.router is not None:
            nn.init.normal_(block.router.net[-1].weight)
    return net.eval()


def batch(n=3, seed=1, **options):
    g = torch.Generator().manual_seed(seed)
    shapes = {"actions": (n, 4, 3), "observations": (n, 2, 5), "goal": (n, 7)} | options
    return {name: torch.randn(shape, generator=g) for name, shape in shapes.items()}


def levels(n, sigma):
    return edm_coefficients(torch.full((n,), sigma)).c_noise


def call(net, sigma, n=3, seed=1):
    return net(**batch(n, seed), c_noise=levels(n, sigma))


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_layers", "obs_dim", "total", "active"),
    [(8, 512, 456_022_055, 254_564_391), (12, 2048, 685_853_751, 383_667_255)],
)
def test_published_parameters(n_layers, obs_dim, total, active):
    """The released module's counts; it holds a second embedding of observations that it never uses."""
    with torch.device("meta"):
        net = MoDETransformer(obs_dim, 512, 7, n_layers=n_layers)
    unused = obs_dim * 1024
    assert parameters(net) + unused == total
    assert net.active_parameters() + unused == active
    block = net.blocks[0]
    assert parameters(block.attention) == 4_197_632
    assert parameters(block.router) == 2_107_396
    assert parameters(block.experts) == 4 * 12_591_104
    assert total - active == n_layers * (4 - 2) * 12_591_104


def test_parameters_of_one_router_matrix_and_of_a_dense_block():
    assert parameters(MoDEBlock(16, 2, router_layers=1).router) == 16 * 4
    sparse, dense = MoDEBlock(16, 2), MoDEBlock(16, 2, n_experts=1, top_k=1, mlp_ratio=16)
    assert dense.router is None
    assert abs(parameters(dense.experts) - parameters(sparse.experts)) == 0


@pytest.mark.parametrize("options", [{}, {"n_experts": 1, "top_k": 1, "mlp_ratio": 16.0},
                                     {"noise_conditioning": "film", "noise_token": False}, {"router": "token"},
                                     {"router": "noise+token", "router_layers": 1}])  # fmt: skip
def test_multiply_adds_are_those_that_pytorch_counts(options):
    net, inputs = network(**options), batch(1)
    given = (inputs["actions"], levels(1, 0.3), inputs["observations"], inputs["goal"])
    counts = net.multiply_adds(2)
    assert sum(counts.values()) == multiply_adds(net, given)
    assert (counts["router"] > 0) == (net.blocks[0].router is not None)
    if not options:
        net.cache_experts(torch.tensor([0.3]))
        cached = net.multiply_adds(2, cached=True)
        assert cached == counts | {"router": 0}
        with torch.utils.flop_counter.FlopCounterMode(display=False) as counter, torch.no_grad():
            net(*given)
        with torch.utils.flop_counter.FlopCounterMode(display=False) as again, torch.no_grad():
            net.clear_cache()
            net(*given)
        assert again.get_total_flops() - counter.get_total_flops() == 2 * counts["router"]


# --- routing ----------------------------------------------------------------------------------------------------------


def routings(net, **options):
    """What every block decided in one forward pass."""
    seen = []
    hooks = [block.register_forward_hook(lambda _, __, out: seen.append(out[1])) for block in net.blocks]
    net(**options)
    for hook in hooks:
        hook.remove()
    return seen


def test_evaluation_routes_by_the_noise_level_alone():
    net = network()
    for sigma in (0.01, 1.0, 50.0):
        one, other = (routings(net, **batch(3, seed), c_noise=levels(3, sigma)) for seed in (1, 2))
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a.chosen, b.chosen) and torch.equal(a.weights, b.weights)
            assert a.chosen.shape[1] == 1  # one choice for all tokens
    mixed = torch.cat([levels(2, 0.01), levels(1, 50.0)])
    for i, routing in enumerate(routings(net, **batch(), c_noise=mixed)):
        assert torch.equal(routing.chosen[0], routing.chosen[1])
        alone = routings(net, **batch(), c_noise=levels(3, 50.0))[i]
        assert torch.equal(routing.chosen[2], alone.chosen[0])
    assert len({tuple(net.router_probabilities(torch.tensor([s]))[0, 0].topk(2).indices.tolist())
                for s in (0.001, 0.1, 1.0, 80.0)}) > 1  # fmt: skip


def test_evaluation_is_the_same_every_time_and_each_sample_is_alone():
    net = network()
    assert torch.equal(call(net, 0.3), call(net, 0.3))
    mixed = torch.cat([levels(1, 0.01), levels(1, 1.0), levels(1, 50.0)])
    together = net(**batch(), c_noise=mixed)
    for i in range(3):
        alone = net(**{name: value[i : i + 1] for name, value in batch().items()}, c_noise=mixed[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=2e-6)


def test_training_draws_for_every_token_but_its_probabilities_come_from_the_noise_level():
    net = network().train()
    one, other = (routings(net, **batch(8, seed), c_noise=levels(8, 0.3)) for seed in (1, 2))
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.probabilities, b.probabilities) and a.probabilities.shape == (8, 1, 4)
        assert a.chosen.shape == (8, 8, 2)  # phi, goal, two observations, four actions
        assert (a.chosen != a.chosen[:, :1]).any() and not torch.equal(a.chosen, b.chosen)
    per_sample = routings(network(draw="sample").train(), **batch(8), c_noise=levels(8, 0.3))
    assert all(routing.chosen.shape == (8, 1, 2) for routing in per_sample)


def test_token_routers_look_at_the_tokens():
    for router in ("token", "noise+token"):
        net = network(router=router)
        one, other = (routings(net, **batch(8, seed), c_noise=levels(8, 0.3))[0] for seed in (1, 2))
        assert one.chosen.shape == (8, 8, 2) and not torch.equal(one.probabilities, other.probabilities)
        again = routings(net, **batch(8), c_noise=levels(8, 30.0))[0].probabilities
        # The token of the noise level aside, what comes first differs only where the router sees the level.
        assert (
            torch.allclose(again[:, 1], one.probabilities[:, 1], atol=0.01) == (router == "token") or router == "token"
        )


@settings(max_examples=10, deadline=None)
@given(k=st.integers(1, 4), train=st.booleans(), seed=st.integers(0, 99))
def test_chosen_experts_differ_and_their_weights_add_up_to_one(k, train, seed):
    torch.manual_seed(seed)
    router = Router(6, 4, k, hidden=12).train(train)
    nn.init.normal_(router.net[-1].weight, std=3.0)
    routing = router(torch.randn(5, 1, 6), tokens=7)
    assert routing.chosen.shape == (5, 7 if train else 1, k)
    assert all(len(set(row)) == k for row in routing.chosen.flatten(0, 1).tolist())
    torch.testing.assert_close(routing.weights.sum(-1), torch.ones(routing.weights.shape[:-1]))
    if not train:
        expected = routing.probabilities.topk(k, -1)
        assert torch.equal(routing.chosen, expected.indices)


def test_draws_have_the_probabilities_of_drawing_without_replacement():
    torch.manual_seed(0)
    router = Router(1, 3, 2)
    p = torch.tensor([0.6, 0.3, 0.1])
    router.net[0].weight.data = p.log()[:, None]
    first, second = router(torch.ones(1, 1, 1), tokens=20_000).chosen[0].T
    assert abs(float((first == 0).float().mean()) - 0.6) < 0.02
    assert abs(float(((first == 0) & (second == 1)).float().mean()) - 0.6 * 0.3 / 0.4) < 0.02


def test_the_gradient_reaches_the_router_through_the_weights():
    net = network().train()
    call(net, 0.3).square().sum().backward()
    for block in net.blocks:
        assert all(
            parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in block.router.parameters()
        )


# --- experts ----------------------------------------------------------------------------------------------------------


def by_loop(experts, x, index, weights):
    """The definition: every token through each of its experts, one by one."""
    y = torch.zeros_like(x)
    for row in range(len(x)):
        for n, weight in zip(index[row].tolist(), weights[row], strict=True):
            value, gate = (experts.weight_in[n] @ x[row] + experts.bias_in[n]).chunk(2)
            y[row] = y[row] + weight * ((value * F.silu(gate)) @ experts.weight_out[n])
    return y


@settings(max_examples=12, deadline=None)
@given(rows=st.integers(1, 9), n=st.integers(1, 5), data=st.data(), seed=st.integers(0, 99))
def test_grouped_experts_equal_the_loop_with_all_gradients(rows, n, data, seed):
    k = data.draw(st.integers(1, n))
    torch.manual_seed(seed)
    experts = Experts(6, n, hidden=5).double()
    x = torch.randn(rows, 6, dtype=torch.float64, requires_grad=True)
    index = torch.stack([torch.randperm(n)[:k] for _ in range(rows)])
    weights = torch.rand(rows, k, dtype=torch.float64, requires_grad=True)
    dy = torch.randn(rows, 6, dtype=torch.float64)
    ours, loop = experts(x[None], index[None], weights[None])[0], by_loop(experts, x, index, weights)
    torch.testing.assert_close(ours, loop, rtol=0, atol=1e-12)
    leaves = [x, weights, *experts.parameters()]
    # With one row the experts are called one by one and those that nobody chose have no gradient.
    gradients = [
        [g if g is not None else torch.zeros_like(leaf) for g, leaf in zip(found, leaves, strict=True)]
        for found in (torch.autograd.grad(y, leaves, dy, allow_unused=True) for y in (ours, loop))
    ]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-11)


def test_dropout_of_experts_keeps_the_mean_and_its_gradient_is_that_of_what_was_computed():
    torch.manual_seed(0)
    experts = Experts(6, 3, hidden=64, dropout=0.5).double()
    x = torch.randn(1, 2, 6, dtype=torch.float64, requires_grad=True)
    index, weights = torch.tensor([[[0, 1], [2, 1]]]), torch.full((1, 2, 2), 0.5, dtype=torch.float64)
    draws = torch.stack([experts(x, index, weights) for _ in range(2000)])
    spread = draws.std(0) / math.sqrt(2000)
    assert ((draws.mean(0) - experts.eval()(x, index, weights)).abs() < 5 * spread).all()
    experts.train()

    def once(*inputs):
        torch.manual_seed(1)
        return experts(inputs[0], index, inputs[1])

    assert torch.autograd.gradcheck(once, (x, weights.requires_grad_()))


def test_one_expert_is_a_dense_block():
    torch.manual_seed(0)
    dense, sparse = MoDEBlock(8, 2, 1, 1).eval(), MoDEBlock(8, 2, 2, 1).eval()
    assert isinstance(dense.experts, GatedMLP)
    sparse.load_state_dict(
        {name: value for name, value in dense.state_dict().items() if "experts" not in name}, strict=False
    )
    up, _, down = dense.experts
    for n in range(2):
        sparse.experts.weight_in.data[n], sparse.experts.bias_in.data[n] = up.weight.data, up.bias.data
        sparse.experts.weight_out.data[n] = down.weight.data.T
    x, noise = torch.randn(3, 5, 8), torch.randn(3, 1, 8)
    torch.testing.assert_close(dense(x, noise)[0], sparse(x, noise)[0], rtol=0, atol=1e-6)


def test_all_experts_are_a_soft_mixture():
    torch.manual_seed(0)
    block = MoDEBlock(8, 2, 3, 3, mlp_dropout=0.0, attention_dropout=0.0)
    x, noise = torch.randn(2, 5, 8), torch.randn(2, 1, 8)
    drawn, routing = block(x, noise)
    y = block.norm2(x + block.attention(block.norm1(x) + noise))
    alone = torch.stack([block.experts(y, torch.tensor([[[n]]]), torch.ones(1, 1, 1)) for n in range(3)], -1)
    expected = y + (alone * routing.probabilities[:, :, None]).sum(-1)
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(block.eval()(x, noise)[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("chosen", [0, 3])
@pytest.mark.parametrize("train", [True, False])
def test_a_router_that_is_sure_gives_one_expert_alone(chosen, train):
    torch.manual_seed(0)
    block = MoDEBlock(8, 2, 4, 2, mlp_dropout=0.0, attention_dropout=0.0).train(train)
    block.router.net[-1].bias.data[chosen] = 100.0
    x, noise = torch.randn(2, 5, 8), torch.randn(2, 1, 8)
    y = block.norm2(x + block.attention(block.norm1(x) + noise))
    expected = y + block.experts(y, torch.tensor([[[chosen]]]), torch.ones(1, 1, 1))
    torch.testing.assert_close(block(x, noise)[0], expected, rtol=0, atol=1e-6)


# --- the block --------------------------------------------------------------------------------------------------------


def test_where_the_norms_and_the_noise_level_go():
    torch.manual_seed(0)
    x, noise = torch.randn(2, 5, 8), torch.randn(2, 1, 8)
    for kept in (True, False):
        block = MoDEBlock(8, 2, 1, 1, post_norm_residual=kept).eval()
        nn.init.normal_(block.norm1.weight)
        nn.init.normal_(block.norm2.weight)
        after = x + block.attention(F.rms_norm(x, (8,), block.norm1.weight, 1e-12) + noise)
        normed = F.rms_norm(after, (8,), block.norm2.weight, 1e-12)
        expected = (normed if kept else after) + block.experts(normed)
        torch.testing.assert_close(block(x, noise)[0], expected, rtol=0, atol=2e-6)


def test_film_begins_without_effect_and_scales_and_shifts():
    torch.manual_seed(0)
    film, plain = MoDEBlock(8, 2, noise_conditioning="film").eval(), MoDEBlock(8, 2, noise_conditioning=None).eval()
    plain.load_state_dict({n: v for n, v in film.state_dict().items() if not n.startswith("film")})
    x, noise = torch.randn(2, 5, 8), torch.randn(2, 1, 8)
    conditioned = film._conditioned(x, noise)
    assert torch.equal(conditioned, plain._conditioned(x, noise)) and torch.equal(conditioned, x)
    nn.init.normal_(film.film.weight)
    scale, shift = F.linear(noise, film.film.weight).chunk(2, -1)
    torch.testing.assert_close(film._conditioned(x, noise), x * (1 + scale) + shift)


def test_attention_is_causal_and_positions_are_shared_as_published():
    net = network(attention_dropout=0.0)
    inputs = batch()
    before = net(**inputs, c_noise=levels(3, 0.3))
    inputs["actions"][:, 2] += 1.0
    after = net(**inputs, c_noise=levels(3, 0.3))
    assert torch.equal(before[:, :2], after[:, :2]) and not torch.allclose(before[:, 2], after[:, 2])
    nn.init.normal_(net.embedding.position)
    zeros = {name: torch.zeros_like(value) for name, value in inputs.items()}
    tokens, slots = net.embedding(**zeros, c_noise=levels(3, 0.3)), net.embedding.position[0]
    assert torch.equal(tokens.goal[0, 0], slots[0])
    assert all(torch.equal(token, slots[1]) for token in tokens.observations[0])
    assert torch.equal(tokens.actions[0], slots[1:])
    history = network(history=3).embedding
    nn.init.normal_(history.position)
    seen = history(**zeros | {"observations": torch.zeros(3, 3, 2, 5)}, c_noise=levels(3, 0.3))
    assert history.position.shape == (1, 7, 16)
    assert torch.equal(seen.observations[0, ::2], history.position[0, 1:4])
    assert torch.equal(seen.actions[0], history.position[0, 3:])


def test_the_noise_level_enters_where_it_should():
    silent = network(noise_token=False, noise_conditioning=None, n_experts=1, top_k=1)
    assert torch.equal(call(silent, 0.1), call(silent, 10.0))
    for options in ({}, {"noise_token": False}, {"noise_conditioning": None}):
        net = network(**options, n_experts=1, top_k=1)
        assert not torch.allclose(call(net, 0.1), call(net, 10.0), atol=1e-4)
    phi = network().embedding.noise
    expected = phi[1].weight @ (phi[0].weight[:, 0] * math.log(3.0) / 4 + phi[0].bias)
    torch.testing.assert_close(phi(levels(1, 3.0)[:, None])[0], expected)


def test_elements_of_the_goal_are_dropped_in_training_only():
    net = network(goal_dropout=0.3).embedding
    seen = []
    net.goal.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    inputs = batch(400) | {"goal": torch.ones(400, 7)}
    net(**inputs, c_noise=levels(400, 0.3))
    net.train()(**inputs, c_noise=levels(400, 0.3))
    assert torch.equal(seen[0], torch.ones(400, 1, 7))
    assert set(seen[1].unique().tolist()) == {0.0, 1.0} and abs(float(seen[1].mean()) - 0.7) < 0.05
    assert len(seen[1].sum(-1).unique()) > 3  # one by one, not whole goals


# --- expert caching ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 17])
@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_cached_equals_uncached(n, top_k):
    net = network(top_k=top_k)
    sigmas = sigma_schedule("exponential", 10, 0.001, 80.0).float()
    expected = [call(net, float(sigma), n) for sigma in sigmas[:-1]]
    net.cache_experts(sigmas)
    for block in net.blocks:  # neither routers nor experts are asked
        block.router.forward = block.experts.forward = None
    for sigma, value in zip(sigmas[:-1], expected, strict=True):
        torch.testing.assert_close(call(net, float(sigma), n), value, rtol=0, atol=1e-6)


def test_the_cache_is_met_by_a_sampler_whatever_its_batch():
    net, sigmas = network(), sigma_schedule("exponential", 10, 0.001, 80.0).float()
    net.cache_experts(sigmas)
    for n in (1, 2, 3, 5, 8, 15, 16, 17, 33, 200):
        for sigma in sigmas[:-1].tolist():
            assert float(levels(n, sigma)[0]) in net._cache and len(levels(n, sigma).unique()) == 1


def test_an_unknown_level_is_routed():
    net = network()
    sigmas = torch.tensor([0.01, 80.0])
    others = [0.0100001, 1.0, 79.99]
    expected = [call(net, sigma) for sigma in others]
    mixed = torch.cat([levels(1, 0.01), levels(2, 80.0)])
    expected.append(net(**batch(), c_noise=mixed))
    net.cache_experts(sigmas)
    for sigma, value in zip(others, expected, strict=False):
        assert torch.equal(call(net, sigma), value)
    assert torch.equal(net(**batch(), c_noise=mixed), expected[-1])


def test_the_cache_goes_when_weights_may_change():
    net = network()
    for change in (
        lambda: net.train().eval(),
        net.clear_cache,
        lambda: net.load_state_dict(network(1).state_dict()),
        net.double,
        net.float,
    ):
        net.cache_experts(torch.tensor([0.3]))
        assert net._cache
        change()
        assert not net._cache
    net.cache_experts(torch.tensor([0.3]))
    assert not deepcopy(net)._cache
    net.eval()
    assert net._cache
    with pytest.raises(RuntimeError, match="call eval"):
        net.train().cache_experts(torch.tensor([0.3]))


def test_levels_that_choose_alike_share_the_fused_experts():
    net, sigmas = network(), sigma_schedule("exponential", 10, 0.001, 80.0).float()
    net.cache_experts(sigmas)
    layer = [cached[0] for cached in net._cache.values()]
    assert len(layer) == 10
    assert len({id(fused) for fused, _ in layer}) <= 6  # pairs of four experts


# --- losses of the router ---------------------------------------------------------------------------------------------


def routing_of(probabilities, index):
    probabilities, index = torch.as_tensor(probabilities), torch.as_tensor(index)
    chosen = probabilities.gather(-1, index)
    return Routing(probabilities.log(), probabilities, index, chosen / chosen.sum(-1, keepdim=True))


@pytest.mark.parametrize("form", ["paper", "released"])
def test_load_balance_at_its_ends(form):
    even = torch.full((1, 4, 4), 0.25)
    cyclic = [[[0, 1], [1, 2], [2, 3], [3, 0]]]
    assert float(load_balance(routing_of(even, cyclic), form)) == pytest.approx(2.0)
    single = [[[0], [1], [2], [3]]]
    assert float(load_balance(routing_of(even, single), form)) == pytest.approx(1.0)
    collapsed = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(1, 4, 4)
    assert float(load_balance(routing_of(collapsed, torch.zeros(1, 4, 1, dtype=torch.long)), form)) == pytest.approx(
        4.0
    )
    on_two = torch.tensor([0.5, 0.5, 0.0, 0.0]).expand(1, 4, 4)
    assert float(load_balance(routing_of(on_two, torch.tensor([0, 1]).expand(1, 4, 2)), form)) == pytest.approx(4.0)


def test_the_two_forms_have_the_same_value_but_not_the_same_gradient():
    gradients = []
    for form in ("paper", "released"):
        logits = torch.zeros(1, 4, 4, requires_grad=True)
        probabilities = logits.softmax(-1)
        index = torch.tensor([[[0, 1], [0, 2], [0, 3], [1, 2]]])
        chosen = probabilities.gather(-1, index)
        load_balance(Routing(logits, probabilities, index, chosen / chosen.sum(-1, keepdim=True)), form).backward()
        gradients.append(logits.grad)
    assert (gradients[0][..., 0] > 0).all() and not torch.allclose(*gradients)


def test_the_loss_of_a_network_is_the_mean_over_its_layers_and_near_k_at_the_start():
    torch.manual_seed(0)
    net = MoDETransformer(5, 7, 3, **SMALL).train()
    seen = routings(net, **batch(64), c_noise=levels(64, 0.3))
    loss = net.load_balancing_loss()
    torch.testing.assert_close(loss, torch.stack([load_balance(routing) for routing in seen]).mean())
    assert 2 * 0.8 < loss.item() < 2 * 1.2
    torch.testing.assert_close(net.router_z_loss(), torch.stack([z_loss(routing) for routing in seen]).mean())
    assert net.router_z_loss().item() == pytest.approx(math.log(4) ** 2, rel=0.05)
    loss.backward()
    assert all(block.router.net[-1].weight.grad.abs().max() > 0 for block in net.blocks)
    deepcopy(net)  # the graph of the last pass does not come along
    net.eval()
    call(net, 0.3)
    with pytest.raises(RuntimeError, match="forward pass in training mode"):
        net.load_balancing_loss()


def test_frozen_routers_draw_but_do_not_learn():
    net = network().train()
    net.freeze_router()
    one, other = (routings(net, **batch(8), c_noise=levels(8, 0.3)) for _ in range(2))
    assert not torch.equal(one[0].chosen, other[0].chosen)
    (call(net, 0.3).sum() + net.load_balancing_loss()).backward()
    assert float(net.load_balancing_loss()) == 0 == float(net.router_z_loss())
    for block in net.blocks:
        assert all(parameter.grad is None for parameter in block.router.parameters())
        assert block.experts.weight_in.grad is not None


def test_specialisation_counts_bits():
    assert float(mutual_information(torch.eye(2).repeat(3, 1))) == pytest.approx(1.0)
    net = network()
    sigmas = torch.logspace(-3, 1.9, 20)
    assert 0 < net.specialisation(sigmas) < 2
    for block in net.blocks:
        nn.init.zeros_(block.router.net[-1].weight)
    assert net.specialisation(sigmas) == pytest.approx(0, abs=1e-6)


# --- the policy -------------------------------------------------------------------------------------------------------

POLICY = {"horizon": 4, "token_dim": 8, "instructions": 16}


def two_ways(episodes=12, steps=20, seed=0):
    """Walks on a line: "go left" or "go right", by 0.1 a step."""
    rng = np.random.default_rng(seed)
    walks = []
    for i in range(episodes):
        direction = (-1.0, 1.0)[i % 2]
        x = rng.uniform(-1, 1) + 0.1 * direction * np.arange(steps)
        walks.append({
            "observations": {"state": x[:, None], "still": np.ones((steps, 2))},
            "actions": np.full((steps, 2), [0.1 * direction, 0.3]), "instruction": ("go left", "go right")[i % 2],
        })  # fmt: skip
    return Episodes.of(walks)


def policy_of(seed=0, steps=1, transformer=None, **options):
    torch.manual_seed(seed)
    net = {"embed_dim": 16, "n_layers": 2, "n_heads": 2} | (transformer or {})
    policy = MoDEPolicy(**POLICY | {"observations": ("state", "still")} | options, transformer=net)
    return policy.fit(two_ways(), steps=steps, batch_size=64, learning_rate=3e-3, ema=None)


def seen(n, instruction):
    return {"state": np.zeros((n, 1)), "still": np.ones((n, 2)), "instruction": instruction}


def test_the_policy_does_what_the_instruction_says():
    options = {"attention_dropout": 0.0, "mlp_dropout": 0.0}
    policy = policy_of(steps=80, transformer=options)
    actions = policy.plan(seen(4, ["go left", "go right"] * 2))
    assert (actions[::2, :, 0] < 0).all() and (actions[1::2, :, 0] > 0).all()


def test_it_keeps_what_every_policy_promises():
    check_policy(policy_of(), seen(3, ["go left", "go right", "go left"]))


@pytest.mark.parametrize("network", ["mode", "cross_attention"])
def test_a_policy_that_was_saved_plans_the_same(tmp_path, network):
    policy = policy_of(network=network)
    noise, observation = torch.randn(3, 4, 2), seen(3, "go left")
    expected = policy.plan(observation, noise)
    policy.save(tmp_path / "policy")
    assert torch.equal(MoDEPolicy.load(tmp_path / "policy").plan(observation, noise), expected)


def test_a_plan_begins_at_the_largest_level_and_uses_the_fused_experts(monkeypatch):
    policy = policy_of()
    denoiser, levels_seen = policy.module.denoiser, []
    forward = denoiser.forward
    monkeypatch.setattr(
        denoiser, "forward", lambda x, s, *rest: (levels_seen.append((x, float(s[0]))), forward(x, s, *rest))[1]
    )
    noise, observation = torch.randn(3, 4, 2), seen(3, "go left")
    fused = policy.plan(observation, noise)
    assert torch.equal(levels_seen[0][0], 80 * noise)
    steps = [level for _, level in levels_seen]
    assert len(steps) == 10 and steps[0] == 80.0 and steps[-1] == pytest.approx(0.001)
    assert np.allclose(np.diff(np.log(steps)), np.log(0.001 / 80) / 9, atol=1e-4)
    net = denoiser.net
    assert net.cached
    monkeypatch.setattr(net, "cache_experts", lambda sigmas: None)
    net.clear_cache()
    torch.testing.assert_close(policy.plan(observation, noise), fused, rtol=0, atol=1e-5)


def test_the_loss_is_that_of_the_denoiser_and_in_training_the_balance_comes_on_top():
    policy, batch = policy_of(balance_weight=0.5), None
    demonstrations, _ = policy.prepare(two_ways())
    batch = demonstrations.gather(np.arange(32))

    def loss(weight, train):
        policy.balance_weight = weight
        policy.module.train(train)
        torch.manual_seed(3)
        return policy.loss(batch)

    without, with_balance = loss(0.0, True), loss(0.5, True)
    torch.testing.assert_close(with_balance, without + 0.5 * policy.module.denoiser.net.load_balancing_loss())
    assert torch.equal(loss(0.5, False), loss(0.0, False))
    # Repeated actions at the end of an episode do not count.
    batch["actions"][batch["padding"]] = 9.0
    before = loss(0.0, False)
    batch["padding"][:] = False
    assert loss(0.0, False) > before


def test_biases_of_the_transformer_do_not_decay():
    policy = policy_of()
    free, decayed = policy.parameter_groups(policy.module, 0.05)
    names = {id(parameter): name for name, parameter in policy.module.named_parameters()}
    free, decayed = ({names[id(p)] for p in group["params"]} for group in (free, decayed))
    assert free | decayed == set(names.values()) and not free & decayed
    assert all("bias" in name and "denoiser" in name for name in free) and len(free) > 10
    assert "denoiser.net.embedding.position" in decayed and "encoders.state.0.bias" in decayed
    assert {"denoiser.net.blocks.0.norm1.weight", "denoiser.net.blocks.0.experts.weight_in"} <= decayed
    assert "denoiser.net.blocks.0.experts.bias_in" in free


def test_pictures_are_tokens_that_know_the_instruction():
    torch.manual_seed(0)
    episodes = two_ways(4, 10)
    pictures = np.random.default_rng(0).integers(0, 255, (40, 16, 16, 3), dtype=np.uint8)
    episodes = Episodes(
        {**episodes.observations, "image": pictures}, episodes.actions, episodes.ends, episodes.instructions
    )
    camera = {"depth": None, "where": "block", "block": "basic", "layers": (1, 1), "widths": (4, 8)}
    net = {"embed_dim": 16, "n_layers": 1, "n_heads": 2}
    policy = MoDEPolicy(**POLICY, observations=("state", "image"), camera=camera, shift=2, transformer=net, history=2)
    policy.fit(episodes, steps=2, batch_size=8)
    batch = policy.prepare(episodes)[0].gather(np.arange(3))
    tokens, goal = policy.module.condition(batch)
    assert tokens.shape == (3, 2, 2, 8) and goal.shape == (3, 16)
    other = policy.module.condition(batch | {"instruction": goal + 1})[0]
    assert torch.equal(tokens[:, :, 0], other[:, :, 0]) and not torch.allclose(tokens[:, :, 1], other[:, :, 1])
    policy.module.encoders["image"].train()
    assert torch.equal(policy.module.condition(batch)[0][:, :, 0], tokens[:, :, 0])
    still = policy.module.condition(batch)[0]
    policy.module.training = True  # pictures are moved
    assert not torch.allclose(policy.module.condition(batch)[0], still)
    policy.module.eval()
    assert policy.plan({"state": np.zeros((2, 1)), "image": pictures[:2], "instruction": "go left"}).shape == (2, 4, 2)


def test_a_state_in_parts_is_several_tokens():
    policy = policy_of(observations=("still",), parts={"still": (1, 1)})
    batch = policy.prepare(two_ways())[0].gather(np.arange(3))
    tokens, _ = policy.module.condition(batch)
    batch["observations"]["still"][..., 1] += 1
    other, _ = policy.module.condition(batch)
    assert tokens.shape == (3, 1, 2, 8)
    assert torch.equal(tokens[:, :, 0], other[:, :, 0]) and not torch.allclose(tokens[:, :, 1], other[:, :, 1])
    with pytest.raises(ValueError, match="do not add up to its 2 numbers"):
        policy_of(observations=("still",), parts={"still": (1, 2)})
    with pytest.raises(ValueError, match="parts are given for 'stil'"):
        policy_of(observations=("still",), parts={"stil": (1, 1)})


# --- as a denoiser, refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [MoDETransformer, CrossAttentionTransformer])
def test_both_transformers_learn_as_edm_denoisers(make):
    torch.manual_seed(0)
    denoiser = EDM(make(5, 7, 3, **SMALL))
    inputs = batch(16)
    loss = denoiser.loss(inputs["actions"], inputs["observations"], inputs["goal"], sigma=torch.rand(16) + 0.1)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in denoiser.parameters())


def test_the_dense_baseline_is_causal_and_sees_its_condition():
    torch.manual_seed(0)
    net, inputs = CrossAttentionTransformer(5, 7, 3, **SMALL).eval(), batch()
    before = net(**inputs, c_noise=levels(3, 0.3))
    later = inputs | {"actions": inputs["actions"] + torch.eye(4)[2, :, None]}
    after = net(**later, c_noise=levels(3, 0.3))
    assert torch.equal(before[:, :2], after[:, :2]) and not torch.allclose(before[:, 2], after[:, 2])
    for change in ({"goal": inputs["goal"] + 1}, {"observations": inputs["observations"] + 1}):
        assert not torch.allclose(net(**inputs | change, c_noise=levels(3, 0.3)), before)
    assert not torch.allclose(net(**inputs, c_noise=levels(3, 3.0)), before)


def test_the_baseline_has_the_active_parameters_of_the_sparse_network():
    with torch.device("meta"):
        sparse, dense = (make(512, 512, 7) for make in (MoDETransformer, CrossAttentionTransformer))
    assert 1.0 < parameters(dense) / sparse.active_parameters() < 1.1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: MoDEBlock(8, 2, 4, 5), "at most the 4 experts there are, not 5"),
        (lambda: MoDEBlock(8, 3), "3 heads do not divide 8"),
        (lambda: MoDEBlock(8, 2, router="sigma"), "unknown router 'sigma'"),
        (lambda: MoDEBlock(8, 2, noise_conditioning="cat"), "noise_conditioning is"),
        (lambda: MoDEBlock(8, 2, router_layers=3), "1 or 2 layers, not 3"),
        (lambda: MoDEBlock(8, 2, draw="batch"), "draw is"),
        (lambda: Router(8, 4, 0), "not 0"),
        (lambda: load_balance(routing_of([[[1.0]]], [[[0]]]), "mine"), "form is"),
        (lambda: network().cache_experts(torch.tensor([0.0])), "above 0"),
        (lambda: network().cache_experts(torch.tensor([[1.0]])), "noise levels are"),
        (lambda: network().router_probabilities(torch.tensor([-1.0])), "above 0"),
        (lambda: network(router="token").cache_experts(torch.tensor([1.0])), "by the noise level alone"),
        (lambda: network(n_experts=1, top_k=1).router_probabilities(torch.tensor([1.0])), "by the noise level alone"),
        (lambda: MoDETransformer(0, 7, 3), "obs_dim 0"),
        (lambda: network()(**batch(actions=(3, 5, 3)), c_noise=levels(3, 1.0)), r"actions are \(B, 4, 3\)"),
        (lambda: network()(**batch(), c_noise=levels(2, 1.0)), r"c_noise is \(3,\)"),
        (lambda: network()(**batch(observations=(3, 5)), c_noise=levels(3, 1.0)), "observations are"),
        (lambda: network(history=2)(**batch(), c_noise=levels(3, 1.0)), r"observations are \(3, 2, C, 5\)"),
        (lambda: network()(**batch() | {"goal": None}, c_noise=levels(3, 1.0)), "is missing"),
        (lambda: network()(**batch(goal=(3, 6)), c_noise=levels(3, 1.0)), "the goal is"),
        (lambda: MoDETransformer(5, None, 3, **SMALL)(**batch(), c_noise=levels(3, 1.0)), "takes none"),
        (lambda: MoDEPolicy(network="dense"), "unknown network 'dense'"),
        (lambda: EDM(network())(batch()["actions"], torch.tensor([1.0, -1.0, 1.0])), "above 0"),
    ],
)  # fmt: skip
def test_wrong_input(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_few_rows_before_a_large_matrix_are_filled_up(monkeypatch):
    experts, x = Experts(8, n_experts=4), torch.randn(2, 3, 8)
    index, weights = torch.tensor([[[0, 2]]]), torch.tensor([[[0.7, 0.3]]])
    plain = experts(x, index, weights)
    monkeypatch.setattr("reprise.policies.mode.experts.LARGE", 0)
    torch.testing.assert_close(experts(x, index, weights), plain)
    torch.testing.assert_close(experts.fuse([0, 2])(x, [0.7, 0.3]), plain.detach())
