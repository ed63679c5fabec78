#!/usr/bin/env python3
"""Runs a command beside a MinIO of its own.

    with_minio.py COMMAND ...

The command finds its URL in MEDIAFS_TEST_MINIO; the keys are minioadmin/minioadmin.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import open_store  # noqa: E402
from harness.suite import clean  # noqa: E402


def main():
    work = pathlib.Path(tempfile.mkdtemp(prefix="mediafs-test-", dir=os.environ.get("MEDIAFS_TEST_DIR")))
    try:
        with open_store("minio", work / "store") as store:
            return subprocess.run(sys.argv[1:], check=False, env={**os.environ, "MEDIAFS_TEST_MINIO": store.endpoint}).returncode
    finally:
        clean(work)


if __name__ == "__main__":
    sys.exit(main())
