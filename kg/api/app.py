"""The application: routers behind a host check, an optional token and a limit on the body."""

from collections.abc import Sequence
from typing import Any, Literal

from fastapi import APIRouter, FastAPI, HTTPException
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.middleware.trustedhost import TrustedHostMiddleware

from kg.api.gate import GatedRouter
from kg.api.guard import OPEN_PATHS, BodyLimit, TokenGuard
from kg.api.metrics import Metered, Metrics
from kg.api.page import HEADERS, api_page
from kg.api.problems import Problem, add_problem_handlers, ok, problems

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]", "::1")
MAX_BODY_BYTES = 4 * 1024 * 1024


class Status(BaseModel):
    """That the server is there."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """That requests are answered, and what with."""

    status: Literal["ready"] = "ready"
    parts: dict[str, str]
    """``links``: ready; ``graph``: ready, away, or idle when nobody has asked for it yet. Links go on without it."""


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
    app.state.draining = False
    add_problem_handlers(app)
    for router in routers:
        app.include_router(router)
    gated = [router for router in routers if isinstance(router, GatedRouter)]
    metrics = Metrics([gate for one in gated for gate in one.gates], [c for one in gated for c in one.collectors])

    # These run in the event loop itself: they answer when all threads are busy and the queues are full.

    @app.get("/healthz", summary="The process lives", tags=["health"], responses=ok({"status": "ok"}))
    async def healthz() -> Status:
        return Status()

    @app.get(
        "/readyz",
        summary="Requests are answered",
        tags=["health"],
        responses=ok({"status": "ready", "parts": {"links": "ready", "graph": "idle"}}) | problems(503),
    )
    async def readyz() -> Readiness:
        if app.state.draining:
            raise HTTPException(503, "The server is stopping; it finishes what it has and takes nothing new.")
        return Readiness(parts={part: state() for one in gated for part, state in one.states.items()})

    @app.get(
        "/metrics",
        summary="Figures for Prometheus",
        tags=["health"],
        response_class=PlainTextResponse,
        responses={200: {"content": {"text/plain": {"example": 'kgfuse_queue_length{queue="links"} 0.0'}}}},
    )
    async def figures() -> PlainTextResponse:
        return PlainTextResponse(metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=title, version=app.version, routes=app.routes)
            schema.setdefault("components", {}).setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
            if token is not None:
                schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
                for path, operations in schema["paths"].items():
                    for operation in operations.values() if path not in OPEN_PATHS else ():
                        operation["security"] = [{"token": []}]
                        operation["responses"] |= {str(code): said for code, said in problems(401).items()}
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(api_page(app.openapi()), headers=HEADERS)

    app.add_middleware(BodyLimit, max_bytes=max_body_bytes)
    if token is not None:
        app.add_middleware(TokenGuard, token=token)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(allowed_hosts), www_redirect=False)
    app.add_middleware(Metered, metrics=metrics)
    return app
