"""System calls that Python's os module doesn't offer, and the patterns that files are filled with."""

import contextlib
import ctypes
import errno
import mmap
import os
import random

RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def refused(number):
    """The block has to fail with this errno."""
    try:
        yield
    except OSError as error:
        if error.errno != number:
            found = errno.errorcode.get(error.errno, error.errno)
            raise AssertionError(f"{found} instead of {errno.errorcode[number]}: {error}") from error
    else:
        raise AssertionError(f"no error, {errno.errorcode[number]} expected")


def renameat2(source, target, flags):
    """rename(2) with flags; OSError as os.rename raises it."""
    arguments = [ctypes.c_int(AT_FDCWD), os.fsencode(source), ctypes.c_int(AT_FDCWD), os.fsencode(target), ctypes.c_uint(flags)]
    if _libc.renameat2(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(source), None, str(target))


def fallocate(fd, mode, offset, length):
    """fallocate(2), which os.posix_fallocate would emulate by writing."""
    if _libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def pattern(seed, size):
    """`size` bytes that differ from those of every other seed, at every offset."""
    return random.Random(seed).randbytes(size)


def write(path, data, flags=os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
    """All of `data` through plain system calls: no buffering of Python's between the test and the file system."""
    fd = os.open(path, flags, 0o644)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)


def resident_pages(path, length):
    """How many pages of the file's first `length` bytes the kernel holds: mincore(2), which loads none."""
    pages = (length + mmap.PAGESIZE - 1) // mmap.PAGESIZE
    held = (ctypes.c_ubyte * pages)()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), length, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as mapped:
        first = ctypes.c_char.from_buffer(mapped)
        start = ctypes.addressof(first)
        # What points into it keeps it from being closed.
        del first
        if _libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(length), held) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    return sum(page & 1 for page in held)
