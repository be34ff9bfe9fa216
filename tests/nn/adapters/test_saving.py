from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.nn.adapters import helpers
from turnout.core.errors import ArtifactError, InputError
from turnout.nn.adapters import AdapterPool, GliderRouter, load_pool, save_pool

IDS = helpers.tokens()


def test_a_pool_comes_back_with_gates_vectors_and_router(tmp_path: Path) -> None:
    pool = helpers.pool()
    pool.router = GliderRouter(alpha=2.0, top_k=None, top_p=0.7)
    save_pool(pool, tmp_path)
    back = load_pool(helpers.base(), tmp_path)
    assert back.names == pool.names
    assert back.router is not None
    assert back.router.config() == {"alpha": 2.0, "top_k": None, "top_p": 0.7}
    queries = torch.rand(3, 6)
    with pool.routed(queries=queries), back.routed(queries=queries):
        assert torch.equal(helpers.logits(back, IDS), helpers.logits(pool, IDS))
    with pool.only("c"):
        torch.testing.assert_close(helpers.peft_logits(tmp_path / "c", IDS), helpers.logits(pool, IDS))


def test_a_pool_without_gates_vectors_or_router_comes_back(tmp_path: Path) -> None:
    pool = AdapterPool(model=helpers.base())
    pool.add(helpers.lora("a"))
    save_pool(pool, tmp_path)
    back = load_pool(helpers.base(), tmp_path)
    assert back.router is None
    assert back.context().gated == frozenset()
    assert back.vector("a") is None


@pytest.mark.parametrize("damage", ["tensors", "config", "router", "adapter"])
def test_a_damaged_folder_leaves_the_model_as_it_was(tmp_path: Path, damage: str) -> None:
    save_pool(helpers.pool(), tmp_path)
    manifest = tmp_path / "turnout.adapters.json"
    if damage == "tensors":
        (tmp_path / "turnout.adapters.safetensors").write_bytes(b"{}")
    elif damage == "config":
        content = json.loads(manifest.read_text())
        content["config"] = {"adapters": ["a"]}
        manifest.write_text(json.dumps(content))
    elif damage == "router":
        content = json.loads(manifest.read_text())
        content["config"]["router"] = {"name": "glider", "config": {"beta": 1}}
        manifest.write_text(json.dumps(content))
    else:
        (tmp_path / "b" / "adapter_model.safetensors").unlink()
    model = helpers.base()
    modules = dict(model.named_modules())
    with pytest.raises(ArtifactError):
        load_pool(model, tmp_path)
    assert all(module is modules[path] for path, module in model.named_modules())


def test_another_base_is_refused(tmp_path: Path) -> None:
    save_pool(helpers.pool(), tmp_path)
    with pytest.raises(InputError, match="another base"):
        load_pool(helpers.base(seed=1), tmp_path)
