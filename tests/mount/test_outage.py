"""The bucket is away: at the start, under reads and writes, at the end, for longer than every timeout; and comes back."""

import datetime
import errno
import os
import pathlib
import signal
import json
import shutil
import time
import unittest

from harness import Gate, wait_until
from harness.suite import Case, Run
from posix_calls import pattern, refused, write

# What a person takes for "at once": no request that waits for the network ends within it.
AT_ONCE_S = 1.0
# How long a question about a known name may take before what is known is the answer, with room for a busy machine.
PATIENCE_S = 8
# From the first answer of the bucket on, until all that waited is there. A request that is never answered is given up
# after 20 s, so that is what a lost one costs.
RECOVERY_S, LOST_RECOVERY_S = 15, 45


class Away(Case):
    """Mounts behind a gate: `self.gate` is shut, held and opened."""

    def setUp(self):
        super().setUp()
        self.gate = self.enterContext(Gate(Run.store))

    def behind_gate(self, *options, **more):
        return self.new_mount(*options, endpoint=self.gate.endpoint, write_mode="back", **more)

    def known(self, mount, names=("a", "b", "c")):
        """A directory with cached files whose names the mount has listed; {name: bytes}."""
        (mount.path / "known").mkdir()
        files = {f"known/{name}": pattern(name, 20_000) for name in names}
        for name, data in files.items():
            write(mount.path / name, data)
        mount.settle()
        os.listdir(mount.path / "known")
        return files

    def quick(self, call, seconds=AT_ONCE_S):
        began = time.monotonic()
        answer = call()
        self.assertLess(time.monotonic() - began, seconds)
        return answer

    def goes_on(self, mount, files):
        """What needs no bucket, again and again."""
        self.assertEqual(sorted(os.listdir(mount.path / "known")), sorted(name[6:] for name in files))
        for name, data in files.items():
            self.assertEqual(os.stat(mount.path / name).st_size, len(data))
            self.assertEqual((mount.path / name).read_bytes(), data)
        os.statvfs(mount.path)

    def is_degraded(self, mount):
        return wait_until(lambda: mount.status()["degraded"], "status says that the bucket is away", 40)

    def recovered(self, mount, expected, seconds=RECOVERY_S):
        """Without any help, all that waited is in the bucket and the status is well again."""
        began = time.monotonic()
        mount.settle(seconds)
        wait_until(lambda: not mount.status()["degraded"], "no longer degraded", seconds)
        print(f"    recovered {time.monotonic() - began:.1f} s after the bucket was back", end=" ", flush=True)
        self.assertEqual({name: mount.object(name) for name in expected}, expected)


class AtTheStart(Away):
    def test_a_first_mount_without_an_answer_exits_soon(self):
        for what in (self.gate.hold, self.gate.shut):
            with self.subTest(what.__name__):
                what()
                mount = self.behind_gate(start=False).launch()
                self.assertEqual(mount.child.wait(8), 1)
                self.assertRegex(mount.shown_log(1), rf"{self.gate.port}.*(endpoint|answer|refuses)")

    def test_a_known_cache_mounts_with_its_files_and_its_unsent_writes(self):
        mount = self.behind_gate("--timeout", "3s")
        files = self.known(mount)
        self.gate.shut()
        write(mount.path / "known/unsent", b"unsent")
        os.rename(mount.path / "known/a", mount.path / "known/renamed")
        mount.kill()
        began = datetime.datetime.now(datetime.UTC)
        self.quick(mount.start, 15)
        degraded = self.is_degraded(mount)
        since = datetime.datetime.fromisoformat(degraded["since"])
        self.assertLess(abs((since - began).total_seconds()), 20)
        self.assertRegex(degraded["error"], r"refuse|answer|connect")
        files["known/renamed"] = files.pop("known/a")
        files["known/unsent"] = b"unsent"
        for name, data in files.items():
            self.assertEqual((mount.path / name).read_bytes(), data)
        with refused(errno.EIO):
            os.stat(mount.path / "never seen")
        write(mount.path / "known/b", b"written while it was away")
        files["known/b"] = b"written while it was away"
        self.gate.open()
        self.recovered(mount, files)
        self.assertNotIn("known/a", mount.keys())


class WhileMounted(Away):
    def test_known_things_cost_no_request(self):
        mount = self.behind_gate("--ttl", "60s")
        files = self.known(mount)
        self.goes_on(mount, files)
        before = self.gate.counted()
        for _ in range(20):
            os.statvfs(mount.path)
            for name in files:
                os.stat(mount.path / name)
        self.gate.hold()
        self.quick(lambda: self.goes_on(mount, files))
        self.assertEqual(self.gate.counted(), before)

    def away_while_writing(self, take_away, come_back, seconds, *options):
        mount = self.behind_gate("--ttl", "1s", "--negative-ttl", "1s", *options)
        files = self.known(mount)
        take_away()
        time.sleep(1.2)  # everything that is known is older than its TTL
        self.quick(lambda: self.goes_on(mount, files), PATIENCE_S)
        for number in range(30):
            name, data = f"known/new{number:02}", pattern(number, 10_000)
            self.quick(lambda: write(mount.path / name, data))
            files[name] = data
        write(mount.path / "known/b", b"rewritten")
        files["known/b"] = b"rewritten"
        os.unlink(mount.path / "known/c")
        del files["known/c"]
        self.quick(lambda: self.goes_on(mount, files), 2 * AT_ONCE_S)
        self.assertRegex(self.is_degraded(mount)["error"], r"refuse|answer|connect|time")
        self.quick(lambda: self.goes_on(mount, files), 2 * AT_ONCE_S)
        come_back()
        self.recovered(mount, files, seconds)
        self.assertNotIn("known/c", mount.keys())
        self.goes_on(mount, files)

    def test_writes_go_on_while_nobody_listens(self):
        self.away_while_writing(self.gate.shut, self.gate.open, RECOVERY_S)

    def test_writes_go_on_while_nobody_answers(self):
        self.away_while_writing(self.gate.hold, self.gate.open, RECOVERY_S)

    def test_what_was_never_answered_is_asked_again(self):
        self.away_while_writing(self.gate.hold, lambda: self.gate.open(lost=True), LOST_RECOVERY_S)

    def test_reads_alone_notice_it_too(self):
        mount = self.behind_gate("--ttl", "1s")
        files = self.known(mount)
        mount.put("known/late", b"late")
        self.gate.shut()
        time.sleep(1.2)
        self.goes_on(mount, files)
        self.assertRegex(self.is_degraded(mount)["error"], r"refuse|connect")
        self.gate.open()
        # Nobody asks for anything: the daemon finds out by itself.
        self.recovered(mount, files)
        wait_until(lambda: (mount.path / "known/late").exists(), "what is new shows", 5)

    def test_longer_than_every_timeout(self):
        mount = self.behind_gate("--timeout", "2s", "--ttl", "1s")
        files = self.known(mount)
        mount.put("known/cold", pattern("cold", 3 << 20))
        self.gate.hold()
        write(mount.path / "known/b", b"waits")
        files["known/b"] = b"waits"
        began = time.monotonic()
        while time.monotonic() - began < 12:
            with open(mount.path / "known/b", "ab", buffering=0) as file, refused(errno.EIO):
                self.quick(lambda: os.fsync(file.fileno()), 6)
            with self.assertRaises(OSError):
                self.quick((mount.path / "known/cold").read_bytes, 12)
            self.quick(lambda: self.goes_on(mount, files), 2 * AT_ONCE_S)
        self.gate.open(lost=True)
        self.recovered(mount, files, LOST_RECOVERY_S)
        wait_until(lambda: (mount.path / "known/cold").exists(), "the cold file shows", 5)
        self.assertEqual((mount.path / "known/cold").read_bytes(), pattern("cold", 3 << 20))

    def test_a_daemon_that_was_stopped_goes_on(self):
        mount = self.behind_gate("--timeout", "2s", "--ttl", "1s")
        files = self.known(mount)
        for number in range(40):
            files[f"known/new{number}"] = pattern(number, 300_000)
            write(mount.path / f"known/new{number}", files[f"known/new{number}"])
        mount.child.signal(signal.SIGSTOP)
        time.sleep(8)  # longer than the timeout and the TTL
        mount.child.signal(signal.SIGCONT)
        self.goes_on(mount, files)
        self.recovered(mount, files)

    def test_a_store_that_was_stopped(self):
        """As `hold`, by the store itself: the kernel takes its connections, nobody answers."""
        mount = self.new_mount("--ttl", "1s", write_mode="back")
        files = self.known(mount)
        self.addCleanup(Run.store.child.signal, signal.SIGCONT)
        Run.store.child.signal(signal.SIGSTOP)
        time.sleep(1.2)
        self.quick(lambda: self.goes_on(mount, files), PATIENCE_S)
        write(mount.path / "known/b", b"rewritten")
        files["known/b"] = b"rewritten"
        self.quick(lambda: self.goes_on(mount, files), 2 * AT_ONCE_S)
        Run.store.child.signal(signal.SIGCONT)
        self.recovered(mount, files)


@unittest.skipUnless(os.geteuid() == 0 and shutil.which("unshare"), "needs root and unshare")
class Names(Away):
    """The daemon runs where /etc/hosts is a file of ours, and sees nothing of DNS; its mount shows below its root."""

    def test_a_name_that_stops_resolving(self):
        hosts, order = Run.folder("hosts") / "hosts", Run.folder("order") / "nsswitch.conf"
        hosts.write_text("127.0.0.1 bucket.test\n")
        order.write_text("hosts: files\n")
        inside = f'mount --bind {hosts} /etc/hosts && mount --bind {order} /etc/nsswitch.conf && exec "$@"'
        self.gate.endpoint = f"http://bucket.test:{self.gate.port}"
        mount = self.behind_gate("--ttl", "1s", start=False, wrapper=["unshare", "--mount", "sh", "-c", inside, "sh"])
        mount.launch()
        root = pathlib.Path(f"/proc/{mount.child.pid}/root{mount.path}")
        wait_until(lambda: root.exists() and os.path.ismount(root), "the daemon has mounted in its own namespace")

        def status():
            return json.loads(os.getxattr(root, "user.mediafs.status"))

        write(root / "f", b"1")
        wait_until(lambda: status()["dirty_files"] == 0, "the first version is sent")
        hosts.write_text("\n")
        self.gate.shut()
        self.gate.open()
        write(root / "f", b"22")
        self.assertEqual((root / "f").read_bytes(), b"22")
        degraded = wait_until(lambda: status()["degraded"], "the name no longer resolves", 40)
        self.assertRegex(degraded["error"], r"bucket\.test.*(resolve|name)")
        hosts.write_text("127.0.0.1 bucket.test\n")
        wait_until(lambda: status()["dirty_files"] == 0 and not status()["degraded"], "recovered by itself", RECOVERY_S)
        self.assertEqual(mount.object("f"), b"22")
        mount.child.signal(signal.SIGTERM)
        self.assertEqual(mount.child.wait(30), 0)
