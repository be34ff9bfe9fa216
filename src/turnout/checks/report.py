"""This module runs named checks and reports which promises were kept, broken, or did not apply."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, final

from turnout.core.errors import ABSENT, MissingExtraError, TurnoutError, sentence

Outcome = Literal["passed", "failed", "skipped"]


class CheckFailed(TurnoutError, AssertionError):
    """A class broke a promise of its contract; the message says which one and shows the numbers."""


class CheckSkipped(TurnoutError):
    """A check does not apply to this object; the message says why."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One promise, bound to the object that made it; call it to put it to the test."""

    name: str
    """The promise as words, such as `estimating_does_not_learn`."""
    subject: Any
    """The object under test; a check works on clones and leaves it as it is."""
    function: Callable[[Any], None]
    """Takes the subject; raises `CheckFailed` or `CheckSkipped`."""
    is_slow: bool = False
    """Whether it takes more than a tenth of a second (a process of its own, a very long text)."""
    is_ground: bool = False
    """Whether the checks behind it say nothing where it fails; `run` then skips them."""

    def __call__(self) -> None:
        """Run the check; raises `CheckFailed` where the promise is broken."""
        self.function(self.subject)


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What became of one check."""

    name: str
    """The check's name."""
    outcome: Outcome
    """`passed`, `failed` or `skipped`."""
    reason: str = ""
    """Why it failed or was skipped; empty when it passed."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The results of a run, printable as one line per check."""

    results: tuple[Result, ...]
    """In the order of the checks."""

    @property
    def failed(self) -> tuple[Result, ...]:
        """The results of the broken promises."""
        return tuple(result for result in self.results if result.outcome == "failed")

    @property
    def is_clean(self) -> bool:
        """Whether nothing failed and something passed."""
        return not self.failed and any(result.outcome == "passed" for result in self.results)

    def __str__(self) -> str:
        lines = [f"{r.outcome:<7} {r.name}" + (f": {r.reason}" if r.reason else "") for r in self.results]
        counts = {kind: sum(r.outcome == kind for r in self.results) for kind in _OUTCOMES}
        return "\n".join([*lines, ", ".join(f"{count} {kind}" for kind, count in counts.items())])


_OUTCOMES: tuple[Outcome, ...] = ("passed", "failed", "skipped")


def run(checks: Iterable[Check]) -> Report:
    """Run every check and return the report; nothing that a checked class raises escapes.

    Example
    -------
    >>> from turnout.checks import check_embedder, run
    >>> from turnout.checks.fixtures import LetterCounts
    >>> run(check_embedder(LetterCounts())).is_clean
    True
    """
    results: list[Result] = []
    ground = ""
    for check in checks:
        if ground:
            reason = f"says nothing while {ground} fails"
            results.append(Result(name=check.name, outcome="skipped", reason=reason))
            continue
        results.append(run_one(check))
        if check.is_ground and results[-1].outcome == "failed":
            ground = check.name
    return Report(results=tuple(results))


def run_one(check: Check) -> Result:
    """Run one check and return its result."""
    try:
        check()
    except CheckFailed as error:
        return Result(name=check.name, outcome="failed", reason=str(error))
    except (CheckSkipped, MissingExtraError) as error:
        return Result(name=check.name, outcome="skipped", reason=str(error))
    except Exception as error:  # noqa: BLE001 - a stranger's class may raise anything, and the run goes on
        reason = f"{type(error).__name__}: {error}"
        return Result(name=check.name, outcome="failed", reason=reason)
    return Result(name=check.name, outcome="passed")


def bind(
    subject: Any,
    functions: Iterable[Callable[[Any], None]],
    *,
    slow: Iterable[Callable[[Any], None]] = (),
    kind: type | None = None,
    ground: Iterable[Callable[[Any], None]] = (),
) -> Iterator[Check]:
    """Yield the functions as checks of `subject`, each under its own name; `slow` ones come last.

    Of a subject that is none of `kind` there is one check, which says so. `ground` comes first: what else is
    promised can only be looked at where it holds.
    """
    if kind is not None and not isinstance(subject, kind):
        yield Check(name="it_is_of_its_kind", subject=subject, function=_of_kind(kind), is_ground=True)
        return
    for function in ground:
        yield Check(name=function.__name__, subject=subject, function=function, is_ground=True)
    for function in functions:
        yield Check(name=function.__name__, subject=subject, function=function)
    for function in slow:
        yield Check(name=function.__name__, subject=subject, function=function, is_slow=True)


def _of_kind(kind: type) -> Callable[[Any], None]:
    def it_is_of_its_kind(subject: Any) -> None:
        is_class = isinstance(subject, type)
        shown = subject.__name__ if is_class else type(subject).__name__
        raise CheckFailed(
            sentence(
                f"{shown} is no {kind.__module__}.{kind.__qualname__}",
                allowed=f"an object of a class that inherits {kind.__qualname__}",
                got=subject,
                do=f"hand over an object, {shown}(...)"
                if is_class
                else f"write class {shown}({kind.__name__})",
            )
        )

    return it_is_of_its_kind


def require(
    condition: object,
    subject: object,
    what: str,
    *,
    allowed: object = None,
    got: object = ABSENT,
    do: str | None = None,
) -> None:
    """Raise `CheckFailed` about `subject` unless `condition` holds."""
    if not condition:
        raise CheckFailed(sentence(f"{type(subject).__name__}: {what}", allowed=allowed, got=got, do=do))


def skip(subject: object, why: str) -> NoReturn:
    """Raise `CheckSkipped` with the reason."""
    raise CheckSkipped(sentence(f"{type(subject).__name__}: {why}"))
