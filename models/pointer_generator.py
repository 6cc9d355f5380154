"""An encoder-decoder that may copy: each token it writes comes from the vocabulary or from a place in the source.

Abigail See, Peter J. Liu, Christopher D. Manning: Get To The Point (ACL 2017, arXiv 1704.04368), on models that have
been pretrained. Copying needs few examples to be learnt, writing needs many: names, doses and terms of a source are
written right long before the cross-attention, which starts untrained, has learnt to carry them over.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from transformers import AutoConfig, AutoModelForSeq2SeqLM, EncoderDecoderConfig, EncoderDecoderModel
from transformers.modeling_outputs import Seq2SeqLMOutput

from models.batch import IGNORED

SOURCE = "source_ids"
"""Key of an encoder's output: the tokens that may be copied."""
TINY = 1e-9


class PointerGeneratorConfig(EncoderDecoderConfig):
    model_type = "pointer-generator"


class PointerGenerator(EncoderDecoderModel):
    """``logits`` are log probabilities of the mixture ``[batch, target, vocabulary]``."""

    config_class = PointerGeneratorConfig

    def __init__(self, config: Any = None, encoder: Any = None, decoder: Any = None) -> None:
        if not isinstance(config, PointerGeneratorConfig):
            config = PointerGeneratorConfig.from_encoder_decoder_configs(encoder.config, decoder.config)
        super().__init__(config, encoder, decoder)
        width, source_width = config.decoder.hidden_size, config.encoder.hidden_size
        self.copy_query = nn.Linear(width, width)
        self.copy_key = nn.Linear(source_width, width, bias=False)
        self.copy_share = nn.Linear(2 * width, 1)
        self.encoder.register_forward_hook(_keep_source, with_kwargs=True)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        encoder_outputs: Any = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """As ``EncoderDecoderModel``, whose encoder outputs have to come from ``generate`` where they are given."""
        source: Any = input_ids if encoder_outputs is None else encoder_outputs[SOURCE]
        if labels is not None and decoder_input_ids is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        output: Any = super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            encoder_outputs=encoder_outputs,
            decoder_output_hidden_states=True,
            **kwargs,
        )
        where, copies = self.copied(output, source, attention_mask)
        if labels is not None:
            output.loss = self.loss(output.logits, where, copies, source, labels)
        if labels is None or not self.training:
            share = copies.sigmoid()
            written = output.logits.float().softmax(-1) * (1 - share)
            places = source[:, None].expand(-1, written.shape[1], -1)
            output.logits = written.scatter_add(2, places, where * share).clamp(min=TINY).log()
        output.decoder_hidden_states = None
        read: Seq2SeqLMOutput = output
        return read

    def copied(self, output: Any, source: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Of each token that is written, where in the source it is from if copied ``[batch, target, source]``, and the
        logit of its being copied ``[batch, target, 1]``.

        The vocabulary's scores of the source's tokens are where the choice begins: untrained, it copies what of the
        source the decoder would write.
        """
        states, read = output.decoder_hidden_states[-1], output.encoder_last_hidden_state
        scores = self.copy_query(states) @ self.copy_key(read).transpose(1, 2) / states.shape[-1] ** 0.5
        places = source[:, None].expand(-1, states.shape[1], -1)
        scores = scores.float() + output.logits.detach().gather(2, places).float()
        if mask is not None:
            scores = scores.masked_fill(mask[:, None] == 0, torch.finfo(scores.dtype).min)
        where = scores.softmax(-1)
        return where, self.copy_share(torch.cat([states, where.to(read.dtype) @ read], dim=-1)).float()

    def loss(self, logits: Tensor, where: Tensor, copies: Tensor, source: Tensor, labels: Tensor) -> Tensor:
        """Mean negative log probability of the labels, without the mixture of all other tokens."""
        kept = labels != IGNORED
        written = -nn.functional.cross_entropy(logits[kept].float(), labels[kept], reduction="none")
        same = source[:, None] == labels[..., None]
        copied = (where * same).sum(-1)[kept].clamp(min=TINY).log()
        copies = copies[..., 0][kept]
        log_chance: Tensor = torch.logaddexp(logsigmoid(-copies) + written, logsigmoid(copies) + copied)
        return -log_chance.mean()


def _keep_source(encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """``generate`` runs the encoder by itself, and gives the decoder what comes of it."""
    output[SOURCE] = args[0] if args else kwargs["input_ids"]


AutoConfig.register(PointerGeneratorConfig.model_type, PointerGeneratorConfig)
AutoModelForSeq2SeqLM.register(PointerGeneratorConfig, PointerGenerator)
