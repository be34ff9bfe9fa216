"""This module reads and writes LoRA adapters as PEFT keeps them: a folder with a JSON and a safetensors file.

The format follows what PEFT 0.18 to 0.21 write: `adapter_config.json`, and in `adapter_model.safetensors`
the keys `base_model.model.<path>.lora_A.weight` (R, D) and `...lora_B.weight` (O, R). What would change the
outputs and is not computed here (DoRA, biases, trained embeddings, ...) is refused, never ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from turnout.core.errors import ArtifactError, InputError, sentence
from turnout.nn.adapters.lora import Lora, LoraPart, scale_of

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
FINGERPRINT = "turnout.base"
"""The entry of the safetensors header that names the base's weights; PEFT reads past it."""

HARMLESS = frozenset(
    "alpha_pattern auto_mapping base_model_name_or_path bias corda_config ensure_weight_tying eva_config "
    "exclude_modules inference_mode init_lora_weights layers_pattern layers_to_transform loftq_config "
    "lora_alpha lora_dropout lora_ga_config megatron_core peft_type peft_version qalora_group_size r "
    "rank_pattern revision runtime_config target_modules task_type use_rslora".split()
)
"""Keys of the configuration that are read here or say nothing about a forward pass."""

PLAIN_INITS = (True, False, None, "gaussian", "orthogonal", "eva", "mica")
"""Initialisations that leave the base's weights alone. Any other is refused: PiSSA, OLoRA, CorDA, LoftQ and
LoRA-GA train beside a base that they changed, which is not in the adapter's file."""

CONVERT = (
    "save it with PEFT's path_initial_model_for_weight_conversion, or train it with another initialisation"
)


def read_lora(folder: str | Path, *, name: str | None = None) -> Lora:
    """Return the adapter in `folder`, called `name` or as the folder is.

    Raises `ArtifactError` for a file that is missing or damaged, `InputError` for a kind of adapter that
    is not plain LoRA.
    """
    place = Path(folder)
    config = _config(place)
    pairs, header = _pairs(place)
    parts = {path: _part(place, config, path, a, b) for path, (a, b) in sorted(pairs.items())}
    return Lora(
        name=name or place.name,
        parts=parts,
        base_name=config.get("base_model_name_or_path") or None,
        base_fingerprint=header.get(FINGERPRINT),
    )


def write_lora(lora: Lora, folder: str | Path) -> Path:
    """Write an adapter as PEFT would, so that `PeftModel.from_pretrained` loads it; return the folder."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for path, part in lora.parts.items():
        tensors[f"{PREFIX}{path}.lora_A.weight"] = part.a_RD.detach().cpu().contiguous()
        tensors[f"{PREFIX}{path}.lora_B.weight"] = part.b_OR.detach().cpu().contiguous()
    header = {"format": "pt"}
    if lora.base_fingerprint is not None:
        header[FINGERPRINT] = lora.base_fingerprint
    save_file(tensors, place / TENSORS, metadata=header)
    (place / CONFIG).write_text(json.dumps(_config_of(lora), indent=2, sort_keys=True) + "\n", "utf-8")
    return place


def _config_of(lora: Lora) -> dict[str, Any]:
    ranks = {path: part.rank for path, part in lora.parts.items()}
    alphas = {path: part.scale * part.rank for path, part in lora.parts.items()}
    rank, alpha = max(ranks.values()), alphas[next(iter(alphas))]
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        # Full paths: suffixes could catch modules that this adapter does not touch.
        "target_modules": sorted(lora.parts),
        "rank_pattern": {_exactly(path): value for path, value in ranks.items() if value != rank},
        "alpha_pattern": {_exactly(path): value for path, value in alphas.items() if value != alpha},
        "use_rslora": False,
        "use_dora": False,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "base_model_name_or_path": lora.base_name,
        "modules_to_save": None,
    }


def _exactly(path: str) -> str:
    return "^" + re.escape(path)


def _config(place: Path) -> dict[str, Any]:
    try:
        config = json.loads((place / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(place / CONFIG, f"{type(error).__name__}: {error}") from error
    if not isinstance(config, dict):
        raise _damaged(place / CONFIG, config)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise _refused(place, "peft_type", "LORA", kind)
    if config.get("bias", "none") != "none":
        raise _refused(place, "bias", "none", config["bias"])
    if config.get("init_lora_weights") not in PLAIN_INITS:
        raise _refused(place, "init_lora_weights", PLAIN_INITS, config["init_lora_weights"], do=CONVERT)
    for key, value in config.items():
        if value and key not in HARMLESS:
            raise _refused(place, key, "plain LoRA, where it is absent, null or false", value)
    return config


def _pairs(place: Path) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, str]]:
    try:
        with safe_open(place / TENSORS, framework="pt") as file:
            header = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise _damaged(place / TENSORS, f"{type(error).__name__}: {error}") from error
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = re.fullmatch(re.escape(PREFIX) + r"(.+)\.lora_([AB])\.weight", key)
        if match is None:
            allowed, is_base = f"{PREFIX}<path>.lora_A.weight and lora_B", ".base_layer." in key
            do = "save it with save_embedding_layers=False" if is_base else None
            what = "a weight of the base itself" if is_base else "tensors"
            raise _refused(place, what, allowed, key, do=do, file=TENSORS)
        found.setdefault(match[1], {})[match[2]] = tensor
    lonely = sorted(path for path, pair in found.items() if len(pair) != 2)
    if lonely or not found:
        raise _damaged(place / TENSORS, f"lora_A without lora_B or the reverse at {lonely or 'every path'}")
    return {path: (pair["A"], pair["B"]) for path, pair in found.items()}, header


def _part(place: Path, config: Mapping[str, Any], path: str, a_RD: Tensor, b_OR: Tensor) -> LoraPart:
    rank = _pattern(place, config, "rank_pattern", path, config.get("r"))
    alpha = _pattern(place, config, "alpha_pattern", path, config.get("lora_alpha"))
    shapes = (tuple(a_RD.shape), tuple(b_OR.shape))
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise _damaged(place / CONFIG, f"r {rank!r} and lora_alpha {alpha!r} for {path}")
    if a_RD.dim() != 2 or b_OR.dim() != 2 or a_RD.shape[0] != rank or b_OR.shape[1] != rank:
        raise _damaged(place / TENSORS, f"{path} of rank {rank} with A and B of shapes {shapes}")
    if not (a_RD.isfinite().all() and b_OR.isfinite().all()):
        raise _damaged(place / TENSORS, f"{path} with a number that is not finite")
    scale = scale_of(alpha=alpha, rank=rank, is_rank_stabilised=bool(config.get("use_rslora")))
    return LoraPart(a_RD=a_RD, b_OR=b_OR, scale=scale)


def _pattern(place: Path, config: Mapping[str, Any], key: str, path: str, default: Any) -> Any:
    """Return the first entry of a pattern table whose key is the end of `path`, as PEFT matches them."""
    table = config.get(key) or {}
    try:
        return next((v for k, v in table.items() if re.match(rf"(.*\.)?({k})$", path)), default)
    except (re.error, AttributeError) as error:
        raise _damaged(place / CONFIG, f"{key}: {error}") from error


def _damaged(path: Path, got: object) -> ArtifactError:
    return ArtifactError(sentence(f"{path}: no readable LoRA", allowed=f"{CONFIG} and {TENSORS}", got=got))


def _refused(
    place: Path, key: str, allowed: object, got: object, *, do: str | None = None, file: str = CONFIG
) -> InputError:
    return InputError(sentence(f"{place / file}: {key}", allowed=allowed, got=got, do=do))
