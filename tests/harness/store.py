"""The buckets that the suites run on: MinIO, and mediafs' own emulator with and without R2's rules.

A store serves on a free port of loopback with its data in a folder that its owner gives it.
"""

import collections
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import urllib.request

import boto3
from botocore.config import Config

from .mount import binary
from .process import Child
from .waiting import free_port, wait_until

# Where MinIO's name for a request isn't the one that S3's documentation uses.
MINIO_NAMES = {
    "CopyObjectPart": "UploadPartCopy",
    "DeleteMultipleObjects": "DeleteObjects",
    "NewMultipartUpload": "CreateMultipartUpload",
    "PutObjectPart": "UploadPart",
}


class Store:
    """A running S3 server with one administrator's key."""

    name = ""
    access_key = secret_key = ""
    region = "us-east-1"
    # Of the bucket's URL; r2:// tells the daemon to keep to R2's rules by itself.
    scheme = "s3"

    def __init__(self, folder: pathlib.Path, port=None):
        self.folder = folder
        self.port = port or free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.child = None
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.child:
            self.child.signal(signal.SIGCONT)
            self.child.stop()
            self.child = None

    def env(self):
        """What a client needs to reach it, and nothing from the caller's own set-up."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    def client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(
                s3={"addressing_style": "path"},
                max_pool_connections=32,
                retries={"max_attempts": 3},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def make_bucket(self, name):
        self.client().create_bucket(Bucket=name)
        return name

    def _answers(self):
        if not self.child.running():
            raise RuntimeError(f"{self.name} ended at once:\n{self.child.tail()}")
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def counted(self):
        """{operation: requests so far} as the server itself counted them; None where it doesn't count."""
        return None

    def received_bytes(self):
        """Bytes of all requests so far, None where the server doesn't count."""
        return None


class Minio(Store):
    name = "minio"
    access_key = secret_key = "minioadmin"

    @staticmethod
    def program():
        beside_go = pathlib.Path.home() / "go/bin/minio"
        found = os.environ.get("MINIO") or shutil.which("minio") or (str(beside_go) if beside_go.exists() else None)
        if not found:
            raise RuntimeError("minio is not on PATH: scripts/test installs it, or set MINIO to its path")
        return found

    def start(self):
        env = {
            "MINIO_ROOT_USER": self.access_key,
            "MINIO_ROOT_PASSWORD": self.secret_key,
            "MINIO_SITE_REGION": self.region,
            "MINIO_PROMETHEUS_AUTH_TYPE": "public",
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
        }
        command = [self.program(), "server", "--quiet", "--address", f"127.0.0.1:{self.port}", self.folder / "data"]
        self.child = Child(command, self.folder / "log", env, life_s=3600)
        wait_until(self._healthy, "MinIO answers")

    def _healthy(self):
        if not self._answers():
            return False
        try:
            # `cluster` waits for the object layer, `live` only for the process.
            return urllib.request.urlopen(f"{self.endpoint}/minio/health/cluster", timeout=2).status == 200
        except OSError:
            return False

    def _metrics(self):
        return urllib.request.urlopen(f"{self.endpoint}/minio/metrics/v3/api/requests", timeout=10).read().decode()

    def counted(self):
        counts = collections.Counter()
        for labels, value in re.findall(r"minio_api_requests_total\{([^}]*)\} (\S+)", self._metrics()):
            name = re.search(r'name="([^"]+)"', labels)[1]
            counts[MINIO_NAMES.get(name, name)] += int(float(value))
        return counts

    def received_bytes(self):
        return self._traffic("received")

    def sent_bytes(self):
        """Bytes of all answers so far."""
        return self._traffic("sent")

    def _traffic(self, way):
        found = re.findall(r"minio_api_requests_traffic_" + way + r"_bytes\{[^}]*\} (\S+)", self._metrics())
        return sum(int(float(value)) for value in found)


class Emulator(Store):
    """mediafs' own S3 over HTTP. It makes its bucket itself, one for each server."""

    name = "emulator"
    access_key, secret_key = "mediafs", "mediafs-secret"

    def __init__(self, folder, port=None, bucket="bucket", r2=False, controlled=False, secret_key=None):
        super().__init__(folder, port)
        self.secret_key = secret_key or self.secret_key
        self.bucket, self.r2, self.controlled = bucket, r2, controlled
        if r2:
            self.name, self.region, self.scheme = "r2", "auto", "r2"

    def start(self):
        command = [binary(), "emulator", "--address", f"127.0.0.1:{self.port}", "--folder", self.folder / "data"]
        command += ["--bucket", self.bucket] + (["--r2"] if self.r2 else [])
        command += ["--control"] if self.controlled else []
        command += ["--secret-key", self.secret_key]
        self.child = Child(command, self.folder / "log", life_s=3600, talks=self.controlled)
        if self.controlled:
            self.child.hear()
        wait_until(self._answers, "the emulator answers")

    def _ask(self, command):
        answer = json.loads(self.child.ask(json.dumps(command)))
        if "error" in answer:
            raise ValueError(f"the emulator refuses {command}: {answer['error']}")
        return answer

    def add_fault(self, **rule):
        """Requests go wrong from now on (fields: src/emulator/control.rs); needs `controlled`. Returns the rule's number."""
        return self._ask({"add": rule})["id"]

    def fault_hits(self, number):
        return self._ask({"hits": number})["hits"]

    def clear_faults(self):
        self._ask("clear")

    def make_bucket(self, name):
        """Its one bucket: callers keep apart by prefix (see `Suite.fresh_place`)."""
        return self.bucket


def open_store(kind, folder, port=None):
    """A store by its name on the command line: minio, emulator or r2."""
    if kind == "minio":
        return Minio(folder, port)
    if kind in ("emulator", "r2"):
        return Emulator(folder, port, r2=kind == "r2")
    raise ValueError(f"no store is called {kind!r}: minio, emulator or r2")
