"""Models that write text, made of whatever base model there is."""

from typing import Any

from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from models.pointer_generator import PointerGenerator


def load_pretrained(auto_class: Any, name: str, **options: Any) -> PreTrainedModel:
    """As ``auto_class.from_pretrained``; where an encoder-decoder is asked of an encoder, it is made of it.

    Raises:
        ValueError: a causal model is asked of one that sees what comes after a token.
    """
    if auto_class in (AutoModelForCausalLM, AutoModelForSeq2SeqLM):
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        if auto_class is AutoModelForSeq2SeqLM and not config.is_encoder_decoder:
            return _twice(name, config, options)
        reads_both_ways = config.is_encoder_decoder or config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
        if auto_class is AutoModelForCausalLM and reads_both_ways:
            raise ValueError(f"{config.model_type} is no decoder, which causal generation needs")
    model: PreTrainedModel = auto_class.from_pretrained(name, **options)
    return model


def _twice(name: str, config: Any, options: dict[str, Any]) -> PreTrainedModel:
    """The base on both sides, with attention from one to the other that is new (arXiv 1907.12461), and with copying.

    A checkpoint without a head gets its word embeddings for one; before them the identity is a better start than noise.
    """
    sides = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in options.items()}
    model: PreTrainedModel = PointerGenerator.from_encoder_decoder_pretrained(name, name, **sides)
    transform = getattr(getattr(getattr(model.decoder, "cls", None), "predictions", None), "transform", None)
    if transform is not None and "MaskedLM" not in str(config.architectures):
        nn.init.eye_(transform.dense.weight)
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    part: Any
    for part in (model.config, model.generation_config):
        part.decoder_start_token_id, part.pad_token_id = tokenizer.cls_token_id, tokenizer.pad_token_id
    return model
