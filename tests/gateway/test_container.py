"""The container file names things that exist: files, extras, options, paths."""

from __future__ import annotations

import json
import re
import shlex
import tomllib

from tests.docs import markdown
from turnout.cli.main import build_parser
from turnout.gateway.door import OPEN

ROOT = markdown.ROOT
LINES = (ROOT / "Containerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()


def instructions(name: str) -> list[str]:
    return [line.partition(" ")[2].strip() for line in LINES if line.startswith(f"{name} ")]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[0] == "*"
    copied = [
        path
        for line in instructions("COPY")
        if not line.startswith("--from")
        for path in shlex.split(line)[:-1]
    ]
    assert len(copied) >= 5
    for path in copied:
        assert (ROOT / path).exists(), path
        assert f"!{path.removeprefix('./')}" in ignored, path


def test_the_package_it_builds_needs_no_file_beyond_those() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"}
    copied = set(" ".join(instructions("COPY")).split())
    assert needed <= copied


def test_its_extras_and_its_python_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extras,) = re.findall(r"\.whl\)\[([\w,]+)\]", " ".join(LINES))
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    versions = {tuple(map(int, found.groups())) for line in instructions("FROM")
                if (found := re.match(r"python:(\d+)\.(\d+)-slim", line))}  # fmt: skip
    assert versions
    assert all(version >= (3, 11) for version in versions)


def test_its_command_is_one_that_the_command_line_takes() -> None:
    assert json.loads(instructions("ENTRYPOINT")[0]) == ["turnout"]
    options = build_parser().parse_args(json.loads(instructions("CMD")[0]))
    assert (options.command, options.workers) == ("serve", 1)


def test_it_does_not_run_as_root_and_asks_after_its_health() -> None:
    assert instructions("USER") == ["turnout"]
    (check,) = instructions("HEALTHCHECK")
    (path,) = re.findall(r"127\.0\.0\.1:8100(/\w+)", check)
    assert path in OPEN
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
