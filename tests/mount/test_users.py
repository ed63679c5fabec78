"""Two users and two groups: each access is answered as the local file system answers it. Takes root, for being both."""

import errno
import os
import stat

from harness.suite import Case, Run

# (uid, gid, further groups). Both are in the group TEAM; who made the files isn't among them.
TEAM = 60100
ANNE, BEN = (60001, 60001, [TEAM]), (60002, 60002, [])
CARL = (60003, 60003, [TEAM])


def as_user(user, call):
    """What `call` answers as that user: its text, or the name of the error."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        uid, gid, groups = user
        try:
            os.umask(0o022)
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            said = str(call())
        except OSError as error:
            said = errno.errorcode[error.errno]
        except BaseException as error:  # the parent has to hear of it
            said = repr(error)
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said


def make(top):
    """The tree that is tried: made by root, given to Anne and the team."""
    os.chmod(top, 0o755)
    for name, mode, uid, gid in (
        ("private", 0o600, 60001, 60001),
        ("team", 0o640, 60001, TEAM),
        ("team-writes", 0o660, 60001, TEAM),
        ("world", 0o644, 60001, 60001),
        ("all", 0o666, 60001, 60001),
        ("nobody", 0o000, 60001, 60001),
        ("others-only", 0o007, 60001, TEAM),
        ("program", 0o755, 60001, 60001),
        ("root", 0o600, 0, 0),
    ):
        with open(top / name, "w") as file:
            file.write("#!/bin/sh\necho ran\n")
        os.chown(top / name, uid, gid)
        os.chmod(top / name, mode)
    for name, mode, uid, gid in (
        ("home", 0o700, 60001, 60001),
        ("office", 0o750, 60001, TEAM),
        ("shared", 0o2775, 60001, TEAM),
        ("sticky", 0o1777, 0, 0),
        ("passage", 0o711, 60001, 60001),
        ("open", 0o777, 0, 0),
    ):
        os.mkdir(top / name)
        with open(top / name / "f", "w") as file:
            file.write("inside")
        os.chown(top / name / "f", 60001, 60001)
        os.chmod(top / name / "f", 0o644)
        os.chown(top / name, uid, gid)
        os.chmod(top / name, mode)


def read(name):
    return lambda top: (top / name).read_text()


def write(name):
    def call(top):
        with open(top / name, "a") as file:
            file.write("more")
        return "written"

    return call


def facts(name):
    def call(top):
        found = os.lstat(top / name)
        return f"{stat.filemode(found.st_mode)} {found.st_uid} {found.st_gid}"

    return call


def then(call, name):
    """`call`, and what `name` is after it."""
    return lambda top: (call(top), facts(name)(top))[1]


def new(name, mode=0o666):
    return then(lambda top: os.close(os.open(top / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)), name)


ACCESSES = [
    (ANNE, read("private")),
    (BEN, read("private")),
    (CARL, read("team")),
    (BEN, read("team")),
    (CARL, write("team")),
    (CARL, write("team-writes")),
    (BEN, write("team-writes")),
    (BEN, read("world")),
    (BEN, write("world")),
    (BEN, write("all")),
    (ANNE, read("nobody")),
    (CARL, read("others-only")),
    (BEN, read("others-only")),
    (ANNE, read("root")),
    (BEN, lambda top: os.access(top / "program", os.X_OK)),
    (BEN, lambda top: os.access(top / "world", os.X_OK)),
    (BEN, lambda top: os.spawnv(os.P_WAIT, top / "program", ["program"])),
    (BEN, lambda top: sorted(os.listdir(top / "home"))),
    (BEN, read("home/f")),
    (CARL, lambda top: sorted(os.listdir(top / "office"))),
    (CARL, new("office/new")),
    (BEN, read("office/f")),
    (BEN, lambda top: sorted(os.listdir(top / "passage"))),
    (BEN, read("passage/f")),
    (BEN, new("passage/new")),
    (CARL, new("shared/carls")),
    (CARL, then(lambda top: os.mkdir(top / "shared/folder"), "shared/folder")),
    (BEN, new("shared/bens")),
    (CARL, lambda top: os.unlink(top / "shared/f")),
    (BEN, new("sticky/bens")),
    (CARL, lambda top: os.unlink(top / "sticky/bens")),
    (CARL, lambda top: os.rename(top / "sticky/bens", top / "sticky/carls")),
    (CARL, lambda top: os.rename(top / "open/f", top / "sticky/bens")),
    (BEN, lambda top: os.unlink(top / "sticky/bens")),
    (ANNE, lambda top: os.unlink(top / "sticky/f")),
    (BEN, lambda top: os.unlink(top / "open/f")),
    (BEN, lambda top: os.chmod(top / "world", 0o600)),
    (ANNE, then(lambda top: os.chmod(top / "world", 0o640), "world")),
    (ANNE, then(lambda top: os.chown(top / "world", -1, TEAM), "world")),
    (ANNE, lambda top: os.chown(top / "world", -1, 60002)),
    (ANNE, lambda top: os.chown(top / "world", 60002, -1)),
    (ANNE, then(lambda top: os.chmod(top / "program", 0o4755), "program")),
    (ANNE, then(lambda top: os.chmod(top / "team", 0o2755), "team")),
    (BEN, then(lambda top: os.chmod(top / "passage/f", 0o4777), "passage/f")),
    (ANNE, then(write("program"), "program")),
    (BEN, lambda top: os.utime(top / "all", (1, 1))),
    (BEN, lambda top: os.utime(top / "all")),
    (ANNE, lambda top: os.utime(top / "all", (1, 1))),
    (BEN, lambda top: os.truncate(top / "world", 0)),
    (BEN, lambda top: os.setxattr(top / "program", "user.x", b"1")),
    (ANNE, lambda top: os.setxattr(top / "program", "user.x", b"1")),
    (CARL, then(lambda top: os.chown(top / "shared/carls", -1, 60003), "shared/carls")),
    (BEN, lambda top: os.symlink("world", top / "open/link")),
    (CARL, lambda top: os.rename(top / "shared/carls", top / "home/carls")),
    (CARL, then(lambda top: os.rename(top / "shared/carls", top / "open/carls"), "open/carls")),
    (BEN, lambda top: os.mknod(top / "open/device", 0o666 | stat.S_IFCHR, os.makedev(1, 3))),
]


class Users(Case):
    def setUp(self):
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest("takes root")

    def test_each_access_is_answered_as_the_local_disk_answers(self):
        self.assertGreaterEqual(len(ACCESSES), 40)
        local = Run.folder("local")
        mount = self.new_mount("--allow-other")
        Run.open_to_others(local, mount.folder)
        top = mount.path / "top"
        os.mkdir(top)
        make(top)
        make(local)
        for number, (user, access) in enumerate(ACCESSES):
            with self.subTest(number=number, user=user[0]):
                self.assertEqual(as_user(user, lambda: access(top)), as_user(user, lambda: access(local)))
        mount.settle()

    def test_owners_and_modes_hold_over_a_restart_but_for_what_no_bucket_gives(self):
        mount = self.new_mount("--allow-other")
        Run.open_to_others(mount.folder)
        make(mount.path)
        os.chmod(mount.path / "program", 0o6755)
        before = {name: facts(name)(mount.path) for name in os.listdir(mount.path)}
        self.assertEqual(before["program"], "-rwsr-sr-x 60001 60001")
        mount.settle()
        mount.stop()
        mount.forget_cache()
        mount.start()
        os.chmod(mount.path, 0o755)
        after = {name: facts(name)(mount.path) for name in before}
        self.assertEqual(after.pop("program"), "-rwxr-xr-x 60001 60001")
        before.pop("program")
        self.assertEqual(after, before)
        self.assertEqual(as_user(BEN, lambda: read("private")(mount.path)), "EACCES")
        self.assertEqual(as_user(ANNE, lambda: read("private")(mount.path)), "#!/bin/sh\necho ran\n")

    def test_without_allow_other_nobody_else_sees_anything(self):
        mount = self.new_mount()
        Run.open_to_others(mount.folder)
        (mount.path / "f").write_bytes(b"x")
        os.chmod(mount.path / "f", 0o666)
        self.assertEqual(as_user(BEN, lambda: read("f")(mount.path)), "EACCES")
        self.assertEqual(as_user(BEN, lambda: os.listdir(mount.path)), "EACCES")
