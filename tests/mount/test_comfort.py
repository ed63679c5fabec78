"""What people who run mounts use day by day: warm, status --watch, ls-conflicts and resolve, SIGHUP, the service manager."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import threading
import time

from harness import wait_until
from harness.mount import binary
from harness.suite import Case, Run
from posix_calls import pattern, write


def mediafs(*words, code=0, **more):
    """(standard output, standard error) of a command that has to end with `code`."""
    done = subprocess.run([binary(), *map(str, words)], capture_output=True, text=True, timeout=60, check=False, **more)
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout, done.stderr


class Warm(Case):
    def test_what_was_warmed_is_read_without_the_bucket(self):
        mount = self.new_mount("--ttl", "1h")
        files = {f"d/{number % 3}/f{number}": pattern(number, 30_000 * number) for number in range(1, 21)}
        for name, data in files.items():
            mount.put(name, data)
        os.symlink("/etc/passwd", mount.path / "link")
        _, said = mediafs("warm", mount.path, "--jobs", 4)
        self.assertRegex(said, r"^20 of 20 files, 6\.0 MiB at \S+ \wiB/s: in the cache\n$")
        before = mount.own_requests()["GetObject"]
        for name, data in files.items():
            self.assertEqual((mount.path / name).read_bytes(), data)
        self.assertEqual(mount.own_requests()["GetObject"], before)

    def test_what_cant_be_read_is_named_and_the_rest_is_warm(self):
        mount = self.new_mount()
        write(mount.path / "here", b"x")
        _, said = mediafs("warm", mount.path / "here", mount.path / "missing", code=1)
        self.assertIn("missing", said)
        _, said = mediafs("warm", mount.path / "here", "/etc", code=1)
        self.assertIn("not on a mediafs mount", said)

    def test_more_than_the_cache_holds_is_said(self):
        mount = self.new_mount("--cache-size", "4MiB")
        for number in range(3):
            mount.put(f"f{number}", pattern(number, 2 << 20))
        _, said = mediafs("warm", mount.path)
        self.assertRegex(said, r"these are 6\.0 MiB, and the cache holds 4\.0 MiB \(--cache-size\)")

    def test_a_terminal_gets_a_bar(self):
        mount = self.new_mount()
        mount.put("f", pattern(1, 20_000_000))
        self.assertRegex(on_terminal("warm", mount.path), r"█ 19\.1 MiB of 19\.1 MiB \(100 %\)[\s\S]*1 of 1 files, 19\.1 MiB at")


def on_terminal(*words, end=None, seconds=30):
    """All that a command writes to a terminal; `end` sees it grow and returns true when the command shall end."""
    master, slave = pty.openpty()
    process = subprocess.Popen([binary(), *map(str, words)], stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    shown, limit = b"", time.monotonic() + seconds
    try:
        while time.monotonic() < limit:
            try:
                block = os.read(master, 1 << 16)
            except OSError:  # the other side is closed
                break
            shown += block
            if end and end(shown.decode(errors="replace")):
                process.send_signal(signal.SIGINT)
                end = None
        assert process.wait(10) == 0, shown
    finally:
        process.kill()
        os.close(master)
    return shown.decode(errors="replace")


class Watch(Case):
    def test_the_live_screen_follows_and_gives_the_terminal_back(self):
        mount = self.new_mount()
        seen = []

        def end(shown):
            if not seen and "nothing: all is in the bucket" in shown:
                seen.append(threading.Thread(target=write, args=(mount.path / "f", b"x" * 100_000)))
                seen[0].start()
            return re.search(r"PutObject 1\b", shown)

        shown = on_terminal("status", mount.path, "--watch", "--interval", "200ms", end=end)
        seen[0].join()
        self.assertTrue(shown.startswith("\x1b[?25l\x1b[?1049h"), shown[:40])
        self.assertTrue(shown.endswith("\x1b[?1049l\x1b[?25h"), shown[-40:])
        self.assertRegex(shown, r"up +\d")

    def test_where_nobody_looks_it_is_a_line_each_time(self):
        mount = self.new_mount()
        process = subprocess.Popen([binary(), "status", mount.path, "--watch", "--interval", "100ms"], stdout=subprocess.PIPE, text=True)
        try:
            lines = [process.stdout.readline() for _ in range(3)]
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
        self.assertEqual(process.returncode, 0)
        for line in lines:
            self.assertRegex(line, r"^20\S+Z all is in the bucket; .* up, .* down, \d+ requests/s\n$")


class Conflicts(Case):
    def both_change(self, policy):
        one = self.new_mount("--on-conflict", policy, "--ttl", "1h", write_mode="back")
        other = self.new_mount("--on-conflict", policy, "--ttl", "1h", place=self.place_of(one), write_mode="back")
        os.mkdir(one.path / "d")
        write(one.path / "d/f.txt", b"base ")
        one.settle()
        self.assertEqual((other.path / "d/f.txt").read_bytes(), b"base ")
        for mount, data in ((one, b"one"), (other, b"other")):
            write(mount.path / "d/f.txt", data, os.O_WRONLY | os.O_APPEND)
            if mount is one:
                one.settle()
        return one, other

    def listed(self, mount):
        said, _ = mediafs("ls-conflicts", mount.path, "--json")
        return [json.loads(line) for line in said.splitlines()]

    def test_copies_are_listed_and_resolved(self):
        for keep, expected in [("copy", [b"base other"]), ("name", [b"base one"]), ("both", [b"base one", b"base other"])]:
            with self.subTest(keep=keep):
                _, other = self.both_change("keep-both")
                other.settle()
                found = wait_until(lambda: self.listed(other), "the conflict is listed")
                self.assertEqual([(one["kind"], one["name"]) for one in found], [("copy", str(other.path / "d/f.txt"))])
                self.assertIn("beside", mediafs("ls-conflicts", other.path)[0])
                wait_until(lambda: (other.path / "d/f.txt").exists(), "theirs shows under the name")
                mediafs("resolve", found[0]["path"], "--keep", keep)
                other.settle()
                self.assertEqual(sorted(other.object(key) for key in other.files()), expected)
                self.assertEqual(self.listed(other), [])

    def test_what_is_held_is_listed_and_resolved(self):
        for keep, expected in [("copy", [b"base other"]), ("name", [b"base one"]), ("both", [b"base one", b"base other"])]:
            with self.subTest(keep=keep):
                _, other = self.both_change("hold")
                found = wait_until(lambda: self.listed(other), "the conflict is listed")
                self.assertEqual(found, [{"kind": "held", "path": str(other.path / "d/f.txt"), "name": str(other.path / "d/f.txt")}])
                mediafs("resolve", found[0]["path"], "--keep", keep)
                other.settle()
                self.assertEqual(sorted(other.object(key) for key in other.files()), expected)
                self.assertEqual((other.path / "d/f.txt").read_bytes(), expected[0])
                self.assertEqual((self.listed(other), other.status()["failed_files"]), ([], 0))
                # A crash brings nothing of what was given up back.
                other.kill()
                other.start()
                other.settle()
                self.assertEqual((other.path / "d/f.txt").read_bytes(), expected[0])

    def test_what_is_no_conflict_is_left_alone(self):
        mount = self.new_mount()
        write(mount.path / "f", b"x")
        _, said = mediafs("resolve", mount.path / "f", "--keep", "name", code=1)
        self.assertIn("is no conflict", said)
        with self.assertRaises(OSError):
            os.setxattr(mount.path / "f", "user.mediafs.resolve", b"name")
        self.assertEqual((mount.path / "f").read_bytes(), b"x")


class Hangup(Case):
    def hangup(self, mount, said):
        mount.child.signal(signal.SIGHUP)
        wait_until(lambda: re.search(said, mount.shown_log()), f"the log says {said}", 20)

    def test_rules_times_and_level_are_read_again_and_the_rest_is_named(self):
        file = Run.folder("config") / "m.toml"
        file.write_text('log-level = "info"\nttl = "1h"\n')
        log = file.parent / "log"
        mount = self.new_mount("--config", str(file), "--log-file", str(log))
        write(mount.path / "before.css", b"x")
        mount.settle()
        self.assertNotIn("CacheControl", mount.head("before.css"))
        file.write_text('log-level = "debug"\nttl = "1s"\ncache-size = "5GiB"\n[cache-control]\n"*.css" = "no-store"\n')
        log.rename(file.parent / "log.1")
        mount.child.signal(signal.SIGHUP)
        wait_until(lambda: log.exists() and "credentials were read again" in log.read_text(), "a new log file", 20)
        text = log.read_text()
        self.assertRegex(text, r"from now on holds what was changed of ttl, the headers by path")
        self.assertRegex(text, r"WARN.*cache-size can't change while mounted")
        write(mount.path / "after.css", b"x")
        mount.settle()
        self.assertEqual(mount.head("after.css")["CacheControl"], "no-store")
        self.assertIn("DEBUG", log.read_text())
        self.assertEqual((mount.path / "before.css").read_bytes(), b"x")
        file.write_text("tll = 3\n")
        mount.child.signal(signal.SIGHUP)
        wait_until(lambda: "everything stays as it was" in log.read_text(), "the mistake is told", 20)
        self.assertIn("did you mean ttl?", log.read_text())
        self.assertEqual(mount.stop(), 0)

    def test_credentials_are_read_again(self):
        file = Run.folder("keys") / "credentials"

        def keys(key, secret):
            file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")

        keys(Run.store.access_key, Run.store.secret_key)
        env = {"AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
        mount = self.new_mount("--timeout", "5s", env=env, write_mode="back")
        keys(Run.store.access_key, "wrong")
        self.hangup(mount, "credentials were read again, from the files")
        with self.assertRaises(PermissionError):
            os.listdir(mount.path)
        keys(Run.store.access_key, Run.store.secret_key)
        mount.child.signal(signal.SIGHUP)
        wait_until(lambda: mount.shown_log().count("credentials were read again") == 2, "the right one is back", 20)
        write(mount.path / "f", b"x")
        mount.flush()
        self.assertEqual(mount.object("f"), b"x")

    def test_a_file_of_keys_goes_before_the_environment(self):
        file = Run.folder("keys") / "credentials"
        file.write_text(f"[site]\naws_access_key_id = {Run.store.access_key}\naws_secret_access_key = {Run.store.secret_key}\n")
        wrong = {"AWS_ACCESS_KEY_ID": "wrong", "AWS_SECRET_ACCESS_KEY": "wrong"}
        mount = self.new_mount("--credentials-file", str(file), "--profile", "site", env=wrong)
        write(mount.path / "f", b"x")
        mount.flush()
        self.hangup(mount, f"credentials were read again, from {file}, profile \\\\?\"site")
        for options in (["--credentials-file", str(file)], ["--credentials-file", "/nonexistent"], ["--profile", "nobody"]):
            mount = self.new_mount(*options, env=wrong, start=False).launch()
            self.assertEqual(mount.child.wait(20), 1)
            self.assertRegex(mount.shown_log(1), "no credentials|wrong credentials set-up", options)


class Log(Case):
    def test_each_request_says_for_which_call_or_upload_it_was_made(self):
        mount = self.new_mount("--log-level", "debug", start=False)
        mount.put("theirs", pattern(1, 300_000))
        mount.start()
        self.assertEqual((mount.path / "theirs").read_bytes(), pattern(1, 300_000))
        write(mount.path / "ours", b"x")
        mount.settle()
        self.assertEqual(mount.stop(), 0)
        text = mount.shown_log(10_000)
        for said in (
            r'call{operation="lookup" ino=1 name="\\"theirs\\""}: \S*\s*request operation="HeadObject" key=\S*theirs millis=',
            r'call{operation="read" [^}]*}: .*request operation="GetObject" key=\S*theirs millis=',
            r'call{operation="lookup" ino=1 name="\\"theirs\\""}: .*close time.busy=\S+ time.idle=\S+',
            r'send{key=\S*ours flight=\d+}: .*request operation="PutObject" key=\S*ours millis=',
        ):
            self.assertRegex(text, said)


class Service(Case):
    def test_the_service_manager_hears_of_everything(self):
        path = Run.folder("notify") / "socket"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(path))
            manager.settimeout(30)
            mount = self.new_mount(env={"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "600000"})
            heard = []

            def until(word):
                while not any(line.startswith(word) for line in heard):
                    heard.append(manager.recv(4096).decode())

            until("READY=1")
            until("WATCHDOG=1")
            write(mount.path / "f", b"x")
            until("STATUS=")
            heard.clear()
            mount.child.signal(signal.SIGHUP)
            until("RELOADING=1")
            until("READY=1")
            # Stopped, it says nothing any more, and would be killed.
            heard.clear()
            mount.child.signal(signal.SIGTERM)
            until("STOPPING=1")
            self.assertEqual(mount.child.wait(60), 0)
