"""Programs that a test starts: they log to a file, and none of them outlives the test."""
import ctypes
import os
import re
import signal
import socket
import subprocess
import time

from ports import free_ports  # noqa: F401  (most tests have it from here)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("WINDROW_BUILD_DIR", os.path.join(ROOT, "build", "unit"))
SHARED_DATA = os.environ.get("WINDROW_SHARED_DATA", os.path.join(ROOT, "..", "shared", "data"))
PR_SET_PDEATHSIG = 1
PATIENCE_S = 90  # what only guards against hanging; a machine may have much else to do
LIBC = ctypes.CDLL(None, use_errno=True)

running = []
observers = []  # called with every process that starts


def program(name):
    """A program of the build: windrowd, windrow, or one of tests/support."""
    for folder in ("", "tests"):
        path = os.path.join(BUILD, folder, name)
        if os.path.exists(path):
            return path
    raise FileNotFoundError(f"{name} is not in {BUILD}: build it, or set WINDROW_BUILD_DIR")


def wait_for(condition, limit_s, what, step_s=0.02, strictly=False):
    """The first true result of condition(); fails after limit_s with what was waited for. Only
    where the time itself is promised it is taken `strictly`: else nobody is hurried."""
    limit_s = limit_s if strictly else max(limit_s, PATIENCE_S)
    end = time.monotonic() + limit_s
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            words = what() if callable(what) else what
            raise AssertionError(f"not within {limit_s} s: {words}")
        time.sleep(step_s)


def accepts(port):
    with socket.socket() as one:
        one.settimeout(1)
        return one.connect_ex(("127.0.0.1", port)) == 0


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Process:
    """One running program; its output goes to folder/name.log, appended over restarts."""

    def __init__(self, name, argv, folder, environment=None):
        self.name, self.argv, self.popen = name, [str(word) for word in argv], None
        self.log_path = os.path.join(folder, name + ".log")
        self.environment = dict(os.environ, **(environment or {}))
        self.stdin = subprocess.DEVNULL

    def start(self):
        assert not self.alive(), f"{self.name} runs already"
        with open(self.log_path, "ab") as log:
            self.mark = log.tell()
            self.popen = subprocess.Popen(self.argv, stdin=self.stdin, stdout=log,
                                          stderr=log, env=self.environment,
                                          preexec_fn=die_with_parent)
        running.append(self)
        for observer in observers:
            observer(self)
        return self

    def alive(self):
        return self.popen is not None and self.popen.poll() is None

    def log(self, whole=False):
        """What it has printed since the last start."""
        with open(self.log_path, "rb") as log:
            log.seek(0 if whole else self.mark)
            return log.read().decode("utf-8", "replace")

    def wait_log(self, pattern, limit_s=10):
        return wait_for(lambda: re.search(pattern, self.log()), limit_s,
                        lambda: f"/{pattern}/ in the log of {self.name}:\n{self.log()[-3000:]}")

    def wait_port(self, port, limit_s=10):
        def ready():
            assert self.alive(), f"{self.name} ended: {self.log()[-3000:]}"
            return accepts(port)

        wait_for(ready, limit_s, lambda: f"{self.name} listens on {port}: {self.log()[-3000:]}")

    def signal(self, number):
        self.popen.send_signal(number)

    def wait_end(self, limit_s=10):
        """Its exit status; negative is the signal that ended it."""
        try:
            status = self.popen.wait(max(limit_s, PATIENCE_S))
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise AssertionError(f"{self.name} does not end:\n{self.log()[-3000:]}") from error
        running.remove(self)
        return status

    def stop(self, limit_s=10):
        """Ends it in an orderly way and returns its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait_end(limit_s)

    def kill(self):
        self.popen.kill()
        self.popen.wait()
        if self in running:
            running.remove(self)


def kill_all(but=()):
    for process in list(running):
        if process not in but:
            process.kill()
