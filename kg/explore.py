"""Cypher from people: read-only, planned before it is run, with a limit on time and rows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from neo4j.graph import Node, Path, Relationship

from kg.errors import QueryRefused
from kg.store import GraphStore

ALLOWED_PROCEDURES = frozenset(
    {
        "db.labels",
        "db.relationshipTypes",
        "db.propertyKeys",
        "db.schema.visualization",
        "db.schema.nodeTypeProperties",
        "db.schema.relTypeProperties",
        "db.index.fulltext.queryNodes",
        "db.index.fulltext.queryRelationships",
    }
)
ALLOWED_SHOWS = frozenset({"ShowIndexes", "ShowConstraints", "ShowFunctions", "ShowProcedures"})
"""SHOW commands that tell of the schema; the others show settings, users or other people's queries."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Rows of a query; nodes and relationships as plain dictionaries."""

    columns: tuple[str, ...]
    rows: list[list[Any]]
    truncated: bool
    """True when there was more than the limit."""


def run_cypher(store: GraphStore, query: str, *, limit: int = 100, timeout_s: float = 30) -> Answer:
    """Run one statement if its plan only reads.

    READ access mode alone is not enough: it lets LOAD CSV, SHOW SETTINGS and TERMINATE TRANSACTION through.

    Raises:
        QueryRefused: it does not parse, would do more than read, or passes the time limit.
    """
    if not query.strip():
        raise QueryRefused("The query is empty; give a Cypher statement, for example: MATCH (n) RETURN count(n)")
    with store.read_only(timeout_s=timeout_s) as transaction:
        summary = transaction.run(f"EXPLAIN {query}").consume()
        if summary.query_type not in (None, "r") or summary.plan is None:
            raise QueryRefused("Only statements that read are run here; this one writes or changes the schema.")
        check_plan(summary.plan)
        result = transaction.run(query)
        columns = tuple(result.keys())
        records = list(islice(result, limit + 1))
        rows = [[plain(value) for value in record.values()] for record in records[:limit]]
    return Answer(columns=columns, rows=rows, truncated=len(records) > limit)


def check_plan(plan: Mapping[str, Any]) -> None:
    """Refuse what a read plan must not hold.

    Raises:
        QueryRefused: naming the operator.
    """
    for operator in _operators(plan):
        kind = operator["operatorType"].split("@")[0]
        arguments = operator.get("args", {})
        if kind == "LoadCSV":
            raise QueryRefused("LOAD CSV reads files and addresses of the server; it is not run here.")
        if kind.startswith(("Show", "Terminate")) and kind not in ALLOWED_SHOWS:
            raise QueryRefused(f"{kind} tells of or changes more than the graph; it is not run here.")
        if "ProcedureCall" in kind:
            name = str(arguments.get("Details", "")).split("(")[0].strip().removeprefix("CALL ").strip("`")
            if name not in ALLOWED_PROCEDURES:
                raise QueryRefused(f"The procedure {name} is not among those that may be called here.")


def _operators(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in plan.get("children", []):
        yield from _operators(child)


def plain(value: Any) -> Any:
    """A value of the graph as something that JSON can say."""
    if isinstance(value, Node):
        return {"labels": sorted(value.labels), **{key: plain(item) for key, item in sorted(value.items())}}
    if isinstance(value, Relationship):
        ends = [node.get("id") if node is not None else None for node in value.nodes]
        properties = {key: plain(item) for key, item in sorted(value.items())}
        return {"type": value.type, "head": ends[0], "tail": ends[1], **properties}
    if isinstance(value, Path):
        return {
            "nodes": [plain(node) for node in value.nodes],
            "relationships": [plain(r) for r in value.relationships],
        }
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
