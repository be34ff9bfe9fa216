"""This module holds the options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from turnout.cli.console import tell
from turnout.core.artifact import load
from turnout.core.budget import Goal
from turnout.core.contracts import Embedder
from turnout.core.errors import (
    ArtifactError,
    ConfigError,
    InputError,
    UnknownNameError,
    did_you_mean,
    sentence,
)
from turnout.core.outcomes import OutcomeTable
from turnout.policies import Deployment

if TYPE_CHECKING:
    from turnout.gateway import Config

Options = argparse.ArgumentParser | argparse._ArgumentGroup
"""Where an option is added."""

TABLE = "a bundled name (reason18, open9), a name below TURNOUT_DATA, a folder, or a file that is a table"
"""What a command takes as an outcome table."""
_PORT, _PORTS = 8100, 20
"""The port to serve on, and how many are tried from there on."""


def add_many(options: Options, flag: str, metavar: str, text: str) -> None:
    """Add an option that may be given again for more; none is an empty list."""
    options.add_argument(flag, action="append", default=[], metavar=metavar, help=f"{text} (again for more)")


def add_output(parser: argparse.ArgumentParser, *, default: object = False) -> None:
    """Add how a command answers; an action leaves unsaid (`argparse.SUPPRESS`) what stood before it."""
    parser.add_argument("--json", action="store_true", default=default, help="print one JSON document")
    parser.add_argument(
        "--debug", action="store_true", default=default, help="show the traceback of an error"
    )


def add_action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, purpose: str
) -> argparse.ArgumentParser:
    """Add an action of a command, such as `turnout config check`; its purpose stands in both helps."""
    return actions.add_parser(name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")


def add_goal(parser: argparse.ArgumentParser, *, otherwise: str) -> None:
    """Add the dial: a quality floor, a spend cap or the worth of quality, with risk and confidence.

    `otherwise` says what holds where none is stated.
    """
    group = parser.add_argument_group("the dial", f"One of three; without any: {otherwise}.")
    dial = group.add_mutually_exclusive_group()
    dial.add_argument(
        "--quality-floor",
        type=float,
        metavar="SHARE",
        help="keep this share of the best single model's quality (1.0: equal quality) and spend the least",
    )
    dial.add_argument("--usd-per-1k", type=float, metavar="USD", help="spend at most this per 1,000 requests")
    dial.add_argument(
        "--usd-per-quality", type=float, metavar="USD", help="what one more right answer is worth"
    )
    group.add_argument(
        "--risk", type=float, metavar="SHARE", help="slack on a promised floor or cap (default 0)"
    )
    group.add_argument(
        "--confidence", type=float, metavar="P", help="probability that the promise holds (default 0.95)"
    )


def goal_of(options: argparse.Namespace) -> Goal | None:
    """Return the goal that the options state, None where they state no dial.

    Raises `InputError` for a risk or a confidence of a promise that nobody asked for.
    """
    dials = ("quality_floor", "usd_per_1k", "usd_per_quality")
    given = {name: getattr(options, name) for name in dials if getattr(options, name) is not None}
    terms = {name: getattr(options, name) for name in ("risk", "confidence")}
    terms = {name: value for name, value in terms.items() if value is not None}
    if terms and not {"quality_floor", "usd_per_1k"} & given.keys():
        raise InputError(
            sentence(
                f"{' and '.join(f'--{name}' for name in terms)} without a promise to keep",
                allowed="together with --quality-floor or --usd-per-1k",
                got=" ".join(f"--{name.replace('_', '-')} {value:g}" for name, value in given.items())
                or "no dial",
                do="add one of the two, or leave it out",
            )
        )
    return Goal(**given, **terms) if given else None


def add_splits(parser: argparse.ArgumentParser) -> None:
    """Add the names of the training and the held-out split."""
    parser.add_argument("--train-split", metavar="NAME", help="name of the training split (default: train)")
    parser.add_argument("--test-split", metavar="NAME", help="name of the held-out split (default: test)")
    parser.add_argument(
        "--resplit", action="store_true", help="ignore the table's own splits, for example where they leak"
    )
    parser.add_argument("--seed", type=seed, default=0, help="seed of every random step (default 0)")


def parts_of(table: OutcomeTable, options: argparse.Namespace) -> tuple[OutcomeTable, OutcomeTable]:
    """Return the training and the held-out part that the options ask for."""
    from turnout.training import train_and_test, unused_splits

    if options.resplit and (options.train_split or options.test_split):
        raise InputError(
            sentence(
                "--resplit together with the name of a split",
                allowed="--resplit alone, or --train-split and --test-split",
                do="leave one of them out",
            )
        )
    named = {"train": options.train_split, "test": options.test_split, "resplit": options.resplit}
    parts = train_and_test(table, **named, seed=options.seed)
    if note := unused_splits(table, **named):
        tell(f"note: {note}")
    return parts


def add_router(parser: argparse.ArgumentParser) -> None:
    """Add the choice of the router, and whether requests come with a task."""
    parser.add_argument(
        "--router",
        metavar="NAMES",
        default="auto",
        help="auto (default), a router, or several separated by commas to select from by cross-validation",
    )
    parser.add_argument(
        "--tasks-given",
        action="store_true",
        help="requests will name their task (auto then believes it; by default it is inferred from the text)",
    )
    parser.add_argument(
        "--columns",
        metavar="TAGS",
        help="tags of numbers to read beside the text, separated by commas (features of an image, say)",
    )


def wanted_router(text: str) -> str | tuple[str, ...]:
    """Parse `auto`, or a comma-separated list of router names."""
    return "auto" if text.strip() == "auto" else router_names(text)


def wanted_embedder(columns: str | None, table: OutcomeTable) -> Embedder | None:
    """Return what reads the text and these tags of a table's queries, None where no tag is named.

    Raises `UnknownNameError` for a tag that no query has: its numbers would all be the mean.
    """
    from turnout.features import ColumnsEmbedder, JoinedEmbedder, TextEmbedder

    if columns is None:
        return None
    names = tuple(name.strip() for name in columns.split(",") if name.strip())
    known = sorted({tag for query in table.queries for tag in query.tags})
    for name in names:
        if name not in known:
            raise UnknownNameError(
                sentence("--columns: no query has this tag", got=name, do=did_you_mean(name, known))
            )
    if not names:
        raise InputError(sentence("--columns names none", allowed=", ".join(known) or "a tag", got=columns))
    return JoinedEmbedder(embedders=(TextEmbedder(), ColumnsEmbedder(names=names)))


def router_names(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of router names; an unknown one is refused with the nearest."""
    from turnout.routers import registry

    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise InputError(
            sentence("--router names none", allowed=", ".join(registry), got=text, do="name one or more")
        )
    for name in names:
        registry.path(name)
    return names


def load_deployment(folder: str | Path) -> Deployment:
    """Load a deployment and refuse other artifacts."""
    thing = load(folder)
    if not isinstance(thing, Deployment):
        raise ArtifactError(
            sentence(
                f"{str(folder)!r} is not a deployment",
                allowed="a folder that `turnout fit` wrote",
                got=type(thing).__name__,
                do="name such a folder",
            )
        )
    return thing


def deployment_of(config: Config) -> Deployment:
    """Load the deployment that a gateway's settings name; raises `ConfigError` where they name none."""
    if config.deployment is None:
        from turnout.gateway.settings_models import HOW

        raise ConfigError(
            sentence("the settings name no deployment", allowed="a file with a 'deployment'", do=HOW)
        )
    return load_deployment(config.deployment)


def seed(text: str) -> int:
    """Parse a seed; argparse turns the error into a wrong call."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"a whole number of at least 0, got {value}")
    return value


def count(text: str) -> int:
    """Parse a number of things to show."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1, got {value}")
    return value


def port(text: str) -> int:
    """Parse a TCP port; 0 takes a free one."""
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"a whole number from 0 to 65535, got {value}")
    return value


def check_free(host: str, port: int) -> None:
    """Refuse an address that is taken before the work is done; the message names the options."""
    from turnout.gateway.address import check_address

    check_address(host, port, do="choose another --port (0 takes a free one) or --host")


def free_port(host: str, asked: int | None) -> int:
    """Return the port to serve on: the one that was asked for, else the first free one from 8100 on.

    Raises `ConfigError` where there is none, before the work is done.
    """
    for tried in range(_PORT, _PORT + _PORTS) if asked is None else ():
        try:
            check_free(host, tried)
        except ConfigError:
            continue
        return tried
    check_free(host, _PORT if asked is None else asked)
    return _PORT if asked is None else asked


def make_out(path: Path) -> Path:
    """Make the folder before the work is done; raises `OSError` where it cannot be."""
    path.mkdir(parents=True, exist_ok=True)
    return path


def check_out(path: Path, *, force: bool) -> Path:
    """Make the folder; refuse one that holds something else, unless forced."""
    if path.exists() and any(path.iterdir() if path.is_dir() else [path]) and not force:
        raise InputError(
            sentence(
                f"{str(path)!r} exists and is not empty",
                allowed="a new folder, or an empty one",
                do="choose another --out, or add --force",
            )
        )
    return make_out(path)
