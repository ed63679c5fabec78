"""`mediafs recover`: a cache directory whose daemon is gone, copied elsewhere, with and without a damaged journal."""

import json
import os
import pathlib
import shutil
import stat
import subprocess

from harness import open_store
from harness.mount import binary
from harness.suite import Case, Run
from posix_calls import pattern, write

PAGE, LOG_HEADER, FRAME = 4096, 32, 4096 + 24
BIG = 24 << 20


def recover(directory, *arguments, store=None):
    """(exit code, standard output, standard error)."""
    env = {"PATH": os.environ["PATH"], **(store.env() if store else {})}
    command = [binary(), "recover", str(directory), *map(str, arguments)]
    done = subprocess.run(command, env=env, timeout=90, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stdout, done.stderr


def listing(directory):
    code, out, error = recover(directory, "list", "--json")
    assert code == 0, error
    return json.loads(out)


def contents(directory):
    """Every file below with its bytes, and with what a change would move."""
    files = [path for path in pathlib.Path(directory).rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


class Recover(Case):
    def setUp(self):
        super().setUp()
        self.own = self.enterContext(open_store(Run.store.name, Run.folder("store")))

    def left_behind(self):
        """A copy of the cache of a mount that was killed with the store away, and what a program had written."""
        mount = self.new_mount(store=self.own, write_mode="back")
        for name in ("gone", "old-name", "mode", "stays"):
            write(mount.path / name, name.encode())
        base = pattern(7, BIG)
        mount.settle()
        mount.put("big", base)
        with open(mount.path / "big", "r+b", buffering=0) as big:
            self.own.stop()
            expected = {f"d/f{number:02}": pattern(number, 20_000 + number) for number in range(30)}
            (mount.path / "d").mkdir()
            for name, data in expected.items():
                write(mount.path / name, data)
            os.utime(mount.path / "d/f00", (1_600_000_000, 1_600_000_000))
            os.chmod(mount.path / "d/f00", 0o640)
            os.symlink("d/f01", mount.path / "link")
            big.seek(5 << 20)
            big.write(b"x" * 300_000)
        os.unlink(mount.path / "gone")
        os.rename(mount.path / "old-name", mount.path / "new-name")
        os.chmod(mount.path / "mode", 0o600)
        mount.kill()
        self.base = bytearray(base)
        self.base[5 << 20 : (5 << 20) + 300_000] = b"x" * 300_000
        copy = Run.folder("copy") / "cache"
        subprocess.run(["cp", "-a", str(mount.cache), str(copy)], check=True)
        return mount, copy, expected

    def assert_uploaded(self, mount, expected):
        self.assertEqual({name: mount.object(name) for name in expected}, expected)
        self.assertEqual(mount.object("big"), bytes(self.base))
        self.assertEqual(mount.object("new-name"), b"old-name")
        kept = set(mount.files())
        self.assertEqual(kept, {*expected, "big", "new-name", "mode", "stays", "link"})
        self.assertEqual(mount.unfinished_uploads(), [])

    def test_list_export_and_upload_of_a_copy(self):
        mount, copy, expected = self.left_behind()
        before = contents(copy)
        found = listing(copy)
        rows = {row["path"]: row for row in found["waiting"]}
        self.assertEqual(found["bucket"], f"s3://{mount.bucket}/{mount.prefix + '/' if mount.prefix else ''} at {self.own.endpoint}")
        self.assertEqual((found["damage"], found["incomplete"], found["unnamed"]), ([], False, []))
        self.assertEqual({path for path, row in rows.items() if row["action"] == "upload"}, {*expected, "big"})
        for path, action in [("gone", "delete"), ("new-name", "copy"), ("mode", "attributes"), ("link", "write"), ("d/", "write")]:
            self.assertEqual((rows[path]["action"], rows[path]["state"]), (action, "waiting"), path)
        self.assertEqual(rows["new-name"]["from"], "old-name")
        self.assertEqual((rows["big"]["bytes"], found["counts"]["deletions"]), (BIG, 2))
        self.assertTrue(rows["big"]["missing"])
        self.assertEqual(rows["d/f07"]["bytes"], 20_007)
        self.assertIn("d/f07", recover(copy, "list")[1])

        saved = Run.folder("saved")
        code, _, error = recover(copy, "export", saved)
        self.assertEqual(code, 1, "the big file is not whole")
        self.assertIn("big: the rest is in the bucket", error)
        self.assertEqual({name: (saved / name).read_bytes() for name in expected}, expected)
        self.assertEqual((saved / "d/f00").stat().st_mtime, 1_600_000_000)
        self.assertEqual(stat.S_IMODE((saved / "d/f00").stat().st_mode), 0o640)
        self.assertEqual(os.readlink(saved / "link"), "d/f01")
        self.assertFalse((saved / "big").exists())
        part = (saved / "big.partial").read_bytes()
        self.assertEqual((len(part), part[5 << 20 : (5 << 20) + 300_000]), (BIG, b"x" * 300_000))
        self.assertEqual(recover(copy, "export", saved)[0], 1, "nothing is replaced without --force")
        self.assertEqual(contents(copy), before, "list and export change nothing")

        code, _, error = recover(copy, "upload", store=self.own)
        self.assertEqual(code, 1)
        self.assertEqual(len(error.splitlines()), 1, error)
        self.own.start()
        saved = Run.folder("fetched")
        self.assertEqual(recover(copy, "export", saved, "--fetch", store=self.own)[0], 0)
        self.assertEqual((saved / "big").read_bytes(), bytes(self.base))
        self.assertEqual((saved / "new-name").read_bytes(), b"old-name")
        code, out, error = recover(copy, "upload", store=self.own)
        self.assertEqual(code, 0, out + error)
        self.assert_uploaded(mount, expected)
        self.assertEqual(listing(copy)["waiting"], [])
        self.assertEqual(recover(copy, "upload", store=self.own)[0], 0, "again is no harm")

    def test_a_running_daemon_keeps_its_directory(self):
        mount = self.new_mount(store=self.own, write_mode="back")
        for what in (["list"], ["export", Run.folder("saved")], ["upload"]):
            code, _, error = recover(mount.cache, *what, store=self.own)
            self.assertEqual(code, 1)
            self.assertRegex(error, "in use by mediafs process .*flush")

    def test_another_bucket_gets_nothing(self):
        mount, copy, _ = self.left_behind()
        self.own.start()
        code, _, error = recover(copy, "upload", "s3://another", store=self.own)
        self.assertEqual(code, 1)
        self.assertIn(mount.bucket, error)
        self.assertIn("another", error)

    def damaged(self, copy, name, damage):
        place = Run.folder("damaged") / name
        subprocess.run(["cp", "-a", str(copy), str(place)], check=True)
        damage(place / "journal.sqlite", place / "journal.sqlite-wal")
        return place

    def test_a_damaged_journal_gives_what_verifies(self):
        mount, copy, expected = self.left_behind()

        def flip(path, needle, last=True):
            data = bytearray(path.read_bytes())
            at = data.rindex(needle) if last else data.index(needle)
            data[at + len(needle) // 2] ^= 1
            path.write_bytes(data)

        def cut(path, part):
            os.truncate(path, int(path.stat().st_size * part) // FRAME * FRAME + LOG_HEADER)

        self.own.start()
        for name, damage in {
            "log": lambda database, log: flip(log, b"d/f13"),
            "cut": lambda database, log: cut(log, 0.7),
            "no-log": lambda database, log: log.unlink(),
            "no-journal": lambda database, log: (database.unlink(), log.unlink()),
            "zeros": lambda database, log: database.write_bytes(bytes(database.stat().st_size)),
        }.items():
            with self.subTest(name):
                place = self.damaged(copy, name, damage)
                damaged_mount = self.new_mount(place=self.place_of(mount), store=self.own, cache=place, folder=Run.folder("m"), start=False)
                for _ in range(2):
                    damaged_mount.launch()
                    self.assertEqual(damaged_mount.child.wait(30), 1)
                    self.assertIn("mediafs recover", damaged_mount.shown_log())
                before = contents(place)
                found = listing(place)
                self.assertTrue(found["damage"])
                # A damaged page of the log costs the rows on it, if no later page carries them, and none behind it.
                self.assertTrue(found["incomplete"] or name == "log", found["damage"])
                saved = Run.folder("saved")
                recover(place, "export", saved)
                unchanged = {path: bytes_ for path, (bytes_, _) in contents(place).items()}
                self.assertEqual(unchanged, {path: bytes_ for path, (bytes_, _) in before.items()})
                exported = {path: data for path, (data, _) in contents(saved).items() if "big" not in path}
                # Each file's bytes are there, under its name or without one.
                self.assertLessEqual(set(expected.values()), set(exported.values()), name)
                for path, data in expected.items():
                    self.assertIn(exported.get(path, data), (data,), path)

    def test_upload_repairs_and_a_mount_goes_on(self):
        mount, copy, expected = self.left_behind()

        def damage(database, log):
            data = bytearray(log.read_bytes())
            data[data.rindex(b"d/f13") + 2] ^= 1
            log.write_bytes(data)

        place = self.damaged(copy, "log", damage)
        self.own.start()
        code, out, error = recover(place, "upload", "--copied", store=self.own)
        self.assertIn("made anew", error)
        self.assertTrue(list(place.glob("journal.sqlite.damaged-*")))
        there = {name: mount.object(name) for name in mount.files() if name in expected}
        self.assertGreaterEqual(len(there), len(expected) - 1, out + error)
        for name, data in there.items():
            self.assertEqual(data, expected[name], name)
        lost = set(expected) - set(there)
        kept = [path.read_bytes() for path in (place / "unnamed").glob("*")] if lost else []
        self.assertLessEqual({expected[name] for name in lost}, set(kept))
        again = self.new_mount(place=self.place_of(mount), store=self.own, cache=place, folder=Run.folder("m"))
        again.settle()
        self.assertEqual((again.path / "d/f07").read_bytes(), expected["d/f07"])
        shutil.rmtree(copy)
