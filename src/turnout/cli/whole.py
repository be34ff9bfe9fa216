"""This module writes the folder of a command whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from turnout.cli.options import check_out


@contextmanager
def whole_out(path: Path, *, force: bool) -> Iterator[Path]:
    """Give a folder beside `path` to write into, which takes its place when all went well.

    Where something fails nothing is left, neither it nor folders that were made above it; with `force`, files
    that stood in `path` stay as they were. Raises `InputError` where `path` holds something and is not
    forced, and `OSError` where the folder cannot be made.
    """
    target = path.resolve()
    made = [folder for folder in (target, *target.parents) if not folder.exists()]
    check_out(path, force=force)
    if target in made:
        target.rmdir()
    part = target.with_name(f".{target.name}.part")
    # One that a killed process left.
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir()
        yield part
        if target.exists():
            for file in part.iterdir():
                file.replace(target / file.name)
            part.rmdir()
        else:
            part.rename(target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        with suppress(OSError):
            for folder in made[1:]:
                folder.rmdir()
        raise
