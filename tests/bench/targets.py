"""What is compared: each keeps files in a folder of the same MinIO, and says what it used of the machine.

A target is opened on a bucket, fresh (with nothing cached) each time, and closed again. Its files are asked for by
relative names; a mount answers through the kernel, django-storages through its own calls.
"""

import io
import os
import pathlib
import re
import resource
import shutil
import subprocess

from harness import Mount
from harness.mount import detach, mounts_below
from harness.process import Child
from harness.waiting import wait_until

STEP_BYTES = 1 << 20


class Usage:
    """CPU seconds and peak MiB of one process."""

    def __init__(self, cpu_s=0.0, peak_mib=0.0):
        self.cpu_s, self.peak_mib = cpu_s, peak_mib

    @staticmethod
    def of(pid):
        try:
            peak = re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return Usage()
        ticks = os.sysconf("SC_CLK_TCK")
        return Usage((int(fields[11]) + int(fields[12])) / ticks, int(peak[1]) / 1024 if peak else 0.0)


class Folder:
    """Files by their paths: what all mounts and the local disk share."""

    is_remote, has_directories = True, True

    def save(self, name, data):
        descriptor = os.open(self.path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view[:STEP_BYTES]) :]
        os.close(descriptor)

    def read(self, name):
        descriptor, size = os.open(self.path / name, os.O_RDONLY), 0
        while chunk := os.read(descriptor, STEP_BYTES):
            size += len(chunk)
        os.close(descriptor)
        return size

    def exists(self, name):
        return os.path.exists(self.path / name)

    def walk(self, folder):
        with os.scandir(self.path / folder) as entries:
            return sum(entry.stat().st_size for entry in entries)

    def rename(self, old, new):
        os.rename(self.path / old, self.path / new)

    def remove(self, folder):
        shutil.rmtree(self.path / folder)

    def make(self, folder):
        (self.path / folder).mkdir()


class Disk(Folder):
    """The local disk, with no bucket behind it."""

    name, is_remote = "local disk", False

    def __init__(self, store, folder, endpoint):
        self.path = folder / "disk"

    def open(self, bucket):
        self.path.mkdir(exist_ok=True)

    def close(self):
        os.sync()

    def usage(self):
        return Usage()

    def pid(self):
        return None


class Mediafs(Folder):
    name = "mediafs"

    def __init__(self, store, folder, endpoint):
        self.store, self.folder, self.endpoint = store, folder / "mediafs", endpoint
        self.folder.mkdir()

    def open(self, bucket):
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        self.mount = Mount(self.store, bucket, self.folder, endpoint=self.endpoint, life_s=3600).start()
        self.path = self.mount.path

    def close(self):
        self.mount.unmount(300)

    def usage(self):
        return Usage.of(self.mount.child.pid)

    def pid(self):
        return self.mount.child.pid


class Foreign(Folder):
    """Another program's mount, in the foreground."""

    START_S = 30

    def __init__(self, store, folder, endpoint):
        self.store, self.folder, self.endpoint = store, folder / self.name, endpoint
        self.path, self.cache = self.folder / "mnt", self.folder / "cache"
        self.path.mkdir(parents=True)

    def open(self, bucket):
        shutil.rmtree(self.cache, ignore_errors=True)
        self.cache.mkdir()
        self.child = Child(self.command(bucket), self.folder / "log", self.env(), life_s=3600)
        wait_until(self._ready, f"{self.name} mounts", self.START_S)

    def env(self):
        return self.store.env()

    def _ready(self):
        if not self.child.running():
            raise RuntimeError(f"{self.name} ended before it mounted:\n{self.child.tail()}")
        return str(self.path) in mounts_below(self.path) and os.path.ismount(self.path)

    def close(self):
        subprocess.run(["umount", str(self.path)], check=False, stderr=subprocess.DEVNULL)
        try:
            self.child.wait(120)
        finally:
            detach(self.path)
            self.child.stop()

    def usage(self):
        return Usage.of(self.child.pid)

    def pid(self):
        return self.child.pid


class Rclone(Foreign):
    name = "rclone"

    def env(self):
        """The remote `bench`; rclone reads it from its environment."""
        remote = {"type": "s3", "provider": "Minio", "env_auth": "true", "endpoint": self.endpoint, "region": self.store.region}
        return {**super().env(), "RCLONE_CONFIG": "/dev/null", "AWS_CA_BUNDLE": "", **{f"RCLONE_CONFIG_BENCH_{name.upper()}": value for name, value in remote.items()}}

    def command(self, bucket):
        options = ["--vfs-cache-mode", "full", "--cache-dir", self.cache, "--dir-cache-time", "60s"]
        return ["rclone", "mount", f"bench:{bucket}", self.path, *options]


class S3fs(Foreign):
    name = "s3fs"

    def command(self, bucket):
        keys = self.folder / "passwd"
        keys.touch(0o600)
        keys.write_text(f"{self.store.access_key}:{self.store.secret_key}")
        options = f"passwd_file={keys},url={self.endpoint},use_path_request_style,use_cache={self.cache},parallel_count=16,multipart_size=16"
        return ["s3fs", bucket, self.path, "-f", "-o", options]


class DjangoStorages:
    """django-storages' S3 backend in this process: what a site uses without a mount."""

    name, is_remote, has_directories = "django-storages", True, False

    def __init__(self, store, folder, endpoint):
        self.store, self.endpoint = store, endpoint

    def open(self, bucket):
        from storages.backends.s3 import S3Storage  # needs Django's settings first

        self.storage = S3Storage(
            bucket_name=bucket,
            endpoint_url=self.endpoint,
            access_key=self.store.access_key,
            secret_key=self.store.secret_key,
            region_name=self.store.region,
            addressing_style="path",
            file_overwrite=False,
        )
        self.begun = self._cpu()

    def close(self):
        self.storage = None

    @staticmethod
    def _cpu():
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime

    def usage(self):
        return Usage(self._cpu() - self.begun)

    def pid(self):
        return None

    def save(self, name, data):
        from django.core.files.base import File

        self.storage.save(name, File(io.BytesIO(data)))

    def read(self, name):
        with self.storage.open(name) as file:
            return sum(len(chunk) for chunk in file.chunks(STEP_BYTES))

    def exists(self, name):
        return self.storage.exists(name)

    def walk(self, folder):
        _, names = self.storage.listdir(folder)
        return sum(self.storage.size(f"{folder}/{name}") for name in names)

    def remove(self, folder):
        _, names = self.storage.listdir(folder)
        for name in names:
            self.storage.delete(f"{folder}/{name}")

    def make(self, folder):
        pass


ALL = {kind.name: kind for kind in (Disk, Mediafs, Rclone, S3fs, DjangoStorages)}
