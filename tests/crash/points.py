#!/usr/bin/env python3
"""Kills the daemon with SIGKILL in the middle of what loop.py seldom hits, several times in a row where that hurts more.

    points.py [--store minio|emulator|r2] [--write-mode back|through] [--rounds 1] [--seed N] [POINT ...]

  rename   directories of many files, and files, are renamed while their copies and deletes are under way
  delete   rm -r of a tree
  evict    a cache of 8 MiB, others' data read through it while files are written
  start    killed again 0 to 300 ms after each of several starts, with a backlog
  replay   killed again while the backlog goes up, several times
  orphan   a program goes on writing into its open files after the daemon died

Programs do steps on a tree; a step counts when its last system call returned. Afterwards the tree is what was
acknowledged, or that with the one step under way done or (bytes of a file) half done: through the mount at once, and in
the bucket when all is sent, where nothing else is either. Each round of each point is one test.
"""

import argparse
import errno
import os
import pathlib
import random
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import Mount, open_store  # noqa: E402
from harness.suite import clean  # noqa: E402

FILES = 120
OTHERS, OTHERS_BYTES = 16, 1 << 20
# Longest time until the kill: within it the point's work is under way.
KILL_WITHIN_S = {"delete": 0.5, "start": 1.0}
# What a program may be told when the daemon dies under it: the request that was on its way, and those after it.
GONE = {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO}
OPTIONS = {"evict": ["--cache-size", "8MiB", "--ttl", "1s"]}


class Program(threading.Thread):
    """Does the steps of one point in a directory of its own. `tree` is {path: bytes} as acknowledged."""

    def __init__(self, point, folder: pathlib.Path, seed):
        super().__init__(daemon=True)
        self.point, self.folder, self.choose = point, folder, random.Random(seed)
        # The step under way: the tree after it, and the one path whose bytes it writes.
        self.tree, self.after, self.written = {}, None, None
        self.stopping, self.steps_done, self.error = threading.Event(), 0, None

    # ------------------------------------------------------------------ steps

    def step(self, after, call, written=None):
        self.after, self.written = after, written
        call()
        self.tree, self.after, self.written = after, None, None
        self.steps_done += 1

    def write(self, path, data, sync=False):
        def call():
            with open(self.folder / path, "wb", buffering=0) as file:
                file.write(data)
                if sync:
                    os.fsync(file.fileno())

        self.step({**self.tree, path: data}, call, path)

    def rename(self, old, new):
        def moved(path):
            return new + path[len(old) :] if path == old or path.startswith(old + "/") else path

        after = {moved(path): data for path, data in self.tree.items() if path != new}
        self.step(after, lambda: os.rename(self.folder / old, self.folder / new))

    def unlink(self, path):
        self.step({name: data for name, data in self.tree.items() if name != path}, lambda: os.unlink(self.folder / path))

    def prepare(self):
        """What is there, and mostly in the bucket, before the point begins."""
        self.folder.mkdir()
        if self.point in ("rename", "delete"):
            for directory in ("t", "t/a", "t/a/b"):
                (self.folder / directory).mkdir()
            for number in range(FILES):
                self.write(f"{self.choose.choice(['t', 't/a', 't/a/b'])}/f{number}", self.choose.randbytes(2_000))

    def run(self):
        self.steps_done = 0
        try:
            for number in range(10_000):
                if self.stopping.is_set():
                    return
                getattr(self, f"do_{self.point}")(number)
        except OSError as error:  # the daemon is gone
            self.error = error

    def do_rename(self, number):
        top = next(iter(self.tree)).partition("/")[0]
        if number % 3 == 0:
            self.rename(top, f"t{number}")
        elif number % 3 == 1:
            path = self.choose.choice([path for path in self.tree if "/" in path])
            self.rename(path, f"{path.rpartition('/')[0]}/moved{number}")
        else:
            self.write(f"{top}/new{number}", self.choose.randbytes(3_000))
        time.sleep(self.choose.choice([0, 0, 0, 0.05, 0.3]))

    def do_delete(self, number):
        if not self.tree:
            self.stopping.set()
            return
        self.unlink(sorted(self.tree)[0] if number % 2 else self.choose.choice(list(self.tree)))
        time.sleep(self.choose.choice([0, 0, 0, 0.02]))

    def do_evict(self, number):
        self.write(f"f{number % 25}", self.choose.randbytes(self.choose.choice([1_000, 200_000, 900_000])))

    def do_start(self, number):
        if number >= 60:
            self.stopping.set()
        self.write(f"f{number}", self.choose.randbytes(self.choose.choice([0, 10, 30_000])))

    def do_replay(self, number):
        if number >= 80:
            self.stopping.set()
        size = 24 << 20 if number % 40 == 1 else 20_000
        self.write(f"f{number}", self.choose.randbytes(size))

    def do_orphan(self, number):
        """A file of which a part is acknowledged by close or fsync, then written on until the writes fail."""
        path, data = f"f{number}", self.choose.randbytes(50_000)
        self.write(path, data, sync=number % 2 == 0)
        more = self.choose.randbytes(100_000)

        def write_on():
            with open(self.folder / path, "ab", buffering=0) as file:
                for start in range(0, len(more), 5_000):
                    file.write(more[start : start + 5_000])
                    time.sleep(0.005)

        self.step({**self.tree, path: data + more}, write_on, path)

    # ------------------------------------------------------------------ checks

    def wrong(self, found):
        """What is wrong with `found`, {path: bytes}, as a line; None if nothing is."""
        if self.is_as_promised(found):
            return None
        lacks = [path for path, data in self.tree.items() if found.get(path) != data]
        extra = [path for path in found if path not in self.tree]
        under_way = self.written or (self.after is not None and "a rename or delete")
        return f"{self.folder.name}: not as acknowledged {len(lacks)} {lacks[:5]}, too many {len(extra)} {extra[:5]}; under way: {under_way}"

    def is_as_promised(self, found):
        if found == self.tree or found == self.after:
            return True
        if self.written is None or self.after is None:
            return False
        path, whole, promised = self.written, self.after[self.written], self.tree.get(self.written)
        rest = {name: data for name, data in self.tree.items() if name != path}
        have = found.get(path)
        if have is None:
            return promised is None and found == rest
        # An append keeps what it builds on; a rewrite begins with nothing.
        least = len(promised) if promised and whole.startswith(promised) else 0
        return {**rest, path: have} == found and whole.startswith(have) and len(have) >= least


class Reader(threading.Thread):
    """Reads what others put, through a cache that is too small for it; `wrong` if it ever gets other bytes."""

    def __init__(self, folder, expected, seed):
        super().__init__(daemon=True)
        self.folder, self.expected, self.choose = folder, expected, random.Random(seed)
        self.stopping, self.wrong, self.reads = threading.Event(), [], 0

    def run(self):
        while not self.stopping.is_set():
            name = self.choose.choice(list(self.expected))
            try:
                data = (self.folder / name).read_bytes()
            except OSError:
                return  # the daemon is gone
            self.reads += 1
            if data != self.expected[name]:
                self.wrong.append(f"{name}: wrong bytes were read")


def through_the_mount(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def in_the_bucket(mount, below):
    return {key[len(below) :]: mount.object(key) for key in mount.files(below)}


def kill_again(point, mount, choose):
    """More crashes, before or while the backlog goes up."""
    if point == "start":
        for _ in range(choose.randint(3, 6)):
            mount.launch()
            time.sleep(choose.uniform(0, 0.3))
            mount.kill()
    if point == "replay":
        for _ in range(choose.randint(2, 4)):
            mount.start()
            time.sleep(choose.uniform(0, 0.8))
            mount.kill()


def one_round(point, number, store, work, args):
    """Returns the lines of what is wrong, and a line of figures."""
    name = f"{point}-{number}"
    choose = random.Random(f"{args.seed}-{name}")
    bucket = store.make_bucket(f"crash-{name}")
    prefix = "" if store.name == "minio" else f"crash-{name}"
    mount = Mount(store, bucket, work / name, prefix=prefix, options=["--write-mode", args.write_mode, *OPTIONS.get(point, [])])
    others = {f"others/o{index}": choose.randbytes(OTHERS_BYTES) for index in range(OTHERS if point == "evict" else 0)}
    for path, data in others.items():
        mount.put(path, data)
    with mount:
        programs = [Program(point, mount.path / f"w{index}", f"{args.seed}-{name}-{index}") for index in range(2)]
        readers = [Reader(mount.path, others, index) for index in range(3 if others else 0)]
        [program.prepare() for program in programs]
        mount.settle()
        [thread.start() for thread in programs + readers]
        programs[0].join(choose.uniform(0.1, KILL_WITHIN_S.get(point, 2.5)))
        mount.kill_only()
        [thread.stopping.set() for thread in programs + readers]
        [thread.join(30) for thread in programs + readers]
        mount.kill()
        ends = {program.error.errno for program in programs if program.error}
        kill_again(point, mount, choose)
        mount.start()
        wrong = [f"through the mount: {line}" for program in programs if (line := program.wrong(through_the_mount(program.folder)))]
        wrong += [f"a program got {os.strerror(number)} from a dead daemon" for number in ends - GONE]
        wrong += [line for reader in readers for line in reader.wrong]
        wrong += [f"{path}: wrong bytes after the restart" for path, data in others.items() if (mount.path / path).read_bytes() != data]
        shown = {program: through_the_mount(program.folder) for program in programs}
        mount.settle(120)
        for program in programs:
            stored = in_the_bucket(mount, f"{program.folder.name}/")
            if stored != shown[program]:
                differ = sorted(path for path in stored.keys() | shown[program].keys() if stored.get(path) != shown[program].get(path))
                wrong.append(f"in the bucket, unlike what the mount showed: {differ[:5]}")
        wrong += [f"unfinished upload of {key}" for key in mount.unfinished_uploads()]
        wrong += mount.reported_damage()
        wrong += [f"{file['path']}: {file['error']}" for file in mount.status()["failed"]]
        if (code := mount.stop()) != 0:
            wrong.append(f"exit code {code} after the restart")
        if wrong:
            wrong.append(mount.shown_log())
    steps = sum(program.steps_done for program in programs)
    reads = sum(reader.reads for reader in readers)
    return wrong, f"{name}: {steps} steps acknowledged, {reads} reads, {len(wrong)} wrong"


def main():
    points = [name[3:] for name in vars(Program) if name.startswith("do_")]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", choices=["minio", "emulator", "r2"], default="minio")
    parser.add_argument("--write-mode", choices=["back", "through"], default="back")
    parser.add_argument("--rounds", type=int, default=1, help="of each point")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("points", nargs="*", metavar="POINT", help=f"of {', '.join(points)}; all without any")
    args = parser.parse_args()
    if unknown := set(args.points) - set(points):
        parser.error(f"no point is called {', '.join(sorted(unknown))}: {', '.join(points)}")
    work = pathlib.Path(tempfile.mkdtemp(prefix="mediafs-test-", dir=os.environ.get("MEDIAFS_TEST_DIR")))
    passed = failed = 0
    try:
        with open_store(args.store, work / "store") as store:
            for number in range(args.rounds):
                for point in args.points or points:
                    wrong, figures = one_round(point, number, store, work, args)
                    print("\n".join([figures, *wrong[:30]]), flush=True)
                    passed, failed = passed + (not wrong), failed + bool(wrong)
    finally:
        clean(work)
    print(f"{args.store}, write mode {args.write_mode}, seed {args.seed}: {passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
