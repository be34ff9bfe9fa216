"""This module finds personal data that has a form: addresses, numbers with a check digit, keys.

What has no form (names, places, employers) is not found; that takes a model of language. Every repetition in
the patterns is bounded and begins at a boundary, so the time is linear in the text. Numbers with a check
digit are checked, which is where the precision comes from: Luhn (ISO/IEC 7812-1) for cards, the remainder by
97 (ISO 13616) for bank accounts.
"""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import final

from turnout.core.validation import check_choice
from turnout.features.scanning import find_each
from turnout.features.unseen import cleared, without_unseen

_DIGITS = re.compile(r"\d")
_DATE = re.compile(r"(?:19|20)\d\d[-./ ]\d\d?[-./ ]\d\d?\b|\d\d?[-./ ]\d\d?[-./ ](?:19|20)\d\d\b")


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """One find: `text[start:end]`."""

    kind: str
    start: int
    end: int


def _is_card(text: str) -> bool:
    digits = [int(digit) for digit in _DIGITS.findall(text)]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 and len(set(digits)) > 1


def _is_iban(text: str) -> bool:
    plain = text.replace(" ", "").upper()
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(sign, 36)) for sign in plain[4:] + plain[:4])) % 97 == 1


def _is_phone(text: str) -> bool:
    digits = len(_DIGITS.findall(text))
    if _DATE.match(text):
        return False
    groups = re.findall(r"\d+", text)
    if text.startswith(("+", "00")):
        return 8 <= digits <= 15
    # A number inside a country has 8 to 11 digits; a price, a year span or a version has fewer groups.
    return 8 <= digits <= 11 and (text.startswith("(") or len(groups) >= 3)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


_PATTERNS: dict[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "SECRET": (
        re.compile(
            r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----"
            r"|(?<![\w.-])(?:sk-[\w-]{20,200}|AKIA[A-Z0-9]{16}|gh[pousr]_\w{36,255}|xox[abps]-[\w-]{10,200}"
            r"|AIza[\w-]{35}|eyJ[\w-]{10,2000}\.[\w-]{10,4000}\.[\w-]{10,1000})"
        ),
        bool,
    ),
    "URL": (re.compile(r"\b(?:https?://|www\.)[^\s\"'<>]{3,2000}"), bool),
    "EMAIL_ADDRESS": (
        re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}\b"),
        bool,
    ),
    "IBAN_CODE": (
        re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", re.IGNORECASE),
        _is_iban,
    ),
    "CREDIT_CARD": (re.compile(r"(?<![\w-])\d(?:[ -]?\d){11,18}(?![\w-])"), _is_card),
    "US_SSN": (
        re.compile(r"(?<![\w-])(?!000|666|9\d\d)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\w-])"),
        bool,
    ),
    "IP_ADDRESS": (
        re.compile(
            r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4})(?![\w.:])",
            re.IGNORECASE,
        ),
        _is_ip,
    ),
    "PHONE_NUMBER": (
        re.compile(r"(?<![\w.,/-])\+?(?:\(?\d{1,5}\)?[ .-]{0,2}){1,7}\d{2,5}(?:x\d{1,6})?(?![\w/-])"),
        _is_phone,
    ),
}

_REACH = 8192
"""More than the longest find has, which is a token of three parts."""

KINDS = tuple(_PATTERNS)
"""The kinds that are found; where two finds overlap, the kind that stands first here wins."""


def find_pii(text: str, kinds: Iterable[str] = KINDS) -> tuple[Span, ...]:
    """Return the finds in the order of the text, without overlaps; O(characters + finds log finds).

    What is not seen, such as a zero-width space, hides nothing: the text is read as it is and without it.
    Raises `UnknownNameError` for a kind that is not in `KINDS`.
    """
    wanted = {check_choice("find_pii: kinds", kind, KINDS) for kind in kinds}
    found, clear = _find(text, wanted), cleared(text)
    if clear is None:
        return tuple(found)
    more = [
        Span(kind=span.kind, start=clear.origin(span.start), end=clear.origin(span.end - 1) + 1)
        for span in _find(clear.text, wanted)
    ]
    return tuple(_joined(found + more))


def _joined(spans: list[Span]) -> list[Span]:
    """Return the spans in order, those that overlap as one of the kind that comes first."""
    joined: list[Span] = []
    for span in sorted(spans, key=lambda one: one.start):
        if joined and span.start < joined[-1].end:
            last = joined[-1]
            kind = min(last.kind, span.kind, key=KINDS.index)
            joined[-1] = Span(kind=kind, start=last.start, end=max(last.end, span.end))
        else:
            joined.append(span)
    return joined


def _find(text: str, wanted: set[str]) -> list[Span]:
    found: list[Span] = []
    for kind in KINDS:
        if kind not in wanted:
            continue
        pattern, is_one = _PATTERNS[kind]
        # Matches of one kind never overlap, and earlier kinds lie apart: of them only the last that begins
        # before a match ends can reach into it.
        starts = [span.start for span in found]
        own: list[Span] = []
        for match in find_each(pattern, text, reach=_REACH):
            start, end = match.span()
            before = bisect_left(starts, end)
            if is_one(match.group()) and (before == 0 or found[before - 1].end <= start):
                own.append(Span(kind=kind, start=start, end=end))
        found = sorted(found + own, key=lambda span: span.start)
    return found


def redact(text: str, spans: Sequence[Span], known: dict[str, dict[str, int]] | None = None) -> str:
    """Return the text with each find replaced by its kind and a number, equal finds by equal numbers.

    The same address reads `[EMAIL_ADDRESS_1]` wherever it stands, so that a model can still tell one person
    from another. `known` holds the number of each find so far, by kind, and is added to: texts that share
    it share their numbers.
    """
    finds = {} if known is None else known
    parts, place = [], 0
    for span in spans:
        value, own = without_unseen(text[span.start : span.end]), finds.setdefault(span.kind, {})
        number = own.setdefault(value, len(own) + 1)
        parts += [text[place : span.start], f"[{span.kind}_{number}]"]
        place = span.end
    return "".join([*parts, text[place:]])
