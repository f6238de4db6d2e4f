"""Policies that learn from demonstrations: what all of them share, from episodes to actions in an environment.

A policy turns the last ``history`` observations into a chunk of ``horizon`` actions. A subclass says what network there
is, what its loss is and how it predicts, all in scaled units; the base scales, cuts episodes into windows, trains,
averages weights, checks what comes in, remembers what each environment showed, and stores everything.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from reprise.data.episodes import Episodes
from reprise.data.finite import all_finite
from reprise.data.text import HashedWords
from reprise.data.windows import Windows
from reprise.policies.demonstrations import Batch, Demonstrations, Objective, trained_steps
from reprise.policies.observations import History, Shapes, checked_mask, named, take
from reprise.policies.scales import Scales
from reprise.rl.files import load_state, read, write
from reprise.training.fit import History as Trained, OnStep, fit
from reprise.training.weight_average import WeightAverage

__all__ = ["AVERAGE", "ImitationPolicy", "masked_mean"]

TextEncoder = Callable[[Sequence[str]], Tensor]  # N sentences to (N, D)
AVERAGE = {"decay": 0.9999, "power": 0.75}  # of the weights, as in Diffusion Policy


class ImitationPolicy:
    """Base of policies that learn from :class:`~reprise.data.Episodes`.

    A subclass gives :meth:`build`, :meth:`loss` and :meth:`predict`, and hands what it does not know itself to this
    class as ``**options``. The three see a batch, a dictionary of

    - ``observations``: name to (B, history, ...), scaled; pictures are bytes (B, history, H, W, 3).
    - ``history_padding``: (B, history), True where the first observation of an episode is repeated.
    - ``goal``: name to (B, ...), scaled as the observations of these names; with goals only.
    - ``instruction``: (B, D), encoded; with instructions only.
    - in training ``actions``: (B, horizon, A), scaled, and ``padding``: (B, horizon), True where the nearest action of
      the episode is repeated.

    Observations come in batches, one row for each environment: an array if one thing is observed, else a dictionary.
    Names of LeRobot are understood (``observation.state``, ``observation.image``, ``task``). A goal is found under
    ``goal``, an instruction (one sentence for each environment, or one for all) under ``instruction``.

    Args:
        horizon: H, actions in a chunk.
        history: T_o, observations that are seen.
        observations: names of what is seen.
        goal: None, "final" or "future": where goals come from in training, see :class:`~reprise.data.Windows`.
        goal_observations: names of what a goal consists of; None: of everything that is seen.
        instructions: numbers that a sentence is hashed to (:class:`~reprise.data.HashedWords`), or an encoder that
            turns a list of N sentences into (N, D); None without instructions.
        first_action: which step the chunk begins at, relative to the last observation; ``1 - history`` begins beside
            the first. Only what comes at 0 and later can be executed.
        pad_start, pad_end: steps of a training window that may lie before the start (after the end) of its episode,
            where the nearest step is repeated; None: any.
        observation_scaling, action_scaling: "min_max" (to [-1, 1]), "standard" (mean 0, deviation 1) or "none".
        device: where the network is.

    Attributes:
        module: the network that is trained; after training it has the averaged weights.
        normalizers: name to :class:`~reprise.data.Normalizer`; that of ``actions``, too.
        shapes: the :class:`~reprise.policies.Shapes` it was built from; None before the first training.
        trained: steps and losses of the last training, see :class:`reprise.training.History`.
        settings: arguments it was made with.

    Raises:
        ValueError: settings that do not fit.

    Example:
        >>> class Mean(ImitationPolicy):
        ...     "The best constant chunk."
        ...     noisy = False
        ...     def build(self, shapes):
        ...         return nn.ParameterList([torch.zeros(self.horizon, shapes.action)])
        ...     def loss(self, batch):
        ...         return masked_mean((self.module[0] - batch["actions"]) ** 2, batch["padding"])
        ...     def predict(self, batch, noise, generator=None):
        ...         return self.module[0].expand(len(batch["history_padding"]), -1, -1)
        >>> walk = Episodes({"state": np.zeros((8, 3))}, np.linspace(0, 2, 8, dtype=np.float32)[:, None], np.array([8]))
        >>> policy = Mean(horizon=2).fit(walk, steps=50)
        >>> policy.act(np.zeros((5, 3))).shape, policy.plan(np.zeros((5, 3))).shape
        ((5, 1), torch.Size([5, 2, 1]))
    """

    noisy = True
    """Whether a plan begins from noise (B, H, A)."""

    training_defaults: Mapping[str, Any] = {}
    """Arguments of :meth:`train` that :meth:`fit` uses unless it is given others."""

    module: nn.Module
    settings: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        policy = super().__new__(cls)
        with suppress(TypeError):  # wrong arguments are for __init__ to refuse
            bound = inspect.signature(cls.__init__).bind(policy, *args, **kwargs)
            bound.apply_defaults()
            given = {**bound.arguments, **bound.arguments.get("options", {})}
            policy.settings = {key: value for key, value in given.items() if key not in ("self", "options", "device")}
        return policy

    def __init__(
        self,
        *,
        horizon: int = 1,
        history: int = 1,
        observations: Sequence[str] = ("state",),
        goal: str | None = None,
        goal_observations: Sequence[str] | None = None,
        instructions: int | TextEncoder | None = None,
        first_action: int = 0,
        pad_start: int | None = None,
        pad_end: int | None = None,
        observation_scaling: str = "min_max",
        action_scaling: str = "min_max",
        device: torch.device | str = "cpu",
    ) -> None:
        if horizon < 1 or history < 1:
            raise ValueError(f"horizon and history are at least 1, not {horizon} and {history}")
        if not -horizon < first_action <= 0:
            raise ValueError(
                f"a chunk of {horizon} holds the action of now if first_action lies in {1 - horizon}..0, not at "
                f"{first_action}"
            )
        if not observations or isinstance(observations, str):
            raise ValueError(f'observations are names, say ("state",), not {observations!r}')
        self.horizon, self.history, self.first_action = horizon, history, first_action
        self.observations, self.goal = tuple(observations), goal
        self.goal_observations = () if goal is None else tuple(goal_observations or observations)
        self.text = HashedWords(instructions) if isinstance(instructions, int) else instructions
        self.pad_start, self.pad_end = pad_start, pad_end
        self.device = torch.device(device)
        self._scales = Scales(observation_scaling, action_scaling, self.device)
        self.normalizers = self._scales.normalizers
        self.shapes: Shapes | None = None
        self.trained: Trained | None = None
        self._seen = History(history)

    # --- what a subclass says -----------------------------------------------------------------------------------------

    def build(self, shapes: Shapes) -> nn.Module:
        """The network for data of these sizes."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch, (): what is minimised."""
        raise NotImplementedError

    def predict(self, batch: Batch, noise: Tensor | None, generator: torch.Generator | None = None) -> Tensor:
        """(B, horizon, A) scaled actions, from standard normal ``noise`` of that shape if the policy is ``noisy``.

        Args:
            generator: of whatever else is drawn.
        """
        raise NotImplementedError

    def parameter_groups(self, module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
        """What the optimiser is given: by default, all parameters that are trained decay alike."""
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        return [{"params": trained, "weight_decay": weight_decay}]

    def windows(self, episodes: Episodes) -> Windows:
        """How scaled episodes are cut into what :meth:`loss` sees."""
        return Windows(
            episodes,
            self.history,
            self.horizon,
            first_action=self.first_action,
            goal=self.goal,
            observations=self.observations,
            goal_observations=self.goal_observations,
        )

    # --- learning -----------------------------------------------------------------------------------------------------

    def fit(self, episodes: Episodes, *, steps: int, validation: float = 0.0, **training: Any) -> Self:
        """Learn from demonstrations; a second call goes on from the weights there are, with the scales there are.

        Args:
            episodes: the demonstrations.
            steps: of the optimiser.
            validation: share of the episodes that is held out; the loss on them is told.
            **training: of :meth:`train`: batch_size, learning_rate, ...; those not given are of
                :attr:`training_defaults`.

        Returns:
            self

        Raises:
            ValueError: episodes that the policy cannot learn from, or of other shapes than those before.
            Diverged: a loss or a weight is not finite.
        """
        demonstrations, held_out = self.prepare(episodes, validation)
        self.train(demonstrations, held_out, steps=steps, **{**self.training_defaults, **training})
        return self

    def prepare(self, episodes: Episodes, validation: float = 0.0) -> tuple[Demonstrations, Demonstrations | None]:
        """Scale episodes and cut them into windows; the first call measures the scales and builds the network.

        Args:
            episodes: the demonstrations.
            validation: share of the episodes that is held out, in [0, 1).

        Returns:
            Those to train on, and those held out, if any.
        """
        if not 0 <= validation < 1:
            raise ValueError(f"validation is a share of the episodes in [0, 1), not {validation}")
        if self.text is not None and not episodes.instructions:
            raise ValueError("the policy follows instructions, and these episodes have none")
        size = 0 if self.text is None else self.text(episodes.instructions[:1]).shape[1]
        shapes = Shapes.of(episodes, self.observations, self.goal_observations, size)
        if self.shapes is not None and shapes != self.shapes:
            raise ValueError(f"the policy was built for {self.shapes}; these episodes have {shapes}")
        held_out = None
        if validation:
            count = max(1, round(validation * len(episodes)))
            episodes, held_out = episodes.split(count, int(torch.randint(2**31, ())))
        if self.shapes is None:
            self._scales.measure(shapes, episodes)
        cut = self._cut(episodes), None if held_out is None else self._cut(held_out)
        if self.shapes is None:  # what cannot be cut leaves nothing that would act
            self._build(shapes)
        return cut

    def setup(self, shapes: Shapes) -> None:
        """Build the network without episodes; nothing is scaled."""
        self._scales.measure(shapes)
        self._build(shapes)

    def train(
        self,
        demonstrations: Demonstrations,
        held_out: Demonstrations | None = None,
        *,
        module: nn.Module | None = None,
        loss: Callable[[Batch], Tensor] | None = None,
        steps: int,
        batch_size: int = 256,
        learning_rate: float = 1e-4,
        weight_decay: float = 1e-6,
        betas: tuple[float, float] = (0.9, 0.999),
        warmup: float = 0.0,
        schedule: str = "cosine",
        clip_norm: float | None = None,
        ema: Mapping[str, float] | None = AVERAGE,
        on_step: OnStep | None = None,
    ) -> None:
        """What :meth:`fit` does after :meth:`prepare`; a policy that learns in stages calls it for each.

        Batches, dropout and noise come from PyTorch's global generator.

        Args:
            demonstrations, held_out: from :meth:`prepare`.
            module: the part of :attr:`module` that is trained; None: all of it.
            loss: what is minimised; None: :meth:`loss`.
            steps: of the optimiser (AdamW).
            batch_size: windows in a batch; all there are, if they are fewer.
            learning_rate, weight_decay, betas, clip_norm: of AdamW.
            warmup, schedule: of the learning rate, see :func:`reprise.training.fit`.
            ema: arguments of :class:`~reprise.training.EMA`, whose average acts; None: the last weights act.
            on_step: called about fifty times with (step, steps, {"loss": ...}), and "validation_loss" if there is one.

        Raises:
            Diverged: a loss or a weight is not finite.
        """
        module, loss = self.module if module is None else module, self.loss if loss is None else loss
        optimizer = torch.optim.AdamW(
            self.parameter_groups(module, weight_decay), lr=learning_rate, betas=betas, fused=True
        )
        average = None if ema is None else WeightAverage(module, **ema)
        if average is not None:
            optimizer.register_step_post_hook(lambda *_: average.update())

        def tell(step: int, total: int, values: dict[str, float]) -> None:
            if held_out is not None:
                with nullcontext() if average is None else average.applied():
                    values = values | {"validation_loss": self.validate(held_out, loss)}
                module.train()
            if on_step is not None:
                on_step(step, total, values)

        self.module.eval()  # what is not trained now
        rows = torch.from_numpy(demonstrations.steps)
        self.trained = fit(
            Objective(module, loss, demonstrations), rows, rows, loss=lambda value, _: value, steps=steps,
            batch_size=min(batch_size, len(rows)), optimizer=optimizer, schedule=schedule, warmup=warmup,
            clip_norm=clip_norm, on_step=tell,
        )  # fmt: skip
        if average is not None:
            average.finish()
        self.reset()

    @torch.no_grad()
    def validate(
        self,
        demonstrations: Demonstrations,
        loss: Callable[[Batch], Tensor] | None = None,
        limit: int = 1024,
        seed: int = 0,
    ) -> float:
        """The loss in evaluation mode of at most ``limit`` windows; the same ones, and the same noise, for a seed."""
        self.module.eval()
        with torch.random.fork_rng(devices=[] if self.device.type == "cpu" else [self.device]):
            torch.manual_seed(seed)
            return float((self.loss if loss is None else loss)(demonstrations.some(limit, seed)))

    # --- acting -------------------------------------------------------------------------------------------------------

    def plan(
        self,
        observation: Any,
        noise: Tensor | None = None,
        *,
        environments: Any = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Chunks of actions for what the environments show now.

        Args:
            observation: (B, ...) array or a dictionary of such, one row for each environment.
            noise: (n, H, A) standard normal that a noisy policy begins from; None draws it.
            environments: (B,) booleans, the n whose chunks are wanted; None: all. The others are remembered, too.
            generator: of all that is drawn; None: PyTorch's global one.

        Returns:
            (n, H, A) float32 in the units of the demonstrations; the chunk begins ``first_action`` steps from now.

        Raises:
            RuntimeError: nothing was learned or loaded yet.
            ValueError: an observation, goal, instruction or noise that is missing or does not fit.
            FloatingPointError: an action is not finite.
        """
        batch = self._observe(observation)
        if environments is not None:
            mask = checked_mask(environments, len(batch["history_padding"]))
            batch = take(batch, torch.from_numpy(mask).to(self.device))
        shape = (len(batch["history_padding"]), self.horizon, self._built().action)
        if noise is not None:
            if not self.noisy:
                raise ValueError(f"{type(self).__name__} plans without noise: leave it out")
            noise = torch.as_tensor(noise, dtype=torch.float32, device=self.device)
            if noise.shape != shape:
                raise ValueError(f"noise is (n, horizon, A), here {shape}, not {tuple(noise.shape)}")
        elif self.noisy:
            noise = torch.randn(shape, device=self.device, generator=generator)
        with torch.inference_mode():
            chunk = self.predict(batch, noise, generator)
        if chunk.shape != shape:
            raise ValueError(f"predict of {type(self).__name__} must return {shape}, not {tuple(chunk.shape)}")
        if not all_finite(chunk):
            raise FloatingPointError(f"{type(self).__name__} planned an action that is not finite")
        return self.normalizers["actions"].inverse(chunk.detach())

    def act(self, observation: Any, noise: Tensor | None = None) -> np.ndarray:
        """(B, A) actions for now; every call plans anew. :class:`~reprise.policies.ChunkedPolicy` plans less often."""
        return self.plan(observation, noise)[:, -self.first_action].cpu().numpy()

    def observe(self, observation: Any) -> None:
        """Remember what the environments show, without a plan: for policies with a history, between two plans."""
        if self.history > 1:
            self._observe(observation)

    def reset(self, mask: Any = None) -> None:
        """Forget what all environments showed, or those of a mask (B,): call it where an episode begins."""
        self._seen.reset(mask)

    def _observe(self, observation: Any) -> Batch:
        """Check and scale an observation, and put what was seen before beside it."""
        shapes = self._built()
        given = named(observation, self.observations)
        seen = self._scales.read(given, shapes.observations, "the policy observes")
        batch: Batch = {}
        counts = {name: len(value) for name, value in seen.items()}
        if self.goal is not None:
            if "goal" not in given:
                raise ValueError("the policy needs a goal: give the observation as a dictionary that has one")
            goal = self._scales.read(named(given["goal"], self.goal_observations), shapes.goal, "a goal consists of")
            counts |= {f"goal {name}": len(value) for name, value in goal.items()}
            batch["goal"] = goal
        if self.text is not None:
            if "instruction" not in given:
                raise ValueError("the policy needs an instruction: give the observation as a dictionary that has one")
            sentences = given["instruction"]
            sentences = [sentences] * next(iter(counts.values())) if isinstance(sentences, str) else list(sentences)
            counts["instruction"] = len(sentences)
            batch["instruction"] = self._encode(sentences)
        if len(set(counts.values())) > 1:
            raise ValueError(f"all parts of an observation are of the same environments, but they number {counts}")
        batch["observations"], batch["history_padding"] = self._seen.push(seen)
        return batch

    # --- files --------------------------------------------------------------------------------------------------------

    def save(self, folder: Path | str) -> None:
        """Write ``policy.safetensors`` and ``policy.json`` into a folder."""
        shapes = asdict(self._built())
        plain = {key: value for key, value in self.settings.items() if not callable(value)}
        objects = sorted(set(self.settings) - set(plain))
        facts = {"algorithm": type(self).__name__, "settings": plain, "objects": objects, "shapes": shapes}
        write(Path(folder) / "policy", self._parts(), facts)

    @classmethod
    def load(cls, folder: Path | str, *, device: torch.device | str = "cpu", **objects: Any) -> Self:
        """The policy that :meth:`save` wrote.

        Args:
            folder: that was written.
            device: of the network.
            **objects: settings that cannot be stored, say an encoder of instructions of your own.

        Raises:
            ValueError: the folder holds another policy, or an object is missing.
        """
        path = Path(folder) / "policy"
        facts = read(path, cls.__name__)
        if missing := [name for name in facts["objects"] if name not in objects]:
            raise ValueError(
                f"{missing[0]} is no plain value and could not be stored: give load(..., {missing[0]}=...)"
            )
        policy = cls(**facts["settings"], **objects, device=device)
        policy.setup(Shapes(**facts["shapes"]))
        load_state(path, policy._parts(), policy.device)
        return policy

    def _parts(self) -> dict[str, Any]:
        return {"module": self.module} | {f"scale of {name}": scale for name, scale in self.normalizers.items()}

    # --- inside -------------------------------------------------------------------------------------------------------

    def _built(self) -> Shapes:
        if self.shapes is None:
            raise RuntimeError(f"this {type(self).__name__} has learned nothing yet: call fit, or load one")
        return self.shapes

    def _build(self, shapes: Shapes) -> None:
        self.module = self.build(shapes).to(self.device).eval()
        self.shapes = shapes

    def _encode(self, sentences: Sequence[str]) -> Tensor:
        """(N, D); equal sentences are encoded once."""
        assert self.text is not None
        unique = list(dict.fromkeys(sentences))
        place = {sentence: i for i, sentence in enumerate(unique)}
        return self.text(unique).float().to(self.device)[[place[sentence] for sentence in sentences]]

    def _cut(self, episodes: Episodes) -> Demonstrations:
        """Scaled windows."""
        windows = self.windows(self._scales.episodes(episodes))
        text = None if self.text is None else self._encode(episodes.instructions).cpu()
        return Demonstrations(windows, trained_steps(windows, self.pad_start, self.pad_end), text, self.device)


def masked_mean(errors: Tensor, padding: Tensor) -> Tensor:
    """The mean of errors (B, H, ...) over what is not padding (B, H).

    Example:
        >>> masked_mean(torch.tensor([[1.0, 5.0]]), torch.tensor([[False, True]]))
        tensor(1.)
    """
    kept = (~padding).to(errors).reshape(*padding.shape, *(1,) * (errors.ndim - 2))
    return (errors * kept).sum() / (kept.sum() * errors[0, 0].numel()).clamp_min(1)
