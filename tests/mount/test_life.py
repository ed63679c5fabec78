"""How a mount begins and ends: draining, crashes, an outage of the store, and what is left behind."""

import contextlib
import errno
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from harness import open_store, wait_until
from harness.mount import binary, detach, mounts_below
from harness.suite import Case, Run
from posix_calls import pattern, write


class Ending(Case):
    def filled(self, count=50, size=20_000):
        mount = self.new_mount()
        for number in range(count):
            write(mount.path / f"f{number:03}", pattern(number, size))
        return mount, {f"f{number:03}": pattern(number, size) for number in range(count)}

    def in_bucket(self, mount):
        return {key: mount.object(key) for key in mount.files()}

    def test_sigterm_drains_and_exits_with_0(self):
        mount, expected = self.filled()
        self.assertEqual(mount.stop(), 0)
        self.assertEqual(self.in_bucket(mount), expected)
        self.assertEqual(mounts_below(mount.path), [])

    def test_sigint_drains_too(self):
        mount, expected = self.filled(5)
        mount.child.signal(signal.SIGINT)
        self.assertEqual(mount.child.wait(60), 0)
        self.assertEqual(self.in_bucket(mount), expected)

    def test_umount_drains_and_exits_with_0(self):
        mount, expected = self.filled()
        self.assertEqual(mount.unmount(), 0)
        self.assertEqual(self.in_bucket(mount), expected)

    def test_one_umount_leaves_what_lay_below(self):
        if os.geteuid() != 0:
            self.skipTest("only root can mount a tmpfs below")
        mount = self.new_mount(start=False)
        subprocess.run(["mount", "-t", "tmpfs", "none", str(mount.path)], check=True)
        self.addCleanup(detach, mount.path)
        mount.launch()
        wait_until(lambda: mounts_below(mount.path) == [str(mount.path)] * 2, "mounted over the tmpfs")
        write(mount.path / "f", b"x")
        subprocess.run(["umount", str(mount.path)], check=True, timeout=30)
        self.assertEqual(mount.child.wait(60), 0)
        self.assertEqual(mounts_below(mount.path), [str(mount.path)])
        self.assertEqual(mount.files(), ["f"])

    def test_sigterm_with_an_open_file_ends(self):
        mount = self.new_mount()
        write(mount.path / "f", b"closed")
        file = os.open(mount.path / "g", os.O_WRONLY | os.O_CREAT)
        os.write(file, b"still open")
        self.assertEqual(mount.stop(), 0)
        with contextlib.suppress(OSError):  # nobody is left to answer
            os.close(file)
        self.assertEqual(mount.object("f"), b"closed")

    def test_without_the_store_sigterm_ends_within_the_drain_timeout(self):
        store = self.enterContext(open_store(Run.store.name, Run.folder("store")))
        mount = self.new_mount("--drain-timeout", "3s", store=store, write_mode="back")
        store.stop()
        write(mount.path / "f", b"waits")
        began = time.monotonic()
        self.assertEqual(mount.stop(), 0)
        self.assertLess(time.monotonic() - began, 20)
        self.assertRegex(mount.shown_log(), r"\b1\b")
        store.start()
        mount.start()
        mount.settle()
        self.assertEqual(mount.object("f"), b"waits")


class Crash(Case):
    def test_kill_9_loses_nothing_that_was_closed(self):
        mount = self.new_mount()
        expected = {f"f{number:03}": pattern(number, 30_000) for number in range(100)}
        for name, data in expected.items():
            write(mount.path / name, data)
        mount.kill()
        mount.start()
        for name, data in expected.items():
            self.assertEqual((mount.path / name).read_bytes(), data)
        mount.settle()
        self.assertEqual({key: mount.object(key) for key in mount.files()}, expected)

    def test_what_was_renamed_and_deleted_stays_so(self):
        mount = self.new_mount()
        for name in ("kept", "renamed", "deleted"):
            write(mount.path / name, name.encode())
        mount.settle()
        os.rename(mount.path / "renamed", mount.path / "new name")
        os.unlink(mount.path / "deleted")
        write(mount.path / "kept", b"rewritten")
        mount.kill()
        mount.start()
        expected = {"kept": b"rewritten", "new name": b"renamed"}
        self.assertEqual({path.name: path.read_bytes() for path in mount.path.iterdir()}, expected)
        mount.settle()
        self.assertEqual({key: mount.object(key) for key in mount.files()}, expected)

    def test_a_dead_mount_point_is_cleaned_at_the_next_start(self):
        mount = self.new_mount()
        write(mount.path / "f", b"x")
        mount.kill_only()
        with self.assertRaises(OSError):
            os.stat(mount.path / "f")
        mount.launch()
        wait_until(lambda: os.path.exists(mount.path / "f"), "mounted over the dead mount point")
        self.assertEqual((mount.path / "f").read_bytes(), b"x")
        self.assertEqual(mounts_below(mount.path), [str(mount.path)])

    def test_an_interrupted_multipart_upload_is_finished_or_aborted(self):
        mount = self.new_mount()
        data = pattern(1, 200 << 20)
        write(mount.path / "large", data)
        wait_until(lambda: mount.unfinished_uploads() or mount.files(), "the upload has begun")
        mount.kill()
        mount.start()
        mount.settle()
        self.assertEqual(mount.object("large"), data)
        self.assertEqual(mount.unfinished_uploads(), [])


class Outage(Case):
    """The store goes away and comes back: a store of its own."""

    def setUp(self):
        super().setUp()
        self.own = self.enterContext(open_store(Run.store.name, Run.folder("store")))

    def test_a_known_cache_mounts_without_the_store(self):
        mount = self.new_mount(store=self.own, write_mode="back")
        write(mount.path / "known", b"cached")
        mount.settle()
        self.assertEqual((mount.path / "known").read_bytes(), b"cached")
        self.assertEqual(mount.stop(), 0)
        self.own.stop()
        mount.start()
        self.assertTrue(mount.status()["degraded"])
        self.assertEqual((mount.path / "known").read_bytes(), b"cached")
        os.statvfs(mount.path)
        with self.assertRaises(OSError) as never_seen:  # neither there nor missing: nobody can tell
            os.stat(mount.path / "never-seen")
        self.assertEqual(never_seen.exception.errno, errno.EIO)
        write(mount.path / "known", b"written while it was away")
        self.own.start()
        mount.settle(90)
        self.assertEqual(mount.object("known"), b"written while it was away")
        wait_until(lambda: not mount.status()["degraded"], "no longer degraded", 60)

    def test_writes_go_on_while_the_store_is_away(self):
        mount = self.new_mount(store=self.own, write_mode="back")
        (mount.path / "d").mkdir()
        write(mount.path / "d/before", b"1")
        mount.settle()
        os.listdir(mount.path / "d")
        self.own.stop()
        write(mount.path / "d/before", b"22")
        self.assertEqual((mount.path / "d/before").read_bytes(), b"22")
        self.own.start()
        mount.settle(90)
        self.assertEqual(mount.object("d/before"), b"22")

    def test_what_needs_the_store_fails_within_the_timeout(self):
        mount = self.new_mount("--timeout", "2s", store=self.own, write_mode="back")
        mount.put("cold", b"x")
        self.own.child.signal(signal.SIGSTOP)
        began = time.monotonic()
        with self.assertRaises(OSError):
            (mount.path / "cold").read_bytes()
        self.assertLess(time.monotonic() - began, 10)
        self.own.child.signal(signal.SIGCONT)
        wait_until(lambda: os.path.exists(mount.path / "cold"), "the store answers again")
        self.assertEqual((mount.path / "cold").read_bytes(), b"x")

    def test_statfs_and_known_attributes_need_no_store(self):
        mount = self.new_mount("--ttl", "60s", store=self.own, write_mode="back")
        write(mount.path / "f", b"x")
        mount.settle()
        os.stat(mount.path / "f")
        self.own.child.signal(signal.SIGSTOP)
        began = time.monotonic()
        os.statvfs(mount.path)
        self.assertEqual(os.stat(mount.path / "f").st_size, 1)
        self.assertLess(time.monotonic() - began, 2)


class Demo(Case):
    def test_demo_serves_a_folder_and_keeps_it(self):
        folder = pathlib.Path(tempfile.mkdtemp(dir=Run.work))
        for round_number in range(2):
            demo = subprocess.Popen([binary(), "demo", str(folder)], stdout=subprocess.DEVNULL, stderr=sys.stderr)
            self.addCleanup(demo.kill)
            wait_until(lambda: mounts_below(folder), "the demo is mounted")
            media = pathlib.Path(mounts_below(folder)[0])
            wait_until(lambda: os.path.ismount(media), "the demo answers")
            write(media / f"f{round_number}", b"kept")
            self.assertEqual(sorted(os.listdir(media)), [f"f{number}" for number in range(round_number + 1)])
            demo.terminate()
            self.assertEqual(demo.wait(60), 0)
            self.assertEqual(mounts_below(folder), [])
