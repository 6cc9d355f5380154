"""Stops a training that no longer gets better on held-out examples, and gives back its best weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState

BEST = "best.safetensors"
SCORE = "held_out"


class KeepBest(TrainerCallback):
    """Measures now and then; the Trainer's own callback needs its evaluation loop, which knows one kind of task.

    The scores are in the Trainer's log, which its checkpoints carry. A training that is gone on with measures again
    what came after its checkpoint, and finds the same: it ends where an uninterrupted one ends, with its weights.
    """

    def __init__(
        self, measure: Callable[[], float], *, every: float, patience: int, folder: Path, from_start: bool = False
    ) -> None:
        """
        Args:
            measure: the score, the higher the better.
            every: steps between two measures; the last step is measured, too.
            patience: measures without a better score after which training ends.
            from_start: the untrained weights may be the best.
        """
        self.measure, self.every, self.patience, self.from_start = measure, every, patience, from_start
        self.file = folder / BEST

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if self.from_start and state.global_step == 0:
            self._measure(model, state)

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        step = state.global_step
        due = int(step / self.every) > int((step - 1) / self.every) or step >= state.max_steps
        if due and not self._is_over(state):
            self._measure(model, state)
        if self._is_over(state):  # also one step after a training that was killed when it was over
            control.should_training_stop = True

    def on_train_end(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        model.load_state_dict(load_file(self.file), strict=False)

    def _measure(self, model: nn.Module, state: TrainerState) -> None:
        score = self.measure()
        if score > max(_scores(state).values(), default=-float("inf")):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            part = self.file.with_suffix(".part")
            trained = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
            save_file({name: value.contiguous() for name, value in trained.items()}, part)
            part.replace(self.file)
        state.log_history.append({"step": state.global_step, SCORE: score})

    def _is_over(self, state: TrainerState) -> bool:
        scores = _scores(state)
        best = max(scores, key=lambda step: (scores[step], -step), default=0)
        return sum(step > best for step in scores) >= self.patience


def _scores(state: TrainerState) -> dict[int, float]:
    return {int(row["step"]): float(row[SCORE]) for row in state.log_history if SCORE in row}
