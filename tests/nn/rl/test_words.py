"""Tags and names are one token each; rare words are unknown."""

from __future__ import annotations

from turnout.nn.rl.words import word_tokenizer


def test_tags_and_names_are_single_tokens_with_or_without_spaces() -> None:
    tokenizer = word_tokenizer(["<think>", "</think>", "qwen[effort=low]"], ["so it is so"], max_words=1)
    ids = tokenizer.encode("<think>so</think> qwen[effort=low] it", add_special_tokens=False)
    words = tokenizer.convert_ids_to_tokens(ids)
    assert words == ["<think>", "so", "</think>", "qwen[effort=low]", "<unk>"]
    assert tokenizer.decode(ids[:3]) == "<think> so </think>"


def test_a_lone_bracket_is_a_word_and_nothing_is_lost_silently() -> None:
    tokenizer = word_tokenizer(["a"])
    assert len(tokenizer.encode("a < a", add_special_tokens=False)) == 3
