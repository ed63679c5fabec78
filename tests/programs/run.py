#!/usr/bin/env python3
"""Real programs on a real mount over a real store, which it starts and stops itself: rsync, git, ffmpeg, nginx and more.

    run.py [--store minio|emulator|r2] [--write-mode back|through] [-k PATTERN] [NAME ...]

NAME is one of the test_NAME.py beside this file. Most do the same on the local disk and compare. A program that isn't
installed is a skip that says so; scripts/test installs them. Ends with `N passed, N failed, N skipped`; exits 0 if
none failed.
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness.suite import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(HERE, __doc__.splitlines()[0]))
