"""Node labels, constraints and indexes of the graph, and the one way to put a name into Cypher text."""

import re
from typing import TYPE_CHECKING

from kg.errors import StoreFailed

if TYPE_CHECKING:
    from kg.store import GraphStore

KINDS = frozenset(
    {
        "Class",
        "Individual",
        "ObjectProperty",
        "DatatypeProperty",
        "AnnotationProperty",
        "Datatype",
        "Ontology",
        "Concept",
        "SemanticType",
        "Item",
        "Property",
        "Axiom",
        "Stub",
        "Deprecated",
        "Tombstone",
    }
)
"""What an entity can be; classes of a source are relationships (``INSTANCE_OF``), not node labels."""

STATEMENTS = (
    "CREATE CONSTRAINT entity_id IF NOT EXISTS FOR (e:Entity) REQUIRE e.id IS UNIQUE",
    "CREATE CONSTRAINT entity_iri IF NOT EXISTS FOR (e:Entity) REQUIRE e.iri IS UNIQUE",
    "CREATE CONSTRAINT source_id IF NOT EXISTS FOR (s:Source) REQUIRE s.id IS UNIQUE",
    "CREATE CONSTRAINT format_id IF NOT EXISTS FOR (f:Format) REQUIRE f.id IS UNIQUE",
    "CREATE FULLTEXT INDEX entity_names IF NOT EXISTS FOR (e:Entity) ON EACH [e.names]",
)


FORMAT = 1
"""Of the graph model; recorded in the one ``:Format`` node, which whoever imports holds a lock on."""
READ_FORMAT = "MATCH (f:Format) RETURN f.version AS version"
WRITE_FORMAT = "MERGE (f:Format {id: 'kgfuse'}) SET f.version = $version"


def ensure_schema(store: "GraphStore") -> None:
    """Create what is missing and wait until the indexes are there.

    Raises:
        StoreFailed: the graph was written by a version with another graph model.
    """
    for statement in STATEMENTS:
        store.write(statement, timeout_s=3600)  # a constraint goes through all that is there
    store.read("CALL db.awaitIndexes(3600)", timeout_s=3600)
    found = [row["version"] for row in store.read(READ_FORMAT)]
    if not found:
        store.write(WRITE_FORMAT, version=FORMAT)
    elif found != [FORMAT]:
        raise StoreFailed(
            f"The graph has format {found[0]}; this version writes {FORMAT}. Empty it and load its sources again."
        )


def source_label(source: str) -> str:
    """Node label of a source: ``fibo`` → ``Fibo``, ``my-graph`` → ``MyGraph``."""
    return "".join(part.capitalize() for part in re.split(r"[^0-9A-Za-z]+", source) if part)


def quote_name(name: str) -> str:
    """A label, relationship type or property key for Cypher text, in backticks.

    Names cannot be parameters everywhere; whatever has to stand in the text goes through here.

    Raises:
        ValueError: the name is empty, too long, or has a control character.
    """
    if not name or len(name) > 500 or any(ord(character) < 32 for character in name):
        raise ValueError(f"not a usable name in the graph: {name[:60]!r}")
    # Cypher reads \u0060 as a backtick even between backticks, so a backslash must not be taken for an escape.
    return "`" + name.replace("\\", "\\u005C").replace("`", "``") + "`"
