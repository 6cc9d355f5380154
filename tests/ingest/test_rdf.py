"""RDF in every syntax gives the same canonical statements, and bad input is named by file and line."""

import bz2
import gzip
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyoxigraph as ox
import pytest
import rdflib
import rdflib.compare
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest import ntriples, parser, rdf
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


def table_of(statements: Statements) -> pa.Table:
    """Everything, anonymous nodes first."""
    parts = [statements.blank, *statements.parts()]
    return pa.concat_tables(parts, promote_options="permissive").unify_dictionaries()


def parsed(*files: Path) -> Statements:
    report = Report("test")
    statements = parse(files, report)
    assert report.read == table_of(statements).num_rows + sum(report.skipped.values()) + report.num_quarantined
    return statements


def rows(statements: Statements) -> list[dict[str, str]]:
    return [{key: row[key] for key in row if key != "file"} for row in table_of(statements).to_pylist()]


def as_rdflib(statements: Statements) -> rdflib.Graph:
    """The canonical table read back into rdflib."""
    graph = rdflib.Graph()
    term = {"iri": lambda row: rdflib.URIRef(row["object"]), "blank": lambda row: rdflib.BNode(row["object"][2:])}
    for row in table_of(statements).to_pylist():
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
    assert {Path(row["file"]).name for row in table_of(both).to_pylist()} == {"one.ttl"}


def test_anonymous_nodes_that_say_different_things_differ(tmp_path: Path) -> None:
    file = tmp_path / "a.ttl"
    file.write_text("@prefix ex: <http://e/> . ex:a ex:p [ ex:q 1 ] , [ ex:q 2 ] , [ ex:q '1' ] , [ ex:r 1 ] .")
    objects = {row["object"] for row in rows(parsed(file)) if row["kind"] == "blank"}
    assert len(objects) == 4


def test_anonymous_nodes_in_a_cycle_are_kept_apart(tmp_path: Path) -> None:
    file = tmp_path / "a.nt"
    file.write_text("".join(f"_:{a} <http://e/p> _:{b} .\n" for a, b in ("xy", "yx", "uv", "vw", "wu")))
    statements = parsed(file)
    assert table_of(statements).num_rows == 5
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
    assert table_of(statements).num_rows == 997
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


def test_of_a_folder_all_rdf_is_read_and_no_other_xml(tmp_path: Path) -> None:
    rdf = '<?xml version="1.0"?><!-- <a> --><r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    contents = {
        "a.xml": f"{rdf}</r:RDF>",
        "broken.xml": f"{rdf}</x>",
        "catalog-products.ttl": "",
        "catalog-v001.xml": '<catalog xmlns="urn:oasis:names:tc:entity:xmlns:xml:catalog"/>',
        "pom.xml": "<project><modelVersion>4.0</modelVersion></project>",
        "text.xml": "RDF",
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "packed.xml.gz").write_bytes(gzip.compress(contents["a.xml"].encode()))
    (tmp_path / "pom.xml.gz").write_bytes(gzip.compress(contents["pom.xml"].encode()))
    found = [file.name for file in find_files([tmp_path])]
    assert found == ["a.xml", "broken.xml", "catalog-products.ttl", "packed.xml.gz"]
    assert find_files([tmp_path / "pom.xml"]) == [tmp_path / "pom.xml"]


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
    nested = "<http://e/a> <http://e/p> <<( <http://e/a> <http://e/p> <http://e/b> )>> .\n"
    file = tmp_path / "a.ttl"
    file.write_text(nested)
    with pytest.raises(InputError, match="a.ttl: holds a triple within a triple"):
        parsed(file)
    lines = tmp_path / "a.nt"
    lines.write_text("<http://e/a> <http://e/p> <http://e/b> .\n" + nested + '<http://e/a> <http://e/p> "<<(" .\n')
    report = Report("test")
    assert table_of(parse([lines], report)).num_rows == 2
    assert [(row["line"], "triple within" in row["reason"]) for row in report.quarantined] == [(2, True)]


def test_thousands_of_files_and_complaints_do_not_block_the_parser(tmp_path: Path) -> None:
    for number in range(1500):
        (tmp_path / f"{'a_name_that_soon_fills_a_pipe_' * 4}{number:04}.nt").write_text(
            f"<http://e/{number}> <http://e/p> <http://e/o> .\nbad\n"
        )
    report = Report("test")
    assert table_of(parse(find_files([tmp_path]), report)).num_rows == 1500
    assert report.num_quarantined == 1500


def test_the_lossless_copy_is_what_was_parsed(turtle: Path, tmp_path: Path) -> None:
    statements = parsed(turtle)
    keep(statements, tmp_path / "kept" / "2026.1.parquet")
    assert pq.read_table(tmp_path / "kept" / "2026.1.parquet").equals(table_of(statements))
    assert [file.name for file in (tmp_path / "kept").iterdir()] == ["2026.1.parquet"]


# Lines of N-Triples: those that are canonical are cut in columns, the others go through pyoxigraph; both must agree.

ODD_OBJECTS = (
    *('"x"@EN-us', '"x"@en-us', '"x"@e', '"x"@abcdefghi', '"x"@1', '"x"@en--ltr', '"x"@en-a', '"x"@de-1996', '"x"@'),
    *('"x"^^<http://www.w3.org/2001/XMLSchema#string>', '"x"^^<rel>', '"x"^^<http://e/a b>', '"x"^^"y"', '"x"@en@de'),
    '"x"^^<http://www.w3.org/1999/02/22-rdf-syntax-ns#langString>',
    *('"a\tb"', '"a\x00b"', '"a\x08\x7f\x85\u2028"', '"\ufffe"', '"\uffff"', '"\U0001fffe"', '"a\rb"', '"a"b"', '"a'),
    *(
        r'"\u0041"',
        r'"\uD800"',
        r'"\u0000"',
        r'"\u00e9\t\b\f\n\r\'\"\\"',
        r'"\x"',
        r'"\"',
        r'"a\\"',
        r'"\\\"',
        r'"\U00110000"',
    ),
    *(
        "<rel>",
        "<http://e/a b>",
        "<http://e/a|b>",
        "<http://e/[>",
        "<http://[::1]/>",
        "<http://e:x/>",
        "<urn:x>",
        "<x:>",
    ),
    *(
        "<1:a>",
        "<a+b-c.d:e>",
        r"<http://e/\u00e9>",
        "<http://e/%zz>",
        "<http://e/%4>",
        "<http://e/%41>",
        "<http://e/a#b#c>",
    ),
    *(
        "<http://a@b:80/c>",
        "<a://>",
        "<http:///x>",
        "<http:a>",
        "<http://>",
        "<//e/a>",
        "<http://a:b:c/>",
        "<http://é/>",
    ),
    *(
        "<http://e/?a[b>",
        "<http://e/?\ue000>",
        "<http://e/\ue000>",
        "<http://e/é?ü#ö>",
        "<http://e/\x7f>",
        "<http://e/\x85>",
    ),
    *(
        "<http://e/a%>",
        "<http://e/\xa0>",
        "<http://e/\ufdd0>",
        "<http://e/\ufffd>",
        "<http://e/\U0001f600>",
        "<http://e/../b>",
    ),
    *(
        "<a:/b>",
        "<a:b//c>",
        "<a:b?c>",
        "<a:#b>",
        "<mailto:a@b>",
        "<>",
        "<",
        "x",
        "",
        "_:b",
        "_:",
        "<<( <a:> <a:> <a:> )>>",
    ),
    *("<a:b> .  ", "<a:b> . # c", "<a:b> <a:c>", '"x" <a:c>', "<a:b> . <a:c>", ". <a:b>", "<a:b>\t", "<a:b>."),
)
ODD_LINES = (
    *(f"<http://e/a> <http://e/p> {object_} ." for object_ in ODD_OBJECTS),
    *(f"{object_} <http://e/p> <http://e/o> ." for object_ in ODD_OBJECTS),
    *(f"<http://e/a> {object_} <http://e/o> ." for object_ in ODD_OBJECTS),
    *(
        "",
        " ",
        "#",
        "# <a:> <a:> <a:> .",
        'VERSION "1.2"',
        ".",
        "<a:> .",
        "<a:> <a:> .",
        "<a:> <a:> <a:>",
        "<a:><a:><a:>.",
    ),
    *(
        "<a:>\t<a:>\t<a:>\t.",
        "  <a:> <a:> <a:> .",
        "<a:>  <a:> <a:> .",
        "<a:> <a:>  <a:> .",
        "<a:> <a:> <a:>  .",
        "\ufeff<a:> <a:> <a:> .",
    ),
    *("<a:> <a:> <a:> . \r", "<a:> <a:> <a:> .\r<a:> <a:> <a:x> .", "<a:> <a:> <a:> .\f", "<a:>\xa0<a:> <a:> ."),
)
ODD_BYTES = (b'<a:> <a:> "\xff" .', b'<a:> <a:> "\xed\xa0\x80" .', b'<a:> <a:> "\xc0\x80" .', b"<a:\xe9> <a:> <a:> .")


def through_pyoxigraph(line: bytes) -> list[str] | None:
    """Canonical triples of the line; None where it is refused."""
    try:
        return [str(quad.triple) for quad in ox.parse(line, format=ox.RdfFormat.N_TRIPLES)]
    except (SyntaxError, ValueError):
        return None


def taken_as_they_are(lines: Sequence[bytes]) -> list[bool]:
    found = ntriples.lines_of(b"".join(line + b"\n" for line in lines))
    good = ntriples.looks_canonical(found)
    good[good] = ntriples.is_canonical(ntriples.terms_of(found.pick(good)))
    return [bool(one) for one in good]


def test_only_lines_that_pyoxigraph_would_write_are_taken_as_they_are() -> None:
    lines = [*(line.encode() for line in ODD_LINES), *ODD_BYTES]
    for line, taken in zip(lines, taken_as_they_are(lines), strict=True):
        assert not taken or through_pyoxigraph(line) == [line[:-2].decode()], line
    plain = [
        b"<http://e/a> <http://e/p> <http://e/o> .",
        '<http://e/a?b=c#d> <urn:p> "Straße, बैंक \U0001f600"@en-us .'.encode(),
        b'<http://e/a> <http://e/p> "" .',
        b'<http://e/a> <http://e/p> " . <x> " .',
        b'<http://e/a> <http://e/p> "1"^^<http://www.w3.org/2001/XMLSchema#integer> .',
    ]
    assert taken_as_they_are(plain) == [True] * len(plain)


def test_no_character_of_unicode_is_taken_where_pyoxigraph_would_escape_or_refuse_it() -> None:
    characters = [chr(code) for code in range(0x20000) if not 0xD800 <= code < 0xE000 and code != 10]
    for pattern in ('<a:> <a:> "{}" .', "<a:> <a:> <http://e/{}> .", "<a:> <a:> <http://e/?{}> .", "<{}:> <a:> <a:> ."):
        lines = [pattern.format(character).encode() for character in characters]
        refused = [line for line, taken in zip(lines, taken_as_they_are(lines), strict=True) if taken]
        assert ox.serialize(
            ox.parse(b"\n".join(refused), format=ox.RdfFormat.N_TRIPLES), format=ox.RdfFormat.N_TRIPLES
        ) == (b"".join(line + b"\n" for line in refused))


def test_each_odd_line_is_kept_or_quarantined_as_pyoxigraph_has_it(tmp_path: Path) -> None:
    lines = [*(line.encode() for line in ODD_LINES), *ODD_BYTES] * 2
    file = tmp_path / "odd.nt"
    file.write_bytes(b"\n".join(lines))
    report = Report("test")
    statements = parse([file], report)
    expected = {number: through_pyoxigraph(line) for number, line in enumerate(lines, 1)}
    bad = {number for number, triples in expected.items() if triples is None or any("<<(" in one for one in triples)}
    # A mark of byte order is no part of the first line, and what begins another is no IRI.
    assert {row["line"] for row in report.quarantined} == bad
    assert all(row["reason"] and not row["reason"].startswith("Parser error") for row in report.quarantined)
    good = [one for number in sorted(expected.keys() - bad) for one in expected[number] or ()]
    assert report.read == len(good) + len(bad)
    named = {one for one in good if "_:" not in one}
    ids = {bytes(sid) for sid in table_of(statements)["sid"].to_pylist()}
    assert {ntriples.blake2b(one.encode(), digest_size=16).digest() for one in named} <= ids
    assert table_of(statements).num_rows == len(named) + len({one.split("_:")[0] for one in good if "_:" in one})


iris = st.sampled_from(["http://e/a", "http://e/Straße?q=1#x", "urn:a:b", "http://[::1]/", "mailto:a@b.c"]).map(
    ox.NamedNode
)
nodes = st.sampled_from("abcde").map(ox.BlankNode)
literals = st.one_of(
    st.text(max_size=20).map(ox.Literal),
    st.tuples(st.text(max_size=5), st.sampled_from(["en", "de-at", "EN-us"])).map(
        lambda pair: ox.Literal(pair[0], language=pair[1])
    ),
    st.tuples(st.text(max_size=5), iris).map(lambda pair: ox.Literal(pair[0], datatype=pair[1])),
)
triples = st.builds(ox.Triple, st.one_of(iris, nodes), iris, st.one_of(iris, nodes, literals))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(triples, max_size=30))
def test_whatever_pyoxigraph_writes_is_the_same_set_in_lines_and_in_documents(some: list[ox.Triple]) -> None:
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (ending, form) in enumerate(
            ((".nt", ox.RdfFormat.N_TRIPLES), (".ttl", ox.RdfFormat.TURTLE), (".jsonld", ox.RdfFormat.JSON_LD))
        ):
            file = Path(folder) / f"a{ending}"
            file.write_bytes(ox.serialize(some, format=form) or b"")
            chunk = parser.Chunk(number, (str(file),), folder, 1, None)
            tables.append(merged(parser.parse_chunk(chunk), folder))
    cyclic = any(isinstance(one.subject, ox.BlankNode) and isinstance(one.object, ox.BlankNode) for one in some)
    if not cyclic:  # nodes in cycles are named by file and order
        assert tables[0].equals(tables[1])
        assert tables[0].equals(tables[2])
    else:
        assert tables[0].num_rows >= len({one for one in some if isinstance(one.subject, ox.NamedNode)}) / 5


def merged(found: parser.Parsed, folder: str) -> pa.Table:
    """The table without its files."""
    tables = []
    for part in (1, 0):
        out = Path(folder) / f"{Path(found.segments[0]).stem}.{part}"
        rdf.merge(rdf.Merge(found.segments, part, str(out)))
        tables.append(rdf._read_part(out))
    return pa.concat_tables(tables).drop_columns("file").combine_chunks()


def numbered(tmp_path: Path, number: int = 120_000) -> Path:
    """A file that is parsed in several ranges, with anonymous nodes that cross them and a few bad lines."""
    lines = [f'<http://e/{i // 3}> <http://e/p{i % 7}> "{i} {"x" * (i % 90)}"@en .' for i in range(number)]
    lines[5], lines[number // 2], lines[-1] = "bad one", "bad two", "bad three"
    lines[10] = "<http://e/0> <http://e/q> _:x ."
    lines[number // 3] = "_:x <http://e/q> _:y ."
    lines[-3] = '_:y <http://e/q> "deep" .'
    file = tmp_path / "many.nt"
    file.write_text("\n".join(lines))
    assert file.stat().st_size > 2 * rdf.MIN_CHUNK
    return file


def sorted_rows(statements: Statements) -> pa.Table:
    return table_of(statements).drop_columns("file").sort_by([("sid", "ascending")]).combine_chunks()


def test_a_file_in_ranges_on_two_workers_is_the_file_in_one_piece(tmp_path: Path) -> None:
    file, packed = numbered(tmp_path), tmp_path / "packed" / "many.nt.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(file.read_bytes(), compresslevel=1))
    report, whole = Report("test"), Report("test")
    ranges, one = parse([file], report, workers=2), parse([packed], whole)
    assert sorted_rows(ranges).equals(sorted_rows(one))
    assert [row["line"] for row in report.quarantined] == [6, 60_001, 120_000]
    assert [row["line"] for row in whole.quarantined] == [6, 60_001, 120_000]
    assert [row["text"] for row in report.quarantined] == ["bad one", "bad two", "bad three"]
    assert report.read == whole.read == 120_000
    assert ranges.blank.num_rows == 2


def test_parts_hold_each_subject_whole_and_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, copy = numbered(tmp_path), tmp_path / "copy.nt"
    copy.write_bytes(file.read_bytes())
    whole = sorted_rows(parse([file, file], Report("test")))
    monkeypatch.setattr(rdf, "PART", 1 << 20)
    statements = parse([file, copy], report := Report("test"))
    parts = [part["subject"].to_pylist() for part in statements.parts()]
    assert len(parts) > 3
    assert all(part == sorted(part) for part in parts)
    assert sum(len(set(part)) for part in parts) == len({subject for part in parts for subject in part})
    assert sorted_rows(statements).equals(whole)
    assert report.skipped["stated more than once"] == whole.num_rows
    assert report.read == whole.num_rows * 2 + report.num_quarantined
    assert table_of(statements)["file"].unique().to_pylist() == [str(file)]
    keep(statements, tmp_path / "kept.parquet")
    assert pq.read_table(tmp_path / "kept.parquet").equals(table_of(statements))


def test_the_work_folder_is_gone_with_the_statements_and_after_a_failure(turtle: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    statements = parse([turtle], Report("test", work=work))
    assert len(list(work.iterdir())) == 1
    del statements
    assert list(work.iterdir()) == []
    turtle.write_text("no turtle")
    with pytest.raises(InputError):
        parse([turtle], Report("test", work=work))
    assert list(work.iterdir()) == []


def test_a_line_that_is_too_long_is_quarantined_and_the_lines_around_it_are_read(tmp_path: Path) -> None:
    good, line = "<http://e/{}> <http://e/p> <http://e/o> .\n", '<http://e/l> <http://e/p> "{}" .\n'
    fits = line.format("x" * (parser.MAX_LINE - len(line) + 3))
    assert len(fits) == parser.MAX_LINE + 1  # with its newline
    for name, long in (("a.nt", line.format("x" * (20 << 20))), ("b.nt", fits[:-4] + 'x" .\n')):
        file = tmp_path / name
        file.write_text(good.format(1) + fits + long + good.format(2) + long + good.format(3) + long.rstrip())
        report = Report("test")
        table = table_of(parse([file], report))
        assert [row["line"] for row in report.quarantined] == [3, 5, 7]
        assert {row["reason"] for row in report.quarantined} == {parser.TOO_LONG}
        assert {len(row["text"]) for row in report.quarantined} == {200}
        assert (table.num_rows, report.read) == (4, 7)


def zstandard(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(content)
    return bytes(sink.getvalue())


PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstandard}


@pytest.mark.parametrize("ending", PACKERS)
def test_of_a_truncated_archive_of_lines_all_that_can_be_unpacked_arrives(ending: str, tmp_path: Path) -> None:
    digits = np.random.default_rng(0).integers(0, 10**9, 100_000)
    lines = [f'<http://e/{i}> <http://e/p> "{digit}" .' for i, digit in enumerate(digits)]
    packed = PACKERS[ending]("\n".join(lines).encode())
    file = tmp_path / f"a.nt{ending}"
    file.write_bytes(packed)
    assert table_of(parse([file], Report("test"))).num_rows == len(lines)
    file.write_bytes(packed[: len(packed) // 2])
    report = Report("test")
    table = table_of(parse([file], report))
    assert len(lines) / 4 < table.num_rows < len(lines) * 3 / 4
    assert set(table["subject"].to_pylist()) == {f"http://e/{i}" for i in range(table.num_rows)}
    assert [row["line"] for row in report.quarantined] == [table.num_rows + 1]
    assert "cannot be read any further" in report.quarantined[0]["reason"]
    assert report.read == table.num_rows + 1


@pytest.mark.parametrize("ending", PACKERS)
@pytest.mark.parametrize("form", ["nt", "ttl", "rdf"])
def test_a_decompression_bomb_is_refused(form: str, ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"bomb.{form}{ending}"
    start = b"<r>" if form == "rdf" else b""
    file.write_bytes(PACKERS[ending](start + b" " * (200 << 20)))
    with pytest.raises(InputError, match=r"bomb.*unpacks to more than 250 times its size") as refused:
        parsed(file)
    assert refused.value.path == file


def test_bad_lines_go_to_a_file_and_too_many_of_them_stop_the_load(tmp_path: Path) -> None:
    file = tmp_path / "a.nt"
    file.write_text("".join(f"bad {i} {'x' * 300}\n<http://e/{i}> <http://e/p> <http://e/o> .\n" for i in range(1500)))
    report = Report("test", quarantine_file=tmp_path / "bad.jsonl", max_bad=1500)
    parse([file], report)
    entries = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [entry["line"] for entry in entries] == list(range(1, 3000, 2))
    assert {entry["file"] for entry in entries} == {str(file)}
    assert all(entry["reason"] and len(entry["text"]) == 200 for entry in entries)
    assert (report.num_quarantined, len(report.quarantined)) == (1500, 1000)
    with pytest.raises(InputError, match="a.nt:21: more than 10 bad lines"):
        parse([file], Report("test", max_bad=10))
    other = tmp_path / "b.nt"
    other.write_text("bad\n" * 6)
    third = tmp_path / "c.nt"
    third.write_text("bad\n" * 6)
    with pytest.raises(InputError, match="c.nt:5: more than 10 bad lines"):
        parse([other, third], Report("test", max_bad=10))


def test_a_parser_that_dies_is_reported_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, deep = tmp_path / "a.ttl", tmp_path / "b.ttl"
    good.write_text("<http://e/a> <http://e/p> <http://e/o> .")
    deep.write_text('<http://e/a> <http://e/p> """' + "x" * (40 << 20) + '""" .')
    monkeypatch.setattr(rdf, "MAX_MEMORY", 600 << 20)
    with pytest.raises(InputError, match="b.ttl: ") as refused:
        parse([good, deep], Report("test"))
    assert "\n" not in str(refused.value)
