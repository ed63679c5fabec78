"""A bucket whose writers mean harm: the keys and the metadata of tests/hostile/table.json, walked, read, copied and removed by
find, rsync, rm and Django's listdir. What can be a path works; the rest is hidden, counted and left alone."""

import base64
import http.client
import json
import os
import pathlib
import stat
import subprocess
import unicodedata
import urllib.parse

from harness.suite import Case, Run

TABLE = json.loads((pathlib.Path(__file__).resolve().parents[1] / "hostile/table.json").read_text())
# A program in the mount has this long: hanging is what the test is about.
PATIENCE_S = 120
# The stores', with the mount's prefix.
KEY_LIMIT_BYTES = 1024


def text(value):
    """A text, or parts of which some are repeated: `["a", ["b", 3]]`."""
    if isinstance(value, str):
        return value
    if len(value) == 2 and isinstance(value[1], int):
        return text(value[0]) * value[1]
    return "".join(map(text, value))


KEYS = [text(value) for value in TABLE["keys"]]
METADATA = [{**entry, "metadata": {name: text(value) for name, value in entry["metadata"].items()}} for entry in TABLE["metadata"]]


def is_name(part):
    return part not in ("", ".", "..") and len(part.encode()) <= 255 and "\0" not in part


def shown(keys):
    """(files, directories, hidden) of keys, by rules of this test's own; hidden as a listing tells of it."""
    files, directories, hidden = set(), set(), set()
    for key in keys:
        parts, path = key.split("/"), ""
        for at, part in enumerate(parts):
            last = at + 1 == len(parts)
            if last and not part and at > 0:
                break
            path += ("/" if at > 0 else "") + part
            if not is_name(part) or at == 0 and not part.strip():
                hidden.add(path + ("" if last else "/"))
                break
            marked = part.removesuffix("_$folder$")
            if last and marked != part and is_name(marked):
                directories.add(path.removesuffix("_$folder$"))
            else:
                (files if last else directories).add(path)
    return files - directories, directories, hidden | files & directories


def run(command, **more):
    return subprocess.run([str(word) for word in command], timeout=PATIENCE_S, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)


def found(top, *tests):
    """Paths below `top` by find(1), which ends with 0."""
    done = run(["find", top, "-mindepth", "1", *tests, "-printf", "%P\\0"])
    assert done.returncode == 0 and not done.stderr, done.stderr
    return {path.decode() for path in done.stdout.split(b"\0") if path}


def header(value):
    """As a header carries it: what isn't plain ASCII in an RFC 2047 word."""
    if all(" " <= c <= "~" for c in value):
        return value
    return f"=?UTF-8?B?{base64.b64encode(value.encode()).decode()}?="


class Bucket(Case):
    limit_s = 600

    def send(self, mount, key, body, **more):
        """PUT under exactly this key, past what clients make of paths. False where the store refuses it."""
        parameters = {"Bucket": mount.bucket, "Key": mount.key(key), **more}
        url = urllib.parse.urlsplit(mount.store.client().generate_presigned_url("put_object", Params=parameters))
        connection = http.client.HTTPConnection("127.0.0.1", mount.store.port, timeout=30)
        headers = {"x-amz-meta-" + name: value for name, value in more.get("Metadata", {}).items()}
        headers |= {name: more[field] for name, field in (("Content-Type", "ContentType"), ("Content-Encoding", "ContentEncoding")) if field in more}
        try:
            connection.request("PUT", f"{url.path}?{url.query}", body=body, headers=headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status == 200
        except (http.client.HTTPException, ValueError, OSError):
            return False
        finally:
            connection.close()

    def filled(self):
        """A mount that hasn't started over what the store takes of the table, and the keys that it took."""
        # A path of 500 levels is asked for level by level once it is older than this.
        mount = self.new_mount("--ttl", "60s", "--timeout", "20s", start=False)
        # MinIO drops a slash in front, so that the key becomes another one.
        tried = [key for key in KEYS if Run.store.name != "minio" or not key.startswith("/")]
        sent = [key for key in tried if self.send(mount, key, f"of {key}".encode())]
        keys = set(mount.keys())
        self.assertTrue(keys <= set(sent), keys - set(sent))
        if Run.store.name == "emulator":
            self.assertEqual({key for key in KEYS if len(mount.key(key).encode()) <= KEY_LIMIT_BYTES} - keys, set())
        self.assertGreater(len(keys), 100)
        return mount, keys

    def good(self, files):
        """Of what is shown, the names that a local disk holds too, to compare copies with: MinIO and the mount agree on the rest."""
        return {path for path in files if len(path.encode()) < 4000}


class Keys(Bucket):
    def check_shown(self, mount, keys):
        files, directories, hidden = shown(keys)
        self.assertEqual(found(mount.path, "-type", "f"), files)
        self.assertEqual(found(mount.path, "-type", "d"), directories)
        self.assertEqual(found(mount.path, "-not", "-type", "f", "-not", "-type", "d"), set())
        self.assertEqual(mount.status()["hidden_keys"], len(hidden))
        return files, directories

    def test_find_shows_every_path_and_status_counts_the_rest(self):
        mount, keys = self.filled()
        mount.start()
        files, _ = self.check_shown(mount, keys)
        for path in sorted(files):
            self.assertEqual((mount.path / path).read_bytes(), f"of {path}".encode(), path)
        table = run([os.environ.get("MEDIAFS") or mount.command()[0], "status", mount.path]).stdout + mount.log.read_bytes()
        control = {byte for byte in table if byte < 32 or byte == 127} - {10}
        self.assertEqual(control, set(), "no escape of a key's reaches a terminal")

    def test_rsync_copies_every_path_and_nothing_else(self):
        mount, keys = self.filled()
        mount.start()
        files, directories, _ = shown(keys)
        copy = mount.folder / "copy"
        done = run(["rsync", "-a", f"{mount.path}/", f"{copy}/"])
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertEqual((found(copy, "-type", "f"), found(copy, "-type", "d")), (files, directories))
        for path in files:
            self.assertEqual((copy / path).read_bytes(), f"of {path}".encode(), path)

    def test_a_copy_within_the_mount_and_back(self):
        mount, keys = self.filled()
        mount.start()
        os.mkdir(mount.path / "copies")
        for top in ("c", "u", "p", "dots", "s", "w"):
            if (mount.path / top).is_dir():
                done = run(["cp", "-a", mount.path / top, mount.path / "copies" / top])
                self.assertEqual((done.returncode, done.stderr), (0, b""), top)
                self.assertEqual(found(mount.path / "copies" / top), found(mount.path / top))
        mount.settle()
        self.assertEqual(mount.status()["failed_files"], 0, mount.status()["failed"])
        mount.stop()
        mount.forget_cache()
        mount.start()
        for path in found(mount.path / "copies", "-type", "f"):
            self.assertEqual((mount.path / "copies" / path).read_bytes(), f"of {path}".encode(), path)

    def test_rm_takes_what_is_shown_and_leaves_what_is_hidden(self):
        mount, keys = self.filled()
        mount.start()
        files, directories, hidden = shown(keys)
        outside = mount.folder / "outside"
        outside.write_bytes(b"not the mount's")
        done = run(["sh", "-c", 'cd "$1" && find . -mindepth 1 -maxdepth 1 -exec rm -rf -- {} +', "sh", mount.path])
        for line in done.stderr.decode(errors="replace").splitlines():
            self.assertRegex(line, "Directory not empty|No such file", "only what hides something stays")
        mount.settle()
        left = set(mount.keys())
        self.assertEqual({key for key in files if key in left}, set())
        never_shown = {key for key in keys if any(key == one or one.endswith("/") and key.startswith(one) for one in hidden)} - directories
        self.assertEqual({key for key in never_shown if key not in left}, set())
        self.assertEqual(outside.read_bytes(), b"not the mount's")

    def test_django_lists_and_opens_every_path(self):
        from django.conf import settings
        from django.core.files.storage import FileSystemStorage

        if not settings.configured:
            settings.configure()
        mount, keys = self.filled()
        mount.start()
        files, directories, _ = shown(keys)
        storage = FileSystemStorage(location=str(mount.path))
        seen_files, seen_directories, ahead = set(), set(), [""]
        while ahead:
            top = ahead.pop()
            inner, names = storage.listdir(top)
            join = lambda name: f"{top}/{name}" if top else name  # noqa: E731
            ahead += map(join, inner)
            seen_directories |= set(map(join, inner))
            seen_files |= set(map(join, names))
        self.assertEqual((seen_files, seen_directories), (files, directories))

    def test_two_spellings_stay_two_files(self):
        mount, keys = self.filled()
        mount.start()
        accents = [path for path in found(mount.path / "u") if unicodedata.normalize("NFC", path) == "caf\u00e9"]
        self.assertEqual(len(accents), len({key for key in keys if unicodedata.normalize("NFC", key) == "u/caf\u00e9"}))


class Metadata(Bucket):
    def test_none_makes_more_than_plain_files_directories_and_links_that_stay(self):
        mount = self.new_mount("--timeout", "20s", start=False)
        taken = []
        for number, entry in enumerate(METADATA):
            more = {"Metadata": {name: header(value) for name, value in entry["metadata"].items()}}
            more |= {"ContentType": entry["content_type"]} if "content_type" in entry else {}
            more |= {"ContentEncoding": entry["content_encoding"]} if "content_encoding" in entry else {}
            if self.send(mount, f"meta/{number}", b"hello", **more):
                taken.append(number)
                self.send(mount, f"dirs/{number}/", b"", **more)
                self.send(mount, f"dirs/{number}/f", b"f")
        self.assertGreater(len(taken), 60)
        mount.start()
        self.assertEqual({int(name) for name in os.listdir(mount.path / "meta")}, set(taken))
        for number in taken:
            with self.subTest(METADATA[number]):
                self.check(mount.path / "meta" / str(number), METADATA[number])
                facts = os.stat(mount.path / "dirs" / str(number))
                self.assertTrue(stat.S_ISDIR(facts.st_mode))
                self.assertEqual((mount.path / "dirs" / str(number) / "f").read_bytes(), b"f")
        done = run(["find", mount.path, "-type", "b", "-o", "-type", "c", "-o", "-type", "p", "-o", "-type", "s", "-o", "-perm", "/6000", "-type", "f"])
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))
        options = next(line for line in pathlib.Path("/proc/self/mounts").read_text().splitlines() if str(mount.path) in line).split()[3]
        self.assertTrue({"nosuid", "nodev"} <= set(options.split(",")), options)

    def check(self, path, entry):
        facts = os.lstat(path)
        self.assertEqual(facts.st_mode & 0o7000 & ~(0o777 if stat.S_ISLNK(facts.st_mode) else 0), 0)
        self.assertEqual(facts.st_rdev, 0)
        self.assertTrue(all(name.startswith("user.") for name in os.listxattr(path, follow_symlinks=False)))
        if stat.S_ISLNK(facts.st_mode):
            try:
                target = os.readlink(path)
            except OSError as error:
                self.assertIn(error.errno, (13, 22))
            else:
                self.assertFalse(target.startswith(("/", "../..")), target)
            return
        self.assertTrue(stat.S_ISREG(facts.st_mode))
        try:
            self.assertEqual(path.read_bytes(), b"hello")
        except OSError as error:
            self.assertTrue(error.errno == 5 and entry.get("unreadable"), error)


class Links(Bucket):
    """Links to the world outside."""

    def planted(self, links):
        mount = self.new_mount("--ttl", "1s", start=False)
        for key, target in links.items():
            self.send(mount, key, target.encode(), Metadata={"mode": "41471"})  # as s3fs writes a link: 0120777 in decimal
        return mount

    def test_none_that_another_writer_put_there_leads_out(self):
        secret = Run.work / "secret"
        secret.mkdir(exist_ok=True)
        (secret / "file").write_text("not for the web")
        up = "../" * 40
        mount = self.planted(
            {
                "absolute": f"{secret}/file",
                "slashes": f"//{secret}/file",
                "climbs": f"{up}{str(secret)[1:]}/file",
                "d1/d2/up": "../..",
                "d1/d2/hop": f"up/{up}{str(secret)[1:]}/file",
                "d1/d2/hop2": f"up/..{secret}/file",
                "d1/here": ".",
                "d1/hop3": f"here/../../..{secret}/file",
                "d1/hop4": "hop5/file",
                "d1/hop5": f"here/../../{up}{str(secret)[1:]}",
                "proc": "/proc/self/cwd",
                "d1/inside": "../plain",
                "d1/d2/inside2": "up/plain",
                "d1/d2/inside3": "up/d1/inside",
            }
        )
        self.send(mount, "plain", b"inside")
        mount.start()
        for link in ("absolute", "slashes", "climbs", "d1/d2/hop", "d1/d2/hop2", "d1/hop3", "d1/hop4", "d1/hop5", "proc"):
            with self.subTest(link):
                self.assertTrue(os.path.islink(mount.path / link))
                with self.assertRaises(PermissionError):
                    os.stat(mount.path / link)
        for link in ("d1/inside", "d1/d2/inside2", "d1/d2/inside3"):
            self.assertEqual((mount.path / link).read_bytes(), b"inside", link)

    def test_what_was_made_here_works_until_somebody_else_writes_it(self):
        mount = self.new_mount("--ttl", "1s")
        outside = mount.folder / "outside"
        outside.write_text("outside")
        os.symlink(outside, mount.path / "link")
        self.assertEqual((mount.path / "link").read_text(), "outside")
        mount.stop()
        mount.start()
        self.assertEqual((mount.path / "link").read_text(), "outside")
        os.rename(mount.path / "link", mount.path / "renamed")
        self.assertEqual((mount.path / "renamed").read_text(), "outside")
        mount.settle()
        self.send(mount, "renamed", b"/etc/passwd", Metadata={"mode": "41471"})
        self.assert_soon_denied(mount.path / "renamed", "outside")
        mount.stop()
        mount.forget_cache()
        mount.start()
        with self.assertRaises(PermissionError):
            (mount.path / "renamed").read_text()

    def assert_soon_denied(self, path, old):
        from harness import wait_until

        def denied():
            try:
                self.assertEqual(path.read_text(), old)
            except PermissionError:
                return True
            return False

        wait_until(denied, "the other writer's link is seen")

    def test_links_that_change_all_the_time_never_show_what_is_outside(self):
        secret = Run.work / "changing-secret"
        secret.write_text("not for the web")
        mount = self.new_mount("--ttl", "1s", start=False)
        self.send(mount, "d/e/plain", b"inside")
        self.send(mount, "plain", b"inside")
        mount.start()
        targets = [b"plain", str(secret).encode(), b"../plain", b"../../../../../../../../.." + str(secret).encode(), b"up/../../../../../../.." + str(secret).encode()]
        allowed = {b"inside"}
        for turn in range(60):
            for key in ("l", "d/l", "d/e/l"):
                if turn % 7 == 6:
                    mount.store.client().delete_object(Bucket=mount.bucket, Key=mount.key(key))
                else:
                    self.send(mount, key, targets[(turn * 3 + len(key)) % len(targets)], Metadata={"mode": "41471"})
                for _ in range(3):
                    try:
                        self.assertIn((mount.path / key).read_bytes(), allowed)
                    except OSError:
                        pass  # missing, denied or stale: anything but the secret

    def test_unsafe_symlinks_says_what_it_opens(self):
        mount = self.planted({"link": "/etc/hostname"})
        mount.options += ["--unsafe-symlinks"]
        mount.start()
        self.assertEqual((mount.path / "link").read_bytes(), pathlib.Path("/etc/hostname").read_bytes())
        self.assertIn("--unsafe-symlinks: whoever writes to the bucket", mount.shown_log(100))
