"""This module serves a `transformers` model to many askers: waiting requests are batched, answers stream.

One thread owns the model. Requests that wait for the same variant are read together; groups of different
variants take turns, a token each, so that a long answer holds up nobody.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import final

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from turnout.core.errors import InputError, UnknownNameError, did_you_mean, sentence
from turnout.core.generation import EngineFullError, Generation, Listener, Ticket
from turnout.core.validation import check_count
from turnout.nn.prompts import end_tokens, padding, prompt_ids
from turnout.nn.serving.group import Group, can_pad
from turnout.nn.serving.row import Row

logger = logging.getLogger(__name__)

Variant = Callable[[], AbstractContextManager[object]]
"""Opens the way a variant runs the model; entered around every forward."""


@final
class Engine:
    """A model, its variants, and the thread that runs them.

    Parameters
    ----------
    model, tokenizer:
        A causal model of `transformers` and its tokenizer.
    variants:
        The ways to run it, by name.
    max_batch:
        Most rows that are read together.
    max_waiting:
        Most requests that wait; one more is refused with `EngineFullError`.
    max_running:
        Most rows that are answered at a time, in all groups: each keeps a cache. Others wait for their end.
    """

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        variants: Mapping[str, Variant],
        max_batch: int = 16,
        max_waiting: int = 256,
        max_running: int = 64,
    ) -> None:
        if not variants:
            raise InputError(sentence("Engine.variants", allowed="at least one", got="none"))
        self.model, self.tokenizer = model.eval(), tokenizer
        self.variants: dict[str, Variant] = dict(variants)
        self.max_batch = check_count("Engine.max_batch", max_batch)
        self.max_waiting = check_count("Engine.max_waiting", max_waiting)
        self.max_running = check_count("Engine.max_running", max_running)
        self.context_limit: int | None = getattr(model.config, "max_position_embeddings", None)
        self.context_tokens: int = self.context_limit or 2**31
        self._can_pad = can_pad(model)
        self._ends = end_tokens(model, tokenizer)
        self._pad = padding(tokenizer)
        self._waiting: deque[Row] = deque()
        self._groups: list[tuple[str, Group]] = []
        self._wake = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="turnout-local-model", daemon=True)
        self._thread.start()

    def submit(self, request: Generation, listener: Listener) -> Ticket:
        """Queue a request; `listener` hears its events from the engine's thread.

        Raises `UnknownNameError` for a variant that there is not, `InputError` for a prompt that is empty or
        leaves no room for an answer, and `EngineFullError`.
        """
        row = self._row(request, listener)
        with self._wake:
            if self._is_closed:
                raise InputError(sentence("the local model is closed", do="start it again"))
            if len(self._waiting) >= self.max_waiting:
                raise EngineFullError(
                    sentence("the local model's queue is full", allowed=f"{self.max_waiting} waiting")
                )
            self._waiting.append(row)
            self._wake.notify()
        return row

    def run_alone(self, request: Generation, listener: Listener) -> None:
        """Answer in this thread, alone; for measuring while nobody else asks.

        Raises as `submit`, and what goes wrong while it answers.
        """
        row = self._row(request, listener)
        group = Group(model=self.model, rows=[row], pad=self._pad, has_padding=self._can_pad)
        while not group.is_over:
            with self.variants[request.variant]():
                group.step()
            group.leave()
        if row.error is not None:
            raise row.error

    def close(self) -> None:
        """Fail what waits and runs, and end the thread."""
        with self._wake:
            self._is_closed = True
            self._wake.notify()
        self._thread.join()

    def _row(self, request: Generation, listener: Listener) -> Row:
        if request.variant not in self.variants:
            raise UnknownNameError(
                sentence(
                    f"the local model has no variant {request.variant!r}",
                    do=did_you_mean(request.variant, self.variants),
                )
            )
        ids = self.encode(request.prompt)
        if not ids or len(ids) >= self.context_tokens:
            raise InputError(
                sentence("the prompt", allowed=f"1 to {self.context_tokens - 1} tokens", got=len(ids))
            )
        room = self.context_tokens - len(ids)
        if request.max_new_tokens > room:
            request = replace(request, max_new_tokens=room)
        return Row(request=request, ids=ids, tokenizer=self.tokenizer, ends=self._ends, listener=listener)

    def encode(self, prompt: str) -> list[int]:
        """Return the token ids of a prompt, as the model's tokenizer writes them.

        A chat template says itself which special tokens a prompt has; without one the tokenizer adds its own.
        """
        if not prompt:
            return []
        return prompt_ids(self.tokenizer, prompt, is_rendered=self.tokenizer.chat_template is not None)

    def _work(self) -> None:
        while True:
            with self._wake:
                while not (self._waiting or self._groups or self._is_closed):
                    self._wake.wait()
                if self._is_closed:
                    break
                batch = self._next_batch()
            if batch:
                group = Group(model=self.model, rows=batch, pad=self._pad, has_padding=self._can_pad)
                self._groups.append((batch[0].request.variant, group))
            for variant, group in self._groups:
                self._step(variant, group)
            self._groups = [item for item in self._groups if not item[1].is_over]
        self._fail_all()

    def _next_batch(self) -> list[Row]:
        """Take the oldest waiting request and those behind it that ask for the same variant."""
        alive = [row for row in self._waiting if not row.is_cancelled]
        room = self.max_running - sum(len(group.rows) for _, group in self._groups)
        batch = [row for row in alive if self._go_together(alive[0], row)][
            : min(self.max_batch, max(room, 0))
        ]
        taken = {id(row) for row in batch}
        self._waiting = deque(row for row in alive if id(row) not in taken)
        return batch

    def _go_together(self, first: Row, row: Row) -> bool:
        is_same_variant = row.request.variant == first.request.variant
        return is_same_variant and (self._can_pad or len(row.ids) == len(first.ids))

    def _step(self, variant: str, group: Group) -> None:
        try:
            with self.variants[variant]():
                group.step()
            group.leave()
        except Exception as error:  # The edge: these rows fail, the others go on.
            logger.exception("the local model failed on %d requests", len(group.rows))
            for row in group.rows:
                row.break_off(error)
            group.rows = []

    def _fail_all(self) -> None:
        rows = [*self._waiting, *(row for _, group in self._groups for row in group.rows)]
        for row in rows:
            row.fail("the local model was closed")
