"""One key rewritten much faster than R2 allows: the program notices nothing, the bucket ends with the last content."""

import os
import time

from harness import Gate
from harness.suite import Case, Run
from posix_calls import write

RATE, SECONDS = 20, float(os.environ.get("MEDIAFS_TEST_REWRITING_S", "15"))
# R2 takes one write a second; an answer's way back may bring two closer together as the store sees them.
CLOSEST_S = 0.9


class Rewriting(Case):
    limit_s = 60 + int(SECONDS) * 2

    def rewritten(self, mount, change):
        """Calls `change(number)` RATE times a second; the last number."""
        began, number = time.monotonic(), 0
        while time.monotonic() - began < SECONDS:
            change(number)
            number += 1
            time.sleep(max(0.0, began + number / RATE - time.monotonic()))
        return number - 1

    def check(self, change):
        gate = self.enterContext(Gate(Run.store))
        mount = self.new_mount(endpoint=gate.endpoint, write_mode="back")
        last = self.rewritten(mount, lambda number: change(mount.path, number))
        mount.settle(30)
        self.assertEqual(mount.object("state.json"), self.content(last))
        self.assertEqual((mount.path / "state.json").read_bytes(), self.content(last))
        self.assertEqual(mount.files(), ["state.json"])
        times = gate.times("PUT", f"{mount.bucket}/{mount.key('state.json')}".partition("/")[2])
        print(f"    {last + 1} rewrites, {len(times)} PUTs", end=" ", flush=True)
        self.assertGreater(last, SECONDS * RATE * 0.5)
        self.assertLessEqual(len(times), SECONDS + 3)
        status = mount.status()
        self.assertEqual((status["failed"], status["conflicts"], status["degraded"]), ([], 0, None))
        if Run.store.name == "r2":
            self.assertGreaterEqual(min(b - a for a, b in zip(times, times[1:])), CLOSEST_S)
            self.assertEqual(status["request_errors"].get("PutObject", 0), 0)

    def content(self, number):
        return f"rewritten {number:06}".encode() * 50

    def test_in_place(self):
        self.check(lambda folder, number: write(folder / "state.json", self.content(number)))

    def test_by_a_temporary_file_and_a_rename(self):
        def change(folder, number):
            write(folder / "state.tmp", self.content(number))
            os.replace(folder / "state.tmp", folder / "state.json")

        self.check(change)
