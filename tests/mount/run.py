#!/usr/bin/env python3
"""Tests over the real binary, a real mount and a real store, which it starts and stops itself.

    run.py [--store minio|emulator|r2] [--write-mode back|through] [--user UID] [-k PATTERN] [NAME ...]

NAME is one of the test_NAME.py beside this file. With --user, tests and daemons are that ordinary user's, through
fusermount3 (`user` has what is about that alone). Ends with `N passed, N failed, N skipped`; exits 0 if none failed.
Needs /dev/fuse, the right to mount, boto3, and minio on PATH for that store. The binary is $MEDIAFS, or the newest
that cargo built.
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness.suite import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(HERE, __doc__.splitlines()[0]))
