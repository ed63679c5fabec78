"""zip archives that grow, shrink and are checked: by Python, which writes into the file, and by zip, which replaces it."""

import hashlib
import os
import sys
import zipfile

from bench import Bench, needs, run

APPEND = """
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "a", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr(sys.argv[2], sys.argv[3] * 5000)
"""


class Archives(Bench):
    def names(self, path):
        with zipfile.ZipFile(path) as archive:
            self.assertIsNone(archive.testzip())
            return sorted(archive.namelist())

    def test_python_appends(self):
        """Each run overwrites the index at the end; between some of them the archive went up."""
        mount = self.new_mount()
        path = mount.path / "grown.zip"
        for number in range(12):
            run(sys.executable, "-c", APPEND, path, f"member{number}", f"text {number} ")
            if number % 4 == 3:
                mount.settle()
            if number == 7:
                self.cold(mount)
        self.assertEqual(self.names(path), sorted(f"member{number}" for number in range(12)))
        content = path.read_bytes()
        self.cold(mount)
        self.assertTrue(path.read_bytes() == content and mount.object("grown.zip") == content)
        self.assertEqual(len(self.names(path)), 12)

    @needs("zip", "unzip")
    def test_zip_updates_and_deletes(self):
        """A temporary file in the same folder, renamed over the archive."""
        mount = self.new_mount()
        tree = mount.path / "tree"
        tree.mkdir()
        for number in range(20):
            (tree / f"f{number}").write_bytes(bytes([number]) * 20_000)
        run("zip", "-qr", "a.zip", "tree", cwd=mount.path)
        (tree / "f3").write_bytes(b"newer")
        os.utime(tree / "f3", (2_000_000_000, 2_000_000_000))
        (tree / "another").write_bytes(b"another")
        run("zip", "-qru", "a.zip", "tree", cwd=mount.path)
        run("zip", "-qd", "a.zip", "tree/f19", cwd=mount.path)
        self.cold(mount)
        self.assertIn("No errors", run("unzip", "-t", "a.zip", cwd=mount.path))
        run("unzip", "-q", mount.path / "a.zip", "-d", mount.path / "out")
        (tree / "f19").unlink()
        self.same(tree, mount.path / "out/tree", times=False)
        mount.settle()
        wanted = [f"{top}/{file.name}" for top in ("tree", "out/tree") for file in tree.iterdir()]
        self.assertEqual(sorted(mount.files()), sorted(["a.zip", *wanted]))

    def test_sums_hold_for_an_empty_cache(self):
        mount = self.new_mount()
        sizes = [0, 1, 100_000, 5_000_000, 20_000_000]
        for number, size in enumerate(sizes):
            (mount.path / f"f{number}").write_bytes(os.urandom(size))
        for program in ("sha256sum", "md5sum"):
            run("bash", "-c", f"{program} f? > {program}.txt", cwd=mount.path)
        self.cold(mount)
        for program in ("sha256sum", "md5sum"):
            self.assertEqual(run(program, "-c", f"{program}.txt", cwd=mount.path).count(": OK\n"), len(sizes))
        whole = hashlib.sha256(mount.object("f4")).hexdigest()
        self.assertIn(f"{whole}  f4\n", (mount.path / "sha256sum.txt").read_text())
