"""The package of the tutorial: installed apart, found by its entry points, judged by the public checks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "examples" / "own_parts"

CHECKS = """
from turnout.checks import check_embedder, check_policy, check_router, run, yield_variants
from turnout.features import registry as features
from turnout.policies import registry as policies
from turnout.routers import registry as routers

suites = [(routers, "length_bands", check_router), (features, "surface", check_embedder),
          (policies, "patient", check_policy)]
for registry, name, check in suites:
    for variant in yield_variants(registry.get(name)):
        report = run(check(variant.thing))
        assert report.is_clean, f"{name} {variant.name}: {report}"
"""

DEPLOY = """
import sys
from own_parts.embedder import SurfaceEmbedder
from own_parts.policy import PatientPolicy
from turnout.core.artifact import load, save
from turnout.datasets import load as load_table
from turnout.routers import KNNRouter
from turnout.training import train

table = load_table("reason18").select(candidates=load_table("reason18").names[:4])
made = train(table, router=KNNRouter(embedder=SurfaceEmbedder()), policy=PatientPolicy())
same = load(save(made, sys.argv[1]))
assert same.fingerprint == made.fingerprint
assert type(same.policy).__name__ == "PatientPolicy"
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Install the package where nothing else is, as a user would, and return the environment that sees it."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--disable-pip-version-check", "--target", str(target), str(PACKAGE)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    paths = [str(target), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def python(site: dict[str, str], *arguments: str) -> str:
    """Run Python with the package installed, and return what it prints; fails with what it says."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=site, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_public_checks_accept_every_part_under_every_setting(site: dict[str, str]) -> None:
    python(site, "-c", CHECKS)


def test_the_command_line_knows_the_router_by_its_name(site: dict[str, str], tmp_path: Path) -> None:
    folder = str(tmp_path / "mine")
    fit = ("-m", "turnout", "fit", "reason18", "--router", "length_bands", "--out", folder, "--json")
    assert json.loads(python(site, *fit))["router"] == "length_bands"
    assert json.loads(python(site, "-m", "turnout", "route", folder, "What is 17 * 23?", "--json"))


def test_a_deployment_is_made_of_them_and_its_artifact_names_what_is_missing(
    site: dict[str, str], tmp_path: Path
) -> None:
    python(site, "-c", DEPLOY, str(tmp_path / "made"))
    bare = {name: value for name, value in site.items() if name != "PYTHONPATH"}
    code = "import sys; from turnout.core.artifact import load; load(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "made")],
        capture_output=True, text=True, env=bare, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "'surface'" in done.stderr or "'patient'" in done.stderr
