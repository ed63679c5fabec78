"""A run with marked secrets, loud as it can be: where they are looked for, and where none may be."""

import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess

from harness import Emulator, binary
from harness.suite import Case, Run

# Marks of their own: nothing else says this.
KEY, TOKEN = "SeCrEtKeY0123456789mark", "SeSsIoNtOkEn9876543210mark"


def occurrences(text, *secrets):
    return [secret for secret in secrets if secret.encode() in text]


class Marked(Case):
    limit_s = 240

    def new(self, *options, **more):
        """A mount whose store knows the marked secret, with everything logged."""
        store = Emulator(Run.folder("store"), controlled=True, secret_key=KEY)
        store.start()
        self.addCleanup(store.stop)
        env = {"AWS_SESSION_TOKEN": TOKEN, "R2_SECRET_ACCESS_KEY": KEY}
        return self.new_mount("--log-level", "trace", "--timeout", "5s", *options, store=store, place=(store.bucket, "p"), env=env, **more)

    def clean(self, what, data):
        self.assertEqual(occurrences(data, KEY, TOKEN), [], what)

    def use(self, mount):
        """Saves, reads, fails and links; what the program prints is returned."""
        path = mount.path
        (path / "plain").write_bytes(b"plain")
        (path / "large").write_bytes(bytes(20 << 20))
        os.symlink("plain", path / "link")
        os.setxattr(path / "plain", "user.comment", b"x")
        mount.settle()
        printed = subprocess.run([binary(), "status", path], check=True, stdout=subprocess.PIPE).stdout
        printed += subprocess.run([binary(), "status", "--json", path], check=True, stdout=subprocess.PIPE).stdout
        for code, status in (("SignatureDoesNotMatch", 403), ("ExpiredToken", 400), ("InternalError", 500), ("SlowDown", 503)):
            mount.store.add_fault(fault="status", status=status, code=code, operation="GetObject", times=1)
            try:
                os.listdir(path)
                (path / "missing").read_bytes()
            except OSError:
                pass
        mount.store.add_fault(fault="status", status=403, code="AccessDenied", operation="PutObject", key="p/denied")
        (path / "denied").write_bytes(b"x")
        printed += subprocess.run([binary(), "status", path], check=True, stdout=subprocess.PIPE).stdout
        mount.store.clear_faults()
        return printed

    def test_they_are_nowhere_to_be_read(self):
        for form in ("text", "json"):
            with self.subTest(form):
                mount = self.new("--log-format", form, "--metrics", "127.0.0.1:0")
                printed = self.use(mount)
                process = pathlib.Path(f"/proc/{mount.child.pid}")
                link = os.getxattr(mount.path / "plain", "user.mediafs.url").decode()
                url = subprocess.run([binary(), "url", mount.path / "plain"], check=True, stdout=subprocess.PIPE).stdout.decode()
                self.assertIn("X-Amz-Signature=", link + url)
                self.clean("status", printed)
                self.clean("the command line", (process / "cmdline").read_bytes())
                environment = (process / "environ").read_bytes()
                self.assertIn(b"AWS_ACCESS_KEY_ID=", environment)
                self.clean("the environment in /proc", environment)
                self.assertEqual(mount.stop(), 0)
                log = mount.log.read_bytes()
                self.assertGreater(len(log), 1000)
                self.clean("the log", log)
                for signed in (link, url):
                    signature = re.search("X-Amz-Signature=([0-9a-f]+)", signed)[1]
                    self.assertNotIn(signature.encode(), log)
                for folder, _, files in os.walk(mount.cache):
                    for name in files:
                        file = pathlib.Path(folder, name)
                        self.clean(file, file.read_bytes())
                        self.assertEqual(file.stat().st_mode & 0o077, 0, file)
                    self.assertEqual(os.stat(folder).st_mode & 0o077, 0, folder)

    def test_no_core_is_dumped(self):
        folder = Run.folder("core")
        mount = self.new(wrapper=["sh", "-c", f'ulimit -c unlimited; cd "{folder}" && exec "$@"', "sh"])
        self.use(mount)
        limits = pathlib.Path(f"/proc/{mount.child.pid}/limits").read_text()
        self.assertRegex(limits, r"Max core file size +0 ")
        mount.child.signal(signal.SIGABRT)
        mount.child.wait(20)
        self.assertEqual(os.WCOREDUMP(-mount.child.process.returncode & 0xFF), False)
        self.assertEqual(list(folder.iterdir()), [])
        self.assertNotEqual(resource.getrlimit(resource.RLIMIT_CORE), None)

    def test_the_programs_that_it_runs_get_none(self):
        if os.geteuid() != 0 or not shutil.which("setpriv"):
            self.skipTest("takes root and setpriv")
        folder = Run.folder("child")
        fake, said = folder / "fusermount3", folder / "said"
        fake.write_text(f"#!/bin/sh\n/usr/bin/env > {said}\nexit 1\n")
        fake.chmod(0o755)
        Run.open_to_others(folder)
        folder.chmod(0o777)
        (folder / "mnt").mkdir()
        for owned in (folder / "mnt",):
            os.chown(owned, 65534, 65534)
        program = folder / "mediafs"
        shutil.copy(binary(), program)
        env = {"PATH": f"{folder}:/usr/bin:/bin", "AWS_ACCESS_KEY_ID": "mediafs", "AWS_SECRET_ACCESS_KEY": KEY, "AWS_SESSION_TOKEN": TOKEN}
        store = Emulator(Run.folder("store"), secret_key=KEY)
        store.start()
        self.addCleanup(store.stop)
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program, "mount", f"s3://{store.bucket}", folder / "mnt"]
        command += ["--endpoint-url", store.endpoint, "--cache-dir", "/tmp/mediafs-secrets-" + folder.name, "--region", "us-east-1"]
        done = subprocess.run(list(map(str, command)), env=env, timeout=60, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        shutil.rmtree("/tmp/mediafs-secrets-" + folder.name, ignore_errors=True)
        self.assertTrue(said.exists(), done.stdout)
        self.assertIn(b"_FUSE_COMMFD", said.read_bytes())
        self.clean("fusermount3's environment", said.read_bytes())

    def test_files_with_keys_that_everybody_reads_are_warned_of(self):
        credentials = Run.folder("aws") / "credentials"
        credentials.write_text(f"[default]\naws_access_key_id = mediafs\naws_secret_access_key = {KEY}\n")
        credentials.chmod(0o644)
        mount = self.new(start=False)
        mount.extra_env["AWS_SHARED_CREDENTIALS_FILE"] = str(credentials)
        mount.start()
        self.assertIn(f"{credentials} holds credentials and everybody", mount.shown_log(10_000))
        self.clean("the log", mount.log.read_bytes())


class Directory(Case):
    def refused(self, cache, part):
        mount = self.new_mount(start=False, cache=cache)
        mount.launch()
        self.assertEqual(mount.child.wait(30), 1)
        self.assertIn(part, mount.shown_log(10))
        mount.close()

    def test_a_cache_directory_of_others_is_refused(self):
        folder = Run.folder("caches")
        shared = folder / "shared"
        shared.mkdir()
        (shared / "x").write_bytes(b"")
        shared.chmod(0o777)
        self.refused(shared, "others may write into")
        if os.geteuid() == 0:
            theirs = folder / "theirs"
            theirs.mkdir()
            os.chown(theirs, 65534, 65534)
            self.refused(theirs, "belongs to user 65534")

    def test_a_planted_link_is_not_followed(self):
        folder = Run.folder("planted")
        victim = folder / "victim"
        victim.write_text("precious")
        for name in ("lock", "journal.sqlite", "attributes.sqlite", "reached"):
            cache = folder / name
            cache.mkdir(mode=0o700)
            os.symlink(victim, cache / name)
            mount = self.new_mount(start=False, cache=cache)
            mount.launch()
            try:
                mount.child.wait(10)
            except subprocess.TimeoutExpired:
                mount.stop()
            mount.close()
            self.assertEqual(victim.read_text(), "precious", name)


class Report(Case):
    def test_status_is_json_without_the_endpoint_s_secrets(self):
        mount = self.new_mount()
        report = json.dumps(mount.status())
        for word in ("secret", "token", "password", mount.store.env()["AWS_SECRET_ACCESS_KEY"]):
            self.assertNotIn(word, report.replace(str(mount.cache), "").replace(str(mount.path), ""))
