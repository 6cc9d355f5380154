"""A run folder belongs to one recipe, and nothing in it is ever half-written."""

import dataclasses
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from kg.errors import ConfigError, InputError
from models.fusion import FusionConfig
from models.recipe import RECIPES, Graph, Recipe, Task, load_recipe, parse_recipe
from models.run import (
    FORMAT,
    LOCK,
    Run,
    aside,
    child_process,
    data_hash,
    licence_of,
    read_manifest,
    write_json,
    write_text,
)
from models.train_kgbert import main
from models.training import Pretrain, Training


def recipe(**values: object) -> Recipe:
    given = {
        "name": "full",
        "summary": 'Says "all" of it: \\ née, 🙂,\ttabs\nand lines.',
        "graph": Graph(source="rdf", paths=("a b.ttl", "c.ttl"), options=(), source_id="x", ban_relations=("P17",)),
        "fusion": FusionConfig(layers=(2, 3), dropout=0.0),
        "pretrain": Pretrain(corpus=("a.txt",), max_steps=5, learning_rate=1e-5),
        "tasks": (
            Task(name="one", kind="sequence_classification", reader="phrasebank", path="p", max_train=9),
            Task(
                name="two",
                kind="token_classification",
                reader="bio_folder",
                path="q",
                training=Training(epochs=0.5, freeze_embeddings=False),
            ),
        ),
        "arms": ("plain", "fused"),
    }
    return Recipe(**{**given, **values})


def files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))


@pytest.mark.parametrize("name", ["full", *sorted(file.stem for file in RECIPES.glob("*.toml"))])
def test_the_config_of_a_run_is_its_recipe(name: str, tmp_path: Path) -> None:
    asked = recipe() if name == "full" else load_recipe(name)
    Run.open(tmp_path / "run", asked)
    file = tmp_path / "run" / "config.toml"
    assert parse_recipe(tomllib.loads(file.read_text(encoding="utf-8")), place=str(file)) == asked
    copied = tmp_path / "copied.toml"
    copied.write_bytes(file.read_bytes())
    assert load_recipe(str(copied)) == asked


def test_a_run_says_what_made_it(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "deep" / "run", recipe())
    assert run.manifest["recipe"] == "full"
    assert run.manifest["packages"]["torch"]
    assert run.manifest == read_manifest(run.path)
    assert files(run.path) == ["config.toml", "manifest.json", LOCK]


def test_a_run_named_from_the_working_folder_has_a_path_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Run.open(Path("runs/full"), recipe()).path == tmp_path / "runs" / "full"


def test_a_run_goes_on_with_what_it_finished(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", recipe())
    assert not run.done("gnn")
    run.finish("gnn", {"mrr": 0.5})
    run.finish("pretrain", {"loss": 2})
    again = Run.open(tmp_path / "run", recipe())
    assert again.done("gnn")
    assert again.result("gnn") == {"mrr": 0.5}
    assert again.result("pretrain") == {"loss": 2}
    assert not again.done("finetune")


def test_a_run_is_one_process_s_until_that_ends_and_can_be_read_meanwhile(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from models.recipe import load_recipe; from models.run import Run\n"
        "Run.open(Path(sys.argv[1]), load_recipe('sample')); print('open', flush=True); sys.stdin.read()"
    )
    begun = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert begun.stdout is not None
        assert begun.stdout.readline() == "open\n"
        before = (tmp_path / "config.toml").read_bytes()
        with pytest.raises(ConfigError, match=f"Another process is at work in {tmp_path}; wait for its end"):
            Run.open(tmp_path, load_recipe("sample").with_overrides(seeds=5, arms=None))
        assert (tmp_path / "config.toml").read_bytes() == before
        assert read_manifest(tmp_path)["recipe"] == "sample"
    finally:
        begun.kill()
        begun.communicate()
    Run.open(tmp_path, load_recipe("sample"))


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "other"},
        {"base": "elsewhere"},
        {"fusion": FusionConfig(layers=(2,), dropout=0.0)},
        {"pretrain": Pretrain()},
        {"tasks": recipe().tasks[:1]},
        {"graph": dataclasses.replace(recipe().graph, ban_relations=())},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_the_folder_of_another_recipe_is_refused_and_stays_as_it_is(changed: dict, tmp_path: Path) -> None:
    Run.open(tmp_path, recipe())
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    with pytest.raises(ConfigError, match=f"{tmp_path} holds a run of other settings than") as caught:
        Run.open(tmp_path, recipe(**changed))
    assert "\n" not in str(caught.value)
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


@pytest.mark.parametrize("begun", [1, FORMAT + 1])
def test_a_run_whose_models_are_others_takes_no_more_seeds(begun: int, tmp_path: Path) -> None:
    Run.open(tmp_path, recipe()).update_manifest(format=begun)
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    with pytest.raises(
        ConfigError, match=f"{tmp_path} holds a run whose models are of format {begun}, this kgfuse"
    ) as caught:
        Run.open(tmp_path, recipe(seeds=5))
    assert "\n" not in str(caught.value)
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


def test_more_seeds_and_other_arms_may_be_asked_of_a_run_that_exists(tmp_path: Path) -> None:
    Run.open(tmp_path, recipe()).finish("gnn", {})
    more = Run.open(tmp_path, recipe(seeds=5, arms=("fused",), limits="few", summary="again"))
    assert more.done("gnn")
    assert "seeds = 5" in (tmp_path / "config.toml").read_text(encoding="utf-8")


def test_a_folder_that_is_no_run_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"is no run folder .* and is not empty"):
        Run.open(tmp_path, recipe())
    assert files(tmp_path) == ["thesis.txt"]
    with pytest.raises(ConfigError, match="is no run folder"):
        Run.open(tmp_path / "thesis.txt", recipe())
    with pytest.raises(InputError, match="not a run folder"):
        read_manifest(tmp_path)


def test_an_empty_folder_becomes_a_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert Run.open(tmp_path / "run", recipe()).manifest["recipe"] == "full"


def test_a_folder_written_aside_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").touch()
    with aside(tmp_path / "model") as folder:
        (folder / "new").touch()
        assert files(tmp_path / "model") == ["old"]
    assert files(tmp_path) == ["model", "model/new"]


def write_half(folder: Path, error: type[BaseException]) -> None:
    with aside(folder) as part:
        (part / "half").touch()
        raise error


def test_a_block_that_fails_leaves_the_old_folder_and_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").touch()
    for name in ("model", "table"):
        for error in (RuntimeError, KeyboardInterrupt):
            with pytest.raises(error):
                write_half(tmp_path / name, error)
    assert files(tmp_path) == ["model", "model/old"]


def test_what_a_killed_process_left_aside_does_not_get_in(tmp_path: Path) -> None:
    (tmp_path / "model.part").mkdir()
    (tmp_path / "model.part" / "half").touch()
    with aside(tmp_path / "model") as folder:
        (folder / "new").touch()
    assert files(tmp_path) == ["model", "model/new"]


def test_a_file_is_replaced_in_one_step_and_json_can_be_compared(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"b": 1, "a": "née"})
    assert file.read_text(encoding="utf-8") == '{\n  "a": "née",\n  "b": 1\n}\n'
    with pytest.raises(TypeError):
        write_json(file, {"b": object()})
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "\ud800")
    assert json.loads(file.read_text(encoding="utf-8")) == {"a": "née", "b": 1}


def dataset(folder: Path, **contents: str) -> Path:
    for name, content in contents.items():
        file = folder / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return folder


def test_the_hash_of_data_depends_on_names_and_contents_and_not_on_where_they_are(tmp_path: Path) -> None:
    first = data_hash(dataset(tmp_path / "a", train="1", sub__test="2"))
    assert data_hash(dataset(tmp_path / "b", sub__test="2", train="1")) == first
    others = [
        dataset(tmp_path / "c", train="1", sub__test="3"),
        dataset(tmp_path / "d", train="1", test="2"),
        dataset(tmp_path / "e", train="2", sub__test="1"),
        dataset(tmp_path / "f", train="1"),
        dataset(tmp_path / "g", train="1", sub__test="2", more=""),
    ]
    assert len({first, *map(data_hash, others)}) == 6


def test_the_hash_of_one_file_depends_on_its_content_alone(tmp_path: Path) -> None:
    dataset(tmp_path, one="x", same="x", other="y")
    assert data_hash(tmp_path / "one") == data_hash(tmp_path / "same") != data_hash(tmp_path / "other")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"SOURCE.json": '[{"licence": "MIT"}, {"license": "CC BY 4.0"}]', "LICENSE": "other"}, "MIT; CC BY 4.0"),
        ({"SOURCE.json": '{"url": "x"}', "LICENSE.md": "\n\nApache License\nVersion 2.0"}, "Apache License"),
        ({"SOURCE.json": "{", "README.md": "Texts.\nSource: x. Licence: CC0 1.0. Made in May."}, "CC0 1.0"),
        ({"README.md": "The licence is MIT.\n"}, "MIT"),
        ({"README": "Nobody knows."}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_a_licence_is_what_the_folder_of_the_data_says(files: dict[str, str], said: str, tmp_path: Path) -> None:
    data = tmp_path / "a" / "b" / "data" / "texts.csv"
    data.parent.mkdir(parents=True)
    data.touch()
    for name, content in files.items():
        (data.parent.parent / name).write_text(content)
    assert licence_of(data) == licence_of(data.parent) == said


def test_a_step_in_another_process_gives_its_output_or_its_failure() -> None:
    assert child_process("-c", "print('done')") == "done\n"
    with pytest.raises(ConfigError, match="was refused"):
        child_process("-c", "raise SystemExit(2)")
    with pytest.raises(RuntimeError, match="exit code 7"):
        child_process("-c", "raise SystemExit(7)")
    with pytest.raises(KeyboardInterrupt):
        child_process("-c", "raise SystemExit(130)")


def test_a_run_is_not_begun_by_several_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["sample", "--run", str(tmp_path / "run")]) == 2
    assert "torchrun began 2 processes of one run, expected one" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
