"""What is measured, one target after the other: each figure with its unit, and the requests that MinIO counted."""

import collections
import concurrent.futures
import os
import pathlib
import random
import time

from targets import Usage

MIB = 1 << 20
PHOTO_BYTES = 32 << 10
THREADS = 8
# Files of a directory that is renamed and removed.
MOVED = 300
# Of a burst of files or bytes until all of them are in the bucket.
SETTLE_S = 600


def noise(size, seed=0):
    """Bytes that no store or disk can compress."""
    chance = random.Random(seed)
    return b"".join(chance.randbytes(min(MIB, size - at)) for at in range(0, size, MIB))


def drop_page_cache():
    """So that the next read comes from the disk; only root may."""
    os.sync()
    if os.geteuid() == 0:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")


def seconds(work):
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


class Cases:
    """All cases on one target. `rows`: {name: (value, unit)}; `requests`: {step: {operation: count}} for each `count`."""

    def __init__(self, store, target, count, big_mib):
        self.store, self.target, self.count, self.big_mib = store, target, count, big_mib
        self.client = store.client()
        self.rows, self.requests, self.used = {}, {}, Usage()
        # Pages that this program listed itself.
        self.looks = 0
        # Gives what samples the target's process in a case; None: nothing does.
        self.profile = None
        self.openings = 0
        self.failures = []
        self.photo = noise(PHOTO_BYTES)

    def run(self):
        for case in (self.small, self.tree, self.big):
            self.case = case.__name__
            try:
                case()
            except Exception as error:  # a peer that can't do a step is a result, not the end of the run
                self.failures.append(f"{self.target.name}, {case.__name__}: " + " ".join(f"{type(error).__name__}: {error}".split())[:200])
                print(f"  {self.failures[-1]}", flush=True)
        self.row("CPU time of all this", self.used.cpu_s, "s")
        self.row("peak memory", self.used.peak_mib, "MiB")

    def row(self, name, value, unit):
        self.rows[name] = (value, unit)
        print(f"  {self.target.name:16} {name:44} {value:10.3f} {unit}", flush=True)

    # ------------------------------------------------------------ what cases are made of

    def opened(self, bucket):
        return Opened(self, f"{self.target.name.replace(' ', '-')}-{bucket}")

    def fill(self, bucket, keys):
        """Another client's files."""
        if not self.target.is_remote:
            for key, data in keys:
                path = self.target.path / key
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            return
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda item: self.client.put_object(Bucket=bucket, Key=item[0], Body=item[1]), keys))

    def keys(self, bucket, prefix=""):
        found = {}
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            self.looks += 1
            found.update((item["Key"], item["Size"]) for item in page.get("Contents", []))
        return found

    def settled(self, bucket, prefix, is_reached):
        """Waits until the bucket is as it shall be below `prefix`."""
        end = time.monotonic() + SETTLE_S
        while self.target.is_remote and not is_reached(self.keys(bucket, prefix)):
            if time.monotonic() > end:
                raise TimeoutError(f"{prefix}: not in the bucket within {SETTLE_S} s")
            time.sleep(0.02)

    def holds(self, bucket, prefix, count, size):
        self.settled(bucket, prefix, lambda keys: sum(1 for key, has in keys.items() if has == size and not key.endswith("/")) == count)

    def counted(self, step, work, each=1):
        """Runs `work`; the server's count of what it caused, for each of `each`, but for our own look at the bucket."""
        before, looks = self.store.counted(), self.looks
        took = seconds(work)
        # Its metrics lag behind the answers by a moment.
        time.sleep(0.3)
        asked = self.store.counted() - before
        asked["ListObjectsV2"] -= self.looks - looks
        asked = +asked
        if self.target.is_remote:
            self.requests[step] = {name: count / each for name, count in sorted(asked.items())}
        return took

    # ------------------------------------------------------------------------- the cases

    def small(self):
        """Photos, saved, viewed and looked for."""
        with self.opened("small") as bucket:
            for folder in ("one", "eight"):
                self.target.make(folder)
            names = {folder: [f"{folder}/{at}.jpg" for at in range(self.count)] for folder in ("one", "eight")}

            def one():
                for name in names["one"]:
                    self.target.save(name, self.photo)

            def eight():
                with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
                    list(pool.map(lambda name: self.target.save(name, self.photo), names["eight"]))

            begun = time.perf_counter()
            self.row("save 32 KiB", seconds(one) / self.count * 1e3, "ms")
            self.holds(bucket, "one/", self.count, PHOTO_BYTES)
            self.row("save 32 KiB, until in the bucket", (time.perf_counter() - begun) / self.count * 1e3, "ms")
            begun = time.perf_counter()
            eight()
            self.holds(bucket, "eight/", self.count, PHOTO_BYTES)
            self.row("the same by eight threads", (time.perf_counter() - begun) / self.count * 1e3, "ms")
        with self.opened("small") as bucket:
            self.target.make("more")
            more = [f"more/{at}.jpg" for at in range(self.count)]

            def save():
                for name in more:
                    self.target.save(name, self.photo)
                self.holds(bucket, "more/", self.count, PHOTO_BYTES)

            self.counted("save", save, self.count)
            drop_page_cache()
            view = lambda: [self.target.read(name) for name in names["one"]]
            self.row("open and read 32 KiB, first time", self.counted("view", view, self.count) / self.count * 1e3, "ms")
            self.row("open and read 32 KiB, again", min(self.counted("view again", view, self.count) for _ in range(2)) / self.count * 1e3, "ms")
            missing = [f"one/no-{at}.jpg" for at in range(self.count)]
            look = lambda: [self.target.exists(name) for name in missing]
            self.row("exists() of a missing name", self.counted("exists, missing", look, self.count) / self.count * 1e3, "ms")

    def tree(self):
        """Directories of photos: listed, renamed, removed."""
        listed, moved = self.count * 10, min(self.count, MOVED)
        with self.opened("tree") as bucket:
            self.fill(bucket, ((f"wide/{at:06}.jpg", b"photo") for at in range(listed)))
            self.fill(bucket, ((f"moved/{at:06}.jpg", self.photo) for at in range(moved)))
        with self.opened("tree") as bucket:
            walk = lambda: self.target.walk("wide")
            self.row(f"scandir() and stat() of {listed:,}", self.counted("list", walk) * 1e3, "ms")
            self.row(f"scandir() and stat() of {listed:,}, again", self.counted("list again", walk) * 1e3, "ms")
            if self.target.has_directories:

                def rename():
                    self.target.rename("moved", "renamed")
                    self.holds(bucket, "renamed/", moved, PHOTO_BYTES)
                    self.settled(bucket, "moved/", lambda keys: not keys)

                self.row(f"rename a directory of {moved}, until done", self.counted("rename a directory", rename) * 1e3, "ms")

            def remove():
                folder = "renamed" if self.target.has_directories else "moved"
                self.target.remove(folder)
                self.settled(bucket, f"{folder}/", lambda keys: not keys)

            self.row("remove that directory, until done", self.counted("remove", remove) * 1e3, "ms")

    def big(self):
        """One large file."""
        size = self.big_mib * MIB
        data = noise(size)
        with self.opened("big") as bucket:
            begun = time.perf_counter()
            self.target.save("out.bin", data)
            self.row(f"write {self.big_mib} MiB until close()", self.big_mib / (time.perf_counter() - begun), "MiB/s")
            self.settled(bucket, "out.bin", lambda keys: keys.get("out.bin") == size)
            self.row(f"write {self.big_mib} MiB until in the bucket", self.big_mib / (time.perf_counter() - begun), "MiB/s")
            self.fill(bucket, [("in.bin", data)])
        with self.opened("big"):
            drop_page_cache()
            read = lambda: self.target.read("in.bin")
            self.row(f"read {self.big_mib} MiB, first time", self.big_mib / self.counted("big read", read), "MiB/s")
            self.row(f"read {self.big_mib} MiB, again", self.big_mib / min(seconds(read) for _ in range(2)), "MiB/s")


class Opened:
    """The target on a bucket of its own, from nothing cached to closed; adds up what it used."""

    def __init__(self, cases, bucket):
        self.cases, self.bucket, self.sampling = cases, bucket, None

    def __enter__(self):
        known = {found["Name"] for found in self.cases.client.list_buckets()["Buckets"]}
        if self.bucket not in known:
            self.cases.store.make_bucket(self.bucket)
        self.cases.target.open(self.bucket)
        self.cases.openings += 1
        if self.cases.profile:
            self.sampling = self.cases.profile(self.cases.target.pid(), f"{self.cases.openings}-{self.cases.case}")
            self.sampling.__enter__()
        return self.bucket

    def __exit__(self, *_):
        if self.sampling:
            self.sampling.__exit__()
        used, total = self.cases.target.usage(), self.cases.used
        self.cases.used = Usage(total.cpu_s + used.cpu_s, max(total.peak_mib, used.peak_mib))
        self.cases.target.close()


def differ(rows):
    """Row names of several targets in their order, each once."""
    return list(collections.OrderedDict.fromkeys(name for of_target in rows for name in of_target))
