"""Child processes that can't outlive the suite."""

import ctypes
import os
import pathlib
import signal
import subprocess
import threading

PR_SET_PDEATHSIG = 1


def _before_exec(life_s):
    libc = ctypes.CDLL(None, use_errno=True)

    def prepare():
        # The kernel ends the child when the suite dies, and when its time is over: an alarm survives exec, and a FUSE
        # daemon that is gone makes every call that waits for it return.
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.alarm(life_s)

    return prepare


class Child:
    """A process with its output in a file.

    `life_s` is the longest that it may live, in whole seconds. With `talks` it takes lines and answers each with one
    (see `ask`); only its errors go to the log then.
    """

    def __init__(self, command, log: pathlib.Path, env=None, life_s=900, talks=False):
        self.log, self.turn = log, threading.Lock()
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                env={**os.environ, **(env or {})},
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else out,
                stderr=out,
                preexec_fn=_before_exec(life_s),
            )

    @property
    def pid(self):
        return self.process.pid

    def hear(self):
        """The next line that it prints."""
        return self.process.stdout.readline().decode().rstrip("\n")

    def ask(self, line):
        with self.turn:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
            return self.hear()

    def running(self):
        return self.process.poll() is None

    def signal(self, number):
        if self.running():
            self.process.send_signal(number)

    def wait(self, seconds):
        """The exit code; minus the signal's number where one ended it."""
        return self.process.wait(seconds)

    def stop(self, seconds=20):
        """Ends it, kindly first."""
        self.signal(signal.SIGTERM)
        try:
            return self.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.wait(10)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait(10)

    def tail(self, lines=40):
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])
