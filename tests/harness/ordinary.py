"""A run as an ordinary user: its tests, its daemons and their mounts, through fusermount3.

The run is a child process that gives up root for good. It has a mount namespace of its own: there an /etc/fuse.conf that its
tests may change, /dev/fuse for everybody as distributions have it, and a way to the tests, Python and the binaries where they lie in
folders of root alone. Shells of other users stay behind in that namespace, for what those see.
"""

import ctypes
import os
import pathlib
import stat
import sys
import tempfile

from .process import Child

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 0x1000, 0x4000, 1 << 18
PR_SET_DUMPABLE = 4
SHELL_LIFE_S = 3600
FUSE_CONF, DEVICE = pathlib.Path("/etc/fuse.conf"), pathlib.Path("/dev/fuse")
ALLOWED = "user_allow_other\n"
_libc = ctypes.CDLL(None, use_errno=True)


class Shell:
    """A shell that stays another user. `uid` 0 stays root."""

    def __init__(self, uid, work):
        command = ["sh"] if uid == 0 else ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "sh"]
        self.child = Child(command, work / f"shell-{uid}", life_s=SHELL_LIFE_S, talks=True)

    def run(self, command):
        """Its exit code and output in one line: `0 text`."""
        return self.child.ask(f'said=$({{ {command}; }} 2>&1); echo "$?" $said')

    def end(self):
        self.child.process.stdin.close()
        self.child.process.wait()


def checked(done, what):
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def own_namespace(work, programs):
    """This process and its children see an /etc/fuse.conf of their own, which allows --allow-other, and reach `programs`."""
    checked(_libc.unshare(CLONE_NEWNS), "a mount namespace")
    checked(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "mounts that stay here")
    conf, device = work / "fuse.conf", work / "fuse"
    conf.write_text(ALLOWED)
    bind(conf, FUSE_CONF)
    os.mknod(device, stat.S_IFCHR, DEVICE.stat().st_rdev)
    device.chmod(0o666)
    bind(device, DEVICE)
    homes = [work, sys.prefix, sys.base_prefix, ROOT, *(pathlib.Path(program).parent for program in programs)]
    make_reachable({pathlib.Path(path).resolve() for path in homes})


def bind(source, target):
    checked(_libc.mount(os.fsencode(source), os.fsencode(target), None, MS_BIND, None), f"{target} of this run's own")


def make_reachable(folders):
    """Puts an open folder, with nothing but these in it, in the place of each that closes the way to them."""
    closed = {next((above for above in reversed(folder.parents) if not above.stat().st_mode & stat.S_IXOTH), None) for folder in folders}
    for above in closed - {None}:
        held = {folder: os.open(folder, os.O_PATH) for folder in folders if above in folder.parents}
        checked(_libc.mount(b"none", os.fsencode(above), b"tmpfs", 0, b"mode=755"), f"{above} for everybody")
        for folder, descriptor in held.items():
            folder.mkdir(parents=True, exist_ok=True)
            bind(f"/proc/self/fd/{descriptor}", folder)
            os.close(descriptor)


def give_up_root(uid):
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    # Else /proc/self belongs to root.
    _libc.prctl(PR_SET_DUMPABLE, 1)


def run_as(uid, others, work, programs, run):
    """The exit code of `run(shells)` as the user `uid`; `shells`: {uid: Shell} for each of `others`.

    `programs`: {variable: path} of the programs to run, which the environment then names.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        os.environ.update(programs)
        own_namespace(work, programs.values())
        shells = {other: Shell(other, work) for other in others}
        for path in (work, work / "fuse.conf"):
            os.chown(path, uid, uid)
        work.chmod(0o755)
        os.chdir(work)
        # Temporary files too: the caller's folder for them may be root's.
        os.environ.update(HOME=str(work), TMPDIR=str(work))
        tempfile.tempdir = None
        give_up_root(uid)
        code = run(shells)
        for shell in shells.values():
            shell.end()
    except BaseException:  # the parent's life isn't this process's to go on with
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        os._exit(code)
