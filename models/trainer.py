"""The one Trainer: Hugging Face's loop, with checkpoints that are complete or absent and two learning rates."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import extract_model_from_parallel
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Dataset, SequentialSampler
from torch.utils.tensorboard import SummaryWriter
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback

from kg.errors import ConfigError, KGError
from models.base import attention_written_out, fast_bf16, quiet
from models.batch import IGNORED
from models.training import Training

COMPLETE = "COMPLETE.json"


class CheckpointedTrainer(Trainer):
    """Adds to the Trainer: atomic checkpoints, and a learning rate of their own for parts that start untrained.

    Hugging Face writes straight into ``checkpoint-N``, and ``get_last_checkpoint`` takes a half-written one. Here the
    folder is written aside, synced, sealed with the hash of every file, and renamed.
    """

    def __init__(self, *, head_learning_rate: float, is_fresh: Callable[[str], bool], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model_accepts_loss_kwargs = False  # wrapped models take any argument; their loss is the mean of the batch
        self.head_learning_rate = head_learning_rate
        self.is_fresh = is_fresh
        self._saving: Path | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        given: Any = train_dataset if train_dataset is not None else self.train_dataset
        return SequentialSampler(given)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._saving) if self._saving else str(super()._get_output_dir(trial))

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Of several processes, each counts for as much as it has labels: together they give the mean of the batch."""
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if self.args.world_size == 1 or "labels" not in inputs:
            return loss
        own = (inputs["labels"] != IGNORED).sum()
        everywhere: Any = self.accelerator.reduce(own, reduction="sum")
        return loss * own * self.args.world_size / everywhere

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        output = Path(str(self.args.output_dir))
        self._saving = output / ".saving"
        if self.args.should_save:
            shutil.rmtree(self._saving, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        try:
            super()._save_checkpoint(model, trial)
            checkpoint = self._saving / f"checkpoint-{self.state.global_step}"
            self.accelerator.wait_for_everyone()  # each process has written its random state
            if self.args.should_save:
                seal(checkpoint)
                shutil.rmtree(output / checkpoint.name, ignore_errors=True)
                checkpoint.rename(output / checkpoint.name)
                for old in checkpoints(output)[: -(self.args.save_total_limit or 1)]:
                    shutil.rmtree(old)
        finally:
            if self.args.should_save:
                shutil.rmtree(self._saving, ignore_errors=True)
            self._saving = None

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            trained: Any = self.model
            rates = (self.args.learning_rate, self.head_learning_rate)
            self.optimizer = make_optimizer(trained, self.is_fresh, rates=rates, weight_decay=self.args.weight_decay)
        return self.optimizer


def make_optimizer(
    model: nn.Module, is_fresh: Callable[[str], bool], *, rates: tuple[float, float], weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW in up to four groups: base or fresh, each with its learning rate, with weight decay or without."""
    decayed = set(Trainer.get_decay_parameter_names(None, model))  # type: ignore[arg-type]  # it asks no trainer
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((is_fresh(name), name in decayed), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": rates[fresh], "weight_decay": weight_decay if decay else 0.0}
            for (fresh, decay), parameters in sorted(groups.items())
        ],
        fused=True,
    )


class StopOnBadLoss(TrainerCallback):
    """Ends a training whose loss is no number, instead of spending hours on it."""

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any) -> None:
        loss = (logs or {}).get("loss")
        if loss is not None and not torch.isfinite(torch.tensor(loss)):
            raise KGError(
                f"The training loss is {loss} at step {state.global_step}; lower learning_rate and try again."
            )


class Heartbeat(TrainerCallback):
    """Tells how far the training is, as a share of its steps."""

    def __init__(self, report: Callable[[float], None]) -> None:
        self.report = report

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.report(state.global_step / max(state.max_steps, 1))


class Passes(Dataset[dict[str, Any]]):
    """All that a training will see, in order: every example once a pass, batches of like length.

    What comes at a position depends on the seed and the position alone. So a resumed training sees what an
    uninterrupted one sees, and all arms see the same.
    """

    def __init__(
        self,
        features: Sequence[dict[str, Any]],
        config: Training,
        *,
        seed: int,
        prepare: Callable[[dict[str, Any], int], dict[str, Any]],
    ) -> None:
        self.features, self.seed, self.prepare = features, seed, prepare
        wanted = round(config.epochs * len(features))
        total = config.max_steps * config.batch_size if config.max_steps > 0 else max(wanted, 1)
        lengths = np.array([len(feature["input_ids"]) for feature in features])
        orders: list[NDArray[np.int64]] = []
        for number in range(-(-total // len(features))):
            rng = np.random.default_rng([seed, number])
            shuffled = rng.permutation(len(features))
            bucket = config.batch_size * 8  # sorted within a bucket: little padding, and batches stay random
            buckets = [shuffled[start : start + bucket] for start in range(0, len(shuffled), bucket)]
            ordered = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in buckets])
            batches = np.array_split(ordered, range(config.batch_size, len(ordered), config.batch_size))
            orders.extend(batches[index] for index in rng.permutation(len(batches)))
        self.order = np.concatenate(orders)[:total]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return self.prepare(self.features[self.order[position]], self.seed * 1_000_003 + position)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training leaves."""

    losses: list[tuple[int, float]]
    """(step, mean training loss since the step before)."""
    seconds: float
    steps: int
    """After which it ended."""


def fit(
    model: nn.Module,
    features: Sequence[dict[str, Any]],
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
    config: Training,
    *,
    seed: int,
    folder: Path,
    is_fresh: Callable[[str], bool],
    report: Callable[[float], None] = lambda share: None,
    prepare: Callable[[dict[str, Any], int], dict[str, Any]] = lambda feature, draw: feature,
    loss: Callable[..., Any] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Trained:
    """Train ``model`` in place, going on from the newest complete checkpoint in ``folder``.

    Under ``torchrun`` the processes share each batch, so that they give what one gives; the first of them writes. Only
    where the last batch is a short one it is filled up with the first examples.

    Args:
        features: encoded examples; ``collate`` makes a batch of them.
        is_fresh: True for the parameter names that take ``config.head_learning_rate``.
        report: called after each step with the share of all steps that is done.
        prepare: masks or hides parts of an example; gets a number that is different for each time an example is seen.
        loss: what is minimised, of a model's output and the labels; None: what the model itself computes.
    """
    passes = Passes(features, config, seed=seed, prepare=prepare)
    steps = -(-len(passes) // config.batch_size)
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=round(config.warmup_ratio * steps),
        weight_decay=config.weight_decay,
        lr_scheduler_type="linear",
        seed=seed,
        data_seed=seed,
        bf16=fast_bf16(),
        use_cpu=not torch.cuda.is_available(),
        save_strategy="steps",
        save_steps=config.save_steps,
        save_total_limit=1,
        logging_strategy="steps",
        logging_steps=max(1, steps // 40),
        logging_nan_inf_filter=False,  # or StopOnBadLoss never sees one
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
    )
    if config.batch_size % arguments.world_size:
        raise ConfigError(
            f"{arguments.world_size} processes cannot share a batch of {config.batch_size}; set batch_size to a "
            "multiple of their number."
        )
    arguments.per_device_train_batch_size = config.batch_size // arguments.world_size
    watching: list[TrainerCallback] = [StopOnBadLoss(), Heartbeat(report), *callbacks]
    if arguments.should_save:
        watching.append(TensorBoardCallback(SummaryWriter(str(folder / "tensorboard"))))
    trainer = CheckpointedTrainer(
        model=model,
        args=arguments,
        train_dataset=passes,
        data_collator=collate,
        compute_loss_func=loss,
        callbacks=watching,
        head_learning_rate=config.head_learning_rate,
        is_fresh=is_fresh,
    )
    trainer.remove_callback(PrinterCallback)
    newest = last_complete_checkpoint(folder)
    with quiet(), attention_written_out(model):
        done = trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    # out of the Trainer's bfloat16, in which it would be measured, but never served
    extract_model_from_parallel(model, keep_fp32_wrapper=False)
    losses = [(int(row["step"]), float(row["loss"])) for row in trainer.state.log_history if "loss" in row]
    return Trained(losses=losses, seconds=float(done.metrics["train_runtime"]), steps=int(done.global_step))


def checkpoints(folder: Path) -> list[Path]:
    """``checkpoint-N`` below ``folder``, oldest first."""
    found = [
        (int(match[1]), path) for path in folder.glob("checkpoint-*") if (match := re.search(r"-(\d+)$", path.name))
    ]
    return [path for _, path in sorted(found)]


def seal(checkpoint: Path) -> None:
    """Sync every file and write their sizes and hashes last."""
    files = {}
    for file in sorted(path for path in checkpoint.rglob("*") if path.is_file()):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            files[str(file.relative_to(checkpoint))] = hashlib.file_digest(stream, "sha256").hexdigest()
    with (checkpoint / COMPLETE).open("w", encoding="utf-8") as stream:
        json.dump(files, stream)
        stream.flush()
        os.fsync(stream.fileno())


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint whose files are all there with the bytes that were written; others are passed over."""
    return next((path for path in reversed(checkpoints(folder)) if _is_complete(path)), None)


def _is_complete(checkpoint: Path) -> bool:
    try:
        files = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
        for name, digest in files.items():
            with (checkpoint / name).open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                    return False
    except (OSError, ValueError):
        return False
    return True
