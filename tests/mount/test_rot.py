"""Bytes that change in the cache directory behind the daemon's back: never read as right, never sent."""

import errno
import os

from harness import open_store, wait_until
from harness.suite import Case, Run
from posix_calls import pattern, refused, write


def data_files(mount):
    return [path for path in (mount.cache / "data").rglob("*") if path.is_file() and path.stat().st_size]


def flip(mount, at, quiet=False):
    """One bit at this offset of every data file that reaches so far; `quiet` leaves the times as they were."""
    flipped = 0
    for path in data_files(mount):
        before = path.stat()
        if before.st_size <= at:
            continue
        with open(path, "r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1]))
        if quiet:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        flipped += 1
    return flipped


def read_past_the_kernel(path):
    """The kernel's own pages are right and would hide what is below them."""
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        parts = []
        while part := file.read(1 << 20):
            parts.append(part)
        return b"".join(parts)


class Cached(Case):
    """The bucket has it: a miss."""

    damages_the_cache = True

    def damaged(self, change, down):
        mount = self.new_mount()
        data = pattern(1, 3_000_000)
        mount.put("fetched", data)
        write(mount.path / "written", data)
        mount.settle()
        self.assertEqual((mount.path / "fetched").read_bytes(), data)
        if down:
            self.assertEqual(mount.stop(), 0)
        change(mount)
        if down:
            mount.start()
        for name in ("fetched", "written"):
            self.assertEqual(read_past_the_kernel(mount.path / name), data, name)
        self.assertEqual(mount.status()["failed"], [])
        mount.settle()
        self.assertEqual(mount.object("fetched"), data)
        self.assertEqual(mount.object("written"), data)
        return mount

    def test_flipped_while_it_runs(self):
        mount = self.damaged(lambda mount: self.assertEqual(flip(mount, 1_234_567), 2), down=False)
        self.assertEqual(mount.status()["damaged_blocks"], 2)

    def test_flipped_while_it_is_down(self):
        self.damaged(lambda mount: self.assertEqual(flip(mount, 77), 2), down=True)

    def test_flipped_without_a_trace_in_the_times(self):
        self.damaged(lambda mount: self.assertEqual(flip(mount, 2_999_999, quiet=True), 2), down=True)

    def test_cut_short_longer_and_gone(self):
        for change in (lambda path: os.truncate(path, 1000), lambda path: os.truncate(path, 4_000_000), os.unlink):
            with self.subTest(change):
                self.damaged(lambda mount: [change(path) for path in data_files(mount)], down=True)

    def test_all_zeros(self):
        self.damaged(lambda mount: [path.write_bytes(bytes(path.stat().st_size)) for path in data_files(mount)], down=True)

    def test_killed_and_flipped(self):
        mount = self.new_mount()
        data = pattern(2, 500_000)
        write(mount.path / "f", data)
        mount.settle()
        mount.kill()
        flip(mount, 5)
        mount.start()
        self.assertEqual((mount.path / "f").read_bytes(), data)
        mount.settle()
        self.assertEqual(mount.object("f"), data)


class Unsent(Case):
    """The bucket doesn't have it: an error, and nothing of it goes up."""

    damages_the_cache = True

    def setUp(self):
        super().setUp()
        self.own = self.enterContext(open_store(Run.store.name, Run.folder("store")))

    def check(self, down, quiet=False):
        mount = self.new_mount("--drain-timeout", "1s", store=self.own, write_mode="back")
        file = mount.path / "f"
        write(file, b"what the bucket has")
        write(mount.path / "other", b"1")
        mount.settle()
        data = pattern(3, 1_000_000)
        self.own.stop()
        write(file, data)
        write(mount.path / "other", b"22")
        if down:
            mount.kill()
        self.assertEqual(flip(mount, 500_000, quiet), 1)
        self.own.start()
        if down:
            mount.start()
        wait_until(lambda: mount.status()["failed"], "the upload has failed", 90)
        failed = mount.status()["failed"][0]
        self.assertEqual(failed["path"], "f")
        self.assertRegex(failed["error"], r"damaged at bytes 491520-507904: write the file anew")
        self.assertEqual(os.getxattr(file, "user.mediafs.state"), b"failed")
        self.assertEqual(mount.object("f"), b"what the bucket has")
        wait_until(lambda: mount.object("other") == b"22", "the others are sent")
        with refused(errno.EIO):
            read_past_the_kernel(file)
        with open(file, "r+b", buffering=0) as opened:
            with refused(errno.EIO):
                os.fsync(opened.fileno())
        self.heal(mount, file, data)

    def heal(self, mount, file, data):
        with open(file, "r+b", buffering=0) as opened:
            opened.seek(491_520)
            opened.write(data[491_520:507_904])
        mount.settle()
        self.assertEqual(mount.object("f"), data)
        self.assertEqual(read_past_the_kernel(file), data)
        self.assertEqual(os.getxattr(file, "user.mediafs.state"), b"clean")

    def test_flipped_while_it_runs(self):
        self.check(down=False)

    def test_flipped_while_it_is_down(self):
        self.check(down=True)

    def test_flipped_without_a_trace_in_the_times(self):
        self.check(down=True, quiet=True)
