"""Tiny models with random weights, and knowledge for their inputs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaForTokenClassification,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)

from kg.linking import Linker
from models.base import load_tokenizer
from models.batch import KnowledgeEncoder
from models.entity_table import FIRST, NULL, EntityTable
from models.fusion import KNOWLEDGE_KEYS, FusionConfig, Knowledge, KnowledgeAttention
from tests.builders import tiny_snapshot

FUSION = FusionConfig(layers=(1, 2), dim=16, num_heads=2, dropout=0.0)
TABLE = EntityTable.random(num_entities=10, dim=8, seed=3)
VOCABULARY = 60

_SHAPE = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
_T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 4, "num_heads": 2, "decoder_start_token_id": 0}
MODELS = {
    "bert": lambda: BertForSequenceClassification(BertConfig(vocab_size=VOCABULARY, **_SHAPE)),
    "roberta": lambda: RobertaForTokenClassification(RobertaConfig(vocab_size=VOCABULARY, pad_token_id=0, **_SHAPE)),
    "albert": lambda: AlbertForSequenceClassification(
        AlbertConfig(vocab_size=VOCABULARY, embedding_size=16, num_hidden_groups=1, **_SHAPE)
    ),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_layer=4, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=2
        )
    ),
    "t5": lambda: T5ForConditionalGeneration(T5Config(vocab_size=VOCABULARY, **_T5)),
    "t5_encoder": lambda: T5EncoderModel(T5Config(vocab_size=VOCABULARY, **_T5)),
}


def tiny_model(kind: str, *, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    return MODELS[kind]().eval()


def tiny_inputs(kind: str, *, batch: int = 3, seq: int = 7) -> dict[str, Tensor]:
    """Random tokens; the last text is two tokens shorter than the others."""
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "input_ids": torch.randint(3, VOCABULARY, (batch, seq), generator=generator),
        "attention_mask": torch.ones(batch, seq, dtype=torch.long),
    }
    inputs["attention_mask"][-1, -2:] = 0
    if kind == "t5":
        inputs["decoder_input_ids"] = inputs["input_ids"][:, :3]
    return inputs


def tiny_knowledge(*, batch: int = 3, seq: int = 7) -> dict[str, Tensor]:
    """Two mentions in the first text, none in the second, one in all others."""
    entities = torch.zeros(batch, 2, 3, dtype=torch.long)
    tokens = torch.zeros(batch, seq, dtype=torch.long)
    entities[:, 0] = torch.tensor([NULL, FIRST + 3, FIRST + 5])
    tokens[:, 1:3] = 1
    entities[0, 1, :2] = torch.tensor([NULL, FIRST + 7])
    tokens[0, 4] = 2
    entities[1], tokens[1] = 0, 0
    priors = torch.where(entities > NULL, torch.full(entities.shape, -0.5), torch.zeros(entities.shape))
    return dict(zip(KNOWLEDGE_KEYS, Knowledge(entities, priors, tokens), strict=True))


def plain_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs without knowledge."""
    return {name: value for name, value in inputs.items() if name not in KNOWLEDGE_KEYS}


def attentions(model: nn.Module) -> list[KnowledgeAttention]:
    return [module for module in model.modules() if isinstance(module, KnowledgeAttention)]


def open_gates(model: nn.Module, value: float = 1.0) -> None:
    for attention in attentions(model):
        nn.init.constant_(attention.opening, value)


def answer(model: nn.Module, **inputs: Any) -> Tensor:
    """Logits, or last states of a model without a head."""
    with torch.no_grad():
        output = model(**inputs)
    return output.logits if "logits" in output else output.last_hidden_state


def tiny_base(folder: Path, model_class: Any = BertForSequenceClassification, **options: Any) -> str:
    """A BERT with MiniLM's vocabulary, saved so that ``from_base`` can take it."""
    tokenizer = load_tokenizer("minilm")
    torch.manual_seed(0)
    model = model_class(BertConfig(vocab_size=len(tokenizer), **_SHAPE, **options))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def tiny_encoder(folder: Path, **options: Any) -> KnowledgeEncoder:
    """Encodes with MiniLM's tokenizer and the companies of ``tiny_snapshot``."""
    snapshot = tiny_snapshot(folder / "snapshot")
    vectors = torch.randn(snapshot.num_entities + FIRST, 8, generator=torch.Generator().manual_seed(2))
    table = EntityTable(tuple(snapshot.ids), vectors, snapshot.hash, "random")
    return KnowledgeEncoder(load_tokenizer("minilm"), Linker.load(snapshot), table, **options)
