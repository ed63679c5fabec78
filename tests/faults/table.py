"""The faults: what goes wrong, on which store, and what of it is excused beyond the deadline's EIO.

`rules` are the emulator's (fields in src/emulator/control.rs), `toxics` toxiproxy's before MinIO. A fault that is on and
off by turns has `cycle_s`. What can't be said so has a `during` of its own: it is called once with the world and the
seconds that it has, and leaves no fault behind.
"""

import dataclasses
import time
from typing import Callable

LOST = {"fault": "lose_reply", "probability": 0.3}


@dataclasses.dataclass
class Fault:
    name: str
    about: str
    store: str = "emulator"
    rules: list = dataclasses.field(default_factory=list)
    toxics: list = dataclasses.field(default_factory=list)
    # Seconds on, seconds off.
    cycle_s: tuple | None = None
    during: Callable | None = None
    # The bucket is away so long that the cache fills with what can't go: then there is no room, as on a full disk.
    fills_cache: bool = False
    # Only files that come in one GET: nothing can tell a wrong byte in a range of a longer one.
    small_only: bool = False
    # A final refusal of everything below this directory, which has a program of its own.
    denied: str = ""


def status(code, name, probability=0.3, **more):
    return {"fault": "status", "status": code, "code": name, "probability": probability, **more}


def lost(operation, probability=0.3):
    return {"fault": "lose_reply", "operation": operation, "probability": probability}


def at_random(kind, offsets, probability, **more):
    """One rule for each offset; a body shorter than that is spared."""
    return [{"fault": kind, "at": at, "operation": "GetObject", "probability": probability, **more} for at in offsets]


OFFSETS = [3_000_000, 700_000, 150_000, 20_000, 1_000, 0]


def outage(refuse):
    """A bucket that is gone for longer than every timeout, in the middle of the time."""

    def during(world, seconds):
        time.sleep(seconds * 0.2)
        if refuse:
            world.proxy.enable(False)
        else:
            world.proxy.add_toxic("timeout", timeout=0)
            world.proxy.add_toxic("timeout", stream="upstream", timeout=0)
        time.sleep(max(seconds * 0.5, world.deadline_s * 1.5))
        if refuse:
            world.proxy.enable(True)
        else:
            world.proxy.clear_toxics()
        time.sleep(seconds * 0.3)

    return during


def stalls(world, seconds):
    """One request in ten hangs, or its answer does, for as long as the rules stand; they are renewed now and then."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        world.store.add_fault(fault="hang", probability=0.08)
        world.store.add_fault(fault="stall_body", at=0, operation="GetObject", probability=0.05)
        world.store.add_fault(fault="stall_body", at=90_000, operation="GetObject", probability=0.1)
        time.sleep(min(left, world.deadline_s * 4))
        world.store.clear_faults()


def clocks(world, seconds):
    for ahead_seconds in (2400, -2400):
        world.store.add_fault(fault="clock", ahead_seconds=ahead_seconds)
        time.sleep(seconds / 2)
        world.store.clear_faults()


FAULTS = [
    Fault("500", "30 % of all requests: 500 InternalError", rules=[status(500, "InternalError")]),
    Fault("503", "30 % of all requests: 503 SlowDown", rules=[status(503, "SlowDown")]),
    Fault("429", "30 % of all requests: 429 TooManyRequests, on R2", store="r2", rules=[status(429, "TooManyRequests")]),
    Fault("403-burst", "bursts of 403 that mean throttling, on R2", store="r2", rules=[status(403, "AccessDenied", 0.7)], cycle_s=(2, 4)),
    Fault(
        "403-final", "403 for all writes below one directory", denied="denied",
        rules=[status(403, "AccessDenied", 1.0, key="denied/*", operation=name) for name in ("PutObject", "CreateMultipartUpload", "CopyObject")],
    ),
    Fault("reset", "20 % of all requests: connection reset", rules=[{"fault": "reset", "probability": 0.2}]),
    Fault("cut", "bodies cut short by an orderly end", rules=at_random("cut_body", OFFSETS, 0.2)),
    Fault("cut-rst", "bodies cut short by a reset", rules=at_random("cut_body", OFFSETS, 0.2, reset=True)),
    Fault("flip", "a byte turned over in 20 % of the bodies", small_only=True, rules=at_random("flip_byte", OFFSETS[1:], 0.2)),
    Fault("lost-put", "30 % of PutObject: done, answer lost", rules=[lost("PutObject")]),
    Fault("lost-complete", "50 % of CompleteMultipartUpload: done, answer lost", rules=[lost("CompleteMultipartUpload", 0.5)]),
    Fault("lost-create", "50 % of CreateMultipartUpload: done, answer lost", rules=[lost("CreateMultipartUpload", 0.5)]),
    Fault("lost-part", "30 % of UploadPart and UploadPartCopy: done, answer lost", rules=[lost("UploadPart"), lost("UploadPartCopy")]),
    Fault("lost-copy", "50 % of CopyObject: done, answer lost", rules=[lost("CopyObject", 0.5)]),
    Fault("lost-delete", "50 % of DeleteObject and DeleteObjects: done, answer lost", rules=[lost("DeleteObject", 0.5), lost("DeleteObjects", 0.5)]),
    Fault("lost-all", "20 % of everything: done, answer lost, on R2", store="r2", rules=[{"fault": "lose_reply", "probability": 0.2}]),
    Fault("hang", "requests and bodies that stop and stay", during=stalls),
    Fault("latency-100ms", "100 ms on each answer", store="minio", toxics=[("latency", {"latency": 100, "jitter": 30})]),
    Fault("latency-1s", "1 s on each answer", store="minio", toxics=[("latency", {"latency": 1000, "jitter": 300})]),
    Fault(
        "slow-line", "256 KB/s up, 1 MB/s down, each connection", store="minio",
        toxics=[("bandwidth", {"rate": 1000}), ("bandwidth", {"rate": 256, "stream": "upstream"})],
    ),
    Fault("limit-data", "each connection ends after 3 MB", store="minio", toxics=[("limit_data", {"bytes": 3_000_000})], cycle_s=(3, 2)),
    Fault("clock", "the store's clock 40 minutes ahead, then behind", during=clocks),
    Fault("outage", "nobody listens, for longer than every timeout", store="minio", during=outage(refuse=True), fills_cache=True),
    Fault("silence", "connections are taken and nothing comes, for longer than every timeout", store="minio", during=outage(refuse=False), fills_cache=True),
]  # fmt: skip
