"""A relation classifier over any encoder: the states at the two mentions' marks, side by side, and one matrix."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class RelationClassifier(PreTrainedModel):
    """The "entity start" head of Soares et al. (arXiv 1906.03158).

    The encoder has the name that masked-LM models of its family give it, so that their weights fit.
    """

    config_class = PretrainedConfig
    supports_gradient_checkpointing = True

    def __init__(self, config: PretrainedConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        encoder = AutoModel.from_config(config) if encoder is None else encoder
        self.encoder_name = encoder.base_model_prefix or "encoder"
        self.add_module(self.encoder_name, encoder)
        self.dropout = nn.Dropout(getattr(config, "hidden_dropout_prob", 0.1))
        self.classifier = nn.Linear(2 * config.hidden_size, int(config.num_labels or 2))

    @classmethod
    def from_config(cls, config: PretrainedConfig) -> "RelationClassifier":
        """With random weights, as the Auto classes do it."""
        return cls(config)

    @classmethod
    def from_pretrained(cls, name: Any, *args: Any, **kwargs: Any) -> "RelationClassifier":  # type: ignore[override]
        """The encoder's weights from ``name`` (folder or hub id); the head is new."""
        loading = {key: kwargs.pop(key) for key in ("use_safetensors", "ignore_mismatched_sizes") if key in kwargs}
        config = AutoConfig.from_pretrained(name, **kwargs)
        encoder = AutoModel.from_pretrained(name, config=config, **loading)
        return cls(config, encoder)

    def get_input_embeddings(self) -> Any:
        return getattr(self, self.encoder_name).get_input_embeddings()

    def set_input_embeddings(self, value: Any) -> None:
        getattr(self, self.encoder_name).set_input_embeddings(value)

    def forward(self, pair_positions: Tensor, labels: Tensor | None = None, **inputs: Any) -> SequenceClassifierOutput:
        """Logits ``[batch, labels]``.

        Args:
            pair_positions: token at which head and tail begin ``[batch, 2]``.
            labels: ``[batch]``.
            inputs: what the encoder takes.
        """
        states = getattr(self, self.encoder_name)(**inputs).last_hidden_state
        batch = torch.arange(states.shape[0], device=states.device)[:, None]  # len() would fix its size in an export
        pair = states[batch, pair_positions].flatten(1)  # [batch, 2 hidden]
        logits = self.classifier(self.dropout(pair))
        loss = None if labels is None else nn.functional.cross_entropy(logits.float(), labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)
