"""What the tests beside this file share: programs under a deadline, trees to feed them, and trees compared.

Every program runs in a process of its own with its output kept: one that hangs is killed, and the test fails with what
it had said. A tree is described as data ({path: what stat, the content and the attributes say}), so that a failure shows
which file differs in what.
"""

import hashlib
import os
import pathlib
import random
import shutil
import stat
import subprocess

from harness.suite import Case, Run

# The longest that one program may take: the slowest takes a few seconds, on a machine that does nothing else.
PROGRAM_LIMIT_S = 60

# An odd one, whose nanoseconds a program can lose.
SOME_TIME_NS = 1_234_567_890_123_456_789


def found(name):
    """The path of a program, None where it isn't installed; administrators' folders are looked through too."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")


def needs(*names):
    """Skips a test, or all of a class, where one of the programs is missing."""

    def mark(test):
        missing = [name for name in names if not found(name)]
        if missing:
            test.__unittest_skip__, test.__unittest_skip_why__ = True, f"not installed: {' '.join(missing)}"
        return test

    return mark


def environment():
    """The caller's language, time zone and set-up files change nothing."""
    home = {"HOME": str(Run.work), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}
    person = {f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC", **home, **person}


def run(*command, seconds=PROGRAM_LIMIT_S, cwd=None, stdin=None, code=0):
    """What a program prints. An AssertionError with that where it ends otherwise than with `code`, or too late."""
    words = [os.fspath(word) if isinstance(word, os.PathLike) else str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env=environment(),
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise AssertionError(f"{' '.join(words)}: longer than {seconds} s\n{shown(late.stdout)}") from None
    if done.returncode != code:
        raise AssertionError(f"{' '.join(words)}: ended with {done.returncode}, not {code}\n{shown(done.stdout)}")
    return done.stdout.decode(errors="replace")


def shown(output):
    return (output or b"").decode(errors="replace")[-4000:]


def shell(script, folder, **more):
    """A script of bash in `folder`; the first error of any of its commands is its end."""
    return run("bash", "-euo", "pipefail", "-c", script, cwd=folder, **more)


def describe(top, times=True):
    """{path below `top`: everything that a program can see of it}; `times` includes modification times."""
    seen = {}
    top = pathlib.Path(top)
    for folder, folders, files in os.walk(top):
        for name in [*folders, *files]:
            path = pathlib.Path(folder, name)
            seen[str(path.relative_to(top))] = entry(path, times)
    return seen


def entry(path, times=True):
    found = path.lstat()
    what = {"mode": stat.filemode(found.st_mode), "owner": (found.st_uid, found.st_gid)}
    if times:
        what["mtime"] = found.st_mtime_ns
    if path.is_symlink():
        return {**what, "target": os.readlink(path)}
    if path.is_file():
        what["size"], what["sha256"] = found.st_size, hashlib.sha256(path.read_bytes()).hexdigest()
    names = [name for name in os.listxattr(path) if name.startswith("user.")]
    return {**what, "attributes": {name: os.getxattr(path, name) for name in sorted(names)}}


def make_tree(top, attributes=True):
    """Some sixty files in folders, with modes, owners, times, links, attributes and names of every kind."""
    chosen = random.Random(5)
    top.mkdir()
    sizes = [0, 1, 4095, 4096, 4097, 70_000, 300_000]
    for folder in ("a", "a/deeper/still", "with space", "ümläut", "日本", "empty"):
        (top / folder).mkdir(parents=True)
    for number in range(60):
        folder = ["", "a", "a/deeper", "a/deeper/still", "with space", "ümläut", "日本"][number % 7]
        file = top / folder / ["photo {}.jpg", "notes{}.txt", "100%&{}+.html", "é{}", ".hidden{}"][number % 5].format(number)
        file.write_bytes(chosen.randbytes(sizes[number % len(sizes)]))
        file.chmod([0o644, 0o600, 0o755, 0o444, 0o640][number % 5])
        if attributes and number % 6 == 0:
            os.setxattr(file, "user.note", f"nümber {number}".encode())
        if os.geteuid() == 0 and number % 4 == 0:
            os.chown(file, 1000 + number, 2000 + number)
        os.utime(file, ns=(SOME_TIME_NS, SOME_TIME_NS + number * 86_400_000_000_001))
    os.symlink("a/deeper", top / "to a folder")
    os.symlink("../nothing here", top / "a/dangling")
    os.symlink("notes1.txt", top / "a/to a file")
    for link in ("to a folder", "a/dangling", "a/to a file"):
        os.utime(top / link, ns=(SOME_TIME_NS, SOME_TIME_NS + 7), follow_symlinks=False)
    for number, folder in enumerate(sorted((path for path in top.rglob("*") if path.is_dir() and not path.is_symlink()), reverse=True)):
        folder.chmod([0o755, 0o700, 0o2775][number % 3])
        os.utime(folder, ns=(SOME_TIME_NS, SOME_TIME_NS + number * 1_000_000_007))
    return top


class Bench(Case):
    """A test with a mount of its own, a folder of the local disk beside it, and trees that are compared."""

    maxDiff = 4000

    def setUp(self):
        super().setUp()
        self.local = Run.folder("local")

    def cold(self, mount):
        """Mounts again with an empty cache: all that it knows now, the bucket has told it."""
        self.assertEqual(mount.stop(), 0)
        mount.forget_cache()
        mount.start()

    def same(self, one, other, times=True):
        """Both trees are the same in everything; `one` is what it should be."""
        self.assert_same(describe(one, times), describe(other, times))

    def assert_same(self, wanted, seen):
        self.assertEqual(sorted(seen), sorted(wanted))
        differing = {path: (wanted[path], seen[path]) for path in wanted if wanted[path] != seen[path]}
        self.assertEqual(differing, {}, "path: (as it should be, as it is)")

    def assert_stored(self, mount, folder, wanted):
        """The bucket holds the files of the tree `wanted` below `folder`, byte for byte, and no other."""
        mount.settle()
        files = {str(path.relative_to(wanted)): path for path in wanted.rglob("*") if path.is_file() and not path.is_symlink()}
        links = [path for path in wanted.rglob("*") if path.is_symlink()]
        stored = mount.files(f"{folder}/")
        self.assertEqual(len(stored), len(files) + len(links), sorted(stored))
        for name, path in files.items():
            self.assertTrue(mount.object(f"{folder}/{name}") == path.read_bytes(), f"the object of {name} is not the file")
