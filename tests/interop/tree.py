"""The tree that every program writes, and what a program shows of it, aspect by aspect.

Nothing here knows a program: a tree is written into a folder and read back from a folder, be it a mount or a plain one.
"""

import os
import random
import stat

LARGE_BYTES = 20 << 20
# Nanoseconds; no two alike, so that a time given to the wrong file is seen.
FIRST_TIME_NS = 1_500_000_000_123_456_789
OWNER, GROUP = 1234, 100_001
COMMENT = "user.comment"

# Its mode and owner are left as they come: 0644 and who mounts, which mediafs doesn't write into metadata.
DEFAULT = "default.txt"

# {file: (bytes, mode)}. Modes that no default is, and one whose decimal form consists of octal digits (0600 is 33152).
FILES = {
    "plain.txt": (b"plain text\n", 0o640),
    DEFAULT: (b"of default mode", None),
    "private": (b"private", 0o600),
    "run.sh": (b"#!/bin/sh\n", 0o755),
    "read-only": (b"r", 0o444),
    "empty": (b"", 0o600),
    "a name with spaces, + & %41 'quotes'.txt": (b"spaces", 0o640),
    "ünï-日本語-🎞.txt": ("ünï".encode(), 0o640),
    "dir/inner.txt": (b"inner", 0o640),
    "dir/ünï dir/deep.txt": (b"deep", 0o640),
    "large.bin": (random.Random(1).randbytes(LARGE_BYTES), 0o640),
}
DIRECTORIES = {"dir": 0o750, "dir/ünï dir": 0o711, "dir/nothing inside": 0o700, "dir/group": 0o2775, "dir/sticky": 0o1777}
EMPTY_DIRECTORIES = [name for name in DIRECTORIES if not any(file.startswith(f"{name}/") for file in FILES)]
LINKS = {"link": "plain.txt", "dir/link to ünï": "../ünï-日本語-🎞.txt", "dangling": "no/such file"}
# In the metadata of an object: S3 has 2 KiB for all of it.
XATTRS = {
    "plain.txt": {COMMENT: b"a comment", "user.bytes": bytes(range(32))},
    "empty": {COMMENT: "ünï".encode()},
    "dir/inner.txt": {COMMENT: b"of a file below"},
}

OF_FILES = ["names", "content", "size", "mtime", "mode", "owner", "default mode"]
EVERY_ASPECT = [*OF_FILES, "symlinks", "empty directories", "directories' modes", "directories' owners", "xattrs"]


def time_ns(name):
    return FIRST_TIME_NS + 1_000_000_007 * sorted([*FILES, *LINKS]).index(name)


def write_tree(folder, aspects):
    """Writes it through plain system calls; only what `aspects` are about."""
    for name in DIRECTORIES:
        if "empty directories" in aspects or name not in EMPTY_DIRECTORIES:
            os.mkdir(folder / name)
    for name, (data, _) in FILES.items():
        (folder / name).write_bytes(data)
        dress(folder / name, name, aspects)
    if "symlinks" in aspects:
        for name, target in LINKS.items():
            os.symlink(target, folder / name)
    for name, mode in DIRECTORIES.items():
        if "directories' owners" in aspects:
            os.chown(folder / name, OWNER, GROUP)
        if "directories' modes" in aspects:
            os.chmod(folder / name, mode)


def dress(path, name, aspects):
    if "xattrs" in aspects:
        for attribute, value in XATTRS.get(name, {}).items():
            os.setxattr(path, attribute, value)
    if "owner" in aspects and name != DEFAULT:
        os.chown(path, OWNER, GROUP)
    if "mode" in aspects and name != DEFAULT:
        os.chmod(path, FILES[name][1])
    os.utime(path, ns=(time_ns(name), time_ns(name)))


def read_tree(folder):
    """{aspect: {name: what a program shows}}."""
    shown = {aspect: {} for aspect in EVERY_ASPECT}
    for at, directories, files in os.walk(folder):
        for leaf in directories + files:
            path = os.path.join(at, leaf)
            read_one(path, os.path.relpath(path, folder), shown)
    return shown


def read_one(path, name, shown):
    facts = os.lstat(path)
    mode = stat.S_IMODE(facts.st_mode)
    if stat.S_ISLNK(facts.st_mode):
        shown["symlinks"][name] = os.readlink(path)
    elif stat.S_ISDIR(facts.st_mode):
        shown["directories' modes"][name] = f"{mode:04o}"
        shown["directories' owners"][name] = (facts.st_uid, facts.st_gid)
        if not os.listdir(path):
            shown["empty directories"][name] = True
    else:
        with open(path, "rb") as file:
            data = file.read()
        shown["names"][name] = True
        shown["content"][name] = data
        shown["size"][name] = facts.st_size
        shown["mtime"][name] = facts.st_mtime_ns
        if name == DEFAULT:
            shown["default mode"][name] = (f"{mode:04o}", facts.st_uid, facts.st_gid)
        else:
            shown["mode"][name] = f"{mode:04o}"
            shown["owner"][name] = (facts.st_uid, facts.st_gid)
        shown["xattrs"][name] = {attribute: value for attribute, value in XATTRS.get(name, {}).items() if read_attribute(path, attribute) == value}


def read_attribute(path, attribute):
    try:
        return os.getxattr(path, attribute)
    except OSError:
        return None


def expected():
    """What read_tree would say of the tree on a disk."""
    marked = [name for name in FILES if name != DEFAULT]
    return {
        "names": dict.fromkeys(FILES, True),
        "content": {name: data for name, (data, _) in FILES.items()},
        "size": {name: len(data) for name, (data, _) in FILES.items()},
        "mtime": {name: time_ns(name) for name in FILES},
        "mode": {name: f"{FILES[name][1]:04o}" for name in marked},
        "owner": dict.fromkeys(marked, (OWNER, GROUP)),
        "default mode": {DEFAULT: ("0644", os.getuid(), os.getgid())},
        "symlinks": LINKS,
        "empty directories": dict.fromkeys(EMPTY_DIRECTORIES, True),
        "directories' modes": {name: f"{mode:04o}" for name, mode in DIRECTORIES.items()},
        "directories' owners": dict.fromkeys(DIRECTORIES, (OWNER, GROUP)),
        "xattrs": {name: XATTRS.get(name, {}) for name in FILES},
    }


def differences(wanted, shown):
    """[(name, wanted, shown)] of one aspect; None stands for what isn't there."""
    names = sorted(wanted.keys() | shown.keys())
    return [(name, wanted.get(name), shown.get(name)) for name in names if wanted.get(name) != shown.get(name)]
