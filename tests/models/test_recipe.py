"""A recipe is read whole or refused in one line that names the file and the key."""

import dataclasses
from pathlib import Path

import pytest

from kg.errors import ConfigError
from kg.settings import Settings
from kg.snapshot import Snapshot
from kg.store import GraphStore
from models.arms import ARMS
from models.recipe import RECIPES, Recipe, default_recipe, load_recipe, resolve_path
from models.run import Run
from models.stages.checks import check
from models.stages.gnn import make_snapshot
from models.train_kgbert import main
from tests.models.families import tiny_language_model

SMALLEST = """
name = "small"
summary = "As little as a recipe can say."

[graph]
source = "rdf"
paths = ["graph.ttl"]
source_id = "small"

[[tasks]]
name = "desk"
kind = "sequence_classification"
reader = "sample_desks"
path = "sentences.jsonl"
"""


def recipe(folder: Path, text: str = SMALLEST) -> str:
    file = folder / "small.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def refusal(name: str) -> str:
    """What is said when the recipe is loaded; one line, whatever is wrong with it."""
    with pytest.raises(ConfigError) as caught:
        load_recipe(name)
    said = str(caught.value)
    assert "\n" not in said
    return said


def test_what_a_recipe_does_not_say_has_a_default(tmp_path: Path) -> None:
    read = load_recipe(recipe(tmp_path))
    assert (read.name, read.base, read.arms) == ("small", "minilm", ARMS)
    assert read.graph.paths == ("graph.ttl",)
    assert read.tasks[0].training.batch_size == 16
    assert read.fusion.layers == (4, 5)


def test_what_it_says_is_taken(tmp_path: Path) -> None:
    text = SMALLEST + "[tasks.training]\nepochs = 2\nlearning_rate = 3e-4\n[fusion]\nlayers = [1]\n[gnn]\ndim = 20\n"
    read = load_recipe(recipe(tmp_path, text))
    assert (read.tasks[0].training.epochs, read.tasks[0].training.learning_rate) == (2.0, 3e-4)
    assert (read.fusion.layers, read.gnn.dim) == ((1,), 20)


@pytest.mark.parametrize("name", sorted(file.stem for file in RECIPES.glob("*.toml")))
def test_every_recipe_of_the_project_loads_under_its_own_name(name: str) -> None:
    read = load_recipe(name)
    assert read.name == name
    assert isinstance(read, Recipe)
    assert load_recipe(str(RECIPES / f"{name}.toml")) == read


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("[fusion]\nlayer = [1]", "fusion.layer: Unexpected keyword argument (got [1])"),
        ("[gnn]\nepoch = 3", "gnn.epoch: Unexpected keyword argument (got 3)"),
        ("[pretrain]\nsteps = 3", "pretrain.steps: Unexpected keyword argument (got 3)"),
        ("[tasks.training]\nlr = 3e-4", "tasks.0.training.lr: Unexpected keyword argument"),
        ("[optimizer]\nname = 'adam'", "optimizer: Unexpected keyword argument"),
        ("[gnn]\nepochs = 'many'", "gnn.epochs: Input should be a valid integer"),
        ("[gnn]\ndecoder = 'rotate'", "gnn.decoder: Input should be 'distmult', 'complex' or 'transe' (got 'rotate')"),
        ("[fusion]\nlayers = 4", "fusion.layers: Input should be a valid tuple (got 4)"),
        ("[tasks.training]\nepochs = [4]", "tasks.0.training.epochs: Input should be a valid number"),
        ("[pretrain]\nfreeze_embeddings = 'perhaps'", "pretrain.freeze_embeddings: Input should be a valid boolean"),
    ],
)
def test_an_unknown_key_or_a_wrong_type_is_refused_by_name(added: str, said: str, tmp_path: Path) -> None:
    name = recipe(tmp_path, SMALLEST + added)
    assert refusal(name).startswith(f"{name}: {said}")


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("[tasks.training]\nepochs = 0", "tasks.0.training.epochs: Input should be greater than 0"),
        ("[tasks.training]\nbatch_size = 0", "tasks.0.training.batch_size: Input should be greater than 0"),
        ("[tasks.training]\nsave_steps = 0", "tasks.0.training.save_steps: Input should be greater than 0"),
        ("[tasks.training]\nentity_dropout = 7", "tasks.0.training.entity_dropout: Input should be less than or equal"),
        ("[tasks.training]\nmax_length = 2", "tasks.0.training.max_length: Input should be greater than or equal to 8"),
        ("[tasks.training]\nlearning_rate = nan", "tasks.0.training.learning_rate: Input should be a finite number"),
        ("[pretrain]\nmask_probability = -1", "pretrain.mask_probability: Input should be greater than or equal to 0"),
        ("[map]\nwrong_links = 2", "map.wrong_links: Input should be less than or equal to 1"),
        ("[tasks.decoding]\nnum_beams = 0", "tasks.0.decoding.num_beams: Input should be greater than 0"),
        ("[fusion]\ndim = 100\nnum_heads = 3", "fusion: fusion dim 100 is no multiple of its 3 heads"),
        ("[fusion]\ndropout = 1.5", "fusion: fusion dropout is 1.5, expected 0 to less than 1"),
    ],
)
def test_a_number_that_nothing_can_be_trained_with_is_refused_by_name(added: str, said: str, tmp_path: Path) -> None:
    name = recipe(tmp_path, SMALLEST + added)
    assert refusal(name).startswith(f"{name}: {said}")


FITTING = SMALLEST + "[fusion]\nlayers = [1]\n"


@pytest.mark.parametrize(
    ("family", "added", "said"),
    [
        ("bert", "[tasks.training]\nfrozen_layers = 2", "task desk: frozen_layers is 2, expected 0 to 1"),
        ("bert", "[tasks.training]\nfrozen_layers = -1", "task desk: frozen_layers is -1, expected 0 to 1"),
        ("albert", "[tasks.training]\nfrozen_layers = 1", "uses each of its blocks several times"),
        ("bert", "[tasks.training]\nmax_length = 513", "max_length is 513, but the base model reads 512 tokens"),
        ("roberta", "[pretrain]\nmax_length = 512", "pretrain: max_length is 512, but the base model reads 511 tokens"),
        ("gpt2", "[tasks.training]\nmax_length = 129", "max_length is 129, but the base model reads 128 tokens"),
        ("gpt2", "[map]\nepochs = 1", "has no mask token; set map.epochs to 0"),
        ("t5", "[map]\nepochs = 1", "has no mask token; set map.epochs to 0"),
        ("bert", "[map]\nmax_length = 64", "map.max_length is 64, but nothing reads it there: leave it out"),
        ("bert", "[map]\nlearning_rate = 1e-3", "map.learning_rate is 0.001, but nothing reads it there"),
        ("bert", "[pretrain]\nlora_rank = 8", "pretrain.lora_rank is 8, but nothing reads it there: leave it out"),
    ],
)
def test_what_the_base_or_a_stage_cannot_do_is_refused_before_anything_is_made(
    family: str, added: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = f"base = '{tiny_language_model(family, tmp_path / 'base')}'\n"
    check(load_recipe(recipe(tmp_path, base + FITTING)))
    capsys.readouterr()
    assert main([recipe(tmp_path, base + FITTING + added), "--run", str(tmp_path / "run")]) == 2
    refused = capsys.readouterr().err
    assert said in refused
    assert refused.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_what_is_written_beside_a_text_has_to_fit_too(tmp_path: Path) -> None:
    base = tiny_language_model("bert", tmp_path / "base")
    long = f"base = '{base}'\n{FITTING}[tasks.training]\nmax_length = 512\n"
    check(load_recipe(recipe(tmp_path, long)))
    with pytest.raises(ConfigError, match="max_length is 512, with 64 tokens of facts beside it, but .* 512 tokens"):
        check(load_recipe(recipe(tmp_path, f'arms = ["plain", "text"]\n{long}')))
    written = tiny_language_model("gpt2", tmp_path / "gpt2")
    text = FITTING.replace("sequence_classification", "causal_generation") + "[tasks.training]\nmax_length = 100\n"
    with pytest.raises(ConfigError, match="max_length is 100, with 64 tokens of what is written beside it"):
        check(load_recipe(recipe(tmp_path, f"base = '{written}'\n{text}")))
    free = tiny_language_model("t5", tmp_path / "t5")
    check(load_recipe(recipe(tmp_path, f"base = '{free}'\n{FITTING}[tasks.training]\nmax_length = 5000\n")))


@pytest.mark.parametrize("name", sorted(file.stem for file in RECIPES.glob("*.toml")))
def test_every_recipe_asks_what_its_base_can_do(name: str) -> None:
    if (read := load_recipe(name)).base == "minilm":  # another has to be downloaded
        check(read)


def test_a_key_that_is_missing_or_an_arm_that_does_not_exist_is_named(tmp_path: Path) -> None:
    assert "graph.source_id: " in refusal(recipe(tmp_path, SMALLEST.replace('source_id = "small"', "")))
    assert "kind: " in refusal(recipe(tmp_path, SMALLEST.replace("sequence_classification", "classification")))
    assert "arms.1: " in refusal(recipe(tmp_path, 'arms = ["plain", "mixed"]\n' + SMALLEST))


@pytest.mark.parametrize("kind", ["token_classification", "extractive_summarization"])
def test_facts_are_not_written_behind_a_text_of_which_all_is_asked(kind: str, tmp_path: Path) -> None:
    text = 'arms = ["plain", "text"]\n' + SMALLEST
    assert load_recipe(recipe(tmp_path, text)).arms == ("plain", "text")
    said = refusal(recipe(tmp_path, text.replace("sequence_classification", kind)))
    assert f"the arm text writes facts behind a text, which a {kind} takes for the text" in said


@pytest.mark.parametrize("text", ["name = ", "name = 'a'\nname = 'b'", "[graph\n", "name = 'a' b"])
def test_a_syntax_error_is_named(text: str, tmp_path: Path) -> None:
    name = recipe(tmp_path, text)
    assert refusal(name).startswith(f"{name}: not TOML: ")


def test_a_file_that_is_no_text_is_no_recipe(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(b"name = '\xff\xfe'")
    assert "not TOML" in refusal(str(file))


def test_an_unknown_recipe_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.toml")))
    assert {"education", "finance", "law", "medicine", "patents"} <= set(known.split(", "))
    assert refusal("finanse").startswith(f"There is no recipe 'finanse'; known: {known};")


def test_the_command_line_may_ask_for_other_seeds_and_arms() -> None:
    read = load_recipe("sample")
    asked = read.with_overrides(seeds=7, arms=("fused",))
    assert (asked.seeds, asked.arms) == (7, ("fused",))
    assert dataclasses.replace(asked, seeds=read.seeds, arms=read.arms) == read
    assert read.with_overrides(seeds=None, arms=None) == read
    later = read.with_overrides(seeds=None, arms=None, begin_with=Path("runs/other"), keep_models=True)
    assert Path(later.begin_with).is_absolute()
    assert (later.map.epochs, later.pretrain.max_steps, later.keep_models) == (0, 0, True)


def test_a_path_is_looked_for_as_given_then_in_the_data_then_beside_the_recipes(tmp_path: Path) -> None:
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / "own.txt").touch()
    assert resolve_path(str(tmp_path / "sample" / "own.txt"), None) == tmp_path / "sample" / "own.txt"
    assert resolve_path("sample/own.txt", tmp_path) == tmp_path / "sample" / "own.txt"
    assert resolve_path("sample/graph.ttl", tmp_path) == RECIPES / "sample" / "graph.ttl"
    with pytest.raises(ConfigError, match=f"sample/none.ttl was looked for in .*{tmp_path}.*set KGFUSE_DATA"):
        resolve_path("sample/none.ttl", tmp_path)


def test_without_the_data_of_finance_the_sample_is_the_default(tmp_path: Path) -> None:
    assert default_recipe(None) == "sample"
    assert default_recipe(tmp_path) == "sample"
    finance = load_recipe("finance")
    for path in (*finance.graph.paths, *(task.path for task in finance.tasks)):
        (tmp_path / path).mkdir(parents=True)
    assert default_recipe(tmp_path) == "sample"  # its corpus is not there
    for path in finance.pretrain.corpus:
        (tmp_path / path).mkdir(parents=True)
    assert default_recipe(tmp_path) == "finance"


ALSO = """
[[graph.also]]
source = "table"
paths = ["names.tsv"]
options = ["--prefix", "more"]
source_id = "more"
"""


@pytest.mark.neo4j
def test_a_snapshot_is_of_all_data_sets_of_the_recipe(
    tmp_path: Path, store: GraphStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = {
        "graph.ttl": '<urn:a> <http://www.w3.org/2000/01/rdf-schema#label> "Acme" .',
        "names.tsv": "b\tBorealis\tP\n",
        "sentences.jsonl": "",
    }
    for name, text in put.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("KGFUSE_DATA", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent.parent))
    text = SMALLEST.replace("[[tasks]]", ALSO + "[[tasks]]", 1)
    run = Run.open(tmp_path / "run", load_recipe(recipe(tmp_path, text)))
    snapshot = Snapshot.load(make_snapshot(run, Settings.from_env()))
    assert set(snapshot.names) >= {"Acme", "Borealis"}
    assert {Path(file).name for file in run.manifest["data"]} == {"graph.ttl", "names.tsv", "sentences.jsonl"}
    assert [source["id"] for source in run.manifest["snapshot"]["sources"]] == ["more", "small"]
