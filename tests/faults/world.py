"""One fault: a store, a mount, the programs on it, and the verdict over what is left when all is over."""

import contextlib
import errno
import pathlib
import random
import re
import threading
import time

from ledger import EXCUSED, Ledger
from workload import BigSaver, Denied, Looker, Reader, Saver

from harness import Mount, Toxiproxy, open_store
from harness.store import Emulator

MIB = 1 << 20
CACHE_BYTES = 96 * MIB
# Everything has to be in the bucket so long after the fault is over: backoff is a minute at most, then the bytes.
DRAIN_S = 150


class World:
    def __init__(self, fault, args, work: pathlib.Path):
        self.fault, self.args, self.work = fault, args, work
        self.deadline_s = args.timeout
        self.ledger = Ledger(self.deadline_s, EXCUSED | ({errno.ENOSPC} if fault.fills_cache else set()))
        self.is_long = args.seconds >= 60
        self.big_bytes = (20 if self.is_long else 17) * MIB
        self.proxy = None
        self.violations, self.lines = [], []
        self.lost = self.risen = self.conflicts = self.uploads = 0

    # ------------------------------------------------------------------ setting up

    def store_for(self, stack):
        folder = self.work / "store"
        if self.fault.store == "minio":
            store = stack.enter_context(open_store("minio", folder))
            store.make_bucket("bucket")
            self.proxy = stack.enter_context(Toxiproxy(store, self.work / "proxy"))
            return self.proxy
        return stack.enter_context(Emulator(folder, r2=self.fault.store == "r2", controlled=True))

    def cold_files(self):
        """{name: bytes}: more than the cache holds, so that reads go on needing the bucket."""
        choose = random.Random(f"{self.args.seed}-cold")
        sizes = [choose.randrange(1, MIB) for _ in range(60 if self.is_long else 30)]
        if not self.fault.small_only:
            sizes += [choose.randrange(2 * MIB, 12 * MIB) for _ in range(16 if self.is_long else 8)]
            sizes += [choose.randrange(30 * MIB, 40 * MIB)] * (2 if self.is_long else 1)
        return {f"{number:03}.bin": choose.randbytes(size) for number, size in enumerate(sizes)}

    def options(self):
        cache = CACHE_BYTES if not self.fault.small_only else 48 * MIB
        options = ["--write-mode", self.args.write_mode, "--timeout", f"{self.deadline_s}s", "--cache-size", f"{cache // MIB}MiB"]
        return [*options, "--ttl", "2s"]

    def run(self):
        """Sets up, works, lifts the fault, and judges. Whatever goes wrong is in `violations`."""
        with contextlib.ExitStack() as stack:
            self.store = self.store_for(stack)
            self.mount = Mount(self.store, "bucket", self.work / "mount", options=self.options(), life_s=int(self.args.seconds) + 900)
            self.cold = self.cold_files()
            client = self.store.client()
            for name, data in self.cold.items():
                client.put_object(Bucket="bucket", Key=f"cold/{name}", Body=data)
            stack.enter_context(self.mount)
            programs = self.programs()
            with self.watched():
                for program in programs:
                    program.start()
                time.sleep(min(2, self.args.seconds * 0.1))
                self.misbehave()
                self.end(programs)
            self.settle()
            self.judge(programs)

    def programs(self):
        seed = self.args.seed
        self.savers = [Saver(self, f"w{number}", seed) for number in range(3)]
        if not self.fault.small_only:
            self.savers.append(BigSaver(self, "big", seed))
        if self.fault.denied:
            self.savers.append(Denied(self, self.fault.denied, seed))
        return [*self.savers, *(Reader(self, f"reader{number}", seed) for number in range(2)), Looker(self, "looker", seed)]

    @contextlib.contextmanager
    def watched(self):
        """A hang ends with the daemon instead of never."""
        timer = threading.Timer(self.args.seconds + 6 * self.deadline_s + 120, lambda: self.mount.child.signal(9))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    # ------------------------------------------------------------------ the fault

    def misbehave(self):
        self.ledger.fault_from = time.monotonic()
        seconds = self.args.seconds
        if self.fault.during:
            self.fault.during(self, seconds)
        elif self.fault.cycle_s:
            on_s, off_s = self.fault.cycle_s
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                self.fault_on()
                time.sleep(min(on_s, left))
                self.fault_off()
                time.sleep(max(0, min(off_s, end - time.monotonic())))
        else:
            self.fault_on()
            self.ledger.fault_surely_from = time.monotonic()
            time.sleep(seconds)
        self.fault_off()
        self.ledger.fault_to = time.monotonic()

    def fault_on(self):
        for rule in self.fault.rules:
            self.store.add_fault(**rule)
        for kind, attributes in self.fault.toxics:
            self.proxy.add_toxic(kind, **attributes)

    def fault_off(self):
        if self.proxy:
            self.proxy.clear_toxics()
        else:
            self.store.clear_faults()

    def end(self, programs):
        for program in programs:
            program.stopping.set()
        for program in programs:
            # The longest step is a handful of operations, each within the deadline.
            program.join(14 * self.ledger.limit_s)
            if program.is_alive():
                self.violate("hung", f"{program.name} has not come back")

    # ------------------------------------------------------------------ the verdict

    def violate(self, kind, *lines):
        self.violations += [f"{kind}: {line}" for line in lines]

    def settle(self):
        """The fault is gone: everything has to arrive by itself, and `flush` and the end of the daemon have to say so."""
        began = time.monotonic()
        try:
            self.mount.flush(seconds=DRAIN_S)
            self.mount.settle(DRAIN_S)
        except Exception as error:
            self.violate("not sent", f"{error}; {self.dirty()}")
        self.drained_s = time.monotonic() - began

    def dirty(self):
        try:
            status = self.mount.status()
            return {name: status.get(name) for name in ("dirty_files", "uploading", "failed", "degraded", "conflicts")}
        except Exception as error:
            return f"no status: {error}"

    def judge(self, programs):
        for saver in self.savers:
            below = f"{saver.name}/"
            for where, read in (("in the bucket", self.in_the_bucket), ("through the mount", self.through_the_mount)):
                found = read(below)
                wrong, lost, risen = saver.model.verdict(found)
                self.lost, self.risen = self.lost + len(lost), self.risen + len(risen)
                for line in wrong:
                    self.ledger.note_wrong(f"{where}: {below}{line}")
                self.violate(f"lost {where}", *(below + line for line in lost))
                self.violate(f"not due {where}", *(below + line for line in risen))
        keys = self.mount.keys()
        copies = [key for key in keys if re.search(r"\.conflict-", key)]
        self.conflicts = len(copies)
        self.violate("conflict", *copies)
        known = ("cold/", *(f"{saver.name}/" for saver in self.savers))
        strangers = [key for key in keys if not key.startswith(known)]
        self.violate("not due", *strangers)
        for saver in self.savers:
            gone = [f"{saver.name}/{name}/" for name, there in saver.model.directories.items() if there is False]
            self.violate("a directory rose", *(key for key in keys if key.startswith(tuple(gone)) and gone))
        for saver in self.savers:
            if isinstance(saver, Denied) and not saver.seen:
                self.violate("not visible", "no fsync told of the refusal")
        if (code := self.mount.stop()) != 0:
            self.violate("end", f"exit code {code}")
        uploads = self.mount.unfinished_uploads()
        self.uploads = len(uploads)
        self.violate("unfinished upload", *uploads)
        self.violate("wrong", *self.ledger.wrong)
        self.violate("longer than the deadline", *self.ledger.hung)
        self.violate("refused", *self.ledger.refused)
        if self.ledger.operations < self.args.seconds:
            self.violate("idle", f"{self.ledger.operations} operations in {self.args.seconds} s")
        log = self.mount.log.read_text(errors="replace")
        self.violate("false damage", *self.mount.reported_damage())
        # Nobody else uses the bucket.
        self.violate("took itself for another", *re.findall(r".*another (?:host|writer).*", log))
        self.violate("panic", *re.findall(r".*panicked at.*", log))

    def in_the_bucket(self, below):
        return {key[len(below) :]: self.mount.object(key) for key in self.mount.files(below)}

    def through_the_mount(self, below):
        root = self.mount.path / below
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()} if root.exists() else {}

    def figures(self):
        ledger = self.ledger
        return {
            "fault": self.fault.name, "about": self.fault.about, "operations": ledger.operations,
            "errors": dict(+ledger.errors), "worst_s": round(ledger.worst, 1), "worst_of": ledger.worst_of,
            "wrong": len(ledger.wrong), "lost": self.lost, "risen": self.risen, "conflicts": self.conflicts,
            "uploads": self.uploads, "hung": len(ledger.hung), "refused": len(ledger.refused),
            "drained_s": round(getattr(self, "drained_s", -1), 1), "violations": self.violations,
        }  # fmt: skip
