"""As few rights as the unit gives: one capability, no root, its system calls alone. Takes root, to give the rest away."""

import os
import pathlib
import re
import shutil
import subprocess

from harness import binary
from harness.ordinary import own_namespace
from harness.suite import Case, Run

UNIT = pathlib.Path(__file__).resolve().parents[2] / "systemd/mediafs@.service"
NOBODY = 65534
SYS_ADMIN = 1 << 21
# Of systemd-analyze's exposure: 0 is safe, 10 is not.
MOST_EXPOSED = 3.8


def setUpModule():
    """/dev/fuse for everybody, as distributions have it, in a mount namespace of this run's own."""
    if os.geteuid() == 0:
        own_namespace(Run.work, [binary()])


class Privileges(Case):
    def setUp(self):
        super().setUp()
        if os.geteuid() != 0 or not shutil.which("setpriv"):
            self.skipTest("takes root and setpriv")

    def limited(self, *rights, user=NOBODY):
        """A mount by `user` with these rights alone, beside everybody's way to it."""
        folder = Run.folder("limited")
        Run.open_to_others(folder)
        os.chown(folder, user, user)
        wrapper = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs", *rights]
        mount = self.new_mount("--allow-other", folder=folder, wrapper=wrapper, start=False)
        os.chown(mount.path, user, user)
        (folder / "log").touch()
        return mount

    def check(self, mount, user, capabilities):
        self.status = status = pathlib.Path(f"/proc/{mount.child.pid}/status").read_text()
        self.assertRegex(status, rf"Uid:\t{user}\t{user}\t{user}\t{user}\n")
        for name in ("CapEff", "CapPrm", "CapBnd"):
            self.assertEqual(int(re.search(rf"{name}:\t(\w+)", status)[1], 16), capabilities, name)
        self.assertIn("NoNewPrivs:\t1", status)
        data = os.urandom(1 << 20)
        (mount.path / "f").write_bytes(data)
        self.assertEqual((mount.path / "f").read_bytes(), data)
        os.chmod(mount.path / "f", 0o640)
        os.rename(mount.path / "f", mount.path / "g")
        mount.settle()
        self.assertEqual(mount.object("g"), data)
        self.assertEqual(mount.stop(), 0)
        self.assertFalse(os.path.ismount(mount.path))

    def test_an_own_user_with_one_capability_mounts_serves_and_unmounts(self):
        one = ["--inh-caps=-all,+sys_admin", "--ambient-caps=-all,+sys_admin", "--bounding-set=-all,+sys_admin"]
        mount = self.limited(*one)
        mount.start()
        self.check(mount, NOBODY, SYS_ADMIN)

    def test_root_with_one_capability_does_too(self):
        mount = self.limited("--inh-caps=-all,+sys_admin", "--bounding-set=-all,+sys_admin", user=0)
        mount.start()
        self.check(mount, 0, SYS_ADMIN)

    def test_root_becomes_the_user_that_is_named(self):
        mount = self.new_mount("--allow-other", "--run-as", "nobody", start=False)
        Run.open_to_others(mount.folder)
        mount.start()
        self.assertEqual(mount.path.stat().st_uid, NOBODY, "whose is what carries no owner")
        self.check(mount, NOBODY, SYS_ADMIN)
        groups = re.search(r"Groups:\t(.*)\n", self.status)[1].split()
        self.assertNotIn("0", groups)
        self.assertEqual(mount.cache.stat().st_uid, NOBODY)

    def test_root_gives_no_used_cache_directory_away(self):
        mount = self.new_mount("--allow-other", "--run-as", "nobody", start=False)
        Run.open_to_others(mount.folder)
        mount.cache.mkdir()
        (mount.cache / "journal").touch()
        mount.launch()
        self.assertEqual(mount.child.wait(30), 1)
        self.assertRegex(mount.shown_log(10), "belongs to user 0.*chown -R nobody")
        self.assertEqual(mount.cache.stat().st_uid, 0)

    def test_only_root_becomes_another_user(self):
        mount = self.limited("--inh-caps=-all", "--bounding-set=-all")
        mount.options += ["--run-as", "root"]
        mount.launch()
        self.assertEqual(mount.child.wait(30), 1)
        self.assertIn("start it as root", mount.shown_log(10))

    def test_without_any_the_error_says_what_to_do(self):
        mount = self.limited("--inh-caps=-all", "--bounding-set=-all")
        mount.launch()
        self.assertEqual(mount.child.wait(30), 1)
        self.assertRegex(mount.shown_log(10), "fusermount3|NoNewPrivileges")


class Unit(Case):
    def setUp(self):
        super().setUp()
        if not shutil.which("systemd-analyze"):
            self.skipTest("systemd-analyze is not installed")

    def test_its_score_is_what_the_reasons_beside_it_explain(self):
        copy = Run.folder("unit") / "mediafs@x.service"
        shutil.copy(UNIT, copy)
        said = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", copy], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        score = float(re.search(r"exposure level for \S+ (\S+)", said.stdout.decode())[1])
        self.assertLessEqual(score, MOST_EXPOSED)

    def test_every_system_call_of_a_life_is_one_that_it_allows(self):
        if not shutil.which("strace"):
            self.skipTest("strace is not installed")
        trace = Run.folder("trace") / "calls"
        mount = self.new_mount("--metrics", "127.0.0.1:0", wrapper=["strace", "-D", "-f", "-qq", "-o", str(trace)], start=False)
        mount.start(60)
        (mount.path / "small").write_bytes(b"x")
        (mount.path / "large").write_bytes(bytes(20 << 20))
        os.symlink("small", mount.path / "link")
        os.setxattr(mount.path / "small", "user.a", b"1")
        self.assertEqual((mount.path / "link").read_bytes(), b"x")
        os.rename(mount.path / "small", mount.path / "smaller")
        mount.flush()
        os.unlink(mount.path / "large")
        mount.settle()
        self.assertEqual(mount.stop(), 0)
        called = set(re.findall(r"^\d+\s+(?:<\.\.\. )?(\w+)(?:\(| resumed)", trace.read_text(errors="replace"), re.M))
        self.assertTrue({"mount", "umount2", "openat", "pwrite64"} <= called, called)
        filters = re.search(r"^SystemCallFilter=(.*)$", UNIT.read_text(), re.M)[1].split()
        self.assertEqual(called - allowed(filters), set())


def allowed(names):
    """The system calls of these groups."""
    calls, ahead = set(), list(names)
    while ahead:
        name = ahead.pop()
        if not name.startswith("@"):
            calls.add(name)
            continue
        said = subprocess.run(["systemd-analyze", "syscall-filter", "--no-pager", name], check=True, stdout=subprocess.PIPE).stdout.decode()
        ahead += [word for line in said.splitlines()[1:] if (word := line.strip()) and not word.startswith("#")]
    return calls
