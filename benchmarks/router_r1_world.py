"""This module sets Router-R1 up over a recorded table, small enough for a transformer that trains in minutes.

The policy reads the first words of a question, and of an answer only whether it equals one it has seen in
this task (`same`), or not (`new`); where the table holds no answers, that there was one (`done`). It writes
the published tags. The models are asked the question itself, so that the table can answer.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence

import numpy as np

from turnout.core import Candidate, OutcomeTable, Query
from turnout.core.rng import make_rng
from turnout.nn.rl.demonstrations import Demonstration
from turnout.sequential import Bounds, Call, Environment, Observed, ReplayEnvironment, RouterR1, Think, Trace
from turnout.sequential.router_r1.dialogue import RoutingDialogue
from turnout.sequential.router_r1.reward import Episode, RewardR1, episode_of
from turnout.sequential.router_r1.tags import DEFAULT_TAGS, PASS_ON

PROMPT_WORDS = 16
ANSWERS = ("same", "new", "done")
THOUGHTS = ("ask", "enough")
POOLS = {
    "open9": (
        "gemma-2-9b-it",
        "qwen2.5-7b-instruct",
        "llama-3.1-8b-instruct",
        "llama-3.1-nemotron-51b-instruct",
        "codegemma-7b",
    ),
    "reason18": (
        "gemma-2-2b-it",
        "deepseek-v2-chat-0628",
        "gpt-4o-mini-2024-07-18",
        "gpt-4o-2024-08-06",
        "claude-3-opus-20240229",
    ),
}


class Comparing(Environment):
    """Shows of an answer only whether it equals an earlier one."""

    def __init__(self, inner: ReplayEnvironment) -> None:
        self.inner = inner

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The inner environment's."""
        return self.inner.candidates

    def most_usd(self, request: Call | Think, trace: Trace) -> float:
        """Return the inner environment's bound."""
        return self.inner.most_usd(request, trace)

    def perform(self, calls: tuple[Call, ...], trace: Trace) -> tuple[Observed, ...]:
        """Ask the inner environment and compare."""
        earlier = [item.call for item in trace.observed]
        seen = {item.answer for item in self.inner.perform(tuple(earlier), trace)} if earlier else set()
        return tuple(self._shown(item, seen) for item in self.inner.perform(calls, trace))

    def judge(self, trace: Trace) -> float:
        """Return the inner environment's judgement."""
        return self.inner.judge(trace)

    def _shown(self, item: Observed, seen: set[str | None]) -> Observed:
        if item.error is not None:
            return item
        word = "done" if item.answer is None else ("same" if item.answer in seen else "new")
        return dataclasses.replace(item, answer=word)


class World:
    """A table as a task for a policy.

    `cost_weight` is the reward's `a`; the reward is the corrected one, and its scale begins with the costs of
    all single calls of the training part.
    """

    def __init__(self, name: str, table: OutcomeTable, *, cost_weight: float, num_test: int) -> None:
        self.name = name
        table = table.select(candidates=POOLS[name])
        self.train = table.select(split="train")
        self.test = self._part(table.select(split="test"), num_test)
        self.names = table.names
        self.environments = {
            "train": Comparing(ReplayEnvironment(self.train, independent=True)),
            "test": Comparing(ReplayEnvironment(self.test, independent=True, costs=self.train)),
        }
        self.queries = {q.id: q for part in (self.train, self.test) for q in part.queries}
        self.part_of = {q.id: "test" for q in self.test.queries} | {q.id: "train" for q in self.train.queries}
        self.router = RouterR1(
            sub_queries=False, free_text=False, hints=False, max_turns=3, max_corrections=0
        )
        self.cost_weight = cost_weight
        self.reward = self.fresh_reward()
        self.held_out_reward = self.fresh_reward()

    def fresh_reward(self) -> RewardR1:
        """Return the reward whose window holds the costs of single calls of the training part."""
        reward = RewardR1(cost_weight=self.cost_weight, corrected=True)
        usd = self.train.cost_usd_QM.ravel()
        start = make_rng(0, "scale").permutation(usd[np.isfinite(usd)])[: reward.window]
        reward.scores([Episode(is_valid=True, quality=1.0, usd=float(value)) for value in start])
        return reward

    def prompt(self, query: Query) -> str:
        """Return the first words of a question."""
        words = re.findall(r"\w+|[^\w\s<]", (query.text or "").lower())
        return " ".join(words[:PROMPT_WORDS])

    def begin(self, query_id: str) -> RoutingDialogue:
        """Start the task of a query."""
        query = self.queries[query_id]
        environment = self.environments[self.part_of[query_id]]
        return RoutingDialogue(
            environment, self.router, query, prompt=self.prompt(query), bounds=Bounds(steps=9)
        )

    def episodes(self, dialogues: Sequence[RoutingDialogue]) -> list[Episode]:
        """Return what the reward looks at in finished tasks."""
        return [episode_of(dialogue.outcome, {}, corrected=True) for dialogue in dialogues]

    def score(self, dialogues: Sequence[RoutingDialogue]) -> list[float]:
        """Reward finished tasks; the window moves on."""
        return self.reward.scores(self.episodes(dialogues))

    def words(self) -> list[str]:
        """Return the words that are one token each whatever happens."""
        tags = [f"<{slash}{name}>" for name in DEFAULT_TAGS.names for slash in ("", "/")]
        return [*tags, *self.names, PASS_ON, *ANSWERS, *THOUGHTS]

    def demonstration(self, rng: np.random.Generator) -> Demonstration:
        """Return a task as an uninformed policy plays it: one to three calls of anybody, then the end."""
        query = self.train.queries[int(rng.integers(len(self.train.queries)))]
        dialogue = self.begin(query.id)
        order = rng.permutation(len(self.names))[: 1 + int(rng.integers(3))]
        turns, replies = [], []
        for m in order:
            turns.append(f"<think> {THOUGHTS[0]} </think> <search> {self.names[m]} </search>")
            reply = dialogue.reply(turns[-1])
            if reply is None:
                raise RuntimeError(f"the demonstration of {query.id} ended early")
            replies.append(reply)
        turns.append(f"<think> {THOUGHTS[1]} </think> <answer> {PASS_ON} </answer>")
        return Demonstration(prompt=dialogue.prompt, turns=tuple(turns), replies=tuple(replies))

    def single(self, m: int) -> np.ndarray:
        """Return the reward, per held-out query, of asking one candidate and handing its answer on."""
        quality_Q, usd_Q = self.test.quality_QM[:, m], self.test.cost_usd_QM[:, m]
        pairs = zip(quality_Q.tolist(), usd_Q.tolist(), strict=True)
        episodes = [Episode(is_valid=True, quality=quality, usd=usd) for quality, usd in pairs]
        return np.array(self.held_out_reward.scores(episodes, learn=False))

    def best_single(self) -> int:
        """Return the candidate with the best mean reward on the training part."""
        means = []
        for m in range(len(self.names)):
            pairs = zip(self.train.quality_QM[:, m], self.train.cost_usd_QM[:, m], strict=True)
            episodes = [Episode(is_valid=True, quality=float(q), usd=float(usd)) for q, usd in pairs]
            means.append(np.mean(self.held_out_reward.scores(episodes, learn=False)))
        return int(np.argmax(means))

    def agreement(self) -> tuple[tuple[str, ...], np.ndarray] | None:
        """Return the best policy of the form "ask two; where they differ, ask a third", chosen on train.

        With its reward per held-out query; None for a table without answers. It is what a policy of several
        turns could learn here and no one-shot choice can do.
        """
        if "answer" not in self.train.extras:
            return None
        triples = list(itertools.permutations(range(len(self.names)), 3))
        train_QT = np.stack([self._agreeing(self.train, triple) for triple in triples], axis=1)
        best = triples[int(train_QT.mean(axis=0).argmax())]
        return tuple(self.names[m] for m in best), self._agreeing(self.test, best)

    def _agreeing(self, table: OutcomeTable, triple: tuple[int, ...]) -> np.ndarray:
        first, second, third = triple
        answers = dict(
            zip(
                zip(table.query_index.tolist(), table.candidate_index.tolist(), strict=True),
                table.extras["answer"].tolist(),
                strict=True,
            )
        )
        episodes = []
        for q in range(len(table.queries)):
            agree = answers[q, first] == answers[q, second]
            asked = triple[:2] if agree else triple
            usd = float(sum(table.cost_usd_QM[q, m] for m in asked))
            quality = float(table.quality_QM[q, second if agree else third])
            episodes.append(Episode(is_valid=True, quality=quality, usd=usd))
        return np.array(self.held_out_reward.scores(episodes, learn=False))

    def _part(self, table: OutcomeTable, count: int) -> OutcomeTable:
        keep = make_rng(0, "held out").permutation(len(table.queries))[:count]
        mask_Q = np.zeros(len(table.queries), np.bool_)
        mask_Q[keep] = True
        return table.where(mask_Q)
