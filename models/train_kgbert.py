"""``python -m models.train_kgbert``: from a graph and a base model to a fused model and a report on it."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from kg import cli
from models.arms import Arm

if TYPE_CHECKING:
    from models.run import Run

COMMANDS = ("gnn", "pretrain", "finetune", "evaluate", "reembed")


@dataclass(frozen=True, kw_only=True)
class _Common:
    run_folder: Annotated[Path | None, tyro.conf.arg(name="run")] = None
    """Run folder; default runs/<recipe>. A folder that holds an unfinished run is gone on with."""
    seeds: int | None = None
    """Number of seeds of each arm; default as the recipe says."""
    arms: tuple[Arm, ...] | None = None
    """Models to compare; default as the recipe says."""
    shots: tuple[int, ...] | None = None
    """Labelled examples a class, each number a comparison of its own; default as the recipe says."""
    keep_models: bool = False
    """Keep the first seed's model of every arm, for other runs to begin with."""
    begin_with: Path | None = None
    """A run that kept its models: each arm begins with what the same arm learnt there, and reads this run's graph."""
    ban_label_relations: bool = False
    """Keep from the models the relations that state a label, even where the recipe does not say so."""
    ban_inverses: bool = False
    """Likewise the relations that say nearly what a banned one says, either way round."""
    drop_gold_edges: bool = False
    """Likewise every edge between two entities that an example asks the relation of."""

    def _stages(self, recipe_name: str | None, last: str, *, trials: int = 0) -> None:
        """Run every stage up to ``last`` that is not finished yet."""
        from kg.errors import ConfigError
        from kg.settings import Settings
        from models.stages import run_stages

        if (processes := os.environ.get("WORLD_SIZE", "1")) != "1":
            raise ConfigError(
                f"torchrun began {processes} processes of one run, expected one: it trains on all cores by "
                "itself. Begin it with python -m models.train_kgbert; torchrun is for scripts that call "
                "models.trainer.fit."
            )
        run_stages(self._open(recipe_name), Settings.from_env(), last=last, trials=trials)

    def _open(self, recipe_name: str | None) -> "Run":
        from kg.settings import Settings
        from models.recipe import default_recipe, load_recipe
        from models.run import Run
        from models.stages.checks import check

        if recipe_name is None:
            recipe_name = default_recipe(Settings.from_env().data)
            if recipe_name == "sample":
                say("No data folder (KGFUSE_DATA) with the finance data: running on the small sample of this project.")
        recipe = load_recipe(recipe_name).with_overrides(
            seeds=self.seeds,
            arms=self.arms,
            shots=self.shots,
            keep_models=self.keep_models,
            begin_with=self.begin_with,
            ban_label_relations=self.ban_label_relations or None,
            ban_inverses=self.ban_inverses or None,
            drop_gold_edges=self.drop_gold_edges or None,
        )
        check(recipe)
        return Run.open(self.run_folder or Path("runs") / recipe.name, recipe)


@dataclass(frozen=True, kw_only=True)
class All(_Common):
    """Run all stages of a recipe: gnn, pretrain, finetune, evaluate. Each has a command of its own, too; reembed takes
    a newer snapshot into a run that is trained."""

    recipe: tyro.conf.Positional[str | None] = None
    """Name or TOML file; default finance where its data is, else the small sample."""

    def run(self) -> None:
        self._stages(self.recipe, "evaluate")


@dataclass(frozen=True, kw_only=True)
class _Stage(_Common):
    recipe: tyro.conf.Positional[str]
    """Name (finance, medicine, sample) or TOML file of a recipe."""

    def run(self) -> None:
        self._stages(self.recipe, type(self).__name__.lower())


@dataclass(frozen=True, kw_only=True)
class Gnn(_Stage):
    """Load the graph, make its snapshot, train the entity encoder and build the entity table."""


@dataclass(frozen=True, kw_only=True)
class Pretrain(_Stage):
    """Continue the masked language modelling of each arm on domain text, with its own knowledge."""


@dataclass(frozen=True, kw_only=True)
class Finetune(_Stage):
    """Fine-tune the fused model on the tasks of the recipe."""

    search: int = 0
    """Try so many settings of each task on its validation examples first, and train with the best; goes on with a
    search that was interrupted."""

    def run(self) -> None:
        from kg.errors import ConfigError

        if self.search < 0:
            raise ConfigError(f"--search is {self.search}, expected the number of settings to try.")
        self._stages(self.recipe, "finetune", trials=self.search)


@dataclass(frozen=True, kw_only=True)
class Evaluate(_Stage):
    """Compare plain, fused and shuffled on each task, same seeds and steps, and write the report."""


@dataclass(frozen=True, kw_only=True)
class Reembed:
    """Take a newer snapshot into a trained run: nothing is trained, only the rows that it changes are computed."""

    run_folder: tyro.conf.Positional[Path]
    """Run folder written by models.train_kgbert."""
    snapshot: Path | None = None
    """Folder written by ``python -m kg snapshot``; default the newest below KGFUSE_HOME."""

    def run(self) -> None:
        from kg.settings import Settings
        from kg.snapshot import Snapshot, find_snapshot
        from models.reembed import reembed

        settings = Settings.from_env()
        newer = Snapshot.load(find_snapshot(self.snapshot, settings))
        print(reembed(self.run_folder, newer, cache=settings.home / "cache").as_lines())


def say(line: str) -> None:
    """A line for the person who waits; standard output stays for results."""
    print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    prog = "python -m models.train_kgbert"
    if argv and argv[0] in COMMANDS:
        return cli.run(prog, [Gnn, Pretrain, Finetune, Evaluate, Reembed], argv)
    return cli.run(prog, [All], argv)


if __name__ == "__main__":
    sys.exit(main())
