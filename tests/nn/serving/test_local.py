from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from tests.nn.serving.models import PAIRS, VARIANTS, Ear, save_folder, trained
from turnout.core.errors import ArtifactError, InputError
from turnout.core.generation import Finished, Generation
from turnout.nn.adapters.pool import AdapterPool
from turnout.nn.adapters.training import train_adapter
from turnout.nn.depth.routed import RoutedDepth
from turnout.nn.serving import local
from turnout.nn.serving.local import LocalModel, Variant, load_variants, save_variants
from turnout.nn.tiny import answer_batch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_folder(tmp_path)
    return tmp_path


def ask(model: LocalModel, variant: str, prompt: str) -> str:
    ear = Ear()
    model.submit(Generation(prompt=prompt, variant=variant, max_new_tokens=10), ear)
    texts, end = ear.pieces()
    assert isinstance(end, Finished)
    return "".join(texts)


def test_a_folder_comes_back_with_its_variants(folder: Path) -> None:
    assert load_variants(folder) == VARIANTS
    model = LocalModel.load(folder)
    assert model.variants == ("tiny", "tiny[effort=none]", "tiny[effort=routed]")
    assert [ask(model, "tiny", prompt) for prompt, _ in PAIRS] == [answer for _, answer in PAIRS]
    model.close()


def test_a_knob_decides_how_deep_a_variant_runs(folder: Path) -> None:
    model = LocalModel.load(folder)
    assert model.routed is not None
    depths = {}
    for name in model.variants:
        ask(model, name, "ab=")
        assert model.routed.counts_BL is not None
        depths[name] = model.routed.counts_BL.tolist()
    model.close()
    assert depths["tiny"] == [[1, 1, 1]]
    assert depths["tiny[effort=none]"] == [[0, 0, 0]]


def test_a_knob_out_of_range_is_refused_where_it_is_opened(folder: Path) -> None:
    save_variants(folder, [Variant(model="tiny", knob=3.0)])
    with pytest.raises(InputError, match=r"the variant 'tiny'.*allowed: .*; got: 3"):
        LocalModel.load(folder)


def test_variants_that_are_served_together_do_not_mix(folder: Path) -> None:
    model = LocalModel.load(folder)
    alone = {name: ask(model, name, "ab=") for name in model.variants}
    ears = {name: Ear() for name in model.variants}
    for name, ear in ears.items():
        model.submit(Generation(prompt="ab=", variant=name, max_new_tokens=10), ear)
    together = {name: "".join(ear.pieces()[0]) for name, ear in ears.items()}
    model.close()
    assert together == alone
    assert alone["tiny"] != alone["tiny[effort=none]"]


def test_an_adapter_is_a_variant_that_leaves_the_others_alone(folder: Path) -> None:
    base, tokenizer = trained()
    swapped = [(prompt, answer[::-1] + "a") for prompt, answer in PAIRS]
    pool = AdapterPool(model=base, targets=["q_proj", "v_proj", "up_proj"])
    train_adapter(pool, "other", lambda: answer_batch(tokenizer, swapped), steps=5, rank=4)
    pool.export("other", folder / "adapters" / "other")
    pool.close()
    save_variants(folder, [*VARIANTS, Variant(model="tiny", adapter="other")])
    model = LocalModel.load(folder)
    assert model.variants[-1] == "tiny[adapter=other]"
    assert ask(model, "tiny", "ab=") == "bcabcabc"
    with torch.no_grad():
        ids = torch.tensor([model.engine.encode("ab=")])
        logits = {}
        for name in ("tiny", "tiny[adapter=other]"):
            with model.opened(name):
                logits[name] = model.model(input_ids=ids).logits
    model.close()
    assert not torch.equal(logits["tiny"], logits["tiny[adapter=other]"])


def test_closing_gives_the_model_back_as_it_was(folder: Path) -> None:
    model = LocalModel.load(folder)
    assert model.routed is not None
    router = model.routed.router
    ask(model, "tiny", "a=")
    model.close()
    assert model.routed.router is router
    RoutedDepth(model=model.model)


def test_a_folder_without_variants_is_one_candidate(folder: Path) -> None:
    (folder / "turnout.local.json").unlink()
    assert load_variants(folder) == (Variant(model=folder.name),)


def test_messages_become_a_prompt(folder: Path) -> None:
    model = LocalModel.load(folder)
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": "b="}]
    assert model.prompt(messages) == "a\nb="
    model.tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    assert model.prompt(messages) == "<system>a<user>b=<assistant>"
    model.tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(InputError, match="got: 'System role not supported'"):
        model.prompt(messages)
    model.close()


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no model can be loaded.*no such folder"):
        LocalModel.load(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match=r"no config\.json there"):
        LocalModel.load(tmp_path.parent)
    with pytest.raises(InputError, match="every name once"):
        save_variants(folder, [VARIANTS[0], VARIANTS[0]])
    save_variants(folder, [Variant(model="tiny", adapter="law")])
    with pytest.raises(InputError, match="its adapter; allowed: none; got: 'law'"):
        LocalModel.load(folder)
    (folder / "turnout.depth.json").unlink()
    save_variants(folder, [Variant(model="tiny", effort="lean", knob=-0.5)])
    with pytest.raises(ArtifactError, match="no readable 'depth'"):
        LocalModel.load(folder)
    manifest = folder / "turnout.local.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "config": {}}))
    with pytest.raises(ArtifactError, match="objects with 'model'"):
        LocalModel.load(folder)


@pytest.mark.parametrize("kept", [0, 5, 2000])
def test_a_cut_checkpoint_is_refused(folder: Path, kept: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ArtifactError, match="no model can be loaded"):
        LocalModel.load(folder)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_an_adapter_of_the_base_under_another_name_is_vouched_for(folder: Path) -> None:
    trained()[0].save_pretrained(folder / "Qwen3-0.6B")
    base = AutoModelForCausalLM.from_pretrained(folder / "Qwen3-0.6B")
    lora = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(base, lora).save_pretrained(folder / "adapters" / "law")
    variants = [Variant(model="tiny", adapter="law")]
    save_variants(folder, variants)
    words = r"'law' was recorded with another base; allowed: .*; got: '.*/Qwen3-0.6B'.*same_base=\['law'\]"
    with pytest.raises(InputError, match=words):
        LocalModel.load(folder)
    LocalModel.load(folder, same_base=["law"]).close()
    save_variants(folder, variants, same_base=["law"])
    assert load_variants(folder) == tuple(variants)
    LocalModel.load(folder).close()
    # It vouches for the name alone: what does not fit is refused as ever, and so is a name that is none.
    with pytest.raises(ArtifactError, match=r"same_base in .*; allowed: .*law.*; got: .*lore"):
        LocalModel.load(folder, same_base=["lore"])
    config = folder / "adapters" / "law" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "use_dora": True}))
    with pytest.raises(InputError, match="use_dora"):
        LocalModel.load(folder)


def test_adapters_of_several_ranks_are_served_together(folder: Path) -> None:
    base, tokenizer = trained()
    for name, rank in (("thin", 2), ("wide", 6)):
        pool = AdapterPool(model=base, targets=["q_proj", "v_proj"])
        train_adapter(pool, name, lambda: answer_batch(tokenizer, PAIRS), steps=1, rank=rank)
        pool.export(name, folder / "adapters" / name)
        pool.close()
    save_variants(folder, [Variant(model="tiny", adapter=name) for name in ("thin", "wide")])
    model = LocalModel.load(folder)
    try:
        assert ask(model, "tiny[adapter=thin]", "a=") == ask(model, "tiny[adapter=wide]", "a=") == "b"
    finally:
        model.close()


def test_an_error_leaves_no_wrapper_on_the_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, tokenizer = trained()
    monkeypatch.setattr(local, "load_checkpoint", lambda _folder: (base, tokenizer))
    save_variants(folder, [*VARIANTS, Variant(model="tiny", adapter="law")])
    with pytest.raises(InputError, match="its adapter"):
        LocalModel.load(folder)
    RoutedDepth(model=base).unwrap()
    save_variants(folder, VARIANTS)
    model = LocalModel.load(folder)
    close = model.engine.close

    def fail() -> None:
        close()
        raise RuntimeError("no")

    monkeypatch.setattr(model.engine, "close", fail)
    with pytest.raises(RuntimeError, match="no"):
        model.close()
    RoutedDepth(model=base).unwrap()
