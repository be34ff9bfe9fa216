"""This module scores an answer: by a rule beside its reference, or by a program; a judge has its own file."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shlex
import signal
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from turnout.core.errors import InputError, sentence
from turnout.core.grading import GRADES
from turnout.core.validation import check_choice
from turnout.recording.prompts import Prompt

_MOST_OUTPUT = 65_536
"""Bytes of a program's output that are read; a score is shorter."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """An answer to score."""

    prompt: Prompt
    candidate: str
    sample: int
    text: str


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """What an answer is worth, or why that is not known."""

    quality: float | None = None
    """In [0, 1]; None where it could not be found."""
    error: str | None = None
    charged_usd: float = 0.0
    """What finding out counts against a cap."""
    said: str | None = None
    is_final: bool = True
    """Whether it stands; else another run tries again."""


class Scorer(ABC):
    """Scores answers."""

    @abstractmethod
    def how(self, prompt: Prompt) -> str:
        """Name the way in which answers to a prompt are scored: under another name they are scored anew."""

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raise `InputError` for prompts that cannot be scored, before money is spent."""
        return

    @abstractmethod
    async def score(self, answered: Answered) -> Score:
        """Return the score; what goes wrong is an error in it, never a low quality."""


@final
class ReferenceScorer(Scorer):
    """Compares with the references; of several the best counts.

    Parameters
    ----------
    rule:
        A name of `turnout.core.grading.GRADES`, for prompts that name none.
    """

    def __init__(self, rule: str) -> None:
        self.rule = check_choice("the rule of scoring", rule, GRADES)

    def how(self, prompt: Prompt) -> str:
        """Return the rule and a name of the references."""
        return f"{prompt.score or self.rule}:{name_of(*prompt.references)}"

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raise where a rule is unknown, a reference is missing, or a regular expression is none."""
        for prompt in prompts:
            rule = check_choice(f"the prompt {prompt.id!r}: score", prompt.score or self.rule, GRADES)
            if not prompt.references:
                raise InputError(
                    sentence(
                        f"the prompt {prompt.id!r} has no reference",
                        allowed=f"a reference for every prompt that is scored by {rule!r}",
                        do="add it, name its --reference-column, or score by a program or a judge",
                    )
                )
            if rule == "regex":
                for pattern in prompt.references:
                    _check_pattern(prompt, pattern)

    async def score(self, answered: Answered) -> Score:
        """Return the best grade."""
        grade = GRADES[answered.prompt.score or self.rule]
        return Score(quality=max(grade(answered.text, one) for one in answered.prompt.references))


def _check_pattern(prompt: Prompt, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise InputError(
            sentence(
                f"the reference of the prompt {prompt.id!r}",
                allowed="a regular expression",
                got=pattern,
                do=str(error),
            )
        ) from error


@final
class ProgramScorer(Scorer):
    """Asks a program: JSON on its standard input, a number from 0 to 1 on its standard output.

    Or a JSON object with `score`. A program that fails, says something else or is not done in time leaves the
    quality unknown. It runs without a shell, in a group of processes that is ended with it.

    Parameters
    ----------
    command:
        The program and its arguments, as a shell would split them.
    timeout_s:
        Seconds after which it is killed.
    """

    def __init__(self, command: str, *, timeout_s: float = 30.0) -> None:
        try:
            self.arguments = shlex.split(command)
        except ValueError as error:
            raise InputError(
                sentence("--program", allowed="a command", got=command, do=str(error))
            ) from error
        if not self.arguments:
            raise InputError(sentence("--program", allowed="a command", got=command))
        self.timeout_s = timeout_s
        self._places = asyncio.Semaphore(max(1, os.cpu_count() or 1))

    def how(self, prompt: Prompt) -> str:
        """Return the command and a name of the references."""
        return f"program:{shlex.join(self.arguments)}:{name_of(*prompt.references)}"

    async def score(self, answered: Answered) -> Score:
        """Run the program on one answer."""
        async with self._places:
            return await self._run(json.dumps(_told(answered)).encode())

    async def _run(self, told: bytes) -> Score:
        try:
            process = await asyncio.create_subprocess_exec(
                *self.arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            return Score(error=f"the program cannot be started: {error.strerror}", is_final=False)
        try:
            async with asyncio.timeout(self.timeout_s):
                out, complaint = await _talk(process, told)
        except TimeoutError:
            return Score(error=f"the program was not done in {self.timeout_s:g} s")
        finally:
            _end(process)
            await process.wait()
        if process.returncode != 0:
            last = complaint.decode("utf-8", "replace").strip().splitlines()[-1:]
            return Score(error=f"the program ended with status {process.returncode}: {''.join(last)[:200]}")
        return _read(out.decode("utf-8", "replace").strip())


def _told(answered: Answered) -> dict[str, Any]:
    prompt = answered.prompt
    return {
        "id": prompt.id,
        "messages": list(prompt.messages),
        "text": prompt.text,
        "task": prompt.task,
        "references": list(prompt.references),
        "candidate": answered.candidate,
        "sample": answered.sample,
        "answer": answered.text,
        "more": {name: value for name, value in prompt.more.items() if _is_json(value)},
    }


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


async def _talk(process: asyncio.subprocess.Process, told: bytes) -> tuple[bytes, bytes]:
    """Hand the program its input and read to its end; it may close its input unread."""
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    assert stdin is not None
    assert stdout is not None
    assert stderr is not None

    async def feed() -> None:
        with contextlib.suppress(ConnectionError):
            stdin.write(told)
            await stdin.drain()
        stdin.close()

    _, out, complaint = await asyncio.gather(feed(), _most(stdout), _most(stderr))
    await process.wait()
    return out, complaint


async def _most(stream: asyncio.StreamReader) -> bytes:
    """Read to the end and keep the beginning: a program that talks on is not kept in memory."""
    kept = b""
    while block := await stream.read(_MOST_OUTPUT):
        kept += block[: _MOST_OUTPUT - len(kept)]
    return kept


def _end(process: asyncio.subprocess.Process) -> None:
    """Kill what is left of the program's group, children that outlived it too."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _read(text: str) -> Score:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    value = found.get("score") if isinstance(found, dict) else found
    if not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        error = sentence("the program's output", allowed="a number from 0 to 1", got=text[:80])
        return Score(error=error, said=text[:1000])
    return Score(quality=float(value), said=text[:1000] if isinstance(found, dict) else None)


def name_of(*texts: str) -> str:
    """Return twelve hex digits that name texts."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:12]
