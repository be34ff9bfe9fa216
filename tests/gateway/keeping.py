"""An upstream that keeps conversations as OpenAI does: what is written into one is there later."""

from __future__ import annotations

import itertools
from typing import Any
from urllib.parse import parse_qs

from tests.gateway.chat_told import completion
from tests.gateway.told import Asked, Say, whole


def not_found(what: str) -> Say:
    error = {"message": f"{what} not found.", "type": "invalid_request_error", "param": None, "code": None}
    return whole({"error": error}, 404)


class Keeping:
    """Says what an upstream with a memory of its own says; `name` is in every id that it gives."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kept: dict[str, dict[str, Any]] = {}
        self.items: dict[str, list[dict[str, Any]]] = {}
        self._numbers = itertools.count(1)

    def say(self, asked: Asked) -> Say:
        """Answer one request."""
        path, _, query = asked.path.removeprefix("/v1/").partition("?")
        kind, *rest = path.split("/")
        body = asked.json if asked.body else {}
        if kind == "chat":
            return whole(completion({"content": "x"}, "stop"))
        if kind == "responses":
            return self._respond(body)
        if kind != "conversations":
            return not_found("Path")
        if not rest:
            return self._make(body)
        if rest[0] not in self.kept:
            return not_found(f"Conversation with id '{rest[0]}'")
        return self._items(asked, rest, body, query) if rest[1:] else self._one(asked, rest[0], body)

    def texts(self, made_id: str) -> list[str]:
        """The texts that a conversation holds, in order."""
        return [item["content"] for item in self.items[made_id]]

    def _make(self, body: Any) -> Say:
        made_id = f"conv_{self.name}_{next(self._numbers)}"
        told = {"id": made_id, "object": "conversation", "created_at": 1, "metadata": body.get("metadata")}
        self.kept[made_id] = told
        self.items[made_id] = []
        self._write(made_id, body.get("items") or [])
        return whole(told)

    def _one(self, asked: Asked, made_id: str, body: Any) -> Say:
        if asked.method == "DELETE":
            del self.kept[made_id]
            return whole({"id": made_id, "object": "conversation.deleted", "deleted": True})
        if asked.method == "POST":
            self.kept[made_id]["metadata"] = body["metadata"]
        return whole(self.kept[made_id])

    def _items(self, asked: Asked, rest: list[str], body: Any, query: str) -> Say:
        made_id, items = rest[0], self.items[rest[0]]
        if rest[2:]:
            found = next((item for item in items if item["id"] == rest[2]), None)
            if found is None:
                return not_found(f"Item with id '{rest[2]}'")
            if asked.method == "DELETE":
                items.remove(found)
                return whole(self.kept[made_id])
            return whole(found)
        if asked.method == "POST":
            return _list(self._write(made_id, body["items"]))
        limit = int(parse_qs(query).get("limit", ["20"])[0])
        return _list(items[:limit], has_more=len(items) > limit)

    def _write(self, made_id: str, items: list[Any]) -> list[dict[str, Any]]:
        written = [
            {"type": "message", "status": "completed", **item, "id": f"msg_{next(self._numbers)}"}
            for item in items
        ]
        self.items[made_id] += written
        return written

    def _respond(self, body: Any) -> Say:
        conversation = body.get("conversation")
        made_id = conversation.get("id") if isinstance(conversation, dict) else conversation
        told: dict[str, Any] = {
            "id": f"resp_{self.name}",
            "object": "response",
            "created_at": 1,
            "model": "m",
        }
        told["output"] = []
        if made_id is not None:
            if made_id not in self.kept:
                return not_found(f"Conversation with id '{made_id}'")
            self._write(made_id, [{"role": "user", "content": body["input"]}])
            told["conversation"] = {"id": made_id}
        return whole(told)


def _list(items: list[dict[str, Any]], *, has_more: bool = False) -> Say:
    ends = {"first_id": items[0]["id"], "last_id": items[-1]["id"]} if items else {}
    return whole({"object": "list", "data": items, "has_more": has_more, **ends})
