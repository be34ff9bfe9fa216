"""This module runs LiteLLM's proxy as a peer, one or more releases of it: same upstream, one worker each."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.gateway_load import Way, pin

START_S = 90.0
SHARE = 0.1


def litellm_commands() -> list[str]:
    """Return the commands that `LITELLM` names (separated as in PATH), or `litellm` on the path."""
    named = os.environ.get("LITELLM") or shutil.which("litellm") or ""
    return [command for command in named.split(os.pathsep) if command]


def name_of(command: str) -> str:
    """Return `litellm` with the release that a command belongs to."""
    code = "import importlib.metadata; print(importlib.metadata.version('litellm'))"
    python = Path(command).resolve().parent / "python"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    return f"litellm {done.stdout.strip()}"


@contextmanager
def litellm_proxy(
    command: str, folder: Path, upstream: str, cores: set[int]
) -> Iterator[tuple[Way | None, str | None]]:
    """Run a proxy; yield (way, None) or (None, why not)."""
    port = _free_port()
    config, log_path = folder / f"litellm_{port}.yaml", folder / f"litellm_{port}.log"
    config.write_text(
        "model_list:\n  - model_name: auto\n    litellm_params:\n      model: openai/m\n"
        f"      api_base: {upstream}\n      api_key: none\n",
        encoding="utf-8",
    )
    arguments = [command, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    # On the loopback, for a minute, with nothing behind it: no key.
    settings = {**os.environ, "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}
    with log_path.open("w") as log:
        child = subprocess.Popen([*arguments, "--num_workers", "1"], stdout=log, stderr=log, env=settings)
        try:
            pin(child.pid, cores)
            if _is_ready(child, port):
                yield Way(url=f"http://127.0.0.1:{port}/v1", model="auto", share=SHARE), None
            else:
                yield None, log_path.read_text(encoding="utf-8")[-300:] or "did not start"
        finally:
            child.terminate()
            child.wait(timeout=60)


def _is_ready(child: subprocess.Popen[bytes], port: int) -> bool:
    """Whether it answers in time; it does nothing but start until then."""
    until_s = time.monotonic() + START_S
    while child.poll() is None and time.monotonic() < until_s:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=1):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
