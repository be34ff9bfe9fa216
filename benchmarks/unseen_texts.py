"""This module gives labelled texts for tables that nobody has seen: corpora, recombined, in other scripts.

A label (an intent, a tool, an article) is what a table's latent skills hang on. Where more texts are wanted
than a corpus holds, two of one label are joined; `script` writes each letter in another alphabet, one to
one, so that nothing of English is left but its statistics; `repeats` gives a share of the queries a copy
that differs in a word.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from turnout.core.errors import InputError

Labelled = tuple[list[str], list[str]]
_FILES = {
    "clinc150": ("intents/clinc150.parquet", "text", "label"),
    "banking77": ("intents/banking77.parquet", "text", "label"),
    "hwu64": ("intents/hwu64.parquet", "text", "label"),
    "metatool": ("tools/metatool_single.parquet", "query", "tool"),
    "bfcl": ("tools/bfcl_v4_selection.parquet", "query", "category"),
}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_FIRST = {"cyrillic": 0x430, "greek": 0x3B1, "hangul": 0xAC00, "han": 0x4E00}
"""The first of 26 characters in a row that stand for the letters."""
_MIN_CHARS = 60


def folder() -> Path:
    """Return the folder of corpora below TURNOUT_DATA; raises `InputError` where it is not named."""
    root = os.environ.get("TURNOUT_DATA")
    if not root:
        raise InputError("TURNOUT_DATA must name the folder of data sets: it holds the corpora")
    return Path(root) / "corpora"


def texts(
    source: str,
    num: int,
    rng: np.random.Generator,
    *,
    script: str | None = None,
    repeats: float = 0.0,
) -> Labelled:
    """Return `num` texts that differ (but for repeats) and their labels, in random order."""
    own, labels = _articles() if source == "wikitext" else _rows(source)
    num_new = max(round(num * (1.0 - repeats)), 1)
    words, marks = _enough(own, labels, num_new, rng)
    if num > num_new:
        again = rng.integers(0, num_new, size=num - num_new).tolist()
        words = [*words, *(_nearly(words[row], rng) for row in again)]
        marks = [*marks, *(marks[row] for row in again)]
    order = rng.permutation(num).tolist()
    write = _writer(script)
    return [write(words[row]) for row in order], [marks[row] for row in order]


def _rows(source: str) -> Labelled:
    name, text, label = _FILES[source]
    table = pq.read_table(folder() / name, columns=[text, label]).to_pydict()
    first: dict[str, str] = {}
    for words, mark in zip(table[text], table[label], strict=True):
        first.setdefault(words, mark)
    return list(first), list(first.values())


def _articles() -> Labelled:
    """Return sentences of encyclopedia articles, labelled by article."""
    found: dict[str, str] = {}
    for part in ("valid", "test"):
        title = ""
        for line in (folder() / "text" / f"wikitext2_{part}.txt").read_text(encoding="utf-8").splitlines():
            heading = re.fullmatch(r" = ([^=].*[^=]) = ", line)
            title = heading[1] if heading else title
            if title and not line.startswith(" ="):
                for sentence in line.split(" . "):
                    if len(sentence) >= _MIN_CHARS:
                        found.setdefault(sentence.strip(), title)
    return list(found), list(found.values())


def _enough(own: list[str], labels: list[str], num: int, rng: np.random.Generator) -> Labelled:
    order = rng.permutation(len(own))[:num].tolist()
    words, marks = [own[row] for row in order], [labels[row] for row in order]
    by_label: dict[str, list[int]] = {}
    for row, mark in enumerate(labels):
        by_label.setdefault(mark, []).append(row)
    seen = set(words)
    while len(words) < num:
        first = int(rng.integers(len(own)))
        second = int(rng.choice(by_label[labels[first]]))
        joined = f"{own[first]} {own[second]}"
        if joined not in seen:
            seen.add(joined)
            words.append(joined)
            marks.append(labels[first])
    return words, marks


def _nearly(text: str, rng: np.random.Generator) -> str:
    """Return the text with a greeting before it or a word left out."""
    parts = text.split()
    if len(parts) < 6:
        return f"please {text}"
    at = int(rng.integers(len(parts)))
    return " ".join(parts[:at] + parts[at + 1 :])


def _writer(script: str | None) -> Callable[[str], str]:
    if script is None:
        return lambda text: text
    letters = str.maketrans(
        dict(zip(_LETTERS, map(chr, range(_FIRST[script], _FIRST[script] + 26)), strict=True))
    )
    has_spaces = script != "han"

    def write(text: str) -> str:
        changed = text.lower().translate(letters)
        return changed if has_spaces else changed.replace(" ", "")

    return write
