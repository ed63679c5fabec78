"""What fails or waits is seen: in status, in the attribute of the file, in the log, in the metrics, and by the program."""

import datetime
import errno
import http.client
import os
import re
import subprocess
import time

from harness import Gate, free_port, wait_until
from harness.mount import binary
from harness.suite import Case, Run
from posix_calls import pattern, refused, write


class Visible(Case):
    def setUp(self):
        super().setUp()
        self.gate = self.enterContext(Gate(Run.store))

    def behind_gate(self, *options, **more):
        return self.new_mount(*options, endpoint=self.gate.endpoint, write_mode="back", **more)

    def refuse(self, mount, name, status, code):
        """The store refuses to take this file."""
        self.gate.rule = lambda method, key: (status, code) if (method, key) == ("PUT", mount.key(name)) else None

    def state(self, path):
        return os.getxattr(path, "user.mediafs.state").decode()

    def told(self, mount):
        """Status as people read it."""
        command = [binary(), "status", str(mount.path)]
        return subprocess.run(command, check=True, timeout=30, stdout=subprocess.PIPE).stdout.decode()

    def failed(self, mount):
        return wait_until(lambda: mount.status()["failed"], "status lists the failure", 40)


class Failures(Visible):
    def fails_for_good(self, status, code, number):
        mount = self.behind_gate()
        self.refuse(mount, "refused.jpg", status, code)
        began = datetime.datetime.now(datetime.UTC)
        write(mount.path / "refused.jpg", b"kept here")
        write(mount.path / "other.jpg", b"sent")
        failed, = self.failed(mount)
        self.assertEqual(failed["path"], "refused.jpg")
        self.assertRegex(failed["error"], rf"PutObject.*({code}|{status}|refused at the gate)")
        since = datetime.datetime.fromisoformat(failed["since"])
        self.assertLess(abs((since - began).total_seconds()), 40)
        self.assertRegex(self.told(mount), r"failed +refused\.jpg: .*PutObject.*\(since 20")
        self.assertEqual(self.state(mount.path / "refused.jpg"), "failed")
        wait_until(lambda: self.state(mount.path / "other.jpg") == "clean", "the other file isn't held up")
        line = [line for line in mount.shown_log().splitlines() if "refused.jpg" in line][-1]
        self.assertRegex(line, rf"ERROR.*kept here.*refused\.jpg.*({code}|{status}|refused at the gate)")
        self.assertRegex(line, r"when it changes|in \d+ s")
        # Who goes on with the file hears of it, once; its bytes are here all the same.
        with refused(number), open(mount.path / "refused.jpg", "ab", buffering=0) as file:
            file.write(b", and more")
        self.assertEqual((mount.path / "refused.jpg").read_bytes(), b"kept here, and more")
        with open(mount.path / "refused.jpg", "r+b", buffering=0) as file, refused(number):
            os.fsync(file.fileno())
        mount.kill()
        mount.start()
        self.failed(mount)
        self.assertEqual((mount.path / "refused.jpg").read_bytes(), b"kept here, and more")
        self.gate.rule = lambda method, key: None
        mount.flush(mount.path / "refused.jpg")
        self.assertEqual(mount.object("refused.jpg"), b"kept here, and more")
        self.assertEqual((mount.status()["failed"], mount.status()["failed_files"]), ([], 0))
        self.assertEqual(self.state(mount.path / "refused.jpg"), "clean")

    def test_a_right_that_is_missing(self):
        self.fails_for_good(403, "AccessDenied", errno.EACCES)

    def test_too_large_for_the_store(self):
        self.fails_for_good(400, "EntityTooLarge", errno.EFBIG)

    def test_many_failures_fit_into_the_status(self):
        mount = self.behind_gate()
        self.gate.rule = lambda method, key: (400, "EntityTooLarge") if method == "PUT" else None
        for number in range(400):
            write(mount.path / f"{'long name ' * 15}{number}", b"x")
        wait_until(lambda: mount.status()["failed_files"] == 400, "all have failed", 60)
        self.assertGreater(len(mount.status()["failed"]), 20)
        self.assertRegex(self.told(mount), r"and 380 more")
        self.gate.rule = lambda method, key: None
        mount.flush()
        self.assertEqual((len(mount.files()), mount.status()["failed_files"]), (400, 0))


class Waiting(Visible):
    def test_states_and_ages_of_what_waits(self):
        mount = self.behind_gate("--ttl", "1h")
        os.listdir(mount.path)
        with open(mount.path / "open", "wb", buffering=0) as file:
            file.write(b"x")
            self.assertEqual(self.state(mount.path / "open"), "dirty")
        mount.settle()
        self.assertEqual(self.state(mount.path / "open"), "clean")
        self.assertIsNone(mount.status()["oldest_dirty_seconds"])
        self.gate.hold()
        write(mount.path / "open", b"held on its way")
        wait_until(lambda: self.state(mount.path / "open") == "uploading", "it is on its way")
        wait_until(lambda: (mount.status()["oldest_dirty_seconds"] or 0) > 1.5, "it grows older", 10)
        self.assertRegex(self.told(mount), r"to upload +1 files, 15 B, the oldest since \ds; 1 on the way")
        self.gate.open()
        mount.settle()

    def test_status_says_since_when_the_bucket_is_away_and_why(self):
        mount = self.behind_gate("--ttl", "1h")
        self.assertRegex(self.told(mount), r"health +the bucket answers")
        os.listdir(mount.path)
        self.gate.shut()
        write(mount.path / "f", b"x")
        wait_until(lambda: mount.status()["degraded"], "the bucket is away", 40)
        self.assertRegex(self.told(mount), r"DEGRADED +the bucket doesn't answer since 20\S+Z: .*refuse")
        self.gate.open()
        wait_until(lambda: "health     the bucket answers" in self.told(mount), "the bucket is back", 20)


class Metrics(Visible):
    def get(self, port, path, host=None, method="GET"):
        """(status, text)."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request(method, path, headers={"Host": host} if host else {})
        answer = connection.getresponse()
        try:
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def values(self, port):
        status, text = self.get(port, "/metrics")
        self.assertEqual(status, 200)
        described = set(re.findall(r"^# TYPE (\w+) (?:gauge|counter|histogram)$", text, re.M))
        found = dict(re.findall(r"^(mediafs_\w+(?:\{[^}]*\})?) (\S+)$", text, re.M))
        plain = {re.sub(r"(duration_seconds)_(bucket|sum|count)$", r"\1", name.partition("{")[0]) for name in found}
        self.assertEqual(plain - described, set())
        return {name: float(value) for name, value in found.items()}

    def test_metrics_and_health(self):
        port = free_port()
        mount = self.behind_gate("--metrics", str(port), "--ttl", "1s")
        write(mount.path / "f", pattern(1, 10_000))
        mount.settle()
        values = self.values(port)
        self.assertEqual(values['mediafs_billed_requests_total{class="write"}'] >= 1, True)
        self.assertEqual("mediafs_cost_dollars_total" in values, Run.store.name == "r2", "only R2 and AWS have list prices")
        for name in ("dirty_files", "dirty_bytes", "oldest_dirty_seconds", "failed_files", "conflicts_total", "degraded", "damaged_blocks_total"):
            self.assertEqual(values[f"mediafs_{name}"], 0, name)
        self.assertEqual(values['mediafs_requests_total{operation="PutObject"}'], 1)
        self.assertGreaterEqual(values["mediafs_cache_bytes"], 10_000)
        self.assertEqual(values["mediafs_cache_limit_bytes"], 10 << 30)
        self.assertEqual(values["mediafs_uploaded_bytes_total"], 10_000)
        self.assertEqual(values['mediafs_request_duration_seconds_count{operation="PutObject"}'], 1)
        self.assertEqual(values['mediafs_request_duration_seconds_bucket{operation="PutObject",le="+Inf"}'], 1)
        self.assertEqual(self.get(port, "/healthz")[0], 200)
        self.refuse(mount, "refused", 403, "AccessDenied")
        write(mount.path / "refused", b"x")
        self.failed(mount)
        self.assertEqual(self.values(port)["mediafs_failed_files"], 1)
        self.gate.shut()
        write(mount.path / "f", b"waits")
        wait_until(lambda: self.get(port, "/healthz")[0] == 503, "health says that the bucket is away", 40)
        values = self.values(port)
        self.assertEqual(values["mediafs_dirty_files"], 2)
        self.assertEqual(values["mediafs_degraded"], 1)
        self.assertLess(abs(values["mediafs_degraded_since_timestamp_seconds"] - time.time()), 60)
        self.assertGreater(values["mediafs_oldest_dirty_seconds"], 0)
        self.gate.open()
        wait_until(lambda: self.get(port, "/healthz")[0] == 200, "well again", 20)

    def test_only_loopback_names_and_only_reading(self):
        port = free_port()
        self.behind_gate("--metrics", f"127.0.0.1:{port}")
        self.assertEqual(self.get(port, "/metrics", host=f"localhost:{port}")[0], 200)
        self.assertEqual(self.get(port, "/metrics", host="evil.example")[0], 421)
        self.assertEqual(self.get(port, "/metrics", method="POST")[0], 405)
        self.assertEqual(self.get(port, "/nothing")[0], 404)
        for path in ("/", "/page.css", "/page.js", "/status.json"):
            self.assertEqual(self.get(port, path)[0], 200)
            self.assertEqual(self.get(port, path, host="evil.example")[0], 421)

    def test_a_port_that_is_taken_is_told_at_once(self):
        mount = self.new_mount("--metrics", str(self.gate.port), start=False).launch()
        self.assertEqual(mount.child.wait(10), 1)
        self.assertRegex(mount.shown_log(1), rf"--metrics 127\.0\.0\.1:{self.gate.port}: .*another")
