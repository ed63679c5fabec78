"""What all programs of one run found: operations, their errors and times, and what was wrong."""

import collections
import errno
import threading
import time

EXCUSED = {errno.EIO, errno.ETIMEDOUT}
# For a scheduler with two cores and eight daemons.
MARGIN_S = 6
# Operations on one path that are remembered, for a wrong line about it.
REMEMBERED = 8


class Ledger:
    """Under one lock, for all programs."""

    def __init__(self, deadline_s, excused=EXCUSED):
        self.lock = threading.Lock()
        self.excused = excused
        self.deadline_s, self.limit_s = deadline_s, deadline_s + MARGIN_S
        self.operations, self.errors = 0, collections.Counter()
        self.worst, self.worst_of = 0.0, ""
        self.wrong, self.hung, self.refused = [], [], []
        self.latest = collections.defaultdict(lambda: collections.deque(maxlen=REMEMBERED))
        # Monotonic times between which errors are excused.
        self.fault_from = self.fault_to = float("inf")
        # Whatever begins later meets it: it takes a moment to be set up.
        self.fault_surely_from = float("inf")

    def limit_of(self, what):
        """The longest that one system call may take. A read is asked for twice by the kernel when its read-ahead failed; what
        waits for an upload (fsync, close) goes on as long as anything moves, and a deadline longer."""
        if what.startswith(("read ", "pread ")):
            return 2 * self.deadline_s + MARGIN_S
        if what.startswith(("fsync ", "close ")):
            return (12 if " big/" in what else 4) * self.deadline_s + MARGIN_S
        return self.limit_s

    def record(self, what, began, error=None, also=()):
        now = time.monotonic()
        took = now - began
        with self.lock:
            self.operations += 1
            verb, _, paths = what.partition(" ")
            outcome = errno.errorcode.get(error.errno, str(error.errno)) if error else "done"
            for path in paths.split(" -> "):
                self.latest[path].append(f"{verb} {outcome} at {self.since_fault(began):+.1f} s after {took:.1f} s")
            if took > self.worst:
                self.worst, self.worst_of = took, what
            if took > self.limit_of(what):
                self.hung.append(f"{what}: {took:.1f} s")
            if error is None:
                return
            if error.errno in (errno.ENOENT, errno.EEXIST) and error.errno in also:
                return
            name = errno.errorcode.get(error.errno, str(error.errno))
            self.errors[name] += 1
            in_fault = now >= self.fault_from and began <= self.fault_to
            excused = error.errno in also or (error.errno in self.excused and in_fault)
            if not excused:
                self.refused.append(f"{what}: {name} after {took:.1f} s, {self.since_fault(began):+.1f} s from the fault's begin")

    def since_fault(self, at):
        return at - self.fault_from

    def note_wrong(self, line, path=""):
        """`path`: what it is about, as the operations on it name it."""
        since = self.since_fault(time.monotonic())
        with self.lock:
            before = f"; before: {', '.join(self.latest[path])}" if path else ""
            self.wrong.append(f"{line} ({since:+.1f} s from the fault's begin{before})")
