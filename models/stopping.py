"""Stops a training that no longer gets better on the validation examples, and gives back its best weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState

BEST = "best.safetensors"


class EarlyStopping(TrainerCallback):
    """Measures after each epoch; the Trainer's own callback needs its evaluation loop, which knows one kind of task.

    A training that is gone on with measures again what came after its checkpoint, and finds the same: its scores are
    those of an uninterrupted one, and so is the epoch at which it ends.
    """

    def __init__(self, measure: Callable[[], float], *, epoch_steps: float, patience: int, folder: Path) -> None:
        """
        Args:
            measure: the validation score, the higher the better.
            epoch_steps: steps in which every example is seen once.
            patience: epochs without a better score after which training ends.
        """
        self.measure, self.epoch_steps, self.patience, self.file = measure, epoch_steps, patience, folder / BEST

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        step = state.global_step
        if int(step / self.epoch_steps) == int((step - 1) / self.epoch_steps) and step < state.max_steps:
            return
        scores = {int(row["step"]): float(row["validation"]) for row in state.log_history if "validation" in row}
        score = self.measure()
        if score > max(scores.values(), default=-float("inf")):
            part = self.file.with_suffix(".part")
            save_file({name: value.detach().contiguous() for name, value in _trained(model)}, part)
            part.rename(self.file)
        scores[step] = score
        state.log_history.append({"step": step, "validation": score})
        best = max(scores, key=lambda at: (scores[at], -at))
        if sum(at > best for at in scores) >= self.patience:
            control.should_training_stop = True

    def on_train_end(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        model.load_state_dict(load_file(self.file), strict=False)


def _trained(model: nn.Module) -> list[tuple[str, Any]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
