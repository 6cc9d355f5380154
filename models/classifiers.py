"""Classifiers over any encoder: a matrix above the mean of a text's states, or above the states at two mentions."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from models.base import mean_pooled


class _Classifier(PreTrainedModel):
    """The encoder has the name that masked-LM models of its family give it, so that their weights fit."""

    config_class = PretrainedConfig
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True  # which of them it uses is the encoder's choice
    states_read: ClassVar[int]

    def __init__(self, config: PretrainedConfig, encoder: PreTrainedModel | None = None) -> None:
        encoder = AutoModel.from_config(config) if encoder is None else encoder  # first: it chooses its attention
        super().__init__(config)
        self.loss_type = "ForSequenceClassification"
        if hasattr(encoder, "pooler"):
            encoder.pooler = None
        self.encoder_name = encoder.base_model_prefix or "encoder"
        self.add_module(self.encoder_name, encoder)
        self.dropout = nn.Dropout(getattr(config, "hidden_dropout_prob", 0.1))
        self.classifier = nn.Linear(self.states_read * config.hidden_size, int(config.num_labels or 2))

    @classmethod
    def from_config(cls, config: PretrainedConfig) -> PreTrainedModel:
        """With random weights, as the Auto classes do it."""
        return cls(config)

    @classmethod
    def from_pretrained(cls, name: Any, *args: Any, **kwargs: Any) -> PreTrainedModel:  # type: ignore[override]
        """The encoder's weights from ``name`` (folder or hub id); the head is new."""
        loading = {key: kwargs.pop(key) for key in ("use_safetensors", "ignore_mismatched_sizes") if key in kwargs}
        kwargs["trust_remote_code"] = False
        config = AutoConfig.from_pretrained(name, **kwargs)
        encoder = AutoModel.from_pretrained(name, config=config, trust_remote_code=False, **loading)
        return cls(config, encoder)

    def get_input_embeddings(self) -> Any:
        return getattr(self, self.encoder_name).get_input_embeddings()

    def set_input_embeddings(self, value: Any) -> None:
        getattr(self, self.encoder_name).set_input_embeddings(value)

    def _states(self, inputs: dict[str, Any]) -> Tensor:
        states: Tensor = getattr(self, self.encoder_name)(**inputs).last_hidden_state
        return states

    def _answer(self, read: Tensor, labels: Tensor | None) -> SequenceClassifierOutput:
        logits = self.classifier(self.dropout(read))
        loss = None if labels is None else self.loss_function(labels, logits.float(), self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class SequenceClassifier(_Classifier):
    """Labels or values of a text, from the mean of its states.

    MiniLM was made to be read so (arXiv 1908.10084); its first token's pooler was never trained. Decoders and
    encoder-decoders get the head that transformers has for them. ``classifier_pooling`` in the configuration, a word of
    ModernBERT's, tells models that were saved with that head from those that have this one.
    """

    states_read = 1

    def __init__(self, config: PretrainedConfig, encoder: PreTrainedModel | None = None) -> None:
        config.classifier_pooling = "mean"
        super().__init__(config, encoder)

    @classmethod
    def from_config(cls, config: PretrainedConfig) -> PreTrainedModel:
        """With random weights and the head that ``config`` was saved with."""
        if getattr(config, "classifier_pooling", "") == "mean":
            return cls(config)
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
        return model

    @classmethod
    def from_pretrained(cls, name: Any, *args: Any, **kwargs: Any) -> PreTrainedModel:  # type: ignore[override]
        """The weights from ``name`` (folder or hub id); the head is new."""
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        if config.is_encoder_decoder or config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
            model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(name, *args, **kwargs)
            return model
        return super().from_pretrained(name, *args, **kwargs)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **inputs: Any,
    ) -> SequenceClassifierOutput:
        """Logits ``[batch, labels]``; the loss is that of ``problem_type``, as in transformers.

        Args:
            input_ids: ``[batch, seq]``.
            attention_mask: ``[batch, seq]``; None: nothing is padding.
            labels: ``[batch]``, or ``[batch, labels]``.
            inputs: what else the encoder takes.
        """
        states = self._states({"input_ids": input_ids, "attention_mask": attention_mask, **inputs})
        mask = torch.ones_like(states[..., 0]) if attention_mask is None else attention_mask
        return self._answer(mean_pooled(states, mask), labels)


class RelationClassifier(_Classifier):
    """The relation of two mentions: the "entity start" head of Soares et al. (arXiv 1906.03158)."""

    states_read = 2

    def forward(self, pair_positions: Tensor, labels: Tensor | None = None, **inputs: Any) -> SequenceClassifierOutput:
        """Logits ``[batch, labels]``.

        Args:
            pair_positions: token at which head and tail begin ``[batch, 2]``.
            labels: ``[batch]``.
            inputs: what the encoder takes.
        """
        states = self._states(inputs)
        batch = torch.arange(states.shape[0], device=states.device)[:, None]  # len() would fix its size in an export
        return self._answer(states[batch, pair_positions].flatten(1), labels)  # [batch, 2 hidden]
