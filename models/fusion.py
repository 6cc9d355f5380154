"""Knowledge attention: tokens read the entities that a text may mention, through a gate that starts closed.

In-model candidate choice with a NULL entity as in KnowBERT (arXiv 1909.04164); late fusion in a narrow space with a
gated residual as in gated cross-attention (Flamingo, arXiv 2204.14198).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.entity_table import NULL, PADDING, EntityTable

KNOWLEDGE_KEYS = ("mention_entities", "mention_priors", "token_mentions")
"""Inputs that carry knowledge; a model that is given none of them is the plain one."""
VECTORS = "mention_vectors"
"""Beside them, what the table has for the candidates, where the model is not to look there itself."""
OPENING_SPEED = 30.0
"""The gate is tanh of this times its parameter. Adam moves a parameter by the learning rate at most in a step: without
this, 160 steps at 5e-4 opened the gate by 0.04, and a fused model was the plain one in all but name (November 2026)."""


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """Where and how knowledge enters a model."""

    layers: tuple[int, ...] = (4, 5)
    """Blocks after which it enters, from 0; late ones, at 70 to 85 % of the depth."""
    dim: int = 128
    """Width of the space in which tokens and mentions meet."""
    num_heads: int = 4
    dropout: float = 0.1
    decoder: bool = False
    """Of an encoder-decoder: its decoder, too, reads what the source mentions, after the same blocks."""

    def __post_init__(self) -> None:
        if self.dim < 1 or self.num_heads < 1 or self.dim % self.num_heads:
            raise ValueError(f"fusion dim {self.dim} is no multiple of its {self.num_heads} heads")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"fusion dropout is {self.dropout}, expected 0 to less than 1")


class Knowledge(NamedTuple):
    """What a batch of texts may mention."""

    mention_entities: Tensor
    """Rows of the entity table ``[batch, mentions, cand]``; slot 0 of a mention is NULL, padding is 0."""
    mention_priors: Tensor
    """Log prior of each candidate ``[batch, mentions, cand]``."""
    token_mentions: Tensor
    """The mention that covers each token, from 1; 0 for none ``[batch, seq]``."""


class FusionOutput(NamedTuple):
    """New states, and what was read on the way to them."""

    hidden: Tensor
    """``[batch, seq, hidden]``."""
    candidate_weights: Tensor
    """How far each candidate, NULL included, is believed ``[batch, mentions, cand]``."""
    reading: Tensor
    """Attention of each token to each mention, mean of the heads ``[batch, seq, mentions]``."""
    gate: Tensor
    """How much of what was read is let in ``[batch, seq]``, in [-1, 1]."""


class KnowledgeAttention(nn.Module):
    """One fusion block: choose candidates, read them, let them in."""

    table: Tensor
    """``[num_entities + 2, entity_dim]``."""

    def __init__(self, *, hidden_size: int, table: EntityTable, config: FusionConfig) -> None:
        super().__init__()
        dim = config.dim
        self.num_heads = config.num_heads
        # knowledge is data: the table is neither trained nor saved with the weights, and can be exchanged
        self.register_buffer("table", table.vectors.clone(), persistent=False)
        self.mention_query = nn.Linear(hidden_size, dim)
        self.candidate_key = nn.Linear(table.dim, dim)
        self.candidate_score = nn.Sequential(nn.Linear(2, 16), nn.GELU(), nn.Linear(16, 1))
        self.null_score = nn.Parameter(torch.zeros(()))
        self.norm = nn.LayerNorm(hidden_size)
        self.query = nn.Linear(hidden_size, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(table.dim, dim)
        self.own_mention = nn.Parameter(torch.full((config.num_heads,), 2.0))
        self.begin = nn.Parameter(torch.zeros(dim))
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
        )
        self.up = nn.Linear(dim, hidden_size)
        self.token_gate = nn.Linear(hidden_size + dim, 1)
        self.dropout = nn.Dropout(config.dropout)
        # the one closed door: were the projection zero too, no gradient would ever reach either
        self.opening = nn.Parameter(torch.zeros(()))

    def forward(
        self,
        hidden: Tensor,
        knowledge: Knowledge,
        *,
        chosen: Tensor | None = None,
        readable: Tensor | None = None,
        vectors: Tensor | None = None,
    ) -> FusionOutput:
        """Let each token read the entities of the text.

        Args:
            hidden: token states ``[batch, seq, hidden]``.
            knowledge: mentions with their candidates. A text without mentions keeps its states to the bit.
            chosen: how far each candidate is believed ``[batch, mentions, cand]``, for mentions none of whose tokens
                are among ``hidden``.
            readable: the mentions that each token may read ``[batch, seq, mentions]``; default all of its text.
            vectors: of the candidates ``[batch, mentions, cand, entity_dim]``; default those of the table.
        """
        entities, priors, token_mentions = knowledge
        real = entities != PADDING  # [batch, mentions, cand]
        mentioned = real.any(-1)  # [batch, mentions]
        numbers = torch.arange(1, entities.shape[1] + 1, device=entities.device)
        covers = (token_mentions[..., None] == numbers).to(hidden.dtype)  # [batch, seq, mentions]
        states = self.norm(hidden)

        vectors = (self.table[entities] if vectors is None else vectors).to(hidden.dtype)
        weights = self._choose(states, vectors, entities, priors, real, covers)
        if chosen is not None:
            weights = torch.where(covers.any(1)[..., None], weights, chosen)
        believed = weights * (entities > NULL)
        vector = torch.einsum("bmc,bmce->bme", believed, vectors)
        trust = believed.sum(-1)  # [batch, mentions]: one less what goes to NULL

        readable = mentioned[:, None] if readable is None else readable & mentioned[:, None]
        read, reading = self._read(states, self.value(vector), trust, readable, covers)
        first = (token_mentions > 0) & (token_mentions != nn.functional.pad(token_mentions, (1, -1)))
        read = read + first[..., None].to(read.dtype) * self.begin
        read = read + self.feed_forward(read)
        gate = torch.tanh(OPENING_SPEED * self.opening) * torch.sigmoid(
            self.token_gate(torch.cat([states, read], dim=-1))
        ).squeeze(-1)
        # what a token may take is bounded by how far its mentions are believed; NULL alone gives exactly nothing
        gate = gate * torch.einsum("bsm,bm->bs", reading, trust)
        gate = torch.where(mentioned.any(-1, keepdim=True), gate, torch.zeros_like(gate))
        fused = hidden + gate[..., None] * self.dropout(self.up(read))
        return FusionOutput(fused.to(hidden.dtype), weights, reading, gate)

    def _choose(
        self, states: Tensor, vectors: Tensor, entities: Tensor, priors: Tensor, real: Tensor, covers: Tensor
    ) -> Tensor:
        """Softmax over a mention's candidates and NULL; padding mentions get zeros ``[batch, mentions, cand]``."""
        lengths = covers.sum(1).clamp(min=1)
        pooled = torch.einsum("bsm,bsh->bmh", covers, states) / lengths[..., None]
        query = self.mention_query(pooled)
        match = torch.einsum("bmd,bmcd->bmc", query, self.candidate_key(vectors)) / math.sqrt(query.shape[-1])
        scores = self.candidate_score(torch.stack([match, priors.to(match.dtype)], dim=-1)).squeeze(-1) + match
        scores = torch.where(entities == NULL, self.null_score.to(scores.dtype), scores)
        scores = scores.masked_fill(~real, torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores.float(), dim=-1).to(states.dtype)
        return weights * real

    def _read(
        self, states: Tensor, values: Tensor, trust: Tensor, readable: Tensor, covers: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Attention of tokens to mentions, with a sentinel that stands for reading nothing."""
        batch, seq, _ = states.shape
        heads = self.num_heads
        query = self.query(states).unflatten(-1, (heads, -1))
        key = self.key(values).unflatten(-1, (heads, -1))
        scores = torch.einsum("bshd,bmhd->bhsm", query, key) / math.sqrt(query.shape[-1])
        scores = scores + torch.einsum("h,bsm->bhsm", self.own_mention.to(scores.dtype), covers)
        scores = scores.masked_fill(~readable[:, None], torch.finfo(scores.dtype).min)
        sentinel = scores.new_zeros(batch, heads, seq, 1)  # never masked: no row is a softmax over nothing
        weights = torch.softmax(torch.cat([sentinel, scores], dim=-1).float(), dim=-1)[..., 1:].to(states.dtype)
        weights = weights * readable[:, None]
        read = torch.einsum("bhsm,bmhd->bshd", weights, values.unflatten(-1, (heads, -1))).flatten(-2)
        return read, weights.mean(1)
