"""through [--seconds N]: CPU of windrowd for a million readings, field to cloud.

200 simulated turbines of 50 registers every 250 ms: 40,000 readings/s, each made durable by a
commit a second and sent as JSON over HTTPS to a discarding sink. Rival on the same work: Fluent
Bit, 3.4 to 4.2 CPU seconds a million.
"""
import argparse
import shutil
import sys
import tempfile
import time

from measure import MIB, cpu_s, emit, rss_anon
from process import kill_all, wait_for
from site_parts import Gateway, Simulator, Sink

TURBINES, POINTS, POLL_MS, LIMIT = 200, 50, 250, 1.0


def build(folder, compress):
    simulator = Simulator(folder, TURBINES, record=False).start()
    sink = Sink(folder, None, "--discard").start()
    gateway = Gateway(folder)
    gateway.sections["store"] = {"commit_interval": "1 s", "keep": "0 s"}
    gateway.sections["profile bench"] = {**{
        f"point.r{number:02d}": f"holding {100 + number} int16, scale 0.1"
        for number in range(POINTS)}}
    gateway.turbines(simulator, poll=f"{POLL_MS} ms", profile="bench")
    gateway.uplink(sink, batch_records=1000, batch_interval="1 s", compress=compress)
    return gateway.start()


def measure(compress, seconds):
    folder = tempfile.mkdtemp(prefix="windrow-bench-")
    try:
        gateway = build(folder, compress)
        pid = gateway.process.popen.pid
        wait_for(lambda: gateway.ledger()["delivered"] > 200_000, 60, "a steady flow")
        cpu, before = cpu_s(pid), gateway.ledger()
        time.sleep(seconds)
        cpu, after = cpu_s(pid) - cpu, gateway.ledger()
        sent = (after["delivered"] - before["delivered"]) / 1e6
        emit("through", f"{compress} rate", sent * 1e6 / seconds, "readings/s")
        emit("through", f"{compress} rss anon", rss_anon(pid) / MIB, "MiB")
        good = emit("through", f"{compress} dropped", after["dropped"], "readings", 0.5)
        return emit("through", f"{compress} cpu", cpu / sent, "s a million", LIMIT) and good
    finally:
        kill_all()
        shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=int, default=20)
    wanted = parser.parse_args()
    return 0 if all([measure(one, wanted.seconds) for one in ("none", "zstd", "gzip")]) else 1


if __name__ == "__main__":
    sys.exit(main())
