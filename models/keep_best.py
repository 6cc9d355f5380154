"""Training while the loss on held-out texts falls, and the weights with which it was lowest."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_model, save_model
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState

LOSS = "held_out_loss"


class KeepBest(TrainerCallback):
    """Measures every ``steps`` steps, keeps the best weights on disk, and stops when ``patience`` measures were worse.

    The measures are in the Trainer's own log, which its checkpoints carry: so a resumed training goes on with them. It
    may overwrite the best weights, and does so with the same.
    """

    def __init__(self, measure: Callable[[nn.Module], float], *, file: Path, steps: int, patience: int) -> None:
        self.measure, self.file, self.steps, self.patience = measure, file, steps, patience

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step == 0:
            self._measure(kwargs["model"], state)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not self._is_over(state) and (state.global_step % self.steps == 0 or state.global_step == state.max_steps):
            self._measure(kwargs["model"], state)
        if self._is_over(state):  # also one step after a training that was killed when it was over
            control.should_training_stop = True

    def restore(self, model: nn.Module) -> None:
        """Give ``model`` the best weights."""
        load_model(model, self.file)

    def _measure(self, model: nn.Module, state: TrainerState) -> None:
        loss = self.measure(model)
        if loss < min(_losses(state), default=float("inf")):
            part = self.file.with_suffix(".part")
            save_model(model, str(part))
            part.replace(self.file)
        state.log_history.append({LOSS: loss, "step": state.global_step})

    def _is_over(self, state: TrainerState) -> bool:
        losses = _losses(state)
        return len(losses) - 1 - losses.index(min(losses)) >= self.patience if losses else False


def _losses(state: TrainerState) -> list[float]:
    return [float(row[LOSS]) for row in state.log_history if LOSS in row]
