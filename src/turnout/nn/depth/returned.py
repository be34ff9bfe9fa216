"""This module reads in a block's source whether it returns more than hidden states, before it is called."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from turnout.core.errors import InputError, sentence

SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def no_tensor(layer: int, block: nn.Module, got: str) -> InputError:
    """Build the error for a block whose output is no tensor."""
    return InputError(
        sentence(
            f"block {layer} ({type(block).__name__}): what it returns",
            allowed="a tensor of hidden states, as most decoders of transformers 5 do",
            got=got,
        )
    )


def check_returned(blocks: list[nn.Module]) -> None:
    """Raise `InputError` for a block whose every `return` is written as a tuple.

    A block whose source says nothing, or is not there, is refused when it is called.
    """
    for layer, block in enumerate(blocks):
        if "forward" not in vars(block) and returns_tuple(type(block).forward):
            raise no_tensor(layer, block, "tuple")


@functools.cache
def returns_tuple(forward: Callable[..., Any]) -> bool:
    """Return whether a function can return nothing but tuples, as far as its source shows."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(forward))))
    except (OSError, TypeError, SyntaxError):
        return False
    nodes = list(_own(tree.body[0]))
    given: dict[str, list[ast.expr]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    given.setdefault(target.id, []).append(node.value)
    returned = [node.value for node in nodes if isinstance(node, ast.Return)]

    def is_tuple(value: ast.expr | None) -> bool:
        known = given.get(value.id, []) if isinstance(value, ast.Name) else [value]
        return bool(known) and all(isinstance(one, ast.Tuple) for one in known)

    return bool(returned) and all(is_tuple(value) for value in returned)


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what belongs to a function itself, not to those inside it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, SCOPES):
            yield child
            yield from _own(child)
