"""The linker on names and texts of the real world; skipped where the data folder is absent."""

import json
from pathlib import Path

from kg.linking import Linker
from kg.snapshot import write_snapshot


def test_mesh_names_are_found_in_abstracts(data: Path, tmp_path: Path) -> None:
    """168,170 names; the gold mentions of BC5CDR that have a descriptor among their ids."""
    rows = [
        line.split("\t") for line in (data / "linking/kb/mesh_descriptors/names.tsv").read_text("utf-8").splitlines()
    ]
    preferred = {id: name for id, name, kind, *_ in rows if kind == "P"}
    write_snapshot(
        tmp_path / "v1",
        entities=[{"id": f"mesh:{id}", "name": name, "types": ["Concept"]} for id, name in preferred.items()],
        aliases=[
            {
                "alias": name,
                "entity": f"mesh:{id}",
                "prior": 1.0,
                "kind": "pref" if kind == "P" else "syn",
                "language": "",
            }
            for id, name, kind, *_ in dict.fromkeys(map(tuple, rows))
        ],
        triples=[],
    )
    linker = Linker.load(tmp_path / "v1")
    docs = [json.loads(line) for line in (data / "linking/bc5cdr/docs.jsonl").read_text("utf-8").splitlines()]
    docs = [doc for doc in docs if doc["split"] == "dev"][:200]
    gold = right = 0
    for doc in docs:
        links = linker.link(doc["text"])
        assert all(doc["text"][link.start : link.end] == link.text for link in links)
        linked = {(link.start, link.end): link.id for link in links}
        for mention in doc["mentions"]:
            wanted = {f"mesh:{id}" for id in mention["ids"] if id in preferred}
            gold += bool(wanted)
            right += linked.get((mention["start"], mention["end"])) in wanted
    assert right / gold > 0.6  # .68 when written
