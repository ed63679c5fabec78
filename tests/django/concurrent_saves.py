#!/usr/bin/env python3
"""Two hosts and many threads save the same names through stock FileSystemStorage; nothing may be lost or overwritten.

    concurrent_saves.py [--store minio|emulator|r2] [--threads 8] [--names 50]

Two mounts of one bucket in through mode, as two servers have them. Each thread of each saves the same names. Django
then asks for another name wherever a close() says EEXIST, so that every save ends as an object of its own. Ends with
the figures and `N passed, N failed`, where each save is one; exits 0 if all passed.
"""

import argparse
import collections
import concurrent.futures
import os
import pathlib
import sys
import tempfile
import threading

import django.conf
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import Mount, open_store  # noqa: E402
from harness.suite import clean  # noqa: E402

django.conf.settings.configure(USE_TZ=True)


def save_all(storages, threads, names):
    """[(host, name that Django returned or the error, content)] of every save."""
    barrier = threading.Barrier(threads * len(storages))

    def worker(host, number):
        results = []
        for name in names:
            content = f"host {host}, thread {number}, {name}\n".encode() * 50
            barrier.wait()
            try:
                results.append((host, storages[host].save(f"uploads/{name}", ContentFile(content)), content))
            except Exception as error:  # noqa: BLE001 - every kind of failure is a result here
                results.append((host, error, content))
        return results

    with concurrent.futures.ThreadPoolExecutor(threads * len(storages)) as pool:
        jobs = [pool.submit(worker, host, number) for host in range(len(storages)) for number in range(threads)]
        return [result for job in jobs for result in job.result()]


def judge(results, stored):
    """The saves that went wrong, each as a line; `stored` is {key: bytes} of the bucket."""
    wrong = [f"host {host}: {name!r}" for host, name, _ in results if isinstance(name, Exception)]
    kept = [(name, content) for _, name, content in results if not isinstance(name, Exception)]
    taken = collections.Counter(name for name, _ in kept)
    wrong += [f"{name} was returned {count} times" for name, count in taken.items() if count > 1]
    wrong += [f"{name} is not in the bucket" for name, _ in kept if name not in stored]
    wrong += [f"{name} holds other bytes" for name, content in kept if name in stored and stored[name] != content]
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", choices=["minio", "emulator", "r2"], default="minio")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--names", type=int, default=50)
    args = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="mediafs-test-", dir=os.environ.get("MEDIAFS_TEST_DIR")))
    names = [f"photo{number:03}.jpg" for number in range(args.names)]
    try:
        with open_store(args.store, work / "store") as store:
            bucket = store.make_bucket("saves")
            options = ["--write-mode", "through"]
            with Mount(store, bucket, work / "one", options=options) as one, Mount(store, bucket, work / "two", options=options) as two:
                storages = [FileSystemStorage(location=mount.path) for mount in (one, two)]
                results = save_all(storages, args.threads, names)
                stored = {key: one.object(key) for key in one.files("uploads/")}
                wrong = judge(results, stored)
                if wrong:
                    print("\n".join(wrong[:20] + [one.shown_log(), two.shown_log()]), file=sys.stderr)
    finally:
        clean(work)
    expected = 2 * args.threads * args.names
    if len(stored) != expected:
        wrong.append(f"{len(stored)} objects")
        print(f"{len(stored)} objects in the bucket, {expected} expected", file=sys.stderr)
    print(f"{args.store}: {expected} saves, {len(stored)} objects: {expected - min(len(wrong), expected)} passed, {len(wrong)} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
