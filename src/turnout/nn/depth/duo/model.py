"""This module puts big, small and skip modules into a `transformers` decoder, in place and reversibly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, final

import torch
from torch import nn
from transformers import Cache, PreTrainedModel

from turnout.core.errors import InputError, sentence
from turnout.core.validation import check_count, check_number
from turnout.nn.caches import CacheGuard, Stamp
from turnout.nn.decoder import decoder_blocks
from turnout.nn.depth.duo.choices import check_choice, num_choices
from turnout.nn.depth.duo.feedforward import DuoFeedForward
from turnout.nn.depth.duo.flow import Flow, Record
from turnout.nn.depth.duo.narrow import narrow
from turnout.nn.depth.duo.router import DuoRouter
from turnout.nn.one_thread import OneThread

FRESH = "start from an empty cache, or let `adopt` take it on: its tokens keep what they took"


@final
class DuoModel:
    """A decoder whose feed-forwards come in two sizes, chosen per token and layer.

    Source: S22, Duo-LLM (arXiv 2410.10846), sections 3.1 to 3.3. Differs: any decoder whose blocks hold a
    plain feed-forward as `mlp`, wrapped in place; `model` stays the same object, so `generate`, caches and
    beams work. Without a context, and until `is_routed` is set, all layers are big: the base bit for bit.
    A cache goes on under the choice, or the routers, that it was filled under; under another it is refused,
    unless `adopt` takes it on.

    A backward pass under gradient checkpointing runs the layers again: keep it inside the context. Contexts
    and forwards belong to one thread at a time.

    Parameters
    ----------
    model
        The base; changed in place until `unwrap`.
    divisor
        By how much the small modules' inner width is smaller; 16 in the paper.
    allow_skip
        Whether a token may also take nothing.
    bias
        Whether routers have a bias, which the paper's do not.
    seed
        Of the new weights.

    Raises `InputError` for a family whose blocks have no plain `mlp` and for a model wrapped before.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        divisor: int = 16,
        allow_skip: bool = False,
        bias: bool = False,
        seed: int = 0,
    ) -> None:
        check_count("DuoModel: divisor", divisor)
        self.model, self.divisor, self.allow_skip, self.bias, self.seed = (
            model,
            divisor,
            allow_skip,
            bias,
            seed,
        )
        owner, name = decoder_blocks(model)
        self._blocks: list[nn.Module] = list(getattr(owner, name))
        self.flow = Flow()
        self._owner = owner
        self._guard = CacheGuard(now=self._stamp, do=FRESH)
        self._hooks: list[Any] = []
        self._thread = OneThread("DuoModel")
        self.layers: list[DuoFeedForward] = self._make()
        self._wrap()

    @property
    def num_layers(self) -> int:
        """L, the number of blocks."""
        return len(self._blocks)

    @property
    def cost_A(self) -> tuple[float, ...]:
        """What each choice costs of a budget: big 1, the others nothing."""
        return (0.0, 1.0, 0.0) if self.allow_skip else (0.0, 1.0)

    @property
    def is_routed(self) -> bool:
        """Whether the routers decide where no context says otherwise; `train_routers` sets it."""
        return self.flow.is_routed

    @is_routed.setter
    def is_routed(self, value: bool) -> None:
        self.flow.is_routed = value

    def small_parameters(self) -> list[nn.Parameter]:
        """Return the weights of the small modules."""
        return [p for layer in self.layers for p in layer.small.parameters()]

    def router_parameters(self) -> list[nn.Parameter]:
        """Return the weights of the routers that may learn."""
        return [p for layer in self.layers for p in layer.router.parameters() if p.requires_grad]

    def forced(self, choice: object, *, beams: int = 1) -> AbstractContextManager[None]:
        """Return a context in which the layers obey `choice`: (L,), (B, L) or (B, T, L), see `check_choice`.

        `beams` rows of the model follow each row of the choice, as in `generate(num_beams=beams)`.
        """
        checked = check_choice(choice, num_layers=self.num_layers, allow_skip=self.allow_skip)
        return self._during(choice=checked, beams=check_count("duo: beams", beams))

    def random(self, generator: torch.Generator) -> AbstractContextManager[None]:
        """Return a context in which every token draws every layer's choice uniformly from a CPU generator."""
        if any(getattr(part, "gradient_checkpointing", False) for part in self.model.modules()):
            raise InputError(
                sentence(
                    "duo: under gradient checkpointing the backward pass would draw other choices",
                    do="call gradient_checkpointing_disable() first",
                )
            )
        return self._during(generator=generator, choice=None)

    def soft(self, temperature: float = 1.0) -> AbstractContextManager[None]:
        """Return a context in which layers mix all modules by the routers' softmax at `temperature`."""
        check_number("duo: temperature", temperature, low=0.0, allow_low=False)
        return self._during(temperature=temperature, choice=None, generator=None)

    def routed(self) -> AbstractContextManager[None]:
        """Return a context in which the routers' likeliest choices are executed."""
        return self._during(is_routed=True, choice=None, generator=None, temperature=None)

    def slow(self) -> AbstractContextManager[None]:
        """Return a context in which the executor's slow twin runs; for tests."""
        return self._during(is_slow=True)

    @contextmanager
    def recording(self) -> Iterator[Record]:
        """Open a record of what the layers choose."""
        record = Record()
        with self.recording_to(record):
            yield record

    def recording_to(self, record: Record) -> AbstractContextManager[None]:
        """Return a context in which a record of one's own goes on."""
        return self._during(record=record)

    def adopt(self, cache: Cache) -> None:
        """Let a cache go on under what the layers obey now, although its tokens were routed otherwise."""
        self._guard.adopt(cache)

    @contextmanager
    def bare(self) -> Iterator[PreTrainedModel]:
        """Open the base model as it is without this object's modules, then wrap it again."""
        self.unwrap()
        try:
            yield self.model
        finally:
            self._wrap()

    def unwrap(self) -> PreTrainedModel:
        """Put the base's own feed-forwards back and return the model; calling it twice is no error."""
        for hook in self._hooks:
            hook.remove()
        self.model.__dict__.pop("save_pretrained", None)
        for block, layer in zip(self._blocks, self.layers, strict=True):
            block.mlp = layer.big
        return self.model

    def is_wrapped(self) -> bool:
        """Whether the model runs through this object's modules now."""
        return all(b.mlp is layer for b, layer in zip(self._blocks, self.layers, strict=True))

    def _wrap(self) -> None:
        for block, layer in zip(self._blocks, self.layers, strict=True):
            block.mlp = layer
        # Whoever saves the model, a trainer's checkpoints among them, means the base under its own names.
        self.model.save_pretrained = self._save_base
        note = self._owner.register_forward_pre_hook(self._note_start, with_kwargs=True)
        self._hooks = [note, *self._guard.install(self.model)]

    def _save_base(self, folder: Any, *args: Any, **options: Any) -> Any:
        """Do what the base's own `save_pretrained` does; weights by the names of a wrapped model are none."""
        options.pop("state_dict", None)
        with self.bare() as model:
            return model.save_pretrained(folder, *args, **options)

    def _stamp(self) -> Stamp | None:
        routers = [layer.router for layer in self.layers]
        return self.flow.stamp(
            weight for router in routers for weight in router.state_dict(keep_vars=True).values()
        )

    @contextmanager
    def _during(self, **settings: Any) -> Iterator[None]:
        if not self.is_wrapped():
            raise InputError(
                sentence(
                    "duo: the model does not run through these modules now",
                    do="route outside of `bare`, and wrap the model anew after `unwrap`",
                )
            )
        with self._thread.held():
            before = {name: getattr(self.flow, name) for name in settings}
            for name, value in settings.items():
                setattr(self.flow, name, value)
            try:
                yield
            finally:
                for name, value in before.items():
                    setattr(self.flow, name, value)

    def _make(self) -> list[DuoFeedForward]:
        std = float(getattr(self.model.config, "initializer_range", None) or 0.02)
        generator = torch.Generator().manual_seed(self.seed)
        made = []
        for number, block in enumerate(self._blocks):
            mlp = getattr(block, "mlp", None)
            if isinstance(mlp, DuoFeedForward):
                raise InputError(sentence("duo: this model is wrapped already", do="call unwrap first"))
            if not isinstance(mlp, nn.Module):
                what = f"duo: block {number} of {type(self.model).__name__} has no feed-forward called `mlp`"
                raise InputError(sentence(what, allowed="a decoder whose blocks hold `mlp`"))
            small = narrow(mlp, divisor=self.divisor, std=std, generator=generator)
            made.append(self._layer(number, mlp, small))
        return made

    def _layer(self, number: int, mlp: nn.Module, small: nn.Module) -> DuoFeedForward:
        width = next(m.out_features for m in reversed(list(mlp.modules())) if isinstance(m, nn.Linear))
        router = DuoRouter(
            width=width,
            num_choices=num_choices(self.allow_skip),
            bias=self.bias,
            seed=self.seed * 1000 + number,
        )
        device = next(mlp.parameters()).device
        layer = DuoFeedForward(
            big=mlp,
            small=small,
            router=router.to(device),
            layer=number,
            flow=self.flow,
            allow_skip=self.allow_skip,
        )
        return layer.train(self.model.training)

    def _note_start(self, _owner: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._thread.check()
        cache = next((value for value in (*args, *kwargs.values()) if isinstance(value, Cache)), None)
        self.flow.start = 0 if cache is None else int(cache.get_seq_length())
