"""What a file imports is found through catalogs, within their folders, on disk, and nowhere else."""

import shutil
from pathlib import Path

import pytest

from ingest.rdf import find_files
from ingest.report import Report
from ingest.sources import fibo
from ingest.sources.catalogs import closure
from kg.errors import InputError

ONTOLOGY = """<?xml version="1.0"?>
<!DOCTYPE rdf:RDF [<!ENTITY x "http://x/"> <!ENTITY owl "http://www.w3.org/2002/07/owl#">]>
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:owl="http://www.w3.org/2002/07/owl#">
  <owl:Ontology rdf:about="http://x/{name}/">{imports}</owl:Ontology>
  <owl:Class rdf:about="http://x/{name}/Thing"/>
</rdf:RDF>
"""


def ontology(folder: Path, name: str, *imports: str) -> Path:
    """A file that imports others; their IRIs are written with an entity."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.rdf"
    said = "".join(f'<owl:imports rdf:resource="&x;{other}/"/>' for other in imports)
    file.write_text(ONTOLOGY.format(name=name, imports=said))
    return file


def catalog(folder: Path, **entries: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    uris = "".join(f'<uri id="i" name="http://x/{name}/" uri="{uri}"/>' for name, uri in entries.items())
    (folder / "catalog-v001.xml").write_text(
        f'<?xml version="1.0"?>\n<catalog xmlns="urn:oasis:names:tc:entity:xmlns:xml:catalog">{uris}</catalog>'
    )


def names(*paths: Path) -> list[str]:
    return sorted(file.name for file in closure(paths, find_files(paths)).files)


def test_all_that_is_imported_is_found_through_the_catalog_above(tmp_path: Path) -> None:
    a = ontology(tmp_path / "deep" / "er", "a", "b", "elsewhere")
    ontology(tmp_path / "other", "b", "c", "a")
    ontology(tmp_path, "c d")
    ontology(tmp_path, "unwanted")
    catalog(tmp_path, a="deep/er/a.rdf", b="./other/b.rdf", c="c%20d.rdf", unwanted="unwanted.rdf")
    assert names(a) == ["a.rdf", "b.rdf", "c d.rdf"]


def test_a_catalog_in_a_folder_leads_to_what_find_files_passes_over(tmp_path: Path) -> None:
    ontology(tmp_path / "one", "a", "b")
    ontology(tmp_path / "two", "b")
    catalog(tmp_path, a="one/a.rdf", b="two/b.rdf")
    assert names(tmp_path / "one") == ["a.rdf"]  # the catalog is above the folder that is given
    assert names(tmp_path) == ["a.rdf", "b.rdf"]
    assert names(tmp_path / "one" / "a.rdf") == ["a.rdf", "b.rdf"]


@pytest.mark.parametrize(
    "uri",
    [
        "../outside/b.rdf",
        "x/../../outside/b.rdf",
        "%2e%2e/outside/b.rdf",
        "../../../../../../../../etc/passwd",
        "/etc/passwd",
        "{outside}/b.rdf",
        "file://{outside}/b.rdf",
        "http://127.0.0.1:9/b.rdf",
        "//127.0.0.1/b.rdf",
        "link.rdf",
        "linked/b.rdf",
        "missing.rdf",
        "folder.rdf",
        "notes.txt",
        "//[x",
        "a%00b.rdf",
        "long" * 1250 + ".rdf",
        "loop.rdf",
    ],
)
def test_an_entry_that_leads_out_of_the_folder_is_reported_and_not_read(uri: str, tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    ontology(outside, "b")
    a = ontology(inside, "a", "b")
    (inside / "link.rdf").symlink_to(outside / "b.rdf")
    (inside / "linked").symlink_to(outside)
    (inside / "loop.rdf").symlink_to(inside / "loop.rdf")
    (inside / "folder.rdf").mkdir()
    (inside / "notes.txt").write_text("notes")
    catalog(inside, a="a.rdf", b=uri.format(outside=outside))
    report = Report("fibo")
    reading = fibo.read([a], "fibo", report, "fibo")
    assert reading.statements is not None
    assert [part["file"].unique().to_pylist() for part in reading.statements.parts()] == [[str(a)]]
    unresolved, refused = report.notes
    assert unresolved == "1 imported ontologies are not on disk: http://x/b/"
    assert refused.startswith(f"not read: {inside / 'catalog-v001.xml'} names ")


def test_a_hostile_catalog_or_imported_file_is_refused(tmp_path: Path) -> None:
    a, b = ontology(tmp_path, "a", "b"), ontology(tmp_path / "b", "b")
    catalog(tmp_path, a="a.rdf", b="b/b.rdf")
    hostile = '<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><r>&x;</r>'
    b.write_text(hostile)
    with pytest.raises(InputError, match="b.rdf: declares the external entity") as refused:
        fibo.read([a], "fibo", Report("fibo"), "fibo")
    assert refused.value.path == b
    (tmp_path / "catalog-v001.xml").write_text(hostile)
    with pytest.raises(InputError, match="catalog-v001.xml: declares the external entity"):
        fibo.read([a], "fibo", Report("fibo"), "fibo")


def test_the_production_release_of_fibo_is_the_closure_of_one_file(data: Path, tmp_path: Path) -> None:
    release, report = data / "kg" / "fibo_2026-07", Report("fibo")
    paths = [release / "AboutFIBOProd.rdf", data / "kg" / "omg_commons_lcc"]
    found = closure(paths, [file for file in find_files(paths) if file.suffix == ".rdf"])
    of_fibo = {file.relative_to(release) for file in found.files if file.is_relative_to(release)}
    everything = {file.relative_to(release) for file in release.rglob("*.rdf")}
    assert 150 < len(of_fibo) < len(everything)
    assert {
        Path("AboutFIBOProd.rdf"),
        Path("FND/Relations/Relations.rdf"),
        Path("BE/LegalEntities/LegalPersons.rdf"),
    } <= of_fibo
    fibo.read(paths, "fibo", report, "fibo")
    (missing,) = [note.split(": ", 1)[1].split(", ") for note in report.notes if "not on disk: " in note]
    individuals = "https://spec.edmcouncil.org/fibo/ontology/FBC/FunctionalEntities/MarketsIndividuals/"
    assert [iri for iri in missing if "/fibo/" in iri] == [individuals]  # too large for the copy at hand
    assert [note.split(" names ")[1] for note in report.notes if note.startswith("not read")] == [
        "./FBC/FunctionalEntities/MarketsIndividuals.rdf, which is no .rdf file on disk"
    ]
    # No network, no other folder: the same files elsewhere give the same closure.
    shutil.copytree(release, tmp_path / "fibo")
    alone = closure([tmp_path / "fibo" / "AboutFIBOProd.rdf"], [tmp_path / "fibo" / "AboutFIBOProd.rdf"])
    assert {file.relative_to(tmp_path / "fibo") for file in alone.files} == of_fibo
