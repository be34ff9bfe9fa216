"""This script asks a gateway with instructor: forms by tools, by JSON and by a schema, whole and in parts."""

from __future__ import annotations

import json
import sys

import instructor
import openai
from pydantic import BaseModel

MODES = {
    "tools": instructor.Mode.TOOLS,
    "json": instructor.Mode.JSON,
    "json_schema": instructor.Mode.JSON_SCHEMA,
}


class Joke(BaseModel):
    """A joke."""

    setup: str
    punchline: str


def main() -> None:
    """Ask a model at an address; write what came, or why nothing did, as JSON."""
    base_url, model = sys.argv[1:]
    told: dict[str, object] = {}
    for name, mode in MODES.items():
        client = instructor.from_openai(
            openai.OpenAI(base_url=base_url, api_key="none", max_retries=0), mode=mode
        )
        # Where the form is told in words alone, the willing model takes its members from the question.
        members = " with 'setup' and 'punchline'" if name == "json" else ""
        asked = {
            "model": model,
            "response_model": Joke,
            "max_retries": 0,
            "messages": [{"role": "user", "content": f"Tell me a joke{members}."}],
        }
        told[name] = client.chat.completions.create(**asked).model_dump()
        parts = list(client.chat.completions.create_partial(**asked))
        told[f"{name}, in parts"] = parts[-1].model_dump()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
