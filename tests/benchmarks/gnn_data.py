"""CoDEx with texts, its split with unseen entities, and graphs of any size."""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kg.settings import Settings
from models.graph import Data, Split, embed_texts


@dataclass(frozen=True)
class Graph:
    """Triples in three parts, and features of the nodes."""

    split: Split
    num_nodes: int
    num_relations: int
    features: Tensor

    @property
    def data(self) -> Data:
        """Its edges for training."""
        triples = self.split.train
        return Data(
            edge_index=triples[:, [0, 2]].T,
            edge_type=triples[:, 1],
            num_nodes=self.num_nodes,
            num_relations=self.num_relations,
        )


def read_codex(folder: Path, size: str, *, base: str = "minilm") -> Graph:
    """CoDEx ``s`` or ``m`` of the folder ``kg`` of the shared data.

    Texts are the labels and descriptions that FB15k-237 and the lists of Wikidata facts have of its entities, and the
    labels of their types: the names in CoDEx itself are not in that folder.
    """
    files = {
        part: folder / "codex" / "triples" / f"codex-{size}" / f"{part}.txt" for part in ("train", "valid", "test")
    }
    rows = {part: [line.split("\t") for line in file.read_text().splitlines()] for part, file in files.items()}
    entities = sorted({entity for part in rows.values() for head, _, tail in part for entity in (head, tail)})
    relations = sorted({relation for part in rows.values() for _, relation, _ in part})
    entity, relation = ({name: at for at, name in enumerate(names)} for names in (entities, relations))
    parts = {
        part: torch.tensor([[entity[head], relation[name], entity[tail]] for head, name, tail in triples])
        for part, triples in rows.items()
    }
    features = embed_texts(_texts(folder, entities), base, Settings.from_env().home / "cache")
    return Graph(Split(**parts), len(entities), len(relations), features)


def _texts(folder: Path, entities: list[str]) -> list[str]:
    def read(path: Path) -> dict[str, dict[str, str]]:
        said: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
        return said

    with gzip.open(folder.parent / "lm" / "wikidata_facts" / "names.tsv.gz", "rt", encoding="utf-8") as lines:
        labels = {columns[0]: columns[1] for columns in (line.split("\t") for line in lines)}
    freebase = read(folder / "fb15k237_wikidata" / "FB15k-237" / "entity2wikidata.json").values()
    known = {one["wikidata_id"]: one for one in freebase if one.get("wikidata_id")}
    types = read(folder / "codex" / "types" / "en" / "types.json")
    types_of = read(folder / "codex" / "types" / "entity2types.json")
    texts = []
    for entity in entities:
        one = known.get(entity, {})
        kinds = [types[kind]["label"] for kind in types_of.get(entity, ()) if kind in types]
        said = [one.get("label") or labels.get(entity, ""), one.get("description") or "", ", ".join(kinds)]
        texts.append(": ".join(part for part in said if part))
    return texts


@dataclass(frozen=True)
class Unseen:
    """A graph without some of its entities; indices are those of the whole one."""

    graph: Graph
    """Their edges are neither in training nor in its validation and test."""
    entities: Tensor
    """True where an entity is unseen ``[nodes]``."""
    visible: Tensor
    """All training triples, which say what an unseen entity's neighbours are."""
    valid: Tensor
    test: Tensor
    """Triples of the parts that an unseen entity is in."""


def without_some(graph: Graph, *, share: float = 0.1, seed: int = 0) -> Unseen:
    """Remove a share of the entities from training."""
    order = torch.randperm(graph.num_nodes, generator=torch.Generator().manual_seed(seed))
    entities = torch.zeros(graph.num_nodes, dtype=torch.bool)
    entities[order[: round(share * graph.num_nodes)]] = True

    def touches(triples: Tensor) -> Tensor:
        return entities[triples[:, 0]] | entities[triples[:, 2]]

    whole = graph.split
    kept = Split(*(part[~touches(part)] for part in (whole.train, whole.valid, whole.test)))
    return Unseen(
        graph=Graph(kept, graph.num_nodes, graph.num_relations, graph.features),
        entities=entities,
        visible=whole.train,
        valid=whole.valid[touches(whole.valid)],
        test=whole.test[touches(whole.test)],
    )


def generated(num_triples: int, *, num_relations: int = 50, text_dim: int = 32) -> Graph:
    """Ten triples a node; some nodes have far more than others, as in real graphs."""
    generator = torch.Generator().manual_seed(0)
    num_nodes = num_triples // 10
    ends = (torch.rand(num_triples, 2, generator=generator).square() * num_nodes).long()
    relations = torch.randint(num_relations, (num_triples, 1), generator=generator)
    triples = torch.cat([ends[:, :1], relations, ends[:, 1:]], dim=1)
    nothing = triples[:0]
    return Graph(
        Split(triples, nothing, nothing),
        num_nodes,
        num_relations,
        torch.randn(num_nodes, text_dim, generator=generator),
    )
