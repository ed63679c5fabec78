"""What other S3 clients see of a save, what the mount sees of theirs, and what is left after mounting again."""

import errno
import os
import stat

from harness.suite import Case, Run, SharedCase
from posix_calls import pattern, refused, write


class Objects(SharedCase):
    def test_a_file_is_one_plain_object(self):
        data = pattern(1, 300_000)
        write(self.dir / "photo.jpg", data)
        self.mount.settle()
        head = self.mount.head(f"{self.name}/photo.jpg")
        self.assertEqual((head["ContentLength"], head["ContentType"]), (len(data), "image/jpeg"))
        self.assertNotIn("ContentEncoding", head)
        self.assertNotIn("mode", head["Metadata"])
        self.assertEqual(self.mount.object(f"{self.name}/photo.jpg"), data)

    def test_content_types(self):
        expected = {
            "a.png": "image/png",
            "a.JPG": "image/jpeg",
            "a.webp": "image/webp",
            "a.svg": "image/svg+xml",
            "a.mp4": "video/mp4",
            "a.pdf": "application/pdf",
            "a.css": "text/css",
            "a.json": "application/json",
        }
        for name in expected:
            write(self.dir / name, b"content")
        self.mount.settle()
        found = {name: self.mount.head(f"{self.name}/{name}")["ContentType"].split(";")[0] for name in expected}
        self.assertEqual(found, expected)

    def test_names_are_keys_byte_for_byte(self):
        for name in ("a b+c%20.txt", "ünï.txt", "日本語.txt"):
            write(self.dir / name, name.encode())
            self.mount.settle()
            self.assertEqual(self.mount.object(f"{self.name}/{name}"), name.encode())

    def test_a_name_that_the_store_can_t_hold_is_missing_and_refused(self):
        for name in ("..\\bar", "a\\.\\b", " .."):
            path = self.dir / name
            self.assertFalse(path.exists())
            if Run.store.name == "minio":
                with refused(errno.EINVAL):
                    write(path, b"x")
                with refused(errno.EINVAL):
                    os.mkdir(path)
            else:
                write(path, b"x")
        self.mount.settle()
        self.assertNotIn("region", self.mount.shown_log(1000))

    def test_a_directory_is_a_marker(self):
        os.mkdir(self.dir / "d")
        self.mount.settle()
        head = self.mount.head(f"{self.name}/d/")
        self.assertEqual((head["ContentLength"], head["ContentType"]), (0, "application/x-directory"))
        os.rmdir(self.dir / "d")
        self.mount.settle()
        self.assertNotIn(f"{self.name}/d/", self.mount.keys())

    def test_flush_sends_a_path(self):
        write(self.dir / "f", b"now")
        self.mount.flush(self.dir / "f")
        self.assertEqual(self.mount.object(f"{self.name}/f"), b"now")

    def test_fsync_returns_when_it_is_in_the_bucket(self):
        with open(self.dir / "f", "wb", buffering=0) as file:
            file.write(b"synced")
            os.fsync(file.fileno())
            self.assertEqual(self.mount.object(f"{self.name}/f"), b"synced")

    def test_fsync_of_a_directory_sends_what_is_below(self):
        os.makedirs(self.dir / "a/b")
        for name in ("one", "a/two", "a/b/three"):
            write(self.dir / name, name.encode())
        fd = os.open(self.dir, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(fd)
        os.close(fd)
        for name in ("one", "a/two", "a/b/three"):
            self.assertEqual(self.mount.object(f"{self.name}/{name}"), name.encode())

    def test_what_others_put_is_a_file(self):
        self.mount.put(f"{self.name}/by/another/client.txt", b"hello", ContentType="text/plain")
        self.assertEqual((self.dir / "by/another/client.txt").read_bytes(), b"hello")
        facts = os.stat(self.dir / "by/another/client.txt")
        self.assertEqual((stat.S_IMODE(facts.st_mode), facts.st_size), (0o644, 5))
        self.assertEqual(os.listdir(self.dir / "by"), ["another"])

    def test_an_archived_object_says_so(self):
        if Run.store.name != "emulator":
            self.skipTest("the store has no archive")
        self.mount.put(f"{self.name}/cold", b"bytes", StorageClass="GLACIER")
        file = self.dir / "cold"
        self.assertEqual(file.stat().st_size, 5)
        with self.assertRaisesRegex(OSError, "Permission denied"):
            file.read_bytes()
        self.assertIn("restore it first", self.mount.shown_log(200))
        self.assertEqual(os.getxattr(file, "user.mediafs.state"), b"archived")
        self.assertEqual(os.getxattr(file, "user.s3.storage-class"), b"GLACIER")
        write(file, b"warm")
        self.mount.settle()
        self.assertEqual((self.mount.object(f"{self.name}/cold"), os.getxattr(file, "user.mediafs.state")), (b"warm", b"clean"))

    def test_a_change_in_the_middle_keeps_the_rest(self):
        data = bytearray(pattern(2, 1_000_000))
        self.mount.put(f"{self.name}/f", bytes(data))
        with open(self.dir / "f", "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), b"changed", 500_000)
        data[500_000:500_007] = b"changed"
        self.mount.settle()
        self.assertEqual(self.mount.object(f"{self.name}/f"), bytes(data))

    def test_an_append_keeps_what_was_there(self):
        self.mount.put(f"{self.name}/f", b"theirs, ")
        write(self.dir / "f", b"ours", os.O_WRONLY | os.O_APPEND)
        self.mount.settle()
        self.assertEqual(self.mount.object(f"{self.name}/f"), b"theirs, ours")

    def test_an_unlink_deletes_the_object(self):
        write(self.dir / "f", b"x")
        self.mount.settle()
        os.unlink(self.dir / "f")
        self.mount.settle()
        self.assertEqual(self.mount.files(f"{self.name}/"), [])

    def test_a_large_file_goes_up_in_equal_parts(self):
        data = pattern(3, 40 << 20)
        write(self.dir / "large.bin", data)
        self.mount.settle()
        self.assertEqual(self.mount.object(f"{self.name}/large.bin"), data)
        self.assertEqual(self.mount.unfinished_uploads(), [])


class Remount(Case):
    def fill(self, mount):
        """Files of several kinds; {name: what a fresh mount has to show}."""
        os.makedirs(mount.path / "dir/empty")
        write(mount.path / "dir/plain.txt", b"plain")
        write(mount.path / "dir/private", b"private")
        os.chmod(mount.path / "dir/private", 0o600)
        os.utime(mount.path / "dir/private", (1_500_000_000, 1_500_000_000))
        write(mount.path / "large", pattern(4, 20 << 20))
        os.symlink("plain.txt", mount.path / "dir/link")

    def check(self, mount):
        self.assertEqual(sorted(os.listdir(mount.path)), ["dir", "large"])
        self.assertEqual(sorted(os.listdir(mount.path / "dir")), ["empty", "link", "plain.txt", "private"])
        self.assertEqual((mount.path / "dir/plain.txt").read_bytes(), b"plain")
        self.assertEqual((mount.path / "large").read_bytes(), pattern(4, 20 << 20))
        facts = os.stat(mount.path / "dir/private")
        self.assertEqual((stat.S_IMODE(facts.st_mode), int(facts.st_mtime)), (0o600, 1_500_000_000))
        self.assertTrue((mount.path / "dir/empty").is_dir())
        self.assertEqual(os.readlink(mount.path / "dir/link"), "plain.txt")

    def test_a_fresh_cache_sees_the_same(self):
        mount = self.new_mount()
        self.fill(mount)
        self.assertEqual(mount.stop(), 0)
        mount.forget_cache()
        self.check(mount.start())

    def test_the_old_cache_sees_the_same_and_asks_for_no_bytes(self):
        mount = self.new_mount()
        self.fill(mount)
        self.assertEqual(mount.stop(), 0)
        mount.start()
        before = mount.requests()
        self.check(mount)
        self.assertEqual((mount.requests() - before)["GetObject"], 0)

    def test_a_prefix_is_the_root_of_its_mount(self):
        bucket, prefix = self.place_of(self.new_mount(start=False))
        inner = f"{prefix}/tenant/media".lstrip("/")
        mount = self.new_mount(place=(bucket, inner))
        write(mount.path / "f", b"x")
        self.assertEqual(mount.stop(), 0)
        self.assertIn("f", mount.keys())
        outer = self.new_mount(place=(bucket, prefix))
        self.assertEqual((outer.path / "tenant/media/f").read_bytes(), b"x")

    def test_a_read_only_mount_refuses_changes(self):
        writer = self.new_mount()
        write(writer.path / "f", b"x")
        writer.settle()
        reader = self.new_mount("--read-only", place=self.place_of(writer))
        self.assertEqual((reader.path / "f").read_bytes(), b"x")
        for change in (lambda: write(reader.path / "g", b""), lambda: os.unlink(reader.path / "f"), lambda: os.mkdir(reader.path / "d")):
            with self.assertRaisesRegex(OSError, "Read-only file system"):
                change()

    def test_uid_gid_and_umask_are_the_defaults_of_foreign_objects(self):
        # Everybody may walk through what root may, so that an ordinary user sees the file.
        mount = self.new_mount("--uid", "1234", "--gid", "2345", "--umask", "026", start=False)
        mount.put("dir/f", b"x")
        mount.start()
        facts = os.stat(mount.path / "dir/f")
        self.assertEqual((facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode)), (1234, 2345, 0o640))
        self.assertEqual(stat.S_IMODE(os.stat(mount.path / "dir").st_mode), 0o751)

    def test_every_mark_of_a_directory_is_a_directory(self):
        mount = self.new_mount(start=False)
        for key in ("implicit/f", "bare/", "old_$folder$"):
            mount.put(key, b"")
        mount.put("typed/", b"", ContentType="application/x-directory; charset=UTF-8")
        mount.start()
        names = ["bare", "implicit", "old", "typed"]
        self.assertEqual(sorted(os.listdir(mount.path)), names)
        for name in names:
            self.assertTrue((mount.path / name).is_dir(), name)
        os.unlink(mount.path / "implicit/f")
        os.rename(mount.path / "old", mount.path / "renamed")
        for name in ("bare", "implicit", "renamed", "typed"):
            os.rmdir(mount.path / name)
        mount.settle()
        self.assertEqual((os.listdir(mount.path), mount.keys()), ([], []))
