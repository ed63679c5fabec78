"""A mount of the real binary: started, asked, ended in every way that a test needs, and always detached."""

import collections
import ctypes
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

from botocore.exceptions import ClientError

from .process import Child
from .waiting import wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
MNT_DETACH = 2


def binary():
    """The program under test: $MEDIAFS, or what cargo built last."""
    if named := os.environ.get("MEDIAFS"):
        return named
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [path for path in (target / "release/mediafs", target / "debug/mediafs") if path.exists()]
    if not built:
        raise RuntimeError("there is no mediafs binary: run `cargo build --release`, or set MEDIAFS to its path")
    return str(max(built, key=lambda path: path.stat().st_mtime))


def mounts_below(folder):
    """Mount points in `folder`, the innermost first. Read from the kernel's table: a dead mount isn't touched."""
    folder = str(folder)
    points = []
    for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        point = line.split(" ")[1].encode().decode("unicode_escape")
        if point == folder or point.startswith(folder + "/"):
            points.append(point)
    return sorted(points, key=len, reverse=True)


def detach(point):
    """Lazy unmount: it never waits, and it is no error where nothing is mounted."""
    if ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(str(point)), MNT_DETACH) != 0 and os.geteuid() != 0:
        subprocess.run(["fusermount3", "-u", "-z", str(point)], stderr=subprocess.DEVNULL, check=False)


class Mount:
    """`mediafs mount` over a store.

    `folder` keeps the mount point, the cache directory and the log; mounting again with the same folder is what a
    restart of the daemon is. `options` go to the command line as they are, `wrapper` goes before it. `endpoint` is the
    store's own where nothing stands before it.
    """

    def __init__(self, store, bucket, folder, *, prefix="", options=(), env=None, cache=None, endpoint=None, wrapper=(), life_s=900):
        self.store, self.bucket, self.prefix = store, bucket, prefix
        self.folder = pathlib.Path(folder)
        self.path = self.folder / "mnt"
        self.cache = pathlib.Path(cache) if cache else self.folder / "cache"
        self.log = self.folder / "log"
        self.endpoint = endpoint or store.endpoint
        self.options, self.extra_env, self.life_s, self.wrapper = list(options), dict(env or {}), life_s, list(wrapper)
        self.child = None
        self.path.mkdir(parents=True, exist_ok=True)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.close()

    # ------------------------------------------------------------------ life

    def command(self):
        source = f"{self.store.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")
        fixed = ["--endpoint-url", self.endpoint, "--region", self.store.region, "--cache-dir", self.cache]
        return [*self.wrapper, binary(), "mount", source, self.path, *fixed, *self.options]

    def launch(self):
        """Starts the daemon without waiting for the mount."""
        self.child = Child(self.command(), self.log, {**self.store.env(), **self.extra_env}, self.life_s)
        return self

    def start(self, seconds=30):
        self.launch()
        try:
            wait_until(self._ready, f"{self.path} answers", seconds)
        except BaseException:
            self.close()
            raise
        return self

    def _ready(self):
        if not self.child.running():
            raise RuntimeError(f"mediafs ended with {self.child.process.returncode} before it mounted:\n{self.child.tail()}")
        return str(self.path) in mounts_below(self.path) and os.path.ismount(self.path)

    def stop(self, seconds=120):
        """SIGTERM: drains, and returns the exit code."""
        self.child.signal(signal.SIGTERM)
        return self._ended(seconds)

    def unmount(self, seconds=120):
        """What `umount` does, then the daemon's exit code after it drained."""
        tool = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
        subprocess.run([*tool, str(self.path)], check=True, timeout=30)
        return self._ended(seconds)

    def _ended(self, seconds):
        try:
            return self.child.wait(seconds)
        finally:
            self.close()

    def kill(self):
        """SIGKILL, and the dead mount point is taken away, so that the next start finds a clean one."""
        if self.child:
            self.child.kill()
        detach(self.path)

    def kill_only(self):
        """SIGKILL with the dead mount point left behind, as a crash leaves it."""
        self.child.kill()

    def close(self):
        if self.child and self.child.running():
            self.child.kill()
        self.child = None
        for point in mounts_below(self.path):
            detach(point)

    def forget_cache(self):
        """The next start knows nothing."""
        shutil.rmtree(self.cache, ignore_errors=True)

    # ----------------------------------------------------------------- asking

    def status(self):
        command = [binary(), "status", str(self.path), "--json"]
        return json.loads(subprocess.run(command, check=True, timeout=30, stdout=subprocess.PIPE).stdout)

    def flush(self, path=None, seconds=120):
        """Returns when everything under `path` (the whole mount) is in the bucket."""
        subprocess.run([binary(), "flush", str(path or self.path)], check=True, timeout=seconds, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def settle(self, seconds=60):
        """Waits until nothing is left to send, without pushing: what the daemon does by itself."""

        def quiet():
            now = self.status()
            return now["dirty_files"] == 0 and now["uploading"] == 0

        wait_until(quiet, "everything is in the bucket", seconds, every=0.1)

    def requests(self):
        """{operation: requests so far}: the server's own count where it keeps one, else the daemon's."""
        counted = self.store.counted()
        return counted if counted is not None else self.own_requests()

    def own_requests(self):
        return collections.Counter(self.status()["requests"])

    # ---------------------------------------------------------------- the bucket

    def key(self, name):
        return f"{self.prefix}/{name}" if self.prefix else str(name)

    def keys(self, below=""):
        """Every key below `below`, relative to the mount, as another S3 client lists them."""
        start = len(self.key(""))
        pages = self.store.client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.key(below))
        return [found["Key"][start:] for page in pages for found in page.get("Contents", [])]

    def files(self, below=""):
        """The keys that aren't markers of directories."""
        return [key for key in self.keys(below) if not key.endswith("/")]

    def object(self, name):
        """The bytes in the bucket."""
        return self.store.client().get_object(Bucket=self.bucket, Key=self.key(name))["Body"].read()

    def head(self, name, **extra):
        return self.store.client().head_object(Bucket=self.bucket, Key=self.key(name), **extra)

    def put(self, name, body, **extra):
        """Another writer, behind the mount's back. R2 takes one write of a key a second, and this one has time."""
        end = time.monotonic() + 30
        while True:
            try:
                return self.store.client().put_object(Bucket=self.bucket, Key=self.key(name), Body=body, **extra)
            except ClientError as error:
                if error.response["Error"]["Code"] != "TooManyRequests" or time.monotonic() > end:
                    raise
            time.sleep(0.2)

    def unfinished_uploads(self):
        """Keys of multipart uploads that nobody completed or aborted. MinIO finds them only without a prefix, in a list that it
        keeps in memory: one whose Complete lost its client half-way is listed for ever, though MinIO itself doesn't know it
        any more when it is asked for its parts (of 200 completions cut off within 12 ms, 12). Such a one is none."""
        found = self.store.client().list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        return [upload["Key"] for upload in found if upload["Key"].startswith(self.key("")) and self.is_unfinished(upload)]

    def is_unfinished(self, upload):
        try:
            self.store.client().list_parts(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchUpload":
                return False
            raise
        return True

    def reported_damage(self):
        """What the daemon took for rot of its cache disk. Where nobody harmed that, each is a mistake of ours."""
        log = self.log.read_text(errors="replace") if self.log.exists() else ""
        return re.findall(r".*(?:unsent data is damaged|cached bytes are damaged).*", log)

    def shown_log(self, lines=40):
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(text.splitlines()[-lines:]))
