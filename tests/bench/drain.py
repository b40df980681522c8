"""drain [--seconds N]: how fast a backlog goes, and how soon an outage is forgotten.

First a million waiting readings to a discarding sink, beside a bare libcurl loop with ready-made
documents (bench_drain). Then a site of 1,000 readings a second whose sink is away for 30 s.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time

from measure import emit
from process import kill_all, wait_for
from site_parts import Gateway, Simulator, Sink

TURBINES, POINTS, LIMIT_S = 50, 20, 2


def backlog(folder):
    sink = Sink(folder, None, "--discard", name="backlog").start()
    program = os.path.join(os.environ["WINDROW_BUILD_DIR"], "tests", "bench_drain")
    good = True
    for keys in ("compress = none", "compress = zstd", "format = columns;compress = zstd"):
        print(f"# {keys}", file=sys.stderr, flush=True)
        good = subprocess.run([program, sink.url, sink.authority.cert, keys],
                              check=False).returncode == 0 and good
    sink.stop()
    return good


def outage(folder, seconds):
    simulator = Simulator(folder, TURBINES, record=False).start()
    sink = Sink(folder, None, "--discard").start()
    gateway = Gateway(folder)
    gateway.sections["profile bench"] = {"max_gap": "16", **{
        f"point.r{number:02d}": f"holding {number} uint16" for number in range(POINTS)}}
    gateway.turbines(simulator, poll="1 s", profile="bench")
    gateway.uplink(sink, batch_records=1000, batch_interval="1 s")
    gateway.start()
    wait_for(lambda: gateway.ledger()["delivered"] > 0, 30, "delivery before the outage")
    sink.stop()
    time.sleep(seconds)
    waiting = gateway.ledger()["waiting"]
    sink.start()
    began = time.monotonic()
    # One batch interval of fresh readings always waits.
    wait_for(lambda: gateway.ledger()["waiting"] <= 2 * TURBINES * POINTS, 120, "the backlog gone")
    took = time.monotonic() - began
    emit("drain", f"readings waiting after an outage of {seconds} s", waiting, "readings")
    return emit("drain", f"outage of {seconds} s cleared", took, "s", LIMIT_S)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=int, default=30, help="how long the outage lasts")
    wanted = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="windrow-bench-")
    try:
        return 0 if all([backlog(folder), outage(folder, wanted.seconds)]) else 1
    finally:
        kill_all()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
