"""The spaCy component: the links of the linker on a Doc, in one process or several, saved and loaded."""

import json
import os
import pickle
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.language import Language
from spacy.tokens import Doc, Span

from kg.errors import ConfigError, InputError, SnapshotMismatch
from kg.linking import Linker
from kg.linking.spacy_pipe import KGLinker
from kg.snapshot import Snapshot, write_snapshot
from tests.builders import tiny_snapshot

ROOT = Path(__file__).parent.parent.parent
NAMES = ("Acme Bank", "Corvus Fund", "Acme", "東京", "Café Crème", "Mercury", "Mercury")
TEXT = "The Acme Bank's 😀 fund, Corvus Fund, is in Cafe\u0301 Cre\u0300me; Mercury rose."


def ambiguous(folder: Path) -> Snapshot:
    """Entities ``ex:<i>`` by the names above; nothing decides between the two Mercuries."""
    ids = [f"ex:{i}" for i in range(len(NAMES))]
    aliases = [
        {"alias": name, "entity": id, "prior": 0.2 if name == "Mercury" else 1.0, "kind": "pref", "language": "en"}
        for id, name in zip(ids, NAMES, strict=True)
    ]
    entities = [{"id": id, "name": name, "types": ["Class"]} for id, name in zip(ids, NAMES, strict=True)]
    return Snapshot.load(write_snapshot(folder, entities=entities, aliases=aliases, triples=[]))


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return ambiguous(tmp_path_factory.mktemp("kg") / "v1")


@pytest.fixture(scope="module")
def nlp(snapshot: Snapshot) -> Language:
    return pipeline(snapshot)


def pipeline(snapshot: Snapshot, *, patterns: Any = (), **config: Any) -> Language:
    nlp = spacy.blank("en")
    if patterns:
        nlp.add_pipe("entity_ruler").add_patterns(list(patterns))  # type: ignore[attr-defined]
    nlp.add_pipe("kg_linker", config={"snapshot": str(snapshot.path), "threshold": 0.6, **config})
    return nlp


def shown(spans: Any) -> list[tuple[str, str, str]]:
    return [(span.text, span.label_, span.kb_id_) for span in spans]


def test_a_doc_has_the_links_of_the_linker(snapshot: Snapshot) -> None:
    doc = pipeline(snapshot, max_candidates=1)(TEXT)
    links = Linker.load(snapshot, threshold=0.6, max_candidates=1).link(TEXT)
    assert [span._.kg_link for span in doc.spans["kg"]] == [link.as_json() for link in links]
    assert shown(doc.spans["kg"]) == [
        ("Acme Bank", "ENTITY", "ex:0"),
        ("Corvus Fund", "ENTITY", "ex:1"),
        ("Cafe\u0301 Cre\u0300me", "ENTITY", "ex:4"),
        ("Mercury", "ENTITY", "NIL"),
    ]
    assert shown(doc.ents) == shown(doc.spans["kg"])[:3]
    assert [token.ent_kb_id_ for token in doc if token.text == "Corvus"] == ["ex:1"]
    assert doc.ents[0]._.kg == [{"id": "ex:0", "name": "Acme Bank", "score": 1.0}]
    assert doc[0:1]._.kg == []


PATTERNS = (
    {"label": "ORG", "pattern": "Acme Bank"},
    {"label": "PLACE", "pattern": "yesterday"},
    {"label": "NAME", "pattern": "Corvus"},
    {"label": "ORG", "pattern": "Acme"},
)
NEWS = "Acme Bank sold Acme and the Corvus Fund yesterday."


@pytest.mark.parametrize(
    ("config", "spans", "ents"),
    [
        (
            {},
            ["Acme Bank ex:0", "Acme ex:2", "Corvus Fund ex:1"],
            ["Acme Bank ORG ex:0", "Acme ORG ex:2", "Corvus NAME ", "yesterday PLACE "],
        ),
        (
            {"overwrite_ents": True, "label": "KG"},
            ["Acme Bank ex:0", "Acme ex:2", "Corvus Fund ex:1"],
            ["Acme Bank ORG ex:0", "Acme ORG ex:2", "Corvus Fund KG ex:1", "yesterday PLACE "],
        ),
        (
            {"detect": "ents"},
            ["Acme Bank ex:0", "Acme ex:2", "Corvus NIL", "yesterday NIL"],
            ["Acme Bank ORG ex:0", "Acme ORG ex:2", "Corvus NAME NIL", "yesterday PLACE NIL"],
        ),
        (
            {"detect": "both"},
            ["Acme Bank ex:0", "Acme ex:2", "Corvus Fund ex:1", "yesterday NIL"],
            ["Acme Bank ORG ex:0", "Acme ORG ex:2", "Corvus NAME ", "yesterday PLACE NIL"],
        ),
    ],
    ids=["dictionary", "overwrite", "ents", "both"],
)
def test_entities_of_earlier_components_are_kept_linked_or_replaced(
    snapshot: Snapshot, config: dict[str, Any], spans: list[str], ents: list[str]
) -> None:
    doc = pipeline(snapshot, patterns=PATTERNS, **config)(NEWS)
    assert [f"{span.text} {span.kb_id_}" for span in doc.spans["kg"]] == spans
    assert [f"{ent.text} {ent.label_} {ent.kb_id_}" for ent in doc.ents] == ents
    assert {span.label_ for span in doc.spans["kg"] if span.text == "Acme Bank"} == {"ORG"}


def test_an_id_that_an_entity_has_gives_way_only_when_told(snapshot: Snapshot) -> None:
    for overwrite, expected in ((False, "wd:Q1"), (True, "ex:0")):
        nlp = pipeline(snapshot, overwrite_ents=overwrite)
        doc = nlp.make_doc("Acme Bank")
        doc.ents = [Span(doc, 0, 2, "ORG", kb_id="wd:Q1", span_id="rule")]
        (ent,) = nlp(doc).ents
        assert (ent.kb_id_, ent.ent_id_) == (expected, "rule")


@pytest.mark.parametrize(
    ("text", "mention", "expanded", "contracted"),
    [
        ("the Acme Bank_2 rose", "Acme Bank", ["Acme Bank_2"], ["Acme"]),
        ("今日は東京に", "東京", ["今日は東京に"], []),
        ("東京東京", "東京", ["東京東京"], []),
        ("👩\u200d🚀Acme Bank", "Acme Bank", None, None),
        ("\u0301Corvus Fund", "Corvus Fund", ["\u0301Corvus Fund"], ["Fund"]),
        ("Corvus Fund\u0301\u0302 rose", "Corvus Fund\u0301\u0302", None, None),
        ("Corvus Fund\u0301\u0302.", "Corvus Fund\u0301\u0302", ["Corvus Fund\u0301\u0302."], ["Corvus"]),
        ("x\r\nAcme\r\nBank\r\n", "Acme\r\nBank", None, None),
    ],
)
def test_mentions_within_tokens_are_aligned_as_told_and_keep_their_offsets(
    snapshot: Snapshot, text: str, mention: str, expanded: list[str] | None, contracted: list[str] | None
) -> None:
    """None where tokens and mention agree, so that it is the same whatever was told."""
    expected = {
        "expand": [mention] if expanded is None else expanded,
        "contract": [mention] if contracted is None else contracted,
        "strict": [mention] if contracted is None else [],
    }
    for mode, spans in expected.items():
        doc = pipeline(snapshot, alignment_mode=mode)(text)
        assert [span.text for span in doc.spans["kg"]] == spans, mode
        for span in doc.spans["kg"]:
            link = span._.kg_link
            assert text[link["start"] : link["end"]] == link["text"] == mention


texts = st.lists(
    st.sampled_from([*NAMES, "_", " ", "\r\n", "\u0301", "😀", "👩\u200d🚀", "\u200f", "'s", "-"])
    | st.text(max_size=4),
    max_size=10,
).map("".join)


@settings(max_examples=200, deadline=None)
@given(text=texts)
def test_spans_of_any_text_cover_their_mentions_and_share_no_token(nlp: Language, text: str) -> None:
    linker = nlp.get_pipe("kg_linker")
    assert isinstance(linker, KGLinker)
    doc, links = nlp(text), [link.as_json() for link in linker.linker.link(text)]
    position = 0
    for span in doc.spans["kg"]:
        link = span._.kg_link
        assert link in links
        assert span.start_char <= link["start"] < link["end"] <= span.end_char
        assert position <= span.start
        position = span.end
    tokens = {token.i for span in doc.spans["kg"] for token in span}
    for link in links:
        whole = doc.char_span(link["start"], link["end"], alignment_mode="expand")
        assert tokens & {token.i for token in whole}, "lost, though nothing else has its tokens"
    assert shown(doc.ents) == [row for row in shown(doc.spans["kg"]) if row[2] != "NIL"]


SEVERAL = """
import multiprocessing, sys
import spacy

def main():
    multiprocessing.set_start_method(sys.argv[1])
    nlp = spacy.blank("en")
    nlp.add_pipe("kg_linker", config={"snapshot": sys.argv[2]})
    texts = [f"{i} Acme Bank, 東京 and Mercury" for i in range(50)]
    alone = list(nlp.pipe(texts))
    together = list(nlp.pipe(texts, n_process=2, batch_size=5))
    for one, other in zip(alone, together, strict=True):
        assert one.to_bytes() == other.to_bytes()
        assert [s._.kg_link for s in one.spans["kg"]] == [s._.kg_link for s in other.spans["kg"]]
        assert [(e.text, e.kb_id_, e._.kg) for e in one.ents] == [(e.text, e.kb_id_, e._.kg) for e in other.ents]
    print(len(together), *(f"{e.text}={e.kb_id_}" for e in together[-1].ents))

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """Environment in which the project's own entry points are those of an installed package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    folder = tmp_path / "site" / "kgfuse-0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: kgfuse\nVersion: 0\n")
    groups = project["entry-points"]
    (folder / "entry_points.txt").write_text(
        "\n".join(f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in names.items()) for group, names in groups.items())
    )
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder.parent), str(ROOT), *sys.path])}


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_several_processes_find_the_component_and_give_the_same_docs(
    snapshot: Snapshot, tmp_path: Path, installed: dict[str, str], method: str
) -> None:
    """Nothing of ours is imported there: spaCy knows the component by its entry point."""
    script = tmp_path / "several.py"
    script.write_text(SEVERAL)
    command = [sys.executable, str(script), method, str(snapshot.path)]
    done = subprocess.run(command, env=installed, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "50 Acme Bank=ex:0 東京=ex:3 Mercury=ex:5\n"


def test_without_the_component_nothing_imports_spacy() -> None:
    code = "import sys, kg.linking, kg.linking.files; sys.exit('spacy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def result(doc: Doc) -> list[Any]:
    return [shown(doc.spans["kg"]), shown(doc.ents), [span._.kg_link for span in doc.spans["kg"]]]


def test_a_pipeline_is_saved_with_a_pointer_and_loaded_again(snapshot: Snapshot, tmp_path: Path) -> None:
    config = {"patterns": PATTERNS, "detect": "both", "overwrite_ents": True, "label": "KG"}
    nlp = pipeline(snapshot, **config)
    nlp.to_disk(tmp_path / "nlp")
    assert json.loads((tmp_path / "nlp" / "kg_linker").read_text()) == {
        "snapshot": str(snapshot.path),
        "hash": snapshot.hash,
    }
    moved = ambiguous(tmp_path / "elsewhere").path
    for again in (
        spacy.load(tmp_path / "nlp"),
        spacy.load(tmp_path / "nlp", config={"components.kg_linker.snapshot": str(moved)}),
    ):
        assert result(again(NEWS)) == result(nlp(NEWS))


def test_bytes_and_pickles_point_to_the_snapshot_too(snapshot: Snapshot) -> None:
    nlp = pipeline(snapshot, max_candidates=1, label="KG")
    assert result(pipeline(snapshot, max_candidates=1, label="KG").from_bytes(nlp.to_bytes())(TEXT)) == result(
        nlp(TEXT)
    )
    assert len(pickle.dumps(nlp.get_pipe("kg_linker"))) < 1000
    assert result(pickle.loads(pickle.dumps(nlp))(TEXT)) == result(nlp(TEXT))


def test_another_snapshot_at_that_place_is_refused_with_both_hashes(tmp_path: Path) -> None:
    first = ambiguous(tmp_path / "v1")
    nlp = pipeline(first)
    nlp.to_disk(tmp_path / "nlp")
    saved, pickled = nlp.to_bytes(), pickle.dumps(nlp)
    second = tiny_snapshot(tmp_path / "v1")
    for load in (
        lambda: spacy.load(tmp_path / "nlp"),
        lambda: pipeline(second).from_bytes(saved),
        lambda: pickle.loads(pickled),
    ):
        with pytest.raises(SnapshotMismatch) as error:
            load()
        assert first.hash in str(error.value)
        assert second.hash in str(error.value)


def test_wrong_settings_are_said(snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="not a snapshot"):
        spacy.blank("en").add_pipe("kg_linker", config={"snapshot": str(tmp_path)})
    with pytest.raises(ConfigError, match="threshold is 2"):
        pipeline(snapshot, threshold=2.0)
    with pytest.raises(ValueError, match="detect"):
        pipeline(snapshot, detect="all")
    monkeypatch.setenv("KGFUSE_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="python -m kg snapshot"):
        spacy.blank("en").add_pipe("kg_linker")
    latest = tiny_snapshot(tmp_path / "snapshots/v1")
    component = spacy.blank("en").add_pipe("kg_linker")
    assert isinstance(component, KGLinker)
    assert component.linker.snapshot.hash == latest.hash


def test_docs_keep_their_links_when_they_are_saved(snapshot: Snapshot) -> None:
    doc = pipeline(snapshot)(TEXT)
    again = Doc(spacy.blank("en").vocab).from_bytes(doc.to_bytes())
    assert [ent._.kg for ent in again.ents] == [ent._.kg for ent in doc.ents]
    assert shown(again.spans["kg"]) == shown(doc.spans["kg"])
