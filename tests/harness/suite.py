"""The unittest side: cases that own mounts, a limit on each test, and a last line that says what came of it."""

import argparse
import collections
import itertools
import os
import pathlib
import shutil
import sys
import tempfile
import threading
import time
import unittest

from .mount import Mount, binary, detach, mounts_below
from .ordinary import run_as
from .store import Minio, open_store

# Who else looks at the mounts of an ordinary user: root, and somebody without rights.
OTHER_USERS = (0, 65533)


class Run:
    """What the command line chose; set once by `main`."""

    store = None
    write_mode = "back"
    work = None
    # {uid: shell of that user}; empty but in a run with --user.
    shells = {}
    _places = itertools.count(1)

    @classmethod
    def folder(cls, name):
        return pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=cls.work))

    @classmethod
    def open_to_others(cls, *folders):
        """Other users get into these folders of the run. Fails where one above them keeps them out: then an EACCES would
        prove nothing."""
        for folder in (cls.work, *folders):
            os.chmod(folder, 0o755)
        for above in cls.work.parents:
            if not above.stat().st_mode & 0o001:
                raise AssertionError(f"other users can't get into {above}: chmod o+x, or set TMPDIR to a folder that all may enter")

    @classmethod
    def fresh_place(cls, store=None):
        """(bucket, prefix) that nothing has been written to."""
        store, number = store or cls.store, next(cls._places)
        if store.name == "minio":
            return store.make_bucket(f"place-{number}"), ""
        return store.bucket, f"place-{number}"


class Case(unittest.TestCase):
    """A test over mounts of its own. A test that takes longer than `limit_s` has its daemons killed and fails."""

    limit_s = 120

    # The test harms the cache directory itself.
    damages_the_cache = False

    def setUp(self):
        self.mounts = []

    def new_mount(self, *options, place=None, store=None, folder=None, write_mode=None, start=True, **more):
        """A mount that ends with the test; a new place in the bucket unless `place` is another mount's."""
        bucket, prefix = place or Run.fresh_place(store)
        options = ["--write-mode", write_mode or Run.write_mode, *options]
        mount = Mount(store or Run.store, bucket, folder or Run.folder("mount"), prefix=prefix, options=options, **more)
        self.mounts.append(mount)
        self.addCleanup(self._end, mount)
        return mount.start() if start else mount

    def _end(self, mount):
        mount.close()
        if not self.damages_the_cache:
            self.assertEqual(mount.reported_damage(), [])

    def place_of(self, mount):
        return mount.bucket, mount.prefix

    def run(self, result=None):
        timer = threading.Timer(self.limit_s, self._too_long)
        timer.daemon = True
        timer.start()
        try:
            return super().run(result)
        finally:
            timer.cancel()

    def _too_long(self):
        print(f"\n{self.id()}: longer than {self.limit_s} s, its daemons are killed", file=sys.stderr)
        for mount in self.running_mounts():
            if mount.child:
                mount.child.signal(9)

    def running_mounts(self):
        return getattr(self, "mounts", [])

    def counted(self, mount):
        return Counted(mount)


class SharedCase(Case):
    """Tests that share one mount, each in a directory of its own: `self.dir`, seen in the bucket below `self.name`."""

    options = ()

    @classmethod
    def setUpClass(cls):
        bucket, prefix = Run.fresh_place()
        options = ["--write-mode", Run.write_mode, *cls.options]
        cls.mount = Mount(Run.store, bucket, Run.folder(cls.__name__), prefix=prefix, options=options)
        cls.addClassCleanup(cls.mount.close)
        cls.mount.start()

    def setUp(self):
        super().setUp()
        self.name = self.id().rsplit(".", 1)[1]
        self.dir = self.mount.path / self.name
        self.dir.mkdir()

    def tearDown(self):
        self.assertEqual(self.mount.reported_damage(), [])
        super().tearDown()

    def running_mounts(self):
        return [self.mount, *super().running_mounts()]


class Counted:
    """Counts the requests made inside a `with`, waiting at its end until what was written is in the bucket."""

    def __init__(self, mount):
        self.mount = mount

    def __enter__(self):
        self.mount.settle()
        self._before = self.mount.requests()
        self._own_before = self.mount.own_requests()
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.mount.settle()
            self.by_operation = +(self.mount.requests() - self._before)
            self.own = +(self.mount.own_requests() - self._own_before)

    def __getitem__(self, operation):
        return self.by_operation[operation]

    @property
    def total(self):
        return sum(self.by_operation.values())

    @property
    def lookups(self):
        return self["HeadObject"] + self["ListObjectsV2"]

    def __repr__(self):
        return repr(dict(sorted(self.by_operation.items())))


class Result(unittest.TextTestResult):
    """Shows what the daemons logged beside each failure, and counts what passed."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.passed = 0

    def startTest(self, test):
        self.began = time.monotonic()
        super().startTest(test)

    def addSuccess(self, test):
        self.passed += 1
        super().addSuccess(test)
        if (took := time.monotonic() - self.began) > 10:
            self.stream.writeln(f"    {took:.0f} s")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._logs(test)

    def addError(self, test, err):
        super().addError(test, err)
        self._logs(test)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._logs(test)

    def _logs(self, test):
        mounts = test.running_mounts() if isinstance(test, Case) else []
        for mount in mounts:
            self.stream.writeln(f"--- log of {mount.path.parent.name}\n{mount.shown_log()}\n---")


def load(folder, names, pattern):
    """The tests of `test_NAME.py` for each name in `folder`; all of them without names."""
    loader = unittest.TestLoader()
    if pattern:
        loader.testNamePatterns = [pattern if "*" in pattern else f"*{pattern}*"]
    modules = [f"test_{name}" for name in names] or sorted(path.stem for path in folder.glob("test_*.py"))
    sys.path.insert(0, str(folder))
    return unittest.TestSuite(loader.loadTestsFromName(module) for module in modules)


def clean(work):
    """Detaches and removes everything that a run made."""
    for point in mounts_below(work):
        detach(point)
    shutil.rmtree(work, ignore_errors=True)


def chosen(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--store", choices=["minio", "emulator", "r2"], default="minio")
    parser.add_argument("--write-mode", choices=["back", "through"], default="back")
    parser.add_argument("--user", type=int, metavar="UID", help="be this user, who has a name, and mount through fusermount3; takes root")
    parser.add_argument("-k", dest="pattern", help="only tests whose name contains this")
    parser.add_argument("--failfast", action="store_true")
    parser.add_argument("names", nargs="*", help="test_NAME.py for each; all where none is given")
    args = parser.parse_args()
    if args.user is not None and os.geteuid() != 0:
        parser.error("--user takes root to begin with")
    return args


def run_tests(folder, args, shells=None):
    """Runs them and prints what came of it; the exit code."""
    Run.shells = shells or {}
    runner = unittest.TextTestRunner(sys.stderr, verbosity=2, failfast=args.failfast, resultclass=Result)
    result = runner.run(load(folder, args.names, args.pattern))
    failed = collections.Counter(test.id() for test, _ in result.failures + result.errors)
    who = "" if args.user is None else f", user {args.user}"
    print(f"{args.store}, write mode {args.write_mode}{who}: {result.passed} passed, {len(failed)} failed, {len(result.skipped)} skipped", flush=True)
    return 0 if result.passed and not failed and not result.unexpectedSuccesses else 1


def main(folder, description):
    args = chosen(description)
    Run.work = pathlib.Path(tempfile.mkdtemp(prefix="mediafs-test-", dir=os.environ.get("MEDIAFS_TEST_DIR")))
    try:
        with open_store(args.store, Run.work / "store") as Run.store:
            Run.write_mode = args.write_mode
            if args.user is None:
                return run_tests(folder, args)
            programs = {"MEDIAFS": binary(), **({"MINIO": Minio.program()} if args.store == "minio" else {})}
            return run_as(args.user, OTHER_USERS, Run.work, programs, lambda shells: run_tests(folder, args, shells))
    finally:
        clean(Run.work)
