"""Running an app until it is told to stop, on this machine only unless there is a token."""

import asyncio
import contextlib
import ctypes
import ipaddress
import math
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
from fastapi import APIRouter

from kg.api.app import LOOPBACK_NAMES, create_app
from kg.api.gate import DEADLINE_S, GatedRouter
from kg.errors import ConfigError

KEEP_ALIVE_S = 75
"""Longer than the pools of clients and proxies keep an idle connection, so that it is theirs to end: where the server
ends one just as a request comes, that request is lost. With uvicorn's 5 s that were 55 of 114,000 under full load."""
GRACE_S = 5  # what a request in flight has beyond its deadline when the server stops
SETTLE_S = 0.01  # for handshakes that have begun
SO_ATTACH_FILTER = 26  # asm-generic/socket.h; the socket module does not name it
LINGER_S = 1  # how long a connection that is kept alive may still bring a request then


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


class Server(uvicorn.Server):
    """Stops without losing a request: uvicorn's own would reset connections that it has not looked at yet."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.state.draining = True  # type: ignore[union-attr]
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        loop = asyncio.get_running_loop()
        for listener in sockets or ():
            _take_no_more(listener)
            loop.remove_reader(listener)
        await asyncio.sleep(SETTLE_S)  # what asyncio has accepted becomes a connection of a server that is still open
        for server, listener in zip(self.servers, sockets or (), strict=True):
            waiting = list(_accepted(listener))
            server.close()  # from here on the kernel refuses
            for connection in waiting:
                await loop.connect_accepted_socket(self._protocol, connection)
        ends = time.monotonic() + LINGER_S
        while self.server_state.connections and time.monotonic() < ends:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


def _take_no_more(listener: socket.socket) -> None:
    """Have the kernel leave new connections unanswered; who asks again finds a closed port.

    Closing alone would reset those that come between the last look at the queue and the close. Without this filter
    (it is of Linux) that gap of microseconds is left.
    """
    if sys.platform != "linux":
        return
    # classic BPF over the TCP header: where the flags (byte 13) have SYN, keep nothing of the packet, else all
    program = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    with contextlib.suppress(OSError):
        listener.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code))
        )


def _accepted(listener: socket.socket) -> Iterator[socket.socket]:
    """Connections that the kernel has made and nobody has taken."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # there is none, or it has gone again
            return
        connection.setblocking(False)
        yield connection


def serve(*routers: APIRouter, host: str, port: int, token: str | None, title: str = "kgfuse") -> None:
    """Answer with ``routers`` at ``host:port`` until SIGTERM or Ctrl-C, then finish what is in flight.

    Raises:
        ConfigError: see ``check_address``, or the address cannot be listened on.
    """
    check_address(host, token)
    # With a token, a page that rebinds a name of its own to this server still cannot read from it.
    app = create_app(*routers, token=token, allowed_hosts=LOOPBACK_NAMES if is_loopback(host) else ("*",), title=title)
    deadlines = [gate.deadline_s for router in routers if isinstance(router, GatedRouter) for gate in router.gates]
    with _listening(host, port) as listener:
        address = f"[{host}]" if ":" in host else host
        print(f"Listening on http://{address}:{listener.getsockname()[1]}, its page is /docs", flush=True)  # noqa: T201
        grace = math.ceil(max(deadlines, default=DEADLINE_S)) + GRACE_S
        config = uvicorn.Config(
            app,
            loop="asyncio",
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=grace,
            server_header=False,
            log_level="warning",
        )
        # uvicorn stops gracefully on SIGTERM and then raises it again, which would end the process by the signal.
        previous = signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            Server(config).run(sockets=[listener])
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
