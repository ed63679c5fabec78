"""SQLite with a rollback journal: commits, rollbacks, two writers under its locks, a writer that dies half-way."""

import concurrent.futures
import pathlib
import signal
import sqlite3
import sys

from bench import Bench, needs, run

PROGRAM = pathlib.Path(__file__).resolve().parent / "transactions.py"
TOTAL = 200 * 1000


class Sqlite(Bench):
    def on(self, path, verb, *more, mode="delete", **options):
        return run(sys.executable, "-B", PROGRAM, verb, path, mode, *more, **options)

    def assert_holds(self, path, transfers, mode="delete"):
        self.assertEqual(self.on(path, "check", mode=mode).split(), [str(transfers), str(TOTAL)])

    def test_transactions_in_each_kind_of_rollback_journal(self):
        mount = self.new_mount()
        for mode in ("delete", "truncate", "persist"):
            path = mount.path / f"{mode}.sqlite3"
            self.on(path, "make", mode=mode)
            self.on(path, "move", 8, 1, mode=mode)
            self.assert_holds(path, 8, mode)
        self.cold(mount)
        for mode in ("delete", "truncate", "persist"):
            path = mount.path / f"{mode}.sqlite3"
            self.assert_holds(path, 8, mode)
            self.on(path, "move", 4, 2, mode=mode)
            self.assert_holds(path, 12, mode)
        mount.settle()
        self.assertNotIn("delete.sqlite3-journal", mount.files())
        # The object is a database for whoever fetches it.
        fetched = self.local / "fetched.sqlite3"
        fetched.write_bytes(mount.object("delete.sqlite3"))
        self.assert_holds(fetched, 12)

    def test_writers_wait_for_each_other(self):
        mount = self.new_mount()
        path = mount.path / "shared.sqlite3"
        self.on(path, "make")
        with concurrent.futures.ThreadPoolExecutor(3) as writers:
            for done in [writers.submit(self.on, path, "move", 6, seed) for seed in range(3)]:
                done.result()
        self.assert_holds(path, 18)
        self.cold(mount)
        self.assert_holds(path, 18)

    def test_a_dead_writers_half_transaction_is_rolled_back(self):
        """From the journal that it left: at once, and by a mount that has both files only from the bucket."""
        mount = self.new_mount()
        path, journal = mount.path / "hot.sqlite3", mount.path / "hot.sqlite3-journal"
        self.on(path, "make")
        self.on(path, "move", 5, 1)
        for cold in (False, True):
            self.on(path, "die", code=-signal.SIGKILL)
            self.assertGreater(journal.stat().st_size, 0)
            if cold:
                self.cold(mount)
                self.assertGreater(journal.stat().st_size, 0)
            self.assert_holds(path, 5)
            self.assertFalse(journal.exists())

    @needs("sqlite3")
    def test_the_shell_dumps_and_vacuums(self):
        mount = self.new_mount()
        path = mount.path / "one.sqlite3"
        self.on(path, "make")
        self.on(path, "move", 5, 1)
        before = run("sqlite3", path, ".dump")
        run("sqlite3", path, "DELETE FROM account WHERE id % 2; VACUUM;")
        size = path.stat().st_size
        run("sqlite3", path, f".backup '{mount.path}/backup.sqlite3'")
        (mount.path / "again.sqlite3").touch()
        run("sqlite3", mount.path / "again.sqlite3", stdin=before.encode())
        self.cold(mount)
        self.assertEqual(path.stat().st_size, size)
        self.assertEqual(run("sqlite3", mount.path / "again.sqlite3", ".dump"), before)
        with sqlite3.connect(f"file:{mount.path}/backup.sqlite3?mode=ro", uri=True) as backup:
            self.assertEqual(backup.execute("SELECT count(*) FROM account").fetchone(), (100,))
