"""How a mount with work left ends: drained, within its time, at once, by a crash in the middle; and what the next one does."""

import os
import re
import signal
import subprocess
import threading
import time

from harness import Gate, wait_until
from harness.mount import mounts_below
from harness.suite import Case, Run
from posix_calls import pattern, write

MANY = 500


class Ends(Case):
    def setUp(self):
        super().setUp()
        self.gate = self.enterContext(Gate(Run.store))

    def dirty(self, mount, count=MANY):
        """Fills the mount; {name: bytes}."""
        (mount.path / "d").mkdir()
        expected = {f"d/f{number:04}": pattern(number, 4_000) for number in range(count)}
        for name, data in expected.items():
            write(mount.path / name, data)
        return expected

    def full(self, *options, count=MANY):
        """A mount with so many files that can't be sent: the gate is shut."""
        mount = self.new_mount(*options, endpoint=self.gate.endpoint, write_mode="back")
        os.listdir(mount.path)
        self.gate.shut()
        expected = self.dirty(mount, count)
        self.assertEqual(mount.status()["dirty_files"], count + 1)  # the directory's marker
        return mount, expected

    def assert_sent(self, mount, expected):
        names = mount.files()
        self.assertEqual(sorted(names), sorted(expected))
        for name in names:
            self.assertEqual(mount.object(name), expected[name], name)

    def ends(self, mount, seconds, *signals):
        """The exit code after these signals, and how long it took."""
        began = time.monotonic()
        for number in signals:
            mount.child.signal(number)
            wait_until(lambda: not mounts_below(mount.path), "it has unmounted", 10)
        code = mount.child.wait(seconds)
        return code, time.monotonic() - began

    def test_sigterm_sends_all(self):
        mount = self.new_mount(write_mode="back")
        expected = self.dirty(mount)
        self.assertGreater(mount.status()["dirty_files"], 0)
        code, took = self.ends(mount, 100, signal.SIGTERM)
        print(f"    {MANY} files in {took:.1f} s", end=" ", flush=True)
        self.assertEqual(code, 0)
        self.assert_sent(mount, expected)

    def test_without_the_bucket_it_ends_in_time_and_the_next_mount_sends(self):
        for how in (self.gate.shut, self.gate.hold):
            with self.subTest(how.__name__):
                mount, expected = self.full("--drain-timeout", "3s")
                if how == self.gate.hold:
                    # An attempt must not slip in between.
                    self.gate.open(held=True)
                code, took = self.ends(mount, 30, signal.SIGTERM)
                self.assertEqual(code, 0)
                self.assertLess(took, 8)
                left = re.findall(rf"{re.escape(str(mount.cache))} .*files=(\d+)", mount.shown_log(3))
                self.assertEqual([int(count) for count in left], [MANY + 1], mount.shown_log(3))
                self.gate.shut()
                self.gate.open()
                mount.start()
                mount.settle(60)
                self.assert_sent(mount, expected)

    def test_a_bucket_that_comes_back_while_draining(self):
        mount, expected = self.full("--drain-timeout", "60s")
        threading.Timer(3, self.gate.open).start()
        code, took = self.ends(mount, 60, signal.SIGTERM)
        self.assertEqual(code, 0)
        self.assertLess(took, 40)
        self.assert_sent(mount, expected)

    def test_the_second_signal_ends_it_at_once(self):
        for second in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(second.name):
                mount, expected = self.full("--drain-timeout", "5m", count=50)
                code, took = self.ends(mount, 15, signal.SIGTERM, second)
                self.assertEqual(code, 0)
                self.assertLess(took, 5)
                self.assertRegex(mount.shown_log(3), r"files=51\b")
                self.gate.open()
                mount.start()
                mount.settle()
                self.assert_sent(mount, expected)

    def test_kill_9_in_the_middle_of_the_drain(self):
        mount, expected = self.full(count=300)
        mount.child.signal(signal.SIGTERM)
        wait_until(lambda: not mounts_below(mount.path), "it has unmounted")
        self.gate.open()
        wait_until(lambda: self.gate.counted("PUT") > 400 or len(mount.files()) > 20, "the drain is under way")
        mount.kill()
        sent = len(mount.files())
        self.assertLess(sent, 300)
        mount.start()
        for name, data in expected.items():
            self.assertEqual((mount.path / name).read_bytes(), data)
        mount.settle()
        self.assert_sent(mount, expected)
        self.assertEqual(mount.unfinished_uploads(), [])

    def test_umount_from_outside(self):
        mount = self.new_mount(write_mode="back")
        expected = self.dirty(mount, 200)
        subprocess.run(["umount" if os.geteuid() == 0 else "fusermount3", *(["-u"] if os.geteuid() else []), str(mount.path)], check=True)
        self.assertEqual(mount.child.wait(60), 0)
        self.assert_sent(mount, expected)

    def test_a_lazy_umount_under_an_open_file(self):
        if os.geteuid() != 0:
            self.skipTest("only root can unmount lazily")
        mount = self.new_mount(write_mode="back")
        expected = self.dirty(mount, 20)
        with open(mount.path / "d/open", "wb", buffering=0) as file:
            file.write(b"before, ")
            subprocess.run(["umount", "-l", str(mount.path)], check=True)
            file.write(b"after")
        self.assertEqual(mount.child.wait(60), 0)
        expected["d/open"] = b"before, after"
        self.assert_sent(mount, expected)
