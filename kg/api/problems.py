"""Failures as problem details (RFC 9457): a status and one sentence, never a stack."""

import json
import logging
import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from kg.errors import (
    ConfigError,
    InputError,
    KGError,
    QueryRefused,
    SnapshotMismatch,
    StoreFailed,
    StoreUnavailable,
    UserError,
)

log = logging.getLogger(__name__)

STATUS: Mapping[type[KGError], HTTPStatus] = {
    KGError: HTTPStatus.INTERNAL_SERVER_ERROR,
    UserError: HTTPStatus.BAD_REQUEST,
    InputError: HTTPStatus.INTERNAL_SERVER_ERROR,  # a file of ours, not the caller's
    ConfigError: HTTPStatus.INTERNAL_SERVER_ERROR,
    SnapshotMismatch: HTTPStatus.INTERNAL_SERVER_ERROR,
    QueryRefused: HTTPStatus.BAD_REQUEST,
    StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    StoreFailed: HTTPStatus.BAD_GATEWAY,
}
"""Status of each failure; a class that is not here has the status of its base."""
DETAILS: Mapping[HTTPStatus, str] = {
    HTTPStatus.INTERNAL_SERVER_ERROR: "The server failed; its log has more under the instance given here.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Neo4j is away. Links do not need it and go on.",
    HTTPStatus.BAD_GATEWAY: "Neo4j could not do the work; the server's log has more under the instance given here.",
}
"""Said instead of the message, which may name addresses and files of the server."""
RETRY_AFTER_S = 5
EXAMPLES: Mapping[int, str] = {
    400: "The body is no JSON, or the host name is none of this server.",
    401: "Send the token of the server as: Authorization: Bearer TOKEN",
    404: "The graph has no entity 'fibo:Nothing'.",
    413: "The body is longer than 4194304 bytes; send less at once.",
    422: "body.text: Field required",
    429: "64 requests are waiting already; try again in a second.",
    502: DETAILS[HTTPStatus.BAD_GATEWAY],
    503: "There was no answer within 10 s; try again, or ask for less at once.",
}
"""What a failure looks like, for the description of the API."""


class ProblemResponse(Response):
    """A problem details object."""

    media_type = "application/problem+json"

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **members: object
    ) -> None:
        problem = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
        # Escaped to ASCII: what a caller sent may hold half a surrogate pair, which has no UTF-8 form.
        super().__init__(json.dumps({**problem, **members}), status_code=status, headers=dict(headers or {}))


class Problem(BaseModel):
    """Why there is no answer (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str | None = Field(None, description="Under which the server's log has more.")
    errors: list[dict[str, Any]] | None = Field(None, description="Where the request is not valid, and why.")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that fails with these."""
    return {
        status: {
            "description": EXAMPLES[status],
            "content": {
                ProblemResponse.media_type: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "example": {
                        "type": "about:blank",
                        "title": HTTPStatus(status).phrase,
                        "status": status,
                        "detail": EXAMPLES[status],
                    },
                }
            },
        }
        for status in statuses
    }


def ok(example: object) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route with an answer to show."""
    return {200: {"content": {"application/json": {"example": example}}}}


def add_problem_handlers(app: FastAPI) -> None:
    app.add_exception_handler(KGError, _on_kg_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(Exception, _on_anything_else)


def status_of(error: KGError) -> HTTPStatus:
    return next(STATUS[base] for base in type(error).__mro__ if base in STATUS)


async def _on_kg_error(_: Request, error: Any) -> Response:
    status = status_of(error)
    if status not in DETAILS:
        return ProblemResponse(status, str(error))
    instance = f"urn:uuid:{uuid.uuid4()}"
    log.warning("%s %s: %s", instance, type(error).__name__, error)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return ProblemResponse(status, DETAILS[status], headers=headers, instance=instance)


async def _on_http_exception(_: Request, error: Any) -> Response:
    return ProblemResponse(error.status_code, str(error.detail), headers=error.headers)


async def _on_invalid_request(_: Request, error: Any) -> Response:
    errors = [{"where": list(one["loc"]), "what": one["msg"]} for one in error.errors()]  # never what was sent
    first = f"{'.'.join(map(str, errors[0]['where']))}: {errors[0]['what']}" if errors else "The request is not valid."
    return ProblemResponse(HTTPStatus.UNPROCESSABLE_ENTITY, first, errors=errors)


async def _on_anything_else(_: Request, error: Exception) -> Response:
    instance = f"urn:uuid:{uuid.uuid4()}"
    log.error("%s unexpected %s", instance, type(error).__name__)  # the server logs the traceback itself
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return ProblemResponse(status, DETAILS[status], instance=instance)
