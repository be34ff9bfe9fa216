"""This module reads what a user's next message says about the answer before it."""

from __future__ import annotations

import re

NONE, THANKS, WRONG, AGAIN, MORE = "none", "thanks", "wrong", "again", "more"
LABELS = (NONE, THANKS, WRONG, AGAIN, MORE)
"""No word about the answer; content; said to be wrong; asked once more; asked to go further."""

_HEAD = 300
_SIGNS = (
    (
        WRONG,
        re.compile(
            r"\b(?:that'?s|that is|this is|it'?s|you(?:'re| are)|your answer is) "
            r"(?:still |just |completely |totally )?"
            r"(?:not (?:right|correct|true|what i)|wrong|incorrect|false|mistaken|nonsense)"
            r"|\b(?:(?:does|did)(?:n'?t| not)|still (?:doesn'?t|not)) (?:work|compile|run|help|answer)"
            r"|\byou (?:misunderstood|missed|forgot|ignored|made (?:a|an) (?:mistake|error))"
            r"|^\s*(?:no|wrong|incorrect|nope)\b[,.! ]",
            re.IGNORECASE,
        ),
    ),
    (
        AGAIN,
        re.compile(
            r"\b(?:try|do|answer|say|ask(?:ed|ing)?|generate|write) (?:it |that |this |you )?"
            r"(?:once more|again)\b"
            r"|\b(?:regenerate|rephrase|as i (?:said|asked)|i (?:just |already )?asked|start over|redo)\b",
            re.IGNORECASE,
        ),
    ),
    (
        THANKS,
        re.compile(
            r"\b(?:thanks?|thank you|thx|perfect|great|awesome|exactly|that (?:works|worked|helps|helped)"
            r"|well done|good (?:answer|job))\b",
            re.IGNORECASE,
        ),
    ),
    (
        MORE,
        re.compile(
            r"\b(?:more detail|elaborate|explain (?:more|further|that)|go on|continue|expand on|tell me more"
            r"|what do you mean|can you clarify|give (?:me )?(?:an )?examples?)\b",
            re.IGNORECASE,
        ),
    ),
)
_WORD = re.compile(r"\w+")
_SAME = 0.6


def read_feedback(message: str, before: str | None) -> str:
    """Return one of `LABELS` for a user's message, given the user's message before it.

    Without an earlier message there is no answer to speak of, and the label is `none`. A message that
    repeats most words of the earlier one (Jaccard similarity of 0.6 or more, three words or more) asks again.
    """
    if before is None:
        return NONE
    for label, pattern in _SIGNS[:1]:
        if pattern.search(message[:_HEAD]):
            return label
    ours, theirs = (set(_WORD.findall(text.lower())) for text in (message, before))
    if min(len(ours), len(theirs)) >= 3 and len(ours & theirs) >= _SAME * len(ours | theirs):
        return AGAIN
    for label, pattern in _SIGNS[1:]:
        if pattern.search(message[:_HEAD]):
            return label
    return NONE
