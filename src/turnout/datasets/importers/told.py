"""This module keeps what the rows of a long file say of their queries, and where they said it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from turnout.core.errors import TableError, sentence
from turnout.core.query import Query
from turnout.datasets.draft import TableDraft


class Told:
    """The queries of a file: said in any of their rows, and the same in all."""

    def __init__(self, path: Path, draft: TableDraft) -> None:
        self._stem, self._draft = path.stem, draft
        self._told: list[dict[str, tuple[str, str]]] = []
        """Of each query, what was said of it and where."""

    def find(self, place: str, said: Mapping[str, str | None]) -> int:
        """Return the index of the query of a row, added at its first appearance."""
        if said["query_id"] is None and said["text"] is None:
            raise TableError(
                sentence(f"{place}: the query", allowed="an id or a text that is not empty", got="nothing")
            )
        key = said["query_id"] or (said["task"], said["text"])
        index = self._draft.find(key)
        if index is None:
            query_id = said["query_id"] or f"{self._stem}/{self._draft.num_queries}"
            self._told.append({name: (text, place) for name, text in said.items() if text is not None})
            query = Query(id=query_id, text=said["text"], task=said["task"])
            return self._draft.add_query(
                key, query, place=place, split=said["split"], reference=said["reference"]
            )
        self._hear(index, place, said)
        return index

    def _hear(self, index: int, place: str, said: Mapping[str, str | None]) -> None:
        """Add what a further row says of a query, which may not contradict the rows before."""
        told = self._told[index]
        for name, (text, first) in told.items():
            if said[name] not in (None, text):
                raise TableError(
                    sentence(
                        f"{place}: {name} of the query {self._draft.id_of(index)!r} differs from {first}",
                        allowed=f"{_short(text)!r}, or nothing",
                        got=_short(said[name] or ""),
                        do="make them equal, or give the queries ids of their own",
                    )
                )
        news = {name: (text, place) for name, text in said.items() if text is not None and name not in told}
        if not news:
            return
        told |= news
        # Without an id the text was said at once, and only the split or the reference can be news.
        words = {name: text for name, (text, _) in told.items()}
        query = Query(id=self._draft.id_of(index), text=words.get("text"), task=words.get("task"))
        self._draft.replace_query(index, query, reference=words.get("reference"), split=words.get("split"))


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
