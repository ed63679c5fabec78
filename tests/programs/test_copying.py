"""rsync, cp, tar and install keep everything that they keep on a disk, also for a mount that begins with an empty cache."""

import os
import shutil

from bench import SOME_TIME_NS, Bench, describe, make_tree, needs, run


class Copying(Bench):
    def setUp(self):
        super().setUp()
        self.tree = make_tree(self.local / "tree")

    def rsync(self, source, target, *options):
        """The changes that rsync says it made, a line each."""
        return run("rsync", "-aX", "--itemize-changes", *options, f"{source}/", target).splitlines()

    @needs("rsync")
    def test_rsync_twice_transfers_nothing_the_second_time(self):
        mount = self.new_mount()
        copy = mount.path / "copy"
        self.assertGreater(len(self.rsync(self.tree, copy)), 60)
        self.assertEqual(self.rsync(self.tree, copy), [])
        mount.settle()
        self.assertEqual(self.rsync(self.tree, copy), [])
        before = mount.requests()
        self.cold(mount)
        self.assertEqual(self.rsync(self.tree, copy), [])
        self.assertIn("Number of regular files transferred: 0", run("rsync", "-aX", "--stats", f"{self.tree}/", copy))
        sent = mount.requests() - before
        self.assertEqual((sent["PutObject"], sent["CopyObject"], sent["GetObject"]), (0, 0, 0), dict(+sent))

    @needs("rsync")
    def test_rsync_to_the_mount_and_back(self):
        mount = self.new_mount()
        self.rsync(self.tree, mount.path / "copy")
        self.same(self.tree, mount.path / "copy")
        self.cold(mount)
        self.rsync(mount.path / "copy", self.local / "back")
        self.same(self.tree, self.local / "back")
        self.same(self.tree, mount.path / "copy")

    @needs("rsync")
    def test_rsync_transfers_what_changed_and_deletes_what_went(self):
        mount = self.new_mount()
        copy = mount.path / "copy"
        self.rsync(self.tree, copy)
        (self.tree / "a/new").write_bytes(b"new")
        (self.tree / "a/to a file").unlink()
        shutil.rmtree(self.tree / "日本")
        changed = self.tree / "photo 35.jpg"
        changed.write_bytes(b"changed")
        # rsync compares whole seconds, and all of this may happen within one.
        for path in (changed, self.tree / "a", self.tree):
            os.utime(path, ns=(SOME_TIME_NS, SOME_TIME_NS + 5))
        changes = self.rsync(self.tree, copy, "--delete")
        self.assertEqual(sorted(line.split(maxsplit=1)[1] for line in changes if line.startswith(">f")), ["a/new", "photo 35.jpg"])
        self.same(self.tree, copy)
        self.cold(mount)
        self.same(self.tree, copy)

    @needs("rsync")
    def test_rsync_in_place_and_appending(self):
        """Neither makes a temporary file: the first writes blocks into the old one, the second its end."""
        mount = self.new_mount()
        source, target = self.local / "f", mount.path / "f"
        data = bytearray(os.urandom(3_000_000))
        for option in ("--inplace", "--append-verify"):
            source.write_bytes(data)
            run("rsync", "-a", source, target)
            if option == "--inplace":
                data[1_000_000:1_000_100] = b"x" * 100
            data += b"more" * 1000
            source.write_bytes(data)
            run("rsync", "-a", option, "--no-whole-file", source, target)
            self.assertTrue(target.read_bytes() == data, option)
            mount.settle()
            self.assertTrue(mount.object("f") == data, option)

    def test_cp_to_within_and_from_the_mount(self):
        mount = self.new_mount()
        run("cp", "-a", self.tree, mount.path / "copy")
        self.same(self.tree, mount.path / "copy")
        mount.settle()
        run("cp", "-a", mount.path / "copy", mount.path / "again")
        self.same(self.tree, mount.path / "again")
        self.assert_stored(mount, "again", self.tree)
        self.cold(mount)
        for name in ("copy", "again"):
            run("cp", "-a", mount.path / name, self.local / name)
            self.same(self.tree, self.local / name)

    def test_cp_makes_copies_of_its_own(self):
        """Of a clean file, of one that isn't sent, over an older file, and what happens to one doesn't show in the other."""
        mount = self.new_mount()
        one, other = mount.path / "one", mount.path / "other"
        one.write_bytes(b"first" * 100_000)
        for clean in (False, True):
            if clean:
                mount.settle()
            run("cp", one, other)
            run("truncate", "-s", "7", one)
            self.assertTrue(other.read_bytes() == b"first" * 100_000)
            run("cp", "--remove-destination", other, one)
            self.assertTrue(one.read_bytes() == b"first" * 100_000)
        run("cp", "--backup=numbered", other, one)
        self.cold(mount)
        for name in ("one", "other", "one.~1~"):
            self.assertTrue((mount.path / name).read_bytes() == b"first" * 100_000, name)

    def tar(self, *options, seconds=60):
        # This format alone keeps nanoseconds and attributes.
        return run("tar", "--format=posix", "--xattrs", "--xattrs-include=user.*", *options, seconds=seconds)

    def test_tar_of_the_mount_and_onto_it(self):
        mount = self.new_mount()
        (mount.path / "unpacked").mkdir()
        self.tar("-cf", self.local / "one.tar", "-C", self.tree, ".")
        self.tar("-xpf", self.local / "one.tar", "-C", mount.path / "unpacked")
        self.same(self.tree, mount.path / "unpacked")
        self.cold(mount)
        self.same(self.tree, mount.path / "unpacked")
        self.assertEqual(self.tar("--compare", "-f", self.local / "one.tar", "-C", mount.path / "unpacked"), "")
        # The archive itself lies on the mount too, and grows.
        archive = mount.path / "two.tar"
        self.tar("-cf", archive, "-C", mount.path / "unpacked", ".")
        (self.local / "more").write_bytes(b"more" * 10_000)
        self.tar("-rf", archive, "-C", self.local, "more")
        self.cold(mount)
        (self.local / "back").mkdir()
        self.tar("-xpf", archive, "-C", self.local / "back")
        self.assertEqual((self.local / "back/more").read_bytes(), b"more" * 10_000)
        (self.local / "back/more").unlink()
        self.same(self.tree, self.local / "back")

    def test_compressed_tar_through_pipes(self):
        mount = self.new_mount()
        run("bash", "-euo", "pipefail", "-c", f"tar -C '{self.tree}' -cz . | tee '{mount.path}/t.tgz' | tar -tz | wc -l")
        self.cold(mount)
        (mount.path / "out").mkdir()
        run("tar", "-xpzf", mount.path / "t.tgz", "-C", mount.path / "out")
        names = {path: (what["mode"], what.get("sha256")) for path, what in describe(self.tree).items()}
        self.assertEqual({path: (what["mode"], what.get("sha256")) for path, what in describe(mount.path / "out").items()}, names)

    def test_install(self):
        """As packages and deployments put files in place: content, mode, owner and time at once, over an older file too."""
        mount = self.new_mount()
        source = self.local / "program"
        source.write_bytes(b"#!/bin/sh\necho it runs\n")
        os.utime(source, ns=(SOME_TIME_NS, SOME_TIME_NS))
        owner = ["-o", "33", "-g", "33"] if os.geteuid() == 0 else []
        for _ in range(2):
            run("install", "-D", "-p", "-m", "751", *owner, source, mount.path / "bin/deep/program")
        run("install", "-d", "-m", "2770", mount.path / "shared")
        self.assertEqual(run(mount.path / "bin/deep/program"), "it runs\n")
        self.cold(mount)
        found = (mount.path / "bin/deep/program").stat()
        self.assertEqual((found.st_mode & 0o7777, found.st_mtime_ns), (0o751, SOME_TIME_NS))
        self.assertEqual((mount.path / "shared").stat().st_mode & 0o7777, 0o2770)
        if owner:
            self.assertEqual((found.st_uid, found.st_gid), (33, 33))
        self.assertEqual(run(mount.path / "bin/deep/program"), "it runs\n")
