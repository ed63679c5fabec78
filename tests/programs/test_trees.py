"""Trees of 2,000 files: found, measured, moved within the mount and off it, and removed; bucket and mount agree."""

from bench import Bench, run

FOLDERS, EACH = 20, 100
FILES = FOLDERS * EACH


def content(folder, number):
    """Sizes from 0 on, so that each file of a folder has its own."""
    return b"%d/%d " % (folder, number) * number


class Trees(Bench):
    limit_s = 200

    def setUp(self):
        super().setUp()
        self.tree = self.local / "tree"
        for folder in range(FOLDERS):
            (self.tree / f"d{folder:02}").mkdir(parents=True)
            for number in range(EACH):
                (self.tree / f"d{folder:02}" / f"f{number:03}").write_bytes(content(folder, number))

    def listed(self, folder):
        """{path: size} of the files as find prints them."""
        lines = run("find", ".", "-type", "f", "-printf", "%P %s\n", cwd=folder).splitlines()
        self.assertEqual(len(lines), FILES)
        return dict(line.split(" ") for line in lines)

    def stored(self, mount, folder):
        """{path: (size, ETag)} of the objects below the folder that are no directories."""
        pages = mount.store.client().get_paginator("list_objects_v2").paginate(Bucket=mount.bucket, Prefix=mount.key(f"{folder}/"))
        found = (each for page in pages for each in page.get("Contents", []) if not each["Key"].endswith("/"))
        start = len(mount.key(f"{folder}/"))
        return {each["Key"][start:]: (str(each["Size"]), each["ETag"]) for each in found}

    def test_find_du_and_mv(self):
        mount = self.new_mount()
        run("cp", "-r", self.tree, mount.path / "one")
        wanted = self.listed(self.tree)
        self.assertEqual(self.listed(mount.path / "one"), wanted)
        mount.settle(120)
        stored = self.stored(mount, "one")
        self.assertEqual({path: size for path, (size, _) in stored.items()}, wanted)

        run("mv", mount.path / "one", mount.path / "two")
        self.assertEqual(self.listed(mount.path / "two"), wanted)
        self.assertFalse((mount.path / "one").exists())
        mount.settle(120)
        self.assertEqual(self.stored(mount, "two"), stored)
        self.assertEqual(mount.keys("one/"), [])

        self.cold(mount)
        self.assertEqual(self.listed(mount.path / "two"), wanted)
        self.assertEqual(sorted(path.name for path in mount.path.iterdir()), ["two"])
        self.measure(mount.path / "two")
        self.same(self.tree, mount.path / "two", times=False)

    def measure(self, folder):
        total = sum(len(content(folder, number)) for folder in range(FOLDERS) for number in range(EACH))
        blocks = run("du", "-s", "--block-size=512", folder).split()[0]
        self.assertGreaterEqual(int(blocks) * 512, total)
        sizes = [line.split("\t") for line in run("du", "-ab", folder / "d07").splitlines()]
        measured = {path.rsplit("/", 1)[1]: int(size) for size, path in sizes if "/f" in path}
        self.assertEqual(measured, {f"f{number:03}": len(content(7, number)) for number in range(EACH)})
        larger = run("find", folder, "-type", "f", "-size", "+499c", "-newermt", "2001-01-01").splitlines()
        self.assertEqual(len(larger), sum(len(content(folder, number)) > 499 for folder in range(FOLDERS) for number in range(EACH)))

    def test_moved_before_it_is_sent(self):
        """The tree goes up under its last name alone, whatever was on its way."""
        mount = self.new_mount()
        run("cp", "-r", self.tree, mount.path / "one")
        run("mv", mount.path / "one", mount.path / "two")
        (mount.path / "within").mkdir()
        run("mv", "two", "within/three", cwd=mount.path)
        mount.settle(120)
        self.assertEqual(mount.keys("one/") + mount.keys("two/"), [])
        self.cold(mount)
        self.same(self.tree, mount.path / "within/three", times=False)

    def test_moved_off_the_mount_and_removed(self):
        mount = self.new_mount()
        run("cp", "-r", self.tree, mount.path / "one")
        (mount.path / "other").mkdir()
        run("cp", "-r", *(self.tree / f"d{folder:02}" for folder in range(5)), mount.path / "other")
        run("find", mount.path / "other", "-name", "f0*", "-delete")
        self.assertEqual(run("find", mount.path / "other", "-type", "f"), "")
        self.cold(mount)
        run("mv", mount.path / "one", self.local / "back")
        run("rm", "-r", mount.path / "other")
        self.same(self.tree, self.local / "back", times=False)
        self.assertEqual(list(mount.path.iterdir()), [])
        mount.settle(120)
        self.assertEqual(mount.keys(), [])
