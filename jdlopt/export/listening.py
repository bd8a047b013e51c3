"""Serving a bundle at an address until a signal ends it."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable

from jdlopt.errors import UserError
from jdlopt.export.server import ServerOptions, make_app
from jdlopt.export.standalone.opening import Bundle

STOPPING = 20
"""Seconds that a stop waits for answers that are being computed."""


def serve(bundle: Bundle, options: ServerOptions, on_start: Callable[[str], None]) -> None:
    """Answers requests until SIGTERM or Ctrl-C; what is being computed then is still answered.

    Args:
      bundle: opened.
      options: where and how.
      on_start: given the server's URL, once it listens.

    Raises:
      UserError: uvicorn is not installed, or the address can't be listened at.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise UserError("serve: needs uvicorn: pip install 'jdlopt[serve]'.") from error
    app = make_app(bundle, options)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=STOPPING,
        server_header=False,
    )
    # uvicorn raises the signal that ended it once more, after its last answer
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    with _listener(options) as listener:
        host, port = listener.getsockname()[:2]
        on_start(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        uvicorn.Server(config).run(sockets=[listener])


def _listener(options: ServerOptions) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UserError(f"--host: {options.host!r}: {error.strerror or error}.") from error
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(1024)
    except OSError as error:
        made.close()
        raise UserError(
            f"--port: can't listen at {options.host}:{options.port}: {error.strerror or error}. "
            "--port=0 takes a free one."
        ) from error
    return made
