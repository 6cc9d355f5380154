"""Cypher from people: read-only, planned before it is run, with a limit on time and rows."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from typing import Any

from neo4j.graph import Node, Path, Relationship

from kg.errors import QueryRefused
from kg.store import GraphStore

EXPLAIN = "EXPLAIN "
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
class Table:
    """Rows of a query, in values that JSON can say."""

    columns: tuple[str, ...]
    rows: list[list[Any]]
    truncated: bool
    """True when there was more than the limit."""


def run_cypher(store: GraphStore, query: str, *, limit: int = 100, timeout_s: float = 30) -> Table:
    """Run one statement if its plan only reads.

    READ access mode alone is not enough: it lets LOAD CSV, SHOW SETTINGS and TERMINATE TRANSACTION through.

    Raises:
        QueryRefused: it does not parse, would do more than read, or passes the limit of time or memory.
    """
    if not query.strip():
        raise QueryRefused("The query is empty; give a Cypher statement, for example: MATCH (n) RETURN count(n)")
    try:
        with store.read_only(timeout_s=timeout_s) as transaction:
            summary = transaction.run(EXPLAIN + query).consume()
            if summary.query_type not in (None, "r") or summary.plan is None:
                raise QueryRefused(
                    "Only statements that read the graph are run here; "
                    "this one writes, or is about the server or the schema."
                )
            check_plan(summary.plan)
            result = transaction.run(query)
            columns = tuple(result.keys())
            records = list(islice(result, limit + 1))
    except QueryRefused as refusal:
        raise QueryRefused(_without_our_prefix(str(refusal))) from refusal
    rows = [[plain(value) for value in record.values()] for record in records[:limit]]
    return Table(columns=columns, rows=rows, truncated=len(records) > limit)


def _without_our_prefix(message: str) -> str:
    """Neo4j's message about a syntax error with the column of the query as it was given."""
    shift = len(EXPLAIN)
    return re.sub(
        r"line 1, column (\d+) \(offset: \d+\)", lambda m: f"line 1, column {max(int(m[1]) - shift, 1)}", message
    )


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
    """A value of the graph as JSON can say it: nodes and relationships as dictionaries, dates as text."""
    if isinstance(value, Node):
        return {"labels": sorted(value.labels), "properties": _properties(value)}
    if isinstance(value, Relationship):
        head, tail = (node.get("id") if node is not None else None for node in value.nodes)
        return {"type": value.type, "head": head, "tail": tail, "properties": _properties(value)}
    if isinstance(value, Path):
        return {"nodes": [plain(n) for n in value.nodes], "relationships": [plain(r) for r in value.relationships]}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, float) and not isfinite(value):
        return str(value)  # JSON has no NaN
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def brief(value: Any) -> str:
    """A value of ``Table.rows`` as one cell of a table on a terminal."""
    match value:
        case str():
            return value
        case {"labels": [*labels], "properties": dict(properties)}:
            shown = {key: properties[key] for key in ("id", "name") if key in properties} or properties
            return f"(:{':'.join(labels)} {json.dumps(shown, ensure_ascii=False)})"
        case {"type": kind, "head": head, "tail": tail, "properties": _}:
            return f"({head})-[:{kind}]->({tail})"
        case {"nodes": [*_], "relationships": [*relationships]}:
            return " ".join(brief(relationship) for relationship in relationships)
        case [*items] if any(isinstance(item, dict) for item in items):
            return "[" + ", ".join(brief(item) for item in items) + "]"
    return json.dumps(value, ensure_ascii=False)


def _properties(item: Node | Relationship) -> dict[str, Any]:
    return {key: plain(value) for key, value in sorted(item.items())}
