"""Running an app until it is told to stop, on this machine only unless there is a token."""

import ipaddress
import signal
import socket

import uvicorn
from fastapi import APIRouter

from kg.api.app import LOOPBACK_NAMES, create_app
from kg.errors import ConfigError

GRACE_S = 20  # what a request in flight has at most when the server stops


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_address(host: str, token: str | None) -> None:
    """Refuse to be reachable by others without a token.

    Raises:
        ConfigError: ``host`` is not the local machine and there is no token.
    """
    if token is None and not is_loopback(host):
        raise ConfigError(f"--host {host} can be reached by others; set KGFUSE_API_TOKEN, or use 127.0.0.1.")


def serve(*routers: APIRouter, host: str, port: int, token: str | None, title: str = "kgfuse") -> None:
    """Answer with ``routers`` at ``host:port`` until SIGTERM or Ctrl-C, then finish what is in flight.

    Raises:
        ConfigError: see ``check_address``, or the address cannot be listened on.
    """
    check_address(host, token)
    # With a token, a page that rebinds a name of its own to this server still cannot read from it.
    app = create_app(*routers, token=token, allowed_hosts=LOOPBACK_NAMES if is_loopback(host) else ("*",), title=title)
    with _listening(host, port) as listener:
        address = f"[{host}]" if ":" in host else host
        print(f"Listening on http://{address}:{listener.getsockname()[1]}, its page is /docs", flush=True)  # noqa: T201
        config = uvicorn.Config(app, timeout_graceful_shutdown=GRACE_S, server_header=False, log_level="warning")
        # uvicorn stops gracefully on SIGTERM and then raises it again, which would end the process by the signal.
        previous = signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            signal.signal(signal.SIGTERM, previous)


def _listening(host: str, port: int) -> socket.socket:
    try:
        addresses = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        family, kind, protocol, _, address = addresses[0]
        # With the protocol named, asyncio turns Nagle's delay off; without, each answer took 40 ms longer.
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(2048)
        except BaseException:
            listener.close()
            raise
        return listener
    except (OSError, OverflowError) as error:
        raise ConfigError(f"Cannot listen on {host}:{port}: {error}; choose another --host or --port.") from error
