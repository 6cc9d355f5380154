"""The graphs of single domains: textbooks, contracts, the patent classification; read alone and into Neo4j."""

import json
from collections import Counter
from pathlib import Path

import pytest

from ingest.run import load_source, refresh_source
from ingest.sources.cuad import COLUMNS, iso, parties, types
from kg.errors import InputError
from kg.store import GraphStore
from tests.ingest.test_sources import Read, written


def textbook(folder: Path, **changes: object) -> Path:
    modules = [
        {
            "id": "m1",
            "title": "Scarcity",
            "objectives": ["Explain scarcity"],
            "paragraphs": ["Opportunity costs and the GDP."],
            "glossary": [["scarcity", "when wants exceed supply"], ["opportunity cost", "the cost of scarcity"]],
        },
        {
            "id": "m2",
            "title": "Output",
            "objectives": [],
            "paragraphs": ["Scarce."],
            "glossary": [["gross domestic product (GDP)", "all output"]],
        }
        | changes,
    ]
    places = [
        {"book": book, "path": ["Basics"], "module": module} for book in ("One", "Two") for module in ("m1", "m2")
    ]
    written(folder, "modules.jsonl", "".join(json.dumps(module) + "\n" for module in modules))
    written(folder, "toc.json", json.dumps([*places, {"book": "One", "path": [], "module": "m9"}]))
    return folder


def test_a_textbook_is_a_graph_of_concepts_in_their_order(tmp_path: Path) -> None:
    read = Read("openstax", textbook(tmp_path))
    terms = {key.removeprefix("ex:term-"): entity for key, entity in read.entities.items() if ":term-" in key}
    assert set(terms) == {"scarcity", "opportunity-cost", "gross-domestic-product"}
    assert [name.text for name in terms["gross-domestic-product"].names] == ["gross domestic product", "GDP"]
    assert terms["scarcity"].definition == "when wants exceed supply"
    assert read.edges == {
        ("ex:m1", "HAS_OBJECTIVE", "ex:objective-explain-scarcity"),
        ("ex:m1", "DEFINES", "ex:term-scarcity"),
        ("ex:m1", "DEFINES", "ex:term-opportunity-cost"),
        ("ex:m2", "DEFINES", "ex:term-gross-domestic-product"),
        ("ex:m1", "MENTIONS", "ex:term-opportunity-cost"),
        ("ex:m1", "MENTIONS", "ex:term-gross-domestic-product"),
        ("ex:term-opportunity-cost", "REFERS_TO", "ex:term-scarcity"),
        ("ex:m1", "PART_OF", "ex:chapter-basics"),
        ("ex:m2", "PART_OF", "ex:chapter-basics"),
        ("ex:chapter-basics", "PART_OF", "ex:book-one"),
        ("ex:chapter-basics", "PART_OF", "ex:book-two"),
        ("ex:m1", "NEXT", "ex:m2"),
    }
    assert read.report.skipped == {"place of a module that is not there": 1}


def test_a_malformed_module_is_quarantined_and_a_malformed_table_of_contents_refused(tmp_path: Path) -> None:
    read = Read("openstax", textbook(tmp_path, glossary=[["alone"]]))
    assert [complaint[:2] for complaint in read.complaints] == [("modules.jsonl", 2)]
    assert "ex:m2" not in read.entities
    written(tmp_path, "toc.json", '[{"book": "One"}]')
    with pytest.raises(InputError, match=r"toc.json: expected a list of book, path and module"):
        Read("openstax", tmp_path)


@pytest.mark.parametrize("content", ["[" * 100_000, '[{"book": "\\ud800", "path": [], "module": "m1"}]'])
def test_a_table_of_contents_that_no_store_takes_is_refused(content: str, tmp_path: Path) -> None:
    textbook(tmp_path)
    written(tmp_path, "toc.json", content)
    with pytest.raises(InputError, match=r"toc.json: cannot be read"):
        Read("openstax", tmp_path)


def contracts(folder: Path) -> Path:
    rows = [
        {
            "Filename": "ACME_2001_EX-10.1_7_EX-10.1_Co-Branding Agreement_ Agency Agreement1.pdf",
            "Parties-Answer": 'ACME, INC.  ("Acme" ); Delta Corp, ("Licensor"); (each a "Party")',
            "Agreement Date-Answer": "6/21/1999",
            "Effective Date-Answer": "[]/[]/2018",
            "Governing Law-Answer": "California; [* * *]",
            "Document Name-Answer": "CO-BRANDING   AGREEMENT",
        },
        {"Filename": "DELTA_02_14_2003-EX-10-HOSTING AGREEMENT.pdf", "Parties-Answer": "Delta Corp."},
    ]
    quoted = [['"' + row.get(column, "").replace('"', '""') + '"' for column in COLUMNS] for row in rows]
    lines = [",".join(COLUMNS), *(",".join(cells) for cells in quoted), "short"]
    written(folder, "master_clauses.csv", "\n".join(lines) + "\n")
    return folder


def test_contracts_have_parties_with_roles_law_types_and_dates(tmp_path: Path) -> None:
    read = Read("cuad", contracts(tmp_path))
    first, second = (key for key in read.entities if "2001" in key or "2003" in key)
    assert read.entities[first].properties == {
        **{"agreement_date": "1999-06-21", "effective_date": "[]/[]/2018", "title": "CO-BRANDING AGREEMENT"},
    }
    assert read.edges == {
        (first, "INSTANCE_OF", "ex:type-co-branding-agreement"),
        (first, "INSTANCE_OF", "ex:type-agency-agreement"),
        (first, "GOVERNED_BY", "ex:law-california"),
        (first, "HAS_PARTY", "ex:party-acme-inc"),
        (first, "HAS_PARTY", "ex:party-delta-corp"),
        (second, "INSTANCE_OF", "ex:type-hosting-agreement"),
        (second, "HAS_PARTY", "ex:party-delta-corp"),
    }
    assert [name.text for name in read.entities["ex:party-acme-inc"].names] == ["ACME, INC.", "Acme"]
    roles = {triple.tail: triple.properties for triple in read.triples if triple.head == first and triple.properties}
    assert roles == {"ex:party-delta-corp": {"role": "Licensor"}}
    assert read.complaints == [("master_clauses.csv", 4, "expected 7 fields and a name")]


def test_contracts_without_an_ending_are_contracts_of_their_own(tmp_path: Path) -> None:
    names = ("Acme Inc. Agreement A", "Acme Inc. Agreement B", "Beta", ".pdf", "Gamma.PDF")
    written(tmp_path, "master_clauses.csv", "".join(f"{line},,,,,,\n" for line in names))
    text = ",".join(COLUMNS) + "\n" + (tmp_path / "master_clauses.csv").read_text()
    read = Read("cuad", written(tmp_path, "master_clauses.csv", text))
    found = {entity.name for entity in read.entities.values() if entity.kinds == ("Item",)}
    assert found == {*names[:4], "Gamma"}


def test_parts_of_the_answers_of_contracts() -> None:
    assert list(parties('Apollo ("APOLLO"); Apollo and X shall be individually referred to as a "Party"')) == [
        ("Apollo", "APOLLO")
    ]
    assert types("Monsanto Company - SECOND A&R AGENCY AGREEMENT ") == ["Second A&R Agency Agreement"]
    assert [iso(said) for said in ("2/1/99", "31/01/2025", "perpetual")] == ["1999-02-01", "31/01/2025", "perpetual"]


CODES = (
    {"code": "A01B", "title": "SOIL WORKING (planting A01C )", "definition": "", "refs": ["A01B", "Z", "A01B1/02"]},
    {
        "code": "A01B1/00",
        "title": "Hand tools",
        "definition": "Definition statement This place covers: Tools.",
        "refs": [],
    },
    {"code": "A01B1/02", "title": "{Spades; Shovels}", "definition": "", "refs": ["A01B"]},
    {"code": "A01B3/04", "title": "", "definition": "", "refs": []},
    {"code": "1", "title": "", "definition": "", "refs": []},
)


def test_the_patent_classification_is_a_taxonomy_with_references(tmp_path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in CODES) + '{"code": "A01B"}\n'
    read = Read("cpc", written(tmp_path, "cpc.jsonl", lines))
    assert read.edges == {
        ("ex:A01B1/02", "SUBCLASS_OF", "ex:A01B1/00"),
        ("ex:A01B1/00", "SUBCLASS_OF", "ex:A01B"),
        ("ex:A01B3/04", "SUBCLASS_OF", "ex:A01B"),
        ("ex:A01B", "SUBCLASS_OF", "ex:A01"),
        ("ex:A01", "SUBCLASS_OF", "ex:A"),
        ("ex:A01B", "REFERS_TO", "ex:A01B1/02"),
        ("ex:A01B1/02", "REFERS_TO", "ex:A01B"),
    }
    assert {key: entity.name for key, entity in read.entities.items()} == {
        **{"ex:A01B": "SOIL WORKING", "ex:A01B1/00": "Hand tools", "ex:A01B1/02": "Spades; Shovels"},
        **{"ex:A01B3/04": "A01B3/04", "ex:A01": None, "ex:A": "Human necessities"},
    }
    assert read.entities["ex:A01B1/00"].definition == "Tools."
    assert [complaint[:2] for complaint in read.complaints] == [("cpc.jsonl", 5), ("cpc.jsonl", 6)]


def test_a_code_that_comes_twice_is_read_once(tmp_path: Path) -> None:
    files = [written(tmp_path, name, json.dumps(CODES[0]) + "\n") for name in ("a.jsonl", "b.jsonl")]
    read = Read("cpc", *files, files[0])
    assert read.entities == Read("cpc", files[0]).entities
    assert read.report.skipped["code that was described before"] == 2 * 4


def test_codes_that_no_store_takes_are_quarantined(tmp_path: Path) -> None:
    odd = {**CODES[1], "title": "x\ud800"}
    lines = "\n".join((json.dumps(CODES[0]), "[" * 100_000, json.dumps(odd), json.dumps(CODES[2]))) + "\n"
    read = Read("cpc", written(tmp_path, "cpc.jsonl", lines))
    assert [line for _, line, _ in read.complaints] == [2, 3]
    assert {"ex:A01B", "ex:A01B1/02"} <= read.entities.keys()


@pytest.mark.neo4j
def test_domain_graphs_are_loaded_once_stamped_and_refreshed(tmp_path: Path, store: GraphStore) -> None:
    folder = textbook(contracts(tmp_path))
    for source in ("openstax", "cuad"):
        first, second = (load_source(source, [folder]).as_json()["written"] for _ in range(2))
        assert first["relationships"] == {"openstax": 12, "cuad": 7}[source]
        assert second == {"nodes": 0, "relationships": 0, "properties": 0}
    licences = store.read("MATCH (s:Source) RETURN s.licence AS licence ORDER BY licence")
    assert ["CC BY 4.0" in row["licence"] for row in licences] == [True, True]
    (party,) = store.read("MATCH (:Cuad)-[r:HAS_PARTY {role: 'Licensor'}]->(p:Cuad) RETURN p.name AS name")
    assert party["name"] == "Delta Corp"
    report = refresh_source("openstax", [textbook(folder, glossary=[["wealth", "what is owned"]])], force=True)
    assert report.changes["entities"] == {"added": 1, "changed": 0, "removed": 1}
    names = "MATCH (e:Openstax) WHERE NOT e:Tombstone AND e.id CONTAINS ':term-' RETURN e.name AS name ORDER BY name"
    assert [row["name"] for row in store.read(names)] == ["opportunity cost", "scarcity", "wealth"]


def test_the_real_textbooks_contracts_and_codes(data: Path) -> None:
    tasks = data / "tasks"
    read = Read("openstax", tasks / "education" / "openstax_economics")
    relations = Counter(relation for _, relation, _ in read.edges)
    assert (len([key for key in read.entities if ":term-" in key]), relations["DEFINES"]) == (519, 532)
    assert (relations["HAS_OBJECTIVE"], relations["NEXT"]) == (427, 206)
    read = Read("cuad", tasks / "law" / "cuad")
    assert sum(":party-" not in key and ":law-" not in key and ":type-" not in key for key in read.entities) == 510
    assert read.report.num_quarantined == 0
    read = Read("cpc", tasks / "patents" / "cpc_definitions" / "cpc_definitions.jsonl.gz")
    assert sum(relation == "SUBCLASS_OF" for _, relation, _ in read.edges) == len(read.entities) - 8
