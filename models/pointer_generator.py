"""An encoder-decoder that may copy: each token it writes comes from the vocabulary or from a place in the source.

Abigail See, Peter J. Liu, Christopher D. Manning: Get To The Point (ACL 2017, arXiv 1704.04368), on models that have
been pretrained. Copying needs few examples to be learnt, writing needs many: names, doses and terms of a source are
written right long before the cross-attention, which starts untrained, has learnt to carry them over. That a copy
goes on where it is has not to be learnt: Gu et al., CopyNet (ACL 2016, arXiv 1603.06393), call it the selective read.
"""

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from transformers import AutoConfig, AutoModelForSeq2SeqLM, EncoderDecoderConfig, EncoderDecoderModel
from transformers.modeling_outputs import Seq2SeqLMOutput

from models.batch import IGNORED
from models.heads import predict_only

SOURCE = "source_ids"
"""Key of an encoder's output: the tokens that may be copied."""
TINY = 1e-9
COPY_ON = 4.0
"""What it is worth at first to stand behind the token that was written last, in logits."""


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
        self.copy_share = nn.Linear(width + source_width, 1)
        self.copy_on = nn.Parameter(torch.tensor(COPY_ON))
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
        """As ``EncoderDecoderModel``, whose encoder outputs have to come from ``generate`` where they are given.

        In training with labels the logits are left out, but for those that the loss is of.
        """
        source: Any = input_ids if encoder_outputs is None else encoder_outputs[SOURCE]
        labelled = labels is not None and self.training
        asked: Any = labels != IGNORED if labelled else None
        if labels is not None and decoder_input_ids is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        with predict_only(self.decoder, lambda: asked) if labelled else nullcontext():
            output: Any = super().forward(
                input_ids=input_ids,
                attention_mask=attention_mask,
                decoder_input_ids=decoder_input_ids,
                encoder_outputs=encoder_outputs,
                decoder_output_hidden_states=True,
                **kwargs,
            )
        states = output.decoder_hidden_states[-1]
        places = states.new_ones(states.shape[:2], dtype=torch.bool) if asked is None else asked
        logits = output.logits.flatten(0, -2).float()
        read = output.encoder_last_hidden_state
        last: Any = decoder_input_ids
        copied = self.copied(states, read, logits, source, attention_mask, places, last)
        if labels is not None:
            output.loss = copied.loss(logits, labels[places])
        if not labelled:
            output.logits = copied.mixed(logits).view_as(output.logits)
        output.decoder_hidden_states = None
        given: Seq2SeqLMOutput = output
        return given

    def copied(
        self,
        states: Tensor,
        read: Tensor,
        logits: Tensor,
        source: Tensor,
        mask: Tensor | None,
        places: Tensor,
        last: Tensor,
    ) -> "Copied":
        """What the tokens at ``places`` ``[batch, target]`` may be copied from, ``last`` being written before each.

        The vocabulary's scores of the source's tokens are where the choice begins, and what stands there behind the
        last token has an advantage: untrained, it copies what of the source the decoder would write, and goes on.
        """
        rows = places.nonzero()[:, 0]
        scores = self.copy_query(states) @ self.copy_key(read).transpose(1, 2) / states.shape[-1] ** 0.5
        tokens = source[rows]
        chosen = scores[places].float() + logits.detach().gather(1, tokens)
        chosen[:, 2:] += self.copy_on * (tokens[:, 1:-1] == last[places][:, None])  # before the text stands its start
        if mask is not None:
            chosen = chosen.masked_fill(mask[rows] == 0, torch.finfo(chosen.dtype).min)
        where = chosen.softmax(-1)
        spread = torch.zeros_like(scores).masked_scatter(places[..., None], where.to(scores.dtype))
        about = torch.cat([states, spread @ read], dim=-1)[places]
        return Copied(tokens, where, self.copy_share(about).float())


class Copied(NamedTuple):
    """Of each token that is written, what it may be copied from."""

    tokens: Tensor
    """``[written, source]``: the source of each."""
    where: Tensor
    """``[written, source]``: from which place of it, if it is copied."""
    share: Tensor
    """``[written, 1]``: the logit of its being copied."""

    def mixed(self, logits: Tensor) -> Tensor:
        """Log probabilities of the mixture ``[written, vocabulary]``."""
        share = self.share.sigmoid()
        written = logits.softmax(-1) * (1 - share)
        return written.scatter_add(1, self.tokens, self.where * share).clamp(min=TINY).log()

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean negative log probability of the labels, without the mixture of all other tokens."""
        kept = labels != IGNORED
        written = -nn.functional.cross_entropy(logits[kept], labels[kept], reduction="none")
        same = self.tokens[kept] == labels[kept, None]
        copied = (self.where[kept] * same).sum(-1).clamp(min=TINY).log()
        share = self.share[kept, 0]
        log_chance: Tensor = torch.logaddexp(logsigmoid(-share) + written, logsigmoid(share) + copied)
        return -log_chance.mean()


def _keep_source(encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """``generate`` runs the encoder by itself, and gives the decoder what comes of it."""
    output[SOURCE] = args[0] if args else kwargs["input_ids"]


AutoConfig.register(PointerGeneratorConfig.model_type, PointerGeneratorConfig)
AutoModelForSeq2SeqLM.register(PointerGeneratorConfig, PointerGenerator)
