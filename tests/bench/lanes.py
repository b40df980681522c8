"""lanes [--seconds N] [--backlog N]: how soon a new reading arrives while a backlog is sent.

50 devices of 20 points, a new scan of each a second, batch_interval = 1 s, gzip; before that a
backlog (--backlog scans of each device, more than is sent in the time). The line is as it is, has
100 ms of round trip, and 100 ms and 1 Mbit/s (tests/support/relay.c, one queue of 100 ms for all
connections). Counted from the commit to the whole request at the endpoint: 99 % within
batch_interval and two round trips. Also what of the line was used, and the order of what came.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

from arrivals import Arrivals
from certificates import Authority
from measure import emit
from process import kill_all, program
from relay import Relay

DEVICES, INTERVAL_MS = 50, 1000
LEAST_MS = 50  # for a round trip that is none: what two cores need to do it all
LINES = [("as it is", 0, 0), ("100 ms", 50, 0), ("100 ms, 1 Mbit/s", 50, 1000)]


def quantile(values, part):
    return values[min(len(values) - 1, int(part * len(values)))]


def measure(folder, authority, line, wanted):
    name, delay_ms, kbit_s = line
    arrivals = Arrivals(authority, wanted.backlog + 1)
    port = arrivals.endpoint.port
    relay = Relay(folder, port, delay_ms, kbit_s).start()
    result = subprocess.run(
        [program("bench_lanes"), str(DEVICES), str(wanted.backlog), str(wanted.seconds),
         arrivals.endpoint.url.replace(str(port), str(relay.port)), authority.cert,
         f"compress = gzip;batch_interval = {INTERVAL_MS} ms;{wanted.keys}"],
        stdout=subprocess.PIPE, text=True, check=True)
    told, up = json.loads(result.stdout), relay.counts()["up"]
    relay.cut()
    arrivals.endpoint.close()
    late = sorted(arrivals.late_ms.values())
    sent = DEVICES * (told["last_live"] - told["first_live"] + 1)
    for part, shown in ((0.5, "p50"), (0.9, "p90")):
        emit("lanes", f"{name}: a new reading arrives after, {shown}", quantile(late, part), "ms")
    emit("lanes", f"{name}: a new reading arrives after, most", late[-1], "ms")
    lasted = wanted.seconds + 5  # bench_lanes.c stays that long behind the last scan
    if kbit_s:
        emit("lanes", f"{name}: line used", up * 8 / kbit_s / lasted / 1000, "of the line")
    emit("lanes", f"{name}: backlog sent meanwhile", told["delivered"] / lasted,
         "readings/s")
    return [
        emit("lanes", f"{name}: a new reading arrives after, p99", quantile(late, 0.99), "ms",
             INTERVAL_MS + max(4 * delay_ms, LEAST_MS)),
        emit("lanes", f"{name}: new readings missing", 20 * (sent - len(late)), "readings", 0.5),
        emit("lanes", f"{name}: out of order", arrivals.disorder, "scans", 0.5),
        emit("lanes", f"{name}: backlog was there all the time", told["waiting"] == 0, "", 0.5),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=int, default=30, help="how long new readings come")
    parser.add_argument("--backlog", type=int, default=20000, help="scans of each device")
    parser.add_argument("--keys", default="", help="further lines of [uplink], ';' between them")
    parser.add_argument("--line", help="only the one of this name")
    wanted = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="windrow-bench-")
    try:
        authority = Authority(os.path.join(folder, "ca"))
        held = [measure(folder, authority, line, wanted) for line in LINES
                if wanted.line in (None, line[0])]
        return 0 if all(all(one) for one in held) else 1
    finally:
        kill_all()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
