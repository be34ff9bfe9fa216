"""This module remembers which texts a deployment learned from, so that nobody grades it on them unawares."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

from turnout.core.errors import LeakageError, sentence
from turnout.core.outcomes import Ints, OutcomeTable
from turnout.core.query import Query
from turnout.evaluation.shingles import normal_form
from turnout.policies import Deployment

_BYTES = 8


def text_marks(queries: Sequence[Query]) -> Ints:
    """Return one number per text, shape (Q,); 0 where there is no text.

    Texts that are equal but for case and white space have the same.
    """
    return np.array([_mark(query.content or "") for query in queries], np.int64)


def _mark(text: str) -> int:
    form = normal_form(text)
    if not form:
        return 0
    digest = hashlib.sha256(form.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:_BYTES], "little", signed=True)


def remembered(queries: Sequence[Query]) -> Ints:
    """Return the marks of all texts, sorted, each once."""
    marks: Ints = np.unique(text_marks(queries))
    known: Ints = marks[marks != 0]
    return known


def check_unseen(
    deployment: Deployment, test: OutcomeTable, *, leakage: Literal["check", "allow", "skip"]
) -> str | None:
    """Return a warning about queries that the deployment learned from, None where there are none.

    Raises `LeakageError` instead where leakage is checked. Nearly equal texts are not found: a deployment
    keeps marks of its texts and not the texts.
    """
    if leakage == "skip":
        return None
    num_seen = int(np.isin(text_marks(test.queries), deployment.learned_from).sum())
    if not num_seen:
        return None
    what = f"the deployment learned from {num_seen} of the {len(test.queries)} held-out queries"
    if leakage == "check":
        raise LeakageError(
            sentence(
                what,
                allowed="none of them",
                do="evaluate on the split that it was fitted without (the same table, seed and split names), "
                "or allow it explicitly and have the report say so",
            )
        )
    return f"{what}, which was allowed: its row shows memory, not foresight"
