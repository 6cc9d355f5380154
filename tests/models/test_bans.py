"""Nothing that states a label may reach a model, and what was kept from it is counted."""

from pathlib import Path

import pytest

from kg.errors import InputError
from kg.snapshot import Snapshot
from models.bans import Bans, find_bans
from models.examples import Example, Mention
from models.graph import load_graph, triples_of
from tests.builders import tiny_snapshot

PEOPLE = [f"Person {number}" for number in range(12)]
COUPLES = [(f"ex:{number}", f"ex:{number + 1}") for number in range(0, 10, 2)]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Couples by SPOUSE, the same turned by WIFE_OF, three of four again by PARTNER, and who knows whom."""
    triples = [(head, "SPOUSE", tail) for head, tail in COUPLES]
    triples += [(tail, "WIFE_OF", head) for head, tail in COUPLES]
    triples += [(head, "PARTNER", tail) for head, tail in COUPLES[:3]] + [("ex:10", "PARTNER", "ex:11")]
    triples += [(f"ex:{number}", "KNOWS", f"ex:{(number + 5) % 12}") for number in range(12)]
    triples += [("ex:0", "KNOWS", "ex:1")]
    return tiny_snapshot(tmp_path_factory.mktemp("bans") / "v1", names=PEOPLE, triples=triples)


def example(head: str, tail: str | None, label: str = "SPOUSE") -> Example:
    text = "one and two"
    pair = (Mention(start=0, end=3, entity=head), Mention(start=8, end=11, entity=tail))
    return Example(id=f"{head} {tail}", text=text, label=label, pair=pair)


def found(snapshot: Snapshot, examples: list[Example], **switches: bool) -> Bans:
    on = {"label_relations": True, "inverses": True, "gold_edges": True} | switches
    return find_bans(snapshot, [(one, (str(one.label),)) for one in examples], **on)


def left(snapshot: Snapshot, bans: Bans) -> set[tuple[str, str, str]]:
    graph = bans.applied(load_graph(snapshot), snapshot)
    return {(snapshot.ids[h], snapshot.relations[r], snapshot.ids[t]) for h, r, t in triples_of(graph).tolist()}


def test_the_relation_of_a_label_its_inverse_and_its_like_are_banned(snapshot: Snapshot) -> None:
    bans = found(snapshot, [example("ex:0", "ex:1")])
    assert bans.relations == ("PARTNER", "SPOUSE", "WIFE_OF")
    why = {row["relation"]: row["why"] for row in bans.audit}
    assert why["SPOUSE"] == "states a label"
    assert why["WIFE_OF"] == "the inverse of SPOUSE for 100% of the pairs"
    assert why["PARTNER"] == "like SPOUSE for 75% of the pairs"
    assert {relation for _, relation, _ in left(snapshot, bans)} == {"KNOWS"}


def test_an_edge_between_two_that_are_asked_about_is_dropped_whatever_it_says(snapshot: Snapshot) -> None:
    bans = found(snapshot, [example("ex:1", "ex:0")])
    assert ("ex:0", "KNOWS", "ex:1") not in left(snapshot, bans)
    assert len(left(snapshot, bans)) == 12
    assert bans.audit[-1] == {"relation": "any", "why": "joins one of 1 pairs asked about", "edges": 1}


def test_each_ban_can_be_lifted(snapshot: Snapshot) -> None:
    asked = [example("ex:0", "ex:1")]
    assert ("ex:0", "KNOWS", "ex:1") in left(snapshot, found(snapshot, asked, gold_edges=False))
    assert found(snapshot, asked, inverses=False).relations == ("SPOUSE",)
    assert found(snapshot, asked, label_relations=False, inverses=False).relations == ()
    everything = found(snapshot, asked, label_relations=False, inverses=False, gold_edges=False)
    assert len(left(snapshot, everything)) == len(snapshot.triples)


def test_a_label_that_is_no_relation_of_the_graph_may_have_its_like_there(snapshot: Snapshot) -> None:
    asked = [example(tail, head, label="HUSBAND_OF") for head, tail in COUPLES]
    bans = find_bans(
        snapshot,
        [(one, ("HUSBAND_OF",)) for one in asked],
        given=["KNOWS"],
        label_relations=True,
        inverses=True,
        gold_edges=False,
    )
    assert bans.relations == ("KNOWS", "PARTNER", "SPOUSE", "WIFE_OF")
    why = {row["relation"]: row["why"] for row in bans.audit}
    assert why["WIFE_OF"] == "like HUSBAND_OF for 100% of the pairs"
    assert why["KNOWS"] == "named by the recipe"


def test_an_example_whose_entity_is_not_in_the_graph_drops_nothing(snapshot: Snapshot) -> None:
    bans = found(snapshot, [example("ex:0", None), example("ex:0", "ex:999")])
    assert bans.pairs == frozenset()
    assert "SPOUSE" in bans.relations


def test_saved_bans_are_the_same_and_a_broken_file_is_said(snapshot: Snapshot, tmp_path: Path) -> None:
    bans = found(snapshot, [example("ex:0", "ex:1")])
    bans.save(tmp_path)
    assert Bans.load(tmp_path) == bans
    (tmp_path / "bans.json").write_text("{}")
    with pytest.raises(InputError, match=r"bans\.json: missing or broken"):
        Bans.load(tmp_path)
