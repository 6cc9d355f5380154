"""How a server stops: with no request lost."""

import http.client
import json
import signal
import time
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Thread

from tests.builders import tiny_snapshot
from tests.kg.serving import served

PROBLEM = "application/problem+json"


class Caller(Thread):
    """Sends requests one after the other until the server refuses a connection; counts what became of them."""

    def __init__(self, port: int, body: bytes, *, keep_alive: bool) -> None:
        super().__init__()
        self.port, self.body, self.keep_alive = port, body, keep_alive
        self.became: Counter[str] = Counter()

    def run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while True:
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
                try:
                    connection.connect()
                except ConnectionRefusedError:
                    self.became["refused"] += 1
                    return
            try:
                connection.request("POST", "/link", self.body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                json.loads(answer.read())
                self.became[str(answer.status)] += 1
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.became[f"cut: {type(error).__name__}: {error}"] += 1
                return
            if not self.keep_alive or answer.will_close:
                connection.close()
                connection = None


def test_no_request_is_lost_when_the_server_is_told_to_stop(tmp_path: Path) -> None:
    """Clients that keep their connection and clients that open one for each request, in the middle of their work."""
    tiny_snapshot(tmp_path / "snapshots" / "v1")
    body = json.dumps({"text": "Acme Bank owns five Corvus Funds. " * 200}).encode()
    with served(tmp_path) as server:
        callers = [Caller(server.port, body, keep_alive=bool(i % 2)) for i in range(8)]
        for caller in callers:
            caller.start()
        time.sleep(1)
        server.process.send_signal(signal.SIGTERM)
        for caller in callers:
            caller.join(timeout=60)
        _, error = server.process.communicate(timeout=60)
    assert (server.process.returncode, error) == (0, "")
    became = sum((caller.became for caller in callers), Counter[str]())
    assert set(became) == {"200", "refused"}, became
    assert became["refused"] == len(callers)
    assert became["200"] > len(callers)


def test_a_server_that_stops_says_that_it_is_not_ready_and_finishes_what_it_has(tmp_path: Path) -> None:
    tiny_snapshot(tmp_path / "snapshots" / "v1")
    with served(tmp_path, "--deadline", "60") as server, ExitStack() as held:
        long, idle = (
            held.enter_context(closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)))
            for _ in range(2)
        )
        idle.request("GET", "/readyz")
        assert json.loads(idle.getresponse().read())["status"] == "ready"
        texts = ["Acme Bank owns five Corvus Funds. " * 2_000] * 40
        long.request("POST", "/link/batch", json.dumps({"texts": texts}), {"Content-Type": "application/json"})
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        idle.request("GET", "/readyz")
        answer = idle.getresponse()
        assert (answer.status, answer.getheader("content-type"), answer.getheader("connection")) == (
            503,
            PROBLEM,
            "close",
        )
        assert "stopping" in json.loads(answer.read())["detail"]
        answer = long.getresponse()
        assert len(json.loads(answer.read())["results"]) == len(texts)
        assert server.process.wait(timeout=60) == 0
