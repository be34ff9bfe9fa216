"""This script asks a gateway with LlamaIndex: whole and streamed, a tool that it calls itself, a form."""

from __future__ import annotations

import asyncio
import json
import sys

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

ASKED = [ChatMessage(role="user", content="Hello")]


class Joke(BaseModel):
    """A joke."""

    setup: str
    punchline: str


async def later(llm: OpenAILike) -> tuple[str | None, str]:
    """Ask without waiting in a thread, whole and streamed."""
    answer = await llm.achat(ASKED)
    parts = [one.delta or "" async for one in await llm.astream_chat(ASKED)]
    return answer.message.content, "".join(parts)


def main() -> None:
    """Ask a model at an address; write what came as JSON."""
    base_url, model = sys.argv[1:]
    llm = OpenAILike(
        model=model,
        api_base=base_url,
        api_key="none",
        is_chat_model=True,
        is_function_calling_model=True,
        max_retries=0,
    )
    seen: list[list[float]] = []

    def multiply(a: float, b: float) -> float:
        """Multiply."""
        seen.append([a, b])
        return a * b

    whole, streamed = asyncio.run(later(llm))
    called = llm.predict_and_call([FunctionTool.from_defaults(fn=multiply)], user_msg="Please multiply 17")
    told = {
        "chat": llm.chat(ASKED).message.content,
        "chat, streamed": "".join(one.delta or "" for one in llm.stream_chat(ASKED)),
        "complete": llm.complete("Hello").text,
        "chat, later": whole,
        "chat, later, streamed": streamed,
        "tool": [seen, called.response],
        "form": llm.as_structured_llm(Joke).complete("Tell me a joke.").raw.model_dump(),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
