import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from reprise.diffusion import DDIM, ForwardProcess, alpha_bars, betas
from reprise.envs import ChunkedEnv, PegInsert
from reprise.policies import DSRL, BestOfN, ChunkedPolicy, SteeredPolicy
from reprise.rl import SAC, QNetworks, TanhGaussianActor
from reprise.testing import Countdown, Match

SMALL = {"execute": 1, "hidden": (16, 16), "batch_size": 16, "warm_up": 4, "utd": 2, "seed": 0}
FITS = Box(-2, 2, (1,), np.float32)


def identity(observation, noise):
    return noise


class Foreign:
    """Somebody else's policy: NumPy in, NumPy out, nothing but ``plan``."""

    def plan(self, observation, noise):
        drawn = np.asarray(noise)[:, :2]
        return 1 + np.tanh(0.3 * np.asarray(observation)[:, None] + drawn)


def filled(variant="na", policy=identity, env=None, size=64, **settings):
    """DSRL with a buffer of random transitions whose next values count."""
    dsrl = DSRL(env or Match(), policy, **SMALL | {"variant": variant} | settings)
    generator = torch.Generator().manual_seed(1)
    x, a = torch.rand(size, 1, generator=generator), torch.rand(size, dsrl.planner.actions.size, generator=generator)
    dsrl.buffer.add(x, a, torch.rand(size, generator=generator), x + 0.1, np.zeros(size, bool))
    return dsrl


# --- the sampler that the released policies have ---------------------------------------------------------------------


def test_betas_and_visited_steps_are_those_of_the_released_policies():
    beta = betas("squared_cosine", 20)
    np.testing.assert_allclose(beta[[0, 1, 10, 19]], [0.0079927, 0.0200750, 0.1569971, 0.9990000], atol=5e-8)
    sampler = DDIM(ForwardProcess("squared_cosine", 20), 5)
    assert sampler.timesteps.tolist() == [16, 12, 8, 4, 0]
    left = alpha_bars(beta)[sampler.timesteps]
    np.testing.assert_allclose(left, [0.0536592, 0.2691675, 0.5715266, 0.8470122, 0.9920073], atol=5e-8)


def test_the_sampler_is_a_function_of_its_noise_and_that_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    process = ForwardProcess("squared_cosine", 20)
    sampler = DDIM(process, 5, clip=1.0, recompute_epsilon=True)
    weight = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))

    def denoiser(x, t):
        return (x @ weight + t[:, None] / 20).tanh()

    ours = sampler.sample(denoiser, noise)
    assert torch.equal(ours, sampler.sample(denoiser, noise))
    theirs = diffusers.DDIMScheduler(
        20, trained_betas=betas("squared_cosine", 20).numpy(), clip_sample=True, timestep_spacing="leading"
    )
    theirs.set_timesteps(5)
    x = noise
    for t in theirs.timesteps:
        x = theirs.step(denoiser(x, t.expand(3)), t, x, eta=0.0, use_clipped_model_output=True).prev_sample
    torch.testing.assert_close(ours, x, atol=2e-5, rtol=0)


# --- limits and exact equalities -------------------------------------------------------------------------------------


def test_with_a_bound_of_zero_the_plan_of_the_mean_noise_is_played():
    dsrl = filled(policy=Foreign(), noise_bound=1e-12)
    x = np.linspace(-1, 1, 5, dtype=np.float32)[:, None]
    np.testing.assert_allclose(dsrl.act(x), Foreign().plan(x, np.zeros((5, 1, 1))), atol=1e-6)


def test_on_the_identity_dsrl_sac_is_sac_bit_for_bit():
    """A policy that plans its noise, and a world whose actions are as wide as the bound."""
    lengths = Countdown([3, 5], [False, True], FITS), Countdown([3, 5], [False, True], FITS)
    settings = SMALL | {"warm_up": 0, "variant": "sac", "noise_bound": 2.0, "time_limit_ends": False}
    dsrl = DSRL(lengths[0], identity, **settings)
    sac = SAC(
        ChunkedEnv(lengths[1], 1), actor=TanhGaussianActor(1, 1, hidden=(16, 16), activation="tanh", layer_norm=True),
        critics=QNetworks(1, 1, hidden=(16, 16), activation="tanh", layer_norm=True), utd=1.0, learning_starts=0,
        batch_size=16, target_entropy=0.0, seed=0,
    )  # fmt: skip
    sac.actor.load_state_dict(dsrl.actor.state_dict())
    sac.critics.load_state_dict(dsrl.critics.state_dict())
    sac.slow.copy_(sac.critic_adam.vector)
    dsrl.learn(40), sac.learn(40)
    assert dsrl.updates == sac.updates > 20
    assert torch.equal(dsrl.actor_adam.vector, sac.actor_adam.vector)
    assert torch.equal(dsrl.slow, sac.slow)


def test_on_the_identity_the_critics_of_noises_become_those_of_chunks():
    dsrl = filled(env=Countdown([3, 5], [False, False], FITS), noise_bound=2.0, learning_rate=3e-3)
    assert dsrl.noise_critics is dsrl.judges is not dsrl.critics
    x, noise = torch.rand(256, 1), torch.randn(256, 1).clamp(-1.9, 1.9)

    def gap():
        with torch.no_grad():
            return (dsrl.noise_critics(x, noise / 2) - dsrl.critics(x, noise / 2)).abs().mean()

    before = gap()
    for _ in range(60):
        dsrl.distill()
    assert gap() < 0.15 * before


def test_on_a_constant_policy_distillation_leads_to_a_constant():
    constant = torch.tensor([0.4])
    dsrl = filled(policy=lambda o, noise: constant.expand(noise.shape), learning_rate=3e-3)
    same = torch.full((256, 1), 0.5)
    with torch.no_grad():
        dsrl.buffer.storage["observation"][:64] = 0.5
        exact = dsrl.critics(same, (constant - 1).expand(256, 1))
    for _ in range(60):
        dsrl.distill()
    told = dsrl.noise_critics(same, torch.randn(256, 1) / 1.5)
    torch.testing.assert_close(told, exact, atol=0.05, rtol=0)
    assert told.std(1).max() < 0.03


def test_the_actors_gradient_reaches_neither_policy_nor_critics_of_chunks():
    base = torch.nn.Linear(1, 1)

    class Net:
        def plan(self, observation, noise):
            return base(noise) + 1

    dsrl = filled(policy=Net())
    weights = base.weight.detach().clone()
    told = []
    real = dsrl.actor_adam.step
    dsrl.actor_adam.step = lambda: told.append(dsrl.critic_adam.gradient.abs().sum()) or real()
    dsrl.critic_adam.step = lambda: dsrl.critic_adam.gradient.zero_()  # what is there later came from the actor
    noise_gradient = dsrl.noise_adam.gradient.clone()
    dsrl.update(dsrl.buffer.sample(16))
    assert told == [0] and dsrl.actor_adam.gradient.abs().sum() > 0
    assert torch.equal(dsrl.noise_adam.gradient, noise_gradient)
    assert base.weight.grad is None and torch.equal(base.weight, weights)


def test_the_target_values_what_the_next_noise_leads_to():
    """y = r + gamma (min Q(s', plan(s', b w')) - alpha log pi(w' | s')), w' from the actor, by hand."""
    dsrl = filled(policy=lambda o, noise: (0.4 * noise).tanh() + 1, initial_temperature=0.3)
    batch = dsrl.buffer.sample(16)
    state = dsrl.generator.get_state()
    with torch.no_grad():
        scaled, log_prob = dsrl.actor(batch["next_observation"], dsrl._noise(16))
        chunk = (0.4 * 1.5 * scaled).tanh()  # in [-1, 1], the world's actions lie in 0..2
        q = dsrl.target(batch["next_observation"], chunk).amin(0)
        target = batch["reward"] + 0.99 * (q - 0.3 * log_prob)
        expected = 0.5 * (dsrl.critics(batch["observation"], batch["action"]) - target).square().mean(1).sum()
    dsrl.generator.set_state(state)
    assert dsrl.update(batch)["critic_loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_distillation_draws_unclipped_noise_and_scales_it_for_the_critics():
    seen = {}
    dsrl = filled(policy=lambda o, noise: seen.update(plan=noise) or noise, noise_bound=0.5)
    real = dsrl.noise_critics.forward
    dsrl.noise_critics.forward = lambda o, w: seen.setdefault("critics", w) is None or real(o, w)
    dsrl.distill()
    assert len(seen["plan"]) == 10 * 16 and seen["plan"].abs().max() > 2
    torch.testing.assert_close(seen["critics"], seen["plan"][:16, 0] / 0.5)


def test_the_buffer_holds_chunks_in_na_and_noises_in_sac():
    plans = []

    def policy(observation, noise):
        plans.append((0.4 * noise).tanh())
        return plans[-1] + 1

    for variant in ("na", "sac"):
        dsrl = DSRL(Match(), policy, **SMALL | {"variant": variant, "warm_up": 10})
        for _ in range(10):
            dsrl.step()
        stored = dsrl.buffer.storage["action"][: dsrl.buffer.size]
        assert stored.abs().max() <= 1
        if variant == "na":
            torch.testing.assert_close(stored[-8:], plans[-1][:, 0])
        else:  # clipped to the bound before it is planned from
            torch.testing.assert_close((0.4 * 1.5 * stored[-8:]).tanh(), plans[-1][:, 0])
            assert (stored.abs() == 1).any()


def test_updates_come_after_every_chunk_and_distillation_after_them():
    dsrl = DSRL(Match(), identity, **SMALL | {"utd": 3, "distill_steps": 5})
    dsrl.learn(8 * 10)
    assert dsrl.steps == 80 and dsrl.env.played == 80
    assert dsrl.updates == 3 * 6 == dsrl.critic_adam.steps and dsrl.noise_adam.steps == 5 * 6


# --- it works, on anything -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["na", "sac"])
def test_it_improves_a_foreign_object_that_has_nothing_but_plan(variant):
    """Do what you see, by a policy that only half looks, in chunks of two out of plans of three."""
    env = Match(16, seed=1)
    dsrl = DSRL(
        env, Foreign(), execute=1, noise_shape=(2, 1), variant=variant, hidden=(32, 32), batch_size=64, warm_up=20,
        utd=4, distill_steps=4, gamma=0.5, learning_rate=3e-3, initial_temperature=0.05, seed=0,
    )  # fmt: skip
    told = []
    dsrl.learn(
        16 * 150,
        on_step=lambda step, total, values: told.append(values.get("episode_return", -99)),
    )
    assert np.mean(told[-5:]) > -1.5 and np.mean([value for value in told[3:8]]) < -3
    x = np.linspace(-0.7, 0.7, 5, dtype=np.float32)[:, None]
    np.testing.assert_allclose(dsrl.act(x, deterministic=True)[:, 0], 1 + x, atol=0.35)


def test_offline_transitions_without_noise_are_learned_from():
    dsrl = DSRL(
        Match(), Foreign(), **SMALL | {"learning_rate": 3e-3, "initial_temperature": 0.02, "gamma": 0.1, "utd": 5}
    )
    generator = np.random.default_rng(0)
    x, chunk = generator.uniform(-1, 1, (512, 1)), generator.uniform(0, 2, (512, 1, 1))
    dsrl.add_offline(x, chunk, -((chunk[:, 0, 0] - 1 - x[:, 0]) ** 2), x, np.ones(512, bool))
    dsrl.train(300)
    assert dsrl.updates == 300 and dsrl.noise_adam.steps == 600
    test = np.linspace(-0.6, 0.6, 5, dtype=np.float32)[:, None]
    np.testing.assert_allclose(dsrl.act(test, deterministic=True)[:, 0], 1 + test, atol=0.35)
    with pytest.raises(ValueError, match="transitions without noise"):
        filled("sac").add_offline(x, chunk, x[:, 0], x, np.ones(512, bool))


def test_the_best_of_many_plans_is_the_one_the_critics_value_most():
    best = BestOfN(Match(), Foreign(), **SMALL, proposals=64)
    with torch.no_grad():  # critics that like the number 1.5
        best.critics.forward = lambda o, a: -(a - 0.5).square().expand(-1, 2).T
    x = np.zeros((4, 1), np.float32)
    np.testing.assert_allclose(best.act(x), np.full((4, 1, 1), 1.5), atol=0.1)
    best = BestOfN(Match(), Foreign(), **SMALL, proposals=4).learn(120)
    assert best.updates == 22 and torch.isfinite(best.critic_adam.vector).all()
    with pytest.raises(ValueError, match="at least one plan"):
        BestOfN(Match(), Foreign(), **SMALL, proposals=0)


def test_the_same_seed_gives_the_same_bits():
    def vector():
        return DSRL(PegInsert(4, "two_slots"), Foreign4(), **SMALL | {"execute": 4}).learn(60).actor_adam.vector

    class Foreign4:
        def plan(self, observation, noise):
            return noise.tanh()

    assert torch.equal(vector(), vector())


# --- files -----------------------------------------------------------------------------------------------------------


def test_saved_and_loaded_it_acts_and_learns_alike(tmp_path):
    dsrl = DSRL(Match(), Foreign(), **SMALL).learn(80)
    dsrl.save(tmp_path / "dsrl")
    other = DSRL.load(tmp_path / "dsrl", Match(), policy=Foreign())
    x = np.linspace(-1, 1, 5, dtype=np.float32)[:, None]
    assert np.array_equal(dsrl.act(x, deterministic=True), other.act(x, deterministic=True))
    batch = dsrl.buffer.sample(16)
    for each in (dsrl, other):
        each.generator.manual_seed(3)
        each.update(batch)
    assert torch.equal(dsrl.actor_adam.vector, other.actor_adam.vector)
    assert torch.equal(dsrl.noise_adam.vector, other.noise_adam.vector)
    steered = dsrl.steered(deterministic=True)
    steered.save(tmp_path / "steered")
    again = SteeredPolicy.load(tmp_path / "steered", Foreign())
    np.testing.assert_array_equal(steered.plan(x), again.plan(x))
    np.testing.assert_allclose(steered.plan(x)[:, :1], dsrl.act(x, deterministic=True), atol=1e-6)
    acting = ChunkedPolicy(again, execute=1)  # wherever a policy is
    np.testing.assert_array_equal(acting.act(x), again.act(x))
    acting.reset(np.ones(5, bool))
    with pytest.raises(ValueError, match="holds SteeredPolicy, not DSRL"):
        DSRL.load(tmp_path / "steered", Match(), policy=Foreign())


# --- what does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (lambda o, noise: torch.rand_like(noise), "not deterministic"),
        (lambda o, noise: torch.ones_like(noise), "ignores its noise"),
        (lambda o, noise: noise[:, :, [0, 0]], r"plans are \(B, at least 1, 1\), not \(8, 1, 2\)"),
        (lambda o, noise: noise[:, :0], "execute fewer actions"),
        (lambda o, noise: noise / 0, "the plan of row 0 is not finite"),
    ],
)
def test_a_policy_that_cannot_be_steered_is_told_so(policy, message):
    with pytest.raises(ValueError, match=message):
        DSRL(Match(), policy, **SMALL).learn(8)


def test_settings_and_spaces_are_checked():
    for changed, message in (
        ({"variant": "both"}, '"na" or "sac"'), ({"noise_bound": 0.0}, "above 0"), ({"distill_steps": 0}, "above 0"),
        ({"combine": "max"}, '"min" or "mean"'), ({"buffer_size": 8}, "smaller than a batch"),
        ({"utd": 0}, "above 0"), ({"execute": 0}, "at least one action"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            DSRL(Match(), identity, **SMALL | changed)
    with pytest.raises(ValueError, match="continuous"):
        DSRL(Match(discrete=True), identity, **SMALL)
    with pytest.raises(ValueError, match="no bounds"):
        DSRL(Countdown([2], [False], Box(-np.inf, np.inf, (1,))), identity, **SMALL)
    with pytest.raises(TypeError, match="VectorEnv"):
        DSRL(object(), identity, **SMALL)
    with pytest.raises(TypeError, match=r"has plan\(observation, noise\)"):
        DSRL(Match(), 3, **SMALL)
    with pytest.raises(ValueError, match="fewer than a batch"):
        DSRL(Match(), identity, **SMALL).train(1)
    spoiled = Countdown([5, 5], [False, False], FITS, spoil="reward")
    with pytest.raises(ValueError, match="NaN or infinite reward"):
        DSRL(spoiled, identity, **SMALL).learn(20)
