"""A run can be cut off, gone on with and repeated."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from kg.errors import ConfigError
from kg.local_server import Address
from kg.settings import Settings
from kg.snapshot import Snapshot
from models.arms import ARMS, Arm
from models.data import read_task
from models.kgbert import KGBertForSequenceClassification, KGBertForTokenClassification
from models.predictor import load_predictors
from models.recipe import load_recipe
from models.run import Run, data_hash
from models.stages.arms import arm_table
from models.stages.pretrain import pretrained_arms
from models.stages.texts import read_texts
from models.train_kgbert import main
from tests.models.tiny_run import recipe

pytestmark = pytest.mark.neo4j

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, server: Address) -> Path:
    """Holds a recipe, its data and its base model."""
    made = tmp_path_factory.mktemp("stages")
    recipe(made)
    return made


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """The run folder of all stages with all arms."""
    assert main([str(folder / "tiny.toml"), "--run", str(folder / "whole")]) == 0
    return folder / "whole"


def copy_of(run: Path, to: Path, *, without: tuple[str, ...] = (), stages: tuple[str, ...] = ()) -> Path:
    """A run folder that has only finished ``stages``."""
    shutil.copytree(run, to)
    for name in without:
        shutil.rmtree(to / name) if (to / name).is_dir() else (to / name).unlink()
    manifest = json.loads((to / "manifest.json").read_text(encoding="utf-8"))
    manifest["stages"] = {name: manifest["stages"][name] for name in stages}
    (to / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return to


def scores(run: Path) -> Any:
    """``metrics.json`` and what each training left, without what a clock says."""
    read = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    for task in read["tasks"].values():
        for arm in task["arms"].values():
            del arm["seconds"]
    for arm in read["pretrain"].values():
        del arm["seconds"]
    for file in trained(run):
        read[file] = json.loads((run / file).read_text(encoding="utf-8"))
        del read[file]["seconds"]
    return read


def trained(run: Path) -> dict[str, int]:
    """When each training ended."""
    return {str(file.relative_to(run)): file.stat().st_mtime_ns for file in run.rglob("result.json")}


def command(*arguments: str, env: Mapping[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "models.train_kgbert", *arguments],
        env={**env, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TERM": "dumb"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_run_folder_holds_all_that_was_made_and_all_it_was_made_from(whole: Path, folder: Path) -> None:
    assert load_recipe(str(whole / "config.toml")) == load_recipe(str(folder / "tiny.toml"))
    manifest = json.loads((whole / "manifest.json").read_text(encoding="utf-8"))
    assert list(manifest["stages"]) == ["evaluate", "finetune", "gnn", "pretrain"]
    assert manifest["packages"]["torch"] == torch.__version__.split("+")[0]
    files = ("graph.ttl", "sentences.jsonl", "corpus.txt")
    assert manifest["data"] == {str(folder / name): data_hash(folder / name) for name in files}
    snapshot = Snapshot.load(whole / manifest["snapshot"]["path"])
    assert manifest["snapshot"]["hash"] == snapshot.hash
    assert manifest["coverage"]["kind"]["texts_linked"] == 1.0
    tasks = json.loads((whole / "metrics.json").read_text(encoding="utf-8"))["tasks"]
    assert {name: set(task["arms"]) for name, task in tasks.items()} == {
        "kind": {*ARMS, "majority", "tf-idf"},
        "names": {*ARMS, "tf-idf"},
    }
    assert {file.name for file in (whole / "plots").iterdir()} >= {"scores.png", "kind-loss.png", "names-loss.png"}
    assert (whole / "model" / "model.safetensors").is_file()
    assert (whole / "model" / "names" / "model.safetensors").is_file()
    assert (whole / "README.md").read_text(encoding="utf-8").startswith("# tiny: a fused model")
    left = [str(path.relative_to(whole)) for path in whole.rglob("*")]
    assert not [path for path in left if path.endswith(".part") or "checkpoint" in path]


@pytest.mark.slow
def test_a_run_that_is_finished_trains_nothing_when_it_is_started_again(whole: Path, folder: Path) -> None:
    before, said = trained(whole), (whole / "metrics.json").read_bytes()
    weights = (whole / "model" / "model.safetensors").stat().st_mtime_ns
    assert len(before) == 3 + 2 * 3
    started = time.monotonic()
    assert main([str(folder / "tiny.toml"), "--run", str(whole)]) == 0
    assert time.monotonic() - started < 20
    assert trained(whole) == before
    assert (whole / "metrics.json").read_bytes() == said
    assert (whole / "model" / "model.safetensors").stat().st_mtime_ns == weights


@pytest.mark.slow
def test_the_stages_one_by_one_do_what_all_do(whole: Path, folder: Path, tmp_path: Path) -> None:
    made = {
        "gnn": "table/entity_table.json",
        "pretrain": "pretrain/shuffled/model/model.safetensors",
        "finetune": "model/model.safetensors",
        "evaluate": "metrics.json",
    }
    run = tmp_path / "run"
    for number, (stage, file) in enumerate(made.items()):
        assert not (run / file).exists()
        assert main([stage, str(folder / "tiny.toml"), "--run", str(run)]) == 0
        assert (run / file).is_file()
        manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
        assert set(manifest["stages"]) == set(list(made)[: number + 1])
    assert scores(run) == scores(whole)


@pytest.mark.slow
def test_seeds_and_arms_that_come_later_are_trained_as_if_they_had_been_there(whole: Path, folder: Path) -> None:
    run = folder / "later"
    assert main([str(folder / "tiny.toml"), "--run", str(run), "--arms", "plain"]) == 0
    assert set(scores(run)["tasks"]["kind"]["arms"]) == {"plain", "majority", "tf-idf"}
    before = trained(run)
    assert main([str(folder / "tiny.toml"), "--run", str(run)]) == 0
    assert {file: time for file, time in trained(run).items() if file in before} == before
    assert scores(run) == scores(whole)


@pytest.mark.slow
@pytest.mark.parametrize("after", ["pretrain/*/train/checkpoint-*", "jobs/*/train/checkpoint-*"])
def test_a_run_that_is_killed_and_started_again_ends_as_an_uninterrupted_one(
    after: str, whole: Path, folder: Path, tmp_path: Path, cli_env: dict[str, str]
) -> None:
    done = ("gnn",) if after.startswith("pretrain") else ("gnn", "pretrain")
    lost = ("jobs", "model", "metrics.json", "plots", "README.md") + (("pretrain",) if len(done) == 1 else ())
    run = copy_of(whole, tmp_path / "run", without=lost, stages=done)
    arguments = (str(folder / "tiny.toml"), "--run", str(run))
    process = command(*arguments, env=cli_env)
    try:
        end = time.monotonic() + 120
        while not list(run.glob(after)) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        children = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (run / "metrics.json").exists()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []  # nobody trains on
    assert main(list(arguments)) == 0
    assert scores(run) == scores(whole)


@pytest.fixture
def unused_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server is there: whatever needs one fails in another way."""
    monkeypatch.setenv("NEO4J_URI", "bolt://127.0.0.1:1")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    return output.err


@pytest.mark.usefixtures("unused_server")
def test_what_cannot_be_run_is_refused_in_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, run = str(folder / "tiny.toml"), ("--run", str(tmp_path / "run"))
    assert "There is no recipe 'finanse'" in refused(capsys, "finanse", *run)
    assert "There is no recipe 'finanse'" in refused(capsys, "evaluate", "finanse", *run)
    assert "seeds is 0" in refused(capsys, file, *run, "--seeds", "0")
    assert "seeds is -1" in refused(capsys, file, *run, "--seeds", "-1")
    assert "each once" in refused(capsys, file, *run, "--arms", "fused", "fused")
    assert "one or more" in refused(capsys, file, *run, "--arms")
    assert not (tmp_path / "run").exists()
    for name, key in (("graph", "paths = ["), ("sentences", "path = "), ("corpus", "corpus = [")):
        changed = tmp_path / f"{name}.toml"
        text = Path(file).read_text(encoding="utf-8")
        changed.write_text(text.replace(f"{folder}/{name}.", f"{folder}/no-{name}."), encoding="utf-8")
        assert key in changed.read_text(encoding="utf-8")
        said = refused(capsys, str(changed), "--run", str(tmp_path / name))
        assert f"no-{name}." in said
        assert "is in none of them" in said


@pytest.mark.slow
def test_every_arm_is_taught_trained_and_reported(folder: Path, tmp_path: Path) -> None:
    file = recipe(tmp_path / "tiny", pretrain_steps=0)
    banned = 'ban_relations = ["INSTANCE_OF"]\n'  # another has to say what an entity is
    text = file.read_text(encoding="utf-8").replace(banned, f'{banned}type_relations = ["RIVAL_OF"]\n')
    first, _, rest = text.partition('[[tasks]]\nname = "names"')  # tags have no arm that is told in words
    file.write_text(f"{first}[map]\nepochs = 1.0\n[pretrain]{rest.partition('[pretrain]')[2]}")
    arms = get_args(Arm)
    assert main(["evaluate", str(file), "--run", str(tmp_path / "run"), "--arms", *arms]) == 0
    task = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))["tasks"]["kind"]
    assert set(task["arms"]) == {*arms, "majority", "tf-idf"}
    assert set(task["gain"]["over"]) == set(arms) - {"fused"}
    tables = {arm: arm_table(tmp_path / "run", arm) for arm in arms}
    assert {arm for arm, table in tables.items() if table is None} == {"plain", "text"}
    vectors = {arm: table.vectors for arm, table in tables.items() if table is not None}
    assert len({value.numpy().tobytes() for value in vectors.values()}) == len(vectors)  # each is told something else
    assert {path.name for path in (tmp_path / "run" / "map").iterdir()} == set(vectors)


@pytest.mark.parametrize("arms", [("mixed",), ("plain", "mixed")])
def test_an_arm_that_does_not_exist_is_refused(
    arms: tuple[str, ...], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(folder / "tiny.toml"), "--run", str(tmp_path / "run"), "--arms", *arms]
    with pytest.raises(SystemExit) as ended:  # the command line itself says which there are
        main(arguments)
    assert ended.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "names"', 'name = "kind"', "tasks need names of their own"),
        ('name = "names"', 'name = "../names"', "tasks need names of their own"),
        ("seeds = 1", "seeds = 0", "seeds is 0"),
        ("seeds = 1", 'seeds = 1\narms = ["plain", "plain"]', "each once"),
        ("seeds = 1", "seeds = 1\narms = []", "one or more"),
    ],
)
def test_a_recipe_that_cannot_be_run_is_refused_when_it_is_read(old: str, new: str, said: str, folder: Path) -> None:
    file = folder / "changed.toml"
    file.write_text((folder / "tiny.toml").read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=said) as caught:
        load_recipe(str(file))
    assert "\n" not in str(caught.value)


def test_nothing_that_is_tested_is_pretrained_on(folder: Path, tmp_path: Path) -> None:
    tiny = load_recipe(str(folder / "tiny.toml"))
    # sentences of one pattern are near-duplicates of tested ones; here it is to be seen what else goes
    every = replace(tiny.pretrain, cleaning=replace(tiny.pretrain.cleaning, near_duplicates=0.0))
    run = Run.open(tmp_path / "run", replace(tiny, pretrain=every))
    texts, _ = read_texts(run, Settings(home=tmp_path))
    found = (*texts.train, *texts.held_out)
    splits = read_task("sample_desks", folder / "sentences.jsonl")
    tested = {example.text for example in (*splits.validation, *splits.test)}
    lines = (folder / "corpus.txt").read_text(encoding="utf-8").splitlines()
    assert tested & set(lines)  # the corpus would bring some in
    assert not tested & set(found)
    assert set(found) == {example.text for example in splits.train} | (set(lines) - tested)
    assert len(set(found)) == len(found)


def test_a_corpus_without_texts_is_refused(folder: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (folder / "sentences.jsonl").read_text(encoding="utf-8").splitlines()]
    short = tmp_path / "sentences.jsonl"
    short.write_text("".join(json.dumps({**row, "text": "Acme Bank.", "entities": []}) + "\n" for row in rows))
    text = (folder / "tiny.toml").read_text(encoding="utf-8").replace(str(folder / "sentences.jsonl"), str(short))
    file = tmp_path / "short.toml"
    file.write_text(text.replace(f'corpus = ["{folder / "corpus.txt"}"]', "corpus = []"), encoding="utf-8")
    run = Run.open(tmp_path / "run", load_recipe(str(file)))
    with pytest.raises(ConfigError, match="no texts to pretrain on"):
        read_texts(run, Settings(home=tmp_path))


def test_the_arm_that_is_served_is_always_pretrained(folder: Path) -> None:
    read = load_recipe(str(folder / "tiny.toml"))
    assert pretrained_arms(read) == ARMS
    assert pretrained_arms(read.with_overrides(seeds=None, arms=("plain",))) == ("plain", "fused")


@pytest.mark.slow
def test_new_words_and_kept_weights_reach_the_model_that_is_served(folder: Path, tmp_path: Path) -> None:
    file = recipe(tmp_path / "tiny")
    text = file.read_text(encoding="utf-8").replace(
        "[pretrain]\n", "[pretrain]\nnew_terms = 6\nevaluate_steps = 4\naverage = 0.2\n"
    )
    file.write_text(text, encoding="utf-8")
    run = tmp_path / "run"
    assert main(["finetune", str(file), "--run", str(run), "--arms", "fused"]) == 0
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    assert [row["step"] for row in manifest["cleaning"]][:2] == ["unicode", "boilerplate"]
    results = manifest["stages"]["pretrain"]
    assert set(results) == {"fused", "fused without new terms"}
    assert results["fused"]["tokens_per_word"] < results["fused without new terms"]["tokens_per_word"]
    terms = json.loads((run / "vocabulary" / "terms.json").read_text(encoding="utf-8"))["terms"]
    assert len(terms) == 6  # of which the six texts apart have three
    for task in ("model", "model/names"):
        assert all(len(AutoTokenizer.from_pretrained(run / task).tokenize(term)) == 1 for term in terms)
        model = KGBertForSequenceClassification if task == "model" else KGBertForTokenClassification
        served = model.from_pretrained(run / task).get_input_embeddings().weight
        pretrained = load_file(run / "pretrain" / "fused" / "model" / "model.safetensors")
        (learnt,) = [value for name, value in pretrained.items() if name.endswith("word_embeddings.weight")]
        assert served.shape == learnt.shape
    assert load_predictors(run)["kind"].predict("Acme Bank rose in week 3.").label in ("bank", "insurer")
