#!/usr/bin/env python3
"""scripts/example, run as its README section says: Django on gunicorn behind nginx, on a real mount, over a real store.

    run.py [--store minio|emulator|r2] [-k PATTERN]

Needs what tests/mount/run.py needs, and nginx, gunicorn and django-storages; with Chromium the picture goes through the admin
in a browser, without it that test is skipped. MEDIAFS_TEST_SCREENSHOTS=FOLDER keeps what the browser saw.
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness.suite import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(HERE, __doc__.splitlines()[0]))
