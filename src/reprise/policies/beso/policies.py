"""BESO, and two baselines that learn from the same windows with the same transformer: GCBC and C-BeT."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.diffusion.edm import EDM, log_logistic_sigmas
from reprise.diffusion.guidance import classifier_free
from reprise.diffusion.samplers import sample
from reprise.diffusion.schedules import sigma_schedule
from reprise.policies.beso.gpt import GoalGPT, ScoreGPT
from reprise.policies.beso.history import HistoryPolicy

__all__ = ["BESOPolicy", "BESOSampling", "CBeTPolicy", "GCBCPolicy"]


@dataclass(frozen=True)
class BESOSampling:
    """How actions are drawn from the trained denoiser; may be changed at any time, since training leaves it open.

    Args:
        steps: n, denoising steps.
        sampler: as of :func:`~reprise.diffusion.sample`: "ddim", "euler", "heun", "euler_ancestral", "dpm_2",
            "dpmpp_2s", "dpmpp_2m", "lms", ...
        schedule: as of :func:`~reprise.diffusion.sigma_schedule`: "linear", "exponential", "karras", ...
        sigma_min, sigma_max: last level but the zero, and first.
        rho: of "karras".
        guidance: lambda: 0 ignores the goal, 1 is the conditional policy, more goes beyond it (2 for Block-Push, 1.5
            for the kitchen). Other than 1 needs ``goal_drop`` in training.
        freeze_past: put the clean past actions back before each step. The released code feeds them at the noise level
            of the step, lets the sampler change them, and drops what becomes of them; so does False.

    The defaults are those published for Block-Push; the kitchen has 3 steps of "euler_ancestral", "linear" from 1 to
    0.005.

    Raises:
        ValueError: no steps, unknown schedule, levels out of order.

    Example:
        >>> BESOSampling(steps=3).sigmas
        tensor([1.0000, 0.5500, 0.1000, 0.0000], dtype=torch.float64)
    """

    steps: int = 3
    sampler: str = "ddim"
    schedule: str = "linear"
    sigma_min: float = 0.1
    sigma_max: float = 1.0
    rho: float = 5.0
    guidance: float = 1.0
    freeze_past: bool = False

    def __post_init__(self) -> None:
        _ = self.sigmas

    @cached_property
    def sigmas(self) -> Tensor:
        """The levels, and a 0."""
        return sigma_schedule(self.schedule, self.steps, self.sigma_min, self.sigma_max, rho=self.rho)


class BESOPolicy(HistoryPolicy):
    """Goal-conditioned imitation by a score-based diffusion model of actions, sampled in a few steps.

    Play becomes goal-conditioned data by hindsight. A causal transformer learns to denoise the actions of a window, one
    per state, at any noise level; all of them share one level. To act, the newest action begins as noise behind the
    actions taken before, is denoised in ``sampling.steps`` steps, and is executed: one action per observation, no
    chunk. With ``goal_drop`` the same network also learns the policy without a goal, and
    ``sampling.guidance`` goes from one to the other and beyond.

    Args:
        sigma_data: standard deviation of scaled actions, as the preconditioning takes it.
        sigma_min, sigma_max: of the noise levels trained on, truncated log-logistic; 0.005 for the kitchen.
        sampling: how actions are drawn.
        **options: window, goal_len, goal_entries, observations, scale and device of
            :class:`~reprise.policies.beso.history.HistoryPolicy`; embed_dim, n_layers, n_heads, attn_drop, resid_drop,
            goal_drop (0 is C-BESO, 0.1 CFG-BESO) and the others of :class:`ScoreGPT`.

    Raises:
        ValueError: sizes, noise levels; at the call: shapes, a goal that is missing, guidance without goal_drop.

    Source: Reuss, Li, Jia and Lioutikov, Goal-Conditioned Imitation Learning using Score-based Diffusion Policies,
    RSS 2023.

    Example:
        >>> from reprise.envs import block_push_demonstrations
        >>> play = block_push_demonstrations(4, seed=0)  # yours: reprise.data.read_lerobot("folder", cameras=())
        >>> policy = BESOPolicy(embed_dim=32, n_layers=1, n_heads=2, goal_drop=0.1, goal_entries=(2, 3, 4, 5))
        >>> policy = policy.fit(play, steps=3, batch_size=32, learning_rate=1e-3)  # published: 60,000 steps of 1,024
        >>> policy.sampling = BESOSampling(steps=3, guidance=1.5)
        >>> goal = play.observations["state"][play.ends[:2] - 1]  # where two demonstrations ended
        >>> policy.reset()  # before each episode
        >>> policy.act({"observation.state": play.observations["state"][:2]}, goal=goal).shape  # at every observation
        (2, 2)
    """

    def __init__(
        self,
        *,
        sigma_data: float = 0.5,
        sigma_min: float = 0.05,
        sigma_max: float = 1.0,
        sampling: BESOSampling | Mapping[str, Any] = BESOSampling(),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not 0 < sigma_min < sigma_max < math.inf:
            raise ValueError(
                f"noise levels need 0 < sigma_min < sigma_max, both finite, not {sigma_min} and {sigma_max}"
            )
        self.sigma_data, self.sigma_min, self.sigma_max = sigma_data, sigma_min, sigma_max
        self.sampling = BESOSampling(**sampling) if isinstance(sampling, Mapping) else sampling

    def settings(self) -> dict[str, Any]:
        """See the base."""
        names = ("sigma_data", "sigma_min", "sigma_max")
        own: dict[str, Any] = {name: getattr(self, name) for name in names}
        return super().settings() | own | {"sampling": asdict(self.sampling)}

    def make_network(self, obs_dim: int, action_dim: int) -> nn.Module:
        """The denoiser D; its ``net`` is F."""
        return EDM(ScoreGPT(obs_dim, action_dim, **self.network), self.sigma_data)

    def loss(self, states: Tensor, actions: Tensor, goals: Tensor) -> Tensor:
        """(F - target)^2 over window, action and batch, one noise level per window."""
        sigma = log_logistic_sigmas(
            len(states), self.sigma_min, self.sigma_max, loc=math.log(self.sigma_data), device=states.device
        )
        return self.net.loss(actions, goals, states, sigma=sigma)

    def predict(self, states: Tensor, past: Tensor, goals: Tensor | None, last: Tensor) -> Tensor:
        """Denoise the newest action behind the past ones."""
        how, dropped = self.sampling, self.network.get("goal_drop", 0.0) > 0
        if goals is None:
            if not dropped:
                raise ValueError("a goal is missing: give act one, or train with goal_drop to act without")
            goals = states.new_zeros(len(states), self.goal_len, states.shape[2])
        net = self.net
        if how.guidance == 1:  # without a second answer: embedded once, not at every noise level
            goals, states = net.net.embed(goals, states)
            net = partial(net, embedded=True)
        denoiser = classifier_free(net, goals, how.guidance, null=0.0 if dropped else None, shared=(states,))
        newest = (torch.arange(states.shape[1], device=states.device) == last[:, None])[..., None]
        noise = torch.randn(len(states), 1, past.shape[2], device=states.device)
        x = torch.where(newest, how.sigma_max * noise, past)

        def freeze(step: int, x: Tensor, level: float) -> Tensor:
            return torch.where(newest, x, past)

        x = sample(denoiser, x, how.sigmas, how.sampler, before_step=freeze if how.freeze_past else None)
        return x[torch.arange(len(x), device=x.device), last]


class GCBCPolicy(HistoryPolicy):
    """Goal-conditioned behaviour cloning: the transformer over goal and states predicts the mean action of each state.

    Args:
        **options: as of :class:`BESOPolicy`, but for goal_drop.

    Source: Lynch et al., Learning Latent Plans from Play, CoRL 2019 (GCBC); the squared error is that of the paper's
    baseline.

    Example:
        >>> policy = GCBCPolicy(embed_dim=32, n_layers=1, n_heads=2).build(obs_dim=10, action_dim=2)
        >>> policy.act(np.zeros((3, 10)), goal=np.zeros((3, 10))).shape
        (3, 2)
    """

    def make_network(self, obs_dim: int, action_dim: int) -> nn.Module:
        """See the class."""
        return GoalGPT(obs_dim, action_dim, **self.network)

    def loss(self, states: Tensor, actions: Tensor, goals: Tensor) -> Tensor:
        """Squared error over all actions of the window."""
        return F.mse_loss(self.net(goals, states), actions)

    def predict(self, states: Tensor, past: Tensor, goals: Tensor | None, last: Tensor) -> Tensor:
        """The output at the newest state."""
        if goals is None:
            raise ValueError("a goal is missing: give act one")
        return self.net(goals, states)[torch.arange(len(states), device=states.device), last]


class CBeTPolicy(HistoryPolicy):
    """Conditional behaviour transformer: a class of action for each state, and an offset from the centre of the class.

    Classes are the clusters of the actions (k-means). To act, a class is drawn from the predicted probabilities and its
    offset added.

    Args:
        bins: clusters.
        focal: gamma of the focal cross entropy.
        offset_weight: of the squared error of the offset, which counts for the true class alone.
        **options: as of :class:`BESOPolicy`, but for goal_drop.

    Source: Shafiullah et al., Behavior Transformers, NeurIPS 2022; Cui et al., From Play to Policy, ICLR 2023.

    Example:
        >>> policy = CBeTPolicy(bins=8, embed_dim=32, n_layers=1, n_heads=2).build(obs_dim=10, action_dim=2)
        >>> policy.act(np.zeros((3, 10)), goal=np.zeros((3, 10))).shape
        (3, 2)
    """

    def __init__(self, *, bins: int = 24, focal: float = 2.0, offset_weight: float = 100.0, **options: Any) -> None:
        super().__init__(**options)
        if bins < 1:
            raise ValueError(f"there is at least 1 cluster of actions, not {bins}")
        self.bins, self.focal, self.offset_weight = bins, focal, offset_weight

    def settings(self) -> dict[str, Any]:
        """See the base."""
        return super().settings() | {name: getattr(self, name) for name in ("bins", "focal", "offset_weight")}

    def make_network(self, obs_dim: int, action_dim: int) -> nn.Module:
        """The transformer, with a logit and an offset per cluster; it holds the centres."""
        net = GoalGPT(obs_dim, self.bins * (1 + action_dim), **self.network)
        net.register_buffer("centres", torch.zeros(self.bins, action_dim))
        return net

    def prepare(self, actions: Tensor) -> None:
        """Cluster the actions."""
        from sklearn.cluster import KMeans

        if len(actions) < self.bins:
            raise ValueError(f"{len(actions)} actions cannot make {self.bins} clusters; choose fewer bins")
        seed = int(torch.randint(2**31, ()))
        found = KMeans(self.bins, n_init=1, random_state=seed).fit(actions.cpu().numpy())
        self.net.centres.copy_(torch.from_numpy(found.cluster_centers_))

    def loss(self, states: Tensor, actions: Tensor, goals: Tensor) -> Tensor:
        """Focal cross entropy of the class, and the squared error of its offset."""
        logits, offsets = self._outputs(goals, states)
        centres = self.net.centres
        true = torch.cdist(actions, centres.expand(len(actions), -1, -1)).argmin(2)
        log_prob = logits.log_softmax(2).gather(2, true[..., None])[..., 0]
        focal = -((1 - log_prob.exp()) ** self.focal * log_prob).mean()
        picked = offsets.gather(2, true[..., None, None].expand(-1, -1, 1, actions.shape[2]))[:, :, 0]
        return focal + self.offset_weight * F.mse_loss(picked, actions - centres[true])

    def predict(self, states: Tensor, past: Tensor, goals: Tensor | None, last: Tensor) -> Tensor:
        """A class drawn for the newest state, and its offset."""
        if goals is None:
            raise ValueError("a goal is missing: give act one")
        rows = torch.arange(len(states), device=states.device)
        logits, offsets = (part[rows, last] for part in self._outputs(goals, states))
        drawn = logits.softmax(1).multinomial(1)[:, 0]
        return self.net.centres[drawn] + offsets[rows, drawn]

    def _outputs(self, goals: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.net(goals, states).unflatten(2, (self.bins, -1))
        return outputs[..., 0], outputs[..., 1:]
