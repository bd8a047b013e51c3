"""The ASGI application that answers with a bundle: the Open Inference Protocol, and rows.

It is meant for loopback or a network of one's own: it asks nobody who they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jdlopt.errors import UserError, nearest
from jdlopt.export.batching import Batcher, Failed
from jdlopt.export.http_body import Refused, body_of, parsed, said_length
from jdlopt.export.open_inference import (
    VERSION,
    asked_outputs,
    infer_answer,
    model_metadata,
    server_metadata,
)
from jdlopt.export.standalone.answers import as_records, check, decoded, rows_of
from jdlopt.export.standalone.examples import Read, has_rows, read_rows, read_tensors
from jdlopt.export.standalone.opening import Bundle, InputError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

MOST_REQUESTS, MOST_BYTES = 256, 1 << 28
"""Requests that are worked on or wait, and the bytes of their bodies together."""
SMALL = 1 << 16
"""Bytes up to which a body is read in the event loop itself; a thread costs more."""
WARM_UPS = 5
FAST = 0.5e-3
"""A model whose full batch takes fewer seconds is run in the event loop: a thread costs more."""
RETRY_AFTER = {"Retry-After": "1"}


@dataclass(frozen=True)
class ServerOptions:
    """How a bundle is served.

    Attributes:
      host, port: where it listens; port 0 takes a free one.
      max_batch: examples that are computed together.
      max_wait_ms: how long a request waits for others to join it.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    max_batch: int = 64
    max_wait_ms: float = 0.0


def make_app(bundle: Bundle, options: ServerOptions | None = None) -> Starlette:
    """Returns the application; it is ready once its lifespan has warmed the model up.

    Args:
      bundle: opened.
      options: of the server; ``host`` and ``port`` are not looked at.

    Raises:
      UserError: starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.routing import Route
    except ImportError as error:
        raise UserError("serve: needs starlette: pip install 'jdlopt[serve]'.") from error
    service = _Service(bundle, options or ServerOptions())
    of_model = {"": service.metadata, "/ready": service.model_ready}
    versions = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
    routes = [  # in the order in which they are looked through
        *(Route(f"{model}/infer", service.infer, methods=["POST"]) for model in versions),
        Route("/predict", service.predict, methods=["POST"]),
        Route("/", service.about),
        Route("/v2", service.server),
        Route("/v2/health/live", service.live),
        Route("/v2/health/ready", service.ready),
        *(Route(f"{model}{path}", one) for model in versions for path, one in of_model.items()),
    ]
    service.paths = [one.path.replace("{name}", bundle.name) for one in routes]
    refusals = (Refused, HTTPException, InputError, Failed)
    return Starlette(
        routes=routes,
        lifespan=service.lifespan,
        exception_handlers=dict.fromkeys(refusals, service.refused),
    )


class _Service:
    """What a server is doing: whether it is ready, and how much it has to do.

    Attributes:
      problem: why it is not ready; None if it is.
      requests, bytes: that are worked on or wait.
    """

    def __init__(self, bundle: Bundle, options: ServerOptions):
        self.bundle = bundle
        self.batcher = Batcher(bundle.run, options.max_batch, options.max_wait_ms / 1000)
        self.problem: str | None = "it is being warmed up"
        self.requests, self.bytes = 0, 0
        self.paths: list[str] = []

    # --- from its start to its stop --------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Warms the model up while the server says that it is not ready; answers all at the end."""
        self.batcher.start()
        warming = asyncio.create_task(self._become_ready())
        try:
            yield
        finally:
            self.problem = "it is being stopped"
            await asyncio.gather(warming, return_exceptions=True)
            await self.batcher.close()

    async def _become_ready(self) -> None:
        try:
            await asyncio.to_thread(self._warm_up)
        except Exception as error:
            self.problem = f"its warm-up failed: {error}"
        else:
            self.problem = None

    def _warm_up(self) -> None:
        """Answers the example as it should be answered, and times a full batch."""
        check(self.bundle)
        rows, seconds = self.batcher.max_batch, []
        full = {one.name: np.zeros((rows, *one.shape), one.dtype) for one in self.bundle.inputs}
        for _ in range(WARM_UPS):
            start = time.perf_counter()
            self.bundle.run(full)
            seconds.append(time.perf_counter() - start)
        self.batcher.in_loop = min(seconds) < FAST

    # --- what it tells ---------------------------------------------------------------------------

    async def about(self, request: Request) -> Response:
        name, rows = self.bundle.name, has_rows(self.bundle)
        posts = [f"/v2/models/{name}/infer", *(["/predict"] if rows else [])]
        gets = ["/v2", "/v2/health/live", "/v2/health/ready", f"/v2/models/{name}"]
        return _json({**server_metadata(), "get": gets, "post": posts})

    async def server(self, request: Request) -> Response:
        return _json(server_metadata())

    async def live(self, request: Request) -> Response:
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        if self.problem is None:
            return _json({"ready": True})
        return _json({"ready": False, "error": f"not ready: {self.problem}"}, 503, RETRY_AFTER)

    async def model_ready(self, request: Request) -> Response:
        self._check_model(request)
        return await self.ready(request)

    async def metadata(self, request: Request) -> Response:
        self._check_model(request)
        return _json(model_metadata(self.bundle))

    def _check_model(self, request: Request) -> None:
        name, own = request.path_params["name"], self.bundle.name
        if name != own:
            hint = nearest(name, [own]) or f" There is {own!r}."
            raise Refused(404, f"there is no model {name[:80]!r}.{hint}")
        version = request.path_params.get("version", VERSION)
        if version != VERSION:
            raise Refused(404, f"model {own!r} has no version {version[:80]!r}; it has {VERSION}.")

    # --- what it predicts ------------------------------------------------------------------------

    async def infer(self, request: Request) -> Response:
        self._check_model(request)

        def read(content: Any) -> Read:
            inputs = read_tensors(self.bundle, content)
            asked_outputs(self.bundle, content)
            return inputs

        content, _, found = await self._computed(request, read)
        return _json(infer_answer(self.bundle, content, found))

    async def predict(self, request: Request) -> Response:
        def read(content: object) -> Read:
            return read_rows(self.bundle, rows_of(content))

        _, inputs, found = await self._computed(request, read)
        made: dict[str, Any] = {"predictions": as_records(decoded(self.bundle, found))}
        return _json({**made, "notes": list(inputs.notes)} if inputs.notes else made)

    async def _computed(
        self, request: Request, read: Callable[[Any], Read]
    ) -> tuple[Any, Read, dict[str, np.ndarray]]:
        """Returns a request's JSON, the inputs in it, and what the model says of them.

        Raises:
          Refused, InputError, Failed: the request is answered with an error.
        """
        if self.problem is not None:
            raise Refused(503, f"the model is not ready: {self.problem}.", RETRY_AFTER)

        def inputs_of(body: bytes) -> tuple[Any, Read]:
            content = parsed(body)
            return content, read(content)

        with self._counted(said_length(request)):
            body = await body_of(request)
            if len(body) > SMALL:
                content, inputs = await asyncio.to_thread(inputs_of, body)
            else:
                content, inputs = inputs_of(body)
            return content, inputs, await self.batcher(inputs.arrays)

    @contextlib.contextmanager
    def _counted(self, size: int) -> Iterator[None]:
        if self.requests >= MOST_REQUESTS or (self.requests and self.bytes + size > MOST_BYTES):
            raise Refused(503, "too many requests are being worked on; try again.", RETRY_AFTER)
        self.requests, self.bytes = self.requests + 1, self.bytes + size
        try:
            yield
        finally:
            self.requests, self.bytes = self.requests - 1, self.bytes - size

    async def refused(self, request: Request, error: Exception) -> Response:
        """Returns the answer to a request that can't be answered: the reason as JSON."""
        from starlette.exceptions import HTTPException

        if isinstance(error, Refused):
            return _json({"error": error.reason}, error.status, error.headers)
        if isinstance(error, HTTPException):
            path = request.url.path[:80]
            told = {
                404: f"there is nothing at {path!r}.{nearest(path, self.paths)} GET / lists "
                "what there is.",
                405: f"{request.method} is not for {path!r}.",
            }
            reason = told.get(error.status_code, error.detail)
            return _json({"error": reason}, error.status_code, error.headers)
        if isinstance(error, Failed):
            reason = f"the model can't be run on these inputs: {str(error)[:500]}"
            return _json({"error": reason}, 400)
        return _json({"error": str(error)}, 400)


def _json(
    content: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse(content, status, headers)
