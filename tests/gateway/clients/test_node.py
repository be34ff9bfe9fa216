"""Clients of JavaScript: OpenAI's and Anthropic's own, and Vercel's AI SDK, before both kinds of upstream."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.clients.willing import TEXT
from tests.gateway.conftest import Served

HERE = Path(__file__).parent / "node"
MODULES = Path(__file__).parents[3] / ".build" / "node" / "node_modules"
JOKE = {"setup": "some setup", "punchline": "some punchline"}
BOTH = pytest.mark.parametrize("model", ["plain", "claude"])


@pytest.fixture
def node(served: Served, tmp_path: Path) -> Any:
    """Run a script with a gateway's address and return what it tells."""
    if shutil.which("node") is None or not MODULES.is_dir():
        pytest.skip("node 20 or later and its clients are not installed; see scripts/node")
    (tmp_path / "node_modules").symlink_to(MODULES, target_is_directory=True)

    def run(name: str, model: str) -> dict[str, Any]:
        shutil.copy(HERE / name, tmp_path)
        command = ["node", str(tmp_path / name), served.base_url, model]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    return run


@BOTH
def test_openais_client(node: Any, model: str) -> None:
    told = node("openai.mjs", model)
    assert told["whole"] == {"text": TEXT, "tokens": 11, "served": model}
    assert told["stream"] == {"text": TEXT, "tokens": 11}
    assert told["form"] == JOKE
    for kind in ("tools", "streamed_tools"):
        assert told[kind] == {"seen": [[17, 17]], "text": TEXT}
    assert told["responses"] == {"text": TEXT, "tokens": 11}
    assert (told["responses_stream"], told["last_event"]) == (TEXT, "response.completed")
    assert told["models"] == ["turnout/auto", "plain", "claude"]
    error = {"kind": "NotFoundError", "status": 404, "code": "model_not_found", "param": "model"}
    assert told["error"] == error


@BOTH
def test_anthropics_client(node: Any, model: str) -> None:
    told = node("anthropic.mjs", model)
    assert told["whole"] == {"text": TEXT, "stop": "end_turn"}
    assert told["stream"] == {"text": TEXT, "same": True, "tokens": 7}
    assert told["tools"] == {"seen": [[17, 17]], "text": TEXT}
    assert told["length"] > 0
    assert told["error"] == {"kind": "NotFoundError", "status": 404, "type": "not_found_error"}


@BOTH
def test_vercels_ai_sdk(node: Any, model: str) -> None:
    told = node("ai.mjs", model)
    assert sorted(told) == ["anthropic", "chat", "compatible", "responses"]
    for kind, found in told.items():
        assert found["whole"] == {"text": TEXT, "tokens": 7}, kind
        assert found["stream"] == {"text": TEXT, "tokens": 7}, kind
        assert found["object"] == found["streamed_object"] == JOKE, kind
        assert found["generateText"] == found["streamText"] == {"seen": [[17, 17]], "text": TEXT}, kind
