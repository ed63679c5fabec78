"""Extended attributes and media headers, as programs on the mount and other S3 clients see them."""

import errno
import gzip
import os
import shutil
import subprocess
import unittest

from harness.suite import Case, Run, SharedCase
from posix_calls import write


class Attributes(SharedCase):
    def refused(self, number, call, *args):
        with self.assertRaises(OSError) as caught:
            call(*args)
        self.assertEqual(caught.exception.errno, number, f"{call.__name__}{args}")

    def head(self, name):
        self.mount.settle()
        return self.mount.head(f"{self.name}/{name}")

    def test_they_are_kept_and_are_no_more_than_one_change(self):
        values = {"user.comment": b"hello", "user.empty": b"", "user.binary": bytes(range(256)), "user.日本": b"x"}
        write(self.dir / "f", b"bytes")
        for name, value in values.items():
            os.setxattr(self.dir / "f", name, value)
        self.assertEqual(self.head("f")["ContentLength"], 5)
        self.assertEqual({name: os.getxattr(self.dir / "f", name) for name in os.listxattr(self.dir / "f")}, values)
        before = self.mount.requests()
        os.setxattr(self.dir / "f", "user.comment", b"other")
        os.setxattr(self.dir / "f", "user.more", b"more")
        self.mount.settle()
        changes = self.mount.requests() - before
        self.assertEqual((changes["CopyObject"], changes["PutObject"], changes["GetObject"]), (1, 0, 0))
        self.assertEqual((self.dir / "f").read_bytes(), b"bytes")

    def test_create_replace_and_sizes(self):
        file = self.dir / "f"
        write(file, b"bytes")
        self.refused(errno.ENODATA, os.setxattr, file, "user.x", b"1", os.XATTR_REPLACE)
        os.setxattr(file, "user.x", b"1", os.XATTR_CREATE)
        self.refused(errno.EEXIST, os.setxattr, file, "user.x", b"2", os.XATTR_CREATE)
        os.setxattr(file, "user.x", b"3", os.XATTR_REPLACE)
        self.assertEqual(os.getxattr(file, "user.x"), b"3")
        os.removexattr(file, "user.x")
        self.refused(errno.ENODATA, os.getxattr, file, "user.x")
        self.refused(errno.ENODATA, os.removexattr, file, "user.x")
        self.refused(errno.ENOSPC, os.setxattr, file, "user.x", b"x" * 8000)
        self.refused(errno.EINVAL, os.setxattr, file, "user.", b"x")

    def test_what_is_not_ours_is_refused_as_a_disk_refuses_it(self):
        file = self.dir / "f"
        write(file, b"bytes")
        os.symlink("f", self.dir / "link")
        self.refused(errno.EPERM, lambda: os.setxattr(self.dir / "link", "user.x", b"1", follow_symlinks=False))
        self.refused(errno.ENODATA, lambda: os.getxattr(self.dir / "link", "user.x", follow_symlinks=False))
        self.assertEqual(os.listxattr(self.dir / "link", follow_symlinks=False), [])
        self.refused(errno.EOPNOTSUPP, os.getxattr, file, "system.posix_acl_access")
        self.refused(errno.ENODATA, os.getxattr, file, "security.capability")
        self.refused(errno.EOPNOTSUPP, os.setxattr, file, "nonsense.x", b"1")
        self.refused(errno.EPERM, os.setxattr, file, "user.mediafs.etag", b"1")
        if os.geteuid() == 0:
            self.refused(errno.EOPNOTSUPP, os.setxattr, file, "trusted.x", b"1")
            self.refused(errno.ENODATA, os.getxattr, file, "trusted.x")

    def test_directories_have_them(self):
        os.mkdir(self.dir / "d")
        os.setxattr(self.dir / "d", "user.x", b"1")
        os.rename(self.dir / "d", self.dir / "e")
        self.mount.settle()
        self.assertEqual(os.getxattr(self.dir / "e", "user.x"), b"1")
        self.assertIn("xattr", self.mount.head(f"{self.name}/e/")["Metadata"])

    def test_headers_are_chosen_and_given_back(self):
        file = self.dir / "a.jpg"
        write(file, b"bytes")
        os.setxattr(file, "user.s3.content-type", b"image/x-mine")
        os.setxattr(file, "user.s3.cache-control", b"public, max-age=60")
        os.setxattr(file, "user.s3.content-disposition", b'attachment; filename="a b.jpg"')
        os.setxattr(file, "user.s3.content-language", b"de")
        os.setxattr(file, "user.s3.meta.camera", "Zürich".encode())
        os.setxattr(file, "user.s3.meta.empty", b"")
        head = self.head("a.jpg")
        self.assertEqual((head["ContentType"], head["CacheControl"], head["ContentLanguage"]), ("image/x-mine", "public, max-age=60", "de"))
        self.assertEqual(head["ContentDisposition"], 'attachment; filename="a b.jpg"')
        os.rename(file, self.dir / "b.png")
        write(self.dir / "b.png", b"new bytes")
        head = self.head("b.png")
        self.assertEqual((head["ContentType"], head["CacheControl"]), ("image/x-mine", "public, max-age=60"))
        os.removexattr(self.dir / "b.png", "user.s3.content-type")
        os.removexattr(self.dir / "b.png", "user.s3.cache-control")
        head = self.head("b.png")
        self.assertEqual((head["ContentType"], head.get("CacheControl")), ("image/png", None))
        self.assertEqual(os.getxattr(self.dir / "b.png", "user.s3.meta.camera").decode(), "Zürich")
        self.assertEqual(os.getxattr(self.dir / "b.png", "user.s3.meta.empty"), b"")

    def test_headers_of_others_stay_through_a_change(self):
        self.mount.put(f"{self.name}/f.html", b"old", ContentType="text/html; charset=utf-8", CacheControl="no-store", Metadata={"k": "v"})
        with open(self.dir / "f.html", "a") as file:
            file.write(" and new")
        head = self.head("f.html")
        self.assertEqual((head["ContentType"], head["CacheControl"], head["Metadata"]["k"]), ("text/html; charset=utf-8", "no-store", "v"))
        self.assertEqual(sorted(os.listxattr(self.dir / "f.html")), ["user.s3.cache-control", "user.s3.meta.k"])

    def test_a_type_is_sniffed_where_the_name_has_none(self):
        write(self.dir / "upload", b"\x89PNG\r\n\x1a\n....")
        self.assertEqual(self.head("upload")["ContentType"], "image/png")
        write(self.dir / "upload", b"\xff\xd8\xff\xe0....")
        self.assertEqual(self.head("upload")["ContentType"], "image/jpeg")
        os.rename(self.dir / "upload", self.dir / "upload.webp")
        self.assertEqual(self.head("upload.webp")["ContentType"], "image/webp")

    def test_cp_ls_and_python_do_not_complain(self):
        write(self.dir / "a", b"bytes")
        os.setxattr(self.dir / "a", "user.x", b"1")
        shutil.copy2(self.dir / "a", self.dir / "copy2")
        done = subprocess.run(["cp", "-a", self.dir / "a", self.dir / "cp"], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for name in ("copy2", "cp"):
            self.assertEqual(os.getxattr(self.dir / name, "user.x"), b"1")
        done = subprocess.run(["ls", "-la", self.dir], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertFalse([line for line in done.stdout.splitlines() if line.split()[0].endswith("+")], "no ACLs")

    @unittest.skipUnless(shutil.which("rsync"), "needs rsync")
    def test_rsync_with_attributes_has_nothing_to_do_the_second_time(self):
        source = Run.folder("rsync")
        write(source / "a.jpg", b"bytes")
        os.setxattr(source / "a.jpg", "user.x", b"1")
        for expected in (True, False):
            command = ["rsync", "-aXi", f"{source}/", f"{self.dir}/to/"]
            done = subprocess.run(command, capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertEqual("a.jpg" in done.stdout, expected, done.stdout)
        self.assertEqual(os.getxattr(self.dir / "to/a.jpg", "user.x"), b"1")
        shutil.rmtree(source)


class Elsewhere(Case):
    def test_another_mount_and_the_next_life_see_them(self):
        mount = self.new_mount()
        write(mount.path / "clean", b"bytes")
        mount.settle()
        os.setxattr(mount.path / "clean", "user.x", b"1")
        write(mount.path / "dirty", b"bytes")
        os.setxattr(mount.path / "dirty", "user.x", b"2")
        mount.kill()
        mount.start()
        mount.settle()
        other = self.new_mount(place=self.place_of(mount))
        for at in (mount, other):
            self.assertEqual((os.getxattr(at.path / "clean", "user.x"), os.getxattr(at.path / "dirty", "user.x")), (b"1", b"2"))


class Rules(Case):
    def test_headers_follow_the_path(self):
        config = Run.folder("rules") / "media.toml"
        config.write_text(
            '[cache-control]\n"static/**" = "public, max-age=31536000, immutable"\n"*.jpg" = "public, max-age=3600"\n'
            '[content-disposition]\n"*.pdf" = "attachment"\n[content-type]\n"*.glb" = "model/x-mine"\n'
            '[metadata]\n"static/**" = { team = "web" }\n'
        )
        mount = self.new_mount("--config", str(config))
        os.makedirs(mount.path / "static/css")
        os.mkdir(mount.path / "staging")
        for name in ("static/css/a.css", "static/b.jpg", "c.jpg", "d.pdf", "e.glb", "staging/f.js", "staging/g.js"):
            write(mount.path / name, b"bytes")
        mount.settle()
        cache = lambda name: mount.head(name).get("CacheControl")
        self.assertEqual(cache("static/css/a.css"), "public, max-age=31536000, immutable")
        self.assertEqual(cache("static/b.jpg"), "public, max-age=31536000, immutable")
        self.assertEqual(mount.head("static/b.jpg")["Metadata"]["team"], "web")
        self.assertEqual((cache("c.jpg"), cache("d.pdf")), ("public, max-age=3600", None))
        self.assertEqual(mount.head("d.pdf")["ContentDisposition"], "attachment")
        self.assertEqual(mount.head("e.glb")["ContentType"], "model/x-mine")
        self.assertEqual(os.listxattr(mount.path / "static/b.jpg"), [])
        os.setxattr(mount.path / "staging/g.js", "user.s3.cache-control", b"no-store")
        os.rename(mount.path / "static/b.jpg", mount.path / "b.bin")
        os.rename(mount.path / "staging", mount.path / "static/js")
        mount.settle()
        self.assertEqual((cache("b.bin"), mount.head("b.bin")["Metadata"].get("team")), (None, None))
        self.assertEqual((cache("static/js/f.js"), cache("static/js/g.js")), ("public, max-age=31536000, immutable", "no-store"))

    def test_what_is_compressed_for_the_cdn_is_the_original_on_the_mount(self):
        config = Run.folder("rules") / "media.toml"
        config.write_text('[gzip]\n"vendor/**" = false\n"*.{css,js}" = true\n')
        mount = self.new_mount("--config", str(config))
        text = b"".join(b".rule-%d { margin: %dpx }\n" % (line * 7919 % 1000, line) for line in range(60_000))
        os.mkdir(mount.path / "vendor")
        for name in ("a.css", "vendor/b.css", "c.txt"):
            write(mount.path / name, text)
        write(mount.path / "small.js", text[:1000])
        os.chmod(mount.path / "a.css", 0o600)
        mount.settle()
        os.rename(mount.path / "a.css", mount.path / "moved.bin")
        mount.settle()
        got = mount.store.client().get_object(Bucket=mount.bucket, Key=mount.key("moved.bin"))
        self.assertEqual((got["ContentEncoding"], got["Metadata"]["mediafs-size"]), ("gzip", str(len(text))))
        self.assertEqual(gzip.decompress(got["Body"].read()), text)
        for name in ("vendor/b.css", "c.txt", "small.js"):
            self.assertNotIn("ContentEncoding", mount.head(name), name)
        theirs = gzip.compress(text)
        mount.put("theirs.css", theirs, ContentEncoding="gzip", ContentType="text/css")
        # One that knows the bucket alone, and reads parts first.
        other = self.new_mount("--config", str(config), place=self.place_of(mount))
        for at in (mount, other):
            names = {entry.name: entry.stat().st_size for entry in os.scandir(at.path) if entry.is_file()}
            self.assertEqual(names["moved.bin"], len(text))
            with open(at.path / "moved.bin", "rb") as file:
                file.seek(len(text) - 5000)
                self.assertEqual(file.read(), text[-5000:])
            self.assertEqual((at.path / "moved.bin").read_bytes(), text)
        self.assertEqual(((other.path / "theirs.css").stat().st_size, (other.path / "theirs.css").read_bytes()), (len(theirs), theirs))
        self.assertEqual(os.listxattr(other.path / "moved.bin"), [])
        shutil.copy2(other.path / "moved.bin", other.path / "d.css")
        with open(other.path / "moved.bin", "ab") as file:
            file.write(b"end")
        other.settle()
        self.assertEqual((other.head("d.css")["ContentEncoding"], other.head("d.css")["ContentType"]), ("gzip", "text/css"))
        head = other.head("moved.bin")
        self.assertEqual((head["ContentLength"], head.get("ContentEncoding")), (len(text) + 3, None))
        self.assertEqual((other.path / "moved.bin").read_bytes(), text + b"end")

    def test_a_directory_of_others_that_moves_gets_the_rules_of_its_new_place(self):
        config = Run.folder("rules") / "media.toml"
        config.write_text('[cache-control]\n"public/**" = "max-age=60"\n')
        mount = self.new_mount("--config", str(config), start=False)
        for name in ("a", "b/c"):
            mount.put(f"private/{name}", b"x", ContentType="text/x-theirs", Metadata={"k": "v"})
        mount.start()
        os.listdir(mount.path / "private")
        os.rename(mount.path / "private", mount.path / "public")
        mount.settle()
        for name in ("a", "b/c"):
            head = mount.head(f"public/{name}")
            self.assertEqual((head["CacheControl"], head["ContentType"], head["Metadata"]["k"]), ("max-age=60", "text/x-theirs", "v"))
