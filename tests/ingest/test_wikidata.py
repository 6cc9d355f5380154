"""Wikidata: every row of the mapping from small lines of JSON, damaged input, slices, and the real files."""

import bz2
import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ingest.report import Report
from ingest.run import load_source
from ingest.sources import wikidata
from ingest.sources.metathesaurus import CONCEPT_IRI
from ingest.sources.wikidata import IdSet
from ingest.sources.wikidata_truthy import Sitelinks
from kg.errors import ConfigError, InputError
from kg.graph_hash import graph_hash
from kg.store import GraphStore
from kg.types import Entity, Triple

DUMPS = ("sample_wikidata_items.json.bz2", "short_stream.json.bz2")
MOCKS = "wdtk/wdtk-dumpfiles/src/test/resources"
GREGORIAN, JULIAN = ("http://www.wikidata.org/entity/Q1985727", "http://www.wikidata.org/entity/Q1985786")


class Read:
    """What the reader gave for ``paths``."""

    def __init__(self, *paths: Path, **options: tuple[str, ...]) -> None:
        self.report = Report("wikidata")
        reading = wikidata.read(paths, "wikidata", self.report, "ignored", **options)
        items = list(reading.items)
        self.release, self.statements = reading.release, reading.statements
        self.entities = {item.id: item for item in items if isinstance(item, Entity)}
        self.triples = [item for item in items if isinstance(item, Triple)]
        self.edges = {(triple.head, triple.relation, triple.tail) for triple in self.triples}
        assert len(self.entities) + len(self.triples) == len(items)
        assert len({triple.sid for triple in self.triples}) == len(self.triples)
        assert all(end in self.entities for triple in self.triples for end in (triple.head, triple.tail))
        assert self.report.balances, self.report.as_json()

    @property
    def complaints(self) -> list[tuple[str, int, str]]:
        return [(Path(row["file"]).name, row["line"], row["reason"]) for row in self.report.quarantined]

    @property
    def described(self) -> set[str]:
        return {id_ for id_, entity in self.entities.items() if entity.kinds != ("Stub",)}


def snak(name: str, kind: str, value: Any) -> dict[str, Any]:
    return {"snaktype": "value", "property": name, "datavalue": {"type": kind, "value": value}}


def item_snak(name: str, id_: str) -> dict[str, Any]:
    return snak(name, "wikibase-entityid", {"entity-type": "item", "id": id_, "numeric-id": int(id_[1:])})


def text_snak(name: str, text: str) -> dict[str, Any]:
    return snak(name, "string", text)


def time_snak(name: str, text: str, precision: int = 11, calendar: str = GREGORIAN, **more: int) -> dict[str, Any]:
    value = {"time": text, "precision": precision, "calendarmodel": calendar, "before": 0, "after": 0, "timezone": 0}
    return snak(name, "time", {**value, **more})


def amount_snak(name: str, amount: str, unit: str = "1", **bounds: str) -> dict[str, Any]:
    return snak(name, "quantity", {"amount": amount, "unit": unit, **bounds})


def claim(main: dict[str, Any], *qualifiers: dict[str, Any], rank: str = "normal", references: int = 0) -> Any:
    by_property: dict[str, list[Any]] = {}
    for each in qualifiers:
        by_property.setdefault(each["property"], []).append(each)
    said = {"mainsnak": main, "rank": rank, "type": "statement", "qualifiers": by_property}
    return {**said, "references": [{"snaks": {}}] * references}


def said(language: str, text: str) -> dict[str, str]:
    return {"language": language, "value": text}


def entity(id_: str, *claims: Any, **more: Any) -> dict[str, Any]:
    by_property: dict[str, list[Any]] = {}
    for each in claims:
        by_property.setdefault(each["mainsnak"]["property"], []).append(each)
    return {"type": "property" if id_[0] == "P" else "item", "id": id_, "claims": by_property, **more}


def dump(folder: Path, *entities: Any, name: str = "dump.json") -> Path:
    """In the form of the real dumps: an array with an entity a line."""
    lines = [each if isinstance(each, str) else json.dumps(each) for each in entities]
    (folder / name).write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    return folder / name


def one(folder: Path, *claims: Any, **more: Any) -> Entity:
    """Q1 with these claims, read from a dump."""
    return Read(dump(folder, entity("Q1", *claims, **more))).entities["wd:Q1"]


def test_items_are_nodes_with_id_iri_and_kind(tmp_path: Path) -> None:
    item = one(tmp_path)
    assert (item.id, item.iri, item.kinds) == ("wd:Q1", "http://www.wikidata.org/entity/Q1", ("Item",))
    assert item.source == "wikidata"


def test_properties_are_nodes_that_name_their_relationship_and_datatype(tmp_path: Path) -> None:
    labels = {"en": said("en", "country")}
    read = Read(dump(tmp_path, entity("P17", datatype="wikibase-item", labels=labels), entity("P31")))
    assert read.entities["wd:P17"].kinds == ("Property",)
    assert read.entities["wd:P17"].name == "country"
    assert read.entities["wd:P17"].properties == {"relation": "P17", "datatype": "wikibase-item"}
    assert read.entities["wd:P31"].properties == {"relation": "INSTANCE_OF"}


def test_statements_with_items_are_relationships_and_what_they_name_is_a_stub(tmp_path: Path) -> None:
    claims = [claim(item_snak(name, id_)) for name, id_ in (("P31", "Q5"), ("P279", "Q7"), ("P17", "Q30"))]
    related = snak("P1659", "wikibase-entityid", {"entity-type": "property", "id": "P18"})
    read = Read(dump(tmp_path, entity("Q1", *claims, claim(related))))
    assert read.edges == {
        ("wd:Q1", "INSTANCE_OF", "wd:Q5"),
        ("wd:Q1", "SUBCLASS_OF", "wd:Q7"),
        ("wd:Q1", "P17", "wd:Q30"),
        ("wd:Q1", "P1659", "wd:P18"),
    }
    assert read.described == {"wd:Q1"}
    assert read.entities["wd:Q30"].iri == "http://www.wikidata.org/entity/Q30"
    assert {"wd:P17", "wd:P18", "wd:P1659"} <= read.entities.keys()


def test_old_dumps_give_the_number_of_an_item_alone(tmp_path: Path) -> None:
    old = snak("P31", "wikibase-entityid", {"entity-type": "item", "numeric-id": 5})
    assert Read(dump(tmp_path, entity("Q1", claim(old)))).edges == {("wd:Q1", "INSTANCE_OF", "wd:Q5")}


def test_lexemes_as_values_are_text_not_nodes(tmp_path: Path) -> None:
    value = snak("P5137", "wikibase-entityid", {"entity-type": "lexeme", "id": "L7"})
    assert one(tmp_path, claim(value)).properties == {"P5137": "L7"}


def test_preferred_statements_hide_normal_ones_and_deprecated_ones_never_come(tmp_path: Path) -> None:
    ranks = {"Q30": "normal", "Q31": "preferred", "Q32": "preferred", "Q33": "deprecated"}
    country = [claim(item_snak("P17", id_), rank=rank, references=1) for id_, rank in ranks.items()]
    only = [claim(item_snak("P36", "Q34"), rank="deprecated"), claim(item_snak("P36", "Q35"))]
    read = Read(dump(tmp_path, entity("Q1", *country, *only)))
    assert read.edges == {("wd:Q1", "P17", "wd:Q31"), ("wd:Q1", "P17", "wd:Q32"), ("wd:Q1", "P36", "wd:Q35")}
    assert {t.tail: t.properties for t in read.triples if t.properties} == {
        "wd:Q31": {"rank": "preferred"},
        "wd:Q32": {"rank": "preferred"},
    }
    assert read.report.skipped == {
        "normal rank beside a preferred one": 2,  # the statement and its reference
        "deprecated rank": 3,
        "reference": 2,
    }


def test_qualifiers_are_properties_of_the_relationship(tmp_path: Path) -> None:
    start, end = time_snak("P580", "+1990-00-00T00:00:00Z", 9), time_snak("P580", "+1995-05-00T00:00:00Z", 10)
    role = {"snaktype": "somevalue", "property": "P794"}
    chair = claim(item_snak("P39", "Q5"), start, end, item_snak("P642", "Q9"), role)
    (triple,) = Read(dump(tmp_path, entity("Q1", chair))).triples
    assert triple.properties == {
        "q_P580": ["1990-00-00T00:00:00Z/9", "1995-05-00T00:00:00Z/10"],
        "q_P642": "wd:Q9",
        "q_P794": "unknown",
    }


def test_statements_that_differ_in_qualifiers_are_two_relationships_and_equal_ones_are_one(tmp_path: Path) -> None:
    terms = [claim(item_snak("P39", "Q5"), time_snak("P580", f"+{year}-00-00T00:00:00Z", 9)) for year in (1990, 1998)]
    read = Read(dump(tmp_path, entity("Q1", *terms, terms[0])))
    assert sorted(str(t.properties["q_P580"])[:4] for t in read.triples) == ["1990", "1998"]
    assert read.report.skipped == {"stated more than once": 1}


def test_labels_aliases_and_descriptions_of_the_languages_that_are_kept(tmp_path: Path) -> None:
    texts = {
        "labels": {code: said(code, text) for code, text in (("en", "Bank"), ("de", "Geldhaus"), ("fr", "Banque"))},
        "aliases": {"en": [said("en", "lender"), said("en", "bank")], "fr": [said("fr", "caisse")]},
        "descriptions": {"en": said("en", "takes deposits"), "de": said("de", "nimmt Geld")},
    }
    file = dump(tmp_path, entity("Q1", **texts))
    english, german = Read(file).entities["wd:Q1"], Read(file, languages=("de", "en")).entities["wd:Q1"]
    assert (english.name, english.definition) == ("Bank", "takes deposits")
    assert [(n.text, n.kind, n.language) for n in english.names] == [
        ("Bank", "pref", "en"),
        ("bank", "syn", "en"),
        ("lender", "syn", "en"),
    ]
    assert (german.name, german.definition) == ("Geldhaus", "nimmt Geld")
    assert german.definitions == ("nimmt Geld", "takes deposits")
    assert {n.text for n in german.names} == {"Geldhaus", "Bank", "bank", "lender"}
    assert len(Read(file, languages=("all",)).entities["wd:Q1"].names) == 6
    assert Read(file).report.skipped == {
        "label in another language": 2,
        "alias in another language": 1,
        "description in another language": 1,
    }


def test_a_name_is_found_where_the_language_has_none(tmp_path: Path) -> None:
    multilingual = {code: said(code, text) for code, text in (("mul", "Acme"), ("de", "Akme"))}
    foreign = {code: said(code, text) for code, text in (("sv", "Höjd"), ("nl", "Heuvel"))}
    read = Read(dump(tmp_path, entity("Q1", labels=multilingual), entity("Q2", labels=foreign)))
    assert read.entities["wd:Q1"].name == "Acme"
    assert [(n.text, n.language) for n in read.entities["wd:Q2"].names] == [("Heuvel", "nl")]
    assert read.report.skipped == {"label in another language": 2}


def test_the_number_of_sitelinks_is_a_property(tmp_path: Path) -> None:
    links = {site: {"site": site, "title": 'a "b" \\ ^', "badges": []} for site in ("enwiki", "dewiki")}
    assert one(tmp_path, sitelinks=links).properties == {"sitelinks": 2}
    assert one(tmp_path, sitelinks=[]).properties == {"sitelinks": 0}


def test_times_keep_text_year_precision_and_calendar(tmp_path: Path) -> None:
    assert one(tmp_path, claim(time_snak("P569", "+1952-03-11T00:00:00Z"))).properties == {
        "P569": "1952-03-11T00:00:00Z",
        "P569_year": 1952,
        "P569_precision": 11,
        "P569_calendar": "gregorian",
    }
    caesar = one(tmp_path, claim(time_snak("P570", "-0044-03-15T00:00:00Z", 11, JULIAN))).properties
    assert (caesar["P570"], caesar["P570_year"], caesar["P570_calendar"]) == ("-0044-03-15T00:00:00Z", -44, "julian")


@pytest.mark.parametrize(
    ("text", "precision", "kept", "year"),
    [
        ("+2013-00-00T00:00:00Z", 9, "2013-00-00T00:00:00Z", 2013),
        ("+00000001952-03-11T00:00:00Z", 11, "1952-03-11T00:00:00Z", 1952),
        ("-13798000000-00-00T00:00:00Z", 3, "-13798000000-00-00T00:00:00Z", -13798000000),
        ("+0000-01-01T00:00:00Z", 9, "0000-01-01T00:00:00Z", 0),
    ],
)
def test_times_that_no_calendar_library_reads(tmp_path: Path, text: str, precision: int, kept: str, year: int) -> None:
    found = one(tmp_path, claim(time_snak("P571", text, precision, before=2))).properties
    assert (found["P571"], found["P571_year"], found["P571_before"]) == (kept, year, 2)


def test_quantities_keep_number_unit_bounds_and_digits(tmp_path: Path) -> None:
    area = amount_snak(
        "P2046", "+30528", "http://www.wikidata.org/entity/Q712226", lowerBound="+30527", upperBound="+30529"
    )
    assert one(tmp_path, claim(area)).properties == {
        "P2046": 30528.0,
        "P2046_lower": 30527.0,
        "P2046_upper": 30529.0,
        "P2046_unit": "wd:Q712226",
    }
    assert one(tmp_path, claim(amount_snak("P1", "-1.50"))).properties == {"P1": -1.5, "P1_amount": "-1.50"}
    exact = "12345678901234567890.12"
    assert one(tmp_path, claim(amount_snak("P1", f"+{exact}"))).properties["P1_amount"] == exact
    assert one(tmp_path, claim(amount_snak("P1", "+1e999"))).properties == {"P1_amount": "1e999"}


def test_coordinates_are_a_point_with_its_numbers_and_globe(tmp_path: Path) -> None:
    place = {
        "latitude": 51,
        "longitude": 5.25,
        "altitude": None,
        "precision": 0.5,
        "globe": "http://www.wikidata.org/entity/Q2",
    }
    moon = {"latitude": 91.5, "longitude": -3, "precision": None, "globe": "http://www.wikidata.org/entity/Q405"}
    assert one(tmp_path, claim(snak("P625", "globecoordinate", place))).properties == {
        "P625": "Point(5.25 51)",
        "P625_latitude": 51.0,
        "P625_longitude": 5.25,
        "P625_precision": 0.5,
    }
    assert one(tmp_path, claim(snak("P625", "globecoordinate", moon))).properties == {
        "P625": "wd:Q405 Point(-3 91.5)",
        "P625_latitude": 91.5,
        "P625_longitude": -3.0,
        "P625_globe": "wd:Q405",
    }


def test_ids_in_other_registers_are_typed_properties(tmp_path: Path) -> None:
    ids = {"P2892": "C0011849", "P1278": "529900T8BM49AURSDO55", "P946": "US0378331005", "P249": "AAPL"}
    item = one(tmp_path, *(claim(text_snak(name, value)) for name, value in ids.items()))
    assert (item.properties, item.tail) == (ids, ())


def test_a_cui_makes_the_item_the_same_as_the_concept_of_umls(tmp_path: Path) -> None:
    cuis = [claim(text_snak("P2892", value)) for value in ("C0011849", "C0011860", "not a CUI")]
    read = Read(dump(tmp_path, entity("Q1", cuis[0]), entity("Q2", *cuis), entity("Q3", cuis[0])))
    assert read.edges == {
        ("wd:Q1", "SAME_AS", "umls:C0011849"),
        ("wd:Q2", "SAME_AS", "umls:C0011849"),
        ("wd:Q2", "SAME_AS", "umls:C0011860"),
        ("wd:Q3", "SAME_AS", "umls:C0011849"),
    }
    assert all(triple.properties == {"derived": True} for triple in read.triples)
    assert read.entities["wd:Q1"].properties == {"P2892": "C0011849"}
    assert read.entities["wd:Q2"].tail == ("P2892=C0011849", "P2892=C0011860", "P2892=not a CUI")
    concept = read.entities["umls:C0011849"]
    assert (concept.kinds, concept.iri) == (("Stub",), CONCEPT_IRI + "C0011849")
    assert read.report.kept["relationship"] == 0


def test_a_ticker_that_qualifies_a_stock_exchange_is_on_that_relationship(tmp_path: Path) -> None:
    listed = claim(item_snak("P414", "Q82059"), text_snak("P249", "AAPL"))
    (triple,) = Read(dump(tmp_path, entity("Q312", listed))).triples
    assert (triple.relation, triple.properties) == ("P414", {"q_P249": "AAPL"})


def test_several_values_go_to_the_tail_with_all_that_they_say(tmp_path: Path) -> None:
    unit = "http://www.wikidata.org/entity/Q11573"
    item = one(
        tmp_path,
        claim(text_snak("P249", "A")),
        claim(text_snak("P249", "B"), item_snak("P414", "Q82059")),
        claim(amount_snak("P2048", "+10", unit, lowerBound="+9", upperBound="+11")),
        claim(amount_snak("P2048", "+12", unit)),
        claim(time_snak("P571", "+1700-00-00T00:00:00Z", 9, JULIAN)),
        claim(time_snak("P571", "+1701-00-00T00:00:00Z", 9)),
    )
    assert item.properties == {}
    assert item.tail == (
        "P2048=10[9,11]Q11573",
        "P2048=12Q11573",
        "P249=A",
        "P249=B q_P414=wd:Q82059",
        "P571=1700-00-00T00:00:00Z/9/J",
        "P571=1701-00-00T00:00:00Z/9",
    )


def test_qualifiers_of_a_value_are_in_the_tail(tmp_path: Path) -> None:
    item = one(tmp_path, claim(amount_snak("P1082", "+7"), time_snak("P585", "+2015-00-00T00:00:00Z", 9)))
    assert (item.properties, item.tail) == ({"P1082": 7.0}, ("P1082 q_P585=2015-00-00T00:00:00Z/9",))


def test_texts_in_a_language_keep_it(tmp_path: Path) -> None:
    title = claim(snak("P1476", "monolingualtext", {"text": "Der Titel", "language": "de"}))
    other = claim(snak("P1476", "monolingualtext", {"text": "The title", "language": "en"}))
    assert one(tmp_path, title).properties == {"P1476": "Der Titel", "P1476_language": "de"}
    assert one(tmp_path, title, other).tail == ("P1476=Der Titel@de", "P1476=The title@en")


def test_unknown_and_no_value_are_lists_and_no_entities(tmp_path: Path) -> None:
    kinds = (("P570", "somevalue"), ("P22", "somevalue"), ("P40", "novalue"))
    main = [{"snaktype": kind, "property": name} for name, kind in kinds]
    read = Read(dump(tmp_path, entity("Q1", *(claim(each) for each in main))))
    assert read.entities["wd:Q1"].properties == {"unknown": ["P22", "P570"], "none": ["P40"]}
    assert read.described == read.entities.keys() == {"wd:Q1"}


def test_a_long_text_and_a_datatype_that_is_new_are_kept_in_the_tail(tmp_path: Path) -> None:
    item = one(tmp_path, claim(text_snak("P1", "x" * 9000)), claim(snak("P2", "music", {"b": 1, "a": "é"})))
    assert item.properties == {}
    assert item.tail == ("P1=" + "x" * 9000, 'P2={"a": "é", "b": 1}')


def test_redirects_are_deprecated_and_point_to_what_replaced_them(tmp_path: Path) -> None:
    moved = {**entity("Q8"), "redirects": {"from": "Q6", "to": "Q8"}}
    read = Read(dump(tmp_path, {"entity": "Q1", "redirect": "Q2"}, moved))
    assert read.entities["wd:Q1"].kinds == read.entities["wd:Q6"].kinds == ("Deprecated", "Item")
    assert read.edges == {("wd:Q1", "REPLACED_BY", "wd:Q2"), ("wd:Q6", "REPLACED_BY", "wd:Q8")}
    assert read.entities["wd:Q8"].kinds == ("Item",)


def test_lexemes_and_files_are_skipped_and_counted(tmp_path: Path) -> None:
    others = [
        {"type": "lexeme", "id": "L1"},
        {"type": "mediainfo", "id": "M1"},
        {"id": "M2"},
        {"id": "Q9", "missing": ""},
    ]
    read = Read(dump(tmp_path, *others, entity("Q1")))
    assert read.entities.keys() == {"wd:Q1"}
    assert read.report.skipped == {
        "entity of type lexeme": 1,
        "entity of type mediainfo": 2,
        "entity that is marked as missing": 1,
    }


def test_an_entity_that_comes_again_is_read_once(tmp_path: Path) -> None:
    labels = {"en": said("en", "first")}
    read = Read(dump(tmp_path, entity("Q1", labels=labels), entity("Q1", claim(item_snak("P17", "Q2")))))
    assert (read.entities["wd:Q1"].name, read.edges) == ("first", set())
    assert read.report.skipped == {"entity that was described before": 2}


ITEMS = [entity("Q1", claim(item_snak("P31", "Q5")), labels={"en": said("en", "one 😀")}), entity("Q2"), entity("P31")]
LINES = [json.dumps(each) for each in ITEMS]


@pytest.mark.parametrize(
    "text",
    [
        "[\n" + ",\n".join(LINES) + "\n]\n",
        "\n".join(LINES),
        "\r\n".join(LINES) + "\r\n",
        "[" + ",\n".join(LINES) + "]",
        json.dumps(ITEMS),
        json.dumps(ITEMS, indent=1),
        json.dumps({"entities": {each["id"]: each for each in ITEMS}}),
        json.dumps({"entities": {each["id"]: each for each in ITEMS}}, indent=4),
        "\ufeff" + "\n\n".join(LINES),
    ],
    ids=["array", "lines", "crlf", "tight", "one-line", "indented", "entities", "entities-indented", "bom"],
)
def test_every_shape_of_json_gives_the_same(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8", newline="")
    read = Read(tmp_path / "a.json")
    assert read.complaints == []
    assert read.described == {"wd:Q1", "wd:Q2", "wd:P31"}
    assert read.entities["wd:Q1"].name == "one 😀"
    assert read.edges == {("wd:Q1", "INSTANCE_OF", "wd:Q5")}


TRIPLES = "".join(
    f"<http://www.wikidata.org/entity/Q{n}> <http://x/p> <http://www.wikidata.org/entity/Q5> .\n" for n in (1, 2)
)

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": lambda content: bytes(pa.Codec("zstd").compress(content, asbytes=True)),
}


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".zst"])
def test_packed_files_are_unpacked_on_the_way(tmp_path: Path, ending: str) -> None:
    pack = PACK[ending]
    half = [("\n".join(part) + "\n").encode() for part in (LINES[:1], LINES[1:])]
    file, triples = tmp_path / f"wikidata-20250101-all.json{ending}", tmp_path / f"t.nt{ending}"
    file.write_bytes(b"".join(map(pack, half)))  # as parallel packers write: one stream after another
    triples.write_bytes(pack(TRIPLES.encode()))
    read = Read(file)
    assert (read.described, read.release, read.complaints) == ({"wd:Q1", "wd:Q2", "wd:P31"}, "2025-01-01", [])
    assert Read(triples).described == {"wd:Q1", "wd:Q2"}


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".zst"])
def test_a_packed_file_that_breaks_off_gives_what_came_before(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"a.json{ending}"
    lines = [json.dumps(entity(f"Q{number}", labels={"en": said("en", "x" * 10_000)})) for number in range(1, 41)]
    file.write_bytes(PACK[ending]("\n".join(lines[:30]).encode() + b"\n") + PACK[ending](LINES[0].encode())[:-12])
    read = Read(file)
    arrived = len(read.described)
    assert read.described == {f"wd:Q{number}" for number in range(1, arrived + 1)}
    assert arrived == 30 if ending != ".zst" else arrived >= 23  # a piece of 64 KiB is lost
    (complaint,) = read.complaints
    assert complaint[1] == arrived + 1
    assert "breaks off" in complaint[2]


BAD_LINES = {
    "truncated": (LINES[0][:40], "not JSON"),
    "no-utf-8": ('{"id": "Q7", "x": "\udcff"}', "not JSON"),
    "half-pair": ('{"id": "Q7", "labels": {"en": {"language": "en", "value": "\\ud83d"}}}', "not JSON"),
    "nan": ('{"id": "Q7", "claims": NaN}', "not JSON"),
    "brace": ("{", "not JSON"),
    "deep": ('{"id":' * 100_000, "not JSON"),
    "number": ("7", "expected an entity"),
    "no-id": ('{"type": "item"}', "expected an entity with an id"),
    "odd-id": ('{"type": "item", "id": "Q7; DROP"}', "expected the id of an item"),
    "wrong-letter": ('{"type": "property", "id": "Q7"}', "expected the id of an property"),
    "odd-redirect": ('{"entity": "Q7", "redirect": "http://x"}', "expected a redirect"),
    "half-redirect": ('{"redirect": "Q7"}', "has no 'entity'"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line_is_quarantined_and_the_rest_arrives(tmp_path: Path, case: str) -> None:
    line, reason = BAD_LINES[case]
    text = "[\n" + ",\n".join((LINES[0], line, LINES[1])) + "\n]\n"
    (tmp_path / "bad.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    read = Read(tmp_path / "bad.json")
    assert read.described == {"wd:Q1", "wd:Q2"}
    ((file, number, said_reason),) = read.complaints
    assert (file, number) == ("bad.json", 3)
    assert reason in said_reason


BAD_PARTS: dict[str, tuple[dict[str, Any], str]] = {
    "labels": ({"labels": "x"}, "Q1 labels: expected a map, got str"),
    "label": ({"labels": {"de": "x"}}, "Q1 labels de: "),
    "label-value": ({"labels": {"de": said("de", None)}}, "Q1 labels de: expected text, got NoneType"),  # type: ignore[arg-type]
    "aliases": ({"aliases": {"de": 7}}, "Q1 aliases de: "),
    "group": ({"claims": {"P1": {}}}, "Q1 P1: expected a list of statements, got dict"),
    "rank": ({"claims": {"P1": [{"rank": "best"}]}}, "Q1 P1: has no 'best'"),
    "snak": ({"claims": {"P1": [{"rank": "normal"}]}}, "Q1 P1: has no 'mainsnak'"),
    "property": ({"claims": {"name": [claim(text_snak("name", "x"))]}}, "Q1 name: expected the id of a property"),
    "time": ({"claims": {"P1": [claim(time_snak("P1", "yesterday"))]}}, "Q1 P1: expected a time like"),
    "amount": ({"claims": {"P1": [claim(amount_snak("P1", "NaN"))]}}, "Q1 P1: expected a decimal number, got 'NaN'"),
    "place": (
        {"claims": {"P1": [claim(snak("P1", "globecoordinate", {"latitude": "x", "longitude": 1}))]}},
        "Q1 P1: expected numbers",
    ),
    "precision": (
        {"claims": {"P1": [claim(time_snak("P1", "+2001-01-01T00:00:00Z", 10**20))]}},
        "Q1 P1: expected a number of 64 bits, got 1e+20",
    ),
    "far": (
        {"claims": {"P1": [claim(snak("P1", "globecoordinate", {"latitude": 10**400, "longitude": 1}))]}},
        "Q1 P1: ",
    ),
    "marked": ({"claims": {"P1": [claim(snak("P1", "bad", {}))]}}, "Q1 P1: Wikidata itself could not read"),
    "qualifier": (
        {"claims": {"P17": [claim(item_snak("P17", "Q5"), time_snak("P580", "?"))]}},
        "Q1 P17 P580: expected a time",
    ),
}


@pytest.mark.parametrize("case", BAD_PARTS)
def test_a_bad_part_of_an_entity_is_quarantined_and_the_rest_of_it_arrives(tmp_path: Path, case: str) -> None:
    part, reason = BAD_PARTS[case]
    whole = {**entity("Q1"), **part}
    whole["claims"] = {**whole["claims"], "P31": [claim(item_snak("P31", "Q5"))]}
    read = Read(dump(tmp_path, entity("Q3"), whole))
    assert ("wd:Q1", "INSTANCE_OF", "wd:Q5") in read.edges
    ((file, number, said_reason),) = read.complaints
    assert (file, number) == ("dump.json", 3)
    assert said_reason.startswith(reason)


def test_a_line_too_long_for_an_entity_is_never_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.sources.wikidata_json.MAX_LINE", 1 << 16)
    file = dump(tmp_path, LINES[0], '"' + "x" * 200_000 + '"', LINES[1])
    read = Read(file)
    assert read.described == {"wd:Q1", "wd:Q2"}
    assert [line for _, line, _ in read.complaints] == [3]
    monkeypatch.setattr("ingest.sources.wikidata_json.MAX_SKIPPED", 1 << 16)
    with pytest.raises(InputError, match=r"dump.json:3: a line of more than"):
        Read(file)


def test_input_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "a.json.gz").write_bytes(b"no gzip")
    (tmp_path / "a.nt").write_text(TRIPLES)
    (tmp_path / "empty").mkdir()
    for path, complaint in (
        ("absent.json", "no such file"),
        ("a.json.gz", "cannot be read"),
        ("empty", r"holds no .json or .nt file"),
        (".", "RDF beside JSON"),
    ):
        with pytest.raises(InputError, match=complaint):
            Read(tmp_path / path)


def classes(folder: Path) -> Path:
    """Q1 and Q2 are humans, one of them through a subclass; Q3 is a place that refers to Q4."""
    return dump(
        folder,
        entity("Q1", claim(item_snak("P31", "Q5")), claim(item_snak("P17", "Q4"))),
        entity("Q2", claim(item_snak("P31", "Q50"))),
        entity("Q3", claim(item_snak("P31", "Q6")), claim(item_snak("P17", "Q4")), claim(item_snak("P36", "Q1"))),
        entity("Q4"),
        entity("Q500", claim(item_snak("P279", "Q5"))),
        entity("Q50", claim(item_snak("P279", "Q500"))),
        entity("P17", labels={"en": said("en", "country")}),
    )


def test_a_slice_by_class_has_the_items_of_its_subclasses(tmp_path: Path) -> None:
    read = Read(classes(tmp_path), classes=("Q5",))
    assert read.described == {"wd:Q1", "wd:Q2", "wd:Q50", "wd:Q500", "wd:P17"}
    assert read.report.skipped == {"entity outside the slice": 5}
    assert Read(classes(tmp_path), classes=("Q6",)).described == {"wd:Q3", "wd:P17"}


def test_a_slice_by_ids_has_what_they_refer_to(tmp_path: Path) -> None:
    file = classes(tmp_path)
    (tmp_path / "ids.txt").write_text("wd:Q3  # the place\n\nQ500\n")
    ids = (str(tmp_path / "ids.txt"),)
    assert Read(file, ids=ids).described == {"wd:Q1", "wd:Q3", "wd:Q4", "wd:Q500", "wd:P17"}
    assert Read(file, ids=ids, properties=("P36",)).described == {"wd:Q1", "wd:Q3", "wd:Q500", "wd:P17"}
    assert Read(file, ids=ids, classes=("Q6",)).described == {"wd:Q3", "wd:P17"}


def test_a_slice_by_property_keeps_classes(tmp_path: Path) -> None:
    read = Read(classes(tmp_path), properties=("P36",))
    assert {relation for _, relation, _ in read.edges} == {"INSTANCE_OF", "SUBCLASS_OF", "P36"}
    assert read.report.skipped == {"statement of a property that was not asked for": 2}


def test_options_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    file, ids = classes(tmp_path), tmp_path / "ids.txt"
    with pytest.raises(ConfigError, match=r"--classes: expected ids such as Q31, got 'human'"):
        Read(file, classes=("human",))
    with pytest.raises(ConfigError, match=r"--properties: expected ids such as P31, got 'Q5'"):
        Read(file, properties=("Q5",))
    with pytest.raises(InputError, match="cannot be read"):
        Read(file, ids=(str(ids),))
    ids.write_text("Q1\nhuman\n")
    with pytest.raises(InputError, match=r"ids.txt:2: expected an id such as Q42, got 'human'"):
        Read(file, ids=(str(ids),))
    ids.write_text("# nobody\n")
    with pytest.raises(InputError, match="names no id"):
        Read(file, ids=(str(ids),))
    with pytest.raises(ConfigError, match=r"The source table has no option --classes"):
        load_source("table", [file], classes=("Q5",))


def test_a_set_of_ids_is_a_set() -> None:
    first, second = IdSet(), IdSet()
    ids = ["Q1", "Q8", "Q9", "Q130000000", "P31", "Q99999999999999999"]
    assert [first.add(id_) for id_ in [*ids, *ids]] == [True] * 6 + [False] * 6
    assert [second.add(id_) for id_ in ("Q8", "P279")] == [True, True]
    assert list(first.without(second)) == ["Q1", "Q9", "Q130000000", "P31", "Q99999999999999999"]
    assert list(second.without(first)) == ["P279"]


WD, WDT, SCHEMA = "http://www.wikidata.org/entity/", "http://www.wikidata.org/prop/direct/", "http://schema.org/"
TYPE, RDFS = "http://www.w3.org/1999/02/22-rdf-syntax-ns#type", "http://www.w3.org/2000/01/rdf-schema#"
SKOS, XSD = "http://www.w3.org/2004/02/skos/core#", "http://www.w3.org/2001/XMLSchema#"
DATA_OF_Q1 = "<https://www.wikidata.org/wiki/Special:EntityData/Q1>"
TRUTHY = f"""
{DATA_OF_Q1} <{SCHEMA}about> <{WD}Q1> .
{DATA_OF_Q1} <http://wikiba.se/ontology#sitelinks> "2"^^<{XSD}integer> .
<https://en.wikipedia.org/wiki/One> <{SCHEMA}about> <{WD}Q1> .
<https://en.wikipedia.org/wiki/Seven> <{SCHEMA}about> <{WD}Q7> .
<{WD}Q1> <{TYPE}> <http://wikiba.se/ontology#Item> .
<{WD}Q1> <{RDFS}label> "one"@en .
<{WD}Q1> <{SKOS}prefLabel> "one"@en .
<{WD}Q1> <{SCHEMA}name> "one"@en .
<{WD}Q1> <{RDFS}label> "eins"@de .
<{WD}Q1> <{SKOS}altLabel> "uno"@en .
<{WD}Q1> <{SCHEMA}description> "a number"@en .
<{WD}Q1> <{WDT}P31> <{WD}Q5> .
<{WD}Q1> <{WDT}P279> <{WD}Q6> .
<{WD}Q1> <{WDT}P17> <{WD}Q30> .
<{WD}Q1> <{WDT}P5137> <{WD}L7-S1> .
<{WD}Q1> <{WDT}P18> <http://commons.wikimedia.org/wiki/Special:FilePath/A%20b.jpg> .
<{WD}Q1> <{WDT}P856> <https://example.org/> .
<{WD}Q1> <{WDT}P569> "1952-00-00T00:00:00Z"^^<{XSD}dateTime> .
<{WD}Q1> <{WDT}P2046> "+30528"^^<{XSD}decimal> .
<{WD}Q1> <{WDT}P625> "Point(5.25 51)"^^<http://www.opengis.net/ont/geosparql#wktLiteral> .
<{WD}Q1> <{WDT}P626> "<{WD}Q405> Point(1 2)"^^<http://www.opengis.net/ont/geosparql#wktLiteral> .
<{WD}Q1> <{WDT}P1476> "Titel"@de .
<{WD}Q1> <{WDT}P2534> "<math/>"^^<http://www.w3.org/1998/Math/MathML> .
<{WD}Q1> <{WDT}P577> "soon"^^<{XSD}dateTime> .
<{WD}Q1> <{WDT}P249> "A" .
<{WD}Q1> <{WDT}P249> "B" .
<{WD}Q1> <{WDT}P2892> "C0011849" .
<{WD}Q1> <http://www.wikidata.org/prop/direct-normalized/P2892> <https://uts.example/C0011849> .
<{WD}Q1> <{WDT}P570> <http://www.wikidata.org/.well-known/genid/abc> .
<{WD}Q1> <{WDT}P22> _:b .
<{WD}Q1> <{TYPE}> <http://www.wikidata.org/prop/novalue/P40> .
<{WD}Q8> <http://www.w3.org/2002/07/owl#sameAs> <{WD}Q1> .
<{WD}P17> <{TYPE}> <http://wikiba.se/ontology#Property> .
<{WD}P17> <http://wikiba.se/ontology#propertyType> <http://wikiba.se/ontology#WikibaseItem> .
<{WD}L7> <{RDFS}label> "a lexeme"@en .
no triple at all
<{WD}Q9> <{RDFS}label> "nine"@en .
"""


def test_truthy_triples_become_what_the_json_becomes(tmp_path: Path) -> None:
    (tmp_path / "latest-truthy.nt").write_text(TRUTHY.lstrip(), encoding="utf-8")
    read = Read(tmp_path / "latest-truthy.nt")
    item = read.entities["wd:Q1"]
    assert (item.name, [n.text for n in item.names], item.definition) == ("one", ["one", "uno"], "a number")
    assert dict(item.properties) == {
        **{"P5137": "L7-S1", "P18": "A b.jpg", "P856": "https://example.org/", "P2892": "C0011849", "P2046": 30528.0},
        **{"P569": "1952-00-00T00:00:00Z", "P569_year": 1952, "P1476": "Titel", "P1476_language": "de"},
        **{"P625": "Point(5.25 51)", "P625_latitude": 51.0, "P625_longitude": 5.25},
        **{"P626": "wd:Q405 Point(1 2)", "P626_latitude": 2.0, "P626_longitude": 1.0, "P626_globe": "wd:Q405"},
        **{"unknown": ["P22", "P570"], "none": ["P40"], "sitelinks": 2},
    }
    assert item.tail == (
        "P249=A",
        "P249=B",
        "P2534=<math/>^^http://www.w3.org/1998/Math/MathML",
        "P577=soon^^dateTime",
    )
    assert read.edges == {
        ("wd:Q1", "INSTANCE_OF", "wd:Q5"),
        ("wd:Q1", "SUBCLASS_OF", "wd:Q6"),
        ("wd:Q1", "P17", "wd:Q30"),
        ("wd:Q1", "SAME_AS", "umls:C0011849"),
        ("wd:Q8", "REPLACED_BY", "wd:Q1"),
    }
    assert read.entities["wd:P17"].properties == {"relation": "P17", "datatype": "wikibase-item"}
    assert read.entities["wd:Q8"].kinds == ("Deprecated", "Item")
    assert read.described == {"wd:Q1", "wd:Q8", "wd:Q9", "wd:P17"}
    assert read.report.skipped == {
        "about the data set of an entity": 2,
        "about a page of a wiki (their number is kept)": 2,
        "another copy of a label": 2,
        "label in another language": 1,
        "external id once more, as an IRI": 1,
        "about a lexeme, form, sense or schema": 1,
    }
    assert [(file, line) for file, line, _ in read.complaints] == [("latest-truthy.nt", 36)]
    assert read.statements is not None


def dump_lines(folder: Path) -> Iterator[dict[str, Any]]:
    for name in DUMPS:
        with bz2.open(folder / "kg" / "wikidata_json" / name, "rt", encoding="utf-8") as stream:
            for line in stream:
                if len(text := line.strip().removesuffix(",")) > 1:
                    yield json.loads(text)


def truthy(entity_: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, group in entity_["claims"].items():
        ranks = {each["rank"] for each in group}
        best = "preferred" if "preferred" in ranks else "normal"
        yield from ((name, each) for each in group if each["rank"] == best)


def targets(entities: Sequence[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """Item-valued truthy statements, counted without a look at the code that is tested."""
    fixed = {"P31": "INSTANCE_OF", "P279": "SUBCLASS_OF"}
    return {
        (f"wd:{each['id']}", fixed.get(name, name), f"wd:{said_['mainsnak']['datavalue']['value']['id']}")
        for each in entities
        for name, said_ in truthy(each)
        if said_["mainsnak"]["snaktype"] == "value"
        and said_["mainsnak"]["datavalue"]["type"] == "wikibase-entityid"
        and said_["mainsnak"]["datavalue"]["value"]["id"][0] in "QP"
    }


@pytest.fixture(scope="module")
def real(data: Path) -> Read:
    return Read(*(data / "kg" / "wikidata_json" / name for name in DUMPS))


def test_real_items_count_what_plain_json_counts(data: Path, real: Read) -> None:
    everything = list(dump_lines(data))
    first = list({each["id"]: each for each in reversed(everything)}.values())
    assert len(everything) == 735
    assert len(first) == 674
    assert real.described == {f"wd:{each['id']}" for each in first}
    assert real.edges == targets(first)
    assert real.report.num_quarantined == 0
    kept, skipped = real.report.kept, real.report.skipped
    chosen = [said_ for each in first for _, said_ in truthy(each)]
    assert kept["relationship"] + kept["property"] + kept["tail"] + skipped["stated more than once"] == len(chosen)
    assert skipped["reference"] == sum(len(said_.get("references", ())) for said_ in chosen)
    assert kept["qualifier"] == sum(len(s) for said_ in chosen for s in said_.get("qualifiers", {}).values())
    assert skipped["label in another language"] + kept["name"] == sum(len(each["labels"]) for each in first) + sum(
        len(each["aliases"].get("en", ())) for each in first
    )
    assert skipped["title of a page (their number is kept)"] == sum(len(each["sitelinks"]) for each in first)
    for each in first:
        found = real.entities[f"wd:{each['id']}"]
        if "en" in each["labels"]:
            assert found.name == each["labels"]["en"]["value"]
        assert found.properties["sitelinks"] == len(each["sitelinks"])


def test_real_values_are_all_there(data: Path, real: Read) -> None:
    """Every truthy value that is no item is a property or in the tail of its item."""
    counted: Counter[str] = Counter()
    first = {each["id"]: each for each in reversed(list(dump_lines(data)))}
    for each in first.values():
        node = real.entities[f"wd:{each['id']}"]
        for name, said_ in truthy(each):
            main = said_["mainsnak"]
            kind = main["datavalue"]["type"] if main["snaktype"] == "value" else main["snaktype"]
            if kind == "wikibase-entityid":
                continue
            counted[kind] += 1
            if kind in ("somevalue", "novalue"):
                assert name in node.properties[{"somevalue": "unknown", "novalue": "none"}[kind]]  # type: ignore[operator]
                continue
            value = main["datavalue"]["value"]
            text = {
                "string": lambda v: v,
                "time": lambda v: v["time"].lstrip("+"),
                "quantity": lambda v: v["amount"].lstrip("+"),
                "globecoordinate": lambda v: f"Point({float(v['longitude'])!r}".removesuffix(".0"),
                "monolingualtext": lambda v: v["text"],
            }[kind](value)
            own = [f"{name}={node.properties.get(key)}" for key in (name, f"{name}_amount")]
            if kind == "quantity" and isinstance(node.properties.get(name), float):
                own.append(f"{name}={node.properties[name]!r}".removesuffix(".0"))
            assert any(line.startswith(f"{name}={text}") for line in (*own, *node.tail)), (each["id"], name, text)
    assert counted["string"] > 5000
    assert set(counted) == {"string", "time", "quantity", "globecoordinate", "monolingualtext", "somevalue", "novalue"}


def test_real_items_have_their_legal_entity_identifiers(real: Read) -> None:
    """Of the ids that meet other registers, the 674 items have these alone: no CUI, ISIN or ticker."""
    leis = {id_: found.properties["P1278"] for id_, found in real.entities.items() if "P1278" in found.properties}
    assert leis == {
        "wd:Q771": "5493001N1YCXNI1O7K10",
        "wd:Q1204": "54930048FV8RWPR02D67",
        "wd:Q1494": "549300JRWW5RFQUB7P94",
        "wd:Q1522": "549300H4YLM23QKOGK29",
    }


def test_truthy_triples_of_no_property_and_a_second_redirect_are_counted(tmp_path: Path) -> None:
    item, direct, same = (
        "<http://www.wikidata.org/entity/Q1>",
        "http://www.wikidata.org/prop/",
        "http://www.w3.org/2002/07/owl#sameAs",
    )
    lines = [f'{item} <{direct}direct/{name}> "x" .' for name in ("P1", "foo", "Q5", "P")]
    lines += [
        f"{item} <http://www.w3.org/1999/02/22-rdf-syntax-ns#type> <{direct}novalue/{name}> ." for name in ("P2", "foo")
    ]
    lines += [f"{item} <{same}> <http://www.wikidata.org/entity/{id_}> ." for id_ in ("Q2", "Q3")]
    (tmp_path / "odd.nt").write_text("\n".join(lines))
    read = Read(tmp_path / "odd.nt")
    assert read.entities["wd:Q1"].properties == {"P1": "x", "none": ["P2"]}
    assert read.report.skipped == {
        "predicate with what is no id of a property": 3,
        "predicate of Wikibase itself": 1,
        "redirect beside another one": 1,
    }
    assert len(read.edges) == 1


def test_sitelinks_are_what_the_data_set_says_or_the_pages_that_are_listed() -> None:
    links = Sitelinks()
    for id_ in ("Q1", "Q1", "Q2", "Q2", "Q99999999999", "P31"):
        links.count(id_)
    for id_, number in (("Q2", 7), ("Q3", 0), ("Q4", 1 << 20), ("Q99999999998", 5)):
        links.say(id_, number)
    links.count("Q2")
    ids = ("Q1", "Q2", "Q3", "Q4", "Q5", "Q99999999999", "Q99999999998", "P31", "P999")
    assert [links.get(id_) for id_ in ids] == [2, 7, 0, None, None, 1, 5, 1, None]


def test_truthy_triples_of_the_real_items_give_the_same_graph(data: Path, real: Read) -> None:
    """The triples unite the revisions of an item that the dumps hold twice; the dumps give the first."""
    read = Read(data / "kg" / "wikidata_truthy_735.nt.gz")
    everything = list(dump_lines(data))
    assert read.described == real.described
    assert read.edges == real.edges | targets(everything)
    assert len(read.edges - real.edges) == 13
    extra = {end for _, _, end in read.edges - real.edges}
    assert real.entities.keys() <= read.entities.keys() <= real.entities.keys() | extra
    for id_ in real.described:
        mine, theirs = real.entities[id_], read.entities[id_]
        assert (mine.name, mine.names, mine.definition) == (theirs.name, theirs.names, theirs.definition)
        assert mine.properties["sitelinks"] == theirs.properties.get("sitelinks", 0)


def test_the_mock_dumps_of_wikidata_toolkit_are_read_with_their_bugs(data: Path) -> None:
    folder = data / "kg" / "wikidata_json" / MOCKS
    good, bugs = Read(folder / "mock-dump-for-long-testing.json"), Read(folder / "mock-dump-with-bugs.json")
    assert good.complaints == bugs.complaints == []
    assert bugs.described == good.described
    assert len(good.described) == 101
    assert good.edges - bugs.edges == {edge for edge in good.edges if edge[0] == "wd:P53"}
    short = Read(folder / "mock-dump-for-testing.json")
    assert short.report.skipped["entity of type lexeme"] == 1
    packed = data / "kg" / "wikidata_json" / "wdtk/wdtk-examples/src/resources/sample-dump-20150815.json.gz"
    assert (Read(packed).edges, Read(packed).release) == (good.edges, "2015-08-15")


def test_single_real_entities_as_special_entitydata_gives_them(data: Path) -> None:
    folder = data / "kg" / "wikidata_json" / "qwikidata" / "tests" / "data"
    adams = Read(folder / "wd_Q42.json")
    assert adams.described == {"wd:Q42"}
    assert (adams.entities["wd:Q42"].name, adams.entities["wd:Q42"].properties["P569_year"]) == ("Douglas Adams", 1952)
    assert ("wd:Q42", "INSTANCE_OF", "wd:Q5") in adams.edges
    assert Read(folder / "wd_P279.json").entities["wd:P279"].properties["relation"] == "SUBCLASS_OF"
    assert Read(folder / "wd_L3354.json").report.skipped == {"entity of type lexeme": 1}


@pytest.mark.neo4j
def test_a_load_writes_wikidata_once(tmp_path: Path, store: GraphStore) -> None:
    file = dump(
        tmp_path,
        entity(
            "Q1",
            claim(item_snak("P31", "Q5")),
            claim(item_snak("P39", "Q7"), time_snak("P580", "+1990-00-00T00:00:00Z", 9), text_snak("P1", "a")),
            claim({"snaktype": "novalue", "property": "P40"}),
            claim(text_snak("P1278", "529900T8BM49AURSDO55")),
            labels={"en": said("en", "One")},
        ),
        {"entity": "Q8", "redirect": "Q1"},
    )
    report = load_source("wikidata", [file])
    assert (report.source, report.balances) == ("wikidata", True)
    (row,) = store.read("MATCH (n:Entity:Wikidata:Item {id: 'wd:Q1'}) RETURN n {.*} AS n")
    assert (row["n"]["name"], row["n"]["P1278"], row["n"]["none"]) == ("One", "529900T8BM49AURSDO55", ["P40"])
    (row,) = store.read("MATCH (:Item)-[r:P39]->(:Stub {id: 'wd:Q7'}) RETURN r {.q_P580, .q_P1} AS r")
    assert row["r"] == {"q_P580": "1990-00-00T00:00:00Z/9", "q_P1": "a"}
    (row,) = store.read("MATCH (n:Deprecated)-[:REPLACED_BY]->(m) RETURN n.id AS old, m.id AS new")
    assert row == {"old": "wd:Q8", "new": "wd:Q1"}
    before = graph_hash(store)
    again = load_source("wikidata", [file])
    assert not any(again.as_json()["written"].values())
    assert graph_hash(store) == before


@pytest.mark.neo4j
def test_the_command_of_the_readme_loads_the_real_items(data: Path, real: Read, store: GraphStore) -> None:
    folder = data / "kg" / "wikidata_json"
    report = load_source("wikidata", [folder / name for name in DUMPS])
    assert report.written["nodes"] == len(real.entities)
    assert report.written["relationships"] == len(real.triples)
    (nodes,) = store.read("MATCH (n:Wikidata) RETURN count(n) AS n")
    assert nodes["n"] == len(real.entities)
    (edges,) = store.read("MATCH (:Wikidata)-[r]->(:Wikidata) RETURN count(r) AS n")
    assert edges["n"] == len(real.triples)
