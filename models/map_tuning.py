"""Teaching the map: what a fused model is to make of an entity's vector, before it sees any label.

A mention is masked, and the model has to bring its state to what the base model makes of the unmasked words; only the
entity tells it what they were. Some links are led astray, and the choice of candidates has to say so (entity denoising
with NULL as the target, after ERNIE, arXiv 1905.07129). Base and table stay as they are; no text needs a label. States
are the target, not words: masked words as in pretraining would need a vocabulary head, which costs as much as the
whole of MiniLM.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from models.batch import batches_by_length
from models.entity_table import NULL
from models.frozen import Collate
from models.injection import knowledge_of
from models.mentions import wrong_links
from models.objectives import MARKS

MENTION, TARGET, LINKS = "target_mention", "target_state", "true_entities"
"""Keys of a feature: the masked mention, from 1; its state in the unmasked text; ``mention_entities`` as linked."""


def masked_mentions(features: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    """Each linked mention of each text, masked: its tokens but for signs that are marks of a pair."""
    kept = {tokenizer.convert_tokens_to_ids(mark) for mark in MARKS}
    variants = []
    for feature in features:
        for mention in range(1, len(feature["mention_entities"]) + 1):
            tokens = [
                tokenizer.mask_token_id if of == mention and token not in kept else token
                for token, of in zip(feature["input_ids"], feature["token_mentions"], strict=True)
            ]
            names = ("attention_mask", "mention_entities", "mention_priors", "mention_links", "token_mentions")
            variants.append({**{name: feature[name] for name in names}, "input_ids": tokens, MENTION: mention})
    return variants


def unmasked_states(
    encoder: PreTrainedModel, features: Sequence[Mapping[str, Any]], collate: Collate, *, batch_size: int = 64
) -> list[Tensor]:
    """Mean last state of each mention of each text, without knowledge ``[hidden]``, in ``masked_mentions``' order."""
    found: dict[int, list[Tensor]] = {}
    encoder.eval()
    with torch.inference_mode():
        for indices in batches_by_length(features, batch_size):
            batch = collate([dict(features[index]) for index in indices])
            states = encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
            for index, of, rows in zip(indices, batch["token_mentions"], states, strict=True):
                count = len(features[index]["mention_entities"])
                found[index] = [rows[of == mention].mean(0).float() for mention in range(1, count + 1)]
    return [state.clone() for index in range(len(features)) for state in found[index]]


def lead_astray(feature: Mapping[str, Any], share: float, num_entities: int, draw: int) -> dict[str, Any]:
    """Lead each mention to a wrong entity with probability ``share``; the true ones are kept as the target."""
    return {**wrong_links(feature, share, num_entities, draw), LINKS: feature["mention_entities"]}


class MapTuner(nn.Module):
    """A fused encoder and what it is taught with; its forward gives the loss that a trainer asks for."""

    def __init__(self, encoder: PreTrainedModel, *, spread: float) -> None:
        """
        Args:
            spread: variance of the target states, by which the squared error is divided.
        """
        super().__init__()
        self.encoder, self.spread = encoder, spread
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_("knowledge_attention" in name)

    def forward(self, **batch: Any) -> dict[str, Tensor]:
        """Squared error of the masked mention's state, plus cross-entropy of the choice of candidates at each layer."""
        mention, target, true = (batch.pop(key) for key in (MENTION, TARGET, LINKS))
        output = self.encoder(**batch)
        covers = (batch["token_mentions"] == mention[:, None]).to(target.dtype)  # [batch, seq]
        states = output.last_hidden_state.to(target.dtype)
        reached = torch.einsum("bs,bsh->bh", covers, states) / covers.sum(1, keepdim=True).clamp(min=1)
        loss = nn.functional.mse_loss(reached, target) / self.spread
        entities = batch["mention_entities"]
        real = (entities > NULL).any(-1)  # [batch, mentions]
        right = (entities == true).all(-1) & real
        for read in knowledge_of(output).values():
            null = read.candidate_weights[..., 0].float().clamp(1e-6, 1 - 1e-6)
            chosen = torch.where(right, 1 - null, null)
            loss = loss - (chosen.log() * real).sum() / real.sum().clamp(min=1) / len(knowledge_of(output))
        return {"loss": loss}


def collate_targets(collate: Collate) -> Collate:
    """``collate`` for features that ``masked_mentions`` made."""

    def collated(features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch = collate(features)
        batch[MENTION] = torch.tensor([feature[MENTION] for feature in features])
        batch[TARGET] = torch.stack([feature[TARGET] for feature in features])
        as_linked = collate([{**feature, "mention_entities": feature[LINKS]} for feature in features])
        batch[LINKS] = as_linked["mention_entities"]
        return batch

    return collated
