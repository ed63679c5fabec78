"""A door before a store: an HTTP proxy that can be shut, held, or told to refuse single requests.

It forwards requests byte for byte, the Host header included, so signatures hold. What it counts are requests that came to
the door, whatever the store said to them; also while the store itself can't be asked.
"""

import collections
import http.client
import http.server
import socket
import threading
import time
import urllib.parse

from .waiting import free_port

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}
BLOCK = 1 << 16


class Gate:
    """`endpoint` is what a mount is given instead of the store's own.

    open(): requests pass. shut(): nobody listens, and what was connected is reset. hold(): connections are taken and
    nothing is answered until it opens again; with open(lost=True) what came in between never is, as after a cable was
    pulled; open(held=True) holds from the first. `rule(method, key)` may answer itself: (status, S3 code), None to pass.
    """

    def __init__(self, store):
        self.store, self.port = store, free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.rule = lambda method, key: None
        self.requests = []
        self._passing = threading.Event()
        self._server, self._sockets = None, set()

    def __enter__(self):
        self.open()
        return self

    def __exit__(self, *_):
        self.shut()

    def open(self, lost=False, held=False):
        if lost or held:
            self._passing = threading.Event()
        if not held:
            self._passing.set()
        if self._server is None:
            self._server = _Server(self)
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def hold(self):
        self._passing = threading.Event()

    def shut(self):
        server, self._server = self._server, None
        if server:
            server.shutdown()
            server.server_close()
        for connection in list(self._sockets):
            try:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it had ended by itself
        self._passing.set()  # who was held finds its connection gone

    def counted(self, method=None, key=None):
        """Requests that came so far, of one method, and to one key (relative to the bucket)."""
        return sum(1 for _, m, k in list(self.requests) if method in (None, m) and key in (None, k))

    def times(self, method, key):
        """When the requests came, in seconds of the monotonic clock."""
        return [at for at, m, k in list(self.requests) if (m, k) == (method, key)]

    def by_method(self):
        return collections.Counter(method for _, method, _ in list(self.requests))


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads, allow_reuse_address, request_queue_size = True, True, 128

    def __init__(self, gate):
        self.gate = gate
        super().__init__(("127.0.0.1", gate.port), _Handler)

    def handle_error(self, *_):
        pass  # a client or the store went away: that is what the gate is for

    def process_request(self, request, address):
        self.gate._sockets.add(request)
        super().process_request(request, address)

    def shutdown_request(self, request):
        self.gate._sockets.discard(request)
        super().shutdown_request(request)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = BLOCK

    def _forward(self):
        gate = self.server.gate
        key = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).lstrip("/").partition("/")[2]
        gate.requests.append((time.monotonic(), self.command, key))
        passing = gate._passing
        passing.wait()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if refused := gate.rule(self.command, key):
            return self._refuse(*refused)
        upstream = http.client.HTTPConnection("127.0.0.1", gate.store.port, timeout=120)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in HOP_BY_HOP | {"expect"}:
                    upstream.putheader(name, value)
            upstream.endheaders(body or None)
            self._answer(upstream.getresponse())
        except (OSError, http.client.HTTPException):
            self.close_connection = True
        finally:
            upstream.close()

    def _answer(self, answer):
        length = answer.headers.get("Content-Length")
        data = None if length is not None or self.command == "HEAD" else answer.read()
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.headers.items():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        if data is not None and answer.status not in (204, 304):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if data is not None:
            self.wfile.write(data)
        while block := answer.read(BLOCK):
            self.wfile.write(block)

    def _refuse(self, status, code):
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>refused at the gate</Message></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(0 if self.command == "HEAD" else len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def log_message(self, *_):
        pass

    def handle_expect_100(self):
        self.send_response_only(100)
        self.end_headers()
        self.wfile.flush()
        return True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward
