"""Tiny base models of every family with small tokenizers of their own kind, trained on a made-up domain."""

import random
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
)

SUBJECTS = ("Acme Corporation", "Acme Bank", "the borrower", "the lender", "the agent", "an insurer")
VERBS = ("securitised", "refinanced", "amortised", "collateralised")
OBJECTS = ("receivables", "a subordinated tranche", "the debenture", "its mortgages")
FAMILIES = ("bert", "roberta", "albert", "gpt2", "t5")
_SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def domain_texts(number: int, *, seed: int = 0) -> list[str]:
    """Sentences of few words, so that a tiny model learns them soon."""
    rng = random.Random(seed)
    return [
        f"In {rng.randrange(1990, 2030)} {rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(OBJECTS)}, "
        f"and {rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(OBJECTS)}."
        for _ in range(number)
    ]


def general_texts(number: int, *, seed: int = 0) -> list[str]:
    """Sentences without the words of the domain."""
    rng = random.Random(seed)
    people, verbs, things = (
        ("A child", "The miller", "My sister"),
        ("saw", "found", "ate"),
        ("a pear", "the moon", "it"),
    )
    return [
        f"{rng.choice(people)} {rng.choice(verbs)} {rng.choice(things)}, and {rng.choice(people).lower()} slept in the "
        f"corn until {rng.randrange(1, 12)}."
        for _ in range(number)
    ]


def tiny_tokenizer(family: str, texts: Iterable[str], *, size: int = 100) -> PreTrainedTokenizerFast:
    """A tokenizer as the family's is made, of so few pieces that words are split."""
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    if family == "gpt2":  # as published: one token for all, and none for padding
        special = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    if family in ("bert", "roberta", "albert"):
        special |= {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
    names = list(dict.fromkeys(special.values()))
    sentinels = [f"<extra_id_{number}>" for number in range(20)] if family == "t5" else []
    if family == "bert":
        tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=size, special_tokens=names, show_progress=False)
    elif family in ("roberta", "gpt2"):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=size + len(alphabet), special_tokens=names, initial_alphabet=alphabet, show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=size, special_tokens=[*names, *sentinels], unk_token="<unk>", show_progress=False
        )
    tokenizer.train_from_iterator(list(texts), trainer)
    ids = {name: tokenizer.token_to_id(name) for name in names}
    if "cls_token" in special:
        pair = [("<s>", ids["<s>"]), ("</s>", ids["</s>"])]
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=pair)
    elif family == "t5":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", ids["</s>"])]
        )
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **special)
    if sentinels:
        made.add_special_tokens({"additional_special_tokens": sentinels})
    return made


def tiny_language_model(family: str, folder: Path, *, seed: int = 0) -> str:
    """A base model with random weights and its tokenizer, saved; T5 has rows to spare, as published ones do."""
    tokenizer = tiny_tokenizer(
        family, [*general_texts(200), *SUBJECTS, string.ascii_letters, string.digits, string.punctuation]
    )
    size, pad, end = len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id
    torch.manual_seed(seed)
    model: Any = {
        "bert": lambda: BertForMaskedLM(BertConfig(vocab_size=size, pad_token_id=pad, **_SHAPE)),
        "roberta": lambda: RobertaForMaskedLM(RobertaConfig(vocab_size=size, pad_token_id=pad, **_SHAPE)),
        "albert": lambda: AlbertForMaskedLM(
            AlbertConfig(
                vocab_size=size, embedding_size=16, pad_token_id=pad, bos_token_id=0, eos_token_id=end, **_SHAPE
            )
        ),
        "gpt2": lambda: GPT2LMHeadModel(
            GPT2Config(
                vocab_size=size, n_embd=32, n_layer=2, n_head=2, n_positions=128, bos_token_id=end, eos_token_id=end
            )
        ),
        "t5": lambda: T5ForConditionalGeneration(
            T5Config(
                vocab_size=size + 4,
                d_model=32,
                d_kv=16,
                d_ff=64,
                num_layers=2,
                num_heads=2,
                pad_token_id=pad,
                eos_token_id=end,
                decoder_start_token_id=pad,
            )
        ),
    }[family]()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
