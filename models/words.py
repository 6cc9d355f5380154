"""What each word of a text did to an answer."""

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from models.batch import KnowledgeCollator
from models.objectives import Asked, Objective

BATCH = 16
STEPS, TOLERANCE = (32, 128, 512), 0.005
"""Steps of integrated gradients, the next number where the attributions miss their sum by more than this."""


@dataclass(frozen=True, kw_only=True)
class Word:
    """What one word of the text did to the answer."""

    start: int
    end: int
    text: str
    attribution: float
    """Its part of the probability of the answer less that of a text of masks; the parts of all words sum to that."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """What the words did to the answer, knowledge given, by integrated gradients (arXiv 1703.01365)."""

    words: tuple[Word, ...]
    baseline: float
    """Probability of the answer with every word masked and the knowledge left."""
    error: float
    """What the attributions sum to, less what they should."""


def attribute(
    model: PreTrainedModel,
    collate: KnowledgeCollator,
    text: str,
    feature: Mapping[str, Any],
    asked: Asked,
    objective: Objective,
) -> Words:
    """Integrated gradients of the answer's probability over the word embeddings, from masks to the words.

    They go in as ``inputs_embeds``: a hook on the embedding layer would be seen by other threads.

    Args:
        objective: reads the probabilities of which ``asked`` names some out of what the model gives.
    """
    from captum.attr import IntegratedGradients

    matches = list(re.finditer(r"\w+|[^\w\s]", text))
    starts = [match.start() for match in matches]
    word_of = {
        token: bisect_right(starts, end - 1) - 1
        for token, (start, end) in enumerate(feature["offsets"])
        if end > start and starts and starts[0] < end
    }
    tokenizer = collate.tokenizer
    filler = tokenizer.pad_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id
    masked = [int(filler or 0) if token in word_of else id for token, id in enumerate(feature["input_ids"])]
    inputs = collate([feature])
    ids = inputs.pop("input_ids")

    def probability(embeddings: torch.Tensor) -> torch.Tensor:
        batch = {name: value.expand(len(embeddings), *value.shape[1:]) for name, value in inputs.items()}
        output = model(inputs_embeds=embeddings, **batch)
        support: torch.Tensor = support_of(objective.probabilities(objective.raw(output)), asked)
        return support

    embed = model.get_input_embeddings()
    with torch.no_grad():
        of_words, of_masks = embed(ids), embed(torch.tensor([masked]))
        baseline = float(probability(of_masks)[0])
    for steps in STEPS:
        parts, error = IntegratedGradients(probability).attribute(
            of_words, of_masks, n_steps=steps, internal_batch_size=BATCH, return_convergence_delta=True
        )
        if abs(float(error)) < TOLERANCE:
            break
    sums = [0.0] * len(matches)
    for token, word in word_of.items():
        sums[word] += float(parts[0, token].sum())
    read = sorted(set(word_of.values()))
    return Words(
        words=tuple(
            Word(
                start=matches[word].start(),
                end=matches[word].end(),
                text=matches[word].group(),
                attribution=round(sums[word], 4),
            )
            for word in read
        ),
        baseline=round(baseline, 4),
        error=round(float(error), 4),
    )


def support_of(probabilities: Any, asked: Asked) -> Any:
    """Mean probability of what is asked, of an array or a tensor with a row for each variant."""
    given = probabilities[(slice(None), *asked)]
    return given.mean(-1) if given.shape[-1] else given.sum(-1)
