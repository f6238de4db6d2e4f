import numpy as np
import pytest
import torch

from reprise.data import Episodes
from reprise.nn.count import parameters
from reprise.policies import BESOPolicy, BESOSampling, CBeTPolicy, GCBCPolicy, GoalGPT, ScoreGPT
from reprise.testing import check_policy
from reprise.training import Diverged

SMALL = {"embed_dim": 16, "n_layers": 2, "n_heads": 2, "attn_drop": 0.0, "resid_drop": 0.0}


def play(lengths=(30, 25, 40), obs_dim=4, action_dim=2, seed=0):
    """Walks: the state's first entries move by the action."""
    rng = np.random.default_rng(seed)
    parts = []
    for n in lengths:
        actions = rng.uniform(-1, 1, (n, action_dim)).astype(np.float32)
        state = np.zeros((n, obs_dim), np.float32)
        state[1:, :action_dim] = np.cumsum(actions[:-1], 0)
        parts.append({"observations": {"state": state}, "actions": actions})
    return Episodes.of(parts)


def taught(kind=BESOPolicy, steps=3, **options):
    torch.manual_seed(0)
    if kind is CBeTPolicy:
        options = {"bins": 4} | options
    return kind(**SMALL | options).fit(play(), steps=steps, batch_size=16, learning_rate=1e-3)


def network(**options):
    torch.manual_seed(0)
    net = ScoreGPT(4, 2, **SMALL | options)
    with torch.no_grad():
        for parameter in net.parameters():  # the published initialisation leaves outputs near 0
            parameter.normal_(std=0.3)
    return net


def inputs(t=5, goal_len=1, batch=3):
    generator = torch.Generator().manual_seed(1)
    shapes = ((batch, t, 2), (batch,), (batch, goal_len, 4), (batch, t, 4))
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize(
    ("sizes", "options", "count"),
    [
        ((30, 9), {"embed_dim": 360, "n_layers": 6, "n_heads": 6, "window": 4, "goal_len": 2}, 9_381_249),
        ((10, 2), {}, 2_783_762),
        ((10, 2), {"embed_dim": 64, "n_layers": 2, "n_heads": 4}, 101_698),
    ],
)
def test_published_parameter_counts(sizes, options, count):
    with torch.device("meta"):
        assert parameters(ScoreGPT(*sizes, **options)) == count


@pytest.mark.parametrize("goal_len", [1, 2])
def test_an_output_sees_nothing_later(goal_len):
    net = network(goal_len=goal_len)
    actions, c_noise, goals, states = inputs(goal_len=goal_len)
    before = net(actions, c_noise, goals, states)
    for t in range(5):
        later = (actions.clone(), states.clone())
        for part in later:
            part[:, t + 1 :] += 1.0
        after = net(later[0], c_noise, goals, later[1])
        torch.testing.assert_close(after[:, : t + 1], before[:, : t + 1])
        if t < 4:
            assert (after[:, t + 1] - before[:, t + 1]).abs().min() > 1e-6
        prefix = net(actions[:, : t + 1], c_noise, goals, states[:, : t + 1])
        torch.testing.assert_close(prefix, before[:, : t + 1])


def test_an_output_sees_noise_goal_state_and_action():
    net = network()
    given = inputs()
    before = net(*given)[:, 0]
    for i, part in enumerate(given):
        changed = list(given)
        changed[i] = part.clone()
        changed[i][(slice(None), 0) if part.ndim == 3 else slice(None)] += 1.0
        assert (net(*changed)[:, 0] - before).abs().min() > 1e-6


def test_goals_and_states_have_one_embedding_and_positions_are_shared():
    """Against the sequence written out token by token."""
    net = network(goal_len=2)
    actions, c_noise, goals, states = inputs(goal_len=2)
    pos = net.pos_emb[0]
    tokens = [net.noise_emb(c_noise[:, None])]  # no position
    tokens += [net.state_emb(goals[:, i]) + pos[i] for i in range(2)]
    for i in range(5):
        tokens += [net.state_emb(states[:, i]) + pos[2 + i], net.action_emb(actions[:, i]) + pos[2 + i]]
    x = torch.stack(tokens, 1)
    allowed = torch.ones(13, 13, dtype=torch.bool).tril()
    for block in net.blocks:
        query, key, value = block.qkv(block.norm1(x)).chunk(3, 2)
        heads = []
        for h in range(2):
            part = slice(8 * h, 8 * h + 8)
            weights = query[..., part] @ key[..., part].transpose(1, 2) / 8**0.5
            heads.append(weights.masked_fill(~allowed, -torch.inf).softmax(2) @ value[..., part])
        x = x + block.proj(torch.cat(heads, 2))
        x = x + block.narrow(torch.nn.functional.gelu(block.widen(block.norm2(x))))
    expected = net.head(net.norm(x))[:, [4, 6, 8, 10, 12]]
    torch.testing.assert_close(net(actions, c_noise, goals, states), expected)


def test_gradients_reach_all_but_the_last_position_and_key_biases():
    net = network()
    net(*inputs()).square().sum().backward()
    for name, parameter in net.named_parameters():
        gradient = parameter.grad
        if name.endswith("qkv.bias"):
            assert gradient[16:32].abs().max() < 1e-4 * gradient.abs().max()  # softmax is shift-invariant
            gradient = torch.cat([gradient[:16], gradient[32:]])
        if name == "pos_emb":
            assert (gradient[:, -1] == 0).all()
            gradient = gradient[:, :-1]
        assert (gradient != 0).all(), name


def test_published_initialisation():
    torch.manual_seed(0)
    net = ScoreGPT(10, 2)
    for name, parameter in net.named_parameters():
        if "norm" in name:
            assert (parameter == (1.0 if name.endswith("weight") else 0.0)).all()
        elif name.endswith("bias"):
            assert (parameter == 0).all()
        elif parameter.numel() > 500:
            assert float(parameter.detach().std()) == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("mode", ["element", "example"])
def test_goals_are_dropped_in_training_alone(mode):
    net = network(goal_drop=0.5, goal_drop_mode=mode, attn_drop=0.0)
    actions, c_noise, goals, states = inputs(batch=400)
    net.eval()
    assert torch.equal(net(actions, c_noise, goals, states), net(actions, c_noise, goals, states))
    seen = []
    net.state_emb.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    net.train()(actions, c_noise, goals, states)
    dropped = (seen[0] == 0)[:, 0]
    assert float(dropped.float().mean()) == pytest.approx(0.5, abs=0.06)
    assert bool((dropped.all(1) | ~dropped.any(1)).all()) == (mode == "example")


def test_no_goal_is_a_goal_of_zeros():
    net = network()
    actions, c_noise, goals, states = inputs()
    nothing = net(actions, c_noise, None, states)
    assert torch.equal(nothing, net(actions, c_noise, torch.zeros_like(goals), states))
    assert not torch.allclose(nothing, net(actions, c_noise, goals, states))


def acted(policy, guidance, goal, **sampling):
    policy.sampling = BESOSampling(guidance=guidance, **sampling)
    policy.reset()
    torch.manual_seed(5)
    return policy.act(np.ones((6, 4), np.float32), goal=goal)


def test_guidance_one_is_conditional_and_zero_ignores_the_goal():
    policy = taught(goal_drop=0.1)
    with torch.no_grad():
        for parameter in policy.net.parameters():
            parameter.normal_(std=0.3)
    goals = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    fed = []
    watch = policy.net.net.register_forward_pre_hook(lambda module, given: fed.append(given[2]))
    free = acted(policy, 0.0, goals)
    watch.remove()
    assert all((goal == 0).all() for goal in fed)
    assert np.array_equal(free, acted(policy, 0.0, -goals)) and np.array_equal(free, acted(policy, 0.0, None))
    conditional, beyond = acted(policy, 1.0, goals), acted(policy, 2.0, goals)
    assert not np.allclose(conditional, acted(policy, 1.0, -goals)) and not np.allclose(conditional, beyond)
    # One step to 0 from the same noise is D itself, in which guidance is linear.
    one = {"steps": 1, "sigma_min": 0.5}
    ends = [policy.module.actions(torch.from_numpy(acted(policy, scale, goals, **one))) for scale in (0.0, 1.0, 1.5)]
    inside = (ends[2].abs() < 1.09) & (ends[1].abs() < 1.09) & (ends[0].abs() < 1.09)
    assert inside.any()
    torch.testing.assert_close(ends[2][inside], (ends[0] + 1.5 * (ends[1] - ends[0]))[inside], atol=1e-4, rtol=1e-4)


def test_the_loss_is_that_of_one_level_per_window():
    policy = taught(steps=1)
    states, actions, goals = torch.randn(64, 5, 4), torch.randn(64, 5, 2), torch.randn(64, 1, 4)
    levels = []
    inner = policy.net.net
    inner.register_forward_pre_hook(lambda module, given: levels.append(given[1]))
    policy.loss(states, actions, goals)
    sigma = (4 * levels[0]).exp()
    assert sigma.shape == (64,) and float(sigma.min()) >= 0.05 and float(sigma.max()) <= 1 + 1e-5
    assert len(sigma.unique()) == 64


def test_the_moving_average_acts():
    """With one step its decay is 0.1: the weights are 0.1 of those before and 0.9 of those trained."""
    start = taught(steps=1, kind=BESOPolicy)
    before = {key: value.clone() for key, value in start.net.state_dict().items()}
    torch.manual_seed(3)
    start.fit(play(), steps=1, batch_size=16, learning_rate=1e-2, ema=0.999)
    averaged = {key: value.clone() for key, value in start.net.state_dict().items()}
    start.net.load_state_dict(before)
    torch.manual_seed(3)
    start.fit(play(), steps=1, batch_size=16, learning_rate=1e-2, ema=0.0)
    for key, value in start.net.state_dict().items():
        torch.testing.assert_close(averaged[key], torch.lerp(value, before[key], 0.1))


def test_a_short_history_is_a_short_window_and_past_actions_are_fed_back():
    policy = taught(window=3)
    rng = np.random.default_rng(0)
    states, goal = rng.normal(size=(6, 5, 4)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)
    scale, seen, taken = policy.module.states, [], []
    real = policy.predict
    policy.predict = lambda *given: seen.append([part.clone() for part in given]) or real(*given)
    for state in states:
        taken.append(policy.module.actions(torch.from_numpy(policy.act(state, goal=goal))))
    for i, (known, past, _, last) in enumerate(seen):
        t = min(i + 1, 3)
        assert (last == t - 1).all()
        torch.testing.assert_close(known, scale(torch.from_numpy(states[i + 1 - t : i + 1])).transpose(0, 1))
        if t > 1:
            torch.testing.assert_close(past[:, : t - 1], torch.stack(taken[i + 1 - t : i], 1))


@pytest.mark.parametrize("kind", [BESOPolicy, GCBCPolicy, CBeTPolicy])
def test_reset_forgets_some_environments(kind):
    """One environment, reset in mid-course, goes on like one that has just begun; the others are not disturbed."""
    policy = taught(kind)
    rng = np.random.default_rng(0)
    states, goal = rng.normal(size=(9, 3, 4)).astype(np.float32), rng.normal(size=(3, 4)).astype(np.float32)

    def run(resets):
        policy.reset()
        results = []
        for i, state in enumerate(states):
            if i in resets:
                policy.reset(resets[i])
            torch.manual_seed(i)
            results.append(policy.act(state, goal=goal))
        return np.array(results)

    plain, forgot = run({}), run({6: np.array([False, True, False])})
    np.testing.assert_allclose(plain[:, [0, 2]], forgot[:, [0, 2]], atol=1e-6)
    assert not np.allclose(plain[6:, 1], forgot[6:, 1])
    policy.reset()
    for i in (6, 7, 8):
        torch.manual_seed(i)
        np.testing.assert_allclose(policy.act(states[i], goal=goal)[1], forgot[i, 1], atol=1e-5)


def test_actions_stay_within_eleven_tenths_of_those_seen():
    policy = taught()
    with torch.no_grad():
        policy.net.net.head.bias.fill_(50.0)
    policy.sampling = BESOSampling(steps=1, sigma_min=0.5)
    actions = policy.act(np.zeros((4, 4)), goal=np.zeros((4, 4)))
    low, high = play().actions.min(0), play().actions.max(0)
    np.testing.assert_allclose(actions, np.tile((low + high) / 2 + 1.1 * (high - low) / 2, (4, 1)), rtol=1e-5)


@pytest.mark.parametrize("sampler", ["ddim", "heun", "euler_ancestral", "dpm_2", "dpmpp_2s", "dpmpp_2m", "lms"])
@pytest.mark.parametrize("freeze", [False, True])
def test_every_sampler_acts_and_frozen_past_stays(sampler, freeze):
    policy = taught()
    policy.sampling = BESOSampling(steps=4, sampler=sampler, schedule="exponential", freeze_past=freeze)
    fed = []
    policy.net.net.register_forward_pre_hook(lambda module, given: fed.append((given[0].clone(), given[1].clone())))
    for _ in range(3):
        fed.clear()
        action = policy.act(np.ones((2, 4), np.float32), goal=np.zeros((2, 4), np.float32))
    assert np.isfinite(action).all()
    clean = policy._actions[:, :2]
    for scaled, c_noise in (fed[0], fed[-1]) if sampler in ("ddim", "euler_ancestral", "dpmpp_2m", "lms") else fed[:1]:
        sigma = float((4 * c_noise[0]).exp())
        past = scaled[:, :2] * (sigma**2 + 0.25) ** 0.5
        assert torch.allclose(past, clean, atol=1e-4) == (freeze or sigma == pytest.approx(1.0, rel=1e-4))


def test_goals_tell_their_entries_alone_and_are_zero_where_missing():
    policy = BESOPolicy(**SMALL, goal_entries=(1, 2))
    seen = []
    policy.loss = lambda states, actions, goals: (
        seen.append(goals.clone()) or BESOPolicy.loss(policy, states, actions, goals)
    )
    policy.fit(play((7,)), steps=20, batch_size=64)  # three windows; the last two have nothing after them
    goals = torch.cat(seen)
    assert (goals[..., [0, 3]] == 0).all()
    assert (goals == 0).all((1, 2)).float().mean() == pytest.approx(2 / 3, abs=0.06)
    seen = []
    policy.predict = lambda states, past, goals, last: seen.append(goals) or past[:, 0]
    policy.act(np.ones((2, 4)), goal=np.full((2, 4), 7.0))
    assert (seen[0][..., [0, 3]] == 0).all() and (seen[0][..., 1] != 0).all()


@pytest.mark.parametrize("kind", [BESOPolicy, GCBCPolicy, CBeTPolicy])
def test_saved_and_loaded(kind, tmp_path):
    options = {"goal_entries": (0, 1)} | ({"sampling": BESOSampling(steps=2)} if kind is BESOPolicy else {})
    policy = taught(kind, **options)
    policy.save(tmp_path / "policy")
    other = kind.load(tmp_path / "policy")
    assert other.settings() == policy.settings()
    answers = []
    for each in (policy, other):
        each.reset()
        torch.manual_seed(0)
        answers.append(each.act({"observation.state": torch.ones(2, 4), "goal": torch.zeros(2, 4)}))
    assert torch.equal(*answers)
    with pytest.raises(ValueError, match="holds"):
        (GCBCPolicy if kind is BESOPolicy else BESOPolicy).load(tmp_path / "policy")


@pytest.mark.parametrize("kind", [BESOPolicy, GCBCPolicy, CBeTPolicy])
def test_they_keep_what_every_policy_promises(kind):
    state, goal = np.random.default_rng(0).normal(size=(2, 4, 4)).astype(np.float32)
    check_policy(taught(kind), {"state": state, "goal": goal})


@pytest.mark.parametrize("kind", [BESOPolicy, GCBCPolicy, CBeTPolicy])
def test_a_simple_law_is_learned(kind):
    """Actions lead from the state to the goal."""
    rng = np.random.default_rng(0)
    state = np.repeat(rng.uniform(-1, 1, (60, 1, 2)), 10, 1).astype(np.float32)  # ten states of an episode are alike
    state[:, :5] += 0.5 * rng.normal(size=(60, 5, 2)).astype(np.float32)
    episodes = Episodes({"state": state.reshape(-1, 2)}, (state[:, 9:] - state).reshape(-1, 2), np.arange(10, 601, 10))
    torch.manual_seed(0)
    options = {"bins": 8} if kind is CBeTPolicy else {}
    policy = kind(**SMALL, **options, window=1).fit(
        episodes, steps=250, batch_size=64, learning_rate=5e-3, schedule="cosine"
    )
    test, goal = rng.uniform(-0.7, 0.7, (2, 200, 2)).astype(np.float32)
    error = policy.act(test, goal=goal) - (goal - test)
    assert (error**2).mean() < 0.8 * ((goal - test) ** 2).mean()
    lost = policy.act(test, goal=-goal) - (goal - test)
    assert (lost**2).mean() > 1.2 * (error**2).mean()


def test_two_modes_come_out_as_two_modes():
    """Where demonstrations go left or right, BESO does one or the other; the mean of GCBC is neither."""
    rng = np.random.default_rng(0)
    side = rng.choice((-1.0, 1.0), (300, 1)).astype(np.float32)
    episodes = Episodes({"state": np.zeros((300, 2), np.float32)}, side, np.arange(1, 301))
    torch.manual_seed(0)
    done = {}
    for kind in (BESOPolicy, GCBCPolicy):
        policy = kind(**SMALL, window=1).fit(episodes, steps=200, batch_size=64, learning_rate=5e-3, schedule="cosine")
        done[kind] = policy.act(np.zeros((200, 2)), goal=np.zeros((200, 2)))[:, 0]
    assert np.abs(done[GCBCPolicy]).max() < 0.4
    assert (np.abs(done[BESOPolicy]) > 0.5).mean() > 0.85
    assert 0.3 < (done[BESOPolicy] > 0).mean() < 0.7


def test_gcbc_sees_no_later_state():
    torch.manual_seed(0)
    net = GoalGPT(4, 3, **SMALL)
    goals, states = torch.randn(2, 1, 4), torch.randn(2, 5, 4)
    before = net(goals, states)
    torch.testing.assert_close(net(goals, states[:, :3]), before[:, :3])
    changed = states.clone()
    changed[:, 3:] += 1
    assert torch.equal(net(goals, changed)[:, :3], before[:, :3])


def nan_play():
    episodes = play()
    policy = BESOPolicy(**SMALL)
    policy.loss = lambda *_: torch.tensor(float("nan"), requires_grad=True)
    policy.fit(episodes, steps=5, batch_size=8)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ScoreGPT(4, 2, embed_dim=16, n_heads=3), ValueError, "3 heads do not divide"),
        (lambda: ScoreGPT(4, 2, window=0), ValueError, "at least 1"),
        (lambda: network()(*inputs(t=6)), ValueError, "states are"),
        (lambda: network()(*inputs(goal_len=2)), ValueError, "goals are"),
        (lambda: BESOSampling(steps=0), ValueError, "at least 1 step"),
        (lambda: BESOSampling(sigma_min=0.0), ValueError, "0 < minimum"),
        (lambda: BESOSampling(schedule="steep"), ValueError, "unknown schedule"),
        (lambda: acted(taught(), 1.0, np.zeros((6, 4)), sampler="guess"), ValueError, "unknown sampler"),
        (lambda: BESOPolicy(sigma_min=0.0), ValueError, "0 < sigma_min"),
        (lambda: BESOPolicy(**SMALL, window=50).fit(play(), steps=1), ValueError, "choose shorter ones"),
        (lambda: BESOPolicy(**SMALL).act(np.zeros((1, 4))), RuntimeError, "call fit"),
        (lambda: taught().act(np.zeros((1, 4))), ValueError, "a goal is missing"),
        (lambda: taught(GCBCPolicy).act(np.zeros((1, 4))), ValueError, "a goal is missing"),
        (lambda: acted(taught(), 2.0, np.zeros((6, 4))), ValueError, "train with drop_condition"),
        (lambda: taught().act(np.zeros((1, 5)), goal=np.zeros((1, 5))), ValueError, "observation must be a batch"),
        (lambda: taught().act(np.full((1, 4), np.nan), goal=np.zeros((1, 4))), ValueError, "not finite"),
        (
            lambda: taught().act({"image": np.zeros((1, 4))}, goal=np.zeros((1, 4))),
            ValueError,
            "no observation 'state'",
        ),
        (lambda: taught().fit(play(action_dim=3), steps=1), ValueError, "was built for"),
        (lambda: BESOPolicy(**SMALL, goal_entries=(9,)).fit(play(), steps=1), ValueError, "goal_entries"),
        (lambda: BESOPolicy(**SMALL).fit(play(), steps=1, schedule="steep"), ValueError, "schedule is"),
        (lambda: CBeTPolicy(**SMALL, bins=99).fit(play(), steps=1), ValueError, "clusters"),
        (nan_play, Diverged, "diverged at step 1 of 5"),
    ],
)
def test_wrong_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_another_number_of_environments_asks_for_a_reset():
    policy = taught()
    policy.act(np.zeros((2, 4)), goal=np.zeros((2, 4)))
    with pytest.raises(ValueError, match="call reset first"):
        policy.act(np.zeros((3, 4)), goal=np.zeros((3, 4)))


def test_constant_entries_do_no_harm():
    episodes = play()
    episodes.observations["state"][:, 3] = 5.0
    policy = BESOPolicy(**SMALL).fit(episodes, steps=2, batch_size=8)
    assert np.isfinite(policy.act(np.full((2, 4), 5.0), goal=np.full((2, 4), 5.0))).all()


def test_goals_and_states_can_be_embedded_before():
    net = ScoreGPT(10, 2, embed_dim=16, n_layers=1, n_heads=2).eval()
    actions, levels, goals, states = torch.randn(3, 4, 2), torch.randn(3), torch.randn(3, 1, 10), torch.randn(3, 4, 10)
    for goal in (goals, None):
        assert torch.equal(
            net(actions, levels, *net.embed(goal, states), embedded=True), net(actions, levels, goal, states)
        )
    with pytest.raises(ValueError, match="as states"):
        net(actions[:, :2], levels, *net.embed(goals, states), embedded=True)
