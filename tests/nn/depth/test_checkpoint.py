from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from tests.nn.depth.families import COMMON, make, prompts
from tests.nn.depth.test_routed import GREEDY, wild_router
from turnout.core.errors import ArtifactError, InputError
from turnout.nn.depth import DepthRouter, FixedDepth, RandomSkip, RoutedDepth, load_depth, save_depth
from turnout.nn.depth.drllm.router import DrLLMRouter
from turnout.nn.tiny import tiny_llama


def test_a_router_is_saved_beside_the_base_and_loaded_onto_a_fresh_one(tmp_path: Path) -> None:
    routed = RoutedDepth(model=make("llama"), router=wild_router())
    ids_BT, mask_BT = prompts()
    inputs = {"input_ids": ids_BT, "attention_mask": mask_BT}
    before = routed.model.generate(**inputs, **GREEDY)
    decided = routed.counts_BL
    routed.model.save_pretrained(tmp_path)
    save_depth(tmp_path, routed)
    fresh, report = LlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    again = load_depth(tmp_path, fresh)
    assert torch.equal(again.model.generate(**inputs, **GREEDY), before)
    assert torch.equal(again.counts_BL, decided)


@pytest.mark.parametrize(
    "router",
    [
        DrLLMRouter(layers=4, width=32, knob=0.25, is_published=True, windows=4),
        FixedDepth(counts=[1, 0, 2, 1]),
        RandomSkip(layers=4, executed=2.5, seed=7),
    ],
)
def test_every_router_comes_back_with_its_arguments(router: DepthRouter, tmp_path: Path) -> None:
    save_depth(tmp_path, RoutedDepth(model=make("llama"), router=router))
    again = load_depth(tmp_path, make("llama")).router
    assert again is not None
    assert type(again) is type(router)
    assert again.config() == router.config()


@pytest.mark.parametrize(("width", "layers"), [(32, 5), (64, 4)])
def test_another_base_is_refused(width: int, layers: int, tmp_path: Path) -> None:
    save_depth(tmp_path, RoutedDepth(model=make("llama"), router=wild_router()))
    with pytest.raises(ArtifactError, match=f"another base.*'layers': 4, 'width': 32.*{layers}.*{width}"):
        load_depth(tmp_path, tiny_llama(vocab_size=COMMON["vocab_size"], width=width, layers=layers))


def test_other_weights_of_the_same_shape_are_refused_unless_vouched_for(tmp_path: Path) -> None:
    save_depth(tmp_path, RoutedDepth(model=make("llama"), router=wild_router()))
    with pytest.raises(ArtifactError, match=r"another base.*is_same_base=True"):
        load_depth(tmp_path, make("llama", seed=1))
    assert load_depth(tmp_path, make("llama", seed=1), is_same_base=True).router is not None
    assert load_depth(tmp_path, make("llama").to(torch.bfloat16)).router is not None
    with pytest.raises(ArtifactError, match="another base"):
        load_depth(tmp_path, tiny_llama(vocab_size=48, width=32, layers=5), is_same_base=True)


def test_a_wrapper_without_a_router_and_a_folder_without_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no router"):
        save_depth(tmp_path, RoutedDepth(model=make("llama")))
    with pytest.raises(ArtifactError, match="no readable 'depth'"):
        load_depth(tmp_path, make("llama"))
