"""A store that lies: for as long as MEDIAFS_TEST_LYING_SECONDS says (20 by default) programs save, read, list, rename and remove
while listings come out of order, twice, in circles and without end, sizes and ETags are untrue, bodies are cut, and bytes turned
over. Nothing hangs, memory stays bounded, and no program sees a byte that nobody wrote."""

import gzip
import os
import pathlib
import random
import threading
import time

from harness import Emulator, wait_until
from harness.suite import Case, Run

SECONDS = float(os.environ.get("MEDIAFS_TEST_LYING_SECONDS") or 20)
TIMEOUT_S = 5
# The longest that a call may take: the deadline, and the edge's second above it, on a busy machine; several requests of the
# kernel's may make up one call.
PATIENCE_S = 8 * TIMEOUT_S
# --memory-limit, the program, and names: a listing without end is read until it is taken for one.
MEMORY_MIB = 450

LIES = [
    *({"fault": "lie", "lie": lie, "operation": "ListObjectsV2"} for lie in ("unsorted", "repeated", "endless", "circle", "sizes", "e_tags")),
    *({"fault": "lie", "lie": lie, "operation": operation} for lie in ("sizes", "e_tags") for operation in ("HeadObject", "GetObject")),
    {"fault": "cut_body", "at": 100},
    {"fault": "cut_body", "at": 0, "reset": True, "operation": "GetObject"},
    {"fault": "flip_byte", "at": 7, "operation": "GetObject"},
    {"fault": "flip_byte", "at": 40, "operation": "ListObjectsV2"},
    {"fault": "status", "status": 200, "code": "Nonsense"},
]


def content(name, size):
    """What every file of this name holds: told by its name."""
    return random.Random(name).randbytes(size)


def listed(folder):
    """Its names; None where that fails."""
    try:
        return os.listdir(folder)
    except OSError:
        return None


class Lying(Case):
    limit_s = SECONDS + 300

    def setUp(self):
        super().setUp()
        self.store = Emulator(Run.folder("store"), controlled=True)
        self.store.start()
        self.addCleanup(self.store.stop)
        self.random = random.Random(7)
        self.slowest, self.right, self.failed = 0, 0, 0

    def attempt(self, call):
        """Its answer, or None where it failed; how long it took counts in any case."""
        begun = time.monotonic()
        try:
            answer = call()
            self.right += 1
            return answer
        except OSError:
            self.failed += 1
            return None
        finally:
            self.slowest = max(self.slowest, time.monotonic() - begun)

    def memory_mib(self, mount):
        status = pathlib.Path(f"/proc/{mount.child.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    def steps(self, mount, theirs, ours):
        path, number = mount.path, len(ours)
        match self.random.randrange(7):
            case 0:
                self.attempt(lambda: os.listdir(path / self.random.choice(["", "their", "our"])))
            case 1 | 2:
                name = self.random.choice(theirs)
                data = self.attempt((path / "their" / name).read_bytes)
                self.assertTrue(data is None or data == content(name, 5000), name)
            case 3:
                name = f"f{number}"
                if self.attempt(lambda: (path / "our" / name).write_bytes(content(name, 3000))) is not None:
                    ours.add(name)
            case 4 if ours:
                name = self.random.choice(sorted(ours))
                data = self.attempt((path / "our" / name).read_bytes)
                self.assertTrue(data is None or data == content(name, 3000), name)
            case 5 if ours:
                name = self.random.choice(sorted(ours))
                self.attempt(lambda: os.rename(path / "our" / name, path / "our" / (name + ".x")))
                self.attempt(lambda: os.rename(path / "our" / (name + ".x"), path / "our" / name))
                ours.discard(name)
            case _:
                name = self.random.choice(theirs)
                facts = self.attempt(lambda: os.stat(path / "their" / name))
                self.assertTrue(facts is None or facts.st_mode & 0o777 == 0o644)

    def test_no_lie_hangs_bloats_or_is_believed(self):
        options = ["--ttl", "1s", "--negative-ttl", "0s", "--timeout", f"{TIMEOUT_S}s", "--cache-size", "8MiB"]
        mount = self.new_mount(*options, store=self.store, place=(self.store.bucket, "p"), start=False)
        theirs = [f"t{number}.jpg" for number in range(40)]
        for name in theirs:
            mount.put(f"their/{name}", content(name, 5000))
        mount.start()
        os.mkdir(mount.path / "our")
        ours, most, end = set(), 0, time.monotonic() + SECONDS
        while time.monotonic() < end:
            lie = self.random.choice(LIES)
            self.store.add_fault(**lie, probability=self.random.choice([0.3, 1.0]))
            for _ in range(6):
                self.steps(mount, theirs, ours)
                most = max(most, self.memory_mib(mount))
                if time.monotonic() > end:
                    break
            self.store.clear_faults()
            # What was written under a lie is written for all that.
            for name in self.random.sample(theirs, 2):
                data = self.attempt((mount.path / "their" / name).read_bytes)
                self.assertTrue(data is None or data == content(name, 5000), name)
        print(f"    {self.right} calls answered, {self.failed} failed, the slowest took {self.slowest:.1f} s, {most:.0f} MiB")
        self.assertGreater(self.right, 20)
        self.assertLess(self.slowest, PATIENCE_S)
        self.assertLess(most, MEMORY_MIB)

        def sound():
            try:
                return all((mount.path / "their" / name).read_bytes() == content(name, 5000) for name in theirs)
            except OSError:
                return False

        wait_until(sound, "every file is readable once the store is honest", 60)
        wait_until(lambda: mount.status()["uploading"] == 0 and mount.status()["dirty_files"] == mount.status()["failed_files"], "all is sent", 60)

    def test_a_listing_without_end_is_an_error_and_not_much_memory(self):
        mount = self.new_mount("--timeout", "60s", "--ttl", "1s", store=self.store, place=(self.store.bucket, "p"), start=False)
        mount.put("d/f", b"f")
        mount.start()
        self.assertEqual(os.listdir(mount.path), ["d"])
        for lie in ("endless", "circle"):
            rule = self.store.add_fault(fault="lie", lie=lie, operation="ListObjectsV2")
            self.assertGreater(rule, 0)
            most, done = 0, threading.Event()

            def watch():
                nonlocal most
                while not done.wait(0.2):
                    most = max(most, self.memory_mib(mount))

            watcher = threading.Thread(target=watch)
            watcher.start()
            try:
                wait_until(lambda: not listed(mount.path / "d"), "the lie is told, and not believed", 90)
            finally:
                done.set()
                watcher.join()
                self.store.clear_faults()
            print(f"    {lie}: {most:.0f} MiB")
            self.assertLess(most, MEMORY_MIB)
            wait_until(lambda: listed(mount.path / "d") == ["f"], "the honest listing")

    def test_bombs_stay_packed(self):
        mount = self.new_mount("--timeout", "10s", store=self.store, place=(self.store.bucket, "p"), start=False)
        bomb = gzip.compress(bytes(1 << 30), 9)
        for name, size in (("small", 10), ("limit", 16 << 20), ("honest-size", 1 << 30), ("nonsense", -5)):
            mount.put(name, bomb, ContentEncoding="gzip", Metadata={"mediafs-size": str(size)})
        mount.put("plain", bomb, ContentEncoding="gzip")
        mount.start()
        before = self.memory_mib(mount)
        for name in ("small", "limit"):
            with self.assertRaises(OSError):
                (mount.path / name).read_bytes()
        for name in ("honest-size", "nonsense", "plain"):
            self.assertEqual((mount.path / name).read_bytes(), bomb, "what isn't ours is what is stored")
        self.assertLess(self.memory_mib(mount) - before, 150)
