"""The tasks of a run, with the settings that a search has found for them."""

from dataclasses import replace

from models.recipe import Task, load_settings
from models.run import Run

FOUND = "search.toml"
"""In the run folder: the best settings of each task, as a recipe has them."""


def searched(run: Run) -> tuple[Task, ...]:
    """The tasks of the recipe; where a search has found settings for one, with these."""
    found = load_settings(run.path / FOUND)
    return tuple(
        replace(task, training=replace(task.training, **found.get(task.name, {}))) for task in run.recipe.tasks
    )
