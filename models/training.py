"""How models are pretrained, taught and fine-tuned, as a recipe says it; settings alone, nothing heavy."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as checked

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
_Share = Annotated[float, Field(ge=0, le=1)]
SHORTEST = 8
"""Tokens that a text may be cut to: below, its own signs leave no room to read it in windows."""


@checked(frozen=True, kw_only=True, config=_STRICT)
class Training:
    """How one model is trained; the defaults suit MiniLM on a CPU."""

    epochs: PositiveFloat = 4.0
    max_steps: int = -1
    """Overrides ``epochs`` when positive."""
    batch_size: PositiveInt = 16
    learning_rate: NonNegativeFloat = 1e-4
    """Of the base model. MiniLM wants 1e-4 to 3e-4; 2e-5, a BERT-base habit, underfits."""
    head_learning_rate: NonNegativeFloat = 5e-4
    """Of what starts untrained: fusion blocks and the task's head."""
    warmup_ratio: _Share = 0.1
    weight_decay: NonNegativeFloat = 0.01
    entity_dropout: _Share = 0.15
    """Share of mentions whose entities are hidden in a training step."""
    max_length: Annotated[int, Field(ge=SHORTEST)] = 128
    """Tokens a text; longer ones are cut, or read in windows by the kinds that can (``Objective.windowed``)."""
    save_steps: PositiveInt = 200
    """Steps between checkpoints, and so what a killed training has to do again at most."""
    attention_dropout: bool = True
    """Attention weights are dropped as the base has it. Without that PyTorch's fused kernel serves on a CPU."""
    freeze_embeddings: bool = True
    """Word embeddings stay as they are: halves a step at 32 tokens."""
    frozen_layers: int = 0
    """Lowest blocks that stay as they are, embeddings too; what they give is computed once for all epochs."""
    lora_rank: int = 0
    """Above 0 only matrices of this rank beside those of the blocks are trained, besides all that starts untrained."""
    class_weights: Literal["balanced"] | None = None
    """Labels weigh as much as they are rare among the training examples."""
    patience: int = 0
    """Epochs without a better validation score after which training stops; the best weights are kept. 0: never."""


@checked(frozen=True, kw_only=True, config=_STRICT)
class Cleaning:
    """The steps in their order. Those that are on lose nothing that a model could learn from."""

    unicode: bool = True
    """NFKC, broken encodings mended, control and invisible characters out."""
    boilerplate: NonNegativeInt = 10
    """Drop lines, numbers aside, that this many documents had; 0 keeps them."""
    sentences: bool = False
    """A text is a sentence, not a line."""
    min_length: NonNegativeInt = 21
    """Characters that a text has at least."""
    language: str = ""
    """ISO 639-1 code; texts of other languages are dropped."""
    duplicates: bool = True
    """Drop a text that came before, character by character."""
    near_duplicates: float = 0.8
    """Drop a text that shares this much of its word triples with one before (Jaccard, by MinHash); 0 keeps them."""
    mask_numbers: bool = False
    """Each number becomes ``0``: for models of bags of words."""
    drop_stop_words: bool = False
    """English ones: for models of bags of words."""

    def __post_init__(self) -> None:
        if not 0 <= self.near_duplicates < 1:
            raise ValueError(f"near_duplicates is {self.near_duplicates}, expected 0 (off) to less than 1")


@checked(frozen=True, kw_only=True, config=_STRICT)
class Pretrain(Training):
    """Language modelling on domain text, as the base model's family does it; ``max_steps = 0`` skips the stage."""

    corpus: tuple[str, ...] = ()
    """Files and folders of texts (``models.corpus``); the training texts of the tasks are always added."""
    text_key: str = "text"
    """Where the rows of a corpus have their text."""
    max_texts: PositiveInt = 4000
    """Drawn evenly from the whole corpus."""
    cleaning: Cleaning = field(default_factory=Cleaning)
    mask_probability: _Share = 0.15
    """Share of the words, or of a T5's tokens, that are to be predicted; a causal model predicts all."""
    mention_probability: _Share = 0.3
    """Chance that a linked mention is masked whole."""
    new_terms: NonNegativeInt = 0
    """Words of the texts that become tokens of their own: those that save most tokens."""
    evaluate_steps: NonNegativeInt = 0
    """Steps between two measures of the loss on texts apart: the best weights are kept; 0 keeps the last."""
    patience: int = 2
    """Measures without a better one after which training stops."""
    replay: tuple[str, ...] = ()
    """General texts, by which the report tells what was forgotten."""
    replay_share: float = 0.1
    """Of the training texts that are general ones, against forgetting."""
    average: float = 0.0
    """Share of the weights before pretraining in those after it, against forgetting."""

    def __post_init__(self) -> None:
        if self.new_terms and self.freeze_embeddings:
            raise ValueError("new_terms have to be learnt: set freeze_embeddings = false beside them")
        for name, value in (("replay_share", self.replay_share), ("average", self.average)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} is {value}, expected 0 to less than 1")


@checked(frozen=True, kw_only=True, config=_STRICT)
class MapTuning(Training):
    """Teaching the fusion blocks what an entity's vector stands for (``models.map_tuning``); 0 epochs skip it."""

    epochs: NonNegativeFloat = 0.0
    batch_size: PositiveInt = 32
    head_learning_rate: NonNegativeFloat = 1e-3
    max_texts: PositiveInt = 4000
    """Linked training texts of the tasks; no label is used."""
    wrong_links: _Share = 0.1
    """Share of the mentions that are led to a wrong entity, which the choice of candidates is to see."""


@checked(frozen=True, kw_only=True, config=_STRICT)
class Decoding:
    """How a task that writes does it."""

    max_tokens: PositiveInt = 64
    """Tokens of a text that is written; longer ones are cut in training, too."""
    num_beams: PositiveInt = 1
    no_repeat: NonNegativeInt = 3
    """No run of so many tokens is written twice; 0 allows it."""
