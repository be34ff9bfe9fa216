"""This module makes a word-level tokenizer: tags and names are one token each, rare words are unknown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from turnout.nn.tiny import SPECIAL, with_special_tokens

_WORD = r"</?[a-z]+>|[^\s<]+|<"


def word_tokenizer(
    fixed: Iterable[str], texts: Iterable[str] = (), *, max_words: int = 500
) -> PreTrainedTokenizerFast:
    """Return a tokenizer of words.

    Parameters
    ----------
    fixed:
        Words that are always known, such as tags (`<think>`) and names; none may hold a space.
    texts:
        Texts whose most frequent words are known too, at most `max_words` of them.
    max_words:
        How many.
    """
    counts = Counter(word for text in texts for word in text.split())
    frequent = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    words = list(dict.fromkeys([*SPECIAL, *fixed, *frequent[:max_words]]))
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True)
    return with_special_tokens(tokenizer)
