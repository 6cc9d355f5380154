"""Cypher from people: read-only, looked at and planned before it is run, with limits on time, rows and bytes."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from typing import Any

from neo4j.graph import Node, Path, Relationship

from kg.errors import QueryRefused, StoreFailed
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
_UNICODE = re.compile(r"(?<!\\)((?:\\\\)*)\\u+([0-9a-fA-F]{4})")
_TOKEN = re.compile(
    r"""//[^\r\n]*|/\*.*?\*/|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|`(?:``|[^`])*`|\d+|\w+|=~|\S""", re.DOTALL
)
_NAME = re.compile(r"[^\W\d]\w*|`.*`", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of a query, in values that JSON can say."""

    columns: tuple[str, ...]
    rows: list[list[Any]]
    truncated: bool
    """True when there was more than the limit."""


def run_cypher(
    store: GraphStore,
    query: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    limit: int = 100,
    timeout_s: float = 30,
    max_bytes: int | None = None,
    regular_expressions: bool = True,
) -> Table:
    """Run one statement if its text and its plan only read.

    READ access mode alone is not enough: it lets LOAD CSV, SHOW SETTINGS and TERMINATE TRANSACTION through. Nor is the
    plan: it does not show what a subquery within an expression does (``CASE WHEN true THEN COLLECT { … } END``).

    Args:
        store: where it runs.
        query: the statement.
        parameters: values of its ``$names``.
        limit: rows that are read at most.
        timeout_s: after which Neo4j ends it.
        max_bytes: of all rows, as JSON; the row that passes it is left out and ends the reading.
        regular_expressions: whether ``=~`` may be used; Neo4j cannot end one that backtracks, whatever the time limit.

    Raises:
        QueryRefused: it does not parse, would do more than read, or passes the limit of time or memory.
    """
    if not query.strip():
        raise QueryRefused("The query is empty; give a Cypher statement, for example: MATCH (n) RETURN count(n)")
    check_text(query, regular_expressions=regular_expressions)
    given = dict(parameters or {})
    rows: list[list[Any]] = []
    size = 0
    try:
        with store.read_only(timeout_s=timeout_s) as transaction:
            summary = transaction.run(EXPLAIN + query, given).consume()
            if summary.query_type not in (None, "r") or summary.plan is None:
                raise QueryRefused(
                    "Only statements that read the graph are run here; "
                    "this one writes, or is about the server or the schema."
                )
            check_plan(summary.plan)
            result = transaction.run(query, given)
            columns = tuple(result.keys())
            for record in islice(result, limit + 1):
                row = [plain(value) for value in record.values()]
                size += len(json.dumps(row)) if max_bytes is not None else 0
                if len(rows) == limit or (max_bytes is not None and size > max_bytes):
                    return Table(columns=columns, rows=rows, truncated=True)
                rows.append(row)
    except QueryRefused as refusal:
        raise QueryRefused(_without_our_prefix(str(refusal))) from refusal
    except StoreFailed as failure:
        if "Statement.ExecutionFailed" in str(failure):  # what it asks for cannot be done
            raise QueryRefused(str(failure)) from failure
        raise
    except (ValueError, OverflowError, TypeError) as error:  # what the driver says of an integer of 65 bits
        raise QueryRefused(f"A parameter is nothing that Cypher knows: {error}") from error
    except RecursionError as error:
        raise QueryRefused("The answer or a parameter is nested too deeply.") from error
    return Table(columns=columns, rows=rows, truncated=False)


def check_text(query: str, *, regular_expressions: bool = True) -> None:
    """Refuse what a statement that reads must not say, wherever it says it.

    Neo4j reads ``\\u0027`` as a quotation mark before or after it takes the text apart, depending on the version of
    Cypher, so both readings must be harmless.

    Raises:
        QueryRefused: naming it.
    """
    for text in {query, _UNICODE.sub(lambda match: match[1] + chr(int(match[2], 16)), query)}:
        tokens = [token for token in _TOKEN.findall(text) if not token.startswith(("//", "/*"))]
        words = [token.upper() for token in tokens]
        for i, word in enumerate(words):
            if i and words[i - 1] in (".", ":", "$") and not (i > 1 and words[i - 2].isdigit()):
                continue  # a property, label or parameter that is called so
            following = tokens[i + 1] if i + 1 < len(tokens) else ""
            if word == "LOAD" and following.upper() == "CSV":
                raise QueryRefused("LOAD CSV reads files and addresses of the server; it is not run here.")
            if word == "USE" and _NAME.fullmatch(following):
                raise QueryRefused("USE asks another database than the one of this graph; it is not run here.")
            if word == "CALL" and _NAME.fullmatch(following):
                _check_procedure(_dotted(tokens[i + 1 :]))
            if word == "=~" and not regular_expressions:
                raise QueryRefused(
                    "Neo4j cannot end a regular expression (=~) at its time limit; "
                    "use STARTS WITH, CONTAINS, or the full-text index."
                )
        if words[:1] == ["CYPHER"] and "DEBUG" in words[: _options_end(words)]:
            raise QueryRefused("CYPHER debug=… is not for here; leave it out.")


def _dotted(tokens: Sequence[str]) -> str:
    """The name that ``tokens`` begin with: ``db . `labels` ( )`` is ``db.labels``."""
    parts = [tokens[0]]
    for dot, part in zip(tokens[1::2], tokens[2::2], strict=False):
        if dot != "." or not _NAME.fullmatch(part):
            break
        parts.append(part)
    return ".".join(part.strip("`") for part in parts)


def _options_end(words: Sequence[str]) -> int:
    """Where the options after CYPHER end: ``CYPHER 25 runtime = slotted MATCH …``."""
    end = 1
    while words[end : end + 1] and (words[end].isdigit() or words[end + 1 : end + 2] == ["="]):
        end += 1 if words[end].isdigit() else 3
    return end


def _check_procedure(name: str) -> None:
    if name not in ALLOWED_PROCEDURES:
        raise QueryRefused(f"The procedure {name} is not among those that may be called here.")


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
            _check_procedure(name)
        if kind.startswith("Transaction"):
            raise QueryRefused("CALL { … } IN TRANSACTIONS commits by itself; it is not run here.")


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
