#!/usr/bin/env python3
"""Runs pjdfstest, the POSIX test suite that others wrote, on a mount of its own.

    pjdfstest.py [--store minio|emulator|r2] [--write-mode back|through] [--control FOLDER] [--jobs 4] [NAME ...]

NAME is a folder or a file below pjdfstest/tests: `chmod`, `rename/09`; without names all. The suite is carried beside
this file (see pjdfstest/CHANGES); each of its files runs in a directory of its own. Needs root, for it changes users.

excluded.txt lists the assertions that can't hold on objects, each with the reason. One of them that passes is reported
and fails the run, as a missing or an unplanned one does. Files that go through all types of file run a second time
without pipes, devices and sockets, and then all has to pass. Ends with `N passed, N failed, N excluded`.
"""

import collections
import concurrent.futures
import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys

from ground import HERE, ground, parser

SUITE = HERE / "pjdfstest"
EXCLUDED = HERE / "excluded.txt"
# The types that excluded.txt speaks of, in the loops over all types.
WITHOUT = "fifo|block|char|socket"
# These make hard links too, on which the rest of them builds.
LINKS = ("link/", "mkfifo/", "mknod/", "rename/00", "rename/23")
# A file of the suite that takes longer hangs: the longest takes a minute or two.
FILE_LIMIT_S = 600

# What autoconf finds on Linux.
FOUND = (
    "FACCESSAT FCHMODAT FCHOWNAT FSTATAT LINKAT MKDIRAT MKFIFOAT MKNODAT OPENAT POSIX_FALLOCATE READLINKAT RENAMEAT "
    "STRUCT_STAT_ST_ATIM STRUCT_STAT_ST_CTIM STRUCT_STAT_ST_MTIM SYMLINKAT SYS_SYSMACROS_H UTIMENSAT"
).split()


@dataclasses.dataclass
class Outcome:
    """One file of the suite: {assertion: None where it passed, else what it said}, and what is wrong with the file itself.
    `reduced`: without the types that can't be, so that its plan and the numbers of excluded.txt don't hold."""

    name: str
    assertions: dict
    reduced: bool
    complaint: str | None = None


def build(folder):
    """A copy of the suite with its program compiled, which its scripts look for above themselves."""
    shutil.copytree(SUITE, folder)
    (folder / "config.h").write_text("".join(f"#define HAVE_{name} 1\n" for name in FOUND))
    subprocess.run(["cc", "-O1", "-D_GNU_SOURCE", "-I.", "-o", "pjdfstest", "pjdfstest.c"], cwd=folder, check=True)
    return folder / "tests"


def chosen(tests, names):
    wanted = [name.removesuffix(".t") for name in names]
    files = sorted(path.relative_to(tests).with_suffix("").as_posix() for path in tests.glob("*/*.t"))
    unknown = [name for name in wanted if not any(file == name or file.startswith(name + "/") for file in files)]
    if unknown:
        sys.exit(f"no test is called {unknown[0]}: {' '.join(sorted({file.split('/')[0] for file in files}))}")
    return [file for file in files if not wanted or any(file == name or file.startswith(name + "/") for name in wanted)]


def numbers(text):
    """`1-3,7` as a set."""
    ranges = (part.partition("-") for part in text.split(","))
    return {number for first, _, last in ranges for number in range(int(first), int(last or first) + 1)}


def excluded():
    """{file: {assertion: reason}} from lines of `FILE NUMBERS REASON`."""
    found = collections.defaultdict(dict)
    for line in EXCLUDED.read_text().splitlines():
        if line and not line.startswith("#"):
            file, which, reason = line.split(maxsplit=2)
            found[file].update(dict.fromkeys(numbers(which), reason))
    return found


def reduce(tests, name):
    """Writes the file's twin without the types that can't be; False where it has no loop over types."""
    text = (tests / f"{name}.t").read_text()
    loops = re.sub(r"^\s*for \w+ in .*; do$", lambda loop: re.sub(rf" ({WITHOUT})\b", "", loop[0]), text, flags=re.MULTILINE)
    if loops == text or name.startswith(LINKS):
        return False
    (tests / f"{name}-reduced.t").write_text(loops)
    return True


def run_file(tests, name, folder, reduced=False):
    """Runs one file of the suite in `folder`."""
    folder.mkdir(parents=True)
    script = tests / f"{name}{'-reduced' if reduced else ''}.t"
    try:
        done = subprocess.run(["sh", script], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=FILE_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return Outcome(name, {}, reduced, f"longer than {FILE_LIMIT_S} s")
    text = done.stdout.decode(errors="replace")
    planned = re.search(r"^1\.\.(\d+)", text, re.MULTILINE)
    assertions = {}
    for failed, number, rest in re.findall(r"^(not )?ok (\d+)(.*)$", text, re.MULTILINE):
        # What its authors expect to fail on this system (TODO) counts as passed either way.
        assertions[int(number)] = (rest.removeprefix(" - ").strip() or "failed") if failed and "# TODO" not in rest else None
    count = len(assertions) if reduced and assertions else int(planned[1]) if planned else 0
    if not count or sorted(assertions) != list(range(1, count + 1)):
        plan = planned[1] if planned else "no"
        return Outcome(name, assertions, reduced, f"{len(assertions)} assertions of {plan} planned ones; it ended with {text[-300:]!r}")
    return Outcome(name, assertions, reduced)


def judge(outcome, known, enforce):
    """(passed, excluded, complaints) of one file; `enforce`: an excluded assertion has to fail."""
    complaints = [f"{outcome.name}: {outcome.complaint}"] if outcome.complaint else []
    passed = dropped = 0
    for number, said in sorted(outcome.assertions.items()):
        if number in known and said is not None:
            dropped += 1
        elif number in known and enforce:
            complaints.append(f"{outcome.name} {number}: passes, and is excluded for: {known[number]}")
        elif said is None:
            passed += 1
        else:
            complaints.append(f"{outcome.name} {number}: {said}")
    beyond = sorted(set(known) - set(outcome.assertions))
    if beyond and enforce and not outcome.complaint:
        complaints.append(f"{outcome.name}: excludes assertions that don't exist: {beyond}")
    return passed, dropped, complaints


def main():
    options = parser(__doc__)
    options.add_argument("--jobs", type=int, default=4, help="files of the suite at the same time: much of its time is sleep")
    options.add_argument("names", nargs="*")
    args = options.parse_args()
    if os.geteuid() != 0:
        sys.exit("pjdfstest changes users, so it needs root")
    os.umask(0o022)
    known, total, failures = excluded(), collections.Counter(), []
    with ground(args, "--allow-other") as place:
        tests = build(place.work / "pjdfstest")
        files = chosen(tests, args.names)
        plan = [(name, False) for name in files] + [(name, True) for name in files if reduce(tests, name)]
        run = lambda one: run_file(tests, one[0], place.path / ("reduced" if one[1] else "all") / one[0], one[1])  # noqa: E731
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            for outcome in pool.map(run, plan):
                exclusions = {} if outcome.reduced else known[outcome.name]
                passed, dropped, complaints = judge(outcome, exclusions, enforce=not args.control)
                total.update(passed=passed, excluded=dropped, reduced=passed * outcome.reduced)
                failures += complaints
                name = outcome.name + " without the types that can't be" * outcome.reduced
                print("\n".join(complaints) if complaints else f"{name}: {passed} passed, {dropped} excluded", flush=True)
        if failures:
            place.show_log()
        if not place.ended_well():
            failures.append("the daemon's end")
    counts = f"{total['passed']} passed, {len(failures)} failed, {total['excluded']} excluded"
    print(f"pjdfstest, {place.name}: {counts} ({total['reduced']} in second runs without pipes, devices, sockets)", flush=True)
    return 1 if failures or not total["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
