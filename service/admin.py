"""The admin listener: which releases are served, for whoever has the token.

    HLM_ADMIN_TOKEN set? -> bearer token right? -> POST /releases/use, POST /releases/rollback, GET /releases
                                                -> ads and campaigns: service.ads_admin

It is another listener on the same event loop, by default on the loopback address, and off without a token. Bodies name
directories of the machine that serves, which is the right of this listener's callers and of no others.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Protocol, cast

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from artifacts.errors import HlmError
from service import ads_admin
from service.ad_changes import AdChanges
from service.admin_connection import AdminConnection, Token
from service.errors import NotReadyError, ReleaseRejectedError, UnauthorizedError
from service.listener import bind, url_of
from service.problems import add_problem_handlers, error_response
from service.routes import JSON, read_body
from service.settings import ADMIN_TOKEN_VARIABLE, ReleaseSettings, ServerSettings, read_admin_token
from service.validation import parse_body

MAX_BODY_BYTES = 65_536
STOP_TIMEOUT_S = 1.0
"""How long requests in flight may take to finish once the service ends; loading a release for it has no use then."""
NOT_SERVED = ("rejected", "superseded")
"""Results of a wish for a release that is not served after it."""

logger = logging.getLogger(__name__)


class ReleaseControl(Protocol):
    """What decides which releases are served."""

    async def use(self, settings: ReleaseSettings) -> dict[str, object]:
        """Load, verify and warm up a release beside the served one, then serve it.

        Returns:
            What came of it as `result`, and why as `reason` where the release is not served.
        """

    async def rollback(self) -> dict[str, object]:
        """Serve the previous release again; likewise.

        Raises:
            HlmError: there is none.
        """

    def status(self) -> dict[str, object]:
        """Which releases there are, as what, from where, and what came of the last wish for one."""


@contextlib.asynccontextmanager
async def admin_listener(
    settings: ServerSettings, control: ReleaseControl, changes: AdChanges
) -> AsyncIterator[str | None]:
    """Answer on the admin listener as long as the block runs; gives its URL, None where it is off.

    Args:
        settings: where it listens.
        control: what the routes for releases act on.
        changes: and those for ads.

    Raises:
        StartupError: the token is unfit, or the address is taken.
    """
    secret = read_admin_token()
    if secret is None:
        logger.info("the admin listener is off: %s is not set", ADMIN_TOKEN_VARIABLE)
        yield None
        return
    listener = bind(settings.admin_host, settings.admin_port, "server.admin_host, server.admin_port")
    url, token = url_of(listener), Token(secret)  # while the socket is open
    app = create_admin_app(control, changes, token)
    server = _AdminServer(_config(app, settings, partial(AdminConnection, changes, token)))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    logger.info("the admin listener is on %s", url)
    try:
        yield url
    finally:
        server.should_exit = True
        await serving


def create_admin_app(control: ReleaseControl, changes: AdChanges, token: Token) -> ASGIApp:
    """The admin listener's app; nothing of it answers without the token."""
    # Not FastAPI: of what it does beyond this nothing is needed here, and with a hundred changes a second it would be
    # felt on the event loop.
    app = Starlette(routes=[*ROUTES, *ads_admin.ROUTES])
    app.router.redirect_slashes = False
    app.state.control = control
    app.state.changes = changes
    add_problem_handlers(app)
    app.add_exception_handler(HlmError, _answer_rejection)
    return _TokenGate(app, token)


async def releases(request: Request) -> Response:
    """Which releases there are."""
    return _answer(_control_of(request).status())


async def use(request: Request) -> Response:
    """Serve another release; the answer, which releases there are, comes when it is served or rejected."""
    wanted = parse_body(ReleaseSettings, await read_body(request.scope, request.receive, MAX_BODY_BYTES))
    try:
        outcome = await _control_of(request).use(wanted)
    except asyncio.CancelledError as error:  # nobody but the server that ends cancels a request
        raise NotReadyError(f"the service is stopping; release {wanted.name} is not served") from error
    if outcome["result"] in NOT_SERVED:
        raise ReleaseRejectedError(str(outcome["reason"]))
    return _answer(_control_of(request).status())


async def rollback(request: Request) -> Response:
    """Serve the previous release again."""
    await _control_of(request).rollback()
    return _answer(_control_of(request).status())


ROUTES = (
    Route("/releases", releases, methods=["GET"]),
    Route("/releases/use", use, methods=["POST"]),
    Route("/releases/rollback", rollback, methods=["POST"]),
)


async def _answer_rejection(_: Request, error: Exception) -> Response:
    """Whatever is wrong with an artifact, to the caller it is the reason why the release is not served."""
    return error_response(ReleaseRejectedError(str(error)))


def _control_of(request: Request) -> ReleaseControl:
    return cast("ReleaseControl", request.app.state.control)


def _answer(status: dict[str, object]) -> Response:
    return Response(orjson.dumps(status), media_type=JSON)


class _TokenGate:
    """Lets a request through to the app if it carries the token, before its path or its body is looked at."""

    def __init__(self, app: ASGIApp, token: Token) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if self._opens_to(scope):
            await self._app(scope, receive, send)
        else:
            await error_response(UnauthorizedError("expected `Authorization: Bearer` and the token"))(
                scope, receive, send
            )

    def _opens_to(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and self._token.opens(given[0])


class _AdminServer(uvicorn.Server):
    """A server that leaves signals to the public one: a second handler would hide them from its drain."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signal."""
        yield


def _config(app: ASGIApp, settings: ServerSettings, connection: Callable[..., AdminConnection]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=connection,  # type: ignore[arg-type]  # only called
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_timeout_ms / 1e3,  # type: ignore[arg-type]  # only waited for
        timeout_graceful_shutdown=STOP_TIMEOUT_S,  # type: ignore[arg-type]  # only awaited
    )
