"""This module asks a gateway with clients that want older parts than its tests have: instructor, LlamaIndex.

Each is installed into an environment of its own below `--folder`, and asks a gateway before a model that does
what it is asked (`tests/gateway/clients`), behind an API of OpenAI's kind and one of Anthropic's. Counted is
whether all came that was asked for.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import record
from tests.gateway.clients.conftest import CLAUDE, PLAIN, say
from tests.gateway.clients.willing import TEXT
from tests.gateway.pool import make_deployment
from tests.gateway.settings import make_config
from tests.gateway.told import told_server
from turnout.gateway.lifecycle import running
from turnout.gateway.settings_models import CandidateSettings
from turnout.gateway.settings_providers import AnthropicSettings

JOKE = {"setup": "some setup", "punchline": "some punchline"}
MODES = ("tools", "json", "json_schema")
CHATS = ("chat", "chat, streamed", "complete", "chat, later", "chat, later, streamed")
CLIENTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "instructor==1.17.0": (
        "instructor_asks",
        {f"{mode}{how}": JOKE for mode in MODES for how in ("", ", in parts")},
    ),
    "llama-index-llms-openai-like==0.8.1": (
        "llama_index_asks",
        {**dict.fromkeys(CHATS, TEXT), "tool": [[[17.0, 17.0]], "289.0"], "form": JOKE},
    ),
}
"""Package -> the script that asks, and what must come."""
MODELS = {PLAIN.name: "chat completions", CLAUDE.name: "Anthropic's Messages"}


@contextmanager
def gateway() -> Iterator[str]:
    """Run a gateway before a willing model; yields its address."""
    with told_server() as told, tempfile.TemporaryDirectory() as folder:
        told.say = say
        plain = make_config(told.base_url, Path(folder) / "ledger.sqlite")
        config = msgspec.structs.replace(
            plain,
            providers={**plain.providers, "claude": AnthropicSettings(base_url=told.base_url)},
            default_provider="main",
            # LlamaIndex always sends one, which Anthropic's newer models refuse.
            candidates={"claude": CandidateSettings(provider="claude", leave_out=["temperature"])},
        )
        with running(config.check(), deployment=make_deployment((PLAIN, CLAUDE))) as ready:
            yield ready.base_url


def installed(package: str, folder: Path) -> Path:
    """Return the interpreter of an environment that holds the package; makes it where there is none."""
    place = folder / package.partition("=")[0]
    python = place / "bin" / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
    quiet = ["-m", "pip", "--disable-pip-version-check", "install", "-q", package]
    subprocess.run([str(python), *quiet], check=True, stderr=subprocess.DEVNULL)
    return python


def asked(python: Path, script: str, base_url: str, model: str) -> Mapping[str, Any]:
    """Return what a script was told; what it died of, where it did."""
    path = Path(__file__).parent / "elsewhere" / f"{script}.py"
    done = subprocess.run(
        [str(python), str(path), base_url, model], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        return {"died of": done.stderr.strip().splitlines()[-1][:200]}
    told: Mapping[str, Any] = json.loads(done.stdout)
    return told


def main() -> None:
    """Ask with every client and write what came."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, help="where the environments are kept; a passing one by default"
    )
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as passing, gateway() as base_url:
        for package, (script, wanted) in CLIENTS.items():
            python = installed(package, options.folder or Path(passing))
            for model, api in MODELS.items():
                told = asked(python, script, base_url, model)
                wrong = {name: told.get(name) for name in wanted if told.get(name) != wanted[name]}
                if "died of" in told:
                    wrong = dict(told)
                row = {"client": package, "upstream": api, "asked": sorted(wanted), "wrong": wrong}
                rows.append(row)
                print(f"{package} before {api}: {len(wanted) - len(wrong)} of {len(wanted)}", wrong or "")
    num_wrong = sum(len(row["wrong"]) for row in rows)
    path = record.write("other_clients", {"rows": rows, "num_wrong": num_wrong})
    print(f"{num_wrong} wrong -> {path.name}")
    if num_wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
