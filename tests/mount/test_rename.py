"""rename(2) in all its cases: over existing names, with open files, of directories, with flags, before and after the upload."""

import errno
import functools
import os

from harness.suite import SharedCase
from posix_calls import RENAME_EXCHANGE, RENAME_NOREPLACE, pattern, refused, renameat2, write


def before_and_after_the_upload(test):
    """Runs the case while nothing is uploaded yet, and again when all is in the bucket."""

    @functools.wraps(test)
    def both(self):
        for settled in (False, True):
            with self.subTest(settled=settled):
                folder = self.dir / ("settled" if settled else "fresh")
                folder.mkdir()
                test(self, folder, self.mount.settle if settled else lambda: None)

    return both


class Rename(SharedCase):
    def key(self, path):
        return str(path.relative_to(self.mount.path))

    def check(self, folder, expected):
        """The same through the mount and, when settled, in the bucket."""
        found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.assertEqual(found, expected)
        self.mount.settle()
        start = len(self.key(folder)) + 1
        stored = {key[start:]: self.mount.object(key) for key in self.mount.files(self.key(folder) + "/")}
        self.assertEqual(stored, expected, "in the bucket")

    @before_and_after_the_upload
    def test_to_a_new_name(self, folder, settle):
        write(folder / "a", b"one")
        settle()
        os.rename(folder / "a", folder / "b")
        self.assertFalse((folder / "a").exists())
        self.check(folder, {"b": b"one"})

    @before_and_after_the_upload
    def test_over_an_existing_file(self, folder, settle):
        write(folder / "a", b"new")
        write(folder / "b", b"old and longer")
        settle()
        os.rename(folder / "a", folder / "b")
        self.check(folder, {"b": b"new"})

    @before_and_after_the_upload
    def test_onto_itself(self, folder, settle):
        write(folder / "a", b"same")
        settle()
        os.rename(folder / "a", folder / "a")
        self.check(folder, {"a": b"same"})

    @before_and_after_the_upload
    def test_into_another_directory(self, folder, settle):
        os.makedirs(folder / "from/deep")
        os.mkdir(folder / "to")
        write(folder / "from/deep/a", b"x")
        settle()
        os.rename(folder / "from/deep/a", folder / "to/a")
        self.check(folder, {"to/a": b"x"})

    @before_and_after_the_upload
    def test_of_a_file_that_is_open_for_writing(self, folder, settle):
        write(folder / "a", b"before ")
        settle()
        with open(folder / "a", "ab", buffering=0) as file:
            file.write(b"between ")
            os.rename(folder / "a", folder / "b")
            file.write(b"after")
        self.check(folder, {"b": b"before between after"})

    @before_and_after_the_upload
    def test_over_a_file_that_is_open_for_reading(self, folder, settle):
        old = pattern(1, 100_000)
        write(folder / "b", old)
        write(folder / "a", b"new")
        settle()
        with open(folder / "b", "rb", buffering=0) as reader:
            os.rename(folder / "a", folder / "b")
            self.assertEqual(os.pread(reader.fileno(), 200_000, 0), old)
        self.check(folder, {"b": b"new"})

    @before_and_after_the_upload
    def test_of_a_directory(self, folder, settle):
        os.makedirs(folder / "d/sub")
        write(folder / "d/a", b"1")
        write(folder / "d/sub/b", b"2")
        settle()
        os.rename(folder / "d", folder / "e")
        self.assertEqual(sorted(os.listdir(folder)), ["e"])
        self.check(folder, {"e/a": b"1", "e/sub/b": b"2"})

    @before_and_after_the_upload
    def test_of_a_directory_with_an_open_file(self, folder, settle):
        os.mkdir(folder / "d")
        write(folder / "d/kept", b"kept")
        settle()
        with open(folder / "d/a", "wb", buffering=0) as file:
            file.write(b"one ")
            os.rename(folder / "d", folder / "e")
            file.write(b"two")
            self.assertEqual(os.fstat(file.fileno()).st_size, 7)
        self.check(folder, {"e/a": b"one two", "e/kept": b"kept"})

    @before_and_after_the_upload
    def test_a_directory_is_renamed_twice_before_it_settles(self, folder, settle):
        os.mkdir(folder / "d")
        write(folder / "d/a", b"1")
        settle()
        os.rename(folder / "d", folder / "e")
        os.rename(folder / "e", folder / "f")
        write(folder / "f/b", b"2")
        self.check(folder, {"f/a": b"1", "f/b": b"2"})

    @before_and_after_the_upload
    def test_over_an_empty_directory_but_not_over_a_full_one(self, folder, settle):
        os.mkdir(folder / "d")
        write(folder / "d/a", b"1")
        os.mkdir(folder / "empty")
        os.mkdir(folder / "full")
        write(folder / "full/x", b"2")
        settle()
        with refused(errno.ENOTEMPTY):
            os.rename(folder / "d", folder / "full")
        os.rename(folder / "d", folder / "empty")
        self.check(folder, {"empty/a": b"1", "full/x": b"2"})

    @before_and_after_the_upload
    def test_kinds_do_not_replace_each_other(self, folder, settle):
        write(folder / "file", b"x")
        os.mkdir(folder / "dir")
        settle()
        with self.assertRaises(IsADirectoryError):
            os.rename(folder / "file", folder / "dir")
        with self.assertRaises(NotADirectoryError):
            os.rename(folder / "dir", folder / "file")
        with refused(errno.EINVAL):
            os.rename(folder / "dir", folder / "dir/below")
        with self.assertRaises(FileNotFoundError):
            os.rename(folder / "none", folder / "other")
        self.check(folder, {"file": b"x"})

    @before_and_after_the_upload
    def test_noreplace(self, folder, settle):
        write(folder / "a", b"1")
        write(folder / "b", b"2")
        settle()
        with self.assertRaises(FileExistsError):
            renameat2(folder / "a", folder / "b", RENAME_NOREPLACE)
        renameat2(folder / "a", folder / "c", RENAME_NOREPLACE)
        self.check(folder, {"b": b"2", "c": b"1"})

    @before_and_after_the_upload
    def test_exchange_is_done_whole_or_refused(self, folder, settle):
        write(folder / "a", b"1")
        write(folder / "b", b"22")
        settle()
        try:
            renameat2(folder / "a", folder / "b", RENAME_EXCHANGE)
        except OSError as error:
            self.assertEqual(error.errno, errno.EINVAL)
            self.check(folder, {"a": b"1", "b": b"22"})
        else:
            self.check(folder, {"a": b"22", "b": b"1"})

    @before_and_after_the_upload
    def test_a_symlink_is_renamed_itself(self, folder, settle):
        write(folder / "target", b"x")
        os.symlink("target", folder / "link")
        settle()
        os.rename(folder / "link", folder / "moved")
        self.assertEqual(os.readlink(folder / "moved"), "target")
        self.assertEqual((folder / "target").read_bytes(), b"x")

    @before_and_after_the_upload
    def test_a_name_that_was_renamed_away_is_free(self, folder, settle):
        write(folder / "a", b"1")
        settle()
        os.rename(folder / "a", folder / "b")
        write(folder / "a", b"2", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        self.check(folder, {"a": b"2", "b": b"1"})

    @before_and_after_the_upload
    def test_the_content_type_follows_the_new_name(self, folder, settle):
        write(folder / "upload.tmp", b"<p>")
        settle()
        os.rename(folder / "upload.tmp", folder / "page.html")
        self.mount.settle()
        self.assertTrue(self.mount.head(self.key(folder / "page.html"))["ContentType"].startswith("text/html"))
