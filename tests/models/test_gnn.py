"""The entity encoder computes what its formulas say, ranks honestly, and learns what a graph shows."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.optimizer import register_optimizer_step_pre_hook

from kg.errors import KGError
from models import link_prediction
from models.gnn import EntityEncoder, GNNConfig, affected_nodes, embed, load_encoder
from models.graph import Data, split_edges, triples_of, with_inverses
from models.link_prediction import evaluate, one_to_n_loss, train_gnn
from models.propagation import Edges
from models.ranking import Pairs

SMALL = GNNConfig(dim=16, epochs=6, batch_size=16, evaluate_every=2, patience=99)
GROUPS, SIZE = 6, 10


def random_edges(*, nodes: int, relations: int, edges: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    columns = [torch.randint(count, (edges,), generator=generator) for count in (nodes, relations, nodes)]
    return torch.stack(columns, dim=1)


def graph_of(triples: Tensor, *, num_nodes: int, num_relations: int) -> Data:
    return Data(
        edge_index=triples[:, [0, 2]].T.contiguous(),
        edge_type=triples[:, 1].contiguous(),
        num_nodes=num_nodes,
        num_relations=num_relations,
    )


def planted() -> tuple[Data, Tensor]:
    """Nodes in groups; relation ``r`` leads from each node to most of the nodes ``r + 1`` groups on."""
    generator = torch.Generator().manual_seed(0)
    triples = [
        (node, relation, (node // SIZE + relation + 1) % GROUPS * SIZE + other)
        for relation in range(2)
        for node in range(GROUPS * SIZE)
        for other in torch.randperm(SIZE, generator=generator)[:5].tolist()
    ]
    graph = graph_of(torch.tensor(triples), num_nodes=GROUPS * SIZE, num_relations=2)
    return graph, torch.randn(GROUPS * SIZE, 4, generator=generator)


def encoder_of(config: GNNConfig, *, nodes: int = 5, relations: int = 2, text_dim: int = 3) -> EntityEncoder:
    torch.manual_seed(0)
    return EntityEncoder(num_nodes=nodes, num_relations=relations, text_dim=text_dim, config=config)


@pytest.mark.parametrize("decoder", ["distmult", "complex", "transe"])
def test_scores_are_those_of_the_published_formulas(decoder: Any) -> None:
    encoder = encoder_of(GNNConfig(dim=4, decoder=decoder)).eval()
    torch.nn.init.normal_(encoder.relations.weight)
    entities = torch.randn(5, 4)
    heads, relations, tails = torch.tensor([0, 3]), torch.tensor([1, 2]), torch.tensor([4, 1, 0])
    scores = encoder.score(entities, heads, relations, tails)
    assert scores.shape == (2, 3)
    torch.testing.assert_close(encoder.score(entities, heads, relations)[:, tails], scores)
    for row, (head, relation) in enumerate(zip(heads.tolist(), relations.tolist(), strict=True)):
        for column, tail in enumerate(tails.tolist()):
            h, r, t = entities[head], encoder.relations.weight[relation], entities[tail]
            expected = {
                "distmult": lambda h, r, t: (h * r * t).sum(),
                "complex": lambda h, r, t: (
                    (torch.complex(h[:2], h[2:]) * torch.complex(r[:2], r[2:]) * torch.complex(t[:2], -t[2:]))
                    .sum()
                    .real
                ),
                "transe": lambda h, r, t: -(h + r - t).square().sum() / 2,
            }[decoder](h, r, t)
            torch.testing.assert_close(scores[row, column], expected)


def ranks_of(encoder: EntityEncoder, triples: list[tuple[int, int, int]], known: list[tuple[int, int, int]]) -> Any:
    features = torch.zeros(encoder.rows.num_embeddings, 3)
    filter_ = Pairs(with_inverses(torch.tensor(known), encoder.num_relations), num_relations=2 * encoder.num_relations)
    nothing = Edges(torch.zeros(0, 3, dtype=torch.long), len(features))
    degrees = torch.arange(len(features))
    return evaluate(encoder, nothing, features, torch.tensor(triples), filter_, degrees=degrees)


def constant_scorer(scores: list[float]) -> EntityEncoder:
    """Gives a tail a score of its own, whatever it is asked."""
    encoder = encoder_of(GNNConfig(dim=2, decoder="distmult", num_layers=0), nodes=len(scores))
    encoder.rows.weight.data = torch.tensor([[1.0, score] for score in scores])
    encoder.score = lambda entities, heads, relations: entities[:, 1].repeat(len(heads), 1)  # type: ignore[method-assign]
    return encoder


def test_a_scorer_that_cannot_tell_gets_the_middle_rank() -> None:
    found = ranks_of(constant_scorer([0.0] * 5), [(0, 0, 1)], [(0, 0, 1)])
    assert found["mrr"] == pytest.approx(1 / 3)  # of 5
    assert (found["hits@1"], found["hits@3"]) == (0.0, 1.0)


def test_ranks_are_filtered_and_ties_count_half() -> None:
    encoder = constant_scorer([4.0, 3.0, 2.0, 2.0, 1.0])
    # tails of (4, 0, ·): 0 and 1 are known and not counted; 2 ties with 3 → 1.5
    # heads of (·, 0, 2): 4 scores least; 0, 1, 2, 3 are better → 5
    known = [(4, 0, 0), (4, 0, 1), (4, 0, 2)]
    found = ranks_of(encoder, [(4, 0, 2)], known)
    assert found["tail"]["mrr"] == pytest.approx(1 / 1.5)
    assert found["head"]["mrr"] == pytest.approx(1 / 5)
    assert found["mrr"] == found["by_relation"][0]["mrr"] == pytest.approx((1 / 1.5 + 1 / 5) / 2)
    assert ranks_of(encoder, [(4, 0, 2)], known[2:])["tail"]["mrr"] == pytest.approx(1 / 3.5)
    # a relation of another kind is not a known answer
    assert ranks_of(encoder, [(4, 0, 2)], [*known[2:], (4, 1, 0)])["tail"]["mrr"] == pytest.approx(1 / 3.5)


def test_ranks_are_told_by_degree_of_what_is_looked_for() -> None:
    encoder = constant_scorer([4.0, 3.0, 2.0, 1.0])
    found = ranks_of(encoder, [(3, 0, 0), (0, 1, 2)], [(3, 0, 0), (0, 1, 2)])["by_degree"]
    # of degree 0: tail 0 ranks first, and head 0 does; degree 1 to 2: tail 2 ranks third; degree 3: head 3 ranks last
    assert {name: (one["ranks"], one["mrr"]) for name, one in found.items()} == {
        "0+": (2, 1.0),
        "1+": (1, pytest.approx(1 / 3)),
        "3+": (1, 0.25),
    }


def test_ranks_do_not_depend_on_the_size_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoder_of(SMALL, nodes=9)
    triples = random_edges(nodes=9, relations=2, edges=25).unique(dim=0).tolist()
    whole = ranks_of(encoder, triples, triples)
    monkeypatch.setattr("models.ranking.SCORES_AT_ONCE", 27)
    assert ranks_of(encoder, triples, triples) == whole


def test_the_loss_of_single_tails_is_the_cross_entropy_of_torch() -> None:
    torch.manual_seed(0)
    scores, tails = torch.randn(6, 9), torch.randint(9, (6,))
    for smoothing in (0.0, 0.1):
        expected = functional.cross_entropy(scores, tails, label_smoothing=smoothing)
        for by_pair in (True, False):
            loss = one_to_n_loss(scores, torch.arange(6), tails, smoothing, by_pair=by_pair)
            torch.testing.assert_close(loss, expected)


def test_each_tail_of_a_pair_counts_as_a_question_of_its_own_or_each_pair_as_one() -> None:
    torch.manual_seed(0)
    scores = torch.randn(2, 4)
    rows, tails = torch.tensor([0, 0, 1]), torch.tensor([1, 3, 2])
    each = functional.cross_entropy(scores[rows], tails, label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(one_to_n_loss(scores, rows, tails, 0.1, by_pair=False), each.mean())
    by_pair = one_to_n_loss(scores, rows, tails, 0.1, by_pair=True)
    torch.testing.assert_close(by_pair, ((each[0] + each[1]) / 2 + each[2]) / 2)


def test_pairs_hold_every_tail_once() -> None:
    triples = random_edges(nodes=7, relations=3, edges=40).unique(dim=0)
    pairs = Pairs(triples[torch.randperm(len(triples))], num_relations=3)
    index = torch.arange(len(pairs)).flip(0)
    rows, tails = pairs.tails_of(index)
    found = torch.stack([pairs.heads(index)[rows], pairs.relations(index)[rows], tails], dim=1)
    assert torch.equal(found.unique(dim=0), triples)
    assert len(found) == len(triples)
    assert torch.equal(pairs.find(pairs.heads(index), pairs.relations(index)), index)


@pytest.mark.parametrize("num_layers", [0, 1])
def test_training_finds_what_is_planted_in_a_graph(num_layers: int, tmp_path: Path) -> None:
    graph, features = planted()
    config = GNNConfig(dim=32, epochs=40, batch_size=64, num_layers=num_layers, patience=99)
    _, metrics = train_gnn(graph, features, config, tmp_path)
    # of 60 nodes: chance has an MRR of 0.08; knowing the group leaves at most 10 tails, less those that are known
    assert metrics["mrr"] > 0.25
    assert metrics["hits@10"] > 0.8
    assert metrics["losses"][-1] < 0.9 * metrics["losses"][0]


def test_edges_without_a_pattern_are_not_found(tmp_path: Path) -> None:
    triples = random_edges(nodes=60, relations=2, edges=600).unique(dim=0)
    graph = graph_of(triples, num_nodes=60, num_relations=2)
    _, metrics = train_gnn(graph, torch.randn(60, 4), GNNConfig(dim=32, epochs=10, batch_size=64), tmp_path)
    assert metrics["mrr"] < 0.2


def heard(edges: Edges) -> Tensor:
    """Those that are not hidden ``[edges, 3]``."""
    return edges.triples[edges.kept]


def test_edges_that_are_asked_for_are_hidden_from_the_encoder_in_both_directions() -> None:
    graph, features = planted()
    edges = with_inverses(triples_of(graph), 2)
    pairs = Pairs(edges, num_relations=4)
    encoder = encoder_of(
        GNNConfig(dim=8, batch_size=20, edge_dropout=0.0), nodes=len(features), text_dim=features.shape[1]
    )
    seen: list[set[tuple[int, ...]]] = []
    asked: list[set[tuple[int, ...]]] = []
    encoder.register_forward_pre_hook(lambda _, given: seen.append(set(map(tuple, heard(given[0]).tolist()))))
    score = encoder.score

    def watched(entities: Tensor, heads: Tensor, relations: Tensor, *others: Tensor | None, **more: Tensor) -> Tensor:
        asked.append(set(zip(heads.tolist(), relations.tolist(), strict=True)))
        return score(entities, heads, relations, *others, **more)

    encoder.score = watched  # type: ignore[method-assign]
    link_prediction.run_steps(
        encoder, link_prediction.make_optimizer(encoder), Edges(edges, len(features)), pairs, features
    )
    everything = set(map(tuple, edges.tolist()))
    assert len(seen) == len(asked) == -(-len(pairs) // 20)
    assert set.union(*asked) == {(head, relation) for head, relation, _ in everything}
    for visible, questions in zip(seen, asked, strict=True):
        hidden = {
            (head, relation, tail)
            for head, relation, tail in everything
            if (head, relation) in questions or (tail, (relation + 2) % 4) in questions
        }
        assert visible == everything - hidden


def test_held_out_edges_are_seen_neither_in_training_nor_in_the_test(tmp_path: Path) -> None:
    graph, features = planted()
    split = split_edges(graph, seed=0)
    held = set(map(tuple, with_inverses(torch.cat([split.valid, split.test]), 2).tolist()))
    looked: set[tuple[int, ...]] = set()
    hook = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, given: (
            looked.update(map(tuple, heard(given[0]).tolist())) if isinstance(module, EntityEncoder) else None
        )
    )
    try:
        train_gnn(graph, features, SMALL, tmp_path)
    finally:
        hook.remove()
    assert looked == set(map(tuple, with_inverses(split.train, 2).tolist()))
    assert held
    assert not looked & held


def test_a_graph_too_big_to_score_whole_is_scored_against_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, features = planted()
    monkeypatch.setattr(link_prediction, "SAMPLED_ABOVE", 20)
    config = GNNConfig(dim=32, epochs=30, batch_size=16, num_negatives=10, patience=99)
    _, metrics = train_gnn(graph, features, config, tmp_path)
    assert metrics["mrr"] > 0.2


@pytest.mark.parametrize("entities", [20, 100])
def test_a_graph_too_big_to_encode_whole_is_learned_from_samples_and_embedded_exactly(
    entities: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    graph, features = planted()
    monkeypatch.setattr(link_prediction, "SAMPLED_ABOVE", entities)
    monkeypatch.setattr(link_prediction, "WHOLE_GRAPH_EDGES", 100)
    config = GNNConfig(dim=32, epochs=30, batch_size=16, num_negatives=10, fan_out=4, num_layers=2, patience=99)
    encoder, metrics = train_gnn(graph, features, config, tmp_path)
    assert metrics["mrr"] > 0.2
    assert "samples of 4 neighbours a node of 1,080 edges" in capsys.readouterr().err.replace("\n", " ")
    nodes = torch.tensor([3, 30])
    assert torch.equal(embed(encoder, graph, features, nodes=nodes), embed(encoder, graph, features)[nodes])


def test_a_sample_hides_the_edges_that_are_asked_for_too(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, features = planted()
    edges = with_inverses(triples_of(graph), 2)
    pairs = Pairs(edges, num_relations=4)
    monkeypatch.setattr(link_prediction, "WHOLE_GRAPH_EDGES", 0)
    encoder = encoder_of(GNNConfig(dim=8, batch_size=len(pairs)), nodes=len(features), text_dim=features.shape[1])
    seen: list[int] = []
    encoder.register_forward_pre_hook(lambda _, given: seen.append(len(heard(given[0]))))
    link_prediction.run_steps(
        encoder, link_prediction.make_optimizer(encoder), Edges(edges, len(features)), pairs, features
    )
    assert seen == [0]  # everything is asked for in one step


class Stopped(Exception):
    """The training was cut off."""


def cut_off(folder: Path, *, step: int) -> None:
    """Train, and be stopped in the given step."""
    graph, features = planted()
    steps = 0

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == step:
            raise Stopped

    hook = register_optimizer_step_pre_hook(count)
    try:
        with pytest.raises(Stopped):
            train_gnn(graph, features, SMALL, folder)
    finally:
        hook.remove()


@pytest.mark.parametrize("step", [1, 40, 70])
def test_a_training_that_was_cut_off_ends_with_the_weights_of_an_uninterrupted_one(step: int, tmp_path: Path) -> None:
    graph, features = planted()  # 240 pairs, 15 steps an epoch, a checkpoint every 30
    whole, expected = train_gnn(graph, features, SMALL, tmp_path / "whole")
    cut_off(tmp_path / "cut", step=step)
    assert (tmp_path / "cut" / "checkpoint.pt").is_file() == (step > 30)
    torch.manual_seed(999)  # whatever happened in between
    resumed, found = train_gnn(graph, features, SMALL, tmp_path / "cut")
    assert found == expected
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert sorted(file.name for file in (tmp_path / "cut").iterdir()) == ["config.json", "encoder.safetensors"]


KILLED = """
import sys
from pathlib import Path
import torch
from models.link_prediction import train_gnn
from tests.models.test_gnn import SMALL, planted
torch.set_num_threads(1)
train_gnn(*planted(), SMALL, Path(sys.argv[1]))
"""


def test_a_killed_training_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    graph, features = planted()
    whole, expected = train_gnn(graph, features, SMALL, tmp_path / "whole")
    killed = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not (tmp_path / "checkpoint.pt").is_file() and killed.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    killed.kill()
    assert killed.wait() == -9
    assert (tmp_path / "checkpoint.pt").is_file()
    resumed, found = train_gnn(graph, features, SMALL, tmp_path)
    assert found == expected
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def test_the_best_epoch_is_kept_and_training_ends_when_nothing_gets_better(tmp_path: Path) -> None:
    triples = random_edges(nodes=30, relations=2, edges=200).unique(dim=0)
    graph = graph_of(triples, num_nodes=30, num_relations=2)
    config = GNNConfig(dim=16, epochs=200, batch_size=64, evaluate_every=1, patience=3)
    encoder, metrics = train_gnn(graph, torch.randn(30, 4), config, tmp_path)
    assert metrics["epochs"] == len(metrics["losses"]) < 200
    assert not encoder.training


def test_a_loss_that_is_no_number_ends_the_training_with_one_clear_error(tmp_path: Path) -> None:
    graph, features = planted()
    features[0, 0] = torch.nan
    with pytest.raises(KGError, match="loss is nan in epoch 1") as caught:
        train_gnn(graph, features, SMALL, tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "encoder.safetensors").exists()


def test_a_graph_with_nothing_to_hold_out_is_trained_too(tmp_path: Path) -> None:
    graph = graph_of(torch.tensor([[0, 0, 1], [2, 1, 3]]), num_nodes=4, num_relations=2)
    encoder, metrics = train_gnn(graph, torch.randn(4, 3), SMALL, tmp_path)
    assert embed(encoder, graph, torch.randn(4, 3)).shape == (4, 16)
    assert set(metrics) == {"epochs", "losses"}  # nothing was measured


def test_a_saved_encoder_comes_back_as_it_was(tmp_path: Path) -> None:
    graph, features = planted()
    encoder, _ = train_gnn(graph, features, SMALL, tmp_path)
    again = load_encoder(tmp_path)
    assert again.config == encoder.config == SMALL
    assert torch.equal(embed(again, graph, features), embed(encoder, graph, features))
    assert not again.training


@pytest.mark.parametrize("num_layers", [0, 1])
def test_a_new_node_gets_a_vector_from_text_and_neighbours(num_layers: int, tmp_path: Path) -> None:
    graph, features = planted()
    config = GNNConfig(dim=32, epochs=30, batch_size=64, num_layers=num_layers, patience=99)
    encoder, _ = train_gnn(graph, features, config, tmp_path)
    before = embed(encoder, graph, features)

    new = len(features)
    # it is linked as the nodes of the first group are
    edges = torch.tensor([[new, 0, SIZE + i] for i in range(5)] + [[new, 1, 2 * SIZE + i] for i in range(5)])
    grown = graph_of(torch.cat([triples_of(graph), edges]), num_nodes=new + 1, num_relations=2)
    learned = torch.arange(new + 1).index_fill(0, torch.tensor([new]), -1)
    after = embed(encoder, grown, torch.cat([features, features[:SIZE].mean(0, keepdim=True)]), learned=learned)
    assert after.shape == (new + 1, 32)
    assert after.isfinite().all()
    far = torch.arange(3 * SIZE, new)  # none of them touches the new node
    torch.testing.assert_close(after[far], before[far])
    if num_layers == 0:
        torch.testing.assert_close(after[:new], before)
    else:
        assert not torch.allclose(after[SIZE], before[SIZE])
        alike = functional.cosine_similarity(after[new], before)
        assert alike[:SIZE].mean() > alike[SIZE:].mean() + 0.1


def test_learned_rows_follow_their_nodes_when_some_are_gone_moved_or_new() -> None:
    graph, features = planted()
    encoder = encoder_of(GNNConfig(dim=8, num_layers=0), nodes=len(features) + 3, text_dim=features.shape[1])
    learned = torch.arange(len(features)).flip(0) + 2
    learned[7] = -1
    vectors = embed(encoder, graph, features, learned=learned)
    rows = encoder.rows.weight.detach()
    placed = torch.stack([torch.zeros(8) if row < 0 else rows[row] for row in learned.tolist()])
    with torch.no_grad():
        torch.testing.assert_close(vectors, encoder.norm(encoder.text(features) + placed))


def loud_encoder(num_layers: int, *, nodes: int, text_dim: int) -> EntityEncoder:
    """An encoder whose layers say something, as they do after training."""
    encoder = encoder_of(GNNConfig(dim=8, num_layers=num_layers), nodes=nodes, relations=2, text_dim=text_dim)
    for layer in encoder.layers:
        torch.nn.init.normal_(layer.message.weight)
    return encoder


@pytest.mark.parametrize("num_layers", [0, 1, 2, 3])
def test_embedding_some_nodes_gives_the_rows_of_embedding_all(num_layers: int) -> None:
    features = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
    graph = graph_of(random_edges(nodes=40, relations=2, edges=45), num_nodes=40, num_relations=2)
    encoder = loud_encoder(num_layers, nodes=40, text_dim=4)
    everything = embed(encoder, graph, features)
    for nodes in ([], [0], [39], [3, 4, 17], list(range(40))):
        assert torch.equal(
            embed(encoder, graph, features, nodes=torch.tensor(nodes, dtype=torch.long)), everything[nodes]
        )


@pytest.mark.parametrize("num_layers", [0, 1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_embeddings_change_at_affected_nodes_and_nowhere_else(num_layers: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(60, 4, generator=generator)
    triples = random_edges(nodes=60, relations=2, edges=60, seed=seed).unique(dim=0)
    kept, added = triples[3:], torch.tensor([[5, 0, 59], [5, 1, 5]])
    changed = features.clone()
    changed[11] += 1
    encoder = loud_encoder(num_layers, nodes=60, text_dim=4)
    before = embed(encoder, graph_of(triples, num_nodes=60, num_relations=2), features)
    after = embed(encoder, graph_of(torch.cat([kept, added]), num_nodes=60, num_relations=2), changed)
    rewired = torch.zeros(60, dtype=torch.bool)
    rewired[torch.cat([triples[:3, [0, 2]], added[:, [0, 2]]]).flatten()] = True
    restated = torch.arange(60) == 11
    edges = with_inverses(torch.cat([kept, added]), 2)
    affected = affected_nodes(edges, restated=restated, rewired=rewired, hops=num_layers)
    differs = (after != before).any(dim=1)
    assert differs.any()
    assert not (differs & ~affected).any()
    if num_layers:
        assert torch.equal(differs, affected)  # no node is computed in vain
    assert affected.sum() < 60
