"""Words of a domain as tokens of their own: which ones, and what a model knows of them from the start."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AddedToken, PreTrainedModel, PreTrainedTokenizerBase

TERMS = "terms.json"
"""In a folder that stands for a base model with more words: that model's name, and the words."""
_TERM = re.compile(r"[^\W\d_]{3,}")
_BEFORE, _AFTER = "a ", " a"


class Extension(NamedTuple):
    """A base model and the words that it gets."""

    base: str
    terms: tuple[str, ...]

    def save(self, folder: Path) -> None:
        """Write it, so that ``folder`` can be named as a base model."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TERMS).write_text(json.dumps(self._asdict(), ensure_ascii=False, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: str) -> "Extension | None":
        """None where ``folder`` is a base model of another kind."""
        file = Path(folder) / TERMS
        if not file.is_file():
            return None
        read = json.loads(file.read_text(encoding="utf-8"))
        return cls(read["base"], tuple(read["terms"]))


def choose_terms(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, number: int) -> tuple[str, ...]:
    """The words that save most tokens as tokens of their own: how often they occur × the tokens saved each time."""
    normalizer = _lowering(tokenizer)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(_TERM.findall(normalizer.normalize_str(text) if normalizer else text))
    # a model that writes keeps the space before a word, or it would leave it out of what it writes
    cost = 1 if _reads_only(tokenizer) else 2
    saved = {
        word: count * (len(pieces) - cost)
        for word, count in counts.items()
        if count > 1 and len(pieces := pieces_of(word, tokenizer)) > cost
    }
    return tuple(sorted(saved, key=lambda word: (-saved[word], word))[:number])


def pieces_of(term: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of a word within a text."""
    text = f"{_BEFORE}{term}{_AFTER}"
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    start, stop = len(_BEFORE), len(_BEFORE) + len(term)
    pairs = zip(found["input_ids"], found["offset_mapping"], strict=True)
    return [token for token, (first, last) in pairs if first < stop and last > start]


def add_terms(tokenizer: PreTrainedTokenizerBase, terms: Sequence[str]) -> PreTrainedTokenizerBase:
    """Make each term a token where it stands as a whole word; other words keep their pieces."""
    strip = _reads_only(tokenizer)
    backend: Any = tokenizer
    split = backend.backend_tokenizer.pre_tokenizer
    if getattr(split, "prepend_scheme", "never") == "always":  # or a comma behind a term would get a space before it
        split.prepend_scheme = "first"
    tokenizer.add_tokens([AddedToken(term, single_word=True, lstrip=strip, normalized=True) for term in terms])
    return tokenizer


@torch.no_grad()
def add_embeddings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, terms: Sequence[str]) -> PreTrainedModel:
    """A row for each term in the word embeddings, and in what predicts words: the mean of its pieces' rows.

    Args:
        tokenizer: as it was before the terms were added.
    """
    first = len(tokenizer)
    inputs: Any = model.get_input_embeddings()
    if first + len(terms) > inputs.num_embeddings:  # T5 has more rows than words
        model.resize_token_embeddings(first + len(terms), mean_resizing=False)
    layers: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    parameters = {id(p): p for layer in layers if layer is not None for p in layer.parameters()}  # tied ones once
    for number, term in enumerate(terms):
        pieces = pieces_of(term, tokenizer)
        for parameter in parameters.values():
            parameter[first + number] = parameter[pieces].mean(0)
    return model


def tokens_per_word(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> float:
    """Tokens for each word between blanks."""
    texts = list(texts)
    tokens = sum(len(ids) for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"])
    return tokens / max(sum(len(text.split()) for text in texts), 1)


def _reads_only(tokenizer: PreTrainedTokenizerBase) -> bool:
    return tokenizer.mask_token_id is not None


def _lowering(tokenizer: PreTrainedTokenizerBase) -> Any:
    """What makes capitals small; None where they are told from small letters."""
    normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    return normalizer if normalizer is not None and normalizer.normalize_str("A").strip(" ▁") == "a" else None
