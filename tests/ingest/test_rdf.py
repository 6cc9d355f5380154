"""RDF in every syntax gives the same canonical statements, and bad input is named by file and line."""

import gzip
from pathlib import Path

import pytest
import rdflib
import rdflib.compare

from ingest.rdf import Statements, find_files, keep, parse
from ingest.report import Report
from kg.errors import InputError

TURTLE = """
@prefix ex: <http://e/> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
@prefix owl: <http://www.w3.org/2002/07/owl#> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
ex:Bank a owl:Class ; rdfs:subClassOf ex:Company ,
    [ a owl:Restriction ; owl:onProperty ex:holds ; owl:someValuesFrom [ owl:unionOf ( ex:Licence ex:Waiver ) ] ] ;
  rdfs:label "Bank"@en , "Bank"@de , "Bank" , "बैंक"@hi ;
  ex:founded "1869-01-01"^^xsd:date ; ex:size 7 ; ex:share 0.50 ; ex:open true ; ex:note "a \\"quoted\\"\\n line\\t" ;
  ex:empty "" ; ex:home <http://e/a?b=c&d=e#f> .
<http://e/Straße> rdfs:label "Straße" .
"""
OTHERS = {"nt": "nt11", "rdf": "xml", "owl": "xml", "jsonld": "json-ld", "nq": "nt11", "trig": "turtle"}


def parsed(*files: Path) -> Statements:
    report = Report("test")
    statements = parse(files, report)
    assert report.read == statements.table.num_rows + sum(report.skipped.values()) + report.num_quarantined
    return statements


def rows(statements: Statements) -> list[dict[str, str]]:
    return [{key: row[key] for key in row if key != "file"} for row in statements.table.to_pylist()]


def as_rdflib(statements: Statements) -> rdflib.Graph:
    """The canonical table read back into rdflib."""
    graph = rdflib.Graph()
    term = {"iri": lambda row: rdflib.URIRef(row["object"]), "blank": lambda row: rdflib.BNode(row["object"][2:])}
    for row in statements.table.to_pylist():
        subject = rdflib.BNode(row["subject"][2:]) if row["subject"][:2] == "_:" else rdflib.URIRef(row["subject"])
        if row["kind"] == "literal":
            plain = row["datatype"] in (None, str(rdflib.XSD.string))
            datatype = None if plain else rdflib.URIRef(row["datatype"])
            object_ = rdflib.Literal(row["object"], lang=row["language"], datatype=datatype, normalize=False)
        else:
            object_ = term[row["kind"]](row)
        graph.add((subject, rdflib.URIRef(row["predicate"]), object_))
    return graph


@pytest.fixture
def turtle(tmp_path: Path) -> Path:
    file = tmp_path / "bank.ttl"
    file.write_text(TURTLE, encoding="utf-8")
    return file


def test_the_statements_are_those_of_rdflib(turtle: Path) -> None:
    theirs = rdflib.Graph().parse(turtle)
    ours = as_rdflib(parsed(turtle))
    assert len(ours) == len(theirs) == 23
    assert rdflib.compare.to_isomorphic(ours) == rdflib.compare.to_isomorphic(theirs)


@pytest.mark.parametrize("suffix", OTHERS)
def test_every_syntax_gives_the_same_table(suffix: str, turtle: Path) -> None:
    other = turtle.with_suffix(f".{suffix}")
    rdflib.Graph().parse(turtle).serialize(other, format=OTHERS[suffix], encoding="utf-8")
    assert rows(parsed(other)) == rows(parsed(turtle))


def test_gzip_is_read_as_what_it_holds(turtle: Path) -> None:
    packed = turtle.with_suffix(".ttl.gz")
    packed.write_bytes(gzip.compress(turtle.read_bytes()))
    assert rows(parsed(packed)) == rows(parsed(turtle))


def test_anonymous_nodes_are_named_by_what_they_say_whatever_order_and_file(tmp_path: Path) -> None:
    one, two = tmp_path / "one.ttl", tmp_path / "two.nt"
    one.write_text("@prefix ex: <http://e/> . ex:a ex:p [ ex:q ex:b ; ex:r [ ex:s 1 ] ] .")
    two.write_text(
        '_:y <http://e/s> "1"^^<http://www.w3.org/2001/XMLSchema#integer> .\n'
        "_:x <http://e/r> _:y .\n<http://e/a> <http://e/p> _:x .\n_:x <http://e/q> <http://e/b> .\n"
    )
    assert rows(parsed(one)) == rows(parsed(two))
    both = parsed(one, two)
    assert rows(both) == rows(parsed(one))
    assert {Path(row["file"]).name for row in both.table.to_pylist()} == {"one.ttl"}


def test_anonymous_nodes_that_say_different_things_differ(tmp_path: Path) -> None:
    file = tmp_path / "a.ttl"
    file.write_text("@prefix ex: <http://e/> . ex:a ex:p [ ex:q 1 ] , [ ex:q 2 ] , [ ex:q '1' ] , [ ex:r 1 ] .")
    objects = {row["object"] for row in rows(parsed(file)) if row["kind"] == "blank"}
    assert len(objects) == 4


def test_anonymous_nodes_in_a_cycle_are_kept_apart(tmp_path: Path) -> None:
    file = tmp_path / "a.nt"
    file.write_text("".join(f"_:{a} <http://e/p> _:{b} .\n" for a, b in ("xy", "yx", "uv", "vw", "wu")))
    statements = parsed(file)
    assert statements.table.num_rows == 5
    assert rdflib.compare.isomorphic(as_rdflib(statements), rdflib.Graph().parse(file))
    assert rows(parsed(file)) == rows(statements)


def test_prefixes_are_those_that_the_files_declare(turtle: Path) -> None:
    assert parsed(turtle).prefixes["ex"] == "http://e/"


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.ttl", "@prefix ex: <http://e/> .\nex:a ex:p ex:b .\nex:a ex:p ; ; 7z .\n", 3),
        ("a.ttl", '@prefix ex: <http://e/> .\nex:a ex:p "never closed .\n', 2),
        ("a.ttl", "ex:a ex:p ex:b .\n", 1),
        ("a.trig", "@prefix ex: <http://e/> .\n\nex:g { ex:a ex:p }\n", 3),
        ("a.rdf", '<?xml version="1.0"?>\n<r>\n<x></y>\n</r>', None),
        ("a.rdf", "no XML at all", None),
        ("a.jsonld", '{"@id": "http://e/a",\n "http://e/p": }', 2),
    ],
)
def test_a_file_that_does_not_parse_is_named_with_its_line(
    name: str, content: str, line: int | None, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(InputError) as refused:
        parsed(file)
    assert refused.value.path == file
    assert str(refused.value).startswith(f"{file}:")
    assert "\n" not in str(refused.value)
    if line is not None:
        assert refused.value.line == line


def test_bad_lines_of_n_triples_are_quarantined_and_all_others_read(tmp_path: Path) -> None:
    lines = [f"<http://e/{number}> <http://e/p> <http://e/o> ." for number in range(1, 1001)]
    lines[6], lines[499], lines[999] = "<http://e/7> <http://e/p> oops .", '<a> <b> "c', "<http://e/a b> <c> <d> ."
    file = tmp_path / "a.nt"
    file.write_text("\n".join(lines))
    report = Report("test")
    statements = parse([file], report)
    assert statements.table.num_rows == 997
    assert [(row["file"], row["line"]) for row in report.quarantined] == [(str(file), n) for n in (7, 500, 1000)]
    assert all(row["reason"] for row in report.quarantined)
    assert report.read == 1000


def test_a_missing_file_and_a_folder_without_rdf_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none.ttl: no such file"):
        find_files([tmp_path / "none.ttl"])
    (tmp_path / "catalog-v001.xml").write_text("<catalog/>")
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(InputError, match="holds no RDF file"):
        find_files([tmp_path])
    with pytest.raises(InputError, match="its ending is none of"):
        parsed(tmp_path / "notes.txt")


def test_a_packed_file_that_is_broken_is_named(turtle: Path) -> None:
    packed = gzip.compress(turtle.read_bytes())
    broken = {
        "cut": packed[:-20],
        "no_gzip": b"not packed at all",
        "flipped": packed[:40] + b"\xff" * 40 + packed[80:],
    }
    for name, content in broken.items():
        file = turtle.with_name(f"{name}.ttl.gz")
        file.write_bytes(content)
        with pytest.raises(InputError) as refused:
            parsed(file)
        assert refused.value.path == file


def test_a_json_ld_context_elsewhere_is_not_fetched(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonld"
    file.write_text('{"@context": "http://127.0.0.1:9/context.jsonld", "@id": "http://e/a", "name": "x"}')
    with pytest.raises(InputError, match="a.jsonld"):
        parsed(file)


def test_triples_within_triples_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.nt"
    file.write_text("<http://e/a> <http://e/p> <<( <http://e/a> <http://e/p> <http://e/b> )>> .\n")
    with pytest.raises(InputError, match="a.nt: holds a triple within a triple"):
        parsed(file)


def test_thousands_of_files_and_complaints_do_not_block_the_parser(tmp_path: Path) -> None:
    for number in range(1500):
        (tmp_path / f"{'a_name_that_soon_fills_a_pipe_' * 4}{number:04}.nt").write_text(
            f"<http://e/{number}> <http://e/p> <http://e/o> .\nbad\n"
        )
    report = Report("test")
    assert parse(find_files([tmp_path]), report).table.num_rows == 1500
    assert report.num_quarantined == 1500


def test_the_lossless_copy_is_what_was_parsed(turtle: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    statements = parsed(turtle)
    keep(statements, tmp_path / "kept" / "2026.1.parquet")
    assert pq.read_table(tmp_path / "kept" / "2026.1.parquet").equals(statements.table)
    assert [file.name for file in (tmp_path / "kept").iterdir()] == ["2026.1.parquet"]
