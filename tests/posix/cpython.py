#!/usr/bin/env python3
"""Runs those of Python's own test suites that live on files, with their temporary directory on a mount of its own.

    cpython.py [--store minio|emulator|r2] [--write-mode back|through] [SUITE ...]

The same suites run on the local disk before. A test has to end on the mount as it does there: passed, failed or
skipped. cpython-excluded.txt lists those that can't, with the reason; one that does after all is reported. Ends with
`N passed, N failed, N skipped on both, N excluded`. Needs Python's `test` package (Debian: libpython3-testsuite).
"""

import collections
import os
import subprocess
import sys
import xml.etree.ElementTree as xml

from ground import HERE, ground, parser

SUITES = "test_tempfile test_shutil test_pathlib test_zipfile test_tarfile test_mailbox test_fcntl test_mmap test_os".split()
SUITE_LIMIT_S = 600


def excluded(store):
    """{test: reason} of the list for this store; nothing for the control."""
    found = {}
    for line in (HERE / "cpython-excluded.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            where, test, reason = line.split(maxsplit=2)
            if where in ("any", store):
                found[f"test.{test}"] = reason
    return found


def outcomes(suite, folder, report):
    """{test: passed, failed or skipped} of one suite with its files in `folder`, and what it printed."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "test", "--tempdir", str(folder), "--junit-xml", str(report), suite]
    # TMPDIR is what the tests ask for, --tempdir is where they stand.
    env = {**os.environ, "TMPDIR": str(folder)}
    try:
        done = subprocess.run(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SUITE_LIMIT_S, check=False)
    except subprocess.TimeoutExpired as late:
        return {}, (late.stdout or b"").decode(errors="replace")
    found = {}
    for case in xml.parse(report).getroot().iter("testcase") if report.exists() else ():
        tags = {child.tag for child in case}
        verdict = "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags or case.get("result") == "skipped" else "passed"
        found[case.get("name")] = verdict
    return found, done.stdout.decode(errors="replace")


def compare(suite, place, known):
    """(how many of each verdict agree, what differs) of one suite; `known`: {test: why it can't agree}."""
    here, there = place.work / "local", place.path / "tests"
    expected, _ = outcomes(suite, here, place.work / f"{suite}-local.xml")
    if not expected:
        return {}, [f"{suite} does not run on the local disk: is Python's test package installed?"]
    seen, text = outcomes(suite, there, place.work / f"{suite}-mount.xml")
    same, differing = collections.Counter(), []
    for name, verdict in expected.items():
        agrees = seen.get(name) == verdict
        if agrees and name in known:
            differing.append(f"{name}: {verdict} on both, and is excluded for: {known[name]}")
        elif agrees:
            same[verdict] += 1
        elif name in known:
            same["excluded"] += 1
        else:
            differing.append(f"{name}: {seen.get(name, 'not run')} on the mount, {verdict} on the local disk")
    if differing:
        print(text[-8000:], file=sys.stderr)
    return same, differing


def main():
    options = parser(__doc__)
    options.add_argument("suites", nargs="*", default=SUITES)
    args = options.parse_args()
    agreed, failures, known = collections.Counter(), [], {} if args.control else excluded(args.store)
    with ground(args, "--allow-other") as place:
        for suite in args.suites:
            same, differing = compare(suite, place, known)
            agreed.update(same)
            failures += differing
            print(f"{suite}: {dict(same)}" + "".join(f"\n  {line}" for line in differing), flush=True)
        if failures:
            place.show_log()
        if not place.ended_well():
            failures.append("the daemon's end")
    also = f" ({agreed['failed']} fail on both)" if agreed["failed"] else ""
    counts = f"{agreed['passed']} passed, {len(failures)} failed, {agreed['skipped']} skipped on both, {agreed['excluded']} excluded"
    print(f"Python's own tests, {place.name}: {counts}{also}", flush=True)
    return 1 if failures or not agreed["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
