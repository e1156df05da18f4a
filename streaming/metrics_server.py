"""The small HTTP server of `--metrics`: `/metrics`, `/healthz` and `/readyz`."""

import json
import logging
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from engine.errors import UsageError
from streaming.endpoint import is_loopback
from streaming.health import Health
from streaming.metrics import Metrics, require_prometheus

_log = logging.getLogger("unseen.metrics")

_MAX_CONNECTIONS = 16
_CLIENT_TIMEOUT_S = 5.0


def parse_address(text: str, insecure: bool = False) -> tuple[str, int]:
    """(host, port) of `[HOST:]PORT`; without a host this machine only.

    Raises:
        UsageError: malformed, or reachable from other machines without `insecure`: HTTP is not encrypted.
    """
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise UsageError(f"--metrics {text!r}: write [HOST:]PORT, e.g. 9100, with a port up to 65535")
    if not insecure and not is_loopback(f"tcp://{f'[{host}]' if ':' in host else host}:{port}"):
        raise UsageError(
            f"--metrics {text}: can be read from other machines, and HTTP is not encrypted: use 127.0.0.1, "
            "or add --insecure on a network you trust"
        )
    return host, int(port)


class MetricsServer:
    """`/metrics`, `/healthz` and `/readyz` over HTTP, on threads of its own.

    Args:
        address: `[HOST:]PORT`; port 0 takes a free one, see `port`.
        health: answers the two questions, also before there are metrics.
        insecure: also bind what other machines can reach.

    Attributes:
        metrics: set once the engine runs; `/metrics` is empty before.
        host, port: in effect.

    Raises:
        UsageError: the address is malformed, not allowed or taken.
    """

    def __init__(self, address: str, health: Health, *, insecure: bool = False) -> None:
        require_prometheus()
        host, port = parse_address(address, insecure)
        self.metrics: Metrics | None = None
        handler = type("Handler", (_Handler,), {"pages": self, "health": health})
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server = type("Server", (_Server,), {"address_family": family})
        try:
            self._server = server((host, port), handler)
        except OSError as error:
            raise UsageError(f"--metrics {address}: cannot be bound ({error.strerror or error})") from None
        self.host, self.port = host, int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Release the address; closing twice is allowed."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> "MetricsServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client that idles must not hold up the end of the engine

    def __init__(self, *arguments: Any) -> None:
        self._places = threading.Semaphore(_MAX_CONNECTIONS)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("request failed", exc_info=True)  # a client that went away is its own business


class _Handler(BaseHTTPRequestHandler):
    pages: MetricsServer
    health: Health
    timeout = _CLIENT_TIMEOUT_S
    server_version = "unseen"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            metrics = self.pages.metrics
            text = b"" if metrics is None else metrics.text()
            self._reply(200, text, "text/plain; version=0.0.4; charset=utf-8")
        elif path in ("/healthz", "/readyz"):
            ok, content = self.health.healthz() if path == "/healthz" else self.health.readyz()
            self._reply(200 if ok else 503, json.dumps(content).encode() + b"\n", "application/json")
        else:
            self._reply(404, b"/metrics, /healthz and /readyz are here\n", "text/plain")

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *arguments: Any) -> None:
        _log.debug(format, *arguments)

    def _reply(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
