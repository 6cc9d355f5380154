"""The application: routers behind a host check, an optional token and a limit on the body."""

from collections.abc import Sequence
from typing import Literal

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse
from pydantic import BaseModel
from starlette.middleware.trustedhost import TrustedHostMiddleware

from kg.api.guard import BodyLimit, TokenGuard
from kg.api.page import HEADERS, api_page
from kg.api.problems import add_problem_handlers

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]", "::1")
MAX_BODY_BYTES = 4 * 1024 * 1024


class Status(BaseModel):
    """That the server is there."""

    status: Literal["ok"] = "ok"


def create_app(
    *routers: APIRouter,
    token: str | None = None,
    allowed_hosts: Sequence[str] = LOOPBACK_NAMES,
    max_body_bytes: int = MAX_BODY_BYTES,
    title: str = "kgfuse",
) -> FastAPI:
    """An app of its own with the routes of ``routers``.

    Args:
        routers: for example ``link_router(linker)`` and ``graph_router(open_store)``.
        token: asked for as a bearer token when given.
        allowed_hosts: names that a request may call the server by; other pages in a browser cannot then reach it
            through a name of theirs (DNS rebinding). ``("*",)`` for any.
        max_body_bytes: a longer body is refused with 413 as soon as it is too long, whatever length it announces.
        title: of the API page.
    """
    app = FastAPI(title=title, version="1", docs_url=None, redoc_url=None)
    add_problem_handlers(app)
    for router in routers:
        app.include_router(router)

    @app.get("/healthz", summary="The process lives", tags=["health"])
    def healthz() -> Status:
        return Status()

    @app.get("/readyz", summary="Requests are answered", tags=["health"])
    def readyz() -> Status:
        return Status()  # all that answers needs is loaded before there is an app

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(api_page(app.openapi()), headers=HEADERS)

    app.add_middleware(BodyLimit, max_bytes=max_body_bytes)
    if token is not None:
        app.add_middleware(TokenGuard, token=token)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(allowed_hosts), www_redirect=False)
    return app
