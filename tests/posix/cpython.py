#!/usr/bin/env python3
"""Runs those of Python's own test suites that live on files, with their temporary directory on a mount of its own.

    cpython.py [--store minio|emulator|r2] [--write-mode back|through] [SUITE ...]

The same suites run on the local disk before. A test has to end on the mount as it does there: passed, failed or
skipped. Ends with `N passed, N failed, N skipped on both`. Needs Python's `test` package (Debian: libpython3-testsuite).
"""

import collections
import os
import subprocess
import sys
import xml.etree.ElementTree as xml

from ground import ground, parser

SUITES = "test_tempfile test_shutil test_pathlib test_zipfile test_tarfile test_mailbox test_fcntl test_mmap test_os".split()
SUITE_LIMIT_S = 600


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


def compare(suite, place):
    """(how many of each verdict agree, what differs) of one suite."""
    here, there = place.work / "local", place.path / "tests"
    expected, _ = outcomes(suite, here, place.work / f"{suite}-local.xml")
    if not expected:
        return {}, [f"{suite} does not run on the local disk: is Python's test package installed?"]
    seen, text = outcomes(suite, there, place.work / f"{suite}-mount.xml")
    differing = [f"{name}: {seen.get(name, 'not run')} on the mount, {verdict} on the local disk" for name, verdict in expected.items() if seen.get(name) != verdict]
    if differing:
        print(text[-8000:], file=sys.stderr)
    return collections.Counter(verdict for name, verdict in expected.items() if seen.get(name) == verdict), differing


def main():
    options = parser(__doc__)
    options.add_argument("suites", nargs="*", default=SUITES)
    args = options.parse_args()
    agreed, failures = collections.Counter(), []
    with ground(args, "--allow-other") as place:
        for suite in args.suites:
            same, differing = compare(suite, place)
            agreed.update(same)
            failures += differing
            print(f"{suite}: {dict(same)}" + "".join(f"\n  {line}" for line in differing), flush=True)
        if failures:
            place.show_log()
        if not place.ended_well():
            failures.append("the daemon's end")
    also = f" ({agreed['failed']} fail on both)" if agreed["failed"] else ""
    print(f"Python's own tests, {place.name}: {agreed['passed']} passed, {len(failures)} failed, {agreed['skipped']} skipped on both{also}", flush=True)
    return 1 if failures or not agreed["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
