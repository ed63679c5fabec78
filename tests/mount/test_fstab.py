"""What mount(8) calls: the helper by its name, with its words and its exit codes."""

import os
import pathlib
import subprocess
import unittest

from harness import binary
from harness.mount import detach, mounts_below
from harness.suite import Case, Run
from harness.waiting import wait_until

WRONG_WORDS, MOUNT_FAILED = 1, 32


@unittest.skipUnless(os.geteuid() == 0, "mount(8) calls its helper as root")
class Helper(Case):
    def setUp(self):
        super().setUp()
        self.folder = Run.folder("fstab")
        self.point, self.log = self.folder / "mnt", self.folder / "log"
        self.point.mkdir()
        self.program = self.folder / "mount.mediafs"
        self.program.symlink_to(binary())
        bucket, prefix = Run.fresh_place()
        self.source = f"s3://{bucket}/{prefix}"
        self.addCleanup(self.end)

    def end(self):
        detach(self.point)
        wait_until(lambda: not self.daemons(), "the daemon ends", 60)

    def daemons(self):
        """Processes whose cache directory is this test's."""
        found = []
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                found += [int(process.name)] if f"cache_dir={self.folder}".encode() in (process / "cmdline").read_bytes() else []
            except OSError:
                pass  # it has ended
        return found

    def helper(self, words="", source=None):
        own = f"endpoint_url={Run.store.endpoint},region={Run.store.region},cache_dir={self.folder}/cache,log_file={self.log}"
        command = [self.program, source or self.source, self.point, "-o", f"rw,_netdev,x-systemd.automount,{words},{own}"]
        # A pipe: with a daemon that kept its caller's files, run() would never return.
        return subprocess.run(command, env={**os.environ, **Run.store.env()}, capture_output=True, text=True, timeout=60, check=False)

    def mounted(self):
        """(ro or rw, ...) as the kernel has it; None where nothing is mounted."""
        lines = pathlib.Path("/proc/self/mounts").read_text().splitlines()
        options = [line.split()[3].split(",") for line in lines if line.split()[1] == str(self.point)]
        return options[-1] if options else None

    def test_it_returns_when_the_files_are_there_and_leaves_a_daemon_of_its_own(self):
        done = self.helper("allow_other,noatime")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        self.assertIn("noatime", self.mounted())
        (self.point / "f").write_text("kept")
        [daemon] = self.daemons()
        self.assertEqual(os.getsid(daemon), daemon)
        self.assertEqual(os.readlink(f"/proc/{daemon}/cwd"), "/")
        self.assertEqual({os.readlink(f"/proc/{daemon}/fd/{standard}") for standard in range(3)}, {"/dev/null"})
        self.assertIn("mounted", self.log.read_text())

    def test_a_mount_right_after_an_unmount_waits_for_its_uploads(self):
        self.assertEqual(self.helper().returncode, 0)
        body = os.urandom(64 << 20)
        (self.point / "f").write_bytes(body)
        subprocess.run(["umount", self.point], check=True, timeout=30)
        self.assertEqual(self.helper().stderr, "")
        self.assertEqual((self.point / "f").read_bytes(), body)
        self.assertEqual(len(self.daemons()), 1)

    def test_a_remount_changes_what_the_kernel_keeps(self):
        self.assertEqual(self.helper().returncode, 0)
        self.assertEqual(self.helper("remount,ro").returncode, 0)
        self.assertIn("ro", self.mounted())
        with self.assertRaises(OSError):
            (self.point / "f").write_text("no")
        self.assertEqual(self.helper("remount,rw").returncode, 0)
        with open(self.point / "f", "w") as file:
            busy = self.helper("remount,ro")
            file.write("yes")
        self.assertEqual(busy.returncode, MOUNT_FAILED)
        self.assertIn("open for writing", busy.stderr)
        self.assertIn("rw", self.mounted())

    def test_failures_have_mounts_exit_codes_and_one_line(self):
        for words, source, code, part in [
            ("frobnicate", None, WRONG_WORDS, "there is no such option"),
            ("", "s3://", WRONG_WORDS, "s3://"),
            ("", "s3://there-is-no-such-bucket", MOUNT_FAILED, "there-is-no-such-bucket"),
            ("remount,ro", None, MOUNT_FAILED, "is not a mount of mediafs"),
        ]:
            with self.subTest(words=words, source=source):
                done = self.helper(words, source)
                self.assertEqual(done.returncode, code, done.stderr)
                self.assertRegex(done.stderr, f"^mount.mediafs: [^\n]*{part}[^\n]*\n$")
                self.assertIsNone(self.mounted())
        self.assertEqual(mounts_below(self.folder), [])
