"""Rows of the table are made by bases that are kept: the same entity gives the same row, today and after a refresh."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from kg.errors import ConfigError, InputError
from models.graph import Data
from models.reduction import Basis, Reduction, signature_counts


def graph_of(triples: list[tuple[int, int, int]], *, num_nodes: int, num_relations: int) -> Data:
    columns = torch.tensor(triples).reshape(-1, 3)
    return Data(
        edge_index=columns[:, [0, 2]].T.contiguous(),
        edge_type=columns[:, 1].contiguous(),
        num_nodes=num_nodes,
        num_relations=num_relations,
    )


def parts(nodes: int = 30) -> tuple[Tensor, Data, Tensor]:
    generator = torch.Generator().manual_seed(0)
    ends = torch.randint(nodes, (3 * nodes, 2), generator=generator).tolist()
    triples = [(head, number % 3, tail) for number, (head, tail) in enumerate(ends)]
    graph = graph_of(triples, num_nodes=nodes, num_relations=3)
    return torch.randn(nodes, 16, generator=generator), graph, torch.randn(nodes, 20, generator=generator)


def fitted(nodes: int = 30, *, dim: int = 12) -> tuple[Reduction, tuple[Tensor, object, Tensor]]:
    embeddings, graph, features = parts(nodes)
    counts = signature_counts(graph, np.arange(nodes))
    return Reduction.fit(embeddings, counts, features, dim=dim, norm=2.5), (embeddings, counts, features)


def test_a_basis_gives_the_whitened_components_of_scikit_learn() -> None:
    values = np.random.default_rng(0).normal(size=(50, 6)) * [9, 5, 3, 1, 0.5, 0.1]
    projected = Basis.fit(values, 4).project(values)
    np.testing.assert_allclose(projected, PCA(4, whiten=True).fit_transform(values).clip(-5, 5), atol=1e-9)


def test_a_component_without_variance_gives_zero_and_what_is_missing_is_padded() -> None:
    values = np.random.default_rng(0).normal(size=(3, 6))  # three points lie in a plane
    projected = Basis.fit(values, 5).project(values)
    assert projected.shape == (3, 5)
    assert np.abs(projected[:, :2]).min(axis=0).max() > 0
    assert (projected[:, 2:] == 0).all()
    assert (Basis.fit(np.ones((4, 3)), 2).project(np.ones((4, 3))) == 0).all()


def test_a_row_depends_on_its_own_parts_alone() -> None:
    reduction, (embeddings, counts, features) = fitted()
    everything = reduction.rows(embeddings, counts, features)
    assert everything.shape == (30, 12)
    for nodes in ([4], [0, 29], list(range(0, 30, 3)), []):
        assert torch.equal(reduction.rows(embeddings[nodes], counts[nodes], features[nodes]), everything[nodes])


def test_rows_are_as_long_as_the_words_of_the_base_model() -> None:
    reduction, given = fitted()
    torch.testing.assert_close(reduction.rows(*given).norm(dim=1), torch.full((30,), 2.5))


@pytest.mark.parametrize("nodes", [2, 3, 30])
def test_a_reduction_that_was_saved_gives_the_same_bits(nodes: int, tmp_path: Path) -> None:
    reduction, given = fitted(nodes)
    reduction.save(tmp_path)
    assert torch.equal(Reduction.load(tmp_path).rows(*given), reduction.rows(*given))


def test_a_table_of_one_entity_is_refused() -> None:
    with pytest.raises(ConfigError, match="two entities or more; the graph has 1"):
        fitted(1)


def test_a_signature_says_relations_by_direction_and_tails_that_were_there() -> None:
    graph = graph_of([(0, 1, 2), (0, 1, 3), (3, 0, 0)], num_nodes=4, num_relations=2)
    counts = signature_counts(graph, np.array([1, 0, 2, -1])).toarray()  # node 3 is new
    assert counts.shape == (4, 4 + 65_536)
    np.testing.assert_allclose(counts[0, :4], [0, np.log(3), np.log(2), 0])
    np.testing.assert_allclose(counts[3, :4], [np.log(2), 0, 0, np.log(2)])
    pointed = [np.flatnonzero(row) + 0 for row in counts[:, 4:]]
    assert [row.tolist() for row in pointed] == [[(1_000_003 + 2) % 65_536], [], [], [1]]


def test_indices_may_move_without_changing_a_signature() -> None:
    _, graph, _ = parts()
    moved = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    other = Data(edge_index=moved[graph.edge_index], edge_type=graph.edge_type, num_nodes=30, num_relations=3)
    before = signature_counts(graph, np.arange(30))
    after = signature_counts(other, moved.argsort().numpy())
    assert (after[moved.numpy()] != before).nnz == 0


@pytest.mark.parametrize("damage", ["absent", "cut", "other"])
def test_a_lost_or_broken_reduction_is_an_error_of_one_line(damage: str, tmp_path: Path) -> None:
    fitted()[0].save(tmp_path)
    file = tmp_path / "reduction.safetensors"
    if damage == "absent":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-5] if damage == "cut" else b"")
    with pytest.raises(InputError, match="missing or broken") as caught:
        Reduction.load(tmp_path)
    assert "\n" not in str(caught.value)
