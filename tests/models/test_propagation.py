"""Message passing and its gradients are those of torch_geometric; a sample of neighbours is one."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing, RGCNConv

from models.propagation import NUM_BASES, ComposeAndSum, Composition, Edges, sample_neighbours


def random_edges(*, nodes: int, relations: int, edges: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    columns = [torch.randint(count, (edges,), generator=generator) for count in (nodes, relations, nodes)]
    return torch.stack(columns, dim=1)


class Reference(MessagePassing):
    """Mean over incoming edges of head times relation, as torch_geometric computes it."""

    def __init__(self) -> None:
        super().__init__(aggr="mean", flow="source_to_target")

    def forward(self, states: Tensor, relations: Tensor, edges: Tensor) -> Tensor:
        result: Tensor = self.propagate(edges[:, [0, 2]].T, x=states, rel=relations[edges[:, 1]])
        return result

    def message(self, x_j: Tensor, rel: Tensor) -> Tensor:
        return x_j * rel


def layer_of(kind: str, *, dim: int = 5, relations: int = 3) -> Composition:
    layer = Composition(dim, relations, kind)
    torch.nn.init.normal_(layer.message.weight)
    torch.nn.init.normal_(layer.relations.weight)
    return layer


def by_torch_geometric(
    kind: str, layer: Composition, states: Tensor, edges: Tensor, weights: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """What comes out, and the gradients of its sum by states, relations and message."""
    if kind == "compgcn":
        parameters = (states, layer.relations.weight, layer.message.weight)
        out = Reference()(states, parameters[1], edges) @ parameters[2].T
        return out, list(torch.autograd.grad((out * weights).sum(), parameters))
    dim = states.shape[1]
    reference = RGCNConv(dim, dim, len(layer.relations.weight), NUM_BASES, aggr="mean", root_weight=False, bias=False)
    reference.comp.data = layer.relations.weight.data
    reference.weight.data = layer.message.weight.data.view(dim, NUM_BASES, dim).permute(1, 2, 0).contiguous()
    out = reference(states, edges[:, [0, 2]].T, edges[:, 1])
    *others, bases = torch.autograd.grad((out * weights).sum(), (states, reference.comp, reference.weight))
    return out, [*others, bases.permute(2, 0, 1).reshape(dim, NUM_BASES * dim)]


@pytest.mark.parametrize("kind", ["compgcn", "rgcn"])
@pytest.mark.parametrize("hide", [False, True])
def test_a_layer_and_its_gradients_are_those_of_torch_geometric(kind: str, hide: bool) -> None:
    torch.manual_seed(0)
    triples = random_edges(nodes=8, relations=3, edges=60)
    triples[:, 2] %= 7  # the last node hears from nobody
    edges = Edges(triples, 8)
    hidden = torch.rand(60) < 0.4 * hide
    layer, states, weights = layer_of(kind), torch.randn(8, 5, requires_grad=True), torch.randn(8, 5)
    parameters = (states, layer.relations.weight, layer.message.weight)
    made = layer(states, edges.without(hidden))
    expected, gradients = by_torch_geometric(kind, layer, states, edges.triples[~hidden], weights)
    torch.testing.assert_close(made, expected)
    assert made[7].eq(0).all()
    found = torch.autograd.grad((made * weights).sum(), parameters)
    for one, other in zip(found, gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_hiding_edges_leaves_the_edges_that_were_there() -> None:
    torch.manual_seed(0)
    edges, states, layer = Edges(random_edges(nodes=6, relations=3, edges=20), 6), torch.randn(6, 5), layer_of("rgcn")
    before = layer(states, edges)
    hidden = layer(states, edges.without(torch.ones(20, dtype=torch.bool)))
    assert hidden.eq(0).all()
    assert torch.equal(layer(states, edges), before)


@pytest.mark.parametrize("kind", ["compgcn", "rgcn", "none"])
def test_a_layer_says_nothing_at_first(kind: str) -> None:
    edges = Edges(random_edges(nodes=6, relations=3, edges=20), 6)
    assert Composition(5, 3, kind)(torch.randn(6, 5), edges).eq(0).all()


def test_the_baseline_does_not_hear_its_neighbours() -> None:
    states, layer = torch.randn(6, 5), layer_of("none")
    some, other = (layer(states, Edges(random_edges(nodes=6, relations=3, edges=9, seed=n), 6)) for n in range(2))
    assert torch.equal(some, other)
    torch.testing.assert_close(some, states @ layer.message.weight.T)


def test_the_gradients_of_composing_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    edges = Edges(random_edges(nodes=5, relations=2, edges=12), 5)
    inputs = [torch.randn(rows, 3, dtype=torch.float64, requires_grad=True) for rows in (5, 2)]
    weights = torch.rand(12, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s, r: ComposeAndSum.apply(s, r, edges, weights), inputs)


def test_composing_over_no_edges_gives_zeros() -> None:
    states, edges = torch.randn(4, 3, requires_grad=True), Edges(torch.zeros(0, 3, dtype=torch.long), 4)
    for weights in (edges.by_tail, edges.by_relation):
        made = ComposeAndSum.apply(states, torch.randn(2, 3), edges, weights)
        made.sum().backward()
        assert made.eq(0).all()
    assert states.grad is not None
    assert states.grad.eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_no_number_stays_so(dtype: Any) -> None:
    states = torch.full((2, 3), torch.nan, dtype=dtype)
    made = layer_of("compgcn", dim=3).to(dtype)(states, Edges(torch.tensor([[0, 0, 1]]), 2))
    assert made[1].isnan().all()


def rows(triples: Tensor) -> list[tuple[int, ...]]:
    return sorted(map(tuple, triples.tolist()))


@pytest.mark.parametrize("hops", [0, 1, 2])
def test_a_wide_sample_is_all_that_a_node_hears_of(hops: int) -> None:
    edges = Edges(random_edges(nodes=30, relations=2, edges=60), 30)
    nodes, sampled = sample_neighbours(edges, torch.tensor([7, 3, 7]), hops=hops, fan_out=60)
    expected, tails = [], {3, 7}
    reached = set(tails)
    for _ in range(hops):
        heard = [row for row in rows(edges.triples) if row[2] in tails]
        expected += heard
        tails = {row[0] for row in heard} - reached
        reached |= tails
    assert rows(sampled) == sorted(expected)
    assert nodes.tolist() == sorted(reached)


def test_a_sample_takes_each_edge_as_often_as_any_other() -> None:
    torch.manual_seed(0)
    star = torch.tensor([[head, 0, 0] for head in range(1, 21)])
    edges, times = Edges(star, 21), torch.zeros(21)
    for _ in range(2000):
        nodes, sampled = sample_neighbours(edges, torch.tensor([0]), hops=1, fan_out=5)
        assert len(sampled) == 5 == len(nodes) - 1  # no edge comes twice
        times[sampled[:, 0]] += 1
    assert (times[1:] - 500).abs().max() < 100  # five standard deviations


def test_a_sample_is_bounded_and_follows_the_seed() -> None:
    edges = Edges(random_edges(nodes=50, relations=2, edges=5000), 50)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(sample_neighbours(edges, torch.tensor([1, 2]), hops=1, fan_out=4)[1])
    assert len(drawn[0]) == 8
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
