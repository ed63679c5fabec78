"""A cache directory on a disk that is far too small: a tmpfs of 64 MiB, full or filled by others."""

import contextlib
import errno
import hashlib
import os
import pathlib
import random
import signal
import subprocess
import threading
import time
import unittest

from harness import wait_until
from harness.mount import detach
from harness.suite import Case, Run

MIB = 1 << 20
DISK = 64 * MIB


def block(number, seed=0):
    return random.Random((seed << 32) + number).randbytes(MIB)


@unittest.skipUnless(os.geteuid() == 0, "mounting a tmpfs takes root")
class FullDisk(Case):
    limit_s = 300

    def small_disk(self, size=DISK):
        folder = Run.folder("disk")
        disk = folder / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "mediafs-test", disk], check=True)
        self.addCleanup(detach, disk)
        return disk

    def mount_on(self, disk, *options, **more):
        return self.new_mount(*options, cache=disk / "cache", **more)

    def write_large(self, path, mib, seed=0, until=None):
        """Writes and closes; how many MiB there are. `until`: asked after each."""
        with open(path, "wb", buffering=0) as file:
            for number in range(mib):
                data = block(number, seed)
                while data:
                    data = data[file.write(data) :]
                if until and until(number + 1):
                    return number + 1
        return mib

    def check_object(self, mount, name, mib, seed=0):
        body = mount.store.client().get_object(Bucket=mount.bucket, Key=mount.key(name))["Body"]
        for number in range(mib):
            self.assertEqual(hashlib.md5(body.read(MIB)).digest(), hashlib.md5(block(number, seed)).digest(), f"MiB {number}")
        self.assertEqual(body.read(1), b"")

    def put_large(self, mount, name, mib, seed=0):
        path = Run.folder("large") / "large"
        self.write_large(path, mib, seed)
        mount.store.client().upload_file(str(path), mount.bucket, mount.key(name))
        path.unlink()

    def fill(self, disk):
        """Another program takes every block that is left."""
        number = os.open(disk / "others", os.O_CREAT | os.O_WRONLY, 0o600)
        with contextlib.suppress(OSError):
            while os.write(number, bytes(MIB)):
                pass
        with contextlib.suppress(OSError):
            while os.write(number, bytes(4096)):
                pass
        os.close(number)
        self.assertEqual(os.statvfs(disk).f_bavail, 0)

    # ------------------------------------------------------------------ writing

    def test_a_gib_goes_through_64_mib(self):
        disk = self.small_disk()
        mount = self.mount_on(disk)
        self.write_large(mount.path / "big", 1024)
        mount.settle(200)
        self.check_object(mount, "big", 1024)
        self.assertEqual(mount.unfinished_uploads(), [])
        self.assertEqual(mount.stop(), 0)

    def test_a_cache_size_smaller_than_the_file(self):
        mount = self.new_mount("--cache-size", "48M")
        self.write_large(mount.path / "big", 200)
        mount.settle(100)
        self.check_object(mount, "big", 200)

    def test_killed_in_the_middle(self):
        disk = self.small_disk()
        mount = self.mount_on(disk)
        self.write_large(mount.path / "closed", 100, seed=1)
        path, reached = mount.path / "big", threading.Event()

        def write():
            with contextlib.suppress(OSError):
                self.write_large(path, 1024, seed=2, until=lambda mib: reached.set() if mib == 300 else None)

        writer = threading.Thread(target=write)
        writer.start()
        self.assertTrue(reached.wait(100))
        mount.kill()
        writer.join(60)
        again = self.mount_on(disk, place=self.place_of(mount), folder=mount.folder)
        again.settle(100)
        self.check_object(again, "closed", 100, seed=1)
        size = again.head("big")["ContentLength"]
        self.assertGreaterEqual(size, 300 * MIB)
        body = again.object("big")
        for number in range(300):
            self.assertEqual(body[number * MIB : (number + 1) * MIB], block(number, 2), f"MiB {number}")
        self.assertEqual(again.unfinished_uploads(), [])
        self.assertEqual((again.path / "big").stat().st_size, size)

    def test_killed_after_the_close(self):
        """What was acknowledged by close() is there, though most of it was nowhere but in an unfinished upload."""
        disk = self.small_disk()
        mount = self.mount_on(disk)
        self.write_large(mount.path / "big", 150, seed=3)
        mount.kill()
        again = self.mount_on(disk, place=self.place_of(mount), folder=mount.folder)
        again.settle(100)
        self.check_object(again, "big", 150, seed=3)
        self.assertEqual(again.unfinished_uploads(), [])

    def test_rename_read_and_patch_while_it_goes_up(self):
        disk = self.small_disk()
        mount = self.mount_on(disk)
        with open(mount.path / "part", "w+b", buffering=0) as file:
            for number in range(150):
                file.write(block(number))
            os.rename(mount.path / "part", mount.path / "whole")
            self.assertEqual(os.pread(file.fileno(), MIB, 70 * MIB), block(70))
            for number in range(150, 200):
                file.write(block(number))
            os.pwrite(file.fileno(), block(70, seed=4), 70 * MIB)
        mount.settle(100)
        self.assertEqual(mount.files(), ["whole"])
        body = mount.object("whole")
        for number in range(200):
            self.assertEqual(body[number * MIB : (number + 1) * MIB], block(number, 4 if number == 70 else 0), f"MiB {number}")

    def test_unlinked_while_it_is_written(self):
        disk = self.small_disk()
        mount = self.mount_on(disk)
        with open(mount.path / "big", "wb", buffering=0) as file:
            for number in range(120):
                file.write(block(number))
            os.unlink(mount.path / "big")
        mount.settle(60)
        wait_until(lambda: not mount.unfinished_uploads(), "the upload is aborted")
        self.assertEqual(mount.files(), [])
        self.write_large(mount.path / "next", 100)
        mount.settle(100)
        self.check_object(mount, "next", 100)

    def test_enospc_leaves_what_was_acknowledged_intact(self):
        """The bucket is away, so no room can be made."""
        if Run.write_mode == "through":
            self.skipTest("close() waits for the bucket")
        disk = self.small_disk()
        mount = self.mount_on(disk, "--timeout", "5s")
        (mount.path / "before").write_bytes(block(0))
        mount.settle()
        mount.store.child.signal(19)
        try:
            (mount.path / "acknowledged").write_bytes(block(1))
            written = 0
            with open(mount.path / "big", "wb", buffering=0) as file:
                with self.assertRaises(OSError) as caught:
                    while True:
                        written += file.write(block(written // MIB, 5)[written % MIB :])
            self.assertEqual(caught.exception.errno, errno.ENOSPC)
            self.assertGreater(written, 40 * MIB)
            self.assertEqual((mount.path / "big").stat().st_size, written)
            mount.kill()
        finally:
            mount.store.child.signal(18)
        again = self.mount_on(disk, place=self.place_of(mount), folder=mount.folder)
        again.settle(100)
        self.assertEqual((again.object("before"), again.object("acknowledged")), (block(0), block(1)))
        expected = b"".join(block(number, 5) for number in range(written // MIB + 1))[:written]
        self.assertEqual(again.object("big"), expected)

    # ------------------------------------------------------------------ reading

    def test_reads_go_on_beside_a_full_disk(self):
        disk = self.small_disk()
        mount = self.mount_on(disk)
        self.put_large(mount, "big", 1024)
        self.fill(disk)
        digest, expected = hashlib.md5(), hashlib.md5()
        with open(mount.path / "big", "rb", buffering=0) as file:
            for number in range(1024):
                data = b""
                while len(data) < MIB:
                    data += file.read(MIB - len(data))
                digest.update(data)
                expected.update(block(number))
            self.assertEqual(file.read(1), b"")
        self.assertEqual(digest.digest(), expected.digest())

    def test_reads_go_on_beside_dirty_data(self):
        """A program holds the cache full of what isn't in the bucket yet."""
        disk = self.small_disk()
        mount = self.mount_on(disk)
        self.put_large(mount, "big", 200, seed=6)
        with open(mount.path / "dirty", "wb", buffering=0) as file:
            for number in range(52):
                file.write(block(number))
            with open(mount.path / "big", "rb", buffering=0) as big:
                for number in range(200):
                    data = b""
                    while len(data) < MIB:
                        data += big.read(MIB - len(data))
                    self.assertEqual(data, block(number, 6), f"MiB {number}")
                    os.pwrite(file.fileno(), b"x", 51 * MIB)
                    os.pwrite(file.fileno(), block(51)[:1], 51 * MIB)
        mount.settle(60)
        self.check_object(mount, "dirty", 52)

    # ------------------------------------------------------------------ the journal

    def test_a_full_disk_takes_every_record(self):
        disk = self.small_disk()
        mount = self.mount_on(disk)
        files = [open(mount.path / f"file-{number}", "wb", buffering=0) for number in range(200)]
        for number, file in enumerate(files):
            file.write(block(number)[:5000])
        self.fill(disk)
        for file in files:
            file.close()
        for number in range(0, 200, 4):
            os.rename(mount.path / f"file-{number}", mount.path / f"moved-{number}")
        for number in range(1, 200, 4):
            os.unlink(mount.path / f"file-{number}")
        for number in range(2, 200, 4):
            os.chmod(mount.path / f"file-{number}", 0o600)
        mount.settle(100)
        expected = {f"moved-{n}" for n in range(0, 200, 4)} | {f"file-{n}" for n in range(200) if n % 4 > 1}
        self.assertEqual(set(mount.files()), expected)
        mount.kill()
        again = self.mount_on(disk, place=self.place_of(mount), folder=mount.folder)
        again.settle(60)
        for name in expected:
            self.assertEqual(again.object(name), block(int(name.split("-")[1]))[:5000])
        self.assertEqual(set(again.files()), expected)

    # ------------------------------------------------------------------ limits

    def test_limit_and_floor_hold_at_every_instant(self):
        disk = self.small_disk()
        limit, floor = 40 * MIB, 8 * MIB
        mount = self.mount_on(disk, "--cache-size", "40M", "--free-space-floor", "8M")
        self.put_large(mount, "read", 150, seed=7)
        worst, done = {"used": 0, "free": DISK, "looks": 0}, threading.Event()

        def look():
            while not done.is_set():
                # A count takes milliseconds: a file that goes meanwhile would be in it beside the one that came for it.
                with stopped(mount.child):
                    used = allocated(mount.cache / "data")
                worst["used"] = max(worst["used"], used)
                worst["free"] = min(worst["free"], os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize)
                worst["looks"] += 1
                time.sleep(0.003)

        failures = []

        def run(work):
            try:
                work()
            except BaseException as error:  # noqa: BLE001
                failures.append(error)

        def small():
            for number in range(1500):
                (mount.path / f"small-{number}").write_bytes(block(number, 8)[: 1 + number * 37 % 9000])

        def read():
            for turn in range(2):
                with open(mount.path / "read", "rb", buffering=0) as file:
                    while file.read(MIB):
                        pass

        work = [lambda: self.write_large(mount.path / "one", 150, 9), lambda: self.write_large(mount.path / "two", 90, 10), small, read]
        looking = threading.Thread(target=look)
        looking.start()
        threads = [threading.Thread(target=run, args=(each,)) for each in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(200)
        mount.settle(100)
        done.set()
        looking.join()
        print(f"{worst['looks']} looks: at most {worst['used']} of {limit} bytes used, at least {worst['free']} free, floor {floor}")
        self.assertEqual(failures, [])
        self.assertGreater(worst["looks"], 100)
        self.assertLessEqual(worst["used"], limit)
        self.assertGreaterEqual(worst["free"], floor)
        self.check_object(mount, "one", 150, 9)
        self.check_object(mount, "two", 90, 10)


@contextlib.contextmanager
def stopped(child):
    """The process stands still inside: every thread of it, which the kernel does not wait for by itself."""
    tasks = pathlib.Path(f"/proc/{child.pid}/task")
    child.signal(signal.SIGSTOP)
    try:
        wait_until(lambda: all(state(task) == "T" for task in tasks.iterdir()), "the daemon stands still", 10, every=0.0005)
        yield
    finally:
        child.signal(signal.SIGCONT)


def state(task):
    """The letter of proc(5); a thread that is gone is as good as stopped."""
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "T"


def allocated(folder):
    """Bytes on the disk of all files below, as du counts them."""
    total = 0
    for shard in os.scandir(folder):
        for entry in os.scandir(shard.path):
            with contextlib.suppress(FileNotFoundError):
                total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total
