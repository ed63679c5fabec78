"""`mediafs recover`: a cache directory whose daemon is gone, copied elsewhere, with and without a damaged journal."""

import json
import os
import pathlib
import random
import shutil
import stat
import subprocess

from harness import open_store
from harness.mount import binary
from harness.suite import Case, Run
from posix_calls import pattern, write

PAGE, LOG_HEADER, FRAME = 4096, 32, 4096 + 24
BIG = 24 << 20
MIB = 1 << 20


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
    damages_the_cache = True

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

    def data_file(self, directory, data):
        found = [path for path in (directory / "data").rglob("*") if path.is_file() and path.read_bytes() == data]
        self.assertEqual(len(found), 1)
        return found[0]

    def test_a_damaged_file_is_neither_exported_as_right_nor_sent(self):
        mount, copy, expected = self.left_behind()
        before = listing(copy)
        self.assertEqual(before["counts"]["damaged"], 0)
        self.assertEqual([row["path"] for row in before["waiting"] if row.get("unchecked")], [], "what was closed is under checksums")
        path, at = self.data_file(copy, expected["d/f07"]), 18_000
        data = bytearray(expected["d/f07"])
        data[at] ^= 1
        times = path.stat()
        path.write_bytes(data)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        (copy / "damaged").mkdir()
        (copy / "damaged/0000000000000bad-d%2Ftorn").write_bytes(b"left of it")

        found = listing(copy)
        row = next(row for row in found["waiting"] if row["path"] == "d/f07")
        self.assertEqual((row["state"], row["damaged"]), ("damaged", [{"start": 16384, "end": 20_007}]))
        self.assertEqual((found["checked"], found["counts"]["damaged"], found["counts"]["torn"]), (True, 1, 1))
        self.assertEqual((found["torn"][0]["was"], found["torn"][0]["bytes"]), ("d/torn", 10))
        shown = recover(copy, "list")[1]
        self.assertRegex(shown, r"upload +damaged .* d/f07 \(bytes 16384-20006 are not what was written")
        self.assertRegex(shown, "1 damaged; 1 torn by a crash")
        self.assertFalse(json.loads(recover(copy, "list", "--quick", "--json")[1])["checked"])

        saved = Run.folder("saved")
        code, out, error = recover(copy, "export", saved, "--json")
        self.assertEqual(code, 1)
        self.assertIn("damaged  d/f07", error)
        told = {row["path"]: row for row in json.loads(out)["files"]}
        self.assertEqual((told["d/f07"]["outcome"], told["d/f07"]["damaged"]), ("damaged", [{"start": 16384, "end": 20_007}]))
        self.assertEqual((told["d/f08"]["outcome"], told["big"]["outcome"]), ("written", "partial"))
        right = {name: data for name, data in expected.items() if name != "d/f07"}
        self.assertEqual({name: (saved / name).read_bytes() for name in right}, right)
        self.assertFalse((saved / "d/f07").exists())
        self.assertEqual((saved / "d/f07.damaged").read_bytes(), bytes(data))
        self.assertEqual((saved / ".damaged/0000000000000bad-d%2Ftorn").read_bytes(), b"left of it")

        self.own.start()
        code, out, error = recover(copy, "upload", store=self.own)
        self.assertEqual(code, 1, out)
        self.assertIn("failed   d/f07", error)
        self.assertNotIn("d/f07", mount.files())
        self.assertEqual(mount.object("d/f08"), expected["d/f08"])

    def test_a_missing_record_of_how_far_it_reached_is_told_once(self):
        mount = self.new_mount(store=self.own, write_mode="back")
        write(mount.path / "a", b"a")
        mount.kill()
        (mount.cache / "journal.tail").unlink()
        for expected in (1, 0):
            again = self.new_mount(place=self.place_of(mount), store=self.own, cache=mount.cache, folder=Run.folder("m"))
            self.assertEqual(again.shown_log(1000).count("journal.tail is missing"), expected)
            self.assertEqual((again.path / "a").read_bytes(), b"a")
            again.kill()


class Freed(Case):
    """Most of a file was nowhere but in an unfinished upload when its daemon was killed."""

    limit_s = 300

    def killed(self, mib, close):
        own = self.enterContext(open_store(Run.store.name, Run.folder("store")))
        mount = self.new_mount("--cache-size", "48M", store=own, write_mode="back")
        data = random.Random(mib).randbytes(mib * MIB)
        file = os.open(mount.path / "big", os.O_CREAT | os.O_WRONLY, 0o644)
        try:
            for at in range(0, len(data), MIB):
                self.assertEqual(os.write(file, data[at : at + MIB]), MIB)
            own.stop()
        finally:
            if close:
                os.close(file)
        mount.kill()
        if not close:
            try:
                os.close(file)
            except OSError:
                pass
        copy = Run.folder("copy") / "cache"
        subprocess.run(["cp", "-a", str(mount.cache), str(copy)], check=True)
        own.start()
        return own, mount, copy, data

    def check(self, mib, close):
        own, mount, copy, data = self.killed(mib, close)
        [row] = listing(copy)["waiting"]
        self.assertEqual((row["path"], row["state"], row["bytes"]), ("big", "waiting", len(data)))
        held = row["in_upload"]
        self.assertGreater(held["bytes"], 60 * MIB)
        self.assertIn("of it are in an unfinished upload", recover(copy, "list")[1])

        saved = Run.folder("saved")
        code, _, error = recover(copy, "export", saved)
        self.assertEqual(code, 1)
        self.assertIn(f"in the unfinished upload {held['upload']}: `mediafs recover … upload` or the next mount completes it", error)
        expected = bytearray(data)
        for span in held["ranges"]:
            expected[span["start"] : span["end"]] = bytes(span["end"] - span["start"])
        self.assertTrue((saved / "big.partial").read_bytes() == expected)
        self.assertFalse((saved / "big").exists())

        code, out, error = recover(copy, "upload", store=own)
        self.assertEqual(code, 0, out + error)
        self.assertTrue(mount.object("big") == data)
        self.assertEqual(mount.unfinished_uploads(), [])
        self.assertEqual(listing(copy)["waiting"], [])

    def test_upload_completes_what_was_closed(self):
        self.check(200, close=True)

    def test_upload_completes_what_was_being_written(self):
        self.check(150, close=False)
