"""Many hosts on one bucket: names that two want, conflicts that destroy nothing, versions that are never mixed, directories
that one host moves or removes while the other writes into them."""

import errno
import os
import re
import threading

import django.conf
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage

from harness import wait_until
from harness.suite import Case
from posix_calls import pattern, refused, write

if not django.conf.settings.configured:
    django.conf.settings.configure(USE_TZ=True)

EXCLUSIVE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
KEPT = r"\.conflict-[A-Za-z0-9-]+-\d{8}T\d{6}(-\d+)?"


def tries(call):
    """What the call says, or the errno with which it fails."""
    try:
        return call()
    except OSError as error:
        return error.errno


def listed(path):
    """The names in a directory; none where there is no such directory now."""
    try:
        return sorted(os.listdir(path))
    except FileNotFoundError:
        return []


class Hosts(Case):
    def hosts(self, *options, count=2, **more):
        first = self.new_mount(*options, **more)
        return first, *(self.new_mount(*options, place=self.place_of(first), **more) for _ in range(count - 1))

    def stored(self, mount, below=""):
        return {key: mount.object(key) for key in mount.files(below)}


class Names(Hosts):
    def test_eexist_comes_with_close(self):
        hosts = self.hosts(write_mode="through", count=3)
        files = [os.open(host.path / "f", EXCLUSIVE) for host in hosts]
        for number, file in enumerate(files):
            os.write(file, f"of host {number}".encode())
        answers = [tries(lambda file=file: os.close(file)) for file in files]
        self.assertEqual(answers, [None, errno.EEXIST, errno.EEXIST])
        self.assertEqual(self.stored(hosts[0]), {"f": b"of host 0"})
        self.assertEqual([(host.path / "f").read_bytes() for host in hosts], [b"of host 0"] * 3)

    def test_django_on_three_hosts_saves_each_under_its_own_name(self):
        hosts = self.hosts(write_mode="through", count=3)
        saved, together = {}, threading.Barrier(len(hosts))

        def save(number, host):
            storage = FileSystemStorage(location=host.path)
            for turn in range(5):
                together.wait(60)
                data = pattern(f"{number} {turn}", 20_000)
                saved[storage.save(f"photo{turn}.jpg", ContentFile(data))] = data

        threads = [threading.Thread(target=save, args=pair) for pair in enumerate(hosts)]
        [thread.start() for thread in threads]
        [thread.join(100) for thread in threads]
        self.assertEqual(len(saved), 15)
        self.assertEqual(self.stored(hosts[0]), saved)


class Conflicts(Hosts):
    def both_change(self, policy, base=b"base "):
        """Both append to one version, the second host's upload comes later; (first, second)."""
        one, other = self.hosts("--on-conflict", policy, "--ttl", "1h", write_mode="back")
        write(one.path / "f.txt", base)
        one.settle()
        self.assertEqual((other.path / "f.txt").read_bytes(), base)
        write(one.path / "f.txt", b"one", os.O_WRONLY | os.O_APPEND)
        one.settle()
        write(other.path / "f.txt", b"other", os.O_WRONLY | os.O_APPEND)
        return one, other

    def test_keep_both(self):
        one, other = self.both_change("keep-both")
        other.settle()
        stored = self.stored(one)
        self.assertEqual(stored.pop("f.txt"), b"base one")
        (name, data), = stored.items()
        self.assertRegex(name, rf"^f{KEPT}\.txt$")
        self.assertEqual(data, b"base other")
        self.assertEqual(other.status()["conflicts"], 1)
        self.assertIn(name, other.shown_log())
        wait_until(lambda: (other.path / "f.txt").read_bytes() == b"base one", "theirs shows under the name")
        self.assertEqual((other.path / name).read_bytes(), b"base other")

    def test_overwrite(self):
        one, other = self.both_change("overwrite")
        other.settle()
        self.assertEqual(self.stored(one), {"f.txt": b"base other"})

    def test_hold_keeps_ours_here_and_says_so(self):
        one, other = self.both_change("hold")
        failed = wait_until(lambda: other.status()["failed"], "the conflict is held")
        self.assertEqual([file["path"] for file in failed], ["f.txt"])
        self.assertEqual(other.status()["conflicts"], 1)
        self.assertEqual(os.getxattr(other.path / "f.txt", "user.mediafs.state"), b"failed")
        self.assertEqual((other.path / "f.txt").read_bytes(), b"base other")
        self.assertEqual(self.stored(one), {"f.txt": b"base one"})
        with refused(errno.ESTALE), open(other.path / "f.txt", "r+b", buffering=0) as file:
            os.fsync(file.fileno())
        other.kill()
        other.start()
        wait_until(lambda: other.status()["failed"], "it is held after a crash, too")
        self.assertEqual((other.path / "f.txt").read_bytes(), b"base other")
        # A whole replacement means to replace whatever is there.
        write(other.path / "f.txt", b"settled")
        other.settle()
        self.assertEqual(self.stored(one), {"f.txt": b"settled"})

    def test_one_name_made_on_three_hosts(self):
        hosts = self.hosts(write_mode="back", count=3)
        files = [os.open(host.path / "new", EXCLUSIVE) for host in hosts]
        for number, (host, file) in enumerate(zip(hosts, files)):
            os.write(file, f"of host {number}".encode())
            os.close(file)
            host.settle()
        stored = self.stored(hosts[0])
        self.assertEqual(stored["new"], b"of host 0")
        self.assertEqual(sorted(stored.values()), [b"of host 0", b"of host 1", b"of host 2"])


class Versions(Hosts):
    def test_rewrites_of_one_size_show_on_the_other_side_both_ways(self):
        """The size never changes, so neither a size nor the kernel's pages give it away."""
        hosts = self.hosts("--ttl", "1s")
        write(hosts[0].path / "f", b"version 00")
        hosts[0].settle()
        for number in range(1, 7):
            writer, reader = hosts[number % 2], hosts[1 - number % 2]
            text = f"version {number:02}".encode()
            write(writer.path / "f", text)
            writer.settle()
            wait_until(lambda: (reader.path / "f").read_bytes() == text, f"{text} shows on the other host", 6)
            self.assertEqual((writer.path / "f").read_bytes(), text)

    def test_a_reader_never_gets_a_mix(self):
        """A large cold file is replaced while it is read: one version whole, or ESTALE."""
        one, other = self.hosts("--ttl", "1s")
        versions = [bytes([65 + number]) * (24 << 20) for number in range(4)]
        outcomes = set()
        for old, new in zip(versions, versions[1:]):
            one.put("big", old)
            wait_until(lambda: tries(lambda: (other.path / "big").read_bytes()[:1]) == old[:1], "the old version shows", 10)
            other.stop()
            other.forget_cache()
            other.start()
            with open(other.path / "big", "rb", buffering=0) as file:
                seen = file.read(1 << 20)
                one.put("big", new)
                seen += tries(lambda: self.rest(file)) or b""
                self.assertIn(len(set(seen)), (1,), "two versions in one reading")
                self.assertEqual(seen[:1], old[:1])
                outcomes.add("whole" if len(seen) == len(old) else "stale")
            wait_until(lambda: tries((other.path / "big").read_bytes) == new, "the next open has the new version", 10)
        print(f"    {sorted(outcomes)}", end=" ", flush=True)

    def rest(self, file):
        got = bytearray()
        while True:
            try:
                block = file.read(1 << 20)
            except OSError as error:
                self.assertEqual(error.errno, errno.ESTALE)
                return bytes(got)
            if not block:
                return bytes(got)
            got += block


class Directories(Hosts):
    def race(self, change, files=40):
        """One host changes the directory `d` while the other writes into it. (mount, {name: bytes} of what was acknowledged)."""
        one, other = self.hosts("--ttl", "1s", write_mode="back")
        (one.path / "d").mkdir()
        for number in range(20):
            write(one.path / f"d/old{number}", b"old")
        one.settle()
        wait_until(lambda: len(listed(other.path / "d")) == 20, "the other host sees all", 10)
        acknowledged, begun = {}, threading.Event()

        def fill():
            for number in range(files):
                name, data = f"new{number}", pattern(number, 3_000)
                if tries(lambda: write(other.path / "d" / name, data)) is None:
                    acknowledged[name] = data
                if number == files // 4:
                    begun.set()

        writing = threading.Thread(target=fill)
        writing.start()
        begun.wait(30)
        change(one)
        writing.join(60)
        one.settle()
        other.settle()
        return one, other, acknowledged

    def assert_somewhere(self, mount, acknowledged, directories):
        stored = self.stored(mount)
        for name, data in acknowledged.items():
            places = [f"{directory}/{name}" for directory in directories if f"{directory}/{name}" in stored]
            self.assertTrue(places, f"{name} is lost; there is {sorted(stored)}")
            self.assertTrue(all(stored[place] == data for place in places), name)

    def test_renamed_while_the_other_host_writes_into_it(self):
        one, other, acknowledged = self.race(lambda host: os.rename(host.path / "d", host.path / "moved"))
        self.assertGreater(len(acknowledged), 5)
        self.assert_somewhere(one, acknowledged, ("d", "moved"))
        stored = self.stored(one)
        for number in range(20):
            self.assertEqual(stored.get(f"moved/old{number}"), b"old")
            self.assertNotIn(f"d/old{number}", stored)
        wait_until(lambda: listed(other.path) == listed(one.path), "both see the same", 10)

    def test_removed_while_the_other_host_writes_into_it(self):
        def remove(host):
            for name in os.listdir(host.path / "d"):
                if name.startswith("old"):
                    os.unlink(host.path / "d" / name)
            self.assertIn(tries(lambda: os.rmdir(host.path / "d")), (None, errno.ENOTEMPTY))

        one, other, acknowledged = self.race(remove)
        self.assertGreater(len(acknowledged), 5)
        self.assert_somewhere(one, acknowledged, ("d",))
        names = sorted(acknowledged)
        for host in (one, other):
            wait_until(lambda: listed(host.path / "d") == names, "all that was written shows", 10)

    def test_one_file_moved_on_both_hosts(self):
        one, other = self.hosts("--ttl", "1s", write_mode="back")
        for number in range(10):
            write(one.path / f"f{number}", pattern(number, 5_000))
        one.settle()
        wait_until(lambda: len(os.listdir(other.path)) == 10, "the other host sees all", 10)
        for number in range(10):
            os.rename(one.path / f"f{number}", one.path / f"one{number}")
            tries(lambda: os.rename(other.path / f"f{number}", other.path / f"other{number}"))
        one.settle()
        other.settle()
        stored = self.stored(one)
        for number in range(10):
            found = [name for name, data in stored.items() if data == pattern(number, 5_000)]
            self.assertTrue(found, f"f{number} is lost; there is {sorted(stored)}")
            self.assertTrue(all(re.fullmatch(rf"(one|other){number}", name) for name in found), found)
