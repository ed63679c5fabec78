"""What a program expects of a disk: files, directories, links, attributes. One mount, a directory for each test."""

import errno
import fcntl
import mmap
import os
import pathlib
import shutil
import stat
import tempfile
import threading

from harness.suite import SharedCase
from posix_calls import fallocate, pattern, refused, write


class Files(SharedCase):
    def test_what_was_written_is_read(self):
        for size in (0, 1, 4095, 4096, 4097, 131072, 1 << 20, (5 << 20) + 3):
            with self.subTest(size=size):
                data = pattern(size, size)
                write(self.dir / f"f{size}", data)
                self.assertEqual((self.dir / f"f{size}").read_bytes(), data)
                self.assertEqual(os.stat(self.dir / f"f{size}").st_size, size)

    def test_append_goes_to_the_end(self):
        write(self.dir / "log", b"one")
        for word in (b"two", b"three"):
            write(self.dir / "log", word, os.O_WRONLY | os.O_APPEND)
        self.assertEqual((self.dir / "log").read_bytes(), b"onetwothree")

    def test_two_appenders_lose_nothing(self):
        def append(letter):
            with open(self.dir / "log", "ab", buffering=0) as log:
                for _ in range(200):
                    log.write(letter * 100)

        threads = [threading.Thread(target=append, args=(letter,)) for letter in (b"a", b"b")]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        text = (self.dir / "log").read_bytes()
        self.assertEqual((len(text), text.count(b"a"), text.count(b"b")), (40_000, 20_000, 20_000))

    def test_writes_at_any_offset(self):
        expected = bytearray(pattern(1, 300_000))
        write(self.dir / "f", expected)
        with open(self.dir / "f", "r+b", buffering=0) as file:
            for number, offset in enumerate((0, 299_990, 131_072, 4_095, 250_000)):
                piece = pattern(100 + number, 10)
                os.pwrite(file.fileno(), piece, offset)
                expected[offset : offset + 10] = piece
                self.assertEqual(os.pread(file.fileno(), 10, offset), piece)
        self.assertEqual((self.dir / "f").read_bytes(), bytes(expected))

    def test_a_write_past_the_end_leaves_zeros(self):
        with open(self.dir / "f", "wb", buffering=0) as file:
            os.pwrite(file.fileno(), b"x", 1 << 20)
        self.assertEqual((self.dir / "f").read_bytes(), bytes(1 << 20) + b"x")

    def test_truncate_shortens_and_extends(self):
        data = pattern(2, 100_000)
        write(self.dir / "f", data)
        os.truncate(self.dir / "f", 50_001)
        self.assertEqual((self.dir / "f").read_bytes(), data[:50_001])
        os.truncate(self.dir / "f", 60_000)
        self.assertEqual((self.dir / "f").read_bytes(), data[:50_001] + bytes(9_999))
        os.truncate(self.dir / "f", 0)
        self.assertEqual((self.dir / "f").read_bytes(), b"")

    def test_ftruncate_of_an_open_file(self):
        with open(self.dir / "f", "w+b", buffering=0) as file:
            file.write(b"0123456789")
            os.ftruncate(file.fileno(), 4)
            self.assertEqual(os.fstat(file.fileno()).st_size, 4)
            self.assertEqual(os.pread(file.fileno(), 10, 0), b"0123")

    def test_exclusive_create_refuses_a_name_that_is_taken(self):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        os.close(os.open(self.dir / "f", flags))
        with refused(errno.EEXIST):
            os.open(self.dir / "f", flags)

    def test_of_many_exclusive_creates_one_wins(self):
        won, barrier = [], threading.Barrier(8)

        def create(number):
            barrier.wait()
            try:
                os.close(os.open(self.dir / "f", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
                won.append(number)
            except FileExistsError:
                pass

        threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        self.assertEqual(len(won), 1)

    def test_o_trunc_empties(self):
        write(self.dir / "f", b"something long")
        write(self.dir / "f", b"short")
        self.assertEqual((self.dir / "f").read_bytes(), b"short")

    def test_errors_are_exact(self):
        write(self.dir / "file", b"x")
        (self.dir / "full").mkdir()
        write(self.dir / "full/child", b"x")
        cases = [
            (errno.ENOENT, lambda: os.stat(self.dir / "none")),
            (errno.ENOENT, lambda: os.open(self.dir / "none", os.O_RDONLY)),
            (errno.ENOENT, lambda: os.unlink(self.dir / "none")),
            (errno.ENOENT, lambda: os.rmdir(self.dir / "none")),
            (errno.ENOENT, lambda: write(self.dir / "none/f", b"")),
            (errno.ENOTDIR, lambda: os.stat(self.dir / "file/below")),
            (errno.ENOTDIR, lambda: os.rmdir(self.dir / "file")),
            (errno.ENOTDIR, lambda: os.listdir(self.dir / "file")),
            (errno.EISDIR, lambda: os.open(self.dir / "full", os.O_WRONLY)),
            (errno.EISDIR, lambda: os.unlink(self.dir / "full")),
            (errno.EEXIST, lambda: os.mkdir(self.dir / "full")),
            (errno.EEXIST, lambda: os.mkdir(self.dir / "file")),
            (errno.EEXIST, lambda: os.symlink("x", self.dir / "file")),
            (errno.ENOTEMPTY, lambda: os.rmdir(self.dir / "full")),
            (errno.ENAMETOOLONG, lambda: os.stat(self.dir / ("n" * 256))),
            (errno.ENAMETOOLONG, lambda: write(self.dir / ("n" * 256), b"")),
            (errno.ENAMETOOLONG, lambda: os.mkdir(self.dir / ("n" * 256))),
            (errno.EPERM, lambda: os.link(self.dir / "file", self.dir / "hard")),
            (errno.EPERM, lambda: os.mkfifo(self.dir / "fifo")),
        ]
        for number, call in cases:
            with self.subTest(errno=errno.errorcode[number]), refused(number):
                call()

    def test_a_rename_from_another_file_system_says_exdev(self):
        with tempfile.TemporaryDirectory() as elsewhere:
            outside = pathlib.Path(elsewhere) / "f"
            outside.write_bytes(b"moved")
            with refused(errno.EXDEV):
                os.rename(outside, self.dir / "f")
            shutil.move(outside, self.dir / "f")
        self.assertEqual((self.dir / "f").read_bytes(), b"moved")

    def test_the_longest_name_works(self):
        name = "ä" * 127 + "n"
        write(self.dir / name, b"x")
        self.assertEqual(os.listdir(self.dir), [name])

    def test_odd_names_work(self):
        names = ["a b", "plus+plus", "per%20cent", "ünï", "日本語.jpg", "🎞.mp4", "a&b<c>", "quote'\"", "new\nline", "tab\t", "-dash", "back\\slash", "col:on"]
        for name in names:
            write(self.dir / name, name.encode())
        self.assertEqual(sorted(os.listdir(self.dir)), sorted(names))
        for name in names:
            self.assertEqual((self.dir / name).read_bytes(), name.encode())

    def test_a_file_that_is_unlinked_while_open_goes_on(self):
        data = pattern(3, 200_000)
        write(self.dir / "f", data)
        with open(self.dir / "f", "r+b", buffering=0) as file:
            os.unlink(self.dir / "f")
            self.assertFalse((self.dir / "f").exists())
            self.assertEqual(os.pread(file.fileno(), 100, 150_000), data[150_000:150_100])
            os.pwrite(file.fileno(), b"still here", 0)
            self.assertEqual(os.pread(file.fileno(), 10, 0), b"still here")
            self.assertEqual(os.fstat(file.fileno()).st_nlink, 0)
            write(self.dir / "f", b"a new one")
            self.assertEqual(os.pread(file.fileno(), 10, 0), b"still here")
        self.assertEqual((self.dir / "f").read_bytes(), b"a new one")

    def test_a_name_is_free_again_at_once(self):
        write(self.dir / "n", b"file")
        os.unlink(self.dir / "n")
        os.mkdir(self.dir / "n")
        write(self.dir / "n/child", b"x")
        shutil.rmtree(self.dir / "n")
        write(self.dir / "n", b"file again")
        self.assertEqual((self.dir / "n").read_bytes(), b"file again")

    def test_directories(self):
        os.makedirs(self.dir / "a/b/c")
        write(self.dir / "a/b/f", b"x")
        seen = {entry.name: entry.is_dir() for entry in os.scandir(self.dir / "a/b")}
        self.assertEqual(seen, {"c": True, "f": False})
        shutil.rmtree(self.dir / "a")
        self.assertEqual(os.listdir(self.dir), [])

    def test_a_directory_stays_when_its_last_child_goes(self):
        os.mkdir(self.dir / "d")
        write(self.dir / "d/f", b"x")
        self.mount.settle()
        os.unlink(self.dir / "d/f")
        self.assertEqual(os.listdir(self.dir / "d"), [])
        self.assertTrue((self.dir / "d").is_dir())

    def test_a_listing_shows_what_is_not_uploaded_yet(self):
        for number in range(50):
            write(self.dir / f"f{number:02}", b"x")
        self.assertEqual(sorted(os.listdir(self.dir)), [f"f{number:02}" for number in range(50)])
        for number in range(0, 50, 2):
            os.unlink(self.dir / f"f{number:02}")
        self.assertEqual(sorted(os.listdir(self.dir)), [f"f{number:02}" for number in range(1, 50, 2)])

    def test_symlinks(self):
        write(self.dir / "f", b"target")
        os.symlink("f", self.dir / "link")
        self.assertEqual(os.readlink(self.dir / "link"), "f")
        self.assertTrue(os.path.islink(self.dir / "link"))
        self.assertEqual((self.dir / "link").read_bytes(), b"target")
        os.symlink("nowhere", self.dir / "broken")
        self.assertFalse((self.dir / "broken").exists())
        os.unlink(self.dir / "link")
        self.assertEqual((self.dir / "f").read_bytes(), b"target")

    def test_modes(self):
        write(self.dir / "f", b"x")
        self.assertEqual(stat.S_IMODE(os.stat(self.dir / "f").st_mode), 0o644)
        for mode in (0o600, 0o755, 0o644):
            os.chmod(self.dir / "f", mode)
            self.assertEqual(stat.S_IMODE(os.stat(self.dir / "f").st_mode), mode)
        os.mkdir(self.dir / "d", 0o700)
        self.assertEqual(stat.S_IMODE(os.stat(self.dir / "d").st_mode), 0o700)
        self.mount.settle()
        self.assertEqual(stat.S_IMODE(os.stat(self.dir / "d").st_mode), 0o700)

    def test_a_change_takes_set_id_bits_away(self):
        write(self.dir / "f", b"x")
        for change in (lambda: write(self.dir / "f", b"y", os.O_WRONLY), lambda: os.truncate(self.dir / "f", 0), lambda: os.chown(self.dir / "f", os.getuid(), -1)):
            os.chmod(self.dir / "f", 0o6755)
            change()
            self.assertEqual(stat.S_IMODE(os.stat(self.dir / "f").st_mode), 0o755)

    def test_times(self):
        write(self.dir / "f", b"x")
        os.utime(self.dir / "f", ns=(1_600_000_000_000_000_000, 1_500_000_000_000_000_000))
        self.assertEqual(int(os.stat(self.dir / "f").st_mtime), 1_500_000_000)
        write(self.dir / "f", b"y")
        self.assertGreater(os.stat(self.dir / "f").st_mtime, 1_600_000_000)

    def test_times_before_1970(self):
        write(self.dir / "f", b"x")
        for nanoseconds in (-1, -500_000_000, -1_250_000_000, -3_000_000_000):
            os.utime(self.dir / "f", ns=(nanoseconds, nanoseconds))
            facts = os.stat(self.dir / "f")
            self.assertEqual((facts.st_atime_ns, facts.st_mtime_ns), (nanoseconds, nanoseconds))

    def test_statfs_is_filled(self):
        facts = os.statvfs(self.dir)
        self.assertEqual(facts.f_namemax, 255)
        self.assertGreater(facts.f_bsize, 0)
        self.assertGreater(facts.f_blocks, 0)
        self.assertGreater(facts.f_bavail, 0)
        self.assertTrue(facts.f_flag & os.ST_NOSUID and facts.f_flag & os.ST_NODEV)

    def test_mmap_reads_and_writes(self):
        data = pattern(4, 100_000)
        write(self.dir / "f", data)
        with open(self.dir / "f", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            self.assertEqual(mapped[:], data)
            mapped[50_000:50_005] = b"mmap!"
            mapped.flush()
        self.assertEqual((self.dir / "f").read_bytes()[49_999:50_006], data[49_999:50_000] + b"mmap!" + data[50_005:50_006])

    def test_locks_between_descriptors(self):
        write(self.dir / "f", b"")
        with open(self.dir / "f") as one, open(self.dir / "f") as other:
            fcntl.flock(one, fcntl.LOCK_EX)
            with refused(errno.EAGAIN):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(one, fcntl.LOCK_UN)
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_fsync_and_fallocate(self):
        with open(self.dir / "f", "wb", buffering=0) as file:
            fallocate(file.fileno(), 0, 0, 10_000)
            os.pwrite(file.fileno(), b"x", 5_000)
            os.fsync(file.fileno())
        self.assertEqual(self.mount.object(f"{self.name}/f"), bytes(5_000) + b"x" + bytes(4_999))

    def test_seek_to_the_end_and_beyond(self):
        write(self.dir / "f", b"0123456789")
        with open(self.dir / "f", "rb", buffering=0) as file:
            self.assertEqual(file.seek(0, os.SEEK_END), 10)
            self.assertEqual(file.seek(-3, os.SEEK_CUR), 7)
            self.assertEqual(file.read(100), b"789")
            file.seek(100)
            self.assertEqual(file.read(1), b"")

    def test_one_writer_and_one_reader_see_the_same(self):
        with open(self.dir / "f", "wb", buffering=0) as writer, open(self.dir / "f", "rb", buffering=0) as reader:
            for number in range(100):
                piece = pattern(number, 1000)
                writer.write(piece)
                self.assertEqual(os.pread(reader.fileno(), 1000, number * 1000), piece)
