"""This module reads the texts of `turnout route`: arguments, a file, or standard input; never half of one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from turnout.core.errors import InputError, sentence

_AS_UTF8 = "save it as UTF-8, for example: iconv -f latin1 -t utf-8"


def read_texts(options: argparse.Namespace) -> list[str]:
    """Return the texts to decide for: the arguments, the lines of `--file`, or standard input as one text.

    Raises `InputError` for bytes that are no text in UTF-8, and where there is nothing to decide for: a
    replaced character or an empty text would be decided on silently, and wrongly.
    """
    if options.file is not None and options.text:
        raise InputError(
            sentence(
                "texts were given as arguments and with --file",
                allowed="one of the two",
                got=f"{len(options.text)} texts and --file {str(options.file)!r}",
                do="leave one out",
            )
        )
    if options.file is not None:
        where = f"--file {str(options.file)!r}"
        lines = [line for line in decode(_bytes_of(options.file), where).splitlines() if line.strip()]
        if not lines:
            raise _empty(where, "a file with one text a line")
        return lines
    if options.text:
        return [_argument(text, number) for number, text in enumerate(options.text, start=1)]
    text = decode(sys.stdin.buffer.read(), "standard input")
    if not text.strip():
        raise _empty("standard input", "a text")
    return [text]


def decode(data: bytes, where: str) -> str:
    """Return the text; raises `InputError` that names the first byte that is no part of one."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        offset = error.start + len(data) - len(error.object)
        raise InputError(
            sentence(
                f"{where} is not UTF-8 at byte offset {offset}",
                allowed="text in UTF-8",
                got=f"0x{data[offset]:02x}",
                do=_AS_UTF8,
            )
        ) from error
    if "\0" in text:
        raise InputError(
            sentence(
                f"{where} is binary: it holds a zero byte at offset {data.index(0)}",
                allowed="text in UTF-8",
                do="give the text itself",
            )
        )
    return text


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            sentence(
                f"--file {str(path)!r} cannot be read",
                allowed="a file with one text a line",
                got=error.strerror,
                do="check the path",
            )
        ) from error


def _argument(text: str, number: int) -> str:
    """Return an argument as it was typed; the interpreter hides bytes that are no text in half surrogates."""
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        data = text.encode("utf-8", "surrogatepass")
    found = decode(data, f"text {number}")
    if not found.strip():
        raise _empty(f"text {number}", "a text with a character that is not blank")
    return found


def _empty(where: str, allowed: str) -> InputError:
    return InputError(
        sentence(f"{where} holds no text", allowed=allowed, do="give the question that shall be decided on")
    )
