"""inotify(7) on the mount: a program that watches a folder hears of this host's changes as it does on a disk."""

import contextlib
import ctypes
import os
import select
import struct

from bench import Bench, shell

EVENTS = {
    0x2: "modify",
    0x4: "attrib",
    0x8: "close written",
    0x40: "moved from",
    0x80: "moved to",
    0x100: "create",
    0x200: "delete",
    0x400: "delete self",
    0x800: "move self",
}
IS_DIRECTORY = 0x4000_0000
HEAD = struct.Struct("iIII")

# The last of them is what ends the watching.
CHANGES = """
echo new > new.txt
echo more >> new.txt
chmod 600 new.txt
mv new.txt renamed.txt
mkdir folder
mv renamed.txt folder/moved.txt
mv folder/moved.txt back.txt
echo other > .tmp && mv .tmp back.txt
truncate -s 1 back.txt
touch -d 2001-01-01 back.txt
ln -s back.txt link
rm link back.txt
rmdir folder
touch last
"""


@contextlib.contextmanager
def watched(folder):
    """A function that waits for the next events: [(what, name)]."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    mask = sum(EVENTS)
    if libc.inotify_add_watch(watch, os.fsencode(folder), mask) < 0:
        raise OSError(ctypes.get_errno(), "inotify_add_watch")

    def events(seconds=20):
        if not select.select([watch], [], [], seconds)[0]:
            raise TimeoutError(f"no event for {seconds} s")
        data, at, found = os.read(watch, 1 << 16), 0, []
        while at < len(data):
            _, mask, _, length = HEAD.unpack_from(data, at)
            name = data[at + HEAD.size : at + HEAD.size + length].rstrip(b"\0").decode()
            kind = "directory " if mask & IS_DIRECTORY else ""
            found += [(kind + what, name) for bit, what in EVENTS.items() if mask & bit]
            at += HEAD.size + length
        return found

    try:
        yield events
    finally:
        os.close(watch)


class Watching(Bench):
    def heard(self, folder):
        """What is heard of CHANGES up to the closing of the last file."""
        folder.mkdir()
        with watched(folder) as events:
            shell(CHANGES, folder)
            heard = []
            while ("close written", "last") not in heard:
                heard += events()
        return heard

    def test_a_folder_is_watched_as_on_a_disk(self):
        mount = self.new_mount()
        wanted = self.heard(self.local / "watched")
        self.assertGreater(len(wanted), 20)
        self.assertEqual(self.heard(mount.path / "watched"), wanted)

    def test_what_was_there_before_is_watched_too(self):
        """Found in the bucket by a mount with an empty cache; the watch is on the file itself."""
        mount = self.new_mount()
        (mount.path / "file").write_bytes(b"old")
        self.cold(mount)
        with watched(mount.path / "file") as events:
            shell("echo more >> file", mount.path)
            heard = []
            while ("close written", "") not in heard:
                heard += events()
            self.assertIn(("modify", ""), heard)
            # Uploading it is no change that a program sees.
            mount.flush()
            shell("mv file other; rm other", mount.path)
            heard = []
            while ("delete self", "") not in heard:
                heard += events()
            self.assertEqual([what for what, _ in heard], ["move self", "attrib", "delete self"])
