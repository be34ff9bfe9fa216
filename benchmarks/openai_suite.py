"""This module runs the tests of OpenAI's Python client through a gateway, and counts what passes and why not.

Name a checkout of that project in OPENAI_PYTHON (its folders `src` and `tests`); its tests take the gateway
for OpenAI, and behind the gateway stands a mock that answers every path with what the API's types ask for.
Paths that the gateway does not serve, such as files and fine-tuning, are left to the client's own project.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
from aiohttp import web

from benchmarks import record
from turnout.core import Goal
from turnout.datasets import load
from turnout.gateway.config import Config, LedgerSettings, RoutingSettings, ServerSettings
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_models import ModelSettings
from turnout.gateway.settings_providers import OpenAISettings
from turnout.policies import Best, Deployment
from turnout.routers import BestSingleRouter

FILES = (
    "chat/test_completions",
    "test_responses",
    "responses/test_input_items",
    "test_conversations",
    "conversations/test_items",
    "test_embeddings",
    "test_models",
    "test_completions",
)
MODELS = ("gpt-5.4", "gpt-5.1", "gpt-5.6-sol", "text-embedding-3-small", "gpt-4o-mini", "model")
KEPT = "resp_677efb5139a88190b512bc3fef8e535d"
OTHER = "response_id"
"""The responses that the suite asks for by their names."""
CONVERSATION = {"id": "conv_123", "object": "conversation", "created_at": 1, "metadata": {}}
"""The conversation that the suite asks for."""
ITEM = {"id": "msg_abc", "type": "message", "status": "completed", "role": "user", "content": []}
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


async def answer(request: web.Request) -> web.StreamResponse:
    """Answer one request as its path asks."""
    asked = await request.json() if request.method == "POST" and request.can_read_body else {}
    kind = request.path.rpartition("/v1/")[2]
    if kind == "chat/completions":
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": "stop"}
        told: dict[str, Any] = {"id": "c", "created": 1, "model": asked["model"]}
        if asked.get("stream"):
            return await _stream(request, {**told, "object": "chat.completion.chunk",
                                           "choices": [{**choice, "delta": {"content": "x"}}]})  # fmt: skip
        message = {"role": "assistant", "content": "x", "refusal": None}
        told |= {"object": "chat.completion", "choices": [{**choice, "message": message}], "usage": USAGE}
        return web.json_response(told)
    if kind.startswith(("conversations", f"responses/{OTHER}/input_items")):
        return web.json_response(_kept(request.method, kind))
    if request.method == "DELETE":
        return web.Response(status=204)
    if kind in ("responses", f"responses/{KEPT}", f"responses/{KEPT}/cancel"):
        fixed = {"object": "response", "output": [], "parallel_tool_calls": True, "tool_choice": "auto"}
        made_id = (asked.get("metadata") or {}).get("id", KEPT)
        response = {
            "id": made_id,
            "created_at": 1,
            "model": asked.get("model", MODELS[0]),
            "tools": [],
            **fixed,
        }
        if asked.get("stream") or request.query.get("stream") == "true":
            return await _stream(
                request, {"type": "response.completed", "sequence_number": 0, "response": response}
            )
        return web.json_response(response)
    if kind == "embeddings":
        data = [{"index": 0, "object": "embedding", "embedding": [0.5]}]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return web.json_response({"object": "list", "model": asked["model"], "data": data, "usage": usage})
    return web.json_response({"error": {"message": f"no {kind}"}}, status=404)


def _kept(method: str, kind: str) -> dict[str, Any]:
    """Return what the API says of a conversation, or of items."""
    _, *rest = kind.split("/")
    if rest[-1:] in (["items"], ["input_items"]):
        ends = {"first_id": ITEM["id"], "last_id": ITEM["id"], "has_more": False}
        return {"object": "list", "data": [ITEM], **ends}
    if len(rest) == 3 and method == "GET":
        return ITEM
    if len(rest) == 1 and method == "DELETE":
        return {"id": CONVERSATION["id"], "object": "conversation.deleted", "deleted": True}
    return CONVERSATION


async def _stream(request: web.Request, value: dict[str, Any]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    head = f"event: {value['type']}\n" if "type" in value else ""
    await response.write(f"{head}data: {json.dumps(value)}\n\ndata: [DONE]\n\n".encode())
    return response


@contextmanager
def mock() -> Iterator[str]:
    """Run the upstream in a thread; yields its address."""
    ready, stop, address = threading.Event(), threading.Event(), []

    async def main() -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        address.append(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
        ready.set()
        while not stop.is_set():  # noqa: ASYNC110 (set by another thread)
            await asyncio.sleep(0.02)
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    ready.wait(10)
    try:
        yield address[0]
    finally:
        stop.set()
        thread.join()


def run_tests(checkout: Path, base_url: str, folder: Path) -> list[tuple[str, str]]:
    """Return (test, why it failed, or nothing) of every test that ran."""
    report = folder / "report.xml"
    paths = [str(checkout / "tests" / "api_resources" / f"{name}.py") for name in FILES]
    # Other projects' plug-ins stay out; the suite brings its own settings.
    without = [f"-pno:{name}" for name in ("cacheprovider", "schemathesis", "langsmith_plugin", "syrupy")]
    own = ["-o", "addopts=", "-o", "filterwarnings=default", "--rootdir", str(checkout)]
    own += ["-c", str(checkout / "pyproject.toml"), f"--junitxml={report}"]
    command = [sys.executable, "-m", "pytest", "-q", *without, *own, *paths]
    environment = {**os.environ, "TEST_API_BASE_URL": base_url, "PYTHONPATH": f"{checkout}/src:{checkout}"}
    subprocess.run(command, env=environment, cwd=checkout, check=False, stdout=subprocess.DEVNULL)
    found = []
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("skipped") is not None:
            continue
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        found.append((name, "" if bad is None else (bad.get("message") or "failed")))
    return found


ELSEWHERE = "a path that the gateway does not serve"


def why(message: str) -> str:
    """Return the class of a failure, by the words of the gateway's own errors."""
    classes = {
        "no such path": ELSEWHERE,
        "the method is not supported": ELSEWHERE,
        "not found; allowed: a response": "a response that no upstream here has made",
    }
    return next((told for words, told in classes.items() if words in message), message[:160])


def main() -> None:
    """Run the suite once and write what came of it."""
    checkout = Path(os.environ["OPENAI_PYTHON"]).resolve()
    router = BestSingleRouter().fit(load("reason18"))
    deployment = Deployment(router=router, fallback=router, policy=Best(), goal=Goal())
    with tempfile.TemporaryDirectory() as name, mock() as upstream:
        folder = Path(name)
        config = Config(
            deployment="given in memory",
            providers={"main": OpenAISettings(base_url=upstream)},
            models={model: ModelSettings(provider="main") for model in MODELS},
            server=ServerSettings(port=0),
            routing=RoutingSettings(retries=0),
            ledger=LedgerSettings(path=str(folder / "ledger.sqlite")),
        ).check()
        with running(config, deployment=deployment) as ready:
            # What an upstream made is known by its name; the suite asks for one that it has not made itself.
            with openai.OpenAI(base_url=ready.base_url, api_key="none") as client:
                client.responses.create(model=MODELS[0], input="x")
                client.responses.create(model=MODELS[0], input="x", metadata={"id": OTHER})
                client.conversations.create()
            found = run_tests(checkout, ready.base_url, folder)
    failed = Counter(why(message) for _, message in found if message)
    version = (checkout / "src" / "openai" / "_version.py").read_text().split('"')[3]
    num_elsewhere = failed.get(ELSEWHERE, 0)
    result = {
        "suite": f"openai-python {version}, {', '.join(FILES)}",
        "ran": len(found),
        "of_served_paths": len(found) - num_elsewhere,
        "passed": sum(not message for _, message in found),
        "failed_by_reason": dict(failed),
        "failed": {test: why(message) for test, message in found if message},
    }
    path = record.write("openai_suite", result)
    print(f"{result['passed']} of {result['of_served_paths']} passed; {dict(failed)} -> {path.name}")


if __name__ == "__main__":
    main()
