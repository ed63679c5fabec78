#!/usr/bin/env python3
"""A mixed workload with checked contents over a real mount, under each fault that a bucket and a network have.

    run.py [--seconds 12] [--parallel 4] [--fault NAME ...] [--write-mode back|through|both] [--timeout 20] [--list]

Each fault has a store, a mount and a cache of its own; `--parallel` of them run side by side. While the fault is on an
operation may fail with EIO, and within the deadline; afterwards everything that was promised has to be in the bucket,
once. Ends with a Markdown table and `N passed, N failed`. Needs what the other suites need, and toxiproxy-server.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from harness.suite import clean  # noqa: E402
from table import FAULTS  # noqa: E402
from world import World  # noqa: E402

COLUMNS = ["fault", "mode", "operations", "errors", "worst wait", "wrong", "lost", "not due", "conflicts", "uploads left", "refused", "drained in"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=12, help="how long each fault lasts")
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--fault", action="append", choices=[fault.name for fault in FAULTS], help="may be repeated; all without it")
    parser.add_argument("--write-mode", choices=["back", "through", "both"], default="back")
    parser.add_argument("--timeout", type=int, default=20, help="the mount's deadline, in seconds")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--list", action="store_true", help="show the faults and end")
    parser.add_argument("--keep", action="store_true", help="keep logs and data of what failed")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    return parser.parse_args()


def run_one(args):
    """One fault in this process; its figures as the last line."""
    fault = next(fault for fault in FAULTS if fault.name == args.one)
    work = pathlib.Path(args.work)
    world = World(fault, args, work)
    try:
        world.run()
    except Exception as error:
        world.violate("broke off", f"{type(error).__name__}: {error}")
    log = world.mount.shown_log(60) if world.violations and hasattr(world, "mount") else ""
    print(json.dumps({**world.figures(), "log": log}), flush=True)


def run_apart(args, fault, mode, work):
    """One fault in a process of its own: Python's lock is then no bound between them."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{fault.name}-{mode}-", dir=work))
    command = [sys.executable, __file__, "--one", fault.name, "--work", folder, "--write-mode", mode, "--seconds", args.seconds]
    command += ["--timeout", args.timeout, "--seed", args.seed]
    limit = args.seconds + 8 * args.timeout + 600
    try:
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, timeout=limit, check=False)
        found = json.loads(done.stdout.decode().strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        found = {"fault": fault.name, "operations": 0, "errors": {}, "violations": [f"broke off: {error!r}"]}
    found["mode"] = mode
    if not (args.keep and found["violations"]):
        clean(folder)
    return found


def row(found):
    errors = ", ".join(f"{count} {name}" for name, count in sorted(found["errors"].items())) or "0"
    worst = f"{found.get('worst_s', '?')} s ({found.get('worst_of', '').split(' ')[0]})"
    counts = [found.get(name, "?") for name in ("wrong", "lost", "risen", "conflicts", "uploads", "refused")]
    return [found["fault"], found["mode"], found["operations"], errors, worst, *counts, f"{found.get('drained_s', '?')} s"]


def table(all_found):
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    return lines + ["| " + " | ".join(str(cell) for cell in row(found)) + " |" for found in all_found]


def tell(found):
    cells = ", ".join(f"{name} {cell}" for name, cell in zip(COLUMNS[2:], row(found)[2:]))
    verdict = "FAILED" if found["violations"] else "ok"
    print(f"{verdict:6} {found['fault']} ({found['mode']}): {cells}", flush=True)
    for line in found["violations"][:25]:
        print(f"    {line}")
    if len(found["violations"]) > 25:
        print(f"    and {len(found['violations']) - 25} more")
    if found["violations"] and found.get("log"):
        print("    --- log\n    " + found["log"].replace("\n", "\n    "), flush=True)


def main():
    args = arguments()
    if args.list:
        print("\n".join(f"{fault.name:15} {fault.about}" for fault in FAULTS))
        return 0
    if args.one:
        run_one(args)
        return 0
    chosen = [fault for fault in FAULTS if not args.fault or fault.name in args.fault]
    modes = ["back", "through"] if args.write_mode == "both" else [args.write_mode]
    work = pathlib.Path(tempfile.mkdtemp(prefix="mediafs-test-", dir=os.environ.get("MEDIAFS_TEST_DIR")))
    print(f"{len(chosen)} faults, {args.seconds:g} s each, deadline {args.timeout} s, seed {args.seed}", flush=True)
    all_found = []
    try:
        with concurrent.futures.ThreadPoolExecutor(args.parallel) as pool:
            runs = [pool.submit(run_apart, args, fault, mode, work) for mode in modes for fault in chosen]
            for done in concurrent.futures.as_completed(runs):
                tell(done.result())
            all_found = [run.result() for run in runs]
    finally:
        if not args.keep:
            clean(work)
    print("\n".join(["", *table(all_found), ""]))
    failed = sum(bool(found["violations"]) for found in all_found)
    print(f"write mode {args.write_mode}, {args.seconds:g} s: {len(all_found) - failed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
