"""What programs take for granted of a disk, beyond what pjdfstest asks: flags, times, several users, long directories."""

import contextlib
import ctypes
import errno
import mmap
import os
import pathlib
import stat
import subprocess
import tempfile
import unittest

from harness.suite import Case, SharedCase
from harness.waiting import wait_until
from posix_calls import refused, renameat2, resident_pages, write

RENAME_WHITEOUT = 4
NOBODY, GROUP = 65534, 50_000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.opendir.restype = _libc.readdir.restype = ctypes.c_void_p
_libc.telldir.restype = ctypes.c_long
_libc.readdir.argtypes = _libc.telldir.argtypes = _libc.rewinddir.argtypes = _libc.closedir.argtypes = [ctypes.c_void_p]
_libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
# struct dirent of 64-bit Linux: inode, offset, length and type come before the name.
NAME_OFFSET = 19


class Stream:
    """opendir(3) with its positions, which Python's os module hides."""

    def __init__(self, path):
        self.stream = _libc.opendir(os.fsencode(path))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        _libc.closedir(self.stream)

    def next(self):
        entry = _libc.readdir(self.stream)
        return os.fsdecode(ctypes.string_at(entry + NAME_OFFSET)) if entry else None

    def rest(self):
        return list(iter(self.next, None))

    def tell(self):
        return _libc.telldir(self.stream)

    def seek(self, position):
        _libc.seekdir(self.stream, position)

    def rewind(self):
        _libc.rewinddir(self.stream)


@contextlib.contextmanager
def user(uid, gid, groups=()):
    """The block's system calls are another user's; Linux keeps these ids for each thread."""
    os.setgroups(list(groups))
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups([])


class Semantics(SharedCase):
    options = ("--allow-other",)

    def stand_in_it(self):
        """Goes into the test's directory: the folders above the mount let no other user through."""
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.dir)

    def test_nameless_files_are_refused_as_programs_expect(self):
        with refused(errno.EOPNOTSUPP):
            os.open(self.dir, os.O_TMPFILE | os.O_RDWR)

    def test_a_rename_that_would_leave_a_whiteout_does_nothing(self):
        write(self.dir / "a", b"a")
        with refused(errno.EINVAL):
            renameat2(self.dir / "a", self.dir / "b", RENAME_WHITEOUT)
        self.assertEqual(os.listdir(self.dir), ["a"])

    def test_direct_and_cached_access_see_the_same(self):
        page = mmap.mmap(-1, 4096)
        page[:] = b"d" * 4096
        with open(self.dir / "f", "w+b", buffering=0) as cached:
            cached.write(b"c" * 8192)
            direct = os.open(self.dir / "f", os.O_RDWR | os.O_DIRECT)
            self.addCleanup(os.close, direct)
            os.pwritev(direct, [page], 4096)
            self.assertEqual(os.pread(cached.fileno(), 8192, 0), b"c" * 4096 + b"d" * 4096)
            os.pwrite(cached.fileno(), b"e" * 4096, 0)
            os.preadv(direct, [page], 0)
            self.assertEqual(page[:], b"e" * 4096)

    def test_a_private_mapping_changes_nothing(self):
        write(self.dir / "f", b"f" * 5000)
        with open(self.dir / "f", "r+b") as file, mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE) as mapped:
            mapped[0:3] = b"abc"
        self.assertEqual((self.dir / "f").read_bytes(), b"f" * 5000)

    def test_data_and_holes(self):
        write(self.dir / "f", b"0123456789")
        with open(self.dir / "f", "rb", buffering=0) as file:
            self.assertEqual((file.seek(3, os.SEEK_DATA), file.seek(3, os.SEEK_HOLE)), (3, 10))
            for whence in (os.SEEK_DATA, os.SEEK_HOLE):
                with refused(errno.ENXIO):
                    os.lseek(file.fileno(), 10, whence)

    def test_the_access_time_moves_at_the_first_read_after_a_change(self):
        path = self.dir / "f"
        write(path, b"x")
        for _ in range(2):
            before = os.stat(path).st_atime_ns
            # The second time the kernel has the bytes, and asks for none.
            write(path, b"y", os.O_WRONLY)
            path.read_bytes()
            wait_until(lambda: os.stat(path).st_atime_ns > before, "the access time moves", 5)
            moved = os.stat(path).st_atime_ns
            path.read_bytes()
            self.assertEqual(os.stat(path).st_atime_ns, moved)

    def test_a_directory_that_was_removed_while_open_is_empty(self):
        os.mkdir(self.dir / "d")
        fd = os.open(self.dir / "d", os.O_RDONLY)
        self.addCleanup(os.close, fd)
        os.rmdir(self.dir / "d")
        self.assertEqual((os.listdir(fd), os.fstat(fd).st_nlink), ([], 0))
        with refused(errno.ENOENT):
            os.mkdir("x", dir_fd=fd)

    def test_the_root_takes_the_attributes_that_a_copy_brings(self):
        root, before = self.mount.path, os.stat(self.mount.path)
        self.addCleanup(os.chmod, root, stat.S_IMODE(before.st_mode))
        self.addCleanup(os.chown, root, before.st_uid, before.st_gid)
        self.addCleanup((root / "copied-into-the-root").unlink)
        with tempfile.TemporaryDirectory() as source:
            write(pathlib.Path(source) / "copied-into-the-root", b"x")
            os.chmod(source, 0o751)
            os.utime(source, (10**9, 10**9))
            subprocess.run(["cp", "-a", f"{source}/.", root], check=True)
        shown = os.stat(root)
        self.assertEqual((stat.S_IMODE(shown.st_mode), shown.st_mtime), (0o751, 10**9))

    def test_positions_in_a_long_directory_hold(self):
        names = {f"{number:04}" for number in range(1500)}
        for name in names:
            write(self.dir / name, b"")
        with Stream(self.dir) as stream:
            positions = {}
            while True:
                position, name = stream.tell(), stream.next()
                if name is None:
                    break
                positions[name] = position
            self.assertEqual(set(positions), names | {".", ".."})
            for name in sorted(names)[::97]:
                stream.seek(positions[name])
                self.assertEqual(stream.next(), name)
            write(self.dir / "new", b"")
            stream.rewind()
            self.assertEqual(set(stream.rest()), names | {".", "..", "new"})

    def test_positions_hold_while_the_directory_changes(self):
        names = [f"{number:04}" for number in range(3000)]
        for name in names:
            write(self.dir / name, b"")
        with Stream(self.dir) as stream, Stream(self.dir) as behind:
            # The kernel keeps what the first one lists for the second, which then has to go on by itself.
            start, seen = stream.tell(), [stream.next() for _ in range(2000)]
            position = stream.tell()
            half = [behind.next() for _ in range(500)]
            for name in seen[10:400:7]:
                if name not in (".", ".."):
                    os.unlink(self.dir / name)
            for name in ("0000a", "1234a", "zzzz"):
                write(self.dir / name, b"")
            os.listdir(self.dir)
            stream.seek(start)
            self.assertEqual(stream.next(), ".")
            stream.seek(position)
            for shown, rest in ((seen, stream.rest()), (half, behind.rest())):
                stayed = set(os.listdir(self.dir)) & set(names)
                self.assertEqual(len(rest), len(set(rest)))
                self.assertEqual(sorted(stayed - set(shown) - set(rest)), [], "none was skipped")
                self.assertEqual(sorted(set(shown) & set(rest)), [], "none came again")

    def test_a_directory_is_emptied_in_one_pass(self):
        for number in range(1200):
            write(self.dir / f"{number:04}", b"")
        with Stream(self.dir) as stream:
            while name := stream.next():
                if name not in (".", ".."):
                    os.unlink(self.dir / name)
        self.assertEqual(os.listdir(self.dir), [])

    def test_inode_numbers_agree_and_stay(self):
        write(self.dir / "f", b"x")
        os.mkdir(self.dir / "d")
        os.symlink("f", self.dir / "l")
        for entry in os.scandir(self.dir):
            self.assertEqual(entry.inode(), os.lstat(entry.path).st_ino)
        number = os.stat(self.dir / "f").st_ino
        os.rename(self.dir / "f", self.dir / "d/g")
        self.mount.settle()
        self.assertEqual(os.stat(self.dir / "d/g").st_ino, number)

    @unittest.skipUnless(os.geteuid() == 0, "needs root, for it changes users")
    def test_rights_are_judged_by_user_and_all_groups(self):
        self.stand_in_it()
        os.chmod(".", 0o777)
        write("f", b"secret")
        os.chown("f", 0, GROUP)
        os.chmod("f", 0o640)
        with user(NOBODY, NOBODY):
            with refused(errno.EACCES):
                os.open("f", os.O_RDONLY)
            with refused(errno.EPERM):
                os.chmod("f", 0o666)
        with user(NOBODY, NOBODY, [GROUP]):
            self.assertEqual(pathlib.Path("f").read_bytes(), b"secret")
            with refused(errno.EACCES):
                os.open("f", os.O_WRONLY)
            write("own", b"x")
            os.chown("own", -1, GROUP)
        facts = os.stat("own")
        self.assertEqual((facts.st_uid, facts.st_gid), (NOBODY, GROUP))

    @unittest.skipUnless(os.geteuid() == 0, "needs root, for it changes users")
    def test_sticky_and_setgid_directories(self):
        self.stand_in_it()
        os.mkdir("shared")
        os.chown("shared", 0, GROUP)
        os.chmod("shared", 0o3777)
        write("shared/theirs", b"x")
        with user(NOBODY, NOBODY):
            with refused(errno.EPERM):
                os.unlink("shared/theirs")
            with refused(errno.EPERM):
                os.rename("shared/theirs", "shared/mine")
            os.mkdir("shared/below")
            write("shared/below/f", b"x")
        facts = os.stat("shared/below")
        self.assertEqual((facts.st_gid, facts.st_mode & stat.S_ISGID), (GROUP, stat.S_ISGID))
        self.assertEqual(os.stat("shared/below/f").st_gid, GROUP)

    def test_the_callers_umask_holds(self):
        old = os.umask(0o027)
        self.addCleanup(os.umask, old)
        os.close(os.open(self.dir / "f", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir(self.dir / "d", 0o777)
        self.assertEqual([stat.S_IMODE(os.stat(self.dir / name).st_mode) for name in "fd"], [0o640, 0o750])


class Pages(Case):
    def test_who_only_writes_leaves_none_in_the_kernel(self):
        """One copy less for each write; who reads as well finds its own there."""
        mount = self.new_mount("--passthrough", "off")
        length = 64 * mmap.PAGESIZE
        for name, access, left in (("written", os.O_WRONLY, 0), ("also-read", os.O_RDWR, 64)):
            fd = os.open(mount.path / name, os.O_CREAT | access)
            os.write(fd, bytes(length))
            os.close(fd)
            self.assertEqual(resident_pages(mount.path / name, length), left, name)
