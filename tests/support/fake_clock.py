"""The clocks of a gateway in a test's hand: libfaketime for the time of day, and beside it a kernel
that says what the test wants about synchronisation and boots (preload/fake_clock.c)."""
import glob
import os
import subprocess
import time

from certificates import Authority
from process import program

LIBRARIES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1")
YEAR_S = 365 * 86400


def faketime_library():
    found = [path for pattern in LIBRARIES for path in glob.glob(pattern)]
    assert found, "libfaketime is not installed (Debian: faketime)"
    return found[0]


class FakeClock:
    """offset_s: what the clock is set to beside the right time. A boot's id is a number; up_s says
    how long that boot has run when it is set."""

    def __init__(self, folder, offset_s=0, synchronised=False, up_s=20):
        self.offset_path = os.path.join(str(folder), "clock.offset")
        self.kernel_path = os.path.join(str(folder), "clock.kernel")
        self.synchronised = synchronised
        self.set(offset_s)
        self.boot(1, up_s)

    def environment(self):
        return {"LD_PRELOAD": f"{program('fake_clock.so')} {faketime_library()}",
                "FAKETIME_TIMESTAMP_FILE": self.offset_path, "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1", "WINDROW_FAKE_CLOCK": self.kernel_path}

    def hold(self, gateway):
        gateway.process.environment.update(self.environment())
        return self

    @staticmethod
    def replace(path, text):
        with open(path + ".new", "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(path + ".new", path)

    def set(self, offset_s):
        """Steps the clock."""
        self.offset_s = offset_s
        self.replace(self.offset_path, f"{offset_s:+.0f}")

    def set_1970(self):
        self.set(-int(time.time()) + 60)

    def sync(self, synchronised=True, offset_s=None):
        """What NTP does: steps the clock, then says that it is right; in this order."""
        if offset_s is not None:
            self.set(offset_s)
        self.synchronised = synchronised
        self.tell()

    def boot(self, number, up_s=20):
        self.number = number
        self.behind_ms = int((time.clock_gettime(time.CLOCK_BOOTTIME) - up_s) * 1000)
        self.tell()

    def tell(self):
        words = f"{int(self.synchronised)} {self.number:032x} {self.behind_ms}"
        self.replace(self.kernel_path, words)


class LastingAuthority(Authority):
    """Its certificates hold from 1970 on, for hosts whose clock says so."""

    def run(self, *words):
        days = [str(50 * 365 + 36500) if before == "-days" else word
                for before, word in zip(("", *words), words)]
        environment = dict(os.environ, LD_PRELOAD=faketime_library(),
                           FAKETIME="1970-01-01 12:00:00", TZ="UTC")
        result = subprocess.run(["openssl", *days], cwd=self.folder, capture_output=True, text=True,
                                stdin=subprocess.DEVNULL, timeout=90, env=environment)
        assert result.returncode == 0, f"openssl {' '.join(days)}: {result.stderr}"
