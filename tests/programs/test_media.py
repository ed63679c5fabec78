"""Media on the mount: ffmpeg's second pass over its own output, its playlists, and Pillow's thumbnails in every format."""

import hashlib
import json
import pathlib
import sys
import unittest

from harness.suite import SharedCase
from bench import Bench, needs, run

HERE = pathlib.Path(__file__).resolve().parent

# One thread and no versions in the output, so that two runs give the same bytes.
FFMPEG = "ffmpeg -nostdin -y -hide_banner -loglevel error -fflags +bitexact".split()
SCENE = "-f lavfi -i testsrc=duration=6:size=640x360:rate=25 -f lavfi -i sine=duration=6".split()
CODECS = "-c:v mpeg4 -b:v 4M -c:a aac -threads 1 -flags:v +bitexact -flags:a +bitexact".split()


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def boxes(path):
    """The names of an MP4 file's outermost boxes, in their order."""
    data, at, names = path.read_bytes(), 0, []
    while at < len(data):
        names.append(data[at + 4 : at + 8].decode())
        at += int.from_bytes(data[at : at + 4], "big")
    return names


@needs("ffmpeg", "ffprobe")
class Ffmpeg(Bench):
    def make(self, folder):
        """The same films in any folder."""
        run(*FFMPEG, *SCENE, *CODECS, folder / "plain.mp4")
        # Writes the film, then opens it again for reading and moves all of it to make room for the index.
        run(*FFMPEG, *SCENE, *CODECS, "-movflags", "+faststart", folder / "fast.mp4")
        run(*FFMPEG, "-i", folder / "plain.mp4", "-c", "copy", "-movflags", "+faststart", folder / "moved.mp4")
        run(*FFMPEG, "-i", folder / "fast.mp4", "-frames:v", "1", folder / "poster.jpg")
        (folder / "hls").mkdir()
        segments = ["-f", "hls", "-hls_time", "1", "-hls_playlist_type", "vod", "-hls_flags", "temp_file"]
        run(*FFMPEG, "-i", folder / "plain.mp4", "-c", "copy", *segments, folder / "hls/list.m3u8")

    def probe(self, path):
        found = run("ffprobe", "-v", "error", "-show_format", "-show_streams", "-of", "json", path)
        described = json.loads(found)
        described["format"].pop("filename")
        return described

    def test_films_are_those_of_a_local_disk(self):
        mount = self.new_mount()
        for folder in (self.local, mount.path):
            self.make(folder)
        self.check(mount.path)
        self.assert_stored(mount, "hls", self.local / "hls")
        self.cold(mount)
        self.check(mount.path)

    def check(self, folder):
        self.assertLess(boxes(folder / "plain.mp4").index("mdat"), boxes(folder / "plain.mp4").index("moov"))
        self.assertLess(boxes(folder / "fast.mp4").index("moov"), boxes(folder / "fast.mp4").index("mdat"))
        names = sorted(str(path.relative_to(self.local)) for path in self.local.rglob("*") if path.is_file())
        self.assertGreater(len(names), 7)
        for name in names:
            self.assertEqual(self.probe(folder / name), self.probe(self.local / name), name)
            self.assertEqual(digest(folder / name), digest(self.local / name), name)


class Pictures(SharedCase):
    """Each format that Pillow writes: saved, opened, made smaller and saved over itself; and several frames in one file."""

    def check(self, name):
        local = self.mount.folder / "local" / name
        local.mkdir(parents=True)
        wanted = self.save(name, local)
        if "cannot" in wanted:
            self.skipTest(f"Pillow can't on the local disk: {wanted['cannot']}")
        self.assertEqual(self.save(name, self.dir), wanted)
        self.mount.settle()
        self.assertEqual(sorted(file.name for file in self.dir.iterdir()), sorted(file.name for file in local.iterdir()))
        for file in self.dir.iterdir():
            self.assertTrue(self.mount.object(f"{self.name}/{file.name}") == file.read_bytes(), f"the object of {file.name} is not the file")

    def save(self, name, folder):
        return json.loads(run(sys.executable, "-B", HERE / "pictures.py", name, folder))


def formats():
    try:
        from PIL import Image
    except ImportError:
        return []
    Image.init()
    return sorted(Image.SAVE)


for _name in formats():
    setattr(Pictures, f"test_{_name.lower()}", lambda self, name=_name: self.check(name))


class NoPillow(unittest.TestCase):
    @unittest.skipUnless(formats(), "not installed: Pillow")
    def test_pillow_is_there(self):
        self.assertGreater(len(formats()), 20)
