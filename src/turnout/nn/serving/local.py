"""This module opens a folder with a model, its depth router and its adapters, and serves its variants.

The folder is a checkpoint of `transformers`; beside it may lie a depth router (`turnout.depth.*`), adapters
in PEFT's format (`adapters/NAME/`), and `turnout.local.json`, which names the variants: candidates of a pool
that are one model at several compute budgets and with several adapters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, final

import torch
from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from turnout.core.candidate import Candidate, check_unique
from turnout.core.errors import ArtifactError, InputError, sentence
from turnout.core.generation import Generation, Listener, Ticket
from turnout.nn.adapters.files import read_lora
from turnout.nn.adapters.pool import AdapterPool
from turnout.nn.adapters.sites import base_name
from turnout.nn.depth.checkpoint import KIND as DEPTH
from turnout.nn.depth.checkpoint import load_depth
from turnout.nn.depth.routed import RoutedDepth
from turnout.nn.serving.engine import Engine
from turnout.nn.serving.probe import check_decoding
from turnout.nn.serving.quiet import quiet
from turnout.nn.sidecar import load_sidecar, save_sidecar

KIND = "local"
ADAPTERS = "adapters"


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One way to run the model; the default is all of it, without an adapter."""

    model: str
    """The model's name, the same for all its variants."""
    effort: str | None = None
    """Name of the compute budget; None is the default."""
    knob: float | None = None
    """Budget of the depth router in [-1, 1]; None executes every block once."""
    adapter: str | None = None
    """Name of an adapter; None is the base."""

    @property
    def candidate(self) -> Candidate:
        """The variant as a candidate of a pool; its name is the variant's."""
        return Candidate(model=self.model, effort=self.effort, adapter=self.adapter)


def save_variants(folder: str | Path, variants: Sequence[Variant], *, same_base: Sequence[str] = ()) -> Path:
    """Write the variants beside a checkpoint; return the JSON's path.

    `same_base` names adapters that are of this base, whatever name of it they were recorded with.
    """
    check_unique("save_variants: variants", tuple(variant.candidate for variant in variants))
    config: dict[str, Any] = {"variants": [asdict(variant) for variant in variants]}
    if same_base:
        config["same_base"] = list(same_base)
    return save_sidecar(folder, KIND, config=config, tensors={})


def load_variants(folder: str | Path) -> tuple[Variant, ...]:
    """Return the variants of a folder; one that names none has one, called as the folder."""
    if not (Path(folder) / f"turnout.{KIND}.json").exists():
        return (Variant(model=Path(folder).resolve().name),)
    config, _ = load_sidecar(folder, KIND)
    try:
        return tuple(Variant(**entry) for entry in config["variants"])
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            sentence(
                f"the variants of {str(folder)!r}",
                allowed="objects with 'model', 'effort', 'knob' and 'adapter'",
                got=str(error),
            )
        ) from error


def _same_base(folder: str | Path) -> frozenset[str]:
    """Return the names of the adapters that a folder vouches for."""
    if not (Path(folder) / f"turnout.{KIND}.json").exists():
        return frozenset()
    config, _ = load_sidecar(folder, KIND)
    names = config.get("same_base", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ArtifactError(
            sentence(f"same_base in {str(folder)!r}", allowed="a list of names of adapters", got=names)
        )
    return frozenset(names)


@final
class LocalModel:
    """A model in this process, under the variants that its folder names.

    Parameters
    ----------
    model, tokenizer:
        A causal model of `transformers` and its tokenizer.
    variants:
        The ways to run it.
    routed:
        The depth router around the model, for variants with a knob.
    pool:
        The adapters on the model, for variants with an adapter.
    max_batch, max_waiting, max_running:
        As in `Engine`.

    Raises `InputError` for a variant that needs a router or an adapter that is not there.
    """

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        variants: Sequence[Variant],
        routed: RoutedDepth | None = None,
        pool: AdapterPool | None = None,
        max_batch: int = 16,
        max_waiting: int = 256,
        max_running: int = 64,
    ) -> None:
        self.model, self.tokenizer, self.routed, self.pool = model, tokenizer, routed, pool
        check_unique("LocalModel: variants", tuple(variant.candidate for variant in variants))
        self.specs = {variant.candidate.name: variant for variant in variants}
        self._router = None if routed is None else routed.router
        for name, spec in self.specs.items():
            self._check(name, spec)
        self.engine = Engine(
            model=model,
            tokenizer=tokenizer,
            variants={name: self._opener(spec) for name, spec in self.specs.items()},
            max_batch=max_batch,
            max_waiting=max_waiting,
            max_running=max_running,
        )

    @classmethod
    def load(
        cls, folder: str | Path, *, threads: int | None = None, same_base: Sequence[str] = (), **limits: int
    ) -> Self:
        """Open a folder; raises `ArtifactError` where it holds no model that can be served.

        `threads` are those of torch in this process; None leaves them as they are. `same_base` vouches for
        adapters, besides those that the folder names (see `save_variants`). `limits` are the engine's.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        specs = load_variants(folder)
        model, tokenizer = load_checkpoint(folder)
        check_decoding(model, tokenizer)
        needs_router = any(spec.knob is not None for spec in specs)
        has_router = (Path(folder) / f"turnout.{DEPTH}.json").exists()
        # A pool goes first: it replaces modules inside the blocks that a depth router wraps.
        pool = _load_pool(folder, model, _same_base(folder) | set(same_base))
        with ExitStack() as undo:
            if pool is not None:
                undo.callback(pool.close)
            routed = load_depth(folder, model) if needs_router or has_router else None
            if routed is not None:
                undo.callback(routed.unwrap)
            made = cls(
                model=model,
                tokenizer=tokenizer,
                variants=specs,
                routed=routed,
                pool=pool,
                **limits,
            )
            undo.pop_all()
        return made

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the ways to run the model."""
        return tuple(self.specs)

    def candidate(self, variant: str) -> Candidate:
        """Return a variant as a candidate of a pool, with the model's context where its config tells one."""
        known = self.specs[variant].candidate
        return replace(known, context_tokens=self.engine.context_limit)

    def prompt(self, messages: Sequence[Mapping[str, object]]) -> str:
        """Return chat messages as text: by the tokenizer's template, or joined by newlines without one.

        Raises `InputError` for messages that the template refuses, with the template's own sentence.
        """
        if self.tokenizer.chat_template is not None:
            try:
                text: str = self.tokenizer.apply_chat_template(
                    [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
                )
            except (TemplateError, TypeError, ValueError) as error:
                raise InputError(
                    sentence("the model's chat template refuses the messages", got=str(error))
                ) from error
            return text
        return "\n".join(str(message["content"]) for message in messages)

    def submit(self, request: Generation, listener: Listener) -> Ticket:
        """Queue a request; see `Engine.submit`."""
        return self.engine.submit(request, listener)

    @contextmanager
    def opened(self, variant: str) -> Iterator[None]:
        """Inside, the model runs as a variant; for whoever uses it without the engine."""
        with self._opener(self.specs[variant])():
            yield

    def close(self) -> None:
        """Fail what waits and runs, and give the model back as it was."""
        with ExitStack() as undo:
            if self.pool is not None:
                undo.callback(self.pool.close)
            if self.routed is not None:
                undo.callback(self.routed.set_router, self._router)
                undo.callback(self.routed.unwrap)
            self.engine.close()

    def _check(self, name: str, spec: Variant) -> None:
        if spec.knob is not None and not hasattr(self._router, "set_knob"):
            raise InputError(
                sentence(
                    f"the variant {name!r} has a knob",
                    allowed="only with a depth router that has one",
                    got=type(self._router).__name__,
                    do="save one beside the checkpoint (save_depth)",
                )
            )
        if spec.knob is not None:
            try:
                self._router.set_knob(spec.knob)  # type: ignore[union-attr, operator]
            except InputError as error:
                raise InputError(f"the variant {name!r}: {error}; save it again with one in range") from error
        known = () if self.pool is None else self.pool.names
        if spec.adapter is not None and spec.adapter not in known:
            raise InputError(
                sentence(f"the variant {name!r}: its adapter", allowed=known or "none", got=spec.adapter)
            )

    def _opener(self, spec: Variant) -> Any:
        @contextmanager
        def opened() -> Iterator[None]:
            self._set_depth(spec.knob)
            if self.pool is None:
                yield
            elif spec.adapter is None:
                with self.pool.none():
                    yield
            else:
                with self.pool.only(spec.adapter):
                    yield

        return opened

    def _set_depth(self, knob: float | None) -> None:
        """Say how the next prompt is decided; answers that have begun keep the decision in their cache."""
        if self.routed is None:
            return
        router = None if knob is None else self._router
        if self.routed.router is not router:
            self.routed.set_router(router)
        if knob is not None:
            self._router.set_knob(knob)  # type: ignore[union-attr, operator]


def load_checkpoint(folder: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return (model, tokenizer) of a folder, from the disk alone; raises `ArtifactError`."""
    # The library would look for a name that is no folder on its hub, and wait for it.
    if not (Path(folder) / "config.json").is_file():
        raise ArtifactError(
            sentence(
                f"no model can be loaded from {str(folder)!r}",
                allowed="a folder that save_pretrained wrote, with its tokenizer",
                got="no config.json there" if Path(folder).is_dir() else "no such folder",
            )
        )
    try:
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(str(folder), local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ArtifactError(
            sentence(
                f"no model can be loaded from {str(folder)!r}",
                allowed="a folder that save_pretrained wrote, with its tokenizer",
                got=str(error).splitlines()[0][:200],
            )
        ) from error
    return model.eval(), tokenizer


def _load_pool(folder: str | Path, model: PreTrainedModel, same_base: frozenset[str]) -> AdapterPool | None:
    place = Path(folder) / ADAPTERS
    folders = sorted(path for path in place.iterdir() if path.is_dir()) if place.is_dir() else []
    unknown = sorted(same_base - {path.name for path in folders})
    if unknown:
        known = [path.name for path in folders] or "none"
        raise ArtifactError(sentence(f"same_base in {str(folder)!r}", allowed=known, got=unknown))
    if not folders:
        return None
    pool = AdapterPool(model=model, mixed_ranks=True)
    with ExitStack() as undo:
        undo.callback(pool.close)
        for path in folders:
            _add(pool, path, is_same_base=path.name in same_base)
        undo.pop_all()
    return pool


def _add(pool: AdapterPool, path: Path, *, is_same_base: bool) -> None:
    lora = read_lora(path)
    try:
        pool.check(lora, is_same_base=is_same_base)
    except InputError as error:
        pool.check(lora, is_same_base=True)
        # All but the recorded base fits, and that can be vouched for here.
        raise InputError(
            sentence(
                f"the adapter {lora.name!r} was recorded with another base",
                allowed=base_name(pool.model) or "this one",
                got=lora.base_name or "other weights",
                do=f"if it is this one under another name, save_variants(..., same_base=[{lora.name!r}]), "
                "or the same word in LocalModel.load",
            )
        ) from error
    pool.add(lora, is_same_base=True)
