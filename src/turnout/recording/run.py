"""This module runs prompts over a pool: within a cap, so many calls at once, and on from where it was."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from turnout.core.errors import InputError, sentence
from turnout.core.progress import Progress, silent
from turnout.core.rng import make_rng
from turnout.core.validation import check_count, check_number
from turnout.gateway.retry import backoff_s
from turnout.gateway.wire import ChatRequest
from turnout.recording.asking import Asking, Said, ask_once, digest_of, most_usd
from turnout.recording.journal import (
    NAME,
    AnswerLine,
    AskedLine,
    Cell,
    EndedLine,
    Journal,
    Purpose,
    ScoreLine,
    State,
)
from turnout.recording.judging import JudgeScorer
from turnout.recording.outlook import check_prompts
from turnout.recording.pool import Member
from turnout.recording.prompts import Messages, Prompt
from turnout.recording.purse import Purse
from turnout.recording.scoring import Answered, Scorer

_GIVE_UP = 8
"""Failures of one candidate in a row after which it is left alone."""

# Seeded by the system: two runs must not wait in step.
_chance = random.Random()


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How far a run may go."""

    samples: int = 1
    cap_usd: float | None = None
    """Most USD, earlier runs into the same folder included."""
    allow_unknown_prices: bool = False
    """Whether candidates without a price may be asked under a cap, which then does not count them."""
    concurrency: int = 8
    """Most calls at once."""
    retries: int = 4
    retry_wait_s: float = 1.0
    """Longest wait before the first retry; it doubles with each, and half of it is chance."""
    max_wait_s: float = 120.0
    """Longest wait that a provider may ask for; beyond it the call has failed."""
    timeout_s: float = 300.0
    """Seconds that one call may take."""

    def check(self) -> None:
        """Raise `InputError` for a limit out of range."""
        check_count("--samples", self.samples)
        check_count("--concurrency", self.concurrency, high=1024)
        check_count("--retries", self.retries, low=0)
        if self.cap_usd is not None:
            check_number("--cap", self.cap_usd, low=0.0, high=1e9)
        for name in ("retry_wait_s", "max_wait_s", "timeout_s"):
            check_number(f"--{name.replace('_', '-')}", getattr(self, name), low=0.0, high=86_400)


@final
@dataclass(kw_only=True, slots=True)
class Done:
    """What a run came to."""

    state: State
    purse: Purse
    cells: list[Cell]
    """Every cell that was wanted."""
    asked: int = 0
    """Calls of candidates in this run."""
    is_capped: bool = False
    """Whether the cap ended it before all was asked."""
    given_up: list[str] = field(default_factory=list)
    """Candidates that failed again and again."""
    over: list[str] = field(default_factory=list)
    """Candidates that charged more than the most their budget allows."""


def run(
    prompts: Sequence[Prompt],
    members: Sequence[Member],
    scorer: Scorer,
    *,
    folder: Path,
    asking: Asking | None = None,
    limits: Limits | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Done:
    """Ask and score whatever the journal in `folder` does not have yet; `table_of` makes the table of it.

    Prompts are asked in an order drawn by `seed`, each by all candidates before the next, so that a run that
    the cap ends is a fair part of the whole. Raises `InputError` before anything is spent.
    """
    asking, limits = asking or Asking(), limits or Limits()
    limits.check()
    check_prompts(prompts, asking)
    scorer.check(prompts)
    _check_prices([*members, *([scorer.judge] if isinstance(scorer, JudgeScorer) else [])], limits)
    _check_folder(folder)
    journal = Journal(folder / NAME)
    journal.open(asking.told())
    try:
        _check_same(journal.state, prompts)
        order = make_rng(seed, "record").permutation(len(prompts))
        plan = _Run(
            prompts=[prompts[i] for i in order],
            members=members,
            scorer=scorer,
            asking=asking,
            limits=limits,
            journal=journal,
            progress=progress,
        )
        return asyncio.run(plan.go())
    finally:
        journal.close()


def _check_folder(folder: Path) -> None:
    """Raise where a table that is no recording would be written over."""
    if (folder / "queries.parquet").exists() and not (folder / NAME).exists():
        raise InputError(
            sentence(
                f"{str(folder)!r} holds a table that was not recorded there",
                allowed=f"a new folder, or one with a {NAME}",
                do="choose another --out",
            )
        )


def _check_prices(members: Sequence[Member], limits: Limits) -> None:
    if limits.cap_usd is None or limits.allow_unknown_prices:
        return
    for member in members:
        if member.candidate.price_card is None and not member.provider.is_replay:
            raise InputError(
                sentence(
                    f"a spend cap without the price of {member.name!r}",
                    allowed="a price for everybody who is asked",
                    do="add --price MODEL=INPUT/OUTPUT in USD per million tokens, or --prices FILE, or "
                    "--allow-unknown-prices to leave it out of the cap",
                )
            )


def _check_same(state: State, prompts: Sequence[Prompt]) -> None:
    wanted = {prompt.id: digest_of(prompt.messages) for prompt in prompts}
    for cell, line in state.answers.items():
        if wanted.get(cell[0], line.prompt) != line.prompt:
            raise InputError(
                sentence(
                    f"the prompt {cell[0]!r} is another one than its recorded answers belong to",
                    allowed="the prompt as it was asked",
                    do="give it another id, or choose another --out",
                )
            )


@final
class _Run:
    """One run while it goes on."""

    def __init__(
        self,
        *,
        prompts: Sequence[Prompt],
        members: Sequence[Member],
        scorer: Scorer,
        asking: Asking,
        limits: Limits,
        journal: Journal,
        progress: Progress,
    ) -> None:
        self.members = {member.name: member for member in members}
        self.prompts = {prompt.id: prompt for prompt in prompts}
        self.scorer, self.asking, self.limits = scorer, asking, limits
        self.journal, self.progress = journal, progress
        self.cells = [
            (prompt.id, name, sample)
            for prompt in prompts
            for sample in range(limits.samples)
            for name in self.members
        ]
        purse = Purse(cap_usd=limits.cap_usd, spent_usd=journal.state.spent_usd)
        self.done = Done(state=journal.state, purse=purse, cells=self.cells)
        self._purse = purse
        self._finished = 0
        self._rest_until: dict[tuple[str, str], float] = {}
        self._failures: Counter[str] = Counter()
        if isinstance(scorer, JudgeScorer):
            scorer.ask = self._judge

    async def go(self) -> Done:
        """Work until nothing is left, or the cap has no room."""
        providers = {member.provider for member in self.members.values()}
        if isinstance(self.scorer, JudgeScorer):
            providers.add(self.scorer.judge.provider)
        async with AsyncExitStack() as stack:
            for provider in providers:
                stack.push_async_callback(provider.close)
                await provider.start()
            todo = iter(self.cells)
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.limits.concurrency, len(self.cells))):
                        group.create_task(self._work(todo))
            except ExceptionGroup as group:
                raise group.exceptions[0] from group
        return self.done

    async def _work(self, todo: Iterator[Cell]) -> None:
        for cell in todo:
            await self._serve(cell)
            self._finished += 1
            spent = self._purse.spent_usd
            self.progress(f"recording {spent:.4f} usd", self._finished, len(self.cells))

    async def _serve(self, cell: Cell) -> None:
        """Do for one cell what has not been done before."""
        state, prompt = self.journal.state, self.prompts[cell[0]]
        line = state.answers.get(cell)
        if line is None or not line.is_final:
            # What was answered before is scored even where nobody is asked any more.
            if self.done.is_capped or cell[1] in self.done.given_up:
                return
            line = await self._answer(cell, prompt)
            if line is None:
                return
        if line.text is None:
            return
        known = state.scores.get(cell)
        if known is None or known.how != self.scorer.how(prompt):
            await self._score(cell, prompt, line.text)

    async def _answer(self, cell: Cell, prompt: Prompt) -> AnswerLine | None:
        member = self.members[cell[1]]
        request = self.asking.request(prompt.messages)
        found = await self._ask(member, request, self.asking, cell, "answer")
        if found is None:
            return None
        said, attempts = found
        before = self.journal.state.answers.get(cell)
        line = AnswerLine(
            cell=cell,
            prompt=digest_of(prompt.messages),
            text=said.text,
            error=said.error,
            attempts=attempts + (0 if before is None else before.attempts),
            charged_usd=said.charged_usd,
            is_final=said.is_answer,
            usd=said.usd,
            input_tokens=said.input_tokens,
            output_tokens=said.output_tokens,
            cached_tokens=said.cached_tokens,
            is_estimated=said.is_estimated,
            latency_s=said.latency_s,
            finish=said.finish,
        )
        self.journal.write(line)
        if said.charged_usd:
            await asyncio.to_thread(self.journal.sync)
        self.journal.state.answers[cell] = line
        self._note(member, said)
        return line

    def _note(self, member: Member, said: Said) -> None:
        """Count failures in a row: who never answers is not asked thousands of times."""
        name = member.name
        if said.text is not None:
            self._failures[name] = 0
            return
        self._failures[name] += 1
        if self._failures[name] >= _GIVE_UP and name not in self.done.given_up:
            self.done.given_up.append(name)

    async def _score(self, cell: Cell, prompt: Prompt, text: str) -> None:
        answered = Answered(prompt=prompt, candidate=cell[1], sample=cell[2], text=text)
        score = await self.scorer.score(answered)
        line = ScoreLine(
            cell=cell,
            how=self.scorer.how(prompt) if score.is_final else "",
            quality=score.quality,
            error=score.error,
            charged_usd=score.charged_usd,
            said=score.said,
        )
        self.journal.write(line)
        if score.charged_usd:
            await asyncio.to_thread(self.journal.sync)
        self.journal.state.scores[cell] = line

    async def _judge(self, judge: Member, messages: Messages, answered: Answered) -> Said | None:
        cell = (answered.prompt.id, answered.candidate, answered.sample)
        assert isinstance(self.scorer, JudgeScorer)
        asking = self.scorer.asking
        found = await self._ask(judge, asking.request(messages), asking, cell, "judge")
        return None if found is None else found[0]

    async def _ask(
        self, member: Member, request: ChatRequest, asking: Asking, cell: Cell, purpose: Purpose
    ) -> tuple[Said, int] | None:
        """Ask until there is an answer or no retry left; None where the cap has no room for a first call.

        Returns what the last call brought, which the caller writes down, and how many there were.
        """
        most = most_usd(member, request, asking) or 0.0
        for number in range(self.limits.retries + 1):
            await self._rest(member)
            hold = await self._purse.reserve(most)
            if hold is None:
                self.done.is_capped = True
                return None
            self.journal.write(AskedLine(cell=cell, purpose=purpose, most_usd=most))
            self.done.asked += purpose == "answer"
            said = await ask_once(member, request, asking, most=most, timeout_s=self.limits.timeout_s)
            await self._purse.settle(hold, said.charged_usd)
            if said.charged_usd > most + 1e-12 and member.name not in self.done.over:
                self.done.over.append(member.name)
            is_last = number == self.limits.retries or not said.may_retry
            if said.text is not None or is_last or not self._wait(member, said, number):
                return said, number + 1
            self.journal.write(EndedLine(cell=cell, purpose=purpose, charged_usd=said.charged_usd))
        raise AssertionError("a loop that returns at its last number")

    def _wait(self, member: Member, said: Said, number: int) -> bool:
        """Let everybody who asks this provider wait as long as it asks for; whether that is not too long."""
        own_s = backoff_s(number, self.limits.retry_wait_s, _chance)
        wait_s = max(own_s, said.retry_after_s or 0.0)
        if wait_s > self.limits.max_wait_s:
            return False
        until_s = asyncio.get_running_loop().time() + wait_s
        is_asked = said.retry_after_s is not None
        place = ("provider", member.provider.name) if is_asked else ("member", member.name)
        self._rest_until[place] = max(until_s, self._rest_until.get(place, 0.0))
        return True

    async def _rest(self, member: Member) -> None:
        now_s = asyncio.get_running_loop().time()
        places = (("provider", member.provider.name), ("member", member.name))
        until_s = max(self._rest_until.get(place, 0.0) for place in places)
        if until_s > now_s:
            await asyncio.sleep(until_s - now_s)
