#!/usr/bin/env python3
"""Runs xfstests, the kernel developers' suite for file systems, on mounts that mount(8) makes with our helper.

    run.py [--all] [--jobs 2] [--keep FOLDER] [TEST ...]

Without names the tests of chosen.txt, all of which have to run and to pass. `--all` is `./check -g quick` on the tests in
tests/generic: what needs something that FUSE or the store can't do, the suite itself leaves out ("not run"); those that can't
pass are in excluded.txt, each with the reason, and one of them that passes fails the run as any other surprise does. Names
are like generic/013. Each test has two new prefixes of a bucket on MinIO, new caches, and namespaces of its own (inside.sh).

The suite is built by scripts/test in $MEDIAFS_TEST_XFSTESTS. Needs root. Ends with `N passed, N failed, N excluded, N not run`.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import os
import pathlib
import re
import shutil
import signal
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import binary, open_store  # noqa: E402
from harness.process import Child  # noqa: E402
from harness.suite import clean  # noqa: E402

BUCKET = "xfstests"
# A quick test takes less than half a minute on a disk, and its daemons may have to send what it left.
LIMIT_S = 300
# The suite's own users.
USERS = {"fsgqa": 31415, "fsgqa2": 31416, "123456-fsgqa": 31417}
# No daemon may ever say this.
ALARMS = ("a bug in mediafs", "data is damaged", "bytes are damaged")


@dataclasses.dataclass
class Outcome:
    """`verdict`: passed, failed or not run; `said`: why, or what it printed."""

    name: str
    verdict: str
    said: str
    seconds: float


def lines_of(file):
    return [line for line in file.read_text().splitlines() if line and not line.startswith("#")]


def excluded():
    """{test: (kind, reason)}."""
    return {test: (kind, reason) for test, kind, reason in (line.split(maxsplit=2) for line in lines_of(HERE / "excluded.txt"))}


def quick(suite):
    """The generic tests of the group `quick`."""
    lines = (suite / "tests/generic/group.list").read_text().splitlines()
    return [f"generic/{words[0]}" for words in map(str.split, lines) if "quick" in words[1:] and words[0].isdigit()]


def prepare(place):
    for folder in ("test", "scratch", "tmp", "sbin", "results", "home"):
        (place / folder).mkdir(parents=True)
    (place / "tmp").chmod(0o1777)
    (place / "sbin/mount.fuse.mediafs").touch()
    (place / "empty").touch()
    for name, extra in (("passwd", "{0}:*:{1}:{1}::/mnt/home:/bin/bash\n"), ("group", "{0}:x:{1}:\n")):
        text = pathlib.Path("/etc", name).read_text()
        own = "".join(extra.format(user, number) for user, number in USERS.items() if f"\n{user}:" not in text)
        (place / name).write_text(text.rstrip("\n") + "\n" + own)


def environment(store, prefix):
    options = {role: f"-oallow_other,endpoint_url={store.endpoint},cache_dir=/mnt/cache-{role},log_file=/mnt/{role}.log" for role in ("test", "scratch")}
    return {
        **store.env(),
        "FSTYP": "fuse",
        # For generic/504, which looks at /proc/locks: the locks of processes that have ended belong to no namespace.
        "FSTESTS_ISOL": "privatens",
        "FUSE_SUBTYP": ".mediafs",
        "TEST_DEV": f"s3://{BUCKET}/{prefix}-test",
        "SCRATCH_DEV": f"s3://{BUCKET}/{prefix}-scratch",
        "TEST_FS_MOUNT_OPTS": options["test"],
        "MOUNT_OPTIONS": options["scratch"],
    }


def run_test(name, suite, store, work):
    place = work / name.replace("/", "-")
    prepare(place)
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", HERE / "inside.sh", place, suite, binary(), name]
    began = time.monotonic()
    # When it ends, in time or not, the first process of the namespace goes with it, and all others with that.
    child = Child(command, place / "check.log", environment(store, place.name), life_s=LIMIT_S)
    try:
        late = child.wait(LIMIT_S + 10) == -signal.SIGALRM
    finally:
        child.kill()
    outcome = judge(name, place, time.monotonic() - began, late)
    # Of a mount that never ended something may still be written: what can't be removed now goes with `work`.
    for cache in place.glob("cache-*"):
        shutil.rmtree(cache, ignore_errors=True)
    return outcome


def judge(name, place, seconds, late):
    text = (place / "check.log").read_text(errors="replace")
    logs = "".join(path.read_text(errors="replace") for path in place.glob("*.log") if path.name != "check.log")
    alarms = [line for line in logs.splitlines() if any(alarm in line for alarm in ALARMS)]
    if alarms:
        return Outcome(name, "failed", "the daemon: " + alarms[0], seconds)
    if late:
        return Outcome(name, "failed", f"longer than {LIMIT_S} s", seconds)
    if "DAEMON STILL RUNNING" in text:
        return Outcome(name, "failed", "a daemon did not end", seconds)
    if reason := re.search(r"\[not run\] *(.*)", text):
        return Outcome(name, "not run", reason[1], seconds)
    if re.search(r"^Passed all 1 tests", text, re.MULTILINE):
        return Outcome(name, "passed", "", seconds)
    return Outcome(name, "failed", text[-3000:], seconds)


def verdict(outcome, known, must_run):
    """(word for the count, complaint or None)."""
    kind, reason = known.get(outcome.name, ("", ""))
    if outcome.verdict == "not run" and must_run:
        return "failed", f"{outcome.name}: has to run: {outcome.said}"
    if outcome.verdict == "failed" and not kind:
        return "failed", f"{outcome.name}: {outcome.said}"
    if outcome.verdict == "passed" and kind == "fails":
        return "failed", f"{outcome.name}: passes, and is excluded for: {reason}"
    return ("excluded" if outcome.verdict == "failed" else outcome.verdict), None


def run_all(names, args, suite, work):
    known, must_run = excluded(), not args.all and not args.names
    long = {name for name in names if known.get(name, ("",))[0] == "long" and not args.names}
    counts, complaints = collections.Counter(excluded=len(long)), []
    with open_store("minio", work / "store") as store:
        store.make_bucket(BUCKET)
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            for outcome in pool.map(lambda name: run_test(name, suite, store, work), [name for name in names if name not in long]):
                word, complaint = verdict(outcome, known, must_run)
                counts[word] += 1
                complaints += [complaint] if complaint else []
                print(complaint or f"{outcome.name}: {word} {outcome.said if word == 'not run' else ''} ({outcome.seconds:.0f} s)", flush=True)
    print(f"xfstests: {counts['passed']} passed, {counts['failed']} failed, {counts['excluded']} excluded, {counts['not run']} not run", flush=True)
    return 1 if complaints or not counts["passed"] else 0


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--all", action="store_true", help="the whole group `quick`")
    options.add_argument("--jobs", type=int, default=2, help="tests at the same time: much of their time is waiting")
    options.add_argument("--keep", type=pathlib.Path, metavar="FOLDER", help="where each test leaves its output and its daemons' logs")
    options.add_argument("names", nargs="*")
    args = options.parse_args()
    if os.geteuid() != 0:
        sys.exit("xfstests needs root")
    suite = pathlib.Path(os.environ.get("MEDIAFS_TEST_XFSTESTS", ""))
    if not (suite / "check").exists():
        sys.exit("MEDIAFS_TEST_XFSTESTS doesn't name a built xfstests: scripts/test xfstests builds one")
    names = args.names or (quick(suite) if args.all else lines_of(HERE / "chosen.txt"))
    work = pathlib.Path(tempfile.mkdtemp(prefix="mediafs-test-", dir=args.keep or os.environ.get("MEDIAFS_TEST_DIR")))
    # Other users walk through it.
    work.chmod(0o755)
    try:
        return run_all(names, args, suite, work)
    finally:
        if not args.keep:
            clean(work)


if __name__ == "__main__":
    sys.exit(main())
