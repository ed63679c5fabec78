"""What an ordinary user's mount lets that user, root and others do. For a run with --user."""

import errno
import os
import pathlib
import stat
import subprocess
import unittest

from harness import mounts_below
from harness.ordinary import ALLOWED, FUSE_CONF
from harness.suite import Case, Run
from harness.waiting import wait_until
from posix_calls import refused, write

ROOT, STRANGER = 0, 65533
ME = os.geteuid()


@unittest.skipUnless(Run.shells, "takes --user")
class OrdinaryUser(Case):
    def new_mount(self, *options, **more):
        mount = super().new_mount(*options, **more)
        # What others see is the mount's business, not the folder's above.
        mount.folder.chmod(0o755)
        return mount

    def run_as(self, uid, command):
        """(exit code, output) in one line."""
        code, _, said = Run.shells[uid].run(command).partition(" ")
        return int(code), said

    def fuse_conf(self, text):
        FUSE_CONF.write_text(text)
        self.addCleanup(FUSE_CONF.write_text, ALLOWED)

    def test_the_mount_is_the_users_and_safe(self):
        mount = self.new_mount()
        line = next(line for line in pathlib.Path("/proc/self/mounts").read_text().splitlines() if f" {mount.path} " in line)
        kind, options = line.split(" ")[2:4]
        self.assertEqual(kind, "fuse.mediafs")
        self.assertLessEqual({"nosuid", "nodev", f"user_id={ME}", "default_permissions"}, set(options.split(",")))
        write(mount.path / "f", b"x")
        os.mkdir(mount.path / "d")
        for name in (".", "f", "d"):
            facts = os.stat(mount.path / name)
            self.assertEqual((facts.st_uid, facts.st_gid), (ME, ME), name)
        self.assertEqual(mount.stop(), 0)
        self.assertNotIn("uid", mount.head("f")["Metadata"])

    def test_nobody_else_comes_in_not_even_root(self):
        mount = self.new_mount()
        write(mount.path / "f", b"x")
        for uid in (ROOT, STRANGER):
            code, said = self.run_as(uid, f"cat {mount.path}/f")
            self.assertTrue(code and "Permission denied" in said, (uid, code, said))

    def test_allow_other_needs_a_line_in_fuse_conf(self):
        self.fuse_conf("# nothing\n")
        mount = self.new_mount("--allow-other", start=False)
        mount.launch()
        self.assertEqual(mount.child.wait(30), 1)
        self.assertRegex(mount.shown_log(1), r"--allow-other .*user_allow_other in /etc/fuse.conf")
        self.assertEqual(mounts_below(mount.path), [])

    def test_with_allow_other_modes_say_who_may_what(self):
        mount = self.new_mount("--allow-other")
        for name, mode in (("public", 0o644), ("private", 0o600), ("shared", 0o666)):
            write(mount.path / name, name.encode())
            os.chmod(mount.path / name, mode)
        self.assertEqual(self.run_as(STRANGER, f"cat {mount.path}/public"), (0, "public"))
        self.assertEqual(self.run_as(STRANGER, f"echo more >> {mount.path}/shared"), (0, ""))
        for command in (f"cat {mount.path}/private", f"echo x > {mount.path}/public", f"touch {mount.path}/new", f"rm -f {mount.path}/shared"):
            code, said = self.run_as(STRANGER, command)
            self.assertTrue(code and "denied" in said, (command, code, said))
        self.assertEqual(self.run_as(ROOT, f"cat {mount.path}/private"), (0, "private"))
        self.assertEqual((mount.path / "shared").read_bytes(), b"sharedmore\n")

    def test_files_that_root_gave_away_are_the_others(self):
        mount = self.new_mount("--allow-other")
        os.chmod(mount.path, 0o1777)
        write(mount.path / "f", b"x")
        self.assertEqual(self.run_as(ROOT, f"chown {STRANGER}:{STRANGER} {mount.path}/f && chmod 600 {mount.path}/f"), (0, ""))
        with refused(errno.EACCES):
            os.open(mount.path / "f", os.O_RDONLY)
        with refused(errno.EPERM):
            os.chmod(mount.path / "f", 0o666)
        self.assertEqual(self.run_as(STRANGER, f"cat {mount.path}/f; echo > {mount.path}/theirs"), (0, "x"))
        with refused(errno.EPERM):
            os.chown(mount.path / "theirs", ME, ME)
        mount.settle()
        found = mount.head("theirs")["Metadata"]
        self.assertEqual((found["uid"], found["gid"]), (str(STRANGER), str(STRANGER)))

    def test_what_is_someone_elses_in_the_bucket_stays_so(self):
        mount = self.new_mount(start=False)
        mount.put("theirs", b"x", Metadata={"mode": "0100600", "uid": "1234", "gid": "1234"})
        mount.start()
        facts = os.stat(mount.path / "theirs")
        self.assertEqual((facts.st_uid, stat.S_IMODE(facts.st_mode)), (1234, 0o600))
        with refused(errno.EACCES):
            os.open(mount.path / "theirs", os.O_RDONLY)
        with refused(errno.EPERM):
            os.chown(mount.path / "theirs", ME, ME)

    def test_chown_to_others_is_refused_and_to_oneself_is_nothing(self):
        mount = self.new_mount()
        write(mount.path / "f", b"x")
        os.chown(mount.path / "f", ME, ME)
        for owner, group in ((STRANGER, -1), (-1, STRANGER), (ROOT, ROOT)):
            with refused(errno.EPERM):
                os.chown(mount.path / "f", owner, group)

    def test_a_mount_point_of_someone_else_is_refused(self):
        mount = self.new_mount(start=False)
        self.assertEqual(self.run_as(ROOT, f"chown root {mount.path}"), (0, ""))
        mount.launch()
        self.assertEqual(mount.child.wait(30), 1)
        self.assertRegex(mount.shown_log(1), r"fusermount3: user has no write access to mountpoint")

    def test_fusermount_unmounts_and_everything_is_sent(self):
        mount = self.new_mount(write_mode="back")
        for number in range(20):
            write(mount.path / f"{number}", b"x")
        subprocess.run(["fusermount3", "-u", mount.path], check=True, timeout=30)
        self.assertEqual(mount.child.wait(60), 0)
        self.assertEqual((mounts_below(mount.path), len(mount.files())), ([], 20))

    def test_a_dead_mount_goes_by_fusermount_and_by_the_next_start(self):
        mount = self.new_mount()
        write(mount.path / "f", b"x")
        mount.kill_only()
        subprocess.run(["fusermount3", "-u", mount.path], check=True, timeout=30)
        self.assertEqual(mounts_below(mount.path), [])
        mount.start()
        mount.kill_only()
        mount.launch()
        wait_until(lambda: os.path.exists(mount.path / "f"), "mounted over the dead mount point")
        self.assertEqual(mounts_below(mount.path), [str(mount.path)])

    def test_root_unmounts_it_too(self):
        mount = self.new_mount()
        write(mount.path / "f", b"x")
        self.assertEqual(self.run_as(ROOT, f"umount {mount.path}"), (0, ""))
        self.assertEqual(mount.child.wait(60), 0)
        self.assertEqual(mount.files(), ["f"])

    def test_without_setuid_it_says_what_to_change(self):
        mount = self.new_mount(start=False, wrapper=["setpriv", "--no-new-privs"])
        mount.launch()
        self.assertEqual(mount.child.wait(30), 1)
        self.assertRegex(mount.shown_log(1), r"fusermount3 .*setuid.*NoNewPrivileges")
