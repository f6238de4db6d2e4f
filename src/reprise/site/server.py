"""`reprise serve`: bind, say where, and answer until somebody presses Ctrl-C."""

from __future__ import annotations

import errno
import socket
import threading

import uvicorn
from rich.console import Console

from reprise.site.app import create_app
from reprise.site.settings import Settings

__all__ = ["serve"]

GRACE = 2  # seconds that open streams get when the server ends


def serve(host: str, port: int, console: Console) -> None:
    """Serve the page.

    Args:
        host: the address to bind.
        port: the port to bind.
        console: where to say what is served.

    Raises:
        ValueError: another address without a secret.
        OSError: the port is taken, with the next free one.
    """
    settings = Settings.from_environment(host, port)
    with _bound(host, port) as bound:
        app = create_app(settings)
        threading.Thread(target=app.state.library.warm_up, daemon=True).start()  # while the reader opens a browser
        # Answers are not logged: addresses of readers have no place in a log. Errors are.
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=GRACE
        )
        console.print(f"reprise is at {settings.base}", markup=False, soft_wrap=True)
        console.print("Ctrl-C ends it; runs that were started go on.", style="dim")
        uvicorn.Server(config).run([bound])


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            text = f"port {port} is taken, perhaps by another `reprise serve`; try --port {port + 1}"
            raise RuntimeError(text) from error
        raise RuntimeError(f"cannot serve at {host}, port {port}: {error.strerror or error}") from error
    return bound
