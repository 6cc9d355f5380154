"""The fused model for those who train with PyTorch Lightning: the objective, batches and optimizer of our trainer.

    data = KGFuseData(splits, objective, encoder, training)
    module = KGFuseModule(model, objective, training)
    lightning.Trainer(max_epochs=1, precision="bf16-mixed").fit(module, data)
    module.model.save_pretrained(folder)

One epoch of Lightning is the whole training, as what comes at a step depends on the seed and the step alone;
``val_check_interval`` says how often it is looked at in between.
"""

from itertools import islice
from typing import Any

import lightning as L
import numpy as np
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import get_linear_schedule_with_warmup

from kg.errors import ConfigError
from models.base import attention_written_out
from models.batch import PARTS, KnowledgeCollator, KnowledgeEncoder, parts_of
from models.examples import Splits
from models.mentions import hide_mentions
from models.objectives import Objective
from models.objectives.objective import Loss
from models.stages.arms import is_fresh
from models.trainer import Passes, make_optimizer
from models.training import Training

MAX_NORM = 1.0
"""Of the gradient, where Lightning's trainer is not told another one; as in ours."""
OURS_ALONE = ("frozen_layers", "lora_rank", "patience")
"""Settings of a training that are not done here."""


class KGFuseData(L.LightningDataModule):
    """A task's examples, linked and tokenized once, in the batches that ``models.trainer.fit`` makes of them."""

    def __init__(
        self,
        splits: Splits,
        objective: Objective,
        encoder: KnowledgeEncoder,
        training: Training,
        *,
        seed: int = 0,
        with_knowledge: bool = True,
    ) -> None:
        super().__init__()
        self.splits, self.objective, self.encoder, self.training, self.seed = (
            splits,
            objective,
            encoder,
            training,
            seed,
        )
        self.collate = KnowledgeCollator(tokenizer=encoder.tokenizer, with_knowledge=with_knowledge)
        self.features: dict[str, list[dict[str, Any]]] = {}

    def setup(self, stage: str) -> None:
        for part in {"fit": ("train", "validation"), "test": ("test",)}.get(stage, ("validation",)):
            if part not in self.features:
                self.features[part] = self.objective.encode(getattr(self.splits, part), self.encoder)

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        share = self.training.entity_dropout
        passes = Passes(
            self.features["train"],
            self.training,
            seed=self.seed,
            prepare=lambda feature, draw: hide_mentions(feature, share, draw),
        )
        return DataLoader(passes, batch_size=self.training.batch_size, collate_fn=self.collate)

    def val_dataloader(self) -> Any:
        return DataLoader(self.features["validation"], batch_size=32, collate_fn=self.collate)  # type: ignore[arg-type]

    def test_dataloader(self) -> Any:
        return DataLoader(self.features["test"], batch_size=32, collate_fn=self.collate)  # type: ignore[arg-type]


class KGFuseModule(L.LightningModule):
    """A model, fused or plain, with the optimizer and schedule of our trainer; scores are those of its objective."""

    def __init__(self, model: nn.Module, objective: Objective, training: Training) -> None:
        """
        Raises:
            ConfigError: the objective writes text, or ``training`` has a setting that is not done here.
        """
        super().__init__()
        if objective.writes:
            raise ConfigError(
                f"{type(objective).__name__} writes text, which Lightning does not train here; run it with "
                "python -m models.train_kgbert."
            )
        for name in OURS_ALONE:
            if getattr(training, name):
                raise ConfigError(
                    f"{name} is {getattr(training, name)}, which Lightning does not do here; leave it 0, or run "
                    "python -m models.train_kgbert."
                )
        self.model = model.train()  # a loaded model is in evaluation mode, and Lightning would leave it there
        self.objective, self.training_options = objective, training
        self._loss: Loss | None = None
        self._rows: list[Any] = []

    def forward(self, **batch: Tensor) -> Any:
        return self.model(**batch)

    def on_fit_start(self) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, KGFuseData):
            raise ConfigError("A KGFuseModule is trained with KGFuseData; call fit(module, data) with one.")
        balanced = self.training_options.class_weights == "balanced"
        self._loss = self.objective.loss(data.features["train"], balanced=balanced)

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        labels = batch.pop("labels") if self._loss else None
        with attention_written_out(self.model):
            output = self.model(**batch)
        loss: Tensor = self._loss(output, labels) if self._loss else output.loss
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        batch.pop("labels", None)
        rows = self.objective.raw(self.model(**batch)).float().cpu().numpy()
        masks = batch["attention_mask"].bool().cpu().numpy()
        self._rows.extend(row[mask] if row.ndim > 1 else row for row, mask in zip(rows, masks, strict=True))

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self._score("validation")

    def on_test_epoch_end(self) -> None:
        self._score("test")

    def _score(self, part: str) -> None:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        given, outputs = [], []
        rows = iter(self._rows)
        for feature in data.features[part]:
            own = list(islice(rows, len(parts_of(feature))))
            if not own:
                break  # Lightning looks at a few before it begins
            given.append(feature)
            outputs.append(np.concatenate(own) if PARTS in feature else own[0])
        self._rows.clear()
        examples = getattr(data.splits, part)[: given[-1].get("example", len(given) - 1) + 1]
        chosen = self.objective.calibrated(outputs, given, examples) if part == "validation" else self.objective
        self.objective = chosen  # thresholds are those that the last validation chose
        scored = chosen.score(chosen.answers(outputs, given, examples), examples)
        self.log_dict({f"{part}_{name}": value for name, value in scored.metrics.items()}, prog_bar=True)

    def configure_optimizers(self) -> Any:
        options = self.training_options
        if self.trainer.precision in ("16-mixed", "16-true"):
            raise ConfigError(f"precision {self.trainer.precision} is not supported; use bf16-mixed or 32-true.")
        rates = (options.learning_rate, options.head_learning_rate)
        optimizer = make_optimizer(self.model, is_fresh, rates=rates, weight_decay=options.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = get_linear_schedule_with_warmup(optimizer, round(options.warmup_ratio * steps), steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        # not clip_gradients, which refuses every fused optimizer for the sake of those that scale (fp16, refused above)
        nn.utils.clip_grad_norm_(self.parameters(), MAX_NORM if gradient_clip_val is None else gradient_clip_val)
