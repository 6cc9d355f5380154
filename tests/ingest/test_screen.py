"""Hostile XML is refused in one line; the entities by which FIBO declares its prefixes are not hostile."""

import gzip
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest

from ingest.screen import MAX_ENTITIES, MAX_VALUE, screen_xml
from kg.errors import InputError
from kg.graph_hash import graph_hash
from kg.store import GraphStore

ROOT = Path(__file__).parent.parent.parent
BODY = """<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:ex="http://e/">
  <rdf:Description rdf:about="http://e/a"><ex:p>{text}</ex:p></rdf:Description>
</rdf:RDF>
"""
BOMB = '<!ENTITY a "aaaaaaaaaa"> ' + " ".join(
    f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def document(doctype: str, text: str = "x") -> str:
    return '<?xml version="1.0"?>\n' + doctype + "\n" + BODY.format(text=text)


HOSTILE = {
    "external entity": document('<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]>', "&a;"),
    "external entity over the network": document('<!DOCTYPE r [<!ENTITY a PUBLIC "-//x" "http://127.0.0.1:9/">]>'),
    "external document type": document('<!DOCTYPE r SYSTEM "http://127.0.0.1:9/evil.dtd">'),
    "public document type": document('<!DOCTYPE r PUBLIC "-//x//y" "http://127.0.0.1:9/evil.dtd">'),
    "billion laughs": document(f"<!DOCTYPE r [{BOMB}]>", "&i;"),
    "billion laughs that are never used": document(f"<!DOCTYPE r [{BOMB}]>"),
    "nested by character reference": document('<!DOCTYPE r [<!ENTITY a "x"><!ENTITY b "&#38;a;&#38;a;">]>', "&b;"),
    "an entity that holds itself": document('<!DOCTYPE r [<!ENTITY a "&a;">]>', "&a;"),
    "quadratic blow-up": document(f'<!DOCTYPE r [<!ENTITY a "{"x" * MAX_VALUE}">]>', "&a;" * 10_000),
    "a long entity": document(f'<!DOCTYPE r [<!ENTITY a "{"x" * (MAX_VALUE + 1)}">]>', "&a;"),
    "blow-up across pieces": document('<!DOCTYPE r [<!ENTITY a "%s">]>' % ("x" * MAX_VALUE), "&a;" * 500_000),
    "a foreign name": document('<!DOCTYPE r [<!ENTITY é "x">]>', "&é;"),
    "too many entities": document(
        "<!DOCTYPE r [" + "".join(f'<!ENTITY a{i} "x">' for i in range(MAX_ENTITIES + 1)) + "]>"
    ),
    "parameter entity": document('<!DOCTYPE r [<!ENTITY % a "x"> ]>'),
    "external parameter entity": document('<!DOCTYPE r [<!ENTITY % a SYSTEM "http://127.0.0.1:9/"> %a; ]>'),
    "document type in small letters": document(f"<!doctype r [{BOMB}]>", "&i;"),
    "declarations in a comment": document(f"<!DOCTYPE r [<!-- {BOMB} -->]>"),
    "declarations in a value": document("<!DOCTYPE r [<!ENTITY x '<!ENTITY y \"z\">'>]>"),
    "a second declaration": document('<!DOCTYPE r [<!ENTITY a ""><!ENTITY a "xxx">]>', "&a;"),
    "document type within the element": document('<!DOCTYPE r [<!ENTITY z "z">]>').replace(
        "</rdf:RDF>", f"<!DOCTYPE r [{BOMB}]></rdf:RDF>"
    ),
    "no document type before the one within": BODY.format(text="x").replace(
        "</rdf:RDF>", f"<!DOCTYPE r [{BOMB}]></rdf:RDF>"
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_xml_is_refused_in_one_line_that_names_the_file(name: str) -> None:
    with pytest.raises(InputError) as refused:
        screen_xml(Path("evil.rdf"), BytesIO(HOSTILE[name].encode()))
    assert str(refused.value).startswith("evil.rdf")
    assert len(str(refused.value)) < 300
    assert "\n" not in str(refused.value)


def test_small_flat_internal_entities_pass() -> None:
    for text in (
        document('<!DOCTYPE r [<!ENTITY ex "http://e/">]>', "&ex;b &amp; &#233;"),
        BODY.format(text="no document type"),
        document('<!DOCTYPE r [<!ENTITY ex "http://e/">]>', "&ex; <!-- x -->" * 200_000),
    ):
        screen_xml(Path("good.rdf"), BytesIO(text.encode()))
    entities = "".join(f'<!ENTITY a{i} "x">' for i in range(MAX_ENTITIES))
    screen_xml(Path("good.rdf"), BytesIO(document(f"<!DOCTYPE r [{entities}]>").encode()))


def test_every_file_of_fibo_and_the_commons_passes(data: Path) -> None:
    files = [file for name in ("fibo_2026-07", "omg_commons_lcc") for file in (data / "kg" / name).rglob("*.rdf")]
    declaring = 0
    for file in files:
        content = file.read_bytes()
        screen_xml(file, BytesIO(content))
        declaring += b"<!ENTITY" in content
    assert len(files) > 300
    assert declaring > 300


@pytest.mark.neo4j
@pytest.mark.parametrize(
    "name", ["external entity", "billion laughs", "external document type", "document type within the element"]
)
def test_nothing_of_a_load_with_a_hostile_file_is_written(
    name: str, store: GraphStore, cli_env: dict[str, str], tmp_path: Path
) -> None:
    store.write("CREATE (:Entity {id: 'ex:before', iri: 'urn:before'})")
    before = graph_hash(store)
    (tmp_path / "a_good.rdf").write_text(BODY.format(text="good"))
    (tmp_path / "evil.rdf.gz").write_bytes(gzip.compress(HOSTILE[name].encode()))
    command = [sys.executable, "-m", "ingest", "load", "rdf", str(tmp_path), "--source-id", "evil"]
    done = subprocess.run(command, cwd=ROOT, env=cli_env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "evil.rdf.gz" in done.stderr
    assert graph_hash(store) == before
    assert not (Path(cli_env["KGFUSE_HOME"]) / "canonical" / "evil").exists()
