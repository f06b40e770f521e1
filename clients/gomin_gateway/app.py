"""The routes of the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import FastAPI, Query, Security, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from gomin_client.errors import GominError
from gomin_gateway import problems, schema, steps, swagger, tasks
from gomin_gateway.access import AccessLog, check_key, record_of
from gomin_gateway.answers import Answer
from gomin_gateway.live import Live
from gomin_gateway.metrics import CONTENT_TYPE
from gomin_gateway.negotiation import Representation, choose
from gomin_gateway.page import Page
from gomin_gateway.parameters import (
    AnalyzeParameters,
    FormParameters,
    Parameters,
    ReconstructParameters,
    ReconstructStepsParameters,
    ResampleParameters,
    SynthesizeParameters,
    SynthesizeStepsParameters,
    message_of,
    names_of,
)
from gomin_gateway.problems import ProblemError
from gomin_gateway.service import Service, logger
from gomin_gateway.settings import ApiKeys

_PARAMETERS: dict[str, type[Parameters]] = {
    "/v1/reconstruct": ReconstructParameters,
    "/v1/synthesize": SynthesizeParameters,
    "/v1/analyze": AnalyzeParameters,
    "/v1/resample": ResampleParameters,
    "/v1/reconstruct/steps": ReconstructStepsParameters,
    "/v1/synthesize/steps": SynthesizeStepsParameters,
}


def make_app(service: Service, origins: Sequence[str] = ()) -> FastAPI:
    """The ASGI application.

    Args:
        service: what all requests share; closed when the application is shut down.
        origins: of pages that may call it, besides its own, as https://example.org; "*" for all.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await service.close()

    app = FastAPI(
        title="gomin-gateway",
        description=schema.DESCRIPTION,
        version=version("gomin-triton"),
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses=schema.problems_of("internal"),
    )
    _add_tasks(app, service)
    _add_steps(app, service)
    _add_reports(app, service)
    live = Live(service, origins)

    @app.websocket("/v1/stream")
    async def stream(socket: WebSocket) -> None:
        await live.serve(socket)

    swagger.add(app)
    app.router.default = Page()
    _add_error_handlers(app, service)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Gomin-Model", "Gomin-Seed", "Gomin-Sampling", "Gomin-Warning", "X-Request-Id"],
        )
    app.add_middleware(AccessLog, service=service)
    return app


class _KeyCheck(HTTPBearer):
    """The dependency of routes that ask for a key."""

    def __init__(self, keys: ApiKeys) -> None:
        super().__init__(scheme_name="key", description="One of the keys of --api-key-file.", auto_error=False)
        self._keys = keys

    async def __call__(self, request: HTTPConnection) -> HTTPAuthorizationCredentials | None:
        """Check the key of a request.

        Raises:
            ProblemError: it has none, or another one.
        """
        check_key(self._keys, request.headers.get("authorization"))
        return await super().__call__(request)


def _key_check(service: Service) -> list[Any]:
    """The dependency that asks for a key, if there are keys."""
    return [Security(_KeyCheck(service.keys))] if service.keys else []


_RECORDING = schema.file_body("A recording in any format that gomin-client reads.")
_MEL = schema.file_body("A .npy or .npz mel file, as gomin-client writes it.")


def _add_tasks(app: FastAPI, service: Service) -> None:
    post = partial(app.post, tags=["audio"], dependencies=_key_check(service), response_class=Response)

    def form(request: Request, parameters: FormParameters) -> Representation:
        accept = request.headers.get("accept", "")
        return choose(parameters.format, parameters.subtype, accept, streamed=parameters.stream)

    @post(
        "/v1/reconstruct",
        summary="A recording → mel → audio",
        responses=schema.audio_responses(),
        openapi_extra=_RECORDING,
    )
    async def reconstruct(request: Request, parameters: Annotated[ReconstructParameters, Query()]) -> Response:
        chosen = form(request, parameters)
        return Answer(service, partial(tasks.reconstruct, parameters=parameters, form=chosen))

    @post(
        "/v1/synthesize",
        summary="Mel → audio",
        responses=schema.audio_responses(),
        openapi_extra=_MEL,
    )
    async def synthesize(request: Request, parameters: Annotated[SynthesizeParameters, Query()]) -> Response:
        chosen = form(request, parameters)
        parameters.reading(transpose=parameters.transpose)
        return Answer(service, partial(tasks.synthesize, parameters=parameters, form=chosen))

    @post(
        "/v1/analyze",
        summary="A recording → mel",
        responses=schema.mel_responses(),
        openapi_extra=_RECORDING,
    )
    async def analyze(parameters: Annotated[AnalyzeParameters, Query()]) -> Response:
        return Answer(service, partial(tasks.analyze, parameters=parameters))

    @post(
        "/v1/resample",
        summary="A recording → audio at the model's sample rate, as the model's mel is made from it",
        responses=schema.audio_responses(),
        openapi_extra=_RECORDING,
    )
    async def resample(request: Request, parameters: Annotated[ResampleParameters, Query()]) -> Response:
        chosen = form(request, parameters)
        return Answer(service, partial(tasks.resample, parameters=parameters, form=chosen))


def _add_steps(app: FastAPI, service: Service) -> None:
    post = partial(app.post, tags=["steps"], dependencies=_key_check(service), response_class=Response)

    @post(
        "/v1/reconstruct/steps",
        summary="A recording → mel → what each step of a diffusion model predicts, a line of JSON for each",
        responses=schema.steps_responses(),
        openapi_extra=_RECORDING,
    )
    async def reconstruct(parameters: Annotated[ReconstructStepsParameters, Query()]) -> Response:
        form = choose(parameters.format, parameters.subtype, "", streamed=False)
        return Answer(service, partial(steps.reconstruct, parameters=parameters, form=form))

    @post(
        "/v1/synthesize/steps",
        summary="Mel → what each step of a diffusion model predicts, a line of JSON for each",
        responses=schema.steps_responses(),
        openapi_extra=_MEL,
    )
    async def synthesize(parameters: Annotated[SynthesizeStepsParameters, Query()]) -> Response:
        form = choose(parameters.format, parameters.subtype, "", streamed=False)
        parameters.reading(transpose=parameters.transpose)
        return Answer(service, partial(steps.synthesize, parameters=parameters, form=form))


def _add_reports(app: FastAPI, service: Service) -> None:
    guarded = _key_check(service)

    @app.get(
        "/v1/models",
        summary="The models that make audio",
        tags=["models"],
        dependencies=guarded,
        responses=schema.problems_of("unauthorized", "server-refuses", "server-unavailable", "deadline"),
    )
    async def models() -> schema.Models:
        return schema.Models(models=[schema.Model(**found) for found in await service.models.get()])

    @app.get("/healthz", summary="Whether the gateway runs", tags=["health"])
    async def healthz() -> schema.Status:
        return schema.Status(status="ok")

    @app.get(
        "/readyz",
        summary="Whether the model server has models",
        tags=["health"],
        responses=schema.problems_of("server-refuses", "server-unavailable", "deadline"),
    )
    async def readyz() -> schema.Status:
        await service.ready.get()
        return schema.Status(status="ready")

    @app.get(
        "/metrics",
        summary="Counters for Prometheus",
        tags=["health"],
        dependencies=guarded,
        response_class=Response,
        responses=schema.text_responses(),
    )
    async def metrics() -> Response:
        return Response(await asyncio.to_thread(service.metrics.text), headers={"content-type": CONTENT_TYPE})


def _add_error_handlers(app: FastAPI, service: Service) -> None:
    def respond(request: Request, refusal: ProblemError) -> Response:
        record = record_of(request.scope)
        record.problem = refusal.kind
        return JSONResponse(
            refusal.document(record.id), refusal.status, dict(refusal.headers), media_type=problems.MEDIA_TYPE
        )

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, GominError | ProblemError)  # that is what it is registered for
        return respond(request, service.refusal(error))

    async def bad_parameters(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        known = names_of(_PARAMETERS[request.url.path])
        return respond(request, ProblemError("bad-parameter", message_of(error.errors(), known)))

    async def routing(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.url.path[:200]
        if error.status_code == 405:
            detail = f"{path} does not take {request.method}"
            return respond(request, ProblemError("method-not-allowed", detail, dict(error.headers or {})))
        return respond(request, ProblemError("not-found", f"there is no {path}; /docs describes what there is"))

    async def failed(request: Request, _error: Exception) -> Response:
        logger.error("request %s failed", record_of(request.scope).id)
        answer = respond(request, problems.INTERNAL)
        answer.headers["X-Request-Id"] = record_of(request.scope).id  # this handler is outside of `AccessLog`
        return answer

    app.add_exception_handler(GominError, refused)
    app.add_exception_handler(ProblemError, refused)
    app.add_exception_handler(RequestValidationError, bad_parameters)
    app.add_exception_handler(HTTPException, routing)
    app.add_exception_handler(Exception, failed)
