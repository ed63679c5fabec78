#!/usr/bin/env python3
"""The product beside other ways to a bucket, on one MinIO, with the same files, in one run.

    run.py [--targets mediafs,s3fs] [--rtt-ms 0,30] [--count 200] [--big-mib 256] [--json FILE] [--flamegraph FOLDER]

Times mean something as ratios within one run only; requests are MinIO's own counts, and exact. Prints the README's
tables. `scripts/bench` installs what this needs.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import django.conf  # noqa: E402
from cases import MOVED, Cases, differ  # noqa: E402
from harness import open_store  # noqa: E402
from harness.process import Child  # noqa: E402
from harness.suite import clean  # noqa: E402
from sampling import Profile  # noqa: E402
from targets import ALL  # noqa: E402

# The relay costs CPU that large transfers would compete for: they are smaller behind it.
FAR_BIG_SHARE = 4


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", default=",".join(ALL), help="of: " + ", ".join(ALL))
    parser.add_argument("--rtt-ms", default="0,30", help="round trips to measure at, each in turn")
    parser.add_argument("--count", type=int, default=200, help="files in a case; ten times as many are listed")
    parser.add_argument("--big-mib", type=int, default=256)
    parser.add_argument("--json", type=pathlib.Path, help="where the figures go, for tests/bench/cost.py and others")
    parser.add_argument("--flamegraph", type=pathlib.Path, help="profiles mediafs into this folder")
    args = parser.parse_args()
    args.targets = args.targets.split(",")
    if unknown := [name for name in args.targets if name not in ALL]:
        parser.error(f"no target is called {unknown[0]!r}: {', '.join(ALL)}")
    args.rtts = [float(rtt) for rtt in args.rtt_ms.split(",")]
    return args


def relayed(store, rtt_ms, work):
    """The endpoint of `store` that is so far away, and the relay's process."""
    if not rtt_ms:
        return store.endpoint, None
    relay = Child([sys.executable, HERE / "relay.py", store.port, rtt_ms], work / "relay.log", life_s=7200, talks=True)
    return f"http://127.0.0.1:{relay.hear()}", relay


def measure(args, rtt_ms, work):
    """{target: Cases} at one distance."""
    done = {}
    big_mib = args.big_mib // FAR_BIG_SHARE if rtt_ms else args.big_mib
    for name in args.targets:
        folder = work / f"{name}-{rtt_ms:g}".replace(" ", "-")
        folder.mkdir()
        # A store for each target: nobody pays for another's files.
        with open_store("minio", folder / "store") as store:
            endpoint, relay = relayed(store, rtt_ms, folder)
            try:
                cases = Cases(store, ALL[name](store, folder, endpoint), args.count, big_mib)
                if args.flamegraph and name == "mediafs":
                    cases.profile = lambda pid, case: Profile(pid, args.flamegraph, f"{case}-{rtt_ms:g}ms")
                cases.run()
            finally:
                if relay:
                    relay.stop()
        clean(folder)
        done[name] = cases
    return done


def table(done, rtt_ms):
    lines = [f"| {rtt_ms:g} ms to the bucket | unit | " + " | ".join(done) + " |", "|---|---|" + "---:|" * len(done)]
    for row in differ(cases.rows for cases in done.values()):
        shown = [cases.rows.get(row) for cases in done.values()]
        unit = next(found[1] for found in shown if found)
        lines.append(f"| {row} | {unit} | " + " | ".join(number(found[0]) if found else "–" for found in shown) + " |")
    return lines


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def request_table(done):
    lines = ["| requests each | " + " | ".join(done) + " |", "|---|" + "---|" * len(done)]
    for step in differ(cases.requests for cases in done.values()):
        shown = [", ".join(f"{count:.3g} {name}" for name, count in cases.requests.get(step, {}).items()) or "–" for cases in done.values()]
        lines.append(f"| {step} | " + " | ".join(shown) + " |")
    return lines


def machine():
    model = next((line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "?")
    return f"{datetime.date.today().isoformat()}, {os.cpu_count()} cores ({model}), Linux {platform.release()}"


def main():
    args = arguments()
    django.conf.settings.configure(USE_TZ=True)
    missing = [(name, program) for name, program in (("rclone", "rclone"), ("s3fs", "s3fs")) if name in args.targets and not shutil.which(program)]
    for name, program in missing:
        print(f"{name} is left out: {program} is not on PATH", flush=True)
        args.targets.remove(name)
    if args.flamegraph:
        if why := Profile.missing():
            sys.exit(why)
        args.flamegraph.mkdir(parents=True, exist_ok=True)
    work = pathlib.Path(tempfile.mkdtemp(prefix="mediafs-bench-", dir=os.environ.get("MEDIAFS_TEST_DIR", "/var/tmp")))
    results, printed = {}, []
    try:
        for rtt_ms in args.rtts:
            done = measure(args, rtt_ms, work)
            results[f"{rtt_ms:g}"] = {name: {"rows": cases.rows, "requests": cases.requests} for name, cases in done.items()}
            failures = [f"Failed: {line}" for cases in done.values() for line in cases.failures]
            printed += [*table(done, rtt_ms), "", *failures]
            if rtt_ms == args.rtts[-1]:
                printed += request_table(done)
    finally:
        clean(work)
    busy = subprocess.run(["uptime"], check=False, capture_output=True, text=True).stdout.strip().rsplit(":", 1)[-1].strip()
    print(f"\n{machine()}; load {busy}\n", *printed, sep="\n")
    if args.json:
        sizes = {"listed": args.count * 10, "moved": min(args.count, MOVED)}
        args.json.write_text(json.dumps({"machine": machine(), "sizes": sizes, "results": results}, indent=1))


if __name__ == "__main__":
    main()
