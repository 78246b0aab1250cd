"""The HTTP face of one model: ``POST /predict``, ``GET /health``, ``GET /model``; errors in one sentence, as JSON."""

# No `from __future__ import annotations`: FastAPI reads the types of the functions that `app` makes.

import json
import os
import shlex
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from lockstep.errors import EnvironmentFault, LockstepError
from lockstep.project import Project
from lockstep.stage import unexpected

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.responses import JSONResponse
    from pydantic import BaseModel

    from lockstep.predictor import Predictor

__all__ = ["app", "serve"]


def app(project: Project, model: str | None = None) -> "FastAPI":
    """Return the app that serves `model`, ``serve.model`` of ``params.yaml`` by default.

    Everything runs in the event loop: a prediction takes a millisecond or two, less than a thread would cost, and
    SQLite's connection stays in one thread.

    Raises
    ------
    LockstepError
        The model cannot be served at all; see `Predictor`.
    """
    from fastapi import FastAPI, Request
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    from lockstep.predictor import Predictor

    predictor = Predictor(project, model or project.settings.serve.model)
    api = FastAPI(
        title=f"Lockstep {predictor.name}", description=project.settings.models[predictor.name].service,
        docs_url=None, redoc_url=None,  # they load their scripts from elsewhere; /openapi.json is the reference
    )  # fmt: skip
    api.state.predictor = predictor
    asked: Any = _asked(predictor)

    @api.post("/predict")
    async def predict(body: asked) -> Any:
        return _answer(lambda: _prediction(predictor, body.model_dump(exclude={"at"}), body.at))

    @api.get("/health")
    async def health() -> Any:
        return _answer(lambda: _instants(predictor.health()))

    @api.get("/model")
    async def card() -> Any:
        return _answer(lambda: predictor.card)

    @api.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Any:
        return _json(422, {"error": _sentence(error)})

    @api.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Any:
        return _json(422 if error.status_code == 400 else error.status_code, {"error": f"{error.detail}."})

    return api


def _asked(predictor: "Predictor") -> "type[BaseModel]":
    """Return the type of a request: keys, what on-demand views take and, if wanted, the instant; nothing coerced."""
    import polars as pl
    from pydantic import BeforeValidator, ConfigDict, Field, create_model

    types: dict[Any, Any] = {pl.String: str, pl.Boolean: bool, pl.Float64: Annotated[float, Field(allow_inf_nan=False)]}
    for kind, bits in ((pl.Int64, 63), (pl.Int32, 31)):
        types[kind] = Annotated[int, Field(ge=-(2**bits), lt=2**bits)]
    at: Any = Annotated[datetime | None, BeforeValidator(_instant)]
    config = ConfigDict(extra="forbid", strict=True)
    carried = {**predictor.keys, **predictor.request}
    fields: dict[str, Any] = {**{name: (types[type(kind)], ...) for name, kind in carried.items()}, "at": (at, None)}
    asked: type[BaseModel] = create_model("Asked", __config__=config, **fields)
    return asked


def _instant(text: object) -> datetime | None:
    """Return the instant that a text with an offset names, in UTC."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
        if found is None or found.tzinfo is None:
            raise ValueError
        return found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not an instant with an offset, such as 2018-01-01T05:00:00Z"[:200]) from None


def _prediction(predictor: "Predictor", asked: dict[str, Any], at: datetime | None) -> dict[str, Any]:
    found = predictor.predict(asked, at)._asdict()
    return _instants({**asked, "model": predictor.name, "hashes": predictor.hashes, **found})


def _instants(answer: dict[str, Any]) -> dict[str, Any]:
    return {k: v.isoformat().replace("+00:00", "Z") if isinstance(v, datetime) else v for k, v in answer.items()}


def _answer(ask: Callable[[], dict[str, Any]]) -> "JSONResponse":
    """Answer, or say in one sentence why not; what is not the client's fault is told on stderr as well."""
    try:
        return _json(200, ask())
    except LockstepError as e:
        status, text = getattr(e, "status", 503), str(e)
    except Exception as e:
        status, text = 500, unexpected(e)
    if status >= 500:
        print(f"error: {text}", file=sys.stderr, flush=True)
    return _json(status, {"error": text if status != 500 else "An error that nobody foresaw: see the server's log."})


def _json(status: int, content: Any) -> "JSONResponse":
    from fastapi.responses import JSONResponse

    return JSONResponse(content, status)


def _sentence(error: Any) -> str:
    """Return pydantic's findings of the first kind as a sentence; values stay out, NaN among them is no JSON."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return f"body: not JSON: {first['ctx']['error']}."
    alike = [e["loc"] for e in error.errors() if e["msg"] == first["msg"]]
    where = ", ".join(".".join(str(part) for part in loc if part != "body") for loc in alike)
    return f"{where or 'body'}: {first['msg'].removeprefix('Value error, ')}."


def serve(project: Project, host: str = "127.0.0.1", port: int | None = None, model: str | None = None) -> None:
    """Serve until Ctrl-C, in this process.

    Raises
    ------
    EnvironmentFault
        The address is taken or not ours.
    LockstepError
        As `app`.
    """
    listening = _listen(host, project.settings.serve.port if port is None else port)
    # HistGradientBoosting answers one row in 1.8 ms (p99) with one OpenMP thread, in 151 ms with two. To be said before
    # NumPy and scikit-learn start theirs.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    with listening:
        import uvicorn

        api = app(project, model)
        url = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        print("\n".join(_greeting(api.state.predictor, url)), flush=True)
        config = uvicorn.Config(api, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=5)
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:  # uvicorn finishes what it is at and then passes the signal on
            print("stopped", flush=True)


def _listen(host: str, port: int) -> socket.socket:
    """Take the port now, listening: nobody else can while models load, and early clients wait instead of failing."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as e:
        code = e.errno or 0  # below 0: a name that cannot be resolved
        raise EnvironmentFault(
            f"cannot listen on {host}:{port}", found=os.strerror(code).lower() if code > 0 else e,
            do="Choose another with --port or --host, or end what listens there.",
        ) from None  # fmt: skip


def _greeting(predictor: "Predictor", url: str) -> list[str]:
    """Return what to say first; the first answer is also the slowest, and is given here."""
    from lockstep.predictor import ones

    try:
        asked = predictor.example()
        predictor.predict(asked)
        ready = f"online snapshot {predictor.lookup().online.snapshot}"
    except LockstepError as e:
        asked, ready = ones({**predictor.keys, **predictor.request}), f"no answer yet: {e}"
    example = f"curl -X POST {url}/predict -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(asked))}"
    old = predictor.catalogue.deprecated([predictor.card["service"]])
    return [f"serving {predictor.name} on {url}, {ready}", *old, f"  {example}", "  stop with Ctrl-C"]
