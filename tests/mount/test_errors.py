"""What a newcomer gets wrong: one line that says what to change, soon, and never a stack trace."""

import http.server
import os
import shutil
import subprocess
import tempfile
import unittest
import threading
import time

from harness import free_port
from harness.mount import binary, mounts_below
from harness.process import Child
from harness.suite import Case, Run

LIMIT_S = 5
NOBODY = 65534
# /dev as a container without FUSE has it.
BARE_DEV = "mount -t tmpfs tmpfs /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9"


class Refused(Case):
    def refusal(self, mount, pattern, command=None, env=None):
        """Starts it, expects a quick end with an error that matches `pattern`."""
        log = Run.folder("refused") / "log"
        began = time.monotonic()
        child = Child(command or mount.command(), log, {**mount.store.env(), **(env or {})}, life_s=30)
        try:
            code = child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
            self.fail(f"still running after 15 s:\n{child.tail()}")
        took, text = time.monotonic() - began, child.tail()
        self.assertNotEqual(code, 0, text)
        self.assertGreater(code, 0, f"ended by a signal: {text}")
        self.assertLess(took, LIMIT_S, text)
        self.assertNotRegex(text, r"panicked|RUST_BACKTRACE|stack backtrace")
        last = text.strip().splitlines()[-1] if text.strip() else ""
        self.assertRegex(last, pattern)
        return text

    def planned(self, *options, **more):
        return self.new_mount(*options, start=False, **more)

    def with_word(self, command, old, new):
        return [new if str(word) == str(old) else word for word in command]

    def test_no_credentials(self):
        env = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "HOME": str(Run.work)}
        self.refusal(self.planned(), r"(?i)credentials", env=env)

    def test_an_unknown_key(self):
        self.refusal(self.planned(), r"(?i)key|credentials", env={"AWS_ACCESS_KEY_ID": "nobody"})

    def test_a_wrong_secret(self):
        self.refusal(self.planned(), r"(?i)secret|credentials", env={"AWS_SECRET_ACCESS_KEY": "wrong"})

    def test_a_bucket_that_does_not_exist(self):
        mount = self.planned()
        command = self.with_word(mount.command(), mount.command()[2], "s3://no-such-bucket")
        self.refusal(mount, r"no-such-bucket", command)

    def test_a_wrong_region(self):
        mount = self.planned()
        command = self.with_word(mount.command(), mount.store.region, "eu-nowhere-7")
        self.refusal(mount, r"(?i)region", command)

    def test_an_endpoint_that_refuses_connections(self):
        mount, port = self.planned(), free_port()
        command = self.with_word(mount.command(), mount.store.endpoint, f"http://127.0.0.1:{port}")
        self.refusal(mount, rf"{port}", command)

    def test_an_endpoint_that_is_not_s3(self):
        class Page(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"<html>hello</html>")

            do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mount = self.planned()
        command = self.with_word(mount.command(), mount.store.endpoint, f"http://127.0.0.1:{server.server_port}")
        self.refusal(mount, r"S3", command)

    def test_a_bucket_that_is_no_url(self):
        mount = self.planned()
        self.refusal(mount, r"s3://", self.with_word(mount.command(), mount.command()[2], "my-bucket"))

    def test_a_mount_point_that_is_missing(self):
        mount = self.planned()
        mount.path.rmdir()
        self.refusal(mount, r"(?i)mkdir|not exist|no such|missing")

    def test_a_mount_point_that_is_a_file(self):
        mount = self.planned()
        mount.path.rmdir()
        mount.path.write_text("")
        self.addCleanup(mount.path.unlink)
        self.refusal(mount, r"(?i)directory")

    def test_a_mount_point_that_is_not_empty(self):
        mount = self.planned()
        (mount.path / "precious").write_text("x")
        self.refusal(mount, r"(?i)not empty")
        self.assertEqual(os.listdir(mount.path), ["precious"])

    def test_a_mount_point_that_is_already_mounted(self):
        first = self.new_mount()
        second = self.planned(place=self.place_of(first), folder=first.folder, cache=Run.folder("cache"))
        self.refusal(second, r"(?i)already mounted|mounted already")
        self.assertEqual(mounts_below(first.path), [str(first.path)])
        os.listdir(first.path)

    def test_a_cache_directory_in_use(self):
        first = self.new_mount()
        second = self.planned(place=self.place_of(first), cache=first.cache)
        self.refusal(second, r"(?i)cache.*(lock|use)|(lock|use).*cache")

    def test_a_cache_directory_of_another_bucket(self):
        first = self.new_mount()
        self.assertEqual(first.stop(), 0)
        second = self.planned(cache=first.cache)
        self.refusal(second, r"(?i)cache.*(bucket|belong|prefix)|(bucket|belong|prefix).*cache")

    def test_a_cache_directory_that_cannot_be_made(self):
        mount = self.planned()
        blocker = Run.folder("blocker") / "file"
        blocker.write_text("")
        mount.cache = blocker / "cache"
        self.refusal(mount, r"(?i)cache|" + str(blocker))

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("unshare"), "needs root and unshare")
    def test_no_fuse_device(self):
        mount = self.planned()
        command = ["unshare", "--mount", "sh", "-c", f'{BARE_DEV} && exec "$@"', "sh", *mount.command()]
        self.refusal(mount, r"/dev/fuse.*modprobe", command)

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("setpriv"), "needs root and setpriv")
    def test_no_right_to_mount(self):
        mount = self.planned()
        command = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", *mount.command()]
        self.refusal(mount, r"CAP_SYS_ADMIN", command)

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("setpriv"), "needs root and setpriv")
    def test_an_ordinary_user_without_fusermount(self):
        mount, home = self.planned(), tempfile.mkdtemp(prefix="mediafs-nobody-")
        self.addCleanup(shutil.rmtree, home)
        program = shutil.copy(binary(), home)
        os.mkdir(f"{home}/mnt")
        for path in (home, f"{home}/mnt"):
            os.chown(path, NOBODY, NOBODY)
        command = [program, *mount.command()[1:]]
        command = self.with_word(self.with_word(command, mount.path, f"{home}/mnt"), mount.cache, f"{home}/cache")
        command = [shutil.which("setpriv"), f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]
        self.refusal(mount, r"fusermount3.*fuse3", command, env={"PATH": "/nonexistent"})

    def test_options_that_make_no_sense(self):
        for option in (["--cache-size", "lots"], ["--ttl", "soon"], ["--write-mode", "sideways"], ["--umask", "999"], ["--no-such-option"]):
            with self.subTest(option=option):
                mount = self.planned()
                self.refusal(mount, r".", [*mount.command(), *option])
