"""A trained run takes a newer graph without training: new facts change its answers, all else stays to the bit."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from kg.errors import InputError, SnapshotMismatch
from kg.snapshot import Snapshot, write_snapshot
from models import reembed as module
from models.entity_table import FIRST, EntityTable
from models.gnn import embed, load_encoder
from models.graph import Data, load_graph, text_features
from models.predictor import Predictor, load_predictors
from models.recipe import load_recipe
from models.reduction import Reduction, signature_counts
from models.reembed import Update, reembed, rewired_nodes
from models.run import current_knowledge, read_manifest
from models.train_kgbert import main
from tests.models.tiny import attentions, open_gates

pytestmark = pytest.mark.neo4j
NEW = {"id": "ex:c99", "name": "Ingvild Reserve", "definition": "Ingvild Reserve lends.", "types": ["Individual"]}
NEW_EDGES = [("ex:c99", "OWNED_BY", "ex:c0"), ("ex:p1", "DIRECTS", "ex:c99"), ("ex:c99", "RIVAL_OF", "ex:c2")]
ABOUT_NEW = "Ingvild Reserve rose in week 3."
ABOUT_OTHERS = (
    "Delta Cover fell in week 2.",
    "Shares of Fjord Shield fell, said Jon Brekke in week 1.",
    "It rained all week.",
    "",
)


@pytest.fixture
def run(finetuned: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(finetuned, tmp_path / "run", ignore=shutil.ignore_patterns("jobs"))
    return tmp_path / "run"


def snapshot_of(run: Path) -> Snapshot:
    return Snapshot.load(run / current_knowledge(read_manifest(run))["snapshot"]["path"])


def changed(
    snapshot: Snapshot,
    folder: Path,
    *,
    added: Sequence[Mapping[str, Any]] = (),
    removed: Sequence[str] = (),
    edges: Sequence[tuple[str, str, str]] = (),
    without: Sequence[tuple[str, str, str]] = (),
    definitions: Mapping[str, str] | None = None,
) -> Snapshot:
    """A snapshot of the same graph after some changes."""
    ids, said = snapshot.ids, definitions or {}
    entities = [row for row in snapshot.entities.to_pylist() if row["id"] not in removed]
    entities = [{**row, "definition": said.get(row["id"], row["definition"])} for row in entities]
    aliases = [{**row, "entity": ids[row["entity"]]} for row in snapshot.aliases.to_pylist()]
    aliases += [
        {"alias": row["name"], "entity": row["id"], "prior": 1.0, "kind": "pref", "language": "en"} for row in added
    ]
    triples = [(ids[head], snapshot.relations[relation], ids[tail]) for head, relation, tail in snapshot.triples]
    write_snapshot(
        folder,
        entities=[*entities, *added],
        aliases=[row for row in aliases if row["entity"] not in removed],
        triples=[
            (head, relation, tail)
            for head, relation, tail in (*triples, *edges)
            if head not in removed and tail not in removed and (head, relation, tail) not in without
        ],
        sources=snapshot.manifest["sources"],
    )
    return Snapshot.load(folder)


def table_of(run: Path) -> EntityTable:
    return EntityTable.load(run / current_knowledge(read_manifest(run))["table"])


def taken(run: Path, snapshot: Snapshot, tmp_path: Path) -> Update:
    return reembed(run, snapshot, cache=tmp_path / "cache")


def rows_of_a_full_run(run: Path, snapshot: Snapshot, cache: Path, features: Tensor | None = None) -> Tensor:
    """The table when everything is computed anew by the encoder and the bases of the run."""
    recipe = load_recipe(str(run / "config.toml"))
    trained = Snapshot.load(run / read_manifest(run)["snapshot"]["path"])
    graph = load_graph(snapshot, ban_relations=recipe.graph.ban_relations, relations=trained.relations)
    features = text_features(snapshot, recipe.base, cache) if features is None else features
    learned = torch.tensor([trained.index.get(entity_id, -1) for entity_id in snapshot.ids])
    embeddings = embed(load_encoder(run / "gnn"), graph, features, learned=learned)
    return Reduction.load(run / "table").rows(embeddings, signature_counts(graph, learned.numpy()), features)


def kept_features(run: Path) -> Tensor:
    return load_file(run / current_knowledge(read_manifest(run))["table"] / "text_features.safetensors")["features"]


def loud(run: Path) -> Mapping[str, Predictor]:
    """The models of a run with what they let in made strong, so that knowledge shows."""
    loaded = load_predictors(run)
    for predictor in loaded.values():
        open_gates(predictor.model)
        for attention in attentions(predictor.model):
            attention.up.weight.data *= 300
    return loaded


def logits(predictor: Predictor, text: str) -> Tensor:
    feature = predictor.encoder.encode_linked(text, predictor.encoder.linker.link(text))
    with torch.inference_mode():
        found: Tensor = predictor.model(**predictor.collate([feature])).logits
    return found


CHANGES: Mapping[str, dict[str, Any]] = {
    "an entity with edges": {"added": [NEW], "edges": NEW_EDGES},
    "an entity without edges": {"added": [NEW]},
    "an entity gone": {"removed": ["ex:c3"]},
    "an edge more": {"edges": [("ex:p0", "DIRECTS", "ex:c7")]},
    "an edge less": {"without": [("ex:p0", "DIRECTS", "ex:c0")]},
    "another definition": {"definitions": {"ex:c1": "Borealis Mutual insures ships."}},
    "several": {
        "added": [NEW, {**NEW, "id": "ex:a0", "name": "Aurora Guild"}],
        "edges": [*NEW_EDGES, ("ex:a0", "RIVAL_OF", "ex:c99"), ("ex:a0", "RIVAL_OF", "ex:a0")],
        "removed": ["ex:p3", "ex:c5"],
        "definitions": {"ex:c1": "Borealis Mutual insures ships."},
    },
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_rows_are_those_of_a_full_run_and_untouched_ones_stay_to_the_bit(
    change: str, run: Path, tmp_path: Path
) -> None:
    before, older = table_of(run), snapshot_of(run)
    newer = changed(older, tmp_path / "newer", **CHANGES[change])
    update = taken(run, newer, tmp_path)
    after = table_of(run)
    assert after.ids == tuple(newer.ids)
    assert after.snapshot_hash == newer.hash
    assert after.encoder_hash == before.encoder_hash
    # with the text features that were kept: bit for bit; all texts read anew, in other batches: to their rounding
    assert torch.equal(after.vectors[FIRST:], rows_of_a_full_run(run, newer, tmp_path, kept_features(run)))
    anew = rows_of_a_full_run(run, newer, tmp_path / "other cache")
    assert torch.nn.functional.cosine_similarity(after.vectors[FIRST:], anew).min() > 0.999
    same = [entity_id for entity_id in newer.ids if entity_id in before.rows]
    differing = sum(
        not torch.equal(after.vectors[after.rows[entity_id]], before.vectors[before.rows[entity_id]])
        for entity_id in same
    )
    assert 0 <= differing <= update.recomputed - update.added
    assert update.recomputed < update.total == newer.num_entities
    assert (update.added, update.removed) == (len(newer.ids) - len(same), len(older.ids) - len(same))
    assert update.kept + update.changed == len(same)


def test_a_way_there_and_back_ends_where_it_began(run: Path, tmp_path: Path) -> None:
    trained, table = snapshot_of(run), table_of(run)
    there = taken(run, changed(trained, tmp_path / "newer", **CHANGES["several"]), tmp_path)
    back = taken(run, trained, tmp_path)
    assert (back.added, back.removed, back.changed) == (there.removed, there.added, there.changed)
    assert table_of(run).ids == table.ids
    alike = torch.nn.functional.cosine_similarity(table_of(run).vectors[FIRST:], table.vectors[FIRST:])
    assert alike.min() > 0.999  # texts of what came back were read in another batch
    assert [folder.name for folder in (run / "knowledge").iterdir()] == [trained.hash[:16]]


def test_a_fact_that_is_added_changes_the_answers_that_rest_on_it_and_no_others(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = {file: file.read_bytes() for file in run.rglob("model.safetensors")}
    before = loud(run)
    newer = changed(snapshot_of(run), tmp_path / "newer", added=[NEW], edges=NEW_EDGES)
    assert main(["reembed", str(run), "--snapshot", str(newer.path)]) == 0
    said = capsys.readouterr().out
    assert "1 added, 0 removed" in said
    assert "nothing was trained" in said
    after = loud(run)
    assert {file: file.read_bytes() for file in run.rglob("model.safetensors")} == weights
    assert [link.id for link in before["kind"].predict(ABOUT_NEW).links] == []
    answer = after["kind"].predict(ABOUT_NEW)
    assert [link.id for link in answer.links] == ["ex:c99"]
    assert any("Ingvild Reserve" in fact for reason in answer.reasons for fact in reason.facts)
    for task in ("kind", "names"):
        assert (logits(after[task], ABOUT_NEW) - logits(before[task], ABOUT_NEW)).abs().max() > 0.01
    # the new one and those at the other ends of its edges; all else that a text can speak of is as it was
    assert read_manifest(run)["knowledge"]["update"]["recomputed"] == 1 + 3
    for text in ABOUT_OTHERS:
        for task in ("kind", "names"):
            assert torch.equal(logits(after[task], text), logits(before[task], text))
            now, then = after[task].predict(text), before[task].predict(text)
            assert [link.id for link in now.links] == [link.id for link in then.links]
            assert replace(now, links=()) == replace(then, links=())  # a link counts entities, which moved


def test_a_relation_that_was_never_trained_is_left_out_counted_and_no_reason(run: Path, tmp_path: Path) -> None:
    edges = [("ex:c0", "MERGED_WITH", "ex:c1"), ("ex:c1", "MERGED_WITH", "ex:c4"), ("ex:c0", "ABSORBED", "ex:c6")]
    before = table_of(run)
    update = taken(run, changed(snapshot_of(run), tmp_path / "newer", edges=edges), tmp_path)
    assert update.ignored == {"MERGED_WITH": 2, "ABSORBED": 1}
    assert "ignored 2 edges of MERGED_WITH" in update.as_lines()
    assert update.recomputed == update.changed == 0
    assert torch.equal(table_of(run).vectors, before.vectors)  # though every relation has another number now
    answer = load_predictors(run)["kind"].predict("Acme Bank rose in week 1.")
    assert answer.reasons[0].facts
    assert not any("MERGED_WITH" in fact or "ABSORBED" in fact for reason in answer.reasons for fact in reason.facts)


def test_the_same_snapshot_changes_nothing(run: Path, tmp_path: Path) -> None:
    manifest = (run / "manifest.json").read_bytes()
    update = taken(run, snapshot_of(run), tmp_path)
    assert (update.changed, update.added, update.removed, update.recomputed) == (0, 0, 0, 0)
    assert (run / "manifest.json").read_bytes() == manifest
    assert not (run / "knowledge").exists()


@pytest.mark.parametrize("at", ["save_features", "Run"])
def test_an_interrupted_reembed_leaves_the_run_as_it_was(
    at: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    first = changed(snapshot_of(run), tmp_path / "first", added=[NEW])
    taken(run, first, tmp_path)
    manifest, answer = (run / "manifest.json").read_bytes(), load_predictors(run)["kind"].predict(ABOUT_NEW)
    second = changed(first, tmp_path / "second", removed=["ex:c3"])
    with monkeypatch.context() as patch:
        if at == "Run":
            patch.setattr(module.Run, "update_manifest", stopped)
        else:
            patch.setattr(module, at, stopped)
        with pytest.raises(KeyboardInterrupt):
            taken(run, second, tmp_path)
    assert (run / "manifest.json").read_bytes() == manifest
    assert load_predictors(run)["kind"].predict(ABOUT_NEW) == answer
    taken(run, second, tmp_path)
    assert table_of(run).snapshot_hash == second.hash
    assert [folder.name for folder in (run / "knowledge").iterdir()] == [second.hash[:16]]


def test_what_a_later_training_compares_with_is_what_the_run_was_trained_with(run: Path, tmp_path: Path) -> None:
    trained, table = read_manifest(run)["snapshot"], (run / "table" / "entity_table.json").read_bytes()
    taken(run, changed(snapshot_of(run), tmp_path / "newer", added=[NEW]), tmp_path)
    assert read_manifest(run)["snapshot"] == trained
    assert (run / "table" / "entity_table.json").read_bytes() == table


def test_the_newest_snapshot_of_the_home_folder_is_the_default(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = snapshot_of(run)
    changed(older, tmp_path / "home" / "snapshots" / "v2", added=[NEW])
    newest = changed(older, tmp_path / "home" / "snapshots" / "v10", added=[NEW], edges=NEW_EDGES)
    monkeypatch.setenv("KGFUSE_HOME", str(tmp_path / "home"))
    assert main(["reembed", str(run)]) == 0
    assert table_of(run).snapshot_hash == newest.hash


def test_what_cannot_be_taken_is_refused_in_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: str) -> str:
        assert main(["reembed", *arguments]) == 2
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.count("\n") == 1
        return output.err

    monkeypatch.setenv("KGFUSE_HOME", str(tmp_path / "empty"))
    assert "No snapshot in" in refused(str(run))
    assert "not a snapshot" in refused(str(run), "--snapshot", str(tmp_path))
    same = str(snapshot_of(run).path)
    assert "not a run folder" in refused(str(tmp_path), "--snapshot", same)
    foreign = Snapshot.load(write_snapshot(tmp_path / "foreign", entities=[NEW], aliases=[], triples=[]))
    with pytest.raises(SnapshotMismatch, match="shares no entity"):
        taken(run, foreign, tmp_path)
    (run / "table" / "reduction.safetensors").unlink()
    assert "train the run anew" in refused(str(run), "--snapshot", same)
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    (run / "manifest.json").write_text(json.dumps({**manifest, "stages": {}}), encoding="utf-8")
    with pytest.raises(InputError, match="no entity table yet"):
        taken(run, snapshot_of(run), tmp_path)


def test_rewired_nodes_are_the_ends_of_edges_that_came_or_went() -> None:
    def graph(triples: list[tuple[int, int, int]], num_nodes: int) -> Data:
        columns = torch.tensor(triples).reshape(-1, 3)
        edge_index = columns[:, [0, 2]].T.contiguous()
        return Data(edge_index=edge_index, edge_type=columns[:, 1], num_nodes=num_nodes, num_relations=2)

    older = graph([(0, 0, 1), (1, 1, 2), (3, 0, 4), (2, 0, 2)], 5)
    after = torch.tensor([5, 1, 0, -1, 2])  # node 3 is gone, the others moved
    newer = graph([(5, 0, 1), (1, 0, 0), (0, 0, 0), (4, 1, 4)], 6)
    # (1, 1, 2) became (1, 0, 0), 4 lost its edge with 3, and a new node points at itself
    assert np.flatnonzero(rewired_nodes(older, newer, after)).tolist() == [0, 1, 2, 4]
    assert not rewired_nodes(newer, newer, torch.arange(6)).any()
