from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils import ModelOutput

from tests.nn.serving.models import PAIRS, Ear, ask, trained
from turnout.core.errors import InputError, UnknownNameError
from turnout.core.generation import EngineFullError, Failed, Finished, Generation
from turnout.nn.serving.engine import Engine
from turnout.nn.serving.row import Row


@contextmanager
def serving(**settings: object) -> Iterator[Engine]:
    model, tokenizer = trained()
    engine = Engine(
        model=model,
        tokenizer=tokenizer,
        **{"variants": {"full": nullcontext}, **settings},  # type: ignore[arg-type]
    )
    try:
        yield engine
    finally:
        engine.close()


class Gate:
    """A variant whose forwards wait, so that a test decides what waits together."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.entered = threading.Event()
        self.sizes: list[int] = []

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self.entered.set()
        assert self.opened.wait(30)
        yield


def test_an_answer_comes_in_pieces_and_says_what_it_used() -> None:
    with serving() as engine:
        ear = Ear()
        engine.submit(Generation(prompt="ab=", variant="full"), ear)
        texts, end = ear.pieces()
    assert texts == list("bcabcabc")
    assert end == Finished(reason="stop", input_tokens=4, output_tokens=9)


def test_requests_that_wait_together_are_read_together_and_answered_as_if_alone() -> None:
    gate, seen = Gate(), []
    model, _ = trained()
    hook = model.register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    with serving(variants={"full": gate}) as engine:
        first, rest = Ear(), [Ear() for _ in PAIRS]
        engine.submit(Generation(prompt="a=", variant="full"), first)
        assert gate.entered.wait(30)
        for (prompt, _), ear in zip(PAIRS, rest, strict=True):
            engine.submit(Generation(prompt=prompt, variant="full"), ear)
        gate.opened.set()
        found = ["".join(ear.pieces()[0]) for ear in rest]
    hook.remove()
    assert found == [answer for _, answer in PAIRS]
    assert seen[0] == (1, 3)
    assert (4, 4) in seen
    # Rows leave the batch as they end: the longest answer is decoded alone at last.
    assert seen[-1] == (1, 1)
    assert max(rows for rows, tokens in seen if tokens == 1) <= 4


def test_no_more_rows_run_than_may_and_none_is_lost() -> None:
    """Requests that come one by one make groups of their own, each with a cache."""
    gate = Gate()
    with serving(variants={"full": gate}, max_batch=2, max_running=3) as engine:
        ears = [Ear() for _ in range(9)]
        most = []
        step = engine._step
        engine._step = lambda *args: (most.append(sum(len(g.rows) for _, g in engine._groups)), step(*args))  # type: ignore[method-assign,assignment,func-returns-value]
        gate.opened.set()
        for ear in ears:
            engine.submit(Generation(prompt="ab=", variant="full"), ear)
        found = {"".join(ear.pieces()[0]) for ear in ears}
    assert found == {"bcabcabc"}
    assert 1 <= max(most) <= 3


def test_variants_take_turns() -> None:
    order: list[str] = []

    def variant(name: str) -> object:
        @contextmanager
        def opened() -> Iterator[None]:
            order.append(name)
            yield

        return opened

    gate = Gate()
    variants = {"x": variant("x"), "y": variant("y"), "full": gate}
    with serving(variants=variants) as engine:
        ears = [Ear() for _ in range(3)]
        engine.submit(Generation(prompt="a=", variant="full"), ears[0])
        assert gate.entered.wait(30)
        engine.submit(Generation(prompt="ab=", variant="x"), ears[1])
        engine.submit(Generation(prompt="ab=", variant="y"), ears[2])
        gate.opened.set()
        assert all(isinstance(ear.pieces()[1], Finished) for ear in ears)
    middle = order[1:-1]
    assert all(a != b for a, b in itertools.pairwise(middle)), order


def test_a_cancelled_request_gets_no_more_tokens_and_frees_its_place() -> None:
    with serving() as engine:
        heard = []
        cancelled = threading.Event()

        def listener(event: object) -> None:
            heard.append(event)
            ticket.cancel()
            cancelled.set()

        gate = Gate()
        engine.variants["full"] = gate
        ticket = engine.submit(Generation(prompt="ab=", variant="full"), listener)
        gate.opened.set()
        assert cancelled.wait(30)
        assert ask(engine, "b=")[0] == "cc"
    assert len(heard) == 1
    assert not engine._groups


def test_a_limit_ends_with_length_and_a_stop_text_is_not_part_of_the_answer() -> None:
    with serving() as engine:
        assert ask(engine, "ab=", max_new_tokens=3) == (
            "bca",
            Finished(reason="length", input_tokens=4, output_tokens=3),
        )
        text, end = ask(engine, "ab=", stop=("abc",))
        assert (text, end) == ("bc", Finished(reason="stop", input_tokens=4, output_tokens=5))
        # A beginning of a stop text that comes to nothing is sent after all.
        assert ask(engine, "ab=", stop=("cc",))[0] == "bcabcabc"


def test_an_answer_that_ends_inside_a_character_is_what_the_tokenizer_says() -> None:
    # One token a byte; 256 is the end.
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({**{letter: i for i, letter in enumerate(letters)}, "<eos>": 256}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>")
    whole = inner.encode("a\u00e9\u5ae2").ids
    assert len(whole) == 6
    for cut in range(1, 7):
        for is_limit in (True, False):
            ear, tokens = Ear(), whole[:cut] + ([] if is_limit else [256])
            request = Generation(prompt="a", variant="full", max_new_tokens=cut if is_limit else 20)
            row = Row(request=request, ids=[0], tokenizer=tokenizer, ends=frozenset([256]), listener=ear)
            for token in tokens:
                row.take(token)
            texts, end = ear.pieces()
            assert isinstance(end, Finished)
            assert "".join(texts) == tokenizer.decode(whole[:cut])


def test_no_answer_outgrows_the_context() -> None:
    with serving() as engine:
        _, end = ask(engine, "a" * 58 + "=", max_new_tokens=500, temperature=5.0)
    assert isinstance(end, Finished)
    assert end.input_tokens + end.output_tokens <= 64


def test_a_temperature_draws_by_the_seed() -> None:
    with serving() as engine:
        drawn = [ask(engine, "ab=", temperature=8.0, seed=seed, max_new_tokens=12)[0] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("temperature", [5e-324, 1e-40, 1e-6])
def test_a_tiny_temperature_takes_the_likeliest(temperature: float) -> None:
    with serving() as engine:
        assert ask(engine, "ab=", temperature=temperature)[0] == "bcabcabc"


def test_scores_that_are_no_numbers_fail_their_row_and_not_those_read_with_it() -> None:
    gate = Gate()
    model, tokenizer = trained()
    bad = tokenizer.encode("cc=", add_special_tokens=False)

    def spoil(_model: object, _args: object, kwargs: dict, output: ModelOutput) -> None:
        ids_RT = kwargs["input_ids"]
        for row, ids in enumerate(ids_RT.tolist()):
            if ids[-len(bad) :] == bad:
                output.logits[row] = float("nan")

    hook = model.register_forward_hook(spoil, with_kwargs=True)
    with serving(variants={"full": gate}) as engine:
        first, rest = Ear(), [Ear() for _ in PAIRS]
        engine.submit(Generation(prompt="a=", variant="full"), first)
        assert gate.entered.wait(30)
        for (prompt, _), ear in zip(PAIRS, rest, strict=True):
            engine.submit(Generation(prompt=prompt, variant="full", temperature=1e-40), ear)
        gate.opened.set()
        found = [ear.pieces() for ear in rest]
        with pytest.raises(ArithmeticError, match="finite numbers; got: nan"):
            engine.run_alone(Generation(prompt="cc=", variant="full"), Ear())
    hook.remove()
    for (prompt, answer), (texts, end) in zip(PAIRS, found, strict=True):
        if prompt == "cc=":
            assert isinstance(end, Failed)
            assert "the scores of the next token" in end.message
        else:
            assert "".join(texts) == answer


def test_a_failure_fails_its_own_rows_only(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> AbstractContextManager[None]:
        raise RuntimeError("no such layer")

    with serving(variants={"full": nullcontext, "broken": broken}) as engine:
        _, end = ask(engine, "a=", variant="broken")
        assert end == Failed(message="the local model failed: RuntimeError: no such layer")
        assert ask(engine, "a=")[0] == "b"
    assert "failed on 1 requests" in caplog.text


def test_a_full_queue_a_wrong_variant_and_a_wrong_prompt_are_refused() -> None:
    gate = Gate()
    with serving(variants={"full": gate}, max_waiting=1) as engine:
        with pytest.raises(UnknownNameError, match="no variant 'ful'"):
            engine.submit(Generation(prompt="a=", variant="ful"), Ear())
        with pytest.raises(InputError, match="1 to 63 tokens; got: 0"):
            engine.submit(Generation(prompt="", variant="full"), Ear())
        with pytest.raises(InputError, match="1 to 63 tokens"):
            engine.submit(Generation(prompt="a" * 70, variant="full"), Ear())
        engine.submit(Generation(prompt="a=", variant="full"), Ear())
        assert gate.entered.wait(30)
        engine.submit(Generation(prompt="a=", variant="full"), Ear())
        with pytest.raises(EngineFullError, match="1 waiting"):
            engine.submit(Generation(prompt="a=", variant="full"), Ear())
        gate.opened.set()


def test_closing_fails_what_runs_and_waits() -> None:
    gate = Gate()
    model, tokenizer = trained()
    engine = Engine(model=model, tokenizer=tokenizer, variants={"full": gate})
    ears = [Ear(), Ear()]
    engine.submit(Generation(prompt="ab=", variant="full"), ears[0])
    assert gate.entered.wait(30)
    engine.submit(Generation(prompt="ab=", variant="full"), ears[1])
    closer = threading.Thread(target=engine.close)
    closer.start()
    gate.opened.set()
    ends = [ear.pieces()[1] for ear in ears]
    closer.join(30)
    assert ends == [Failed(message="the local model was closed")] * 2
    with pytest.raises(InputError, match="closed"):
        engine.submit(Generation(prompt="a=", variant="full"), Ear())


def test_serving_changes_nothing_in_the_model() -> None:
    model, _ = trained()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with serving() as engine:
        ask(engine, "ab=")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
