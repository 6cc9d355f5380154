"""Links over HTTP; they need the snapshot only and go on while Neo4j is away."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from pydantic.types import StringConstraints

from kg.linking import Linker
from kg.linking.offsets import OffsetUnit, offsets_of
from kg.types import Link

MAX_TEXT = 1_000_000  # code points
MAX_TEXTS = 256

Text = Annotated[str, StringConstraints(max_length=MAX_TEXT)]
EXAMPLE = "The European Central Bank raised rates."


class LinkRequest(BaseModel):
    """A text to link."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"text": EXAMPLE}]})
    text: Text
    offset_unit: OffsetUnit = Field("code-point", description="What start and end of the answer count.")


class LinkBatchRequest(BaseModel):
    """Several texts to link."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"texts": [EXAMPLE, "Bonds fell."]}]})
    texts: list[Text] = Field(max_length=MAX_TEXTS)
    offset_unit: OffsetUnit = "code-point"


class CandidateView(BaseModel):
    """An entity that a mention may denote."""

    id: str
    name: str
    score: float


class LinkView(BaseModel):
    """A mention and the entity that it denotes; ``id`` is null where none is sure enough (NIL)."""

    start: int
    end: int
    text: str
    id: str | None
    name: str | None
    confidence: float
    candidates: list[CandidateView]

    @classmethod
    def all_of(cls, text: str, links: list[Link], unit: OffsetUnit) -> "list[LinkView]":
        """The links of ``text`` with offsets counted in ``unit``."""
        offset = offsets_of(text, unit)
        return [
            cls.model_validate({**link.as_json(), "start": int(offset[link.start]), "end": int(offset[link.end])})
            for link in links
        ]


class Linked(BaseModel):
    """The links of one text, in its order."""

    links: list[LinkView]


class LinkAnswer(Linked):
    """The links of one text and what they count and come from."""

    offset_unit: OffsetUnit
    snapshot: str = Field(description="Hash of the snapshot that answered.")


class LinkBatchAnswer(BaseModel):
    """The links of each text, in the order of the texts."""

    results: list[Linked]
    offset_unit: OffsetUnit
    snapshot: str


def link_router(linker: Linker) -> APIRouter:
    """``POST /link`` and ``POST /link/batch`` answered by ``linker``."""
    router = APIRouter(tags=["links"])

    def linked(text: str, unit: OffsetUnit) -> list[LinkView]:
        return LinkView.all_of(text, linker.link(text), unit)

    @router.post("/link", summary="Entities that a text mentions")
    def link(request: LinkRequest) -> LinkAnswer:
        links = linked(request.text, request.offset_unit)
        return LinkAnswer(links=links, offset_unit=request.offset_unit, snapshot=linker.snapshot.hash)

    @router.post("/link/batch", summary="Entities that each text mentions")
    def link_batch(request: LinkBatchRequest) -> LinkBatchAnswer:
        results = [Linked(links=linked(text, request.offset_unit)) for text in request.texts]
        return LinkBatchAnswer(results=results, offset_unit=request.offset_unit, snapshot=linker.snapshot.hash)

    return router
