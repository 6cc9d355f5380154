"""``python -m models.export RUN``: a fused model as an ONNX graph that is given the vectors of the entities.

The table stays outside the graph, as a file of its own: knowledge is data, and can be exchanged without a new export.
"""

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.utils.generic import ModelOutput

from kg import cli
from kg.errors import ConfigError, InputError
from models.base import load_tokenizer, quiet
from models.batch import PAIR, KnowledgeCollator
from models.classifiers import RelationClassifier
from models.entity_table import FIRST, NULL, EntityTable
from models.fusion import KNOWLEDGE_KEYS, VECTORS
from models.objectives import KINDS, Objective, objective_of
from models.run import aside, write_json

if TYPE_CHECKING:
    from models.kgbert import KGBertModel

DIMENSIONS = {
    "input_ids": ("batch", "seq"),
    "attention_mask": ("batch", "seq"),
    "token_type_ids": ("batch", "seq"),
    "mention_entities": ("batch", "mentions", "cand"),
    "mention_priors": ("batch", "mentions", "cand"),
    "token_mentions": ("batch", "seq"),
    VECTORS: ("batch", "mentions", "cand"),
    PAIR: ("batch",),
}
"""Inputs of the graph, and which of their sizes may be any; the rest is the model's. Of ``mention_entities`` it matters
only whether it is padding, NULL or an entity."""
FULL, INT8, ABOUT = "model.onnx", "model.int8.onnx", "export.json"
EXPORTED = tuple(name for name, kind in KINDS.items() if not kind.writes)
EXTRA = "ONNX is not installed; install it with: pip install 'kgfuse[onnx]'"


def export_model(
    model: "KGBertModel",
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    kind: str,
    int8: bool = False,
    task: str = "",
) -> None:
    """Write graph, entity table, tokenizer and ``export.json`` (kind, labels, snapshot) into ``folder``.

    Args:
        kind: of ``models.objectives.KINDS``, which the model was trained for.
        int8: also a graph whose matrices are 8-bit integers; activations are quantised as they come.

    Raises:
        ConfigError: the kind writes text, or the optional packages are not installed.
    """
    objective = objective_of(kind, model.config)
    if objective.writes:
        raise ConfigError(
            f"The kind {kind} ({task or 'this model'}) writes text, which is not exported; {', '.join(EXPORTED)} are: "
            "name a task of these with --task, or serve this one with python -m models.serve."
        )
    example = example_inputs(model, typed=objective.pairs and "token_type_ids" in tokenizer.model_input_names)
    with torch.no_grad():
        outputs = [name for name in model(**example) if name.endswith("logits")]
    free = torch.export.Dim.DYNAMIC
    shapes = tuple(dict.fromkeys(range(len(DIMENSIONS[name])), free) for name in example)
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with aside(folder) as part:
            with _silent():
                program: Any = torch.onnx.export(
                    _Logits(model, tuple(example), outputs).eval(),
                    tuple(example.values()),
                    input_names=list(example),
                    output_names=outputs,
                    dynamic_shapes=(shapes,),
                    dynamo=True,
                    verbose=False,
                )
                program.save(part / FULL)
                if int8:
                    # weights of 7 bits: with 8, sums overflow on CPUs without VNNI (onnxruntime's quantize_dynamic); a
                    # tiny model's logits were off by 18 % of their spread there, with 7 by 0.5 %
                    options = {"weight_type": QuantType.QInt8, "per_channel": True, "reduce_range": True}
                    quantize_dynamic(part / FULL, part / INT8, op_types_to_quantize=["MatMul", "Gemm"], **options)
                tokenizer.save_pretrained(part)
            model.entity_table.save(part)
            about = {"task": task, "kind": kind, "objective": objective.state(), "inputs": list(example)}
            write_json(part / ABOUT, {**about, "snapshot": model.entity_table.snapshot_hash})
    except ImportError as error:
        raise ConfigError(f"{EXTRA} ({error})") from error


def example_inputs(model: "KGBertModel", *, typed: bool) -> dict[str, Tensor]:
    """Two padded texts with mentions; no free size is 0 or 1, which an export takes for a constant.

    Args:
        typed: tokens say which of two texts they are of.
    """
    entities = torch.tensor([[[NULL, FIRST, FIRST + 1], [NULL, FIRST, 0]], [[NULL, FIRST, 0], [0, 0, 0]]])
    tokens = torch.tensor([[0, 1, 1, 0, 2, 0, 0], [0, 0, 1, 0, 0, 0, 0]])
    inputs = {
        "input_ids": torch.ones_like(tokens),
        "attention_mask": torch.tensor([[1] * 7, [1] * 5 + [0] * 2]),
        **({"token_type_ids": torch.zeros_like(tokens)} if typed else {}),
        **dict(zip(KNOWLEDGE_KEYS, (entities, torch.zeros(entities.shape), tokens), strict=True)),
        VECTORS: torch.zeros(*entities.shape, model.config.entity_dim),
    }
    return inputs | ({PAIR: torch.tensor([[1, 4], [2, 3]])} if isinstance(model.model, RelationClassifier) else {})


class _Logits(nn.Module):
    """The model with its inputs by position, which is how a graph is traced, and its logits alone."""

    def __init__(self, model: nn.Module, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        output = self.model(**dict(zip(self.inputs, given, strict=True)))
        return tuple(output[name] for name in self.outputs)


class OnnxPredictor(nn.Module):
    """An exported model; takes the features and the batches that the model itself took, and gives its logits."""

    objective: Objective
    """Reads answers from what ``logits`` gives."""

    def __init__(self, folder: Path, *, int8: bool = False, threads: int = 0) -> None:
        """
        Args:
            folder: as ``export_model`` left it.
            threads: 0: one a core.

        Raises:
            InputError: the folder holds no such export. ConfigError: the optional packages are not installed.
        """
        super().__init__()
        file = folder / (INT8 if int8 else FULL)
        if not file.is_file() or not (folder / ABOUT).is_file():
            raise InputError(
                folder, f"holds no {file.name}; run: python -m models.export RUN --out {folder}{' --int8' * int8}"
            )
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if "objective" not in about:
            raise InputError(
                folder / ABOUT, "is of an older version and does not say how to read answers; export again"
            )
        try:
            import onnxruntime
        except ImportError as error:
            raise ConfigError(f"{EXTRA} ({error})") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self.inputs, self.outputs = tuple(about["inputs"]), [output.name for output in self.session.get_outputs()]
        labels = dict(enumerate(about["objective"]["labels"]))
        self.objective = objective_of(about["kind"], SimpleNamespace(id2label=labels, objective=about["objective"]))
        self.collate = KnowledgeCollator(tokenizer=load_tokenizer(str(folder)))
        self.set_table(EntityTable.load(folder))

    def set_table(self, table: EntityTable) -> None:
        """Exchange the knowledge; the graph stays."""
        self.vectors: NDArray[np.float32] = table.vectors.float().numpy()

    def forward(self, **batch: Tensor) -> ModelOutput:
        """Logits of a batch as the collator makes it, under the names that the model gives them."""
        given = {name: batch[name].numpy() for name in self.inputs if name in batch}
        if given["mention_entities"].shape[1] == 0:  # a mention that is padding tells the model nothing
            texts = len(given["input_ids"])
            given["mention_entities"] = np.zeros((texts, 1, 1), dtype=np.int64)
            given["mention_priors"] = np.zeros((texts, 1, 1), dtype=np.float32)
        given[VECTORS] = self.vectors[given["mention_entities"]]
        found = map(torch.from_numpy, self.session.run(None, given))
        return ModelOutput(zip(self.outputs, found, strict=True))

    def logits(self, features: Sequence[dict[str, Any]]) -> list[NDArray[np.float32]]:
        """Of each feature, in order, without padding.

        ``[labels]``, ``[seq, labels]`` where tokens are asked, ``[seq, 2]`` for where an answer starts and ends, and
        ``[choices]``.
        """
        return self.objective.predict(self, features, self.collate)


@contextmanager
def _silent() -> Iterator[None]:
    """No word of the exporters, whose warnings are of what they themselves do."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):  # noqa: PTH123
            with warnings.catch_warnings(), quiet():
                warnings.simplefilter("ignore")
                yield
    finally:
        logging.disable(disabled)


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the fused model of a finished run as ONNX, with its entity table and tokenizer."""

    run_folder: tyro.conf.Positional[Path]
    """Run folder written by models.train_kgbert."""
    task: str | None = None
    """Task whose model is meant; default the first of the recipe."""
    out: Path
    """Folder to write; an older export in it is replaced."""
    int8: bool = False
    """Also write an 8-bit graph."""

    def run(self) -> None:
        from models.predictor import choose, load_predictors

        if self.out.exists() and not self.out.is_dir():
            raise ConfigError(f"{self.out} is a file; name a folder with --out.")
        if self.out.exists() and any(self.out.iterdir()) and not (self.out / ABOUT).is_file():
            raise ConfigError(f"{self.out} is not empty and holds no export ({ABOUT}); name another folder with --out.")
        predictor = choose(load_predictors(self.run_folder), self.task)
        model: Any = predictor.model
        task, tokenizer = predictor.task, predictor.encoder.tokenizer
        export_model(model, tokenizer, self.out.absolute(), kind=task.kind, int8=self.int8, task=task.name)
        for file in sorted(self.out.glob("*.onnx*")):
            print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")  # noqa: T201


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run("python -m models.export", [Export], argv)


if __name__ == "__main__":
    sys.exit(main())
