#!/usr/bin/env python3
"""Runs tests/django/run on a mount that it makes itself.

    on_mount.py [--store minio|emulator|r2] [--write-mode back|through] [LABEL ...]
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import Mount, open_store  # noqa: E402
from harness.suite import clean  # noqa: E402

LIMIT_S = 1200


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", choices=["minio", "emulator", "r2"], default="minio")
    parser.add_argument("--write-mode", choices=["back", "through"], default="back")
    parser.add_argument("labels", nargs="*")
    args = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="mediafs-test-", dir=os.environ.get("MEDIAFS_TEST_DIR")))
    try:
        with open_store(args.store, work / "store") as store:
            options = ["--write-mode", args.write_mode]
            with Mount(store, store.make_bucket("django"), work / "mount", options=options, life_s=LIMIT_S) as mount:
                done = subprocess.run([HERE / "run", mount.path, *args.labels], check=False, stdout=subprocess.PIPE, text=True)
                print(f"Django's own tests, {args.store}, write mode {args.write_mode}: {done.stdout.strip()}", flush=True)
                failed = done.returncode != 0
                if (code := mount.stop()) != 0:
                    print(f"the daemon ended with {code}")
                    failed = True
                if failed:
                    print(mount.shown_log(100), file=sys.stderr)
    finally:
        clean(work)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
