"""``python -m models.serve RUN``: predictions with their reasons over HTTP, beside the links and the graph."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import tyro

from kg import cli

if TYPE_CHECKING:
    from kg.api.gate import GatedRouter
    from models.predictor import Predictor

MAX_CHOICES = 16
MAX_IN_WINDOWS = 50_000
"""Code points of a text that is read in windows, all of it: MiniLM takes 16 s of one core (November 2026)."""
WORKERS, QUEUE, DEADLINE_S = 2, 32, 30
"""Predictions at the same time, requests that may wait for that, and seconds until an answer."""


def predict_router(predictors: "Mapping[str, Predictor]") -> "GatedRouter":
    """``POST /predict`` and ``POST /explain``: the second says also what the graph knows of each entity."""
    from fastapi import HTTPException
    from pydantic import BaseModel, ConfigDict, Field

    from kg.api.gate import Gate, GatedRouter
    from kg.api.links import EXAMPLE, LinkView, Text
    from kg.api.problems import problems
    from kg.errors import ConfigError
    from models.answer import Answer
    from models.predictor import choose

    tasks = ", ".join(predictors)

    class PredictRequest(BaseModel):
        """A text to answer for."""

        model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"text": EXAMPLE}]})
        text: Text
        second: Text = Field("", description="What is put to the text: a hypothesis, a question.")
        choices: list[Text] = Field([], max_length=MAX_CHOICES, description="What to choose from, for such a task.")
        task: str | None = Field(None, description=f"One of {tasks}; default the first.")

    class SpanView(BaseModel):
        """A stretch of the text with its label."""

        start: int
        end: int
        text: str
        label: str
        probability: float

    class MovedBy(BaseModel):
        """What one link did to the answer."""

        link: int = Field(description="Position in links.")
        id: str
        name: str
        influence: float = Field(description="Probability of the answer less that without this entity's knowledge.")
        without: str = Field(description="The answer without this entity's knowledge.")
        attention: float = Field(description="Share of the token that let in most of it which went to this entity.")
        gate: float = Field(description="How far that token let in what it read.")

    class Explained(MovedBy):
        """What one link did to the answer, and what the graph says of its entity."""

        facts: list[str]

    class Prediction(BaseModel):
        """The answer, its links (offsets in code points), and which of them moved it, strongest first."""

        task: str
        said: str = Field(description="The answer in a line, whatever its kind.")
        label: str | None
        labels: list[str]
        value: float | None
        probabilities: dict[str, float]
        spans: list[SpanView]
        retrieved: str | None = Field(description="What was read beside the text, of a training text near to it.")
        unread: int = Field(description="Code points at the end of the text that the model did not read.")
        unmeasured: int = Field(description="Links that it read which are not in moved_by: it let in least of them.")
        without_knowledge: str | None = Field(description="The answer when all knowledge is taken away.")
        influence: float = Field(description="Probability of the answer less what it is then.")
        links: list[LinkView]
        moved_by: list[MovedBy]
        snapshot: str

    class Explanation(Prediction):
        """As a prediction, with facts."""

        moved_by: list[Explained]  # type: ignore[assignment]

    def answer(request: PredictRequest, abandoned: Event) -> dict[str, object]:
        try:
            predictor = choose(predictors, request.task)
        except ConfigError as error:
            raise HTTPException(422, str(error)) from error
        length = len(request.text) + len(request.second)
        if predictor.objective.windowed and length > MAX_IN_WINDOWS:
            raise HTTPException(
                422,
                f"The text and what is put to it have {length} characters; a task of the kind {predictor.task.kind} "
                f"reads them all and answers for {MAX_IN_WINDOWS} at most: send a part of the text.",
            )
        found: Answer = predictor.predict(
            request.text, second=request.second, choices=request.choices, abandoned=abandoned
        )
        moved_by = [
            {
                "link": reason.link,
                "id": found.links[reason.link].id,
                "name": found.links[reason.link].name,
                "influence": reason.influence,
                "without": reason.without,
                "attention": reason.attention,
                "gate": reason.gate,
                "facts": list(reason.facts),
            }
            for reason in found.reasons
        ]
        snapshot = predictor.encoder.linker.snapshot.hash
        return {**found.as_json(), "moved_by": moved_by, "snapshot": snapshot}

    gate = Gate("predictions", workers=WORKERS, queue=QUEUE, deadline_s=DEADLINE_S)
    router = GatedRouter(gate, tag="predictions")
    router.states["predictions"] = lambda: "ready"
    failures = problems(400, 413, 422, 429, 503)

    @router.post("/predict", summary="Label of a text, its entities, and which of them moved it", responses=failures)
    async def predict(request: PredictRequest) -> Prediction:
        return await gate.run(lambda abandoned: Prediction.model_validate(answer(request, abandoned)))

    @router.post("/explain", summary="As /predict, with what the graph says of each entity", responses=failures)
    async def explain(request: PredictRequest) -> Explanation:
        return await gate.run(lambda abandoned: Explanation.model_validate(answer(request, abandoned)))

    return router


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Answer /predict, /explain, /link and the graph routes for a finished run; the page of the API is at /docs."""

    run_folder: tyro.conf.Positional[Path]
    """Run folder written by models.train_kgbert."""
    host: str = "127.0.0.1"
    """Address to listen on; any but the local machine's needs KGFUSE_API_TOKEN."""
    port: int = 8000
    """Port to listen on."""

    def run(self) -> None:
        from kg.api import check_address, graph_router, link_router, serve
        from kg.settings import Settings
        from kg.store import open_store
        from models.predictor import load_predictors

        settings = Settings.from_env()
        check_address(self.host, settings.api_token)
        predictors = load_predictors(self.run_folder)
        linker = next(iter(predictors.values())).encoder.linker
        routers = (predict_router(predictors), link_router(linker), graph_router(lambda: open_store(settings)))
        serve(*routers, host=self.host, port=self.port, token=settings.api_token, title=f"kgfuse: {self.run_folder}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run("python -m models.serve", [Serve], argv)


if __name__ == "__main__":
    sys.exit(main())
