"""A directory of many entries that another client made. $MEDIAFS_TEST_ENTRIES says how many: 10,000 without it."""

import concurrent.futures
import ctypes
import math
import os
import pathlib
import random
import subprocess
import time
import unittest

from harness import Mount
from harness.suite import Case, Run
from posix_calls import write

ENTRIES = int(os.environ.get("MEDIAFS_TEST_ENTRIES", "10000"))
PAGE = 1000
CLIENT_THREADS = 16
# Of the daemon's memory, for each name that it has listed: the name twice, attributes, and its place in two maps.
MOST_BYTES_A_NAME = 2500
SPACE_BYTES = 48 << 20

_libc = ctypes.CDLL(None, use_errno=True)
_libc.opendir.restype = _libc.readdir.restype = ctypes.c_void_p
_libc.telldir.restype = ctypes.c_long
_libc.readdir.argtypes = _libc.telldir.argtypes = _libc.closedir.argtypes = [ctypes.c_void_p]
_libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
# struct dirent of 64-bit Linux: inode, offset, length and type come before the name.
NAME_OFFSET = 19


def entries(stream):
    """Names from where the stream stands, without the two dots."""
    while entry := _libc.readdir(stream):
        if (name := os.fsdecode(ctypes.string_at(entry + NAME_OFFSET))) not in (".", ".."):
            yield name


def peak_bytes(mount):
    """The most memory that the daemon ever had."""
    text = pathlib.Path(f"/proc/{mount.child.pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("VmHWM:"))


class LongDirectory(Case):
    # The larger forms take their time.
    limit_s = max(120, ENTRIES // 100)

    @classmethod
    def setUpClass(cls):
        cls.place = Run.fresh_place()
        cls.names = {f"upload-{number:06}.jpg" for number in range(ENTRIES)}
        mount = Mount(Run.store, cls.place[0], Run.folder("fill"), prefix=cls.place[1])
        client = Run.store.client()

        def put(name):
            client.put_object(Bucket=mount.bucket, Key=mount.key(f"long/{name}"), Body=b"")

        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(CLIENT_THREADS) as pool:
            list(pool.map(put, sorted(cls.names)))
        cls.say(f"{ENTRIES} objects put in {time.monotonic() - began:.1f} s")

    @staticmethod
    def say(text):
        print(f"    {text}", flush=True)

    def opened(self, path):
        stream = _libc.opendir(os.fsencode(path))
        self.addCleanup(_libc.closedir, stream)
        return stream

    def test_a_listing_is_complete_and_costs_its_pages(self):
        # On a busy machine this takes longer than the usual TTL, after which a name is asked for once more.
        mount = self.new_mount("--ttl", "2m", place=self.place)
        empty = peak_bytes(mount)
        with self.counted(mount) as counted:
            began = time.monotonic()
            names = os.listdir(mount.path / "long")
            first = time.monotonic() - began
        self.assertEqual((len(names), set(names)), (ENTRIES, self.names))
        self.assertLessEqual(counted["ListObjectsV2"], math.ceil(ENTRIES / PAGE) + 1)
        self.assertEqual(counted["GetObject"], 0)
        with self.counted(mount) as again:
            began = time.monotonic()
            lines = subprocess.run(f"ls -U '{mount.path}/long' | wc -l", shell=True, check=True, stdout=subprocess.PIPE).stdout
            second = time.monotonic() - began
        self.assertEqual(int(lines), ENTRIES)
        self.say(f"listed in {first:.2f} s with {dict(counted.by_operation)}, by ls in {second:.2f} s with {dict(again.by_operation)}")
        with self.counted(mount) as asked:
            began = time.monotonic()
            lines = subprocess.run(f"ls -lU '{mount.path}/long' | grep -c '^-rw-r--r--'", shell=True, check=True, stdout=subprocess.PIPE).stdout
            third = time.monotonic() - began
        self.say(f"listed with attributes in {third:.2f} s with {dict(asked.by_operation)}")
        self.assertEqual(int(lines), ENTRIES)
        self.assertLessEqual(asked["HeadObject"], ENTRIES + 1)
        grown = peak_bytes(mount) - empty
        self.say(f"peak memory {peak_bytes(mount) >> 20} MiB, {grown >> 20} MiB more than empty")
        self.assertLess(grown, SPACE_BYTES + MOST_BYTES_A_NAME * ENTRIES)

    def test_positions_hold(self):
        stream = self.opened(self.new_mount(place=self.place).path / "long")
        positions, order = {}, []
        at = _libc.telldir(stream)
        for name in entries(stream):
            positions[name] = at
            order.append(name)
            at = _libc.telldir(stream)
        self.assertEqual((len(order), set(order)), (ENTRIES, self.names))
        draw = random.Random(1)
        for name in [order[-1], order[2], *draw.sample(order, 20)]:
            _libc.seekdir(stream, positions[name])
            rest = entries(stream)
            self.assertEqual(next(rest), name)
        _libc.seekdir(stream, positions[order[-PAGE]])
        self.assertEqual(list(entries(stream)), order[-PAGE:])

    def test_what_is_removed_and_made_meanwhile_disturbs_nothing(self):
        place = self.place
        mount = self.new_mount(place=place)
        folder = mount.path / "long"
        stream = self.opened(folder)
        shown = [name for _, name in zip(range(ENTRIES // 2), entries(stream))]
        draw = random.Random(2)
        gone = set(draw.sample(shown, 50)) | set(draw.sample(sorted(self.names - set(shown)), 50))
        fresh = {f"new-{number:03}" for number in range(50)}
        for name in gone:
            os.unlink(folder / name)
        for name in fresh:
            write(folder / name, b"")
        shown += entries(stream)
        self.assertEqual(len(shown), len(set(shown)), "no name comes twice")
        self.assertLessEqual(self.names - gone, set(shown), "what was there all the time comes")
        self.assertLessEqual(set(shown), self.names | fresh)
        type(self).names = self.names - gone | fresh
        self.assertEqual(sorted(os.listdir(folder)), sorted(self.names))
        mount.settle()
        self.assertEqual(set(mount.files("long/")), {f"long/{name}" for name in self.names})

    @unittest.skipUnless("MEDIAFS_TEST_ENTRIES" in os.environ, "each name is looked up: a minute; asked for by $MEDIAFS_TEST_ENTRIES")
    def test_zz_it_is_removed_as_a_whole(self):
        mount = self.new_mount(place=self.place)
        with self.counted(mount) as counted:
            began = time.monotonic()
            subprocess.run(["rm", "-r", mount.path / "long"], check=True)
            took = time.monotonic() - began
        self.say(f"removed in {took:.1f} s, sent after {time.monotonic() - began:.1f} s with {dict(counted.by_operation)}")
        self.assertEqual((os.listdir(mount.path), mount.keys()), ([], []))
        self.assertLess(counted["DeleteObjects"] + counted["DeleteObject"], ENTRIES / 20)
