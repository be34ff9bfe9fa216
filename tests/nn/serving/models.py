"""This module trains the small model that the tests of serving share, and listens to an engine."""

from __future__ import annotations

import queue
from functools import cache
from pathlib import Path

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from turnout.core.generation import Event, Failed, Finished, Generation, Piece
from turnout.nn.depth.checkpoint import save_depth
from turnout.nn.depth.drllm.router import DrLLMRouter
from turnout.nn.depth.routed import RoutedDepth
from turnout.nn.serving.engine import Engine
from turnout.nn.serving.local import Variant, save_variants
from turnout.nn.tiny import answer_batch, character_tokenizer, tiny_llama, train

VARIANTS = (
    Variant(model="tiny"),
    Variant(model="tiny", effort="none", knob=-1.0),
    Variant(model="tiny", effort="routed", knob=0.0),
)
PAIRS = [("a=", "b"), ("b=", "cc"), ("cc=", "aaaa"), ("ab=", "bcabcabc")]


@cache
def trained() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Return a model that knows `PAIRS` by heart, and its tokenizer."""
    tokenizer = character_tokenizer("abc=")
    model = tiny_llama(vocab_size=len(tokenizer), width=32, layers=3, positions=64)
    train(model, lambda: answer_batch(tokenizer, PAIRS), steps=120, lr=5e-3)
    return model, tokenizer


def save_folder(folder: Path) -> None:
    """Write the trained model with a depth router and three variants."""
    model, tokenizer = trained()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    routed = RoutedDepth(model=model, router=DrLLMRouter(layers=3, width=32))
    save_depth(folder, routed)
    routed.unwrap()
    save_variants(folder, VARIANTS)


class Ear:
    """Hears one answer."""

    def __init__(self) -> None:
        self.events: queue.Queue[Event] = queue.Queue()

    def __call__(self, event: Event) -> None:
        self.events.put(event)

    def pieces(self) -> tuple[list[str], Finished | Failed]:
        """Wait for the end; return the pieces and how it ended."""
        texts: list[str] = []
        while True:
            event = self.events.get(timeout=30)
            if not isinstance(event, Piece):
                return texts, event
            texts.append(event.text)


def ask(engine: Engine, prompt: str, **settings: object) -> tuple[str, Finished | Failed]:
    """Return an answer and how it ended."""
    ear = Ear()
    request = Generation(**{"prompt": prompt, "variant": "full", **settings})  # type: ignore[arg-type]
    engine.submit(request, ear)
    texts, end = ear.pieces()
    return "".join(texts), end
