"""The door of the API: how long a body may be, and a bearer token, compared in constant time."""

import hmac
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kg.api.problems import ProblemResponse

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json"})
"""Answered without a token: they tell nothing of the graph or the texts."""


class TokenGuard:
    """Lets a request pass that carries the token; 401 for all others."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._expected = app, f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in OPEN_PATHS:
            return await self._app(scope, receive, send)
        given = Headers(scope=scope).get("authorization", "").encode("latin-1")
        if hmac.compare_digest(given, self._expected):
            return await self._app(scope, receive, send)
        problem = ProblemResponse(
            HTTPStatus.UNAUTHORIZED,
            "Send the token of the server as: Authorization: Bearer TOKEN",
            headers={"WWW-Authenticate": "Bearer"},
        )
        return await problem(scope, receive, send)


class BodyLimit:
    """Refuses a body of more than ``max_bytes`` with 413: at once by the length it announces, else while it comes."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes
        self._detail = f"The body is longer than {max_bytes} bytes; send less at once."

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and (len(announced) > 18 or int(announced) > self._max_bytes):
            return await ProblemResponse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._detail)(scope, receive, send)
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._detail)
            return message

        return await self._app(scope, counted, send)
