"""The graph tensors are the snapshot's triples, without what is banned, split in a way that can be repeated."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from kg.errors import ConfigError
from kg.snapshot import Snapshot
from models.base import load_tokenizer
from models.graph import embed_texts, entity_texts, load_graph, split_edges, text_features, triples_of, with_inverses
from tests.builders import COMPANIES, tiny_snapshot
from tests.models.families import domain_texts, tiny_language_model


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return tiny_snapshot(tmp_path_factory.mktemp("graph") / "snapshot")


def named(snapshot: Snapshot, triples: torch.Tensor) -> set[tuple[str, str, str]]:
    return {(snapshot.ids[h], snapshot.relations[r], snapshot.ids[t]) for h, r, t in triples.tolist()}


def large(folder: Path, count: int = 60) -> Snapshot:
    """A ring in two relations, and one entity that hangs on it by a single edge of a relation of its own."""
    ring = [(f"ex:{i}", name, f"ex:{(i + 1) % count}") for i in range(count) for name in ("NEXT", "NEAR")]
    names = [f"Node {i}" for i in range(count + 1)]
    return tiny_snapshot(folder / "ring", names=names, triples=[*ring, ("ex:0", "LONELY", f"ex:{count}")])


def test_every_triple_is_an_edge_from_head_to_tail(snapshot: Snapshot) -> None:
    graph = load_graph(snapshot)
    assert named(snapshot, triples_of(graph)) == {
        ("ex:0", "OWNS", "ex:1"),
        ("ex:1", "INSURES", "ex:2"),
        ("ex:2", "LISTED_ON", "ex:3"),
        ("ex:0", "LISTED_ON", "ex:3"),
    }
    assert (graph.num_nodes, graph.num_relations) == (4, 3)
    assert graph.edge_index.dtype == graph.edge_type.dtype == torch.int64
    assert graph.edge_index.is_contiguous()


def test_a_banned_relation_is_gone_in_both_directions_and_the_numbers_of_the_others_stay(snapshot: Snapshot) -> None:
    graph = load_graph(snapshot, ban_relations=["LISTED_ON"])
    assert named(snapshot, triples_of(graph)) == {("ex:0", "OWNS", "ex:1"), ("ex:1", "INSURES", "ex:2")}
    banned = snapshot.relations.index("LISTED_ON")
    both = with_inverses(triples_of(graph), int(graph.num_relations))
    assert not set(both[:, 1].tolist()) & {banned, banned + int(graph.num_relations)}
    assert (graph.num_nodes, graph.num_relations) == (4, 3)


def test_all_relations_may_be_banned(snapshot: Snapshot) -> None:
    graph = load_graph(snapshot, ban_relations=snapshot.relations)
    assert graph.edge_index.shape == (2, 0)
    assert graph.num_nodes == 4


def test_a_banned_relation_that_the_graph_does_not_have_is_most_likely_misspelt(snapshot: Snapshot) -> None:
    with pytest.raises(ConfigError, match="ban_relations names LISTEDON, which the graph does not have"):
        load_graph(snapshot, ban_relations=["OWNS", "LISTEDON"])


def test_inverses_are_the_same_triples_the_other_way_in_relations_of_their_own() -> None:
    both = with_inverses(torch.tensor([[0, 1, 2], [3, 0, 3]]), 2)
    assert both.tolist() == [[0, 1, 2], [3, 0, 3], [2, 3, 0], [3, 2, 3]]


def test_a_split_is_the_same_each_time_and_another_for_another_seed(tmp_path: Path) -> None:
    graph = load_graph(large(tmp_path))
    first, again, other = (split_edges(graph, seed=seed, valid=0.1, test=0.2) for seed in (3, 3, 4))
    for part in ("train", "valid", "test"):
        assert torch.equal(getattr(first, part), getattr(again, part))
    assert not torch.equal(first.test, other.test)


def test_a_split_is_a_partition_of_the_asked_sizes(tmp_path: Path) -> None:
    graph = load_graph(large(tmp_path))
    split = split_edges(graph, seed=0, valid=0.1, test=0.2)
    triples = [tuple(row) for part in (split.train, split.valid, split.test) for row in part.tolist()]
    assert sorted(triples) == sorted(map(tuple, triples_of(graph).tolist()))
    assert [len(split.valid), len(split.test)] == [12, 24]


def test_what_has_a_single_edge_keeps_it_for_training(tmp_path: Path) -> None:
    snapshot = large(tmp_path)
    graph = load_graph(snapshot)
    for seed in range(10):
        train = split_edges(graph, seed=seed, valid=0.2, test=0.3).train
        assert set(train[:, [0, 2]].flatten().tolist()) == set(range(snapshot.num_entities))
        assert set(train[:, 1].tolist()) == set(range(len(snapshot.relations)))


def test_an_entity_is_described_by_name_and_definition(snapshot: Snapshot) -> None:
    assert entity_texts(snapshot) == [f"{name}: {name} is a company." for name in COMPANIES]


def test_text_features_do_not_depend_on_order_or_company_and_come_from_the_cache(
    snapshot: Snapshot, tmp_path: Path
) -> None:
    features = text_features(snapshot, "minilm", tmp_path / "a")
    assert features.shape == (4, 384)
    assert features.norm(dim=1).min() > 0
    assert torch.equal(text_features(snapshot, "minilm", tmp_path / "b"), features)
    backwards = embed_texts(entity_texts(snapshot)[::-1], "minilm", tmp_path / "b").flip(0)
    torch.testing.assert_close(backwards, features, rtol=0.02, atol=0.02)

    (file,) = (tmp_path / "a").iterdir()
    stamp = file.stat().st_mtime_ns
    assert torch.equal(text_features(snapshot, "minilm", tmp_path / "a"), features)
    assert file.stat().st_mtime_ns == stamp
    embed_texts(["other text"], "minilm", tmp_path / "a")
    assert len(list((tmp_path / "a").iterdir())) == 2


def test_a_half_written_cache_is_not_read(snapshot: Snapshot, tmp_path: Path) -> None:
    features = text_features(snapshot, "minilm", tmp_path)
    (file,) = tmp_path.iterdir()
    file.rename(file.with_suffix(".part"))
    assert torch.equal(text_features(snapshot, "minilm", tmp_path), features)
    assert [found.name for found in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_a_text_has_the_features_of_its_own_tokens_in_whatever_company(family: str, tmp_path: Path) -> None:
    base = tiny_language_model(family, tmp_path / "base")
    short, long = "Acme Bank", " ".join(domain_texts(1))
    together = embed_texts([short, long], base, tmp_path)
    alone = torch.cat([embed_texts([text], base, tmp_path) for text in (short, long)])
    torch.testing.assert_close(together, alone, rtol=0.05, atol=0.05)  # in bfloat16
    model = AutoModel.from_pretrained(base).eval()
    inputs = load_tokenizer(base)(short, return_tensors="pt")
    with torch.no_grad():
        states = (model.encoder if family == "t5" else model)(**inputs).last_hidden_state
    torch.testing.assert_close(alone[0], states[0].mean(0), rtol=0.05, atol=0.05)


def test_new_weights_in_the_folder_of_a_base_give_new_features(tmp_path: Path) -> None:
    base = tiny_language_model("bert", tmp_path / "base")
    before = embed_texts(["Acme Bank"], base, tmp_path)
    assert torch.equal(embed_texts(["Acme Bank"], base, tmp_path), before)
    tiny_language_model("bert", tmp_path / "base", seed=1)
    assert not torch.equal(embed_texts(["Acme Bank"], base, tmp_path), before)
