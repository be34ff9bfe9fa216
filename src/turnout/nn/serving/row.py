"""This module turns the tokens of one answer into text, piece by piece."""

from __future__ import annotations

import logging
import threading

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from turnout.core.errors import sentence
from turnout.core.generation import Failed, Finished, Generation, Listener, Piece

logger = logging.getLogger(__name__)

_UNFINISHED = "\ufffd"
"""What a tokenizer shows for a character whose last bytes are still to come."""


class Row:
    """One request while it is served.

    Parameters
    ----------
    request, ids:
        What is asked, and its prompt as token ids.
    tokenizer:
        Makes text of tokens.
    ends:
        Ids of the end tokens.
    listener:
        Hears the events.
    """

    def __init__(
        self,
        *,
        request: Generation,
        ids: list[int],
        tokenizer: PreTrainedTokenizerBase,
        ends: frozenset[int],
        listener: Listener,
    ) -> None:
        self.request = request
        self.ids = ids
        self.output: list[int] = []
        self.is_over = False
        self.error: Exception | None = None
        self._tokenizer = tokenizer
        self._ends = ends
        self._listener = listener
        self._text = ""
        self._sent = 0
        self._start = 0
        self._end = 0
        self._cancelled = threading.Event()
        self._generator = torch.Generator().manual_seed(request.seed)

    def cancel(self) -> None:
        """Ask for no more tokens; the row leaves its batch before the next one. Safe from any thread."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether the asker has gone."""
        return self._cancelled.is_set()

    def pick(self, logits_V: Tensor) -> int:
        """Return the next token: the likeliest, or one drawn at the request's temperature.

        Raises `ArithmeticError` where the largest logit is no finite number.
        """
        logits_V = logits_V.cpu().double()
        top = logits_V.max()
        if not top.isfinite():
            raise ArithmeticError(
                sentence("the scores of the next token", allowed="finite numbers", got=float(top))
            )
        if self.request.temperature == 0:
            return int(logits_V.argmax())
        # The largest is 0 before the division, so that no temperature makes it overflow.
        weights_V = torch.softmax((logits_V - top) / self.request.temperature, dim=-1)
        return int(torch.multinomial(weights_V.float(), 1, generator=self._generator))

    def advance(self, logits_V: Tensor) -> int:
        """Pick a token and take it; what goes wrong fails this row alone, and its token means nothing."""
        try:
            token = self.pick(logits_V)
            self.take(token)
        except Exception as error:  # The edge: the rows beside this one go on.
            logger.exception("the local model failed on 1 request")
            self.break_off(error)
            return self.ids[-1]
        return token

    def take(self, token: int) -> None:
        """Add a token; tell the listener what text is sure by now, and the end if this is it."""
        self.output.append(token)
        is_end = token in self._ends
        is_last = is_end or len(self.output) >= self.request.max_new_tokens
        self._read(self.output[:-1] if is_end else self.output, is_last=is_last)
        cut = min((at for stop in self.request.stop if (at := self._text.find(stop)) >= 0), default=None)
        if cut is not None:
            self._text = self._text[:cut]
        if cut is not None or is_last:
            self._finish("length" if cut is None and not is_end else "stop")
        else:
            self._send(len(self._text) - self._begun())

    def break_off(self, error: Exception) -> None:
        """End without an answer, because of an error."""
        self.error = error
        self.fail(f"the local model failed: {type(error).__name__}: {error}")

    def fail(self, message: str) -> None:
        """End without an answer."""
        self.is_over = True
        self._listener(Failed(message=message))

    def _read(self, output: list[int], *, is_last: bool) -> None:
        """Add to the text what the newest tokens of the output say, once their last character is whole.

        Only the tokens since the last whole character but one are decoded, with those before them as context,
        because a token's text may depend on the one before it (a leading space).
        """
        known = self._decode(output[self._start : self._end])
        now = self._decode(output[self._start :])
        if is_last or not now.endswith(_UNFINISHED):
            self._text += now[len(known) :]
            self._start, self._end = self._end, len(output)

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def _begun(self) -> int:
        """Return how many last characters may turn out to be the beginning of a stop text."""
        return max(
            (n for stop in self.request.stop for n in range(1, len(stop)) if self._text.endswith(stop[:n])),
            default=0,
        )

    def _send(self, end: int) -> None:
        if end > self._sent:
            self._listener(Piece(text=self._text[self._sent : end]))
            self._sent = end

    def _finish(self, reason: str) -> None:
        self._send(len(self._text))
        self.is_over = True
        self._listener(Finished(reason=reason, input_tokens=len(self.ids), output_tokens=len(self.output)))
