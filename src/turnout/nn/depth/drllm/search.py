"""This module searches for a short path that answers a question: a tree that widens as it is visited."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_count
from turnout.nn.depth.drllm.paths import Path, edits, full_path, preferred

RIGHT = 0.5
"""A reward above this is a right answer."""

Rewards = Callable[[Sequence[tuple[int, Path]]], Sequence[float]]
"""Called with (question, path) pairs; returns the reward of each, in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class SearchRule:
    """How to search.

    `simulations` a question; `exploration` is c and `length_penalty` lambda of the score; with probability
    `random_share` a random child is followed; a node of v visits may have ceil(`widening` v^`widening_power`)
    children (both at 1 and 0: one child a node, which is the chain of the released code); a correct path at
    least `stop_shorter` blocks shorter than the whole ends the search, and so does a first right answer where
    the whole path is wrong, unless `is_exhausting`.
    """

    simulations: int = 50
    exploration: float = 1.8
    length_penalty: float = 3.0
    random_share: float = 0.1
    widening: float = 2.0
    widening_power: float = 0.5
    stop_shorter: int = 2
    most_calls: int = 2
    is_exhausting: bool = False

    def __post_init__(self) -> None:
        check_count("SearchRule: simulations", self.simulations)
        check_count("SearchRule: most_calls", self.most_calls)
        if not 0.0 <= self.random_share <= 1.0 or self.widening < 1.0 or self.widening_power < 0.0:
            raise InputError(
                sentence(
                    "SearchRule",
                    allowed="random_share in [0, 1], widening >= 1, widening_power >= 0",
                    got=(self.random_share, self.widening, self.widening_power),
                )
            )


@dataclass
class _Node:
    path: Path
    parent: _Node | None
    untried: list[Path] | None = None
    children: list[_Node] = field(default_factory=list)
    visits: int = 0
    total: float = 0.0


class TreeSearch:
    """One question's search: ask `propose` for a path, tell `report` its reward, until `is_done`.

    score of a child = Q / v + c sqrt(ln V / v) - lambda |path| / L, infinite for one never visited. Rewards
    are kept, so a path is never measured twice.

    Source: S12, Dr.LLM, arXiv 2510.12773, section 3.1; progressive widening by Coulom, 2007.
    """

    def __init__(self, *, layers: int, rule: SearchRule | None = None, rng: np.random.Generator) -> None:
        self.layers = check_count("TreeSearch: layers", layers)
        self.rule = rule if rule is not None else SearchRule()
        self.rng = rng
        self.rewards: dict[Path, float] = {}
        self.simulations = 0
        self.is_done = False
        self._root = _Node(path=full_path(layers), parent=None)
        self._waiting: _Node | None = None

    def propose(self) -> Path | None:
        """Return the next path whose reward is not known yet; None when the search has ended."""
        while not self.is_done:
            node = self._root if not self._root.visits else self._select()
            self._waiting = node
            if node.path not in self.rewards:
                return node.path
            self._back(node, self.rewards[node.path])
        return None

    def report(self, reward: float) -> None:
        """Tell the reward of the path that was proposed last."""
        node = self._waiting
        if node is None or not 0.0 <= reward <= 1.0:
            raise InputError(
                sentence(
                    "TreeSearch.report", allowed="a reward in [0, 1] for the path proposed last", got=reward
                )
            )
        self.rewards[node.path] = float(reward)
        self._back(node, float(reward))

    @property
    def start(self) -> float:
        """The reward of the whole path."""
        return self.rewards[self._root.path]

    @property
    def best(self) -> Path | None:
        """The shortest path that was right; None where none was."""
        right = [path for path, reward in self.rewards.items() if reward > RIGHT]
        return preferred(right) if right else None

    def _select(self) -> _Node:
        node = self._root
        while True:
            if node.untried is None:
                node.untried = edits(node.path, layers=self.layers, most_calls=self.rule.most_calls)
            allowed = math.ceil(self.rule.widening * max(node.visits, 1) ** self.rule.widening_power)
            if node.untried and len(node.children) < allowed:
                path = node.untried.pop(int(self.rng.integers(len(node.untried))))
                child = _Node(path=path, parent=node)
                node.children.append(child)
                return child
            if not node.children:
                return node
            node = self._follow(node)

    def _follow(self, node: _Node) -> _Node:
        if self.rng.random() < self.rule.random_share:
            return node.children[int(self.rng.integers(len(node.children)))]
        return max(node.children, key=lambda child: self._score(child, node.visits))

    def _score(self, child: _Node, visits: int) -> float:
        if not child.visits:
            return math.inf
        explored = self.rule.exploration * math.sqrt(math.log(visits) / child.visits)
        return (
            child.total / child.visits + explored - self.rule.length_penalty * len(child.path) / self.layers
        )

    def _back(self, node: _Node, reward: float) -> None:
        self._waiting = None
        self.simulations += 1
        above: _Node | None = node
        while above is not None:
            above.visits += 1
            above.total += reward
            above = above.parent
        self.is_done = self.simulations > self.rule.simulations or self._is_good(node.path, reward)

    def _is_good(self, path: Path, reward: float) -> bool:
        if self.rule.is_exhausting or reward <= RIGHT:
            return False
        return self.start < reward or len(path) <= self.layers - self.rule.stop_shorter


def search_all(searches: Sequence[TreeSearch], rewards: Rewards) -> None:
    """Run many searches in step, so that one batch measures a path of each."""
    while True:
        asked = [(number, path) for number, one in enumerate(searches) if (path := one.propose()) is not None]
        if not asked:
            return
        for (number, _), reward in zip(asked, rewards(asked), strict=True):
            searches[number].report(reward)
