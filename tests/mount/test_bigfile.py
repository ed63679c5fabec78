"""One GiB through the mount: equal in the bucket, in equal parts, read cold and at random, and changed by one byte."""

import os
import random

from harness import wait_until
from harness.suite import Case

MIB = 1 << 20
SIZE_MIB = 1024
SIZE = SIZE_MIB * MIB


def block(number, changed_at=None):
    """One MiB of the file; `changed_at` is the offset in the file of the byte that was changed."""
    data = random.Random(number).randbytes(MIB)
    if changed_at is not None and changed_at // MIB == number:
        at = changed_at % MIB
        data = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
    return data


class BigFile(Case):
    limit_s = 900

    def write_it(self, path):
        with open(path, "wb", buffering=0) as file:
            for number in range(SIZE_MIB):
                file.write(block(number))

    def part_sizes(self, mount):
        count = mount.head("big.bin", PartNumber=1)["PartsCount"]
        return [mount.head("big.bin", PartNumber=number)["ContentLength"] for number in range(1, count + 1)]

    def check_in_the_bucket(self, mount, changed_at=None):
        body = mount.store.client().get_object(Bucket=mount.bucket, Key=mount.key("big.bin"))["Body"]
        for number in range(SIZE_MIB):
            if body.read(MIB) != block(number, changed_at):
                self.fail(f"MiB {number} differs in the bucket")
        self.assertEqual(body.read(1), b"")

    def check_through(self, path):
        with open(path, "rb", buffering=0) as file:
            for number in range(SIZE_MIB):
                data = b""
                while len(data) < MIB and (piece := file.read(MIB - len(data))):
                    data += piece
                if data != block(number):
                    self.fail(f"MiB {number} differs through the mount")
            self.assertEqual(file.read(1), b"")

    def check_random_reads(self, path):
        chosen = random.Random(64)
        fd = os.open(path, os.O_RDONLY)
        for _ in range(1000):
            at = chosen.randrange(0, SIZE - 65_536)
            number, within = divmod(at, MIB)
            expected = (block(number) + block(number + 1) if within > MIB - 65_536 else block(number))[within : within + 65_536]
            if os.pread(fd, 65_536, at) != expected:
                self.fail(f"64 KiB at {at} differ")
        os.close(fd)

    def test_one_gib(self):
        mount = self.new_mount()
        self.write_it(mount.path / "big.bin")
        mount.settle(600)
        self.assertEqual(mount.head("big.bin")["ContentLength"], SIZE)
        sizes = self.part_sizes(mount)
        self.assertEqual(len(set(sizes[:-1])), 1, sizes)
        self.assertLessEqual(sizes[-1], sizes[0])
        self.check_in_the_bucket(mount)
        self.assertEqual(mount.stop(), 0)

        cold = self.new_mount(place=self.place_of(mount))
        self.check_random_reads(cold.path / "big.bin")
        self.assertEqual(cold.stop(), 0)
        cold.forget_cache()
        cold.start()
        self.check_through(cold.path / "big.bin")
        self.assertEqual(cold.stop(), 0)

        cold.forget_cache()
        cold.start()
        self.change_one_byte(cold, sizes[0])

    def change_one_byte(self, mount, part_size):
        """In the middle, on a cold cache: at most one part's worth of bytes goes up, the rest is copied in the store."""
        at = SIZE // 2 + 12_345
        before, requests = mount.store.received_bytes(), mount.requests()
        fd = os.open(mount.path / "big.bin", os.O_RDWR)
        old = os.pread(fd, 1, at)
        os.pwrite(fd, bytes([old[0] ^ 0xFF]), at)
        os.close(fd)
        wait_until(lambda: mount.status()["dirty_files"] == 0, "the change is in the bucket", 300)
        cost = +(mount.requests() - requests)
        if before is not None:
            sent = mount.store.received_bytes() - before
            # Every request has headers, and Complete a list of the parts: a hundred KiB covers both.
            self.assertLess(sent, part_size + 100_000, dict(cost))
            print(f"changed 1 byte of {SIZE} in the middle: {sent} bytes were sent, part size {part_size}, {dict(cost)}")
        self.assertLessEqual(cost["UploadPart"] + cost["PutObject"], 1, dict(cost))
        self.check_in_the_bucket(mount, changed_at=at)
