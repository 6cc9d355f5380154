"""A recipe: one TOML file that says which graph, base model, corpus and tasks make a run."""

import re
import tomllib
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, PositiveInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from kg.errors import ConfigError
from models.arms import ARMS, Arm
from models.fusion import FusionConfig
from models.gnn import GNNConfig
from models.table_reader import Columns
from models.training import Decoding, MapTuning, Pretrain, Training

RECIPES = Path(__file__).parent / "recipes"
_STRICT = ConfigDict(extra="forbid")


@checked(frozen=True, kw_only=True, config=_STRICT)
class Load:
    """One data set that is loaded into Neo4j."""

    source: str
    """Reader of ``python -m ingest load``: ``fibo``, ``obo``, ``rdf``, ``table`` …"""
    paths: tuple[str, ...]
    """Files or folders; relative ones are looked for in the data folder."""
    options: tuple[str, ...] = ()
    """More options of ``python -m ingest load``, as on the command line."""
    source_id: str
    """What the data set is called in the graph; its nodes are in the snapshot."""


@checked(frozen=True, kw_only=True, config=_STRICT)
class Graph(Load):
    """What is loaded before anything is trained, and what of it the models may know."""

    also: tuple[Load, ...] = ()
    """More data sets for the same snapshot."""
    ban_relations: tuple[str, ...] = ()
    """Relations kept out of encoder and table, because they state a task's label."""
    ban_label_relations: bool = True
    """Also keep out the relations that the labels of the tasks stand for (``label_relations`` of a task)."""
    ban_inverses: bool = True
    """Also keep out relations whose pairs largely are those of a banned one, either way round."""
    drop_gold_edges: bool = True
    """Also keep out every edge between two entities that an example asks the relation of."""
    type_relations: tuple[str, ...] = ("INSTANCE_OF", "P31")
    """Relations that say what an entity is: the arm ``types`` knows nothing else."""

    @property
    def loads(self) -> tuple[Load, ...]:
        """All data sets, the first one first."""
        return (self, *self.also)


@checked(frozen=True, kw_only=True, config=_STRICT)
class Task:
    """One fine-tuning task; those of a recipe are all served, the first where none is named."""

    name: str
    kind: Literal[
        "sequence_classification",
        "multi_label_classification",
        "regression",
        "pair_classification",
        "token_classification",
        "relation_classification",
        "question_answering",
        "multiple_choice",
        "extractive_summarization",
        "seq2seq_generation",
        "causal_generation",
    ]
    reader: str
    """Key of ``models.data.READERS``."""
    path: str
    columns: Columns = field(default_factory=Columns)
    """Of the reader ``table``: what the fields of an example are called there."""
    folds: int = 0
    """With 2 or more, all examples are tested, each by a model that was trained on the other folds."""
    decoding: Decoding = field(default_factory=Decoding)
    retrieve: bool = False
    """Of a task that writes: read also what was written for a training text: of those nearest to each, the one that the
    others agree with (``models.retrieval``). The training texts are kept with the model."""
    training: Training = field(default_factory=Training)
    max_train: PositiveInt | None = None
    """Use no more training examples than this."""
    max_test: PositiveInt | None = None
    """Test on no more examples than this, the same for all arms and seeds, drawn at random; validate on a quarter."""
    shots: tuple[int, ...] = ()
    """Labelled examples a class, drawn anew with each seed: each number is a task of its own. None: all there are."""
    label_relations: tuple[tuple[str, ...], ...] = ()
    """Each a label and the relations of the graph that state it; a label that names a relation states it anyway."""

    def at_shots(self) -> "tuple[Task, ...]":
        """One task for each number of labels a class, with that number in its name."""
        if not self.shots:
            return (self,)
        return tuple(replace(self, name=f"{self.name}-{shots}", shots=(shots,)) for shots in self.shots)


@checked(frozen=True, kw_only=True, config=_STRICT)
class Recipe:
    """All of a run but its seeds and its folder."""

    name: str
    summary: str
    base: str = "minilm"
    """``minilm``, a folder, or a hub id when online."""
    graph: Graph
    gnn: GNNConfig = field(default_factory=GNNConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    map: MapTuning = field(default_factory=MapTuning)
    pretrain: Pretrain = field(default_factory=Pretrain)
    tasks: tuple[Task, ...]
    seeds: int = 3
    arms: tuple[Arm, ...] = ARMS
    keep_models: bool = False
    """Keep the first seed's model of every arm, not of the fused one alone, for runs that begin with it."""
    begin_with: str = ""
    """A run that kept its models: each arm begins with what the same arm learnt there, heads apart, and reads the graph
    of this run. That takes the place of this run's map-tuning and pretraining."""
    limits: str = ""
    """What a reader of the results has to know; goes into the model card."""

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        if not names or len(set(names)) < len(names) or not all(re.fullmatch(r"\w[\w.-]*", name) for name in names):
            raise ValueError(f"tasks need names of their own that can name files, got {names}")
        if any(count < 1 for task in self.tasks for count in task.shots):
            raise ValueError("shots are labelled examples a class, expected 1 or more; without any shots all are used")
        for task in self.tasks:
            task_says = f"task {task.name}: "
            if task.training.class_weights and "classification" not in task.kind:
                raise ValueError(f"{task_says}class_weights weigh labels, which a task of kind {task.kind} has not")
            if task.folds and (task.folds < 2 or task.shots):
                raise ValueError(f"{task_says}folds is {task.folds}, expected 2 or more, and no shots beside it")
            if task.retrieve and ("generation" not in task.kind or task.folds or task.shots):
                raise ValueError(f"{task_says}retrieve is of generation, on all training examples, without folds")
            if task.reader != "table" and task.columns != Columns():
                raise ValueError(f"{task_says}columns are of the reader table; {task.reader} knows its own")
            if task.training.lora_rank < 0 or task.training.patience < 0:
                raise ValueError(f"{task_says}lora_rank and patience are 0 or more")
        for task in self.tasks if "text" in self.arms else ():
            if task.kind in ("token_classification", "extractive_summarization"):
                raise ValueError(f"the arm text writes facts behind a text, which a {task.kind} takes for the text")
        if self.begin_with and (self.map.epochs or self.pretrain.max_steps):
            raise ValueError("with begin_with nothing is pretrained: set pretrain.max_steps and map.epochs to 0")
        if self.map.epochs and all(task.folds for task in self.tasks):
            raise ValueError("map-tuning needs the training texts of a task without folds")
        if self.seeds < 1:
            raise ValueError(f"seeds is {self.seeds}, expected 1 or more")
        if not self.arms or len(set(self.arms)) < len(self.arms):
            raise ValueError(f"arms are {list(self.arms)}, expected one or more, each once")

    def with_overrides(
        self,
        *,
        seeds: int | None,
        arms: tuple[Arm, ...] | None,
        shots: tuple[int, ...] | None = None,
        keep_models: bool = False,
        begin_with: Path | None = None,
        **bans: bool | None,
    ) -> "Recipe":
        """The same recipe with what the command line asks for; None leaves a value as it is.

        Args:
            bans: the switches of ``Graph`` that keep answers out of the graph.

        Raises:
            ConfigError: no seeds, no arms, or an arm twice.
        """
        asked: dict[str, Any] = {name: value for name, value in (("seeds", seeds), ("arms", arms)) if value is not None}
        asked["graph"] = replace(self.graph, **{name: value for name, value in bans.items() if value is not None})  # type: ignore[arg-type]
        if keep_models:
            asked["keep_models"] = True
        if begin_with is not None:
            asked["begin_with"] = str(begin_with.absolute())
            asked["map"], asked["pretrain"] = replace(self.map, epochs=0.0), replace(self.pretrain, max_steps=0)
        if shots is not None:
            asked["tasks"] = tuple(replace(task, shots=shots) for task in self.tasks)
        try:
            return replace(self, **asked)
        except ValidationError as error:
            raise ConfigError(f"recipe {self.name}: {_said(error)}") from error


def load_recipe(name: str) -> Recipe:
    """Read a recipe by its name (``finance``) or path (``my/recipe.toml``).

    Raises:
        ConfigError: no such recipe, TOML that does not parse, or a key that is unknown or of the wrong type.
    """
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.toml")))
        raise ConfigError(f"There is no recipe {name!r}; known: {known}; or give the path of a TOML file.")
    try:
        return parse_recipe(tomllib.loads(path.read_text(encoding="utf-8")), place=str(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def load_settings(file: Path) -> dict[str, dict[str, Any]]:
    """Training settings by task, of a file that says no more than these; none where there is no such file.

    Raises:
        ConfigError: it is not TOML of that form.
    """
    if not file.is_file():
        return {}
    try:
        return {task["name"]: task["training"] for task in tomllib.loads(file.read_text(encoding="utf-8"))["tasks"]}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ConfigError(f"{file}: expected [[tasks]] with a name and training: {error}") from error


def parse_recipe(values: dict[str, Any], *, place: str) -> Recipe:
    """Check ``values`` against ``Recipe``; unknown keys are refused, not dropped."""
    try:
        return TypeAdapter(Recipe).validate_python(values)
    except ValidationError as error:
        raise ConfigError(f"{place}: {_said(error)}") from error


def _said(error: ValidationError) -> str:
    """The first mistake with its key; a whole that is wrong is not repeated."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "value_error":
        return f"{key}: {first['ctx']['error']}" if key else str(first["ctx"]["error"])
    return f"{key}: {first['msg']} (got {first['input']!r})"


def resolve_path(path: str, data: Path | None) -> Path:
    """Find a recipe's path: as given, in the data folder, or beside the recipes (``sample/…``).

    Raises:
        ConfigError: it is nowhere, saying where it was looked for.
    """
    places = [Path(path), *([data / path] if data else []), RECIPES / path]
    for place in places:
        if place.exists():
            return place.absolute()
    raise ConfigError(
        f"{path} was looked for in {', '.join(str(place.parent) for place in places)} and is in none of them; "
        "set KGFUSE_DATA to the folder that holds it."
    )


def default_recipe(data: Path | None) -> str:
    """``finance`` where its data is at hand, else the small sample that comes with the project."""
    recipe = load_recipe("finance")
    try:
        loaded = (path for load in recipe.graph.loads for path in load.paths)
        for path in (*loaded, *(task.path for task in recipe.tasks), *recipe.pretrain.corpus, *recipe.pretrain.replay):
            resolve_path(path, data)
    except ConfigError:
        return "sample"
    return recipe.name
