"""This module takes the decoder's messages apart: where a value stands, what was allowed, what came."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import msgspec
import msgspec.inspect

_PLACE = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")
_MISSING = re.compile(r"Object missing required field `(.+)`")
_EXPECTED = re.compile(r"Expected (?P<allowed>.+?)(?:, got (?P<got>.+))?")
_NAMES = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "null": "null",
    "object": "an object",
    "str": "a string",
}
_SIGNS = (
    (" of length >= 1", " that is not empty"),
    (" <= ", " of at most "),
    (" >= ", " of at least "),
    (" > ", " above "),
    (" < ", " below "),
)


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Mismatch:
    """A value that is not what the decoder was told to expect."""

    place: str
    """Where it stands, such as `server.port` or `[0].content`; empty for the whole."""
    allowed: str
    """What would have been right, in words."""
    got: str
    """The kind of value that came, or what is wrong with it."""
    missing: str | None
    """The required field that is missing, where that is the fault."""


def mismatch(error: msgspec.ValidationError) -> Mismatch:
    """Return what `error` says; a phrase that is not known here is handed on as it is."""
    text = str(error)
    found = _PLACE.search(text)
    place = found.group(1) if found else ""
    phrase = text[: found.start()] if found else text
    if missing := _MISSING.fullmatch(phrase):
        name = missing.group(1)
        return Mismatch(place=place, allowed=f"an object with {name!r}", got="nothing", missing=name)
    if expected := _EXPECTED.fullmatch(phrase):
        got = expected.group("got")
        allowed = _words(expected.group("allowed"))
        return Mismatch(place=place, allowed=allowed, got=_words(got or "another value"), missing=None)
    return Mismatch(place=place, allowed="a value of the documented kind", got=phrase, missing=None)


def keys_in(place: str) -> list[str | int]:
    """Return the keys that lead to a place, such as `rules[0].name`."""
    return [int(at) if at else name for name, at in re.findall(r"([^.\[\]]+)(?![^\[]*\])|\[(\d+)\]", place)]


def choices(kind: type, keys: Sequence[str | int]) -> list[str]:
    """Return the words among which a setting may choose; none where it is not of that sort.

    The decoder says that a word is none of them, and not which there are.
    """
    types = [msgspec.inspect.type_info(kind)]
    for key in keys:
        types = [inner for one in types for inner in _inside(one, key)]
    words = [word for one in types if isinstance(one, msgspec.inspect.LiteralType) for word in one.values]
    return list(dict.fromkeys(map(str, words)))


def _inside(kind: msgspec.inspect.Type, key: str | int) -> list[msgspec.inspect.Type]:
    """Return what may stand at a key of a value of some kind, the options of a union each by itself."""
    found: list[msgspec.inspect.Type] = []
    if isinstance(kind, msgspec.inspect.StructType):
        found = [field.type for field in kind.fields if field.encode_name == key]
    elif isinstance(kind, msgspec.inspect.DictType):
        found = [kind.value_type]
    elif isinstance(kind, msgspec.inspect.ListType | msgspec.inspect.VarTupleType):
        found = [kind.item_type]
    return [option for one in found for option in _options(one)]


def _options(kind: msgspec.inspect.Type) -> list[msgspec.inspect.Type]:
    if isinstance(kind, msgspec.inspect.Metadata):
        return _options(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        return [option for one in kind.types for option in _options(one)]
    return [kind]


def _words(phrase: str) -> str:
    """Return a phrase of the decoder, such as "`int | null` <= 9", in words."""

    def name(match: re.Match[str]) -> str:
        kinds = match.group(1).split(" | ")
        return " or ".join(_NAMES.get(kind, kind) for kind in kinds)

    words = re.sub(r"`([^`]*)`", name, phrase)
    for sign, word in _SIGNS:
        words = words.replace(sign, word)
    return words
