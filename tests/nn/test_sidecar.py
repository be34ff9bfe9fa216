from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from turnout.core.errors import ArtifactError
from turnout.nn.sidecar import load_sidecar, save_sidecar


def save(folder: Path) -> Path:
    return save_sidecar(folder, "depth", config={"layers": 4}, tensors={"w": torch.arange(6.0).view(2, 3).T})


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    assert save(tmp_path / "new" / "folder").name == "turnout.depth.json"
    config, tensors = load_sidecar(tmp_path / "new" / "folder", "depth")
    assert config == {"layers": 4}
    assert torch.equal(tensors["w"], torch.arange(6.0).view(2, 3).T)


def test_two_kinds_share_a_folder(tmp_path: Path) -> None:
    save(tmp_path)
    save_sidecar(tmp_path, "adapters", config={}, tensors={})
    assert load_sidecar(tmp_path, "depth")[0] == {"layers": 4}
    assert load_sidecar(tmp_path, "adapters") == ({}, {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"turnout\.depth\.json and turnout\.depth\.safetensors"):
        load_sidecar(tmp_path, "depth")
    save(tmp_path)
    (tmp_path / "turnout.depth.safetensors").unlink()
    with pytest.raises(ArtifactError, match="no readable 'depth'"):
        load_sidecar(tmp_path, "depth")


@pytest.mark.parametrize("damage", ["not json", "[]", '{"turnout": 99, "kind": "depth"}'])
def test_a_damaged_manifest_is_refused(tmp_path: Path, damage: str) -> None:
    save(tmp_path).write_text(damage, encoding="utf-8")
    with pytest.raises(ArtifactError):
        load_sidecar(tmp_path, "depth")


def test_cut_tensors_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path).with_suffix(".safetensors")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ArtifactError, match="no readable 'depth'"):
        load_sidecar(tmp_path, "depth")


def test_tensors_that_the_manifest_does_not_name_are_refused(tmp_path: Path) -> None:
    manifest = save(tmp_path)
    content = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.write_text(json.dumps({**content, "tensors": ["v", "w"]}), encoding="utf-8")
    with pytest.raises(ArtifactError, match="its tensors"):
        load_sidecar(tmp_path, "depth")


def test_one_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path).with_suffix(".safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="is damaged"):
        load_sidecar(tmp_path, "depth")
