"""Shopify's toxiproxy before a store: a slow line, resets, cuts, silence."""

import json
import os
import pathlib
import shutil
import urllib.request

from .process import Child
from .waiting import free_port, wait_until


class Toxiproxy:
    """A proxy on a free port before `store`, that stands in for it: clients that go through it are given this.

    Everything else that `Mount` asks of a store is asked of the store itself, past the proxy.
    """

    def __init__(self, store, folder: pathlib.Path):
        self.store, self.folder = store, folder
        self.port, self.control_port = free_port(), free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.child = None
        folder.mkdir(parents=True, exist_ok=True)

    def __getattr__(self, name):
        return getattr(self.store, name)

    @staticmethod
    def program():
        kept = pathlib.Path(os.environ.get("MEDIAFS_DEV") or pathlib.Path.home() / ".cache/mediafs-dev") / "bin/toxiproxy-server"
        found = os.environ.get("TOXIPROXY") or shutil.which("toxiproxy-server") or (str(kept) if kept.exists() else None)
        if not found:
            raise RuntimeError("toxiproxy-server is not on PATH: scripts/test installs it, or set TOXIPROXY to its path")
        return found

    def __enter__(self):
        self.child = Child([self.program(), "-host", "127.0.0.1", "-port", self.control_port], self.folder / "log", life_s=3600)
        wait_until(self._made, "toxiproxy answers")
        return self

    def __exit__(self, *_):
        self.child.stop()

    def _made(self):
        try:
            self._send("POST", "proxies", {"name": "s3", "listen": f"127.0.0.1:{self.port}", "upstream": f"127.0.0.1:{self.store.port}"})
        except OSError:
            return False
        return True

    def _send(self, method, path, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.control_port}/{path}", method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, data=json.dumps(body).encode() if body is not None else None, timeout=10) as answer:
            return answer.read()

    def add_toxic(self, kind, stream="downstream", toxicity=1.0, **attributes):
        """`kind`: latency, bandwidth, slow_close, timeout, reset_peer, slicer, limit_data; see toxiproxy's README."""
        toxic = {"name": f"{kind}_{stream}", "type": kind, "stream": stream, "toxicity": toxicity, "attributes": attributes}
        self._send("POST", "proxies/s3/toxics", toxic)

    def clear_toxics(self):
        for toxic in json.loads(self._send("GET", "proxies/s3/toxics")):
            self._send("DELETE", f"proxies/s3/toxics/{toxic['name']}")

    def enable(self, on):
        """Off: connections break, and new ones are refused."""
        self._send("POST", "proxies/s3", {"enabled": on})
