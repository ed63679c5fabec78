#!/usr/bin/env python3
"""Whether mediafs, s3fs and rclone agree on one bucket: each reads what another wrote, on a MinIO of its own.

    run.py [-k PATTERN]

One tree of files, directories, links and extended attributes (tree.py) is written by one program and read by another, both
ways, and by the first one again after mediafs has changed what it found. Prints a table of aspect by program (`agree` in all
directions, `DIFFERS`, or the number of the reason why there is nothing to compare) and the first differences. Ends with
`N passed, N failed, N not applicable`. Needs root, /dev/fuse, boto3, minio, s3fs and rclone.
"""

import argparse
import datetime
import os
import pathlib
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from harness import open_store  # noqa: E402
from harness.suite import Run, clean  # noqa: E402
from programs import Mediafs, Rclone, RcloneMount, S3fs, missing  # noqa: E402
from tree import EVERY_ASPECT, differences, expected, read_tree, write_tree  # noqa: E402

SHOWN_DIFFERENCES = 5

# rclone keeps the MD5 of large files in their metadata, and refuses bytes that don't match.
CHANGED, MORE, CHANGE_TIME_NS = ("plain.txt", "large.bin"), b"and more\n", 1_600_000_000_000_000_007

LINKS = (
    "rclone's link `NAME` is the object `NAME.rclonelink`, and a name is a key byte for byte: "
    "mediafs shows a link of that name, rclone ours as a file with the target in it"
)
NO_DIRECTORIES = "rclone keeps no attributes of directories on S3"
OTHER_NAMES = "rclone keeps `user.NAME` as the object's metadata `NAME`: mediafs shows that as `user.s3.meta.NAME`"
NO_ATTRIBUTES = "rclone mount keeps names, bytes and times only"
NO_MODE = "mediafs writes no mode and owner where they are the mount's defaults; what has none is 0640 and s3fs's own user to s3fs"
NO_MARKERS = "this rclone keeps no empty directories on S3: it is older than 1.64"
ASKED_OF_RCLONE = "asked of rclone copy, which compares sizes and times"

# What only `rclone copy` from the tree on a disk can say.
NOTHING_TO_SEND = "rclone has nothing to send"
ROWS = [*EVERY_ASPECT, NOTHING_TO_SEND]


class Direction:
    """`writer` writes, `changed` says whether mediafs then changes what it finds, `reader` shows. `apart`: {aspect: reason}."""

    def __init__(self, program, writer, reader, apart=None, changed=False):
        self.program, self.writer, self.reader, self.changed = program, writer, reader, changed
        self.apart = dict(apart or {})
        through = ["mediafs"] if changed else []
        self.title = " → ".join([writer.name, *through, reader.name])
        self.wrong = {}

    def run(self, store, number):
        bucket = store.make_bucket(f"interop-{number}")
        wanted = expected()
        with self.writer(store, bucket).writing() as folder:
            write_tree(folder, [aspect for aspect in EVERY_ASPECT if aspect not in self.apart])
        if self.changed:
            with Mediafs(store, bucket).writing() as folder:
                change(folder, wanted)
        reader = self.reader(store, bucket)
        with reader.reading() as folder:
            shown = read_tree(folder)
        for aspect in EVERY_ASPECT:
            if aspect not in self.apart and (found := differences(wanted[aspect], shown[aspect])):
                self.wrong[aspect] = found
        if NOTHING_TO_SEND not in self.apart:
            self.send_again(reader)

    def send_again(self, rclone):
        folder = Run.folder("disk")
        write_tree(folder, EVERY_ASPECT)
        if lines := rclone.sent_again(folder):
            self.wrong[NOTHING_TO_SEND] = [(line, None, None) for line in lines]


def change(folder, wanted):
    """What mediafs changes of another program's tree, and how that changes what is expected of it."""
    for name in CHANGED:
        with open(folder / name, "ab") as file:
            file.write(MORE)
        os.utime(folder / name, ns=(CHANGE_TIME_NS, CHANGE_TIME_NS))
        wanted["content"][name] += MORE
        wanted["size"][name] += len(MORE)
        wanted["mtime"][name] = CHANGE_TIME_NS
    os.chmod(folder / "private", 0o604)
    os.rename(folder / "run.sh", folder / "dir/renamed.sh")
    os.remove(folder / "read-only")
    for aspect in ("names", "content", "size", "mtime", "mode", "owner", "xattrs"):
        wanted[aspect]["dir/renamed.sh"] = wanted[aspect].pop("run.sh")
        del wanted[aspect]["read-only"]
    wanted["mode"]["private"] = "0604"


def directions():
    copy = {"symlinks": LINKS, "directories' modes": NO_DIRECTORIES, "directories' owners": NO_DIRECTORIES, "xattrs": OTHER_NAMES}
    mount = {**copy, "mode": NO_ATTRIBUTES, "default mode": NO_ATTRIBUTES, "owner": NO_ATTRIBUTES, "xattrs": NO_ATTRIBUTES}
    if not Rclone.keeps_empty_directories():
        copy["empty directories"] = mount["empty directories"] = NO_MARKERS
    elsewhere = {NOTHING_TO_SEND: ASKED_OF_RCLONE}
    return [
        Direction("s3fs", S3fs, Mediafs, elsewhere),
        Direction("s3fs", Mediafs, S3fs, {**elsewhere, "default mode": NO_MODE}),
        Direction("s3fs", S3fs, S3fs, elsewhere, changed=True),
        Direction("rclone copy", Rclone, Mediafs, {**copy, NOTHING_TO_SEND: None}),
        Direction("rclone copy", Mediafs, Rclone, copy),
        Direction("rclone copy", Rclone, Rclone, {**copy, NOTHING_TO_SEND: None}, changed=True),
        Direction("rclone mount", RcloneMount, Mediafs, {**mount, **elsewhere}),
        Direction("rclone mount", Mediafs, RcloneMount, {**mount, **elsewhere}),
    ]


def cell(columns, aspect, reasons):
    """What all directions with one program say of an aspect."""
    if found := [column.apart[aspect] for column in columns if column.apart.get(aspect)]:
        return f"({reasons.index(found[0]) + 1})"
    wrong = [column.title for column in columns if aspect in column.wrong]
    return f"DIFFERS: {', '.join(wrong)}" if wrong else "agree"


def show(columns):
    """The table in Markdown, with its reasons, then what differs."""
    reasons = list(dict.fromkeys(reason for aspect in ROWS for column in columns if (reason := column.apart.get(aspect))))
    programs = list(dict.fromkeys(column.program for column in columns))
    of = {program: [column for column in columns if column.program == program] for program in programs}
    lines = [["", *programs], ["---"] * (len(programs) + 1)]
    lines += [[aspect, *(cell(of[program], aspect, reasons) for program in programs)] for aspect in ROWS]
    print(f"\nmediafs with {S3fs.version()} and {Rclone.version()}; tests/interop/run.py, {datetime.date.today()}\n")
    print("\n".join(f"| {' | '.join(line)} |" for line in lines), end="\n\n")
    print("\n".join(f"({number}) {reason}." for number, reason in enumerate(reasons, 1)), end="\n\n")
    for column in columns:
        for aspect, found in column.wrong.items():
            print(f"{column.title}, {aspect}: {len(found)} differ")
            for name, wanted, shown in found[:SHOWN_DIFFERENCES]:
                print(f"    {name}: {str(shown)[:90]} instead of {str(wanted)[:90]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-k", dest="pattern", default="", help="only directions whose title contains this")
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("it gives files to several users and mounts three programs: run it as root")
    if found := missing():
        sys.exit(f"not installed: {' '.join(found)}; scripts/test installs them, or: apt install {' '.join(found)}")
    Run.work = pathlib.Path(tempfile.mkdtemp(prefix="mediafs-test-", dir=os.environ.get("MEDIAFS_TEST_DIR")))
    columns = [column for column in directions() if args.pattern in column.title]
    try:
        with open_store("minio", Run.work / "store") as store:
            for number, column in enumerate(columns):
                print(f"{column.title} ...", file=sys.stderr, flush=True)
                column.run(store, number)
    finally:
        clean(Run.work)
    show(columns)
    apart = sum(len(column.apart) for column in columns)
    failed = sum(len(column.wrong) for column in columns)
    passed = len(columns) * len(ROWS) - apart - failed
    print(f"interoperation, minio: {passed} passed, {failed} failed, {apart} not applicable", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
