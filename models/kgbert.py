"""Fused models as Hugging Face classes: ``save_pretrained``, ``from_pretrained`` and the Auto classes work on them."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from models.base import load_base, own_weights
from models.classifiers import RelationClassifier, SequenceClassifier
from models.entity_table import FIRST, EntityTable
from models.fusion import FusionConfig
from models.injection import inject_knowledge, set_table


class KGBertConfig(PretrainedConfig):
    """The base model's own configuration, and how knowledge enters it."""

    model_type = "kgbert"

    def __init__(
        self,
        *,
        base_config: dict[str, Any] | None = None,
        fusion: dict[str, Any] | None = None,
        num_entities: int = 0,
        entity_dim: int = 128,
        snapshot_hash: str = "",
        **kwargs: Any,
    ) -> None:
        self.base_config = base_config or {}
        self.fusion = fusion or {}
        self.num_entities = num_entities
        self.entity_dim = entity_dim
        self.snapshot_hash = snapshot_hash
        super().__init__(**kwargs)

    def fusion_options(self) -> FusionConfig:
        """``fusion`` as its dataclass (``fusion_config`` is a word of transformers' own)."""
        return FusionConfig(**{**self.fusion, "layers": tuple(self.fusion.get("layers", FusionConfig.layers))})


class KGBertModel(PreTrainedModel):
    """A base model of any architecture, fused; each subclass says for which task."""

    config_class = KGBertConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    auto_class: ClassVar[Any]

    def __init__(self, config: KGBertConfig) -> None:
        super().__init__(config)
        base_config = AutoConfig.for_model(**config.base_config)
        base = self.auto_class.from_config(base_config)
        empty = EntityTable(
            ids=tuple(map(str, range(config.num_entities))),
            vectors=torch.zeros(config.num_entities + FIRST, config.entity_dim),
            snapshot_hash=config.snapshot_hash,
            encoder_hash="",
        )
        self.entity_table = empty
        self.model = inject_knowledge(base, empty, fusion=config.fusion_options())
        self.post_init()  # type: ignore[no-untyped-call]

    @classmethod
    def from_base(
        cls, name: str, table: EntityTable, *, fusion: FusionConfig | None = None, **options: Any
    ) -> "KGBertModel":
        """A base model (``minilm``, folder, hub id) with its weights, fused with ``table``, gates closed.

        Args:
            options: for the base model's configuration: ``num_labels``, ``id2label`` …
        """
        fusion = fusion or FusionConfig()
        base = load_base(name, cls.auto_class, **options)
        base_config = base.config
        config = KGBertConfig(
            base_config=base_config.to_dict() | {"model_type": base_config.model_type},
            fusion={key: getattr(fusion, key) for key in fusion.__dataclass_fields__},
            num_entities=len(table.ids),
            entity_dim=table.dim,
            snapshot_hash=table.snapshot_hash,
            id2label=base_config.id2label,
            label2id=base_config.label2id,
            problem_type=base_config.problem_type,
        )
        model = cls(config)
        # made before anything of the fusion draws a random number: all arms of a comparison begin with the same head
        model.model = inject_knowledge(base, table, fusion=fusion)
        model.entity_table = table
        return model

    def set_table(self, table: EntityTable) -> None:
        """Exchange the knowledge; the weights stay as they are."""
        set_table(self, table)
        self.entity_table = table
        self.config.num_entities, self.config.snapshot_hash = len(table.ids), table.snapshot_hash

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the base model's, plus ``mention_entities``, ``mention_priors`` and ``token_mentions``."""
        return self.model(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """As the base model's, with the same three arguments beside its own."""
        return self.model.generate(*args, **kwargs)

    def get_input_embeddings(self) -> Any:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: Any) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> Any:
        return self.model.get_output_embeddings()

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Weights and configuration as usual, and the entity table beside them."""
        super().save_pretrained(save_directory, *args, **kwargs)
        self.entity_table.save(Path(save_directory))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As ``PreTrainedModel.from_pretrained``; the entity table is read from the same folder."""
        kwargs.setdefault("use_safetensors", True)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        own_weights(model)
        model.set_table(EntityTable.load(pretrained_model_name_or_path))
        return loaded


class KGBertForMaskedLM(KGBertModel):
    """Predicts masked tokens."""

    auto_class = AutoModelForMaskedLM


class KGBertForCausalLM(KGBertModel):
    """Predicts the next token."""

    auto_class = AutoModelForCausalLM


class KGBertForSeq2SeqLM(KGBertModel):
    """Predicts what is to be written of a text."""

    auto_class = AutoModelForSeq2SeqLM


class KGBertForQuestionAnswering(KGBertModel):
    """Predicts where in a text an answer starts and ends."""

    auto_class = AutoModelForQuestionAnswering


class KGBertForSequenceClassification(KGBertModel):
    """Predicts labels or values of texts."""

    auto_class = SequenceClassifier


class KGBertForTokenClassification(KGBertModel):
    """Predicts a label for each token."""

    auto_class = AutoModelForTokenClassification


class KGBertForRelationClassification(KGBertModel):
    """Predicts the relation of two marked mentions."""

    auto_class = RelationClassifier


AutoConfig.register(KGBertConfig.model_type, KGBertConfig)
for _class in (
    KGBertForMaskedLM,
    KGBertForCausalLM,
    KGBertForSeq2SeqLM,
    KGBertForQuestionAnswering,
    KGBertForTokenClassification,
):
    _class.auto_class.register(KGBertConfig, _class)
AutoModelForSequenceClassification.register(KGBertConfig, KGBertForSequenceClassification)
