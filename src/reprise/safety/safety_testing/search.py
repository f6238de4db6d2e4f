"""Monte Carlo tree search of the game, and the random restarts that it is compared with.

Many plays are under way at once. Each is a generator that hands out an image and is sent its class probabilities, so
that it reads as if it were alone; the images of all plays go to the classifier in one call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reprise.safety.safety_testing.game import FeatureGame

__all__ = ["SearchResult", "mcts", "random_search"]

EXPLORATION = math.sqrt(2)
LEARNING = 1 / 25  # of a key point's weight from the confidence that its pixels took away
CHUNK = 10  # pixels restored at once, before one at a time

Play = Generator[np.ndarray, np.ndarray, Any]


@dataclass(frozen=True)
class SearchResult:
    """The nearest adversarial image that was found. Its distance is an upper bound on the least one, not the least.

    Attributes:
        found: whether there is one.
        adversarial: (C, H, W), None if none was found. No single pixel of it can be restored, unless the queries ran
            out before that was known.
        distance: from the original; infinite if none was found, 0 if the original is misclassified itself.
        queries: images that the classifier was given.
        trace: (plays, 3) for every finished play: queries so far, distance of its adversarial image (infinite if it
            found none) and the best distance so far.
    """

    found: bool
    adversarial: Tensor | None
    distance: float
    queries: int
    trace: np.ndarray


def mcts(
    game: FeatureGame,
    *,
    queries: int | None = None,
    simulations: int | None = None,
    opponent: str = "cooperative",
    visit: int = 6,
    moves: int = 4,
    reference: str = "last",
    cutoff: float = 4.0,
    parallel: int = 16,
    seed: int = 0,
) -> SearchResult:
    """Look for the nearest adversarial image by Monte Carlo tree search.

    Every play walks down the tree by upper confidence bounds, adds a node, goes on at random as the saliency
    distribution says until the image is misclassified or too far away, restores what need not be
    changed, and hands 1 / distance back along its path. Branches that hold nothing new are closed.

    Args:
        game: what is played.
        queries: images that the classifier may be given, the original and restoring included.
        simulations: plays; give either or both.
        opponent: player II. "cooperative" maximises the reward and takes back changes that raise the confidence of
            the true class; "adversarial" minimises the reward; "random" draws, as nature does.
        visit: pixels that a move of player II changes (100 for photographs, 6 for MNIST).
        moves: moves of player II in a node: so many draws of ``visit`` pixels, or with ``visit=1`` all changes of one
            pixel if they are not more.
        reference: what the confidence is compared with in a simulation: that of the "last" change that was kept, or
            that at its "start".
        cutoff: a simulation is given up at so many times the best distance so far. 1 is published; more pays, since
            restoring brings a distance down to a fraction.
        parallel: plays under way at once, whose images are asked about together.
        seed: the same seed gives the same result.

    Raises:
        ValueError: no limit, or one below 1; an unknown ``opponent`` or ``reference``; ``visit``, ``moves`` or
            ``parallel`` below 1; a label or target that the classifier does not have.

    Source: section 5, algorithm and UCB as there; comparison with the last kept change, restoring to the last pixel
    and closed branches are ours.

    Example:
        >>> def left(images):  # class 1 if the left half is brighter than the right
        ...     half = images.shape[-1] // 2
        ...     return torch.stack([images[..., half:].sum((1, 2, 3)), images[..., :half].sum((1, 2, 3))], 1)
        >>> image = torch.zeros(1, 8, 8)
        >>> image[0, 2, 1:3] = image[0, 5, 5] = 1  # left by two to one
        >>> game = FeatureGame(left, image, 1, outputs="logits")
        >>> mcts(game, queries=300, visit=2).distance
        1.0
    """
    if opponent not in ("cooperative", "adversarial", "random"):
        raise ValueError(f'opponent is "cooperative", "adversarial" or "random", not {opponent!r}')
    if moves < 1:
        raise ValueError(f"moves is at least 1, not {moves}")
    search = _Search(game, queries, simulations, visit, reference, cutoff, parallel, opponent == "cooperative", seed)
    return search.run(lambda: _tree_plays(search, opponent, moves))


def random_search(
    game: FeatureGame,
    *,
    queries: int | None = None,
    simulations: int | None = None,
    visit: int = 6,
    reference: str = "last",
    cutoff: float = 4.0,
    parallel: int = 16,
    seed: int = 0,
) -> SearchResult:
    """Simulations from the original image, again and again, without a tree; arguments as in :func:`mcts`.

    With ``features=uniform_features(...)`` in the game this is search by uniformly random pixels.

    Example:
        >>> from reprise.safety.safety_testing.features import uniform_features
        >>> def mean(images):
        ...     share = images.mean((1, 2, 3))
        ...     return torch.stack([1 - share, share], 1)
        >>> game = FeatureGame(mean, torch.zeros(1, 3, 3), 0, features=uniform_features((3, 3)))
        >>> random_search(game, queries=100, visit=1).distance
        5.0
    """
    search = _Search(game, queries, simulations, visit, reference, cutoff, parallel, True, seed)

    def plays() -> Iterator[Play]:
        while True:
            yield search.finish(search.simulate(_State(game.image, game.fixed, search.start, game.weights)))

    return search.run(plays)


@dataclass
class _State:
    """A place in a play: the image, the pixels that may no longer be changed, its confidence, the weights there."""

    image: np.ndarray
    touched: np.ndarray
    confidence: float
    weights: np.ndarray


class _Search:
    """What all plays of one search share: the budget, the best image so far, the random numbers."""

    def __init__(
        self,
        game: FeatureGame,
        queries: int | None,
        simulations: int | None,
        visit: int,
        reference: str,
        cutoff: float,
        parallel: int,
        cooperative: bool,
        seed: int,
    ) -> None:
        if queries is None and simulations is None:
            raise ValueError("give the number of queries, of simulations, or both")
        counts = {"queries": queries, "simulations": simulations, "visit": visit, "parallel": parallel}
        for name, value in counts.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} is at least 1, not {value}")
        if reference not in ("last", "start"):
            raise ValueError(f'reference is "last" or "start", not {reference!r}')
        if not cutoff >= 1:
            raise ValueError(f"cutoff is a factor of at least 1, not {cutoff}")
        self.game, self.visit, self.reference, self.parallel = game, visit, reference, parallel
        self.cutoff = cutoff
        self.cooperative, self.simulations = cooperative, simulations
        self.budget = math.inf if queries is None else queries
        self.rng = np.random.default_rng(seed)
        self.queries, self.start = 0, 1.0
        self.best = math.inf
        self.image: np.ndarray | None = None
        self.trace: list[tuple[float, float, float]] = []

    def run(self, plays: Callable[[], Iterable[Play]]) -> SearchResult:
        """Keep ``parallel`` plays going until the budget is spent or there are no more."""
        probabilities = self._ask(self.game.image[None])[0]
        self.game.check_classes(len(probabilities))
        self.start = float(self.game.confidence(probabilities))
        if self.game.won(probabilities):
            self._offer(self.game.image)
            return self._result()
        waiting = islice(plays(), self.simulations)
        under_way: list[tuple[Play, np.ndarray]] = []
        while self.queries < self.budget:
            while len(under_way) < self.parallel and (play := next(waiting, None)) is not None:
                self._advance(play, None, under_way)
            if not under_way:
                break
            answers = self._ask(np.stack([image for _, image in under_way]))
            asked, under_way = under_way, []
            for (play, _), answer in zip(asked, answers, strict=False):  # fewer answers at the end of the budget
                self._advance(play, answer, under_way)
        return self._result()

    def _advance(self, play: Play, answer: Any, under_way: list[tuple[Play, np.ndarray]]) -> None:
        try:
            under_way.append((play, play.send(answer)))
        except StopIteration as end:
            self.trace.append((self.queries, end.value, self.best))

    def _ask(self, images: np.ndarray) -> np.ndarray:
        """The probabilities of as many images as the budget allows."""
        images = images[: int(min(len(images), self.budget - self.queries))]
        self.queries += len(images)
        return self.game.ask(images)

    def _offer(self, image: np.ndarray) -> float:
        distance = float(self.game.distance(image))
        if distance < min(self.best, self.game.limit):
            self.best, self.image = distance, image
        return distance

    def _result(self) -> SearchResult:
        found = self.image is not None
        image = torch.from_numpy(self.image.copy()) if self.image is not None else None
        return SearchResult(found, image, self.best, self.queries, np.array(self.trace).reshape(-1, 3))

    def simulate(self, state: _State) -> Play:
        """A random play on from a state: returns the last image, whether it is adversarial, and its confidence."""
        game, rng = self.game, self.rng
        image, touched, weights = state.image, state.touched.copy(), state.weights.copy()
        kept = reference = state.confidence
        for _ in range(math.ceil((game.pixels - np.count_nonzero(touched)) / self.visit)):
            if game.distance(image) >= min(self.cutoff * self.best, game.limit):
                break
            feature = draw(weights, rng)
            pixels = game.draw_pixels(feature, touched, self.visit, rng)
            candidate = game.change(image, pixels, int(rng.integers(len(game.changed))))
            probabilities = yield candidate
            confidence = float(game.confidence(probabilities))
            if game.won(probabilities):
                return candidate, True, confidence
            reward = reference - confidence
            if reward >= 0 or not self.cooperative:
                image, kept = candidate, confidence
                touched[pixels] = True
                reference = kept if self.reference == "last" else reference
            weights = raised(weights, feature, LEARNING * reward, game.weights)
        return image, False, kept

    def finish(self, simulation: Play) -> Play:
        """Restore what a won simulation need not have changed; returns the distance, infinite if it was lost."""
        image, won, _ = yield from simulation
        return (yield from self.prune(image)) if won else math.inf

    def prune(self, image: np.ndarray) -> Play:
        """Restore pixels of an adversarial image for as long as it stays adversarial; returns its distance.

        Chunks come first, then one pixel at a time until none can be restored. An image that would be farther away than
        the best even with all untried pixels restored is not worth more queries.
        """
        distance = self._offer(image)
        left = self.rng.permutation(np.flatnonzero((image != self.game.image).any(0))).tolist()
        chunks = [left[i : i + CHUNK] for i in range(0, len(left), CHUNK)] if len(left) > CHUNK else []
        untried, failures = set(left), 0
        while chunks or failures < len(left):
            if self.game.distance(self.game.restore(image, list(untried))) > self.best:
                break
            tried = chunks.pop() if chunks else [left[0]]
            candidate = self.game.restore(image, tried)
            if self.game.won((yield candidate)):
                image, distance, failures = candidate, self._offer(candidate), 0
                left = [pixel for pixel in left if pixel not in tried]
                untried.difference_update(tried)
            elif len(tried) == 1:
                untried.discard(left[0])
                left.append(left.pop(0))
                failures += 1
        return distance


@dataclass
class _Node:
    """One player's turn: what may be chosen, how often it was, and what that was worth.

    ``started`` counts plays that are still under way; their rewards are not known yet.
    """

    prior: np.ndarray
    moves: list[tuple[np.ndarray, int]] = field(default_factory=list)  # of player II
    state: _State | None = None  # of player I
    children: dict[int, _Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.started, self.finished, self.value = (np.zeros(len(self.prior)) for _ in range(3))
        self.closed = np.zeros(len(self.prior), bool)

    def choose(self, player: str, best: float, rng: np.random.Generator) -> int:
        """The child to visit next. Rewards are scaled by the best so far, or exploration would drown them."""
        open_ = ~self.closed
        fresh = open_ & (self.started == 0)
        if player == "random" or fresh.any():
            return draw(np.where(open_ if player == "random" else fresh, self.prior, 0), rng)
        sign = -1 if player == "adversarial" else 1
        mean = self.value * (best if best < math.inf else 0) / np.maximum(self.finished, 1)
        bound = sign * mean + EXPLORATION * np.sqrt(math.log(self.started.sum()) / np.maximum(self.started, 1))
        return int(np.where(open_, bound, -np.inf).argmax())


def _tree_plays(search: _Search, opponent: str, moves: int) -> Iterator[Play]:
    """Plays that walk down one growing tree, until all of it is closed."""
    game, rng = search.game, search.rng
    root = _Node(game.weights, state=_State(game.image, game.fixed, search.start, game.weights))
    while not root.closed.all():
        path: list[tuple[_Node, int]] = []
        node = root
        while True:
            state, feature = node.state, node.choose("cooperative", search.best, rng)
            assert state is not None  # it is player I's turn
            second = node.children.get(feature)
            if second is None:
                second = node.children[feature] = _second_player(search, state, feature, moves)
            move = second.choose(opponent, search.best, rng)
            path += [(node, feature), (second, move)]
            if move not in second.children:
                break
            node = second.children[move]
        pixels, direction = second.moves[move]
        touched = state.touched.copy()
        touched[pixels] = True
        image = game.change(state.image, pixels, direction)
        leaf = _Node(state.weights.copy(), state=_State(image, touched, state.confidence, state.weights))
        second.children[move] = leaf
        for step, choice in path:
            step.started[choice] += 1
        yield _tree_play(search, state, leaf, path)


def _second_player(search: _Search, state: _State, feature: int, moves: int) -> _Node:
    """Player II's turn: all changes of one pixel if there are few, else draws of ``visit`` pixels."""
    game, free = search.game, np.flatnonzero(~state.touched)
    directions = len(game.changed)
    if search.visit == 1 and len(free) * directions <= moves:
        prior = np.exp(game.log_pixels(feature)[free]).repeat(directions)
        return _Node(prior, moves=[(np.array([pixel]), way) for pixel in free for way in range(directions)])
    draws = [game.draw_pixels(feature, state.touched, search.visit, search.rng) for _ in range(moves)]
    return _Node(np.ones(moves), moves=[(pixels, int(search.rng.integers(directions))) for pixels in draws])


def _tree_play(search: _Search, before: _State, leaf: _Node, path: list[tuple[_Node, int]]) -> Play:
    """Expand a leaf, simulate from it, and hand the reward back along the path."""
    game, state = search.game, leaf.state
    assert state is not None
    probabilities = yield state.image
    confidence = float(game.confidence(probabilities))
    if game.won(probabilities):
        distance = yield from search.prune(state.image)
        leaf.closed[:] = True
    else:
        if search.cooperative and confidence > before.confidence:
            state = leaf.state = before  # the move is taken back, as in a simulation
        else:
            state.confidence = confidence
        image, won, confidence = yield from search.simulate(state)
        distance = (yield from search.prune(image)) if won else math.inf
    if state.touched.all() or game.distance(state.image) >= min(search.cutoff * search.best, game.limit):
        leaf.closed[:] = True  # nothing below is nearer than what is known
    _hand_back(path, leaf, 1 / distance, search.start - confidence, game.weights)
    return distance


def _hand_back(path: list[tuple[_Node, int]], leaf: _Node, reward: float, drop: float, fallback: np.ndarray) -> None:
    child = leaf
    for depth, (node, choice) in reversed(list(enumerate(path))):
        node.finished[choice] += 1
        node.value[choice] += reward
        if child.closed.all():
            node.closed[choice] = True
        if node.state is not None:
            node.prior = raised(node.prior, choice, drop / (depth // 2 + 1), fallback)
        child = node


def draw(weights: np.ndarray, rng: np.random.Generator) -> int:
    """An index with the probability of its weight."""
    cumulated = weights.cumsum()
    return int(cumulated.searchsorted(rng.random() * cumulated[-1], side="right"))


def raised(weights: np.ndarray, index: int, amount: float, fallback: np.ndarray) -> np.ndarray:
    """The weights with one of them raised, none below 0, summing to 1; the fallback if nothing is left."""
    weights = weights.copy()
    weights[index] = max(0.0, weights[index] + amount)
    total = weights.sum()
    return weights / total if total > 0 else fallback
