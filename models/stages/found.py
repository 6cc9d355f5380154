"""The tasks of a run, with the settings that a search has found for them."""

from dataclasses import asdict

from models.recipe import Task, load_settings, parse_recipe
from models.run import Run

FOUND = "search.toml"
"""In the run folder: the best settings of each task, as a recipe has them."""


def searched(run: Run) -> tuple[Task, ...]:
    """The tasks of the recipe; where a search has found settings for one, with these.

    Raises:
        ConfigError: the file of them has others than a recipe knows.
    """
    found = load_settings(run.path / FOUND)
    values = asdict(run.recipe)
    for task in values["tasks"]:
        task["training"] |= found.get(task["name"], {})
    return parse_recipe(values, place=str(run.path / FOUND)).tasks
