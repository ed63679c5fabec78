"""Each program as two acts on one bucket: write the tree, and show it as a folder. Each act starts from nothing.

An act is a context manager that gives the folder; what was written into it is in the bucket once the act has ended.
"""

import contextlib
import functools
import os
import pathlib
import subprocess

from harness import Mount, mounts_below, wait_until
from harness.mount import detach
from harness.process import Child
from harness.suite import Run

# Part sizes are far below the programs' defaults, so that 20 MiB are several parts with each of them.
S3FS_OPTIONS = "use_path_request_style,use_xattr,multipart_size=5"
RCLONE_OPTIONS = ["--s3-upload-cutoff", "8M"]
COPY_OPTIONS = ["--metadata", "--links"]
MARKERS_OPTION = "--s3-directory-markers"
START_S = 30
COMMAND_S = 60


class Mediafs:
    name = "mediafs"

    def __init__(self, store, bucket):
        self.store, self.bucket = store, bucket

    @contextlib.contextmanager
    def writing(self):
        with self.mounted() as mount:
            yield mount.path
            mount.flush()

    @contextlib.contextmanager
    def reading(self):
        with self.mounted() as mount:
            yield mount.path

    @contextlib.contextmanager
    def mounted(self):
        with Mount(self.store, self.bucket, Run.folder("mediafs")) as mount:
            yield mount
            if code := mount.stop():
                raise RuntimeError(f"mediafs ended with {code}:\n{mount.shown_log()}")


@contextlib.contextmanager
def foreign_mount(name, command, env, written=lambda folder: True):
    """A mount of another program in the foreground, unmounted once `written` says that everything is in the bucket."""
    folder = Run.folder(name)
    point = folder / "mnt"
    point.mkdir()
    child = Child([word if word != "POINT" else point for word in command(folder)], folder / "log", env)

    def ready():
        if not child.running():
            raise RuntimeError(f"{name} ended before it mounted:\n{child.tail()}")
        return str(point) in mounts_below(point) and os.path.ismount(point)

    try:
        wait_until(ready, f"{name} mounts", START_S)
        yield point
        wait_until(lambda: written(folder), f"{name} has written everything", COMMAND_S)
        subprocess.run(["umount", str(point)], check=True, timeout=COMMAND_S)
        child.wait(COMMAND_S)
    finally:
        detach(point)
        child.stop()


class S3fs:
    name = "s3fs"

    def __init__(self, store, bucket):
        self.store, self.bucket = store, bucket

    def mounted(self):
        def command(folder):
            keys = folder / "passwd"
            keys.touch(0o600)
            keys.write_text(f"{self.store.access_key}:{self.store.secret_key}")
            return ["s3fs", self.bucket, "POINT", "-f", "-o", f"url={self.store.endpoint},passwd_file={keys},{S3FS_OPTIONS}"]

        return foreign_mount("s3fs", command, self.store.env())

    writing = reading = mounted

    @staticmethod
    def version():
        return first_line(["s3fs", "--version"]).split(" (commit")[0].replace("Amazon Simple Storage Service File System V", "s3fs ")


class Rclone:
    """`rclone copy` between a plain folder and the bucket."""

    name = "rclone copy"

    def __init__(self, store, bucket):
        self.store, self.bucket = store, bucket

    def env(self):
        settings = {
            "TYPE": "s3",
            "PROVIDER": "Minio",
            "ENDPOINT": self.store.endpoint,
            "ACCESS_KEY_ID": self.store.access_key,
            "SECRET_ACCESS_KEY": self.store.secret_key,
            "REGION": self.store.region,
        }
        remote = {f"RCLONE_CONFIG_STORE_{name}": value for name, value in settings.items()}
        # Nothing of the caller's own set-up, and nothing kept.
        return {**self.store.env(), "AWS_CA_BUNDLE": "", "RCLONE_CONFIG": "", **remote}

    def run(self, *words):
        """Its output; RuntimeError with that where it fails."""
        done = subprocess.run(
            ["rclone", *map(str, words), *COPY_OPTIONS, *self.options()],
            env={**os.environ, **self.env()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_S,
            check=False,
        )
        text = done.stdout.decode(errors="replace")
        if done.returncode != 0:
            raise RuntimeError(f"rclone {words[0]} ended with {done.returncode}:\n{text}")
        return text

    @classmethod
    def options(cls):
        return [*RCLONE_OPTIONS, *([MARKERS_OPTION] if cls.keeps_empty_directories() else [])]

    @staticmethod
    @functools.cache
    def keeps_empty_directories():
        """True where this rclone knows objects that stand for directories."""
        return MARKERS_OPTION.encode() in subprocess.run(["rclone", "help", "flags"], check=True, stdout=subprocess.PIPE, timeout=COMMAND_S).stdout

    @contextlib.contextmanager
    def writing(self):
        folder = Run.folder("rclone")
        yield folder
        self.run("copy", folder, f"store:{self.bucket}", "--create-empty-src-dirs")

    @contextlib.contextmanager
    def reading(self):
        folder = Run.folder("rclone")
        self.run("copy", f"store:{self.bucket}", folder, "--create-empty-src-dirs")
        yield folder

    def sent_again(self, folder):
        """What a copy of `folder` would send to the bucket, or set there: a line for each file."""
        text = self.run("copy", folder, f"store:{self.bucket}", "--dry-run", "--exclude", "*.rclonelink")
        return [line for line in text.splitlines() if ": Skipped " in line]

    @staticmethod
    def version():
        return first_line(["rclone", "version"])


class RcloneMount(Rclone):
    """`rclone mount`. It keeps no modes, owners and symlinks."""

    name = "rclone mount"

    def mounted(self):
        def command(folder):
            words = ["rclone", "mount", f"store:{self.bucket}", "POINT", "--vfs-cache-mode", "writes", "--vfs-write-back", "100ms"]
            return [*words, "--cache-dir", folder / "cache", *self.options()]

        return foreign_mount("rclone-mount", command, self.env(), self.all_sent)

    writing = reading = mounted

    @staticmethod
    def all_sent(folder):
        """It uploads behind the program's back, and forgets to when it is unmounted; its cache says what waits."""
        notes = [path for path in folder.glob("cache/vfsMeta/**/*") if path.is_file()]
        return not any('"Dirty":true' in path.read_text().replace(" ", "").replace("\t", "") for path in notes)


def first_line(command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=COMMAND_S).stdout.decode().splitlines()[0]


def missing():
    """Programs that aren't installed."""
    paths = [pathlib.Path(folder) for folder in os.environ["PATH"].split(":")]
    return [name for name in ("s3fs", "rclone") if not any((path / name).exists() for path in paths)]
