"""Models with running states are served as `generate` answers; a family that cannot be served is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as hf
from tokenizers import processors
from transformers import AutoTokenizer, PreTrainedModel

from tests.nn.serving.models import Ear
from turnout.core.errors import ArtifactError
from turnout.core.generation import Finished, Generation
from turnout.nn.serving.local import LocalModel
from turnout.nn.tiny import BOS, EOS, character_tokenizer

SIZES = {
    "vocab_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
SMALL = {"vocab_size": 16, "hidden_size": 32, "num_hidden_layers": 2, "eos_token_id": None}
LINEAR = {f"linear_{part}": 8 for part in ("key_head_dim", "value_head_dim")}

Make = Callable[[], PreTrainedModel]


def qwen3_next() -> PreTrainedModel:
    config = hf.Qwen3NextConfig(
        **SIZES,
        **LINEAR,
        head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        num_experts=0,
        mlp_only_layers=[0, 1, 2, 3],
    )
    return hf.Qwen3NextForCausalLM(config)


def lfm2() -> PreTrainedModel:
    kinds = ["conv", "full_attention", "conv", "full_attention"]
    return hf.Lfm2ForCausalLM(hf.Lfm2Config(**SIZES, layer_types=kinds))


def falcon_h1() -> PreTrainedModel:
    config = hf.FalconH1Config(
        **SIZES, head_dim=8, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8
    )
    return hf.FalconH1ForCausalLM(config)


def mamba() -> PreTrainedModel:
    return hf.MambaForCausalLM(hf.MambaConfig(**SMALL, state_size=4))


def gemma2() -> PreTrainedModel:
    return hf.Gemma2ForCausalLM(hf.Gemma2Config(**SIZES, head_dim=8, sliding_window=4))


def bart() -> PreTrainedModel:
    sizes = {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48}
    tokens = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0, "forced_eos_token_id": None}
    model = hf.BartForCausalLM(hf.BartConfig(vocab_size=16, max_position_embeddings=64, **sizes, **tokens))
    # So that it matters where a token stands: BART counts padding, too.
    with torch.no_grad():
        model.model.decoder.embed_positions.weight.mul_(20.0)
    return model


def rwkv() -> PreTrainedModel:
    return hf.RwkvForCausalLM(hf.RwkvConfig(**SMALL, attention_hidden_size=32))


def recurrent_gemma() -> PreTrainedModel:
    sizes = {**SIZES, "num_key_value_heads": 1}
    return hf.RecurrentGemmaForCausalLM(
        hf.RecurrentGemmaConfig(**sizes, lru_width=32, attention_window_size=8)
    )


def save(folder: Path, make: Make) -> PreTrainedModel:
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        # Far from the even scores of small weights, so that the likeliest token has no rival.
        for value in model.parameters():
            value.mul_(1.0 + 2.0 * (value.dim() == 2))
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    character_tokenizer("abcdefgh=").save_pretrained(folder)
    return model


@pytest.mark.parametrize("make", [qwen3_next, lfm2, falcon_h1, mamba, gemma2, bart])
def test_rows_that_come_and_go_are_answered_as_generate_does(tmp_path: Path, make: Make) -> None:
    model = save(tmp_path, make)
    local = LocalModel.load(tmp_path)
    asked = [("ab=", 3), ("abcdefgh=", 9), ("ha=", 9), ("cdb=", 5), ("gah=", 6)]
    try:
        ears = [Ear() for _ in asked]
        for (prompt, tokens), ear in zip(asked, ears, strict=True):
            request = Generation(prompt=prompt, variant=local.variants[0], max_new_tokens=tokens)
            local.submit(request, ear)
        found = [ear.pieces() for ear in ears]
        for (prompt, tokens), (texts, end) in zip(asked, found, strict=True):
            ids_1T = torch.tensor([local.engine.encode(prompt)])
            ends = sorted(local.engine._ends)
            wanted_T = model.generate(ids_1T, max_new_tokens=tokens, do_sample=False, eos_token_id=ends)[0]
            wanted = local.tokenizer.decode(wanted_T[ids_1T.shape[1] :], skip_special_tokens=True)
            assert isinstance(end, Finished), end
            assert "".join(texts) == wanted
            assert end.output_tokens == len(wanted_T) - ids_1T.shape[1]
    finally:
        local.close()


@pytest.mark.parametrize("make", [rwkv, recurrent_gemma])
def test_a_family_whose_answers_would_be_wrong_is_refused_by_name(tmp_path: Path, make: Make) -> None:
    save(tmp_path, make)
    with pytest.raises(ArtifactError, match=f"models of the family '{make.__name__}' cannot be served"):
        LocalModel.load(tmp_path)


TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}={% endif %}"


@pytest.mark.parametrize("has_template", [False, True])
@pytest.mark.parametrize("has_begin", [False, True])
@pytest.mark.parametrize("has_end", [False, True])
def test_a_prompt_is_read_as_the_models_own_tokenizer_writes_it(
    tmp_path: Path, has_template: bool, has_begin: bool, has_end: bool
) -> None:
    folder = tmp_path / "model"
    save(folder, gemma2)
    # GPT-2, Pythia and others have a begin token that they write nowhere; T5 and others end a text.
    single = ("<bos> " if has_begin else "") + "$A" + (" <eos>" if has_end else "")
    tokenizer = character_tokenizer("abcdefgh=")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[("<bos>", BOS), ("<eos>", EOS)]
    )
    tokenizer.chat_template = TEMPLATE if has_template else None
    tokenizer.save_pretrained(folder)
    stock = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "ab"}]
    local = LocalModel.load(folder)
    try:
        found = local.engine.encode(local.prompt(messages))
    finally:
        local.close()
    if has_template:
        wanted = stock.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    else:
        wanted = stock("ab").input_ids
    assert found == wanted
