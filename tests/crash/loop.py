#!/usr/bin/env python3
"""Kills the daemon with SIGKILL over and over, and compares what is left with what programs had been promised.

    loop.py [--store minio|emulator|r2] [--write-mode back|through] [--ack close|fsync] [--kill end|random|upload]
            [--rounds 5] [--steps 60] [--large-mib 0] [--seed N]

Four writers, each in its own directory, create, rewrite, append, rename over, and delete files. A step counts as
acknowledged when its last system call returned (with --ack fsync: when fsync did). The daemon is killed
  end: after the last acknowledgement; random: at a random moment of the writing; upload: up to 3 s after its end.
Then the same command mounts again. Each file has to be in its last acknowledged state, or in a state of the one step
that was under way: through the mount at once, and in the bucket when all is sent. No multipart upload may stay behind.
Each round is one test: ends with `N passed, N failed`. The seed repeats a round's decisions, not its timing.
"""

import argparse
import dataclasses
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

WRITERS = 4


@dataclasses.dataclass
class Step:
    """What a program is about to do to one or two names, as the contents that the names have afterwards (None: gone)."""

    action: str
    name: str
    after: dict
    data: bytes = b""
    other: str = ""


class Writer(threading.Thread):
    """One program. `acknowledged` is {name: content} of what it was promised, `under_way` the step that never returned."""

    def __init__(self, folder: pathlib.Path, seed, args):
        super().__init__(daemon=True)
        self.folder, self.args = folder, args
        self.choose = random.Random(seed)
        self.acknowledged, self.under_way, self.steps_done = {}, None, 0
        self.stopping = threading.Event()
        self.error = None

    def run(self):
        try:
            self.folder.mkdir()
            for number in range(self.args.steps):
                if self.stopping.is_set():
                    return
                self.under_way = self.plan(number)
                self.do(self.under_way)
                self.acknowledged.update(self.under_way.after)
                self.under_way, self.steps_done = None, number + 1
        except OSError as error:  # the daemon was killed in the middle of a step
            self.error = error

    def content(self):
        size = self.choose.choice([0, 10, 5_000, 70_000, 200_000])
        if self.args.large_mib and self.choose.random() < 0.3:
            size = self.args.large_mib << 20
        return self.choose.randbytes(size)

    def plan(self, number):
        existing = [name for name, data in self.acknowledged.items() if data is not None]
        action = self.choose.choice(["create", "create", "create", "rewrite", "append", "replace", "move", "delete"])
        if action == "create" or not existing:
            name, data = f"f{number:04}.bin", self.content()
            return Step("create", name, {name: data}, data)
        name = self.choose.choice(existing)
        if action == "rewrite":
            data = self.content()
            return Step(action, name, {name: data}, data)
        if action == "append":
            data = self.choose.randbytes(3_000)
            return Step(action, name, {name: self.acknowledged[name] + data}, data)
        if action == "replace":
            temporary, data = f"t{number:04}.tmp", self.content()
            return Step(action, name, {name: data, temporary: None}, data, temporary)
        if action == "move":
            new = f"m{number:04}.bin"
            return Step(action, name, {name: None, new: self.acknowledged[name]}, other=new)
        return Step("delete", name, {name: None})

    def do(self, step):
        path, other = self.folder / step.name, self.folder / step.other
        if step.action == "create":
            self.write(path, step.data, os.O_CREAT | os.O_EXCL)
        elif step.action == "rewrite":
            self.write(path, step.data, os.O_TRUNC)
        elif step.action == "append":
            self.write(path, step.data, os.O_APPEND)
        elif step.action == "replace":
            self.write(other, step.data, os.O_CREAT | os.O_EXCL)
            os.rename(other, path)
        elif step.action == "move":
            os.rename(path, other)
        else:
            os.unlink(path)

    def write(self, path, data, flags):
        fd = os.open(path, os.O_WRONLY | flags, 0o644)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view[: 1 << 20]) :]
            if self.args.ack == "fsync":
                os.fsync(fd)
        finally:
            os.close(fd)

    def wrong(self, found):
        """What `found` ({name: bytes}) says against the promise, as lines."""
        step, lines = self.under_way, []
        open_names = set(step.after) | {step.name} if step else set()
        for name in sorted(set(self.acknowledged) | set(found) | open_names):
            promised, have = self.acknowledged.get(name), found.get(name)
            if have == promised or (name in open_names and self.may_be(step, name, have)):
                continue
            told = "nothing" if have is None else f"{len(have)} bytes"
            due = "nothing" if promised is None else f"{len(promised)} bytes"
            lines.append(f"{self.folder.name}/{name}: {told} where {due} were promised; under way: {step and (step.action, step.name)}")
        if step and step.action == "move" and not step.after.keys() & found.keys():
            lines.append(f"{self.folder.name}/{step.name}: lost between its two names")
        return lines

    def may_be(self, step, name, have):
        """Whether the step that was under way may have left `name` with `have`."""
        after, before = step.after.get(name), self.acknowledged.get(name)
        if have == after:
            return True
        if have is None:
            return before is None
        if step.action == "append" and name == step.name:
            return have.startswith(before) and after.startswith(have)
        written_in_place = step.action in ("create", "rewrite") or name == step.other
        return written_in_place and step.data.startswith(have)


def through_the_mount(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def in_the_bucket(mount, below):
    return {key[len(below) :]: mount.object(key) for key in mount.files(below)}


def one_round(number, store, work, args):
    """Returns the lines of what is wrong, and a line of figures."""
    choose = random.Random(f"{args.seed}-{number}")
    bucket = store.make_bucket(f"crash-{number}")
    prefix = "" if store.name == "minio" else f"crash-{number}"
    mount = Mount(store, bucket, work / f"round-{number}", prefix=prefix, options=["--write-mode", args.write_mode])
    with mount:
        writers = [Writer(mount.path / f"w{index}", f"{args.seed}-{number}-{index}", args) for index in range(WRITERS)]
        [writer.start() for writer in writers]
        if args.kill == "random":
            writers[0].join(choose.uniform(0.02, args.steps * 0.01))
        else:
            [writer.join(300) for writer in writers]
        if args.kill == "upload":
            time.sleep(choose.uniform(0, 3))
        # The dead mount point stays until the programs have noticed: without it they would write beside the mount.
        mount.kill_only()
        [writer.stopping.set() for writer in writers]
        [writer.join(30) for writer in writers]
        mount.kill()
        at_kill = len(mount.files())
        mount.start()
        wrong = [line for writer in writers for line in writer.wrong(through_the_mount(writer.folder))]
        wrong = [f"through the mount: {line}" for line in wrong]
        mount.settle(120)
        for writer in writers:
            wrong += [f"in the bucket: {line}" for line in writer.wrong(in_the_bucket(mount, f"{writer.folder.name}/"))]
        wrong += [f"unfinished upload of {key}" for key in mount.unfinished_uploads()]
        wrong += mount.reported_damage()
        if (code := mount.stop()) != 0:
            wrong.append(f"exit code {code} after the restart")
        if wrong:
            wrong.append(mount.shown_log())
    steps = sum(writer.steps_done for writer in writers)
    return wrong, steps, f"round {number}: {steps} steps acknowledged, {at_kill} objects in the bucket at the kill, {len(wrong)} wrong"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", choices=["minio", "emulator", "r2"], default="minio")
    parser.add_argument("--write-mode", choices=["back", "through"], default="back")
    parser.add_argument("--ack", choices=["close", "fsync"], default="close")
    parser.add_argument("--kill", choices=["end", "random", "upload"], default="random")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60, help="of each of the four writers")
    parser.add_argument("--large-mib", type=int, default=0, help="three in ten files have this size")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="mediafs-test-", dir=os.environ.get("MEDIAFS_TEST_DIR")))
    failed = acknowledged = 0
    try:
        with open_store(args.store, work / "store") as store:
            for number in range(args.rounds):
                wrong, steps, figures = one_round(number, store, work, args)
                print("\n".join([figures, *wrong[:30]]), flush=True)
                failed += bool(wrong)
                acknowledged += steps
    finally:
        clean(work)
    print(
        f"kill {args.kill}, {args.ack}, write mode {args.write_mode}, seed {args.seed}, {acknowledged} steps acknowledged: "
        f"{args.rounds - failed} passed, {failed} failed"
    )
    return 1 if failed or not acknowledged else 0


if __name__ == "__main__":
    sys.exit(main())
