"""This module is `turnout record`: run one's own prompts over a pool, score the answers, get a table."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from turnout.cli.console import progress_bar, show, show_json, tell
from turnout.cli.options import add_many, count, seed
from turnout.core.candidate import PriceCard
from turnout.core.errors import InputError, sentence
from turnout.core.grading import GRADES

if TYPE_CHECKING:
    from turnout.core.outcomes import OutcomeTable
    from turnout.recording.outlook import Outlook
    from turnout.recording.pool import Member
    from turnout.recording.run import Done
    from turnout.recording.scoring import Scorer
    from turnout.recording.table import Line

_PROGRAM, _JUDGE = "program", "judge"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("prompts", help="a .jsonl, .json, .csv or .parquet file, or the name of a table")
    parser.add_argument("--out", type=Path, required=True, help="folder for the table and the journal")
    _add_pool(parser)
    _add_scoring(parser)
    asking = parser.add_argument_group("how prompts are asked")
    asking.add_argument(
        "--samples", type=count, metavar="N", default=1, help="answers of each candidate (default 1)"
    )
    asking.add_argument("--system", metavar="TEXT", help="a system message before every prompt")
    asking.add_argument("--temperature", type=float, metavar="T", help="(default: the provider's own)")
    asking.add_argument(
        "--max-output-tokens", type=count, metavar="N", default=1024, help="of an answer (default 1024)"
    )
    asking.add_argument("--text-column", metavar="NAME", help="column of the text (default: found by name)")
    asking.add_argument(
        "--reference-column", metavar="NAME", help="column of the reference (default: found by name)"
    )
    asking.add_argument("--limit", type=count, metavar="N", help="only N prompts, drawn by --seed")
    asking.add_argument("--seed", type=seed, default=0, help="seed of the order of prompts (default 0)")
    limits = parser.add_argument_group("how far a run goes")
    limits.add_argument("--dry-run", action="store_true", help="say what it may cost at most, and ask nobody")
    limits.add_argument(
        "--cap", type=float, metavar="USD", help="spend at most this, earlier runs included (default: no cap)"
    )
    limits.add_argument(
        "--allow-unknown-prices", action="store_true", help="ask whom the cap cannot count, too"
    )
    limits.add_argument("--concurrency", type=count, metavar="N", default=8, help="calls at once (default 8)")
    limits.add_argument(
        "--retries", type=int, metavar="N", default=4, help="of a call that may be tried again (default 4)"
    )
    limits.add_argument(
        "--max-wait-s",
        type=float,
        metavar="S",
        default=120.0,
        help="longest wait for a rate limit (default 120)",
    )
    limits.add_argument(
        "--timeout-s",
        type=float,
        metavar="S",
        default=300.0,
        help="seconds that one call may take (default 300)",
    )


def _add_pool(parser: argparse.ArgumentParser) -> None:
    pool = parser.add_argument_group("who is asked")
    where = pool.add_mutually_exclusive_group(required=True)
    where.add_argument("--config", type=Path, help="settings of a gateway: its candidates")
    where.add_argument(
        "--base-url", metavar="URL", help="an OpenAI-compatible server, up to and including /v1"
    )
    add_many(
        pool, "--model", "NAME", "a candidate, such as gpt-5 or gpt-5[effort=low]; default: all of --config"
    )
    pool.add_argument("--api-key-env", metavar="NAME", help="environment variable with the key of --base-url")
    add_many(pool, "--price", "MODEL=INPUT/OUTPUT", "USD per million input and output tokens")
    pool.add_argument("--prices", type=Path, metavar="FILE", help="price file, as in docs/config.md")


def _add_scoring(parser: argparse.ArgumentParser) -> None:
    scoring = parser.add_argument_group("how answers are scored")
    scoring.add_argument(
        "--score",
        choices=(*GRADES, _PROGRAM, _JUDGE),
        required=True,
        help="a rule beside the reference, a program, or a model as judge",
    )
    scoring.add_argument("--program", metavar="COMMAND", help="reads JSON, prints a number from 0 to 1")
    scoring.add_argument(
        "--program-timeout-s",
        type=float,
        metavar="S",
        default=30.0,
        help="seconds until it is killed (default 30)",
    )
    scoring.add_argument("--judge", metavar="NAME", help="a model of the pool, or of --judge-base-url")
    scoring.add_argument("--judge-base-url", metavar="URL", help="server of the judge (default: the pool's)")
    scoring.add_argument("--judge-api-key-env", metavar="NAME", help="environment variable with its key")
    scoring.add_argument(
        "--judge-prompt", type=Path, metavar="FILE", help="with {question}, {answer}, {reference}"
    )
    scoring.add_argument("--judge-temperature", type=float, metavar="T", help="(default: the provider's own)")


def run(options: argparse.Namespace) -> int:
    """Ask and score what is missing, write the table, and say what it holds."""
    from turnout.core.rng import make_rng
    from turnout.recording.asking import Asking
    from turnout.recording.outlook import foresee
    from turnout.recording.prompts import read_prompts
    from turnout.recording.run import Limits
    from turnout.recording.run import run as record
    from turnout.recording.table import summary_of, table_of

    prompts = read_prompts(
        options.prompts, text_column=options.text_column, reference_column=options.reference_column
    )
    if options.limit is not None and options.limit < len(prompts):
        drawn = make_rng(options.seed, "record", "limit").permutation(len(prompts))[: options.limit]
        prompts = tuple(prompts[i] for i in sorted(drawn))
    members, judge = _asked(options)
    scorer = _scorer(options, judge)
    limits = Limits(
        **{
            name: getattr(options, name)
            for name in (
                "samples",
                "allow_unknown_prices",
                "concurrency",
                "retries",
                "max_wait_s",
                "timeout_s",
            )
        },
        cap_usd=options.cap,
    )
    asking = Asking(
        max_output_tokens=options.max_output_tokens, temperature=options.temperature, system=options.system
    )
    if options.dry_run:
        _foretell(
            options, foresee(prompts, members, folder=options.out, asking=asking, samples=options.samples)
        )
        return 0
    with progress_bar(quiet=options.json) as progress:
        done = record(
            prompts,
            members,
            scorer,
            folder=options.out,
            asking=asking,
            limits=limits,
            seed=options.seed,
            progress=progress,
        )
    table = table_of(done, prompts, members)
    table.save(options.out)
    lines = summary_of(table)
    _tell(options, done, table, lines)
    _check_scored(options.out, lines)
    return 0


def _check_scored(out: Path, lines: Sequence[Line]) -> None:
    """Raise `InputError` where no answer was scored: whatever comes next must not learn from that."""
    if all(line.quality is None for line in lines):
        raise InputError(
            sentence(
                f"no answer was scored; the answers are in {str(out)!r}",
                allowed="at least one answer that --score could judge",
                do="look at the column score_error, mend the scoring, and run again: nobody is asked twice",
            )
        )


def _asked(options: argparse.Namespace) -> tuple[tuple[Member, ...], Member | None]:
    """Return the pool and the judge, at the prices of the options."""
    from turnout.recording.pool import with_prices

    if options.config is not None and options.api_key_env is not None:
        raise _useless("--api-key-env", "--base-url")
    pool = _members(options, options.model)
    judge = _judge(options)
    priced = with_prices([*pool, *judge], cards_of(options.price), options.prices)
    return priced[: len(pool)], priced[-1] if judge else None


def _members(options: argparse.Namespace, names: Sequence[str]) -> tuple[Member, ...]:
    from turnout.gateway import load_config
    from turnout.recording.pool import members_of_config, members_of_url

    if options.config is not None:
        return members_of_config(load_config(options.config), names)
    return members_of_url(
        options.base_url, names, api_key_env=options.api_key_env, timeout_s=options.timeout_s
    )


def _judge(options: argparse.Namespace) -> tuple[Member, ...]:
    from turnout.recording.pool import members_of_url

    if options.score != _JUDGE:
        for name in ("judge", "judge_base_url", "judge_api_key_env", "judge_prompt", "judge_temperature"):
            if getattr(options, name) is not None:
                raise _useless(f"--{name.replace('_', '-')}", "--score judge")
        return ()
    if options.judge is None:
        raise InputError(sentence("--score judge without a judge", do="add --judge NAME"))
    if options.judge_base_url is None:
        return _members(options, [options.judge])
    return members_of_url(
        options.judge_base_url,
        [options.judge],
        api_key_env=options.judge_api_key_env,
        timeout_s=options.timeout_s,
        provider_name="judge",
    )


def _scorer(options: argparse.Namespace, judge: Member | None) -> Scorer:
    from turnout.recording.asking import Asking
    from turnout.recording.judging import TEMPLATE, JudgeScorer
    from turnout.recording.scoring import ProgramScorer, ReferenceScorer

    if options.program is not None and options.score != _PROGRAM:
        raise _useless("--program", "--score program")
    if judge is not None:
        template = TEMPLATE if options.judge_prompt is None else _template(options.judge_prompt)
        return JudgeScorer(judge, template=template, asking=Asking(temperature=options.judge_temperature))
    if options.score == _PROGRAM:
        if options.program is None:
            raise InputError(sentence("--score program without a program", do="add --program COMMAND"))
        return ProgramScorer(options.program, timeout_s=options.program_timeout_s)
    return ReferenceScorer(options.score)


def _template(path: Path) -> str:
    from turnout.cli.texts import decode

    return decode(path.read_bytes(), f"--judge-prompt {str(path)!r}")


def _useless(option: str, wanted: str) -> InputError:
    return InputError(sentence(f"{option} without {wanted}", do="add the one, or leave out the other"))


def cards_of(texts: Sequence[str]) -> Mapping[str, PriceCard]:
    """Parse `MODEL=INPUT/OUTPUT`; raises `InputError`."""
    cards = {}
    for text in texts:
        name, _, tariff = text.rpartition("=")
        try:
            tokens_in, tokens_out = map(float, tariff.split("/"))
            cards[name] = PriceCard(input_usd_per_mtok=tokens_in, output_usd_per_mtok=tokens_out)
        except ValueError as error:
            allowed = "MODEL=INPUT/OUTPUT, USD per million tokens, such as small=0.1/0.4"
            raise InputError(sentence("--price is wrong", allowed=allowed, got=text)) from error
    return cards


def _foretell(options: argparse.Namespace, found: Outlook) -> None:
    if options.json:
        show_json(asdict(found))
        return
    most = "an unknown sum" if found.most_usd is None else f"{found.most_usd:.6g} usd"
    show(f"{found.calls:,} calls, at most {most}; {found.answered:,} answers are recorded already")
    if options.score == _JUDGE:
        show("the judge comes on top")


def _tell(options: argparse.Namespace, done: Done, table: OutcomeTable, lines: Sequence[Line]) -> None:
    missing = len(done.cells) - table.num_rows
    notes = _notes(done, lines, missing)
    if options.judge in {line.candidate for line in lines}:
        notes.append(f"{options.judge} judged its own answers, too; a judge from outside the pool is fairer")
    if options.json:
        show_json(
            {
                "table": str(options.out),
                "prompts": len(table.queries),
                "rows": table.num_rows,
                "missing": missing,
                "spent_usd": done.purse.spent_usd,
                "is_capped": done.is_capped,
                "given_up": done.given_up,
                "candidates": [asdict(line) for line in lines],
                "notes": notes,
            }
        )
        return
    heads = f"{'answers':>8} {'failed':>7} {'unscored':>9} {'quality':>8} {'usd/1k':>9} {'latency':>8}"
    show(f"{'candidate':<36} {heads}")
    for line in lines:
        show(
            f"{line.candidate[:36]:<36} {line.answers:>8} {line.failures:>7} {line.unscored:>9} "
            f"{_number(line.quality, '.3f'):>8} {_number(line.usd_per_1k, '.4g'):>9} "
            f"{_number(line.latency_s, '.2f'):>8}"
        )
    show(f"spent       {done.purse.spent_usd:.6g} usd, at most (this run and earlier ones into this folder)")
    show(f"saved       {options.out}")
    for note in notes:
        tell(f"note: {note}")


def _notes(done: Done, lines: Sequence[Line], missing: int) -> list[str]:
    notes = [f"{name} failed again and again and was left alone" for name in done.given_up]
    notes += [f"{name} charged more than its token budget allows" for name in done.over]
    if done.is_capped:
        notes.append(f"the cap ended the run: {missing} answers are missing; run again with a higher --cap")
    elif missing:
        notes.append(f"{missing} answers are missing; run again to ask for them")
    if done.state.lost:
        cut = f"{done.state.lost} calls of earlier runs were cut"
        notes.append(f"{cut} and count at the most they may have cost")
    for line in lines:
        if failed := line.failures - line.empty:
            notes.append(f"{failed} calls of {line.candidate} failed; run again to try those once more")
        if line.empty:
            notes.append(f"{line.empty} answers of {line.candidate} held no text and are not asked for again")
        if line.unscored:
            notes.append(
                f"{line.unscored} answers of {line.candidate} could not be scored (column score_error)"
            )
        if line.cut > line.answers // 20:
            notes.append(f"{line.cut} answers of {line.candidate} ended at the token budget")
    return notes


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
