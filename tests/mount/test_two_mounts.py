"""Two hosts of one bucket: close-to-open, reservations at close, conflicts that destroy nothing."""

import datetime
import os
import stat
import time

from harness import wait_until
from harness.suite import Case
from posix_calls import pattern, write

EXCLUSIVE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


class Two(Case):
    def pair(self, *options, **more):
        first = self.new_mount(*options, **more)
        return first, self.new_mount(*options, place=self.place_of(first), **more)


class CloseToOpen(Two):
    def test_a_change_is_seen_after_the_ttl(self):
        one, other = self.pair("--ttl", "1s")
        write(one.path / "f", b"first")
        one.settle()
        wait_until(lambda: (other.path / "f").exists(), "the new name is seen")
        self.assertEqual((other.path / "f").read_bytes(), b"first")
        write(one.path / "f", b"other")
        one.settle()
        wait_until(lambda: (other.path / "f").read_bytes() == b"other", "the new bytes of the same size are seen", 10)
        os.unlink(one.path / "f")
        one.settle()
        wait_until(lambda: not (other.path / "f").exists(), "the deletion is seen", 10)

    def test_an_open_file_stays_on_its_version(self):
        one, other = self.pair("--ttl", "1s")
        old, new = pattern(1, 3 << 20), pattern(2, 3 << 20)
        write(one.path / "f", old)
        one.settle()
        wait_until(lambda: (other.path / "f").exists(), "the new name is seen")
        with open(other.path / "f", "rb", buffering=0) as reader:
            seen = [os.pread(reader.fileno(), 4096, 0)]
            write(one.path / "f", new)
            one.settle()
            try:
                seen.append(os.pread(reader.fileno(), 4096, 2 << 20))
            except OSError as error:
                self.assertEqual(error.strerror, "Stale file handle")
                seen.append(old[2 << 20 :][:4096])
        self.assertEqual(seen, [old[:4096], old[2 << 20 :][:4096]])

        def sees_the_new_version():
            try:
                return (other.path / "f").read_bytes() == new
            except OSError as error:  # an open within the TTL may still mean the version that is gone
                self.assertEqual(error.strerror, "Stale file handle")
                return False

        wait_until(sees_the_new_version, "the next open sees the new version", 10)

    def test_headers_changed_right_after_a_save(self):
        """The ETag stays. The change is seen, and what is saved next keeps it."""
        one, other = self.pair("--ttl", "1s")
        write(one.path / "f", b"first")
        one.settle()
        saved = one.head("f")["LastModified"]
        wait_until(lambda: (other.path / "f").exists(), "the new name is seen")
        # By the store's clock: changes that are hardly apart can't be told apart.
        wait_until(lambda: datetime.datetime.now(datetime.UTC) > saved + datetime.timedelta(seconds=4), "some seconds pass")
        os.chmod(other.path / "f", 0o600)
        other.settle()
        wait_until(lambda: stat.S_IMODE(os.stat(one.path / "f").st_mode) == 0o600, "the new mode is seen", 10)
        write(one.path / "f", b"again")
        one.settle()
        self.assertEqual(one.head("f")["Metadata"]["mode"], "0100600")

    def test_listings_follow(self):
        one, other = self.pair("--ttl", "1s")
        (one.path / "d").mkdir()
        write(one.path / "d/a", b"1")
        one.settle()
        wait_until(lambda: (other.path / "d").exists() and os.listdir(other.path / "d") == ["a"], "the file is listed")
        write(one.path / "d/b", b"2")
        os.unlink(one.path / "d/a")
        one.settle()
        wait_until(lambda: os.listdir(other.path / "d") == ["b"], "the new listing is seen", 10)


class Through(Two):
    def test_close_returns_when_it_is_in_the_bucket(self):
        mount = self.new_mount(write_mode="through")
        for size in (0, 10_000, 30 << 20):
            data = pattern(size, size)
            write(mount.path / "f", data)
            self.assertEqual(mount.object("f"), data)

    def test_of_two_exclusive_creates_the_later_close_says_eexist(self):
        one, other = self.pair(write_mode="through")
        first, second = os.open(one.path / "f", EXCLUSIVE), os.open(other.path / "f", EXCLUSIVE)
        os.write(first, b"the winner's")
        os.write(second, b"the loser's")
        os.close(first)
        with self.assertRaises(FileExistsError):
            os.close(second)
        self.assertEqual(one.object("f"), b"the winner's")
        self.assertEqual((other.path / "f").read_bytes(), b"the winner's")
        self.assertEqual(one.files(), ["f"])

    def test_an_exclusive_create_never_takes_what_the_other_made(self):
        """open() says so, or at the latest close(): a look-up milliseconds ago may be believed until then."""
        one, other = self.pair(write_mode="through")
        self.assertFalse((other.path / "f").exists())
        write(one.path / "f", b"made")
        with self.assertRaises(FileExistsError):
            write(other.path / "f", b"taken", EXCLUSIVE)
        self.assertEqual(one.object("f"), b"made")
        self.assertEqual((other.path / "f").read_bytes(), b"made")

    def test_a_whole_replacement_wins(self):
        one, other = self.pair(write_mode="through")
        write(one.path / "f", b"one")
        write(other.path / "f", b"other")
        self.assertEqual(one.object("f"), b"other")


class Conflicts(Two):
    def racing(self, *options):
        """The same new name on both mounts, in back mode, with one upload after the other."""
        one, other = self.pair(*options, write_mode="back")
        first, second = os.open(one.path / "photo.jpg", EXCLUSIVE), os.open(other.path / "photo.jpg", EXCLUSIVE)
        os.write(first, b"from one")
        os.write(second, b"from the other")
        os.close(first)
        one.settle()
        os.close(second)
        return one, other

    def test_keep_both_keeps_both(self):
        one, other = self.racing()
        other.settle()
        stored = {key: one.object(key) for key in one.files()}
        self.assertEqual(stored.pop("photo.jpg"), b"from one")
        self.assertEqual(list(stored.values()), [b"from the other"])
        self.assertRegex(list(stored)[0], r"^photo\.conflict-.+\.jpg$")
        self.assertEqual(other.status()["conflicts"], 1)
        self.assertEqual((other.path / list(stored)[0]).read_bytes(), b"from the other")

    def test_a_change_on_an_old_version_keeps_both(self):
        one, other = self.pair("--ttl", "1h", write_mode="back")
        write(one.path / "log", b"base ")
        one.settle()
        self.assertEqual((other.path / "log").read_bytes(), b"base ")
        write(one.path / "log", b"replaced")
        one.settle()
        write(other.path / "log", b"appended", os.O_WRONLY | os.O_APPEND)
        other.settle()
        stored = {key: one.object(key) for key in one.files()}
        self.assertEqual(stored.pop("log"), b"replaced")
        self.assertEqual(list(stored.values()), [b"base appended"])


class ManyWriters(Two):
    def test_different_names_in_one_directory_disturb_nobody(self):
        one, other = self.pair()
        (one.path / "d").mkdir()
        one.settle()
        wait_until(lambda: (other.path / "d").exists(), "the directory is seen")
        for number in range(50):
            write(one.path / f"d/one{number}", b"1")
            write(other.path / f"d/other{number}", b"2")
        began = time.monotonic()
        one.settle()
        other.settle()
        self.assertEqual(len(one.files("d/")), 100, f"after {time.monotonic() - began:.1f} s")
