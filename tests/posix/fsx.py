#!/usr/bin/env python3
"""Runs fsx, the file system exerciser of the crate `fsx`, on a mount of its own.

    fsx.py [--store minio|emulator|r2] [--write-mode back|through] [--control FOLDER]
           [--seeds 1-10] [--operations 20000] [--large-seeds 1] [--large-operations 400]

Each seed is a chain of random operations on one file of 256 KiB; the large seeds do the same on one of 32 MiB, with
operations of up to 4 MiB: reads, writes and mapped ones, truncation, holes, allocation, copies within the file, fsync,
cache invalidation, close and open. fsx compares every byte that it reads with what it should be. After each chain the
bucket must have the file as the mount shows it. Ends with `N passed, N failed`. fsx is $FSX, or on PATH.
"""

import os
import shutil
import subprocess
import sys
import time

from ground import ground, parser

# A chain that takes longer hangs; large files in write mode through take minutes.
CHAIN_LIMIT_S = 1200

CONFIG = """
flen = {length}
[opsize]
max = {largest}
[weights]
close_open = 1
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 5
fsync = {fsync}
fdatasync = {fsync}
posix_fallocate = 2
punch_hole = 3
sendfile = 2
posix_fadvise = 1
copy_file_range = 3
"""

# Of a file of 32 MiB each fsync is an upload of it: so few that a chain doesn't consist of them.
SHAPES = {
    "small": {"length": 256 << 10, "largest": 64 << 10, "fsync": 1},
    "large": {"length": 32 << 20, "largest": 4 << 20, "fsync": 0.3},
}


def program():
    found = os.environ.get("FSX") or shutil.which("fsx")
    if not found:
        sys.exit("fsx is not on PATH: scripts/test installs it, or `cargo install fsx --version 0.3.2`")
    return found


def seeds(text):
    """`1-3,7` as a list; empty for `none`."""
    if text == "none":
        return []
    ranges = (part.partition("-") for part in text.split(","))
    return [number for first, _, last in ranges for number in range(int(first), int(last or first) + 1)]


def chain(place, shape, seed, operations):
    """What went wrong in one chain; None where nothing did."""
    name = f"{shape}-{seed}"
    config, artifacts = place.work / f"{name}.toml", place.work / f"{name}.artifacts"
    config.write_text(CONFIG.format(**SHAPES[shape]))
    artifacts.mkdir()
    file = place.path / name
    command = [program(), "-f", config, "-N", str(operations), "-S", str(seed), "-P", artifacts, file]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=CHAIN_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"longer than {CHAIN_LIMIT_S} s"
    if done.returncode != 0:
        return done.stdout.decode(errors="replace")[-6000:]
    return None if not place.mount else compare(place.mount, name, file)


def compare(mount, name, file):
    """The object has to be the file, once everything is sent."""
    mount.flush()
    shown, stored = file.read_bytes(), mount.object(name)
    if shown == stored:
        return None
    at = next((at for at, (one, other) in enumerate(zip(shown, stored)) if one != other), min(len(shown), len(stored)))
    return f"the object ({len(stored)} bytes) differs from the file ({len(shown)} bytes) from {at} on"


def main():
    options = parser(__doc__)
    options.add_argument("--seeds", type=seeds, default="1-10")
    options.add_argument("--operations", type=int, default=20_000)
    options.add_argument("--large-seeds", type=seeds, default="1")
    options.add_argument("--large-operations", type=int, default=400)
    args = options.parse_args()
    plan = [("small", seed, args.operations) for seed in args.seeds] + [("large", seed, args.large_operations) for seed in args.large_seeds]
    passed, failed = 0, []
    with ground(args) as place:
        for shape, seed, operations in plan:
            began = time.monotonic()
            wrong = chain(place, shape, seed, operations)
            print(f"{shape} file, seed {seed}, {operations} operations: {wrong or 'ok'} ({time.monotonic() - began:.0f} s)", flush=True)
            passed += wrong is None
            failed += [wrong] if wrong else []
        if failed:
            place.show_log()
        if not place.ended_well():
            failed.append("the daemon's end")
    print(f"fsx, {place.name}: {passed} passed, {len(failed)} failed", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
