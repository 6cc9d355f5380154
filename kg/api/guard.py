"""The door of the API: a bearer token, compared in constant time."""

import hmac
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

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
