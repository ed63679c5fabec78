"""What the suites over the real binary share: stores that they start themselves, mounts that always end, checks.

Nothing here is a test. A store or a mount is a context manager; leaving it stops the process and detaches the mount
point, whatever happened in between. Every daemon carries an alarm clock, so a hang becomes an error of the call that
hung (ENOTCONN) instead of a run that never ends.
"""

from .gate import Gate
from .mount import Mount, binary, mounts_below
from .store import Emulator, Minio, open_store
from .toxiproxy import Toxiproxy
from .waiting import free_port, wait_until

__all__ = ["Emulator", "Gate", "Minio", "Mount", "Toxiproxy", "binary", "free_port", "mounts_below", "open_store", "wait_until"]
