"""This module keeps what the gates of a model decided on some sequences, in memory and on disk.

Letters here: B sequences, S tokens of a sequence, L layers. A file is one safetensors file, never a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from turnout.core.errors import ArtifactError, InputError, ShapeError, sentence
from turnout.core.progress import Progress, silent
from turnout.nn.gate_hook import GateHook
from turnout.nn.plan import check_mask, equal

FORMAT = "turnout-routing-1"


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What every layer's gate decided for B sequences of S tokens.

    `chosen` holds a boolean (B, S, E) per layer, `probs` the router's probabilities of the same shape where
    known; `token_ids_BS` are the tokens, `mask_BS` is True where a token is real, `domains` names the domain
    of every sequence. Layers may differ in E, tokens in how many experts they have. Raises `ShapeError` for
    what does not fit, and `InputError` for a choice or a mask that is not boolean, for no token at all, and
    for two layers of one name.
    """

    chosen: tuple[Tensor, ...]
    probs: tuple[Tensor, ...] = ()
    token_ids_BS: Tensor | None = None
    mask_BS: Tensor | None = None
    domains: tuple[str, ...] = ()
    layers: tuple[str, ...] = field(default=())
    """A name per layer; its number where none is given."""

    def __post_init__(self) -> None:
        if not self.chosen:
            raise InputError(sentence("Recording: chosen", allowed="a tensor per layer", got="none"))
        lead = tuple(self.chosen[0].shape[:2])
        for number, chosen_BSE in enumerate(self.chosen):
            if chosen_BSE.ndim != 3 or tuple(chosen_BSE.shape[:2]) != lead:
                allowed = f"(B, S, E) = ({lead[0]}, {lead[1]}, E)"
                raise ShapeError(
                    sentence(f"Recording: chosen[{number}]", allowed=allowed, got=tuple(chosen_BSE.shape))
                )
            check_mask(f"Recording: chosen[{number}]", chosen_BSE, "(B, S, E)", tuple(chosen_BSE.shape))
        equal("Recording: token_ids_BS", self.token_ids_BS, "(B, S)", lead)
        check_mask("Recording: mask_BS", self.mask_BS, "(B, S)", lead)
        if not lead[0] * lead[1] or (self.mask_BS is not None and not bool(self.mask_BS.any())):
            raise InputError(sentence("Recording: tokens", allowed="one that is no padding", got="none"))
        if self.probs and [p.shape for p in self.probs] != [c.shape for c in self.chosen]:
            raise ShapeError(sentence("Recording: probs", allowed="the shapes of chosen", got="others"))
        if self.domains and len(self.domains) != lead[0]:
            got = len(self.domains)
            raise ShapeError(sentence("Recording: domains", allowed=f"{lead[0]} names", got=got))
        if not self.layers:
            object.__setattr__(self, "layers", tuple(str(i) for i in range(len(self.chosen))))
        if len(self.layers) != len(self.chosen):
            got = len(self.layers)
            raise ShapeError(sentence("Recording: layers", allowed=f"{len(self.chosen)} names", got=got))
        if len(set(self.layers)) < len(self.layers):
            names = ", ".join(self.layers)
            raise InputError(sentence("Recording: layers", allowed="names that differ", got=names))

    @property
    def num_layers(self) -> int:
        """How many layers have a gate."""
        return len(self.chosen)

    def tokens(self, layer: int) -> Tensor:
        """Return chosen_TE of the real tokens of one layer."""
        return self._real(self.chosen[layer])

    def token_probs(self, layer: int) -> Tensor:
        """Return probs_TE of the real tokens of one layer; raises `InputError` where none were recorded."""
        if not self.probs:
            raise InputError(sentence("Recording: probs", allowed="recorded probabilities", got="none"))
        return self._real(self.probs[layer])

    def _real(self, values_BSE: Tensor) -> Tensor:
        return values_BSE.flatten(0, 1) if self.mask_BS is None else values_BSE[self.mask_BS]

    def save(self, path: Path) -> Path:
        """Write one safetensors file."""
        tensors = {f"chosen.{i}": chosen for i, chosen in enumerate(self.chosen)}
        tensors |= {f"probs.{i}": probs for i, probs in enumerate(self.probs)}
        for name in ("token_ids_BS", "mask_BS"):
            if (given := getattr(self, name)) is not None:
                tensors[name] = given
        notes = {
            "format": FORMAT,
            "domains": json.dumps(list(self.domains)),
            "layers": json.dumps(list(self.layers)),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        # Copies, since safetensors refuses tensors that share their memory, as layers of one choice may.
        copies = {
            name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
        }
        save_file(copies, path, metadata=notes)
        return path

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Read what `save` wrote; raises `ArtifactError` for another file."""
        try:
            with safe_open(path, framework="pt") as file:
                notes: Mapping[str, str] = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ArtifactError(
                sentence(f"{str(path)!r}", allowed="a recording in safetensors", got=str(error))
            ) from error
        if notes.get("format") != FORMAT:
            got = notes.get("format", "no format")
            raise ArtifactError(sentence(f"{str(path)!r}", allowed=f"the format {FORMAT!r}", got=got))
        layers = json.loads(notes["layers"])
        has_probs = "probs.0" in tensors
        return cls(
            chosen=tuple(tensors[f"chosen.{i}"] for i in range(len(layers))),
            probs=tuple(tensors[f"probs.{i}"] for i in range(len(layers))) if has_probs else (),
            token_ids_BS=tensors.get("token_ids_BS"),
            mask_BS=tensors.get("mask_BS"),
            domains=tuple(json.loads(notes["domains"])),
            layers=tuple(layers),
        )


def chosen_of(indices_TK: Tensor, num_experts: int) -> Tensor:
    """Return the boolean (..., E) of the experts in indices (..., K); -1 stands for no expert.

    Raises `InputError` for an index outside of the experts.
    """
    if indices_TK.numel() and not -1 <= int(indices_TK.min()) <= int(indices_TK.max()) < num_experts:
        got = f"{int(indices_TK.min())} to {int(indices_TK.max())}"
        raise InputError(sentence("chosen_of: indices", allowed=f"-1 to {num_experts - 1}", got=got))
    shape = (*indices_TK.shape[:-1], num_experts + 1)
    spare = torch.where(indices_TK < 0, num_experts, indices_TK).long()
    zeros = torch.zeros(shape, dtype=torch.bool, device=indices_TK.device)
    return zeros.scatter_(-1, spare, value=True)[..., :num_experts]


@torch.no_grad()
def record_model(
    model: nn.Module,
    batches: Sequence[Tensor],
    *,
    domains: Sequence[str] = (),
    mask: Sequence[Tensor] | None = None,
    progress: Progress = silent,
) -> Recording:
    """Run a `transformers` model on batches of ids (B, S) of one length, and keep what its gates decide.

    Probabilities are the softmax of the logits, whatever score the gate uses: the form in which analyses
    compare families. `domains` names each sequence. Raises `InputError` for a batch that is all padding,
    for logits that are NaN or infinite, and for a model with a decoder that wants ids of its own;
    `ShapeError` for batches of other shapes than (B, S) and for masks that are not theirs.
    """
    _check_batches(model, batches, mask)
    hook = GateHook(model, needs_rules=False)
    chosen: list[list[Tensor]] = [[] for _ in hook.layers]
    probs: list[list[Tensor]] = [[] for _ in hook.layers]
    for done, ids_BS in enumerate(batches):
        mask_BS = torch.ones_like(ids_BS) if mask is None else mask[done]
        if not bool(mask_BS.any()):
            what = f"record_model: batch {done} is all padding"
            raise InputError(sentence(what, allowed="a token that is none of padding"))
        with hook.recording() as records:
            model(input_ids=ids_BS, attention_mask=mask_BS)
        for number, (layer, record) in enumerate(zip(hook.layers, records, strict=True)):
            shape = (*ids_BS.shape, layer.num_experts)
            chosen[number].append(chosen_of(record[0].indices_TK.cpu(), layer.num_experts).view(shape))
            # Some gates have columns for what is no expert; what falls to those is left out.
            p_TE = record[0].logits_TE.float().softmax(dim=-1)[:, : layer.num_experts]
            probs[number].append(p_TE.cpu().reshape(shape))
        progress("recording", done + 1, len(batches))
    return Recording(
        chosen=tuple(torch.cat(parts) for parts in chosen),
        probs=tuple(torch.cat(parts) for parts in probs),
        token_ids_BS=torch.cat([ids.cpu() for ids in batches]),
        mask_BS=None if mask is None else torch.cat([part.cpu().bool() for part in mask]),
        domains=tuple(domains),
        layers=tuple(layer.name for layer in hook.layers),
    )


def _check_batches(model: nn.Module, batches: Sequence[Tensor], mask: Sequence[Tensor] | None) -> None:
    """Raise unless ids are (B, S) of one S, each with a mask of its shape, and are all that a model needs."""
    if not batches:
        raise InputError(sentence("record_model: batches", allowed="one at least", got="none"))
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        what = "record_model: a model of an encoder and a decoder wants ids of both"
        raise InputError(sentence(what, allowed="one stack", do="call it inside `GateHook.recording`"))
    if mask is not None and len(mask) != len(batches):
        allowed = f"one for each of {len(batches)} batches"
        raise ShapeError(sentence("record_model: mask", allowed=allowed, got=len(mask)))
    for number, ids_BS in enumerate(batches):
        shape, length = tuple(ids_BS.shape), batches[0].shape[-1]
        if len(shape) != 2 or shape[1] != length:
            allowed = f"(B, S) with S = {length}, that of the first"
            raise ShapeError(sentence(f"record_model: batches[{number}]", allowed=allowed, got=shape))
        if mask is not None and tuple(mask[number].shape) != shape:
            got = tuple(mask[number].shape)
            raise ShapeError(sentence(f"record_model: mask[{number}]", allowed=f"(B, S) = {shape}", got=got))
