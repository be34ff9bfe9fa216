"""This module reads what the policy wrote: a call, an answer, or a violation that has a name.

It follows the format of S7, Router-R1 (arXiv 2506.09033): thinking, then exactly one action. It never raises
and never guesses: whatever is not the format is a violation, and a violation says what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from turnout.core.errors import ABSENT, did_you_mean, sentence
from turnout.sequential.router_r1.tags import DEFAULT_TAGS, Tags

Fault = Literal[
    "empty",
    "too_long",
    "no_action",
    "nested",
    "stray_tag",
    "unclosed",
    "forged_information",
    "two_actions",
    "text_after",
    "text_outside",
    "empty_answer",
    "no_model",
    "unknown_model",
    "empty_query",
    "no_turns",
    "nothing_to_pass_on",
]
"""Names of the violations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """Ask a model."""

    candidate: str
    text: str
    """The sub-query; empty only where none is wanted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """End with this answer."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """The text does not follow the protocol."""

    name: Fault
    why: str
    """One sentence, fit to be shown to the policy."""


Parsed = Route | Answer | Violation


@dataclass(frozen=True, kw_only=True, slots=True)
class Grammar:
    """What is allowed."""

    candidates: tuple[str, ...]
    """Names that may be called."""
    tags: Tags = DEFAULT_TAGS
    sub_queries: bool = True
    """Whether a call states a sub-query; without, it names a model, and any text after a colon is ignored."""
    free_text: bool = True
    """Whether text outside the tags before the action counts as thinking; the paper forbids it."""
    max_chars: int = 20_000
    """Longest text that is read."""


class BrokenError(Exception):
    """Carries a violation out of the walk."""

    def __init__(self, name: Fault, what: str, *, got: object = ABSENT, do: str | None = None) -> None:
        super().__init__(what)
        self.violation = Violation(name=name, why=sentence(what, got=got, do=do))


def parse(text: str, grammar: Grammar, *, is_cut: bool = False) -> Parsed:
    """Return the action in `text`; a call or answer that is cut at the very end counts as closed.

    It counts as closed because a stop text is not part of what a server returns. Where the text `is_cut`, by
    the limit of tokens, an open call is a violation, and an open answer is all there is of one.
    """
    try:
        kind, content = _find_action(text, grammar, is_cut=is_cut)
        if kind == grammar.tags.answer:
            if not content:
                raise BrokenError("empty_answer", "the answer is empty", do="write the answer")
            return Answer(text=content)
        return _route(content, grammar)
    except BrokenError as broken:
        return broken.violation


def closed(text: str, tags: Tags) -> str:
    """Return the text with the closing tag that a stop text took away."""
    found = list(tags.pattern.finditer(text))
    if found and not found[-1].group(1) and found[-1].group(2) in (tags.route, tags.answer):
        return f"{text}</{found[-1].group(2)}>"
    return text


def _find_action(text: str, grammar: Grammar, *, is_cut: bool) -> tuple[str, str]:
    """Return (tag, content) of the one action."""
    if not text.strip():
        raise BrokenError("empty", "nothing was written", do=_reminder(grammar))
    if len(text) > grammar.max_chars:
        raise BrokenError("too_long", "the text is too long", got=f"{len(text)} characters", do="be brief")
    walk = Walk(grammar)
    at = 0
    for match in grammar.tags.pattern.finditer(text):
        walk.text(text[at : match.start()])
        if match.group(1):
            walk.close(match.group(2))
        else:
            walk.open(match.group(2))
        at = match.end()
    walk.text(text[at:])
    if is_cut and walk.inside == grammar.tags.route:
        what = f"<{walk.inside}> was cut by the limit of tokens"
        raise BrokenError("unclosed", what, do="be brief")
    return walk.end()


class Walk:
    """Where the reading stands: inside which tag, and whether there was an action; raises `BrokenError`."""

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self.inside: str | None = None
        self.content = ""
        self.action: tuple[str, str] | None = None

    def text(self, piece: str) -> None:
        """Take the text between two tags."""
        if self.inside is not None:
            self.content = piece
        elif not piece.strip():
            return
        elif self.action is not None:
            raise BrokenError("text_after", "there is text after the action", do="end with the action")
        elif not self.grammar.free_text:
            what = "there is text outside the tags"
            raise BrokenError("text_outside", what, do=f"think inside <{self.grammar.tags.think}>")

    def open(self, tag: str) -> None:
        """Take an opening tag."""
        tags = self.grammar.tags
        if self.inside is not None:
            what = f"<{tag}> stands inside <{self.inside}>"
            raise BrokenError("nested", what, do="close one tag before the next")
        if tag == tags.information:
            what = f"<{tag}> is not yours to write"
            raise BrokenError("forged_information", what, do=f"route with <{tags.route}> and wait for it")
        if self.action is not None:
            if tag == tags.think:
                raise BrokenError("text_after", "there is text after the action", do="end with the action")
            raise BrokenError("two_actions", "there are two actions", do="keep the first and wait")
        self.inside = tag

    def close(self, tag: str) -> None:
        """Take a closing tag."""
        if self.inside != tag:
            raise BrokenError("stray_tag", f"</{tag}> closes nothing", do="open every tag before its end")
        if tag != self.grammar.tags.think:
            self.action = (tag, self.content.strip())
        self.inside = None

    def end(self) -> tuple[str, str]:
        """Return (tag, content) of the action."""
        if self.inside == self.grammar.tags.think:
            what = f"<{self.inside}> has no end"
            raise BrokenError("unclosed", what, do="close it, then act")
        if self.inside is not None:
            self.action = (self.inside, self.content.strip())
        if self.action is None:
            raise BrokenError("no_action", "there is no action", do=_reminder(self.grammar))
        return self.action


def _route(content: str, grammar: Grammar) -> Route:
    found = _match(content, grammar.candidates)
    if found is None:
        head = content.partition(":")[0].strip()
        if not head or (":" not in content and grammar.sub_queries):
            raise BrokenError("no_model", "the call names no model", got=content, do=_reminder(grammar))
        what = "the called model is not in the pool"
        raise BrokenError("unknown_model", what, got=head, do=did_you_mean(head, grammar.candidates))
    candidate, query = found
    if grammar.sub_queries and not query:
        what = f"the call of {candidate!r} asks nothing"
        raise BrokenError("empty_query", what, do=_reminder(grammar))
    return Route(candidate=candidate, text=query if grammar.sub_queries else "")


def _match(content: str, candidates: Sequence[str]) -> tuple[str, str] | None:
    """Return (name, rest) for the longest name that `content` begins with; names may hold colons."""
    for fold in (str, str.casefold):
        for name in sorted(candidates, key=len, reverse=True):
            rest = content[len(name) :].lstrip()
            if fold(content[: len(name)]) == fold(name) and (not rest or rest.startswith(":")):
                return name, rest[1:].strip()
    return None


def _reminder(grammar: Grammar) -> str:
    tags = grammar.tags
    inside = "Model: sub-query" if grammar.sub_queries else "Model"
    return f"write <{tags.route}>{inside}</{tags.route}> or <{tags.answer}>answer</{tags.answer}>"
