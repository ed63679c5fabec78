"""What the suites of this folder share: a mount of their own to run on, or a folder of a local disk as the control."""

import argparse
import contextlib
import os
import pathlib
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import Mount, open_store  # noqa: E402
from harness.suite import clean  # noqa: E402

# The longest that a daemon may live: the full forms take a quarter of an hour on a small machine.
LIFE_S = 5400


def parser(text):
    """Command line of a suite; `text` is its module's docstring."""
    found = argparse.ArgumentParser(description=text.splitlines()[0])
    found.add_argument("--store", choices=["minio", "emulator", "r2"], default="minio")
    found.add_argument("--write-mode", choices=["back", "through"], default="back")
    found.add_argument("--control", metavar="FOLDER", type=pathlib.Path, help="run in FOLDER of a local disk, without a mount")
    return found


class Ground:
    """`path`: the folder to test in. `work`: a folder of the local disk for all else. `name` goes into the last line."""

    def __init__(self, work, path, name, mount=None):
        self.work, self.path, self.name, self.mount = work, path, name, mount

    def ended_well(self):
        """Takes the mount away; true where the daemon drained everything and ended without an error."""
        code = self.mount.stop() if self.mount else 0
        if code != 0:
            print(f"the daemon ended with {code}", file=sys.stderr)
        return code == 0

    def show_log(self):
        if self.mount:
            print(self.mount.shown_log(100), file=sys.stderr)


@contextlib.contextmanager
def ground(args, *options):
    """A fresh mount with `options`, or a fresh folder in the control's."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="mediafs-test-", dir=os.environ.get("MEDIAFS_TEST_DIR")))
    # Other users walk through it.
    work.chmod(0o755)
    try:
        if args.control:
            with tempfile.TemporaryDirectory(prefix="control-", dir=args.control) as folder:
                os.chmod(folder, 0o755)
                yield Ground(work, pathlib.Path(folder), f"control in {args.control}")
            return
        with open_store(args.store, work / "store") as store:
            options = ["--write-mode", args.write_mode, *options]
            with Mount(store, store.make_bucket("ground"), work / "mount", options=options, life_s=LIFE_S) as mount:
                yield Ground(work, mount.path, f"{args.store}, write mode {args.write_mode}", mount)
    finally:
        clean(work)
