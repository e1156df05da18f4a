"""The web server of `--preview`: a thread per connection, bounded in number, time and size."""

import importlib.resources
import json
import logging
import re
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from engine.errors import EngineError, UsageError
from streaming.preview.actions import Actions
from streaming.preview.guard import is_known_host, is_loopback_host, is_own_page, may_act
from streaming.preview.live_view import LiveView
from streaming.preview.viewers import MOST_VIEWERS

_log = logging.getLogger("unseen.preview")

_MOST_CONNECTIONS = 8 * MOST_VIEWERS
"""A browser opens up to six to one server."""

_SILENCE_S = 10.0
"""A connection that neither sends nor takes anything for so long is closed."""

_MOST_BODY_BYTES = 4096
_VIEWER = re.compile(r"[A-Za-z0-9]{1,32}")
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "json": "application/json",
    "png": "image/png",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def page_files() -> dict[str, bytes]:
    """The page, by file name."""
    folder = importlib.resources.files("streaming.preview") / "page"
    return {item.name: item.read_bytes() for item in folder.iterdir() if item.name.rpartition(".")[2] in _TYPES}


def check_host(host: str, *, insecure: bool) -> None:
    """Refuse an address other machines can reach, unless the user insists.

    Raises:
        UsageError: with what to do instead.
    """
    if not is_loopback_host(host) and not insecure:
        raise UsageError(
            f"--preview-host {host} can be reached from other machines, and whoever reaches it sees the cameras: "
            "leave it out, or add --insecure on a network you trust"
        )


class PreviewServer:
    """Serves the page until `close`.

    Args:
        view: what is shown.
        actions: what may be done.
        host: address or name to listen on.
        port: 0 for any free one.
        insecure: also listen where other machines can connect; neither encrypted nor authenticated.

    Attributes:
        url: where the page is.

    Raises:
        UsageError: reachable by others without `insecure`, in use, or not an address of this machine.
    """

    def __init__(
        self, view: LiveView, actions: Actions, *, host: str = "127.0.0.1", port: int = 8080, insecure: bool = False
    ) -> None:
        check_host(host, insecure=insecure)
        if not 0 <= port <= 65535:
            raise UsageError(f"--preview {port}: a port from 1 to 65535 is needed, or 0 for a free one")
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            self._server = _Server((host, port), view, actions, family)
        except OSError as error:
            raise UsageError(
                f"--preview {port}: cannot listen on {host} ({error.strerror or error}); choose another port"
            ) from None
        # "Every address" is none a browser could open.
        name = socket.gethostname() if host in ("0.0.0.0", "::") else host
        shown = f"[{name}]" if ":" in name else name
        self.url = f"http://{shown}:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="preview-web", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and cut every connection; closing twice is allowed."""
        if not self._thread.is_alive():
            return
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = _MOST_CONNECTIONS

    def __init__(
        self, address: tuple[str, int], view: LiveView, actions: Actions, family: int = socket.AF_INET
    ) -> None:
        self.address_family = family
        self.view = view
        self.actions = actions
        self.files = page_files()
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            full = len(self._connections) >= _MOST_CONNECTIONS
            if not full:
                self._connections.add(request)
        if full:
            super().shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        with self._lock:
            open_now = list(self._connections)
        for connection in open_now:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # its browser was faster

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Browsers come and go in the middle of an answer; that is no event.
        _log.debug("a viewer's connection ended", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "unseen", ""
    timeout = _SILENCE_S
    wbufsize = -1  # head and body in one packet
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if not self._is_answered():
            return
        name = url.path.lstrip("/") or "index.html"
        if name in self.server.files:
            self._send(self.server.files[name], name.rpartition(".")[2])
        elif not is_own_page(self.headers):
            self._refuse(HTTPStatus.FORBIDDEN, "only the page of this server may read this")
        elif name == "feed":
            self._feed(parse_qs(url.query))
        elif name.startswith("snapshots/"):
            self._snapshot(name.removeprefix("snapshots/"))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing at this address")

    def do_POST(self) -> None:
        if not self._is_answered():
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _MOST_BODY_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {_MOST_BODY_BYTES} bytes are read")
            return
        body = self.rfile.read(int(length))
        if self.path != "/do":
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing at this address")
            return
        if not may_act(self.headers):
            self._refuse(HTTPStatus.FORBIDDEN, "only the page of this server may do this")
            return
        try:
            request = json.loads(body)
        except (ValueError, RecursionError):
            self._refuse(HTTPStatus.BAD_REQUEST, "the request is not JSON")
            return
        try:
            result = self.server.actions.do(request)
        except EngineError as error:
            self._answer(HTTPStatus.CONFLICT, {"error": str(error)})
        except Exception as error:  # the viewer should read it rather than see a cut connection
            _log.warning("a viewer's request failed: %s %s", type(error).__name__, error)
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": f"the engine failed: {type(error).__name__}"})
        else:
            self._answer(HTTPStatus.OK, {"result": result})

    def _is_answered(self) -> bool:
        known = is_known_host(self.headers.get("Host"))
        if not known:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "open this page by its address or as localhost")
        return known

    def _feed(self, query: dict[str, list[str]]) -> None:
        viewer, source = query.get("viewer", [""])[0], query.get("source", [""])[0]
        after = query.get("after", ["0"])[0]
        if not _VIEWER.fullmatch(viewer):
            self._refuse(HTTPStatus.BAD_REQUEST, "a viewer's name is 1 to 32 letters and digits")
        elif not self.server.view.viewers.admit(viewer, source):
            self._refuse(
                HTTPStatus.SERVICE_UNAVAILABLE, f"{MOST_VIEWERS} viewers watch already, the most: close one of them"
            )
        else:
            number = int(after) if after.isdecimal() and len(after) < 20 else 0
            self._send(self.server.view.next(source, number), "bin")

    def _snapshot(self, name: str) -> None:
        content = self.server.actions.snapshots.file(name)
        if content is None:
            self._refuse(HTTPStatus.NOT_FOUND, "this snapshot is not kept any more: take another one")
            return
        self._send(content, name.rpartition(".")[2], {"Content-Disposition": f'attachment; filename="{name}"'})

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        # What follows on this connection may be a body nobody read.
        self.close_connection = True
        self._answer(status, {"error": why})

    def _answer(self, status: HTTPStatus, value: Any) -> None:
        self._send(json.dumps(value).encode(), "json", status=status)

    def _send(
        self, content: bytes, kind: str, extra: dict[str, str] | None = None, status: HTTPStatus = HTTPStatus.OK
    ) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, **(extra or {})}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Content-Type", _TYPES.get(kind, "application/octet-stream"))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug(format, *args)
