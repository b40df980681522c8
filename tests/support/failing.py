"""Calls of windrowd on its data folder that fail when a test says so (preload/fail_calls.c)."""
import errno
import mmap
import os
import struct

from process import program

# calls, from, to, error, failed, last: struct plan of fail_calls.c.
PLAN = struct.Struct("=qqqqq24s")
FAR = 2**62
SHORT = -1
ERRORS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EINTR": errno.EINTR, "short": SHORT}


class Failing:
    """Which calls of a gateway fail; counted from its start."""

    def __init__(self, gateway):
        path = gateway.path("fail.plan")
        with open(path, "wb") as file:
            file.write(bytes(PLAN.size))
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), PLAN.size)
        gateway.process.environment.update(LD_PRELOAD=program("fail_calls.so"),
                                           WINDROW_FAIL_PLAN=path,
                                           WINDROW_FAIL_BELOW=os.path.abspath(gateway.path("data")))

    def read(self):
        return PLAN.unpack(self.memory[:])

    @property
    def calls(self):
        return self.read()[0]

    @property
    def failed(self):
        return self.read()[4]

    @property
    def last(self):
        """The name of the call that failed last."""
        return self.read()[5].rstrip(b"\0").decode()

    def arm(self, error, first, last=None):
        """Calls first..last (only the first) fail with that name of ERRORS; before a start."""
        self.memory[:] = PLAN.pack(0, first, first if last is None else last, ERRORS[error], 0,
                                   bytes(24))

    def arm_now(self, error, after=1, count=1):
        """So do, while it runs, the next calls but `after` - 1."""
        first = self.calls + after
        struct.pack_into("=qq", self.memory, 16, first + count - 1, ERRORS[error])
        struct.pack_into("=q", self.memory, 8, first)

    def disarm(self):
        struct.pack_into("=qq", self.memory, 8, 0, 0)
