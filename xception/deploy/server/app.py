"""The server's paths."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from xception._version import __version__
from xception.deploy.server.metrics import Metrics
from xception.deploy.server.page import Asset, assets
from xception.deploy.server.refusal import Refusal
from xception.deploy.server.service import Gone, Service
from xception.deploy.server.shield import ANSWER, CALLER_LEFT, Doors, Shield

# What a model file says about the machine it was made on is nobody's business.
_CARD_LEFT_OUT = {"training"}
_JSON = "application/json"
_PHOTOS = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {
                "photo": {"type": "array", "items": {"type": "string", "format": "binary"}}
            },
        }
    },
    "image/*": {"schema": {"type": "string", "format": "binary"}},
}


class Likely(BaseModel):
    """A class and its probability."""

    label: str
    probability: float


class PhotoAnswer(BaseModel):
    """What the model says about one photo."""

    name: str | None = None
    """Of the file, where the caller gave one."""
    top: list[Likely] | None = None
    """The likeliest classes, likeliest first."""
    mask: str | None = None
    """Of a segmentation: a PNG with one class index per pixel, in base64."""
    size: tuple[int, int] | None = None
    """Of the mask: width and height."""
    coverage: dict[str, float] | None = None
    """Of a segmentation: the share of the pixels of each class that is there."""
    error: str | None = None
    """Why the file could not be read."""


class Answers(BaseModel):
    """The answer to `POST /predict`, in the order of the photos."""

    task: str
    classes: list[str] | None = None
    """Of a segmentation: what the indices of the mask mean."""
    colours: list[str] | None = None
    """Of a segmentation: how the mask paints them, as #rrggbb."""
    answers: list[PhotoAnswer]


class Complaint(BaseModel):
    """Why there is no answer."""

    error: str


_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Complaint, "description": description}
    for status, description in {
        400: "The body is not sound.",
        401: "A key is needed.",
        408: "The body came too slowly.",
        411: "The length of the body is missing.",
        413: "Too long, or too many photos.",
        503: "Too busy; see Retry-After.",
    }.items()
}


def create_app(service: Service, metrics: Metrics, doors: Doors) -> Shield:
    """The app that uvicorn runs; it closes the service when it stops.

    Args:
        service: the model behind its queue.
        metrics: shown at `/metrics`.
        doors: who may ask.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="xception",
        version=__version__,
        description="What is in photos.",
        lifespan=lifespan,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    shield = Shield(app, service.limits, doors, metrics)
    _add_predict(app, service)
    _add_status(app, service, shield, metrics)
    _add_page(app)
    _add_complaints(app)
    return shield


def _add_predict(app: FastAPI, service: Service) -> None:
    @app.post(
        "/predict",
        responses={200: {"model": Answers}, 422: {"model": Answers}, **_REFUSALS},
        openapi_extra={"requestBody": {"required": True, "content": _PHOTOS}},
    )
    async def predict(request: Request, top: Annotated[int, Query(ge=1, le=1000)] = 5) -> Response:
        """Say what is in one photo (the bytes of its file as the body) or several (multipart)."""
        status, content = await service.answer(request, top)
        return Response(await asyncio.to_thread(_json, content), status, media_type=_JSON)


def _add_status(app: FastAPI, service: Service, shield: Shield, metrics: Metrics) -> None:
    card = service.answerer.card.model_dump(mode="json", exclude=_CARD_LEFT_OUT)

    @app.get("/health")
    async def health() -> Response:
        """Whether the process is sound; if not, start it anew."""
        if service.healthy():
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "a worker has died"}, 503)

    @app.get("/ready")
    async def ready() -> Response:
        """Whether requests should be sent here."""
        if shield.draining or not service.healthy():
            return JSONResponse({"status": "stopping"}, 503)
        return JSONResponse({"status": "ready"})

    @app.get("/card")
    async def show_card() -> Response:
        """What the model says about itself; how it was trained is left out."""
        return JSONResponse(card)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def show_metrics() -> Response:
        """Counts and times in Prometheus' text format."""
        return metrics.response()


def _add_page(app: FastAPI) -> None:
    def add(path: str, asset: Asset) -> None:
        @app.get(path, include_in_schema=False)
        async def show(request: Request) -> Response:
            return asset.response(request)

    for path, asset in assets().items():
        add(path, asset)


def _add_complaints(app: FastAPI) -> None:
    """Every error in one form, `{"error": …}`."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return request.scope[ANSWER].written(error)

    async def left(request: Request, error: Exception) -> Response:
        return Response(status_code=CALLER_LEFT)  # nobody reads it; log and metrics do

    async def wrong_address(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    async def wrong_query(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        found = error.errors()[0]
        where = ".".join(str(part) for part in found["loc"])
        return JSONResponse({"error": f"{where}: {found['msg']}"}, 422)

    async def fault(request: Request, error: Exception) -> Response:
        return request.scope[ANSWER].written(request.scope[ANSWER].fault())

    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(ClientDisconnect, left)
    app.add_exception_handler(Gone, left)
    app.add_exception_handler(HTTPException, wrong_address)
    app.add_exception_handler(RequestValidationError, wrong_query)
    app.add_exception_handler(Exception, fault)  # it is raised on, and logged by the shield


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
