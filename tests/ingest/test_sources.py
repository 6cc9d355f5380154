"""What each source gives: OBO files, plain tables, RDF with the prefixes that it declares."""

import gzip
from pathlib import Path

import pytest

from ingest.report import Report
from ingest.sources import READERS
from kg.errors import InputError
from kg.types import Entity, Triple
from tests.ingest.test_rdf import PACKERS

OBO = """format-version: 1.2
data-version: 2016-09-30
! a comment

[Term]
id: DOID:1
name: disease
def: "A \\"quoted\\" disorder\\nin two lines." [url:http\\://x, "y"]
synonym: "illness" EXACT []
synonym: "disorder" BROAD []
synonym: "common cold" NARROW []
synonym: "malady" RELATED [X:1]
synonym: "sickness" []
xref: UMLS_CUI:C0012634
alt_id: DOID:99

[Term]
id: DOID:2
name: angiosarcoma
is_a: DOID:1 ! disease
relationship: part_of UBERON:5 {source="x"} ! vessel
intersection_of: DOID:1 ! disease
intersection_of: has_part DOID:3

[Term]
id: DOID:3
name: obsolete old name
is_obsolete: true
replaced_by: DOID:2
consider: DOID:1

[Typedef]
id: part_of
name: part of

[Instance]
id: X:1
name: skipped
"""


class Read:
    """What a reader gave for ``paths``."""

    def __init__(self, source: str, *paths: Path, prefix: str = "ex") -> None:
        self.report = Report("test")
        reading = READERS[source](paths, "test", self.report, prefix)
        items = list(reading.items)
        self.release = reading.release
        self.entities = {item.id: item for item in items if isinstance(item, Entity)}
        self.triples = [item for item in items if isinstance(item, Triple)]
        self.edges = {(triple.head, triple.relation, triple.tail) for triple in self.triples}
        assert len({triple.sid for triple in self.triples}) == len(self.triples)
        assert all(end in self.entities for triple in self.triples for end in (triple.head, triple.tail))
        assert self.report.balances, self.report.as_json()

    @property
    def complaints(self) -> list[tuple[str, int, str]]:
        return [(Path(row["file"]).name, row["line"], row["reason"]) for row in self.report.quarantined]


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.fixture
def obo(tmp_path: Path) -> Read:
    return Read("obo", written(tmp_path, "d.obo", OBO))


def test_obo_terms_have_id_iri_name_definition_and_release(obo: Read) -> None:
    term = obo.entities["doid:1"]
    assert obo.release == "2016-09-30"
    assert (term.iri, term.kinds, term.name) == ("http://purl.obolibrary.org/obo/DOID_1", ("Class",), "disease")
    assert term.definition == 'A "quoted" disorder\nin two lines.'
    assert term.tail[0].startswith("alt_id=DOID:99")
    assert "xref=UMLS_CUI:C0012634" in term.tail


def test_obo_synonyms_keep_their_scope(obo: Read) -> None:
    assert [(name.text, name.kind) for name in obo.entities["doid:1"].names] == [
        ("disease", "pref"),
        ("illness", "syn"),
        ("disorder", "broad"),
        ("common cold", "narrow"),
        ("malady", "related"),
        ("sickness", "related"),
    ]


def test_obo_relationships_and_their_stubs(obo: Read) -> None:
    assert obo.edges == {
        ("doid:2", "SUBCLASS_OF", "doid:1"),
        ("doid:2", "PART_OF", "uberon:5"),
        ("doid:2", "HAS_PART", "doid:3"),
        ("doid:3", "REPLACED_BY", "doid:2"),
        ("doid:3", "CONSIDER", "doid:1"),
    }
    derived = [t for t in obo.triples if t.properties]
    assert {(t.relation, t.tail) for t in derived} == {("SUBCLASS_OF", "doid:1"), ("HAS_PART", "doid:3")}
    assert all(t.properties == {"derived": True, "connective": "intersection"} for t in derived)
    assert len(obo.triples) == 6
    assert obo.entities["uberon:5"].kinds == ("Stub",)
    assert obo.entities["obo:part_of"].kinds == ("ObjectProperty",)
    assert obo.entities["obo:part_of"].properties == {"relation": "PART_OF"}


def test_obsolete_obo_terms_are_kept_as_deprecated(obo: Read) -> None:
    assert obo.entities["doid:3"].kinds == ("Class", "Deprecated")
    assert "Deprecated" not in obo.entities["doid:2"].kinds


def test_obo_stanzas_that_are_not_read_are_counted(obo: Read) -> None:
    assert obo.report.skipped == {"stanza [Instance]": 2}
    assert obo.report.num_quarantined == 0
    assert "x:1" not in obo.entities


def test_bad_obo_clauses_are_quarantined_with_their_lines(tmp_path: Path) -> None:
    read = Read(
        "obo",
        written(
            tmp_path,
            "bad.obo",
            "[Term]\nid: X:1\nname: one\nsynonym: unquoted EXACT\nno clause at all\ndef: bare\n"
            "is_a:\nis_a: ! nothing\nrelationship: part_of\nis_a: X:2\n\n[Term]\nname: no id\n",
        ),
    )
    assert [(line, reason.split(",")[0]) for _, line, reason in read.complaints] == [
        (5, "expected tag: value"),
        (4, "expected a quoted synonym"),
        (6, "expected a quoted definition"),
        (7, "expected what is_a refers to"),
        (8, "expected what is_a refers to"),
        (9, "expected what relationship refers to"),
        (13, "a [Term] without id"),
    ]
    assert read.edges == {("x:1", "SUBCLASS_OF", "x:2")}


def test_an_obo_id_that_comes_twice_is_counted_and_an_iri_is_its_own_id(tmp_path: Path) -> None:
    one = written(tmp_path, "one.obo", "[Term]\nid: X:1\nname: first\n")
    two = written(tmp_path, "two.obo", "[Term]\nid: X:1\nname: second\n\n[Term]\nid: http://e/a\nis_a: X:1\n")
    read = Read("obo", one, two)
    assert read.entities["x:1"].name == "first"
    assert read.report.skipped["stanza of an id that was described before"] == 2
    assert read.entities["http://e/a"].iri == "http://e/a"


def test_an_obo_file_may_be_packed_and_must_be_one(tmp_path: Path) -> None:
    plain, packed = written(tmp_path, "d.obo", OBO), tmp_path / "d.obo.gz"
    packed.write_bytes(gzip.compress(OBO.encode()))
    assert Read("obo", packed).entities == Read("obo", plain).entities
    whole = packed.read_bytes()
    for content in (whole[:-30], b"plain", whole[:30] + b"\xff" * 30 + whole[60:]):
        packed.write_bytes(content)
        with pytest.raises(InputError, match=r"d\.obo\.gz: cannot be read"):
            Read("obo", packed)
    with pytest.raises(InputError, match=r"none\.obo: cannot be read: No such file"):
        Read("obo", tmp_path / "none.obo")
    with pytest.raises(InputError, match="not an OBO file"):
        Read("obo", written(tmp_path, "a.obo", "just: text\n"))


def test_an_iri_of_obo_is_the_term_of_its_id_and_prefixes_keep_their_spelling(tmp_path: Path) -> None:
    purl = "http://purl.obolibrary.org/obo/"
    terms = ("DOID:1", f"{purl}DOID_1", f"{purl}DOID_2", "FBbt:1", f"{purl}doid.owl")
    text = "".join(f"[Term]\nid: {term}\nname: x\nis_a: FBbt:7\n\n" for term in terms)
    read = Read("obo", written(tmp_path, "a.obo", text))
    assert {id_: entity.iri.removeprefix(purl) for id_, entity in read.entities.items()} == {
        **{"doid:1": "DOID_1", "doid:2": "DOID_2", "fbbt:1": "FBbt_1", "fbbt:7": "FBbt_7"},
        f"{purl}doid.owl": "doid.owl",
    }
    assert read.report.skipped == {"stanza of an id that was described before": 3}


NAMES = "id\tname\tkind\tsource\nQ1\tAcme Bank\tP\tx\nQ1\tAcme\tS\tx\nQ1\tthe bank\tT\tx\nQ2\tBorealis\tP\tx\n"
EDGES = "head\ttail\trelation\nQ1\tQ2\tP17\nQ1\tQ3\thas part\nQ1\tQ2\tP17\n"


def test_a_table_gives_names_and_edges_under_its_prefix(tmp_path: Path) -> None:
    written(tmp_path, "names.tsv", NAMES)
    written(tmp_path, "edges.tsv", EDGES)
    read = Read("table", tmp_path, prefix="wd")
    bank = read.entities["wd:Q1"]
    assert (bank.name, bank.kinds, bank.iri) == ("Acme Bank", ("Item",), "http://www.wikidata.org/entity/Q1")
    assert [(name.text, name.kind) for name in bank.names] == [
        ("Acme Bank", "pref"),
        ("Acme", "syn"),
        ("the bank", "syn"),
    ]
    assert read.edges == {("wd:Q1", "P17", "wd:Q2"), ("wd:Q1", "HAS_PART", "wd:Q3")}
    assert read.entities["wd:Q3"].kinds == ("Stub",)
    assert read.report.as_json()["skipped"] == {"stated more than once": 1}
    assert read.report.read == 7
    assert Read("table", tmp_path / "names.tsv", prefix="my").entities["my:Q2"].iri == "urn:my:Q2"


def test_a_packed_table_is_the_same(tmp_path: Path) -> None:
    for name, text in (("names.tsv", NAMES), ("edges.tsv", EDGES)):
        written(tmp_path, name, text)
    plain = Read("table", tmp_path)
    for name in ("names.tsv", "edges.tsv"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        (tmp_path / name).unlink()
    packed = Read("table", tmp_path)
    assert (packed.entities, packed.triples) == (plain.entities, plain.triples)


def test_the_files_of_a_link_prediction_benchmark_are_edges_and_types(tmp_path: Path) -> None:
    written(tmp_path, "names.tsv", NAMES)
    written(tmp_path, "train.txt", "Q1\tP17\tQ2\n")
    written(tmp_path, "test.txt", "Q2\tP361\tQ3\n")
    written(tmp_path, "test_negatives.txt", "Q3\tP17\tQ1\n")
    written(tmp_path, "entity2types.json", '{"Q1": ["Q22687"], "Q2": []}')
    read = Read("table", tmp_path, prefix="wd")
    assert read.edges == {
        ("wd:Q1", "P17", "wd:Q2"),
        ("wd:Q2", "P361", "wd:Q3"),
        ("wd:Q1", "INSTANCE_OF", "wd:Q22687"),
    }
    written(tmp_path, "entity2types.json", '["Q1"]')
    with pytest.raises(InputError, match=r"entity2types\.json: expected an object of entity to list of types"):
        Read("table", tmp_path)


def test_bad_rows_of_a_table_are_quarantined_with_their_lines(tmp_path: Path) -> None:
    written(tmp_path, "names.tsv", "Q1\tAcme\tP\tx\nQ2\n\tno id\tP\tx\nQ3\t\tP\tx\nQ4\tDelta\tP\tx\n")
    written(tmp_path, "edges.tsv", "Q1\tQ4\towns\nQ1\tQ4\nQ1,Q4,owns\n")
    read = Read("table", tmp_path)
    assert [(name, line) for name, line, _ in read.complaints] == [
        *(("edges.tsv", 2), ("edges.tsv", 3)),
        *(("names.tsv", 2), ("names.tsv", 3), ("names.tsv", 4)),
    ]
    assert read.complaints[0][2] == "expected 3 columns or more, got 2"
    assert read.entities.keys() == {"ex:Q1", "ex:Q4"}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"Q1,Acme\nQ2,Borealis\n", "no line of it has an id and a name"),
        (b"", "no line of it has an id and a name"),
        (b"Q1\t\xff\xfe\n", "cannot be read"),
    ],
)
def test_a_table_that_is_none_is_refused(content: bytes, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "names.tsv").write_bytes(content)
    with pytest.raises(InputError, match=f"names.tsv: {complaint}"):
        Read("table", tmp_path)


def test_a_table_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no names.tsv"):
        Read("table", tmp_path)
    with pytest.raises(InputError, match="none: no such file or folder"):
        Read("table", tmp_path / "none")
    whole = gzip.compress(NAMES.encode())
    for content in (whole[:-20], b"plain", whole[:20] + b"\xff" * 20 + whole[40:]):
        (tmp_path / "names.tsv.gz").write_bytes(content)
        with pytest.raises(InputError, match=r"names\.tsv\.gz: cannot be read"):
            Read("table", tmp_path)


def test_a_mark_of_byte_order_and_a_column_without_a_name_do_no_harm(tmp_path: Path) -> None:
    written(tmp_path, "names.tsv", "\ufeff" + NAMES)
    written(tmp_path, "edges.tsv", "head\ttail\trelation\t\tyear\t\nQ1\tQ2\tP17\tx\t1999\t\n")
    read = Read("table", tmp_path)
    assert read.entities.keys() == {"ex:Q1", "ex:Q2"}
    assert [triple.properties for triple in read.triples] == [{"column_4": "x", "year": 1999}]


@pytest.mark.parametrize("types", ['{"Q1": "Q5"}', '{"Q1": null}', '{"Q1": ["\\ud800"]}', "[" * 100_000])
def test_types_that_are_no_lists_of_texts_are_refused(types: str, tmp_path: Path) -> None:
    written(tmp_path, "names.tsv", NAMES)
    written(tmp_path, "entity2types.json", types)
    with pytest.raises(InputError, match=r"entity2types\.json: expected an object of entity to list of types"):
        Read("table", tmp_path)


LINED = {"obo": "a.obo", "table": "names.tsv", "cpc": "a.jsonl", "umls": "MRCONSO.RRF"}
"""A file of each source that is read by the line."""


@pytest.mark.parametrize("source", LINED)
def test_a_file_of_lines_that_unpacks_out_of_all_proportion_is_refused(source: str, tmp_path: Path) -> None:
    file = tmp_path / f"{LINED[source]}.gz"
    file.write_bytes(gzip.compress(b" " * (20 << 20)))
    with pytest.raises(InputError, match="unpacks to more than 250 times its size"):
        Read(source, file)


@pytest.mark.parametrize("ending", PACKERS)
def test_a_file_of_lines_may_be_packed_in_any_way(ending: str, tmp_path: Path) -> None:
    for source, name, text in (("obo", "d.obo", OBO), ("table", "names.tsv", NAMES)):
        plain, packed = written(tmp_path, name, text), tmp_path / f"{name}{ending}"
        packed.write_bytes(PACKERS[ending](text.encode()))
        assert Read(source, packed).entities == Read(source, plain).entities


@pytest.mark.parametrize(
    ("source", "start", "rest"),
    [
        ("obo", "name: ", "[Term]\nid: ex:2\n"),
        ("table", "1\t", "2\ttwo\n"),
        ("cpc", '{"code": "', '{"code": "A01B", "title": "", "definition": "", "refs": []}\n'),
    ],
)
def test_a_line_that_is_too_long_is_quarantined_and_the_next_one_read(
    source: str, start: str, rest: str, tmp_path: Path
) -> None:
    file = tmp_path / LINED[source]
    file.write_text(start + "x" * (65 << 20) + "\n" + rest)
    read = Read(source, file)
    assert read.complaints == [(file.name, 1, "longer than 64 MiB")]
    assert read.entities
    assert len(read.report.quarantined[0]["text"]) <= 200


@pytest.mark.parametrize("source", ["obo", "cpc"])
def test_a_folder_where_files_are_expected_is_said(source: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder; name the files in it"):
        Read(source, tmp_path)


def test_rdf_of_any_kind_is_read_with_its_prefixes_from_files_and_folders(tmp_path: Path) -> None:
    one = written(tmp_path, "one.ttl", "@prefix my: <http://my/> .\nmy:a my:owns my:b .\n")
    (tmp_path / "deep").mkdir()
    written(tmp_path, "deep/two.nt", "<http://my/b> <http://my/owns> <http://elsewhere/c> .\n")
    read = Read("rdf", tmp_path)
    assert read.edges == {("my:a", "OWNS", "my:b"), ("my:b", "OWNS", "http://elsewhere/c")}
    assert Read("rdf", one).edges == {("my:a", "OWNS", "my:b")}


FIBO = """<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:owl="http://www.w3.org/2002/07/owl#"
    xml:base="https://spec.edmcouncil.org/fibo/ontology/FND/A/">
  <owl:Ontology rdf:about="https://spec.edmcouncil.org/fibo/ontology/FND/A/">
    <owl:versionIRI rdf:resource="https://spec.edmcouncil.org/fibo/ontology/FND/{date}/A/"/>
    <owl:imports rdf:resource="https://spec.edmcouncil.org/fibo/ontology/FND/B/"/>
  </owl:Ontology>
  <owl:Class rdf:about="https://spec.edmcouncil.org/fibo/ontology/FND/A/Bank"/>
</rdf:RDF>
"""


def test_fibo_says_its_release_and_which_imports_are_missing(tmp_path: Path) -> None:
    written(tmp_path, "A.rdf", FIBO.format(date="20260701"))
    written(tmp_path, "notes.ttl", "not Turtle: only .rdf files are FIBO's")
    read = Read("fibo", tmp_path)
    assert read.release == "2026-07-01"
    assert "fibo:Bank" in read.entities
    (note,) = read.report.notes
    assert note.startswith("1 imported ontologies are not on disk: https://spec.edmcouncil.org/fibo/ontology/FND/B/")
    written(tmp_path, "B.rdf", FIBO.format(date="20250101").replace("FND/A/", "FND/B/"))
    assert Read("fibo", tmp_path).report.notes == []
    with pytest.raises(InputError, match=r"no \.rdf file"):
        Read("fibo", tmp_path / "notes.ttl")
