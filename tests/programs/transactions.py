"""SQLite's side of test_sqlite.py, in processes of its own. A table of accounts whose sum no transaction changes.

    transactions.py make DATABASE JOURNAL_MODE
    transactions.py move DATABASE JOURNAL_MODE COUNT SEED     COUNT committed transfers, and as many rolled back
    transactions.py die DATABASE JOURNAL_MODE                 ends in the middle of a transaction that reached the file
    transactions.py check DATABASE JOURNAL_MODE               prints the number of transfers and the sum of all accounts
"""

import os
import random
import sqlite3
import sys

ACCOUNTS = 200
EACH = 1000

# Longer than any transaction of another process.
BUSY_S = 50


def opened(path, mode):
    database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    (now,) = database.execute(f"PRAGMA journal_mode={mode}").fetchone()
    assert now == mode, f"{now}, not {mode}"
    return database


def make(database):
    database.execute("BEGIN")
    database.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER NOT NULL, note TEXT NOT NULL)")
    database.execute("CREATE TABLE transfer (id INTEGER PRIMARY KEY)")
    database.executemany("INSERT INTO account VALUES (?, ?, ?)", [(number, EACH, "x" * 500) for number in range(ACCOUNTS)])
    database.execute("COMMIT")


def transfer(database, chosen):
    one, other = chosen.sample(range(ACCOUNTS), 2)
    database.execute("BEGIN IMMEDIATE")
    database.execute("UPDATE account SET amount = amount - 1 WHERE id = ?", (one,))
    database.execute("UPDATE account SET amount = amount + 1 WHERE id = ?", (other,))
    database.execute("INSERT INTO transfer DEFAULT VALUES")


def move(database, count, seed):
    chosen = random.Random(seed)
    for _ in range(int(count)):
        transfer(database, chosen)
        database.execute("COMMIT")
        transfer(database, chosen)
        database.execute("ROLLBACK")


def die(database):
    # Nine pages of memory for it all: what changes goes into the file before the commit.
    database.execute("PRAGMA cache_size=1")
    database.execute("BEGIN IMMEDIATE")
    database.execute("UPDATE account SET amount = 0, note = 'half done'")
    print("in the middle", flush=True)
    os.kill(os.getpid(), 9)


def check(database):
    (sound,) = database.execute("PRAGMA integrity_check").fetchone()
    assert sound == "ok", sound
    (transfers,) = database.execute("SELECT count(*) FROM transfer").fetchone()
    (total,) = database.execute("SELECT sum(amount) FROM account").fetchone()
    print(transfers, total)


if __name__ == "__main__":
    verb, path, mode, *rest = sys.argv[1:]
    {"make": make, "move": move, "die": die, "check": check}[verb](opened(path, mode), *rest)
