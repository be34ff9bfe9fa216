"""This module counts what a semantic cache gives again: rightly for a paraphrase, wrongly for a stranger.

The questions are RouterArena's, evaluation only: 809 that are all different, and paraphrases of 420 of them.
A paraphrase should be given its own question's answer; a question whose own answer was taken out should be
given none. `--model FOLDER` adds a sentence encoder, such as all-MiniLM-L6-v2.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import record
from turnout.core import InputError, ManualClock, OutcomeTable
from turnout.gateway.cache import AnswerCache, Asked, Kept, Vector
from turnout.gateway.settings_cache import CacheSettings

ORIGINALS, PARAPHRASES = "routerarena_sub10", "routerarena_robustness"
Questions = dict[str, tuple[Asked, Vector]]

SIMILARITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def read(name: str, cache: AnswerCache) -> Questions:
    """Return the questions of a table as a cache sees them, by id."""
    found = {}
    for query in _table(name).queries:
        asked = Asked(bucket=b"", text=query.text or "", is_comparable=True)
        vector_F = cache.vector(asked)
        if vector_F is not None:
            found[query.id] = (asked, vector_F)
    return found


def _table(name: str) -> OutcomeTable:
    for _, table in record.tables(name, only=[name]):
        return table
    raise InputError(f"the table {name!r} is not there; set TURNOUT_DATA to the folder that holds it")


def cached(similarity: float, model: str | None) -> AnswerCache:
    """Return an empty cache."""
    read_by = {} if model is None else {"embedder": "sentence", "options": {"model": model}}
    settings = CacheSettings(similarity=similarity, max_entries=10_000, **read_by)
    return AnswerCache(settings=settings, clock=ManualClock(), where="benchmark")


def count(cache: AnswerCache, originals: Questions, paraphrases: Questions) -> dict[str, float]:
    """Return the shares of right and wrong hits."""
    for name, (asked, vector_F) in originals.items():
        cache.keep(asked, vector_F, _kept(name))
    hits = {name: cache.near(*one) for name, one in paraphrases.items()}
    right = sum(hit is not None and hit.kept.served == name for name, hit in hits.items())
    wrong = sum(hit is not None and hit.kept.served != name for name, hit in hits.items())
    return {
        "given_its_own": right / len(paraphrases),
        "given_another": wrong / len(paraphrases),
        "strangers_given_an_answer": _strangers(cache, originals) / len(originals),
    }


def _strangers(cache: AnswerCache, originals: Questions) -> int:
    """Return how many questions get another's answer while their own is not kept."""
    found = 0
    for name, (asked, vector_F) in originals.items():
        cache.forget(asked)
        found += cache.near(asked, vector_F) is not None
        cache.keep(asked, vector_F, _kept(name))
    return found


def _kept(name: str) -> Kept:
    return Kept(content_type=b"", body=b"", is_stream=False, served=name, born_s=0.0)


def measure(model: str | None) -> dict[str, object]:
    """Return the counts at every similarity, with one encoder."""
    reader = cached(SIMILARITIES[0], model)
    originals, paraphrases = read(ORIGINALS, reader), read(PARAPHRASES, reader)
    found: dict[str, object] = {"questions": len(originals), "paraphrases": len(paraphrases)}
    found["fingerprints"] = [_table(name).fingerprint for name in (ORIGINALS, PARAPHRASES)]
    for similarity in SIMILARITIES:
        found[f"{similarity:g}"] = counted = count(cached(similarity, model), originals, paraphrases)
        print(model or "text", similarity, {name: round(value, 4) for name, value in counted.items()})
    return found


def main() -> None:
    """Write `cache.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder of a sentence-transformers model")
    model = parser.parse_args().model
    result = {"text": measure(None)}
    if model is not None:
        result["sentence"] = {"model": Path(model).parent.name, **measure(model)}
    print(record.write("cache", result).name)


if __name__ == "__main__":
    main()
