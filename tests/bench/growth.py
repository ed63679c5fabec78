#!/usr/bin/env python3
"""What one file costs in a directory of 1,000, 10,000 and 100,000: saved, listed and read; and one large file with many readers.

    growth.py [--counts 1000,10000,100000] [--size 4096] [--readers 64] [--big-mib 1024]

On MinIO, which slows down with what it holds: so the same files are put and listed without a mount, too, and each figure stands
beside that one. A mount starts with nothing cached for each step but the saving. `scripts/bench growth` installs what this needs.
"""

import argparse
import concurrent.futures
import html
import http.client
import os
import pathlib
import re
import shutil
import sys
import tempfile
import time
import urllib.parse

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from botocore.auth import S3SigV4Auth  # noqa: E402
from botocore.awsrequest import AWSRequest  # noqa: E402
from botocore.credentials import Credentials  # noqa: E402
from cases import MIB, THREADS, drop_page_cache, noise, seconds  # noqa: E402
from harness import Mount, open_store  # noqa: E402
from harness.suite import clean  # noqa: E402
from run import machine  # noqa: E402
from targets import Usage  # noqa: E402

PAGE = 1000


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="1000,10000,100000", help="files in one directory, each in turn")
    parser.add_argument("--size", type=int, default=4096, help="bytes of a file")
    parser.add_argument("--readers", type=int, default=64, help="of one large file, at the same time")
    parser.add_argument("--big-mib", type=int, default=1024)
    args = parser.parse_args()
    args.counts = [int(count) for count in args.counts.split(",")]
    return args


class Growth:
    def __init__(self, store, work, size):
        self.store, self.work, self.size = store, work, size
        self.client = store.client()
        self.sent, self.peaks = 0, []

    def mounted(self, bucket, work):
        """Runs `work(path)` on a mount with nothing cached; (what it says, requests)."""
        folder = self.work / "mount"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        mount = Mount(self.store, bucket, folder, life_s=7200).start()
        try:
            before, sent = self.store.counted(), self.store.sent_bytes()
            said = work(mount.path)
            # The store's metrics lag behind its answers by a moment.
            time.sleep(0.3)
            asked = +(self.store.counted() - before)
            self.sent = self.store.sent_bytes() - sent
            self.peaks.append(Usage.of(mount.child.pid).peak_mib)
        finally:
            mount.unmount(600)
        return said, asked

    def put(self, bucket, count):
        """The bare copier: as many at a time as the mount's program has threads."""
        data = noise(self.size, 1)
        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda at: self.client.put_object(Bucket=bucket, Key=f"put/{at:06}.jpg", Body=data), range(count)))

    def loop(self, bucket, count):
        """ListObjectsV2, page after page, as boto3 parses it."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="saved/", Delimiter="/")
        found = sum(len(page.get("Contents", [])) for page in pages)
        assert found in (count, count + 1), found

    def bare(self, bucket):
        """The same over one connection, without parsing the answers: what the store takes by itself."""
        auth = S3SigV4Auth(Credentials(self.store.access_key, self.store.secret_key), "s3", self.store.region)
        connection, token = http.client.HTTPConnection("127.0.0.1", self.store.port, timeout=60), {}
        while token is not None:
            words = {"list-type": "2", "prefix": "saved/", "delimiter": "/", "encoding-type": "url", **token}
            query = urllib.parse.urlencode(sorted(words.items()), quote_via=urllib.parse.quote, safe="")
            request = AWSRequest("GET", f"{self.store.endpoint}/{bucket}?{query}", {"Host": f"127.0.0.1:{self.store.port}"})
            auth.add_auth(request)
            connection.request("GET", f"/{bucket}?{query}", headers=dict(request.headers.items()))
            answer = connection.getresponse()
            text = answer.read().decode()
            assert answer.status == 200, text
            found = re.search("<NextContinuationToken>([^<]+)<", text)
            token = {"continuation-token": html.unescape(found[1])} if found else None
        connection.close()

    def measure(self, count):
        """{step: (ms a file, requests a file)}"""
        bucket = f"growth-{count}"
        self.store.make_bucket(bucket)
        names, data, rows = [f"{at:06}.jpg" for at in range(count)], noise(self.size), {}

        def save(path):
            folder = path / "saved"
            folder.mkdir()

            def one(name):
                descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
                os.write(descriptor, data)
                os.close(descriptor)

            def all_of_them():
                with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
                    list(pool.map(one, names))

            closed = seconds(all_of_them)
            descriptor = os.open(folder, os.O_RDONLY)
            sent = seconds(lambda: os.fsync(descriptor))
            os.close(descriptor)
            return closed, closed + sent

        def read(path):
            def one(name):
                descriptor = os.open(path / "saved" / name, os.O_RDONLY)
                got = os.read(descriptor, self.size + 1)
                os.close(descriptor)
                assert got == data, name

            def all_of_them():
                with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
                    list(pool.map(one, names))

            return seconds(all_of_them)

        def listed(path):
            found = []
            took = seconds(lambda: found.extend(os.listdir(path / "saved")))
            assert sorted(found) == names, len(found)
            return took

        (closed, sent), asked = self.mounted(bucket, save)
        rows["save, until close()"] = (closed, {})
        rows["save, until in the bucket"] = (sent, asked)
        rows["PutObject without a mount"] = (seconds(lambda: self.put(bucket, count)), {})
        drop_page_cache()
        best = lambda work: min((work() for _ in range(3)), key=lambda found: found[0] if isinstance(found, tuple) else found)
        rows["list"] = best(lambda: self.mounted(bucket, listed))
        rows["ListObjectsV2 by boto3"] = (best(lambda: seconds(lambda: self.loop(bucket, count))), {})
        rows["ListObjectsV2, answers not parsed"] = (best(lambda: seconds(lambda: self.bare(bucket))), {})
        drop_page_cache()
        rows["open and read, first time"] = self.mounted(bucket, read)
        saving, *listing, reading = self.peaks
        self.peaks = []
        print(f"  {count:,} files: peak memory {saving:.0f} MiB saving, {max(listing):.0f} listing, {reading:.0f} reading", flush=True)
        return {name: (took / count * 1e3, {what: times / count for what, times in asked.items()}) for name, (took, asked) in rows.items()}

    def crowd(self, readers, big_mib):
        """Many readers of one cold file at the same time: (seconds, requests)."""
        self.store.make_bucket("crowd")
        part = noise(16 * MIB)
        upload = self.client.create_multipart_upload(Bucket="crowd", Key="big.bin")["UploadId"]
        words = {"Bucket": "crowd", "Key": "big.bin", "UploadId": upload}
        parts = [{"PartNumber": at, "ETag": self.client.upload_part(**words, PartNumber=at, Body=part)["ETag"]} for at in range(1, big_mib // 16 + 1)]
        self.client.complete_multipart_upload(**words, MultipartUpload={"Parts": parts})
        drop_page_cache()

        def read(path):
            def one(_):
                with open(path / "big.bin", "rb", buffering=0) as file:
                    at = 0
                    while chunk := file.read(MIB):
                        assert chunk == part[at % len(part) : at % len(part) + len(chunk)], at
                        at += len(chunk)
                return at

            with concurrent.futures.ThreadPoolExecutor(readers) as pool:
                sizes = []
                took = seconds(lambda: sizes.extend(pool.map(one, range(readers))))
            assert sizes == [big_mib * MIB] * readers, sizes
            return took

        return self.mounted("crowd", read)


def main():
    args = arguments()
    work = pathlib.Path(tempfile.mkdtemp(prefix="mediafs-bench-", dir=os.environ.get("MEDIAFS_TEST_DIR", "/var/tmp")))
    rows = {}
    try:
        with open_store("minio", work / "store") as store:
            growth = Growth(store, work, args.size)
            for count in args.counts:
                rows[count] = growth.measure(count)
            took, asked = growth.crowd(args.readers, args.big_mib)
    finally:
        clean(work)
    first = args.counts[0]
    print(f"\n{machine()}\n\n| ms a file, {args.size:,} bytes | " + " | ".join(f"{count:,}" for count in args.counts) + " | most by least | requests a file |")
    print("|---|" + "---:|" * len(args.counts) + "---:|---|")
    for name in rows[first]:
        each = [rows[count][name][0] for count in args.counts]
        requests = ", ".join(f"{times:.3g} {what}" for what, times in sorted(rows[args.counts[-1]][name][1].items())) or "–"
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in each) + f" | {max(each) / min(each):.2f} | {requests} |")
    gets = asked["GetObject"]
    print(
        f"{args.readers} readers of {args.big_mib} MiB, cold: {took:.1f} s, {gets} GetObject of {growth.sent / MIB / args.big_mib:.3f} times its "
        f"bytes, peak memory {growth.peaks[-1]:.0f} MiB"
    )


if __name__ == "__main__":
    main()
