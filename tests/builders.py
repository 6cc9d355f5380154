"""The smallest valid objects for tests; real code paths, no stand-ins."""

from collections.abc import Sequence
from pathlib import Path

from kg.snapshot import Snapshot, write_snapshot

COMPANIES = ("Acme Bank", "Borealis Insurance", "Corvus Fund", "Delta Exchange")


def tiny_snapshot(
    folder: Path,
    *,
    names: Sequence[str] = COMPANIES,
    triples: Sequence[tuple[str, str, str]] = (
        ("ex:0", "OWNS", "ex:1"),
        ("ex:1", "INSURES", "ex:2"),
        ("ex:2", "LISTED_ON", "ex:3"),
        ("ex:0", "LISTED_ON", "ex:3"),
    ),
) -> Snapshot:
    """A snapshot with one entity ``ex:<i>`` per name and one alias each."""
    write_snapshot(
        folder,
        entities=[
            {"id": f"ex:{i}", "name": name, "definition": f"{name} is a company.", "types": ["Individual"]}
            for i, name in enumerate(names)
        ],
        aliases=[
            {"alias": name, "entity": f"ex:{i}", "prior": 1.0, "kind": "pref", "language": "en"}
            for i, name in enumerate(names)
        ],
        triples=list(triples),
        sources=[{"id": "ex", "release": "1"}],
    )
    return Snapshot.load(folder)
