"""UMLS: what each file of the Rich Release Format becomes, and that its Turtle form says the same."""

import gzip
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ingest.report import Report
from ingest.run import load_source
from ingest.sources import READERS
from kg.errors import ConfigError, InputError
from kg.graph_hash import graph_hash
from kg.snapshot import build_snapshot
from kg.store import GraphStore
from kg.types import Entity, Triple

ROOT = Path(__file__).parent.parent.parent
RELEASE = {
    "MRRANK.RRF": "0400|MSH|MH|N|\n0300|NCI|PT|N|\n0290|NCI|SY|N|\n0200|MSH|ET|N|\n0100|NCI|AB|N|\n",
    "MRCONSO.RRF": """\
C0000001|ENG|P|L1|PF|S1|Y|A1|||M1|MSH|MH|D001|Diabetes|0|N||
C0000001|ENG|P|L1|VO|S2|Y|A2|||M1|MSH|ET|D001|diabetes disease|0|N||
C0000001|ENG|S|L2|PF|S3|Y|A3||||NCI|PT|C26|Diabetes|0|N||
C0000001|ENG|S|L3|PF|S4|Y|A4||||NCI|AB|C26|DM|0|N||
C0000001|SPA|P|L4|PF|S5|Y|A5||||MSHSPA|MH|D001|Diabetes sacarina|3|N||
C0000001|ENG|S|L5|PF|S6|Y|A6||||NCI|OP|C26|Old diabetes|0|O||
C0000002|ENG|P|L6|PF|S7|Y|A7||||NCI|SY|C27|Illness|0|N||
C0000002|ENG|S|L6|PF|S8|Y|A8|||M2|MSH|MH|D002|Disease|0|N||
C0000003|ENG|P|L7|PF|S9|N|A9||||NCI|SY|C28|Organ b|0|N||
C0000003|ENG|S|L8|PF|S10|Y|A10|||M3|MSH|MH|D003|Organ|0|N||
C0000004|ENG|P|L9|PF|S11|Y|A11||||NCI|OP|C29|Dropsy|0|O||
C0000004|ENG|S|L9|PF|S12|Y|A12||||NCI|OP|C29|Dropsies|0|O||
C0000005|ENG|P|L9|PF|S13|Y|A13||||NCI|SY|C30|Shy|0|Y||
""",
    "MRSTY.RRF": """\
C0000001|T047|B2.2.1.2.1|Disease or Syndrome|AT1||
C0000002|T046|B2.2.1.2|Pathologic Function|AT2||
C0000003|T023|A1.2.3.1|Body Part|AT3||
C0000009|T023|A1.2.3.1|Body Part|AT4||
""",
    "MRDEF.RRF": """\
C0000001|A3|AT5||NCI|Too much &lt;i&gt;glucose&lt;/i&gt;.|N||
C0000001|A1|AT6||MSH|<p>A <b>disorder</b> of glucose &amp; insulin, p < 0.05.</p>|N||
C0000001|A1|AT7||MSH|Withdrawn.|O||
C0000009|A1|AT8||MSH|Of nothing.|N||
""",
    "MRREL.RRF": """\
C0000002|A8|AUI|CHD|C0000001|A1|AUI|isa|R1||MSH|MSH|||N||
C0000001|A1|AUI|PAR|C0000002|A8|AUI|inverse_isa|R2||MSH|MSH|||N||
C0000002|A7|AUI|CHD|C0000001|A3|AUI||R3||NCI|NCI|||N||
C0000002|A7|AUI|CHD|C0000001|A4|AUI||R4||NCI|NCI|||N||
C0000003|A9|AUI|RO|C0000001|A1|AUI|has_finding_site|R5||NCI|NCI|2||N||
C0000001|A1|AUI|RO|C0000003|A9|AUI|finding_site_of|R6||NCI|NCI|2||N||
C0000003|A9|AUI|RO|C0000002|A1|AUI|may_harm|R7||NCI|NCI|||N||
C0000003|A9|AUI|RN|C0000002|A1|AUI||R8||NCI|NCI|||N||
C0000003|A9|AUI|RO|C0000002|A1|AUI||R9||NCI|NCI|||N||
C0000002|A9|AUI|RO|C0000003|A1|AUI||R10||NCI|NCI|||N||
C0000001|A1|AUI|SIB|C0000002|A8|AUI||R11||MSH|MSH|||N||
C0000001|A1|AUI|AQ|C0000002|A8|AUI||R12||MSH|MSH|||N||
C0000001|A1|AUI|SY|C0000001|A3|AUI||R13||NCI|NCI|||N||
C0000001|A1|AUI|XR|C0000002|A3|AUI||R14||NCI|NCI|||N||
C0000001|A1|AUI|RO|C0000008|A3|AUI|causes|R15||NCI|NCI|||N||
C0000001|A1|AUI|RO|C0000002|A3|AUI|causes|R16||NCI|NCI|||O||
""",
    "MRSAT.RRF": """\
C0000001|L1|S1|A1|AUI|D001|AT9||MN|MSH|C18.452|N||
C0000001|L1|S1|A1|AUI|D001|AT10||MN|MSH|C19.246|N||
C0000001|L1|S1|A1|AUI|D001|AT11||RN|MSH|0|N||
C0000002|L1|S1|A1|AUI|D001|AT12||RN|MSH|50-99-7|N||
C0000001|L1|S1|A1|AUI|D001|AT13||HN|MSH|63|N||
""",
    "MRCUI.RRF": """\
C0000101|201602|SY|||C0000001|Y|
C0000102|201602|DEL|||||
C0000103|200101|RB|||C0000002|Y|
C0000104|200101|SY|||C0000777|Y|
C0000001|200101|DEL|||||
""",
}
NETWORK = {
    "SRDEF": """\
STY|T046|Pathologic Function|B2.2.1.2|A disordered process.|||N|patf||
STY|T047|Disease or Syndrome|B2.2.1.2.1|A condition.|||N|dsyn||
STY|T023|Body Part|A1.2.3.1|||||bpoc||
RL|T151|affects|R3.1|Produces a direct effect on.|||N|AF|affected_by|
RL|T138|functionally_related_to|R3|||||FR||
""",
    "SRSTR": """\
Disease or Syndrome|isa|Pathologic Function|D|
Pathologic Function|affects|Body Part|D|
affects|isa|functionally_related_to|D|
Body Part|affects|Body Part|B|
Pathologic Function|isa||D|
Pathologic Function|affects|Plant|D|
""",
}
TURTLE = """
@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
@prefix owl: <http://www.w3.org/2002/07/owl#> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
@prefix umls: <http://bioportal.bioontology.org/ontologies/umls/> .
@prefix nci: <http://purl.bioontology.org/ontology/NCI/> .
nci: a owl:Ontology ; owl:versionInfo "2016AA" .
nci:C26 a owl:Class ; skos:prefLabel "Diabetes"@en ; skos:altLabel "DM"@en , "diabetes mellitus"@cz ;
  skos:notation "C26"^^xsd:string ; rdfs:subClassOf nci:C27 ; nci:has_finding_site nci:C28 ;
  skos:definition "Too much glucose."@en ; nci:XREF "X:1"^^xsd:string ; nci:OTHER "no"^^xsd:string ;
  umls:cui "C0000001"^^xsd:string ; umls:tui "T047"^^xsd:string ;
  umls:hasSTY <http://purl.bioontology.org/ontology/STY/T047> .
nci:C27 a owl:Class ; skos:prefLabel "Disease"@en ; skos:notation "C27"^^xsd:string ;
  umls:cui "C0000022"^^xsd:string , "C0000002"^^xsd:string ; umls:tui "T046"^^xsd:string .
nci:C%2028 a owl:Class ; skos:prefLabel "Nameless"@en ; skos:notation "C 28"^^xsd:string .
nci:XREF a owl:DatatypeProperty ; rdfs:label "XREF" .
<http://purl.bioontology.org/ontology/STY/T047> a owl:Class ; skos:prefLabel "Disease or Syndrome"@en ;
  rdfs:subClassOf <http://purl.bioontology.org/ontology/STY/T046> .
"""


class Read:
    """What the reader gave for ``paths``."""

    def __init__(self, *paths: Path, **options: Any) -> None:
        self.report = Report("umls")
        reading = READERS["umls"](paths, "umls", self.report, "umls", **options)
        items = list(reading.items)
        self.release, self.licence = reading.release, reading.licence
        self.entities = {item.id: item for item in items if isinstance(item, Entity)}
        self.triples = [item for item in items if isinstance(item, Triple)]
        self.edges = {(triple.head, triple.relation, triple.tail): triple.properties for triple in self.triples}
        assert len(self.entities) + len(self.triples) == len(items)
        assert len({triple.sid for triple in self.triples}) == len(self.triples)
        assert all(end in self.entities for triple in self.triples for end in (triple.head, triple.tail))
        assert self.report.balances, self.report.as_json()

    def relations(self, *left_out: str) -> set[str]:
        """``1 PART_OF 2`` for edges between concepts, by the last digit of the CUI."""
        return {f"{head[-1]} {relation} {tail[-1]}" for head, relation, tail in self.edges if relation not in left_out}

    @property
    def complaints(self) -> list[tuple[str, int, str]]:
        return [(Path(row["file"]).name, row["line"], row["reason"]) for row in self.report.quarantined]


def release(folder: Path, *, network: bool = False, **changed: str) -> Path:
    """The small release in ``folder``; ``MRREL=…`` replaces that file."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {**RELEASE, **(NETWORK if network else {}), **{f"{name}.RRF": text for name, text in changed.items()}}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def umls(tmp_path: Path) -> Read:
    return Read(release(tmp_path / "2016AA"))


def names(entity: Entity) -> list[tuple[str, str]]:
    return [(name.text, f"{name.kind}@{name.language}") for name in entity.names]


def test_a_cui_is_a_concept_with_all_its_names_and_whose_they_are(umls: Read) -> None:
    concept = umls.entities["umls:C0000001"]
    assert concept.iri == "https://uts.nlm.nih.gov/uts/umls/concept/C0000001"
    assert (concept.kinds, concept.name, concept.source) == (("Concept",), "Diabetes", "umls")
    assert names(concept) == [
        ("Diabetes", "pref@en"),
        ("diabetes disease", "syn@en"),
        ("DM", "abbr@en"),
        ("Diabetes sacarina", "pref@es"),
    ]
    assert concept.names[0].origin == "MSH/MH/D001|NCI/PT/C26"
    assert concept.names[3].origin == "MSHSPA/MH/D001"
    assert umls.report.kept["name"] == 11


def test_flags_choose_the_preferred_name_and_ranks_where_no_name_has_all_of_them(umls: Read) -> None:
    assert umls.entities["umls:C0000002"].name == "Illness"
    assert umls.entities["umls:C0000003"].name == "Organ"


def test_suppressible_names_are_skipped_but_never_the_concept(umls: Read, tmp_path: Path) -> None:
    assert "Old diabetes" not in dict(names(umls.entities["umls:C0000001"]))
    dropsy, shy = umls.entities["umls:C0000004"], umls.entities["umls:C0000005"]
    assert (names(dropsy), dropsy.kinds) == ([("Dropsy", "pref@en")], ("Concept", "Deprecated"))
    assert (names(shy), shy.kinds) == ([("Shy", "pref@en")], ("Concept",))
    assert umls.report.skipped["suppressible"] == 4  # 2 names, a definition, a relationship
    everything = Read(tmp_path / "2016AA", also=("suppressible",))
    assert "Old diabetes" in dict(names(everything.entities["umls:C0000001"]))
    assert everything.entities["umls:C0000004"].kinds == ("Concept", "Deprecated")
    assert "suppressible" not in everything.report.skipped


def test_without_ranks_the_flags_and_then_the_atom_id_choose(tmp_path: Path) -> None:
    folder = release(tmp_path)
    (folder / "MRRANK.RRF").unlink()
    assert Read(folder).entities["umls:C0000003"].name == "Organ b"  # TS=P
    assert Read(folder).entities["umls:C0000001"].name == "Diabetes"


def test_a_semantic_type_is_a_node_below_the_nearest_one_by_tree_number(umls: Read) -> None:
    kind = umls.entities["umls:T047"]
    assert (kind.iri, kind.kinds) == ("http://purl.bioontology.org/ontology/STY/T047", ("SemanticType",))
    assert (kind.name, kind.properties) == ("Disease or Syndrome", {"tree_number": "B2.2.1.2.1"})
    assert ("umls:C0000001", "INSTANCE_OF", "umls:T047") in umls.edges
    assert umls.edges["umls:T047", "SUBCLASS_OF", "umls:T046"] == {"derived": True}
    assert umls.report.skipped["about a concept that was not kept"] == 2  # a type and a definition of C0000009


def test_the_semantic_network_has_definitions_and_relations_of_its_own(tmp_path: Path) -> None:
    read = Read(release(tmp_path, network=True))
    assert read.entities["umls:T047"].definition == "A condition."
    assert read.entities["umls:T151"].kinds == ("ObjectProperty",)
    assert read.entities["umls:T151"].properties == {"relation": "AFFECTS"}
    assert read.edges["umls:T047", "SUBCLASS_OF", "umls:T046"] == {}
    assert ("umls:T046", "AFFECTS", "umls:T023") in read.edges
    assert ("umls:T151", "SUBPROPERTY_OF", "umls:T138") in read.edges
    assert ("umls:T023", "AFFECTS", "umls:T023") not in read.edges
    assert read.report.skipped["relation of semantic types that is blocked"] == 1
    assert read.report.skipped["relation of a semantic type that SRDEF does not define"] == 1


def test_definitions_come_best_source_first_and_without_html(umls: Read) -> None:
    assert umls.entities["umls:C0000001"].definitions == (
        "A disorder of glucose & insulin, p < 0.05.",
        "Too much <i>glucose</i>.",
    )


def test_the_second_concept_is_the_subject_and_one_of_each_inverse_pair_stays(umls: Read) -> None:
    assert umls.relations("INSTANCE_OF", "REPLACED_BY", "CONSIDER") == {
        "1 SUBCLASS_OF 2",
        "3 FINDING_SITE_OF 1",
        "2 MAY_HARM 3",
        "2 NARROWER_THAN 3",
        "2 RELATED_TO 3",
        "7 SUBCLASS_OF 6",  # T047 and T046
    }
    assert umls.edges["umls:C0000001", "SUBCLASS_OF", "umls:C0000002"] == {"sab": ["MSH", "NCI"]}
    assert umls.edges["umls:C0000003", "FINDING_SITE_OF", "umls:C0000001"] == {"sab": ["NCI"], "rg": ["2"]}
    (note,) = umls.report.notes
    assert note.endswith("kept as they come: may_harm")


def test_relationship_rows_that_are_left_out_are_counted_by_reason(umls: Read) -> None:
    skipped = umls.report.skipped
    assert skipped["inverse of one that is kept"] == 3
    assert skipped["stated more than once"] == 1
    for reason in ("sibling (SIB)", "qualifier (AQ, QB)", "not related, or deleted (XR, DEL)"):
        assert skipped[reason] == 1
    assert skipped["from a concept to itself"] == 1
    assert skipped["an end is a concept that was not kept"] == 1


def test_rows_that_are_left_out_can_be_asked_for(tmp_path: Path) -> None:
    read = Read(release(tmp_path), also=("siblings", "qualifiers", "self-loops"))
    assert {"1 SIBLING_OF 2", "2 ALLOWED_QUALIFIER_OF 1", "1 SYNONYM_OF 1"} <= read.relations()


def test_inverses_are_those_of_mrdoc(tmp_path: Path) -> None:
    doc = "RELA||expanded_form|Empty|\nRELA|may_be_harmed_by|rela_inverse|may_harm|\nREL|RO|expanded_form|other|\n"
    row = "C0000002|A1|AUI|RO|C0000003|A9|AUI|may_be_harmed_by|R7||NCI|NCI|||N||\n"
    read = Read(release(tmp_path, MRDOC=doc, MRREL=row))
    assert read.relations("INSTANCE_OF", "REPLACED_BY", "CONSIDER", "SUBCLASS_OF") == {"2 MAY_HARM 3"}
    assert read.report.skipped["documentation of values"] == 2
    assert read.report.notes == []


def test_an_attribute_with_one_value_is_a_property_and_one_with_several_is_in_the_tail(umls: Read) -> None:
    concept = umls.entities["umls:C0000001"]
    assert concept.properties == {"RN": "0"}
    assert concept.tail == ("MSH:MN=C18.452", "MSH:MN=C19.246")
    assert umls.report.skipped["attribute that was not asked for"] == 1


def test_attributes_can_be_chosen(tmp_path: Path) -> None:
    assert Read(release(tmp_path), attributes=("HN",)).entities["umls:C0000001"].properties == {"HN": "63"}
    everything = Read(tmp_path, attributes=("all",)).entities["umls:C0000001"]
    assert (everything.properties, len(everything.tail)) == ({"RN": "0", "HN": "63"}, 2)


def test_retired_cuis_are_deprecated_and_lead_to_what_they_were_merged_into(umls: Read) -> None:
    for digit in "1234":
        assert umls.entities[f"umls:C000010{digit}"].kinds == ("Concept", "Deprecated")
    assert umls.entities["umls:C0000102"].properties == {"retired_in": "201602"}
    assert umls.relations("INSTANCE_OF", "SUBCLASS_OF") >= {"1 REPLACED_BY 1", "3 CONSIDER 2", "4 REPLACED_BY 7"}
    assert umls.edges["umls:C0000103", "CONSIDER", "umls:C0000002"] == {"rel": "RB"}
    assert umls.entities["umls:C0000777"].kinds == ("Stub",)
    assert umls.report.skipped["retired CUI that is a concept of this release"] == 1
    assert "Deprecated" not in umls.entities["umls:C0000001"].kinds


def test_source_vocabularies_can_be_selected(tmp_path: Path) -> None:
    read = Read(release(tmp_path), sab=("MSH",))
    assert {id_ for id_ in read.entities if "C0" in id_} == {f"umls:C000000{digit}" for digit in "123"} | {
        "umls:C0000101",
        "umls:C0000103",
    }
    assert read.entities["umls:C0000002"].name == "Disease"
    assert read.edges["umls:C0000001", "SUBCLASS_OF", "umls:C0000002"] == {"sab": ["MSH"]}
    assert read.report.skipped["of a source vocabulary that was not asked for"] > 8
    assert "MSH" in read.licence
    assert "NCI" not in read.licence
    with pytest.raises(ConfigError, match="vocabulary SNOMEDCT_US; there are: MSH, MSHSPA, NCI"):
        Read(tmp_path, sab=("SNOMEDCT_US",))


@pytest.mark.parametrize("spanish", ["es", "SPA"])
def test_languages_can_be_selected_and_the_first_names_the_concept(spanish: str, tmp_path: Path) -> None:
    folder = release(tmp_path)
    assert {id_ for id_, e in Read(folder, languages=(spanish,)).entities.items() if e.name} == {
        "umls:C0000001",
        "umls:T047",
    }
    both = Read(folder, languages=(spanish, "en")).entities["umls:C0000001"]
    assert (both.name, len(both.names)) == ("Diabetes sacarina", 4)
    with pytest.raises(ConfigError, match="Unknown language 'xx'; expected one of: en"):
        Read(folder, languages=("xx",))


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"MRDOC.RRF": "RELEASE|umls.release.name|release_info|2017AB|\n"}, "2017AB"),
        ({"release.dat": "umls.release.date=20170501\numls.release.name=2017AA\n"}, "2017AA"),
        ({}, "2016AA"),
    ],
)
def test_the_release_is_what_its_documentation_or_its_folder_says(
    files: dict[str, str], name: str, tmp_path: Path
) -> None:
    folder = release(tmp_path / "2016AA")
    for file, text in files.items():
        (folder / file).write_text(text)
    assert Read(folder).release == name


def test_the_licence_names_the_vocabularies_with_their_levels(tmp_path: Path) -> None:
    assert Read(release(tmp_path)).licence.endswith("levels: MSH unknown, MSHSPA unknown, NCI unknown")
    row = "C1|C2|MSH_1|MSH|MeSH|MSH|2016|||||||{}|1|1|FULL|MH|MN|ENG|UTF-8|Y|Y|MeSH||\n"
    assert "MSH 0, MSHSPA unknown" in Read(release(tmp_path, MRSAB=row.format(0))).licence
    assert "MSH 3, MSHSPA unknown" in Read(release(tmp_path, MRSAB=row.format(3))).licence


def test_columns_are_where_mrfiles_says(tmp_path: Path) -> None:
    layout = "MRSTY.RRF|Types|TUI,CUI,STY,STN|4|1|1|\nMRHIER.RRF|Hierarchies|CUI|1|1|1|\n"
    read = Read(release(tmp_path, MRFILES=layout, MRSTY="T047|C0000001|Disease or Syndrome|B2|\n"))
    assert ("umls:C0000001", "INSTANCE_OF", "umls:T047") in read.edges
    with pytest.raises(InputError, match=r"MRSTY\.RRF: has no column STN, says MRFILES"):
        Read(release(tmp_path, MRFILES="MRSTY.RRF|Types|TUI,CUI,STY|3|1|1|\n"))


def test_a_packed_release_is_the_same_and_is_not_read_twice(tmp_path: Path) -> None:
    plain = Read(release(tmp_path / "2016AA", network=True))
    for file in sorted((tmp_path / "2016AA").iterdir()):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    assert Read(tmp_path).report.read == plain.report.read
    for file in (tmp_path / "2016AA").glob("*[!z]"):
        file.unlink()
    packed = Read(tmp_path / "2016AA")
    assert (packed.entities, packed.triples) == (plain.entities, plain.triples)


@pytest.mark.parametrize("table", sorted(set(RELEASE) - {"MRCONSO.RRF"}))
def test_every_table_but_the_names_may_be_absent(table: str, tmp_path: Path) -> None:
    folder = release(tmp_path)
    (folder / table).unlink()
    assert "umls:C0000001" in Read(folder).entities


BAD_ROWS = {
    "too few columns": (b"C0000001|T047|B2|\n", "expected 6 columns, a | after each, got 3"),
    "too many columns": (b"C0000001|T047|B2|a|b|c|d|\n", "expected 6 columns, a | after each, got 7"),
    "last column open": (b"C0000001|T047|B2|a|AT1|x\n", "expected 6 columns, a | after each, got 5"),
    "empty line": (b"\n", "expected 6 columns, a | after each, got 0"),
    "no CUI": (b"|T047|B2|a|AT1||\n", "expected CUI and TUI, one is empty"),
    "not UTF-8": (b"C0000001|T047|B2|\xff|AT1||\n", "not UTF-8: invalid start byte"),
    "a long line": (b"C0000001|T047|B2|" + b"a|" * (1 << 20), "a line longer than 1,048,576 bytes"),
}


@pytest.mark.parametrize("fault", BAD_ROWS)
def test_a_bad_row_is_quarantined_with_its_line_and_the_next_one_arrives(fault: str, tmp_path: Path) -> None:
    row, reason = BAD_ROWS[fault]
    folder = release(tmp_path)
    good = b"C0000001|T047|B2.2|Disease or Syndrome|AT1||\n"
    (folder / "MRSTY.RRF").write_bytes(
        good + row + (b"\n" if row[-1:] != b"\n" else b"") + good.replace(b"01|", b"02|")
    )
    read = Read(folder)
    assert read.complaints == [("MRSTY.RRF", 2, reason)]
    assert {head for head, relation, _ in read.edges if relation == "INSTANCE_OF"} == {
        "umls:C0000001",
        "umls:C0000002",
    }


def test_values_that_make_no_sense_are_quarantined(tmp_path: Path) -> None:
    row = "C0000001|A1|AUI|RO|C0000002|A8|AUI|{}|R1||MSH|MSH|||N||\n"
    folder = release(tmp_path, MRRANK="first|MSH|MH|N|\n", MRREL=row.format("x" * 200) + row.format("causes"))
    read = Read(folder)
    assert [(name, line) for name, line, _ in read.complaints] == [("MRRANK.RRF", 1), ("MRREL.RRF", 1)]
    assert "2 CAUSES 1" in read.relations()


def test_input_that_is_no_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds neither MRCONSO\.RRF"):
        Read(tmp_path)
    with pytest.raises(InputError, match="none: no such file or folder"):
        Read(tmp_path / "none")
    with pytest.raises(InputError, match=r"MRCONSO\.RRF: no row of it has a CUI and a name"):
        Read(release(tmp_path / "empty", MRCONSO="rubbish\n"))
    for year in ("2015AB", "2016AA"):
        release(tmp_path / "both" / year)
    with pytest.raises(InputError, match="holds several releases"):
        Read(tmp_path / "both")
    (tmp_path / "a.ttl").write_text("@prefix e: <http://e/> . e:a e:p e:b .")
    with pytest.raises(InputError, match="not Turtle of umls2rdf"):
        Read(tmp_path / "a.ttl")


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    folder = release(tmp_path)
    whole = gzip.compress((folder / "MRREL.RRF").read_bytes())
    (folder / "MRREL.RRF").unlink()
    for content in (whole[:-20], b"plain", whole[:30] + b"\xff" * 30 + whole[60:]):
        (folder / "MRREL.RRF.gz").write_bytes(content)
        with pytest.raises(InputError, match=r"MRREL\.RRF\.gz: cannot be read"):
            Read(folder)


def test_turtle_of_umls2rdf_gives_concepts_too(tmp_path: Path) -> None:
    (tmp_path / "NCI.ttl").write_text(TURTLE.replace("nci:C28", "nci:C%2028"), encoding="utf-8")
    read = Read(tmp_path)
    concept = read.entities["umls:C0000001"]
    assert (read.release, concept.name, concept.kinds) == ("2016AA", "Diabetes", ("Concept",))
    assert names(concept) == [("Diabetes", "pref@en"), ("DM", "syn@en"), ("diabetes mellitus", "pref@cs")]
    assert concept.names[0].origin == "NCI//C26"
    assert (concept.definition, concept.properties["XREF"]) == ("Too much glucose.", "X:1")
    assert {key: read.edges[key]["sab"] for key in read.edges if key[1] in ("SUBCLASS_OF", "FINDING_SITE_OF")
            and "C0000001" in f"{key}"} == {
        ("umls:C0000001", "SUBCLASS_OF", "umls:C0000002"): ["NCI"],
        ("umls:NCI/C 28", "FINDING_SITE_OF", "umls:C0000001"): ["NCI"],
    }  # fmt: skip
    assert read.entities["umls:NCI/C 28"].iri == "http://purl.bioontology.org/ontology/NCI/C%2028"
    assert read.entities["umls:C0000002"].properties == {"cui": "C0000022"}
    assert "umls:C0000022" not in read.entities
    assert read.entities["umls:T047"].name == "Disease or Syndrome"
    assert {("umls:C0000001", "INSTANCE_OF", "umls:T047"), ("umls:C0000002", "INSTANCE_OF", "umls:T046")} <= set(
        read.edges
    )
    assert read.report.skipped["attribute that was not asked for"] == 1
    assert Read(tmp_path, languages=("cs",)).entities["umls:C0000001"].name == "diabetes mellitus"
    with pytest.raises(ConfigError, match="vocabulary MSH; there are: NCI"):
        Read(tmp_path, sab=("MSH",))


@pytest.mark.neo4j
def test_a_load_writes_concepts_the_licence_and_nothing_the_second_time(store: GraphStore, tmp_path: Path) -> None:
    folder = release(tmp_path / "2016AA", network=True)
    report = load_source("umls", [folder])
    (found,) = store.read("MATCH (n:Umls:Concept {id: 'umls:C0000001'}) RETURN properties(n) AS p")
    assert found["p"]["name"] == "Diabetes"
    assert found["p"]["name_origins"][0] == "MSH/MH/D001|NCI/PT/C26"
    assert len(found["p"]["name_origins"]) == len(found["p"]["names"]) == len(found["p"]["name_kinds"])
    (source,) = store.read("MATCH (s:Source {id: 'umls'}) RETURN s.release AS release, s.licence AS licence")
    assert source == {"release": "2016AA", "licence": report.licence}
    assert "UMLS Metathesaurus License" in report.licence
    snapshot = json.loads((build_snapshot(store, tmp_path / "snapshots") / "manifest.json").read_text())
    assert [row["licence"] for row in snapshot["sources"]] == [report.licence]
    before = graph_hash(store)
    assert not any(load_source("umls", [folder]).as_json()["written"].values())
    assert graph_hash(store) == before


@pytest.mark.neo4j
def test_names_of_a_table_and_of_umls_are_joined_in_one_node(store: GraphStore, tmp_path: Path) -> None:
    table = "C0000001\tDiabetes\tP\nC0000001\tsugar\tS\n"
    (tmp_path / "names.tsv").write_text(table)
    load_source("umls", [release(tmp_path / "2016AA")])
    load_source("table", [tmp_path], source_id="open", prefix="umls")
    (found,) = store.read("MATCH (n:Open:Umls {id: 'umls:C0000001'}) RETURN properties(n) AS p")
    joined = list(zip(found["p"]["names"], found["p"]["name_kinds"], found["p"]["name_origins"], strict=True))
    assert joined[:3] == [  # of open, then of umls
        ("Diabetes", "pref@", ""),
        ("sugar", "syn@", ""),
        ("Diabetes", "pref@en", "MSH/MH/D001|NCI/PT/C26"),
    ]


@pytest.mark.neo4j
def test_the_command_selects_and_refuses_options_of_other_sources(
    store: GraphStore, cli_env: dict[str, str], tmp_path: Path
) -> None:
    def load(source: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ingest", "load", source, str(tmp_path / "2016AA"), *words]
        return subprocess.run(command, cwd=ROOT, env=cli_env, capture_output=True, text=True)

    release(tmp_path / "2016AA")
    done = load("umls", "--sab", "MSH", "--sab", "NCI", "--languages", "en", "--also", "siblings")
    assert (done.returncode, done.stderr) == (0, "")
    assert "umls 2016AA: read 52 statements (transactional)" in done.stdout
    assert "licence: UMLS Metathesaurus License" in done.stdout
    assert store.read("MATCH (:Umls)-[r:SIBLING_OF]->(:Umls) RETURN count(r) AS n") == [{"n": 1}]
    wrong = load("table", "--sab", "MSH")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "python -m ingest: The source table has no option --sab.\n"


def rows_of(file: Path) -> list[list[str]]:
    return [line.split("|") for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("year", ["2015-11", "2016-09"])
def test_a_real_release_counts_what_its_files_count(year: str, data: Path) -> None:
    folder = data / "kg" / "umls_open_rrf" / year
    read = Read(folder)
    conso, retired = rows_of(folder / "MRCONSO.RRF"), rows_of(folder / "MRCUI.RRF")
    live = [row for row in conso if row[16] == "N"]
    concepts = {id_: e for id_, e in read.entities.items() if e.kinds[0] == "Concept" and e.names}
    assert set(concepts) == {f"umls:{row[0]}" for row in conso}
    only_suppressed = {row[0] for row in conso} - {row[0] for row in live}
    assert read.report.kept["name"] == len(live) + len(only_suppressed)
    said = {(row[0], row[14], {"ENG": "en", "SPA": "es"}[row[1]]) for row in live}
    kept = {(id_[5:], n.text, n.language) for id_, e in concepts.items() for n in e.names}
    assert {name for name in kept if name[0] not in only_suppressed} == said
    assert Counter(language for _, _, language in said)["es"] > 2000
    relations = Counter(relation for _, relation, _ in read.edges)
    assert relations["REPLACED_BY"] == sum(row[2] == "SY" for row in retired)
    assert relations["INSTANCE_OF"] == len({tuple(row[:2]) for row in rows_of(folder / "MRSTY.RRF")})
    children = {(row[4], row[0]) for row in rows_of(folder / "MRREL.RRF") if row[3] == "CHD" and row[0] != row[4]}
    assert relations["SUBCLASS_OF"] == len(children) + 1  # T191 below T047
    gone = {id_ for id_, e in read.entities.items() if "Deprecated" in e.kinds}
    obsolete = {row[0] for row in conso} - {row[0] for row in conso if row[16] != "O"}
    assert gone == {f"umls:{row[0]}" for row in retired} | {f"umls:{cui}" for cui in obsolete}
    assert (read.release, read.report.num_quarantined) == (year, 0)
    assert read.report.read == sum(len(rows_of(file)) for file in folder.glob("*.RRF"))


def test_the_turtle_of_a_real_release_says_what_its_rrf_says(data: Path) -> None:
    folder = data / "kg" / "umls_open_rrf" / "2016-09"
    rrf, turtle = Read(folder, languages=("en",)), Read(folder / "DO_umls2rdf.ttl")
    assert turtle.release == rrf.release
    common = {id_ for id_ in turtle.entities if id_.startswith("umls:C")}
    assert len(common) > 5000
    assert common <= set(rrf.entities)
    kinds = {
        where: {(head, tail) for head, relation, tail in read.edges if relation == "INSTANCE_OF" and head in common}
        for where, read in (("rrf", rrf), ("turtle", turtle))
    }
    codes = {id_: {code for code, _ in names_by_code(rrf.entities[id_])} for id_ in common}
    assert {head for head, _ in kinds["turtle"] ^ kinds["rrf"]} <= {id_ for id_, of in codes.items() if len(of) > 1}
    assert kinds["rrf"] <= kinds["turtle"]  # MRSTY types a concept of two codes by one of them
    live = {code_and_name for id_ in common for code_and_name in names_by_code(rrf.entities[id_])}
    said = {code_and_name for id_ in common for code_and_name in names_by_code(turtle.entities[id_])}
    suppressible = {(row[13], row[14]) for row in rows_of(folder / "MRCONSO.RRF") if row[16] == "Y"}
    assert live <= said
    assert said - live <= suppressible  # umls2rdf does not heed SUPPRESS
    preferred = {id_ for id_ in common if len(codes[id_]) == 1}
    assert {id_: turtle.entities[id_].name for id_ in preferred} == {id_: rrf.entities[id_].name for id_ in preferred}


def names_by_code(entity: Entity) -> set[tuple[str, str]]:
    return {(origin.split("/")[2], name.text) for name in entity.names for origin in name.origin.split("|")}
