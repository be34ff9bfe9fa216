"""This module wraps the blocks of a decoder so that each sequence has its own depth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache

from turnout.core.errors import InputError, sentence
from turnout.nn.caches import cache_keyword, serials
from turnout.nn.decoder import check_blocks_alone, decoder_blocks
from turnout.nn.depth.blocks import RoutedBlock, RoutedGenerate
from turnout.nn.depth.contract import DepthRouter, check_counts
from turnout.nn.depth.passes import Pass, begin, check_one_text, shared_rows
from turnout.nn.depth.returned import check_returned
from turnout.nn.depth.slots import CallSlots, adopt, check_config
from turnout.nn.depth.walk import Walk
from turnout.nn.one_thread import OneThread

Watcher = Callable[[int, Tensor, Tensor], None]
"""Called with the layer, its input hidden_BTD and the prompt's mask_BT."""


def width_of(decoder: nn.Module) -> int:
    """Return the size of the states that a decoder's blocks read; raises `InputError` without embeddings."""
    model: Any = decoder
    if not hasattr(model, "get_input_embeddings"):
        raise InputError(
            sentence(
                f"depth routing: the blocks are held by a {type(model).__name__}, which reads no tokens",
                allowed="blocks that are held by what embeds the tokens, and called once a token",
            )
        )
    return int(model.get_input_embeddings().weight.shape[1])


class RoutedDepth:
    """A decoder whose blocks are skipped, executed or repeated, decided once per sequence.

    The decisions are taken while the prompt is read and hold for every token that follows; they live in the
    cache, or, without one, are taken again from the prompt alone. `model.generate` works as before: greedy,
    sampling, beams, padding on either side. One thread at a time.

    Parameters
    ----------
    model
        Any decoder of `transformers` 5 whose blocks return hidden states.
    router
        Decides; None executes every block.
    strict
        Refuse a batch whose sequences disagree, instead of running each block on those that call it.
    whole_from
        The prompt is read by exactly the sequences that call a block. After it, a block that at least this
        share of the batch calls runs on all of it, and the others keep what they had. Above 1, never; None
        does so where the rows that would be spared cost less than choosing rows.

    Raises `InputError` for a router of another number of layers or width, for a model that is wrapped, and
    for one whose blocks share keys, read several streams, keep running states or return more than hidden
    states.

    Source: S12, Dr.LLM, arXiv 2510.12773, section 3; the cache by call and the decision per sequence are
    where the released code differs from it.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        router: DepthRouter | None = None,
        strict: bool = False,
        whole_from: float | None = None,
    ) -> None:
        owner, name = decoder_blocks(model)
        check_blocks_alone(model)
        check_config(getattr(model, "config", None))
        blocks = list(getattr(owner, name))
        check_returned(blocks)
        self.model: Any = model
        self.owner: Any = owner
        self._name = name
        self.strict = strict
        self.layers = len(blocks)
        self.whole_from = whole_from
        self.set_router(router)
        self._counts_BL: Tensor | None = None
        # A number, which stays the same in a copy of a cache.
        self._key = next(serials)
        self._keyword = cache_keyword(owner)
        self._turns = hasattr(owner, "rotary_emb")
        self._pass: Pass | None = None
        self.going: list[CallSlots] | None = None
        self._forced_BL: Tensor | None = None
        self._prompt: int | Tensor | None = None
        self._prompts = 0
        self._is_kept = False
        self._watcher: Watcher | None = None
        self._thread = OneThread("RoutedDepth")
        self._blocks: list[RoutedBlock] = []
        self._hooks: list[Any] = []
        self._walk: Walk | None = None
        self._generate: RoutedGenerate | None = None
        self._bare = blocks
        self.wrap()

    def wrap(self) -> None:
        """Put the wrapper back after `unwrap`; raises `InputError` if it is there, or another is."""
        if any(isinstance(block.__dict__.get("forward"), RoutedBlock) for block in self._bare):
            raise InputError(sentence("RoutedDepth: this model is wrapped already", do="call unwrap first"))
        self._blocks = [RoutedBlock(block=b, layer=i, routed=self) for i, b in enumerate(self._bare)]
        self._walk = Walk(owner=self.owner, name=self._name, blocks=self._blocks)
        self._hooks = [
            self.owner.register_forward_pre_hook(self._begin, with_kwargs=True),
            self.owner.register_forward_hook(self._end, always_call=True),
        ]
        if hasattr(self.model, "generate"):
            self._generate = RoutedGenerate(model=self.model, routed=self)

    def set_router(self, router: DepthRouter | None) -> None:
        """Decide by another router from the next prompt on; raises `InputError` if it is for another base."""
        width = width_of(self.owner)
        if router is not None and (router.layers != self.layers or router.width not in (None, width)):
            raise InputError(
                sentence(
                    "RoutedDepth: this router is for another base",
                    allowed=f"{self.layers} layers of width {width}",
                    got=f"{router.layers} layers of width {router.width}",
                )
            )
        if router is not None:
            router.to(next(self.owner.parameters()).device)
        self.router = router

    @property
    def counts_BL(self) -> Tensor:
        """The decisions of the last prompt, one row a sequence; raises `InputError` before the first."""
        if self._counts_BL is None:
            raise InputError(sentence("RoutedDepth: nothing was decided yet", do="call the model first"))
        return self._counts_BL

    def unwrap(self) -> Any:
        """Return the model as it was; it has no trace of the wrapper."""
        if self._walk is not None:
            self._walk.end()
        for block in self._blocks:
            block.remove()
        for hook in self._hooks:
            hook.remove()
        if self._generate is not None:
            self._generate.remove()
        self._blocks, self._hooks, self._generate, self._walk = [], [], None, None
        return self.model

    @contextmanager
    def forced(self, counts: Any) -> Iterator[None]:
        """Inside, `counts` decide: counts_BL, or counts_L for every sequence; values 0, 1 and 2.

        A batch that `generate` expands (beams, several samples) takes each row as often as its prompt.
        """
        counts_BL = check_counts("forced", counts, self.layers)
        with self._during(_forced_BL=counts_BL):
            yield

    def kept(self) -> AbstractContextManager[None]:
        """Return a context in which caches go on as they were decided, whatever `forced` says outside.

        Several tokens at once may follow in it, such as the next turn of a conversation; elsewhere they are
        taken for the rest of a prompt, of which a router should have seen the whole, and refused.
        """
        return self._during(_forced_BL=None, _is_kept=True)

    @contextmanager
    def prompted(self, prompt: int | Tensor) -> Iterator[None]:
        """Inside, only these tokens are the prompt: the first columns, or those where mask_BT is true.

        For forwards without a cache that hold more than the prompt; `generate` does it by itself.
        """
        with self._during(_prompt=prompt):
            yield

    @contextmanager
    def generating(self, source: Tensor | None) -> Iterator[None]:
        """Inside, `source` (token ids or embeddings) is what `generate` was given to continue."""
        num_prompts, prompt = (1, 1) if source is None else (len(source), source.shape[1])
        with self._during(_prompts=num_prompts, _prompt=prompt):
            yield

    @contextmanager
    def watched(self, watcher: Watcher) -> Iterator[None]:
        """Inside, `watcher` sees the input of every block while a prompt is read."""
        with self._during(_watcher=watcher):
            yield

    @contextmanager
    def _during(self, **settings: Any) -> Iterator[None]:
        """Inside, attributes are what is given, and no other thread runs the model."""
        with self._thread.held():
            before = {name: getattr(self, name) for name in settings}
            vars(self).update(settings)
            try:
                yield
            finally:
                vars(self).update(before)

    @property
    def reads(self) -> bool:
        """Whether what is decided now depends on the prompt: by a router that reads hidden states."""
        return self._forced_BL is None and self.router is not None and self.router.width is not None

    @property
    def is_watched(self) -> bool:
        """Whether `watched` is in force."""
        return self._watcher is not None

    def slots(self, cache: Cache, layer: int) -> CallSlots:
        """Return the cache's slots of a block; an empty cache is adopted, one of another routing refused."""
        kept = cache.layers[layer] if layer < len(cache.layers) else None
        if isinstance(kept, CallSlots) and kept.key is self._key:
            return kept
        self.adopt(cache)
        slots: CallSlots = cache.layers[layer]
        return slots

    def adopt(self, cache: Cache) -> None:
        """Make an empty cache one of this wrapper; raises `InputError` for any other."""
        adopt(cache, layers=self.layers, key=self._key)

    def decide(self, layer: int, hidden_BTD: Tensor) -> Tensor:
        """Return counts_B of a block for the prompt that is being read."""
        now = self._now(f"block {layer}")
        batch, device = len(hidden_BTD), hidden_BTD.device
        if self._watcher is not None:
            self._watcher(layer, hidden_BTD, now.mask(hidden_BTD))
        if self._forced_BL is not None:
            counts_B = self._expanded(self._forced_BL, batch)[:, layer].to(device)
        elif self.router is None:
            counts_B = torch.ones(batch, dtype=torch.int64, device=device)
        else:
            counts_B = self._routed(self.router, layer, hidden_BTD, now)
        if self.strict and bool((counts_B != counts_B[0]).any()):
            raise InputError(
                sentence(
                    f"strict depth routing: the sequences of the batch disagree at layer {layer}",
                    got=counts_B.tolist(),
                    do="group them (generate_grouped), or wrap with strict=False",
                )
            )
        now.counts[layer] = counts_B
        return counts_B

    def check_continued(self, slots: CallSlots, hidden_BTD: Tensor) -> None:
        """Raise `InputError` if a cache does not belong to this batch, or to the forced decisions."""
        if slots.batch != hidden_BTD.shape[0]:
            raise InputError(
                sentence(
                    "depth routing: this cache is of another batch",
                    allowed=f"{slots.batch} sequences",
                    got=len(hidden_BTD),
                )
            )
        if hidden_BTD.shape[1] > 1 and slots.is_read and not self._is_kept:
            self._check_whole(slots.length, hidden_BTD.shape[1])
        counts_B = slots.counts_B
        if self._forced_BL is None or slots.agreed is self._forced_BL or counts_B is None:
            return
        forced_B = self._expanded(self._forced_BL, len(counts_B))[:, slots.layer].to(counts_B.device)
        if not torch.equal(forced_B, counts_B):
            raise InputError(
                sentence(
                    f"depth routing: this cache was made under other decisions at layer {slots.layer}",
                    allowed=counts_B.tolist(),
                    got=forced_B.tolist(),
                    do="read the prompt again",
                )
            )
        slots.agreed = self._forced_BL

    def _check_whole(self, read: int, tokens: int) -> None:
        """Raise `InputError` if these tokens are the rest of a prompt of which the first `read` decided."""
        # In `generate` the prompt's length is known; several tokens after it are an assistant's.
        if self._prompts and isinstance(self._prompt, int) and read >= self._prompt:
            return
        raise InputError(
            sentence(
                "depth routing: the depth of this cache was decided on the tokens that it holds",
                allowed="a prompt that is read in one forward, then one token at a time",
                got=f"{read} tokens, then {tokens}",
                do="read the prompt again as a whole, or go on as decided inside `kept()`",
            )
        )

    def is_padded(self) -> bool:
        """Whether the prompts that are being read have padding."""
        return self._now("is_padded").is_padded()

    def taken(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], rows: Tensor, batch: int
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the `rows` of a block's arguments."""
        now = self._now("taken")
        if now.is_shared((*args, *kwargs.values()), batch):
            return args, kwargs
        return now.take(args, rows, batch), now.take(kwargs, rows, batch)

    def _now(self, where: str) -> Pass:
        if self._pass is None:
            raise InputError(
                sentence(f"depth routing: {where} was called outside its model", do="call the model")
            )
        return self._pass

    def _routed(self, router: DepthRouter, layer: int, hidden_BTD: Tensor, now: Pass) -> Tensor:
        mask_BT = now.mask(hidden_BTD)
        with torch.no_grad():
            if not now.is_planned:
                now.plan, now.is_planned = router.plan(hidden_BTD, mask_BT), True
            return router.decide(layer, hidden_BTD, mask_BT, now.plan)

    def _expanded(self, counts_BL: Tensor, batch: int) -> Tensor:
        rows = len(counts_BL)
        if rows in (1, batch):
            return counts_BL.expand(batch, -1)
        if rows == self._prompts and batch % rows == 0:
            return counts_BL.repeat_interleave(batch // rows, dim=0)
        raise InputError(
            sentence("forced: one row for each sequence", allowed=f"{batch} rows, or one for all", got=rows)
        )

    def _begin(
        self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        self._thread.check()
        self.going = self._going(args, kwargs)
        if self.going is None:
            self._pass = begin(args, kwargs, self._prompt)
            if self.reads:
                check_one_text(args, kwargs, self._pass.attention_BT)
            return None
        self._pass = Pass(attention_BT=None, prompt=None, cache=kwargs[self._keyword])
        position_BT = kwargs.get("position_ids")
        if self._turns and position_BT is not None and any(slots.chooses for slots in self.going):
            kwargs["position_ids"] = shared_rows(position_BT)
        # Dynamo would trace what is put into a module's place.
        if self._walk is not None and not torch.compiler.is_compiling():
            self._walk.begin()
        return args, kwargs

    def _going(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[CallSlots] | None:
        """Return the slots by block where every decision of this batch was taken before; None elsewhere.

        This is asked for every token; what is rare is left to `begin`, which looks closer.
        """
        cache, mask = kwargs.get(self._keyword), kwargs.get("attention_mask")
        source = kwargs.get("input_ids")
        source = source if source is not None else kwargs.get("inputs_embeds")
        if args or not isinstance(source, Tensor):
            return None
        if not isinstance(cache, DynamicCache) or len(cache.layers) != self.layers:
            return None
        # Several tokens are rare here, and may be a prompt's second piece.
        if source.shape[1] != 1:
            return None
        if mask is not None and (not isinstance(mask, Tensor) or mask.dim() != 2):
            return None
        layers: list[Any] = cache.layers
        key, rows, length = self._key, source.shape[0], cache.get_seq_length()
        forced_BL = self._forced_BL
        for slots in layers:
            if type(slots) is not CallSlots or not slots.is_settled or slots.key != key:
                return None
            if slots.batch != rows or slots.length != length:
                return None
            # What is forced is compared with what was decided once, at the first token after the prompt.
            if forced_BL is not None and slots.agreed is not forced_BL:
                return None
        return layers

    def _end(self, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        now, self._pass, self.going = self._pass, None, None
        if self._walk is not None and not torch.compiler.is_compiling():
            self._walk.end()
        # There is no output where the forward failed.
        if now is not None and output is not None and len(now.counts) == self.layers:
            with torch.inference_mode(False):
                self._counts_BL = torch.stack([now.counts[layer] for layer in range(self.layers)], dim=1)
