"""nginx with sendfile(2) serves a file that is being replaced: a reply is one version, whole."""

import concurrent.futures
import http.client
import os
import pathlib
import shutil
import threading

from harness import free_port, wait_until
from harness.process import Child
from bench import Bench, found, run

# Written for a process in the foreground that touches nothing outside its folder.
CONFIG = """
daemon off; master_process off; {user}
pid {work}/pid; error_log {work}/error.log info;
events {{ worker_connections 64; }}
http {{
  access_log off; sendfile on; sendfile_max_chunk 256k; tcp_nopush on; keepalive_timeout 30s;
  client_body_temp_path {work}/t1; proxy_temp_path {work}/t2; fastcgi_temp_path {work}/t3;
  uwsgi_temp_path {work}/t4; scgi_temp_path {work}/t5;
  server {{ listen 127.0.0.1:{port}; location / {{ root {root}; autoindex on; }} }}
}}
"""

READERS = 3
REPLACEMENTS = 40


def program():
    # Where scripts/test unpacks it, so that no service of it starts on this machine.
    unpacked = pathlib.Path(os.environ.get("MEDIAFS_TEST_NGINX", "/nonexistent"))
    return found("nginx") or shutil.which(unpacked)


def version(number):
    """One byte over and over, and as many of them as no other version has."""
    return bytes([number]) * (2_000_000 + number * 10_007)


class Nginx(Bench):
    def setUp(self):
        super().setUp()
        if not program():
            self.skipTest("not installed: nginx")
        self.port = free_port()
        self.mount = self.new_mount()

    def serve(self):
        work = self.local / "nginx"
        work.mkdir(exist_ok=True)
        user = "user root;" if os.geteuid() == 0 else ""
        (work / "conf").write_text(CONFIG.format(work=work, port=self.port, root=self.mount.path, user=user))
        self.server = Child([program(), "-p", work, "-e", work / "error.log", "-c", work / "conf"], work / "log", life_s=100)
        self.addCleanup(self.server.stop)
        wait_until(self.answers, "nginx answers", 20)

    def answers(self):
        self.assertTrue(self.server.running(), (self.local / "nginx/log").read_text())
        try:
            return self.get("/")[0] == 200
        except ConnectionRefusedError:
            return False

    def get(self, path, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            # A body that is shorter than it was said to be is an IncompleteRead.
            return answer.status, answer.read()
        finally:
            connection.close()

    def while_replaced(self, replace, check):
        """Readers fetch the file all the time that it is replaced, each reply is checked; returns how many there were."""
        over = threading.Event()

        def read():
            replies = 0
            while not over.is_set():
                check()
                replies += 1
            return replies

        with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
            readers = [pool.submit(read) for _ in range(READERS)]
            try:
                for number in range(1, REPLACEMENTS + 1):
                    replace(number)
            finally:
                over.set()
            return sum(reader.result() for reader in readers)

    def by_rename(self, number):
        (self.mount.path / ".new").write_bytes(version(number))
        os.replace(self.mount.path / ".new", self.mount.path / "film.mp4")

    def whole(self):
        status, body = self.get("/film.mp4")
        self.assertEqual(status, 200, (self.local / "nginx/error.log").read_text())
        self.assertTrue(body == version(body[0]), f"{len(body)} bytes of the versions {sorted(set(body))}")
        return body[0]

    def told_of_nothing(self):
        log = (self.local / "nginx/error.log").read_text()
        told = [line for line in log.splitlines() if any(level in line for level in ("[error]", "[crit]", "[alert]"))]
        self.assertEqual(told, [])

    def test_replaced_by_rename(self):
        self.by_rename(0)
        self.serve()
        self.assertGreater(self.while_replaced(self.by_rename, self.whole), REPLACEMENTS / 4)
        self.assertEqual(self.whole(), REPLACEMENTS)
        self.told_of_nothing()
        self.mount.settle()
        self.assertTrue(self.mount.object("film.mp4") == version(REPLACEMENTS))

    def test_replaced_by_rename_from_an_empty_cache(self):
        """The first version comes from the bucket while it is replaced."""
        self.by_rename(0)
        self.cold(self.mount)
        self.serve()
        self.assertEqual(self.whole(), 0)
        self.cold_again()
        self.while_replaced(self.by_rename, self.whole)
        self.assertEqual(self.whole(), REPLACEMENTS)
        self.told_of_nothing()

    def cold_again(self):
        self.server.stop()
        self.cold(self.mount)
        self.serve()

    def test_rewritten_in_place(self):
        """As on a disk, a reply may have bytes of both; it has no others, and in the end it is the last version."""
        length = len(version(0))
        (self.mount.path / "film.mp4").write_bytes(version(0))
        self.serve()
        written = [0]

        def rewrite(number):
            written.append(number)
            run("dd", f"of={self.mount.path}/film.mp4", "bs=64k", "conv=notrunc", "status=none", stdin=bytes([number]) * length)

        def check():
            status, body = self.get("/film.mp4")
            self.assertEqual((status, len(body)), (200, length))
            self.assertLessEqual(set(body), set(written))

        self.while_replaced(rewrite, check)
        self.mount.settle()
        for _ in range(2):
            self.assertTrue(self.get("/film.mp4")[1] == bytes([REPLACEMENTS]) * length)
            self.cold_again()

    def test_truncated_and_written_anew(self):
        """A reply that was begun may be cut short, as on a disk; nginx and the mount go on."""
        (self.mount.path / "film.mp4").write_bytes(version(0))
        self.serve()
        written = {0}

        def rewrite(number):
            written.add(number)
            (self.mount.path / "film.mp4").write_bytes(version(number))

        def check():
            try:
                status, body = self.get("/film.mp4")
            except (http.client.IncompleteRead, ConnectionError) as cut:
                status, body = 200, getattr(cut, "partial", b"")
            self.assertEqual(status, 200)
            self.assertLessEqual(set(body), written)

        self.while_replaced(rewrite, check)
        self.assertEqual(self.whole(), REPLACEMENTS)
        self.cold_again()
        self.assertEqual(self.whole(), REPLACEMENTS)

    def test_ranges_and_a_listing_from_an_empty_cache(self):
        body = os.urandom(5_000_000)
        (self.mount.path / "film.mp4").write_bytes(body)
        (self.mount.path / "näme with space.txt").write_bytes(b"text")
        self.cold(self.mount)
        self.serve()
        for first, last in [(4_999_000, 4_999_999), (0, 0), (1_000_001, 3_000_000)]:
            status, part = self.get("/film.mp4", Range=f"bytes={first}-{last}")
            self.assertTrue((status, part) == (206, body[first : last + 1]), f"{first}-{last}: {status}, {len(part)} bytes")
        self.assertEqual(self.get("/n%C3%A4me%20with%20space.txt"), (200, b"text"))
        self.assertIn(b"film.mp4", self.get("/")[1])
        self.assertEqual(self.get("/missing.txt")[0], 404)
