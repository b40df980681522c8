"""site [--turbines N] [--points N] [--seconds N] [--poll MS]: a wind farm at its usual rate.

Polls simulated turbines (770 of 20 points at 1 Hz), commits every second, sends all of it to a
discarding sink over HTTPS; reports CPU, memory and lateness of windrowd alone.
"""
import argparse
import shutil
import statistics
import sys
import tempfile
import time

from measure import MIB, cpu_s, emit, rss_anon
from process import kill_all, wait_for
from site_parts import Gateway, Simulator, Sink

WARM_UP_S = 60


def build(folder, turbines, points, poll_ms):
    simulator = Simulator(folder, turbines, record=False).start()
    sink = Sink(folder, None, "--discard").start()
    gateway = Gateway(folder)
    gateway.sections["store"] = {"commit_interval": "1 s", "keep": "0 s"}
    gateway.sections["profile bench"] = {"max_gap": "16", **{
        f"point.r{number:02d}": f"holding {number} uint16" for number in range(points)}}
    gateway.turbines(simulator, poll=f"{poll_ms} ms", profile="bench")
    gateway.uplink(sink, batch_records=1000, batch_interval="1 s")
    return gateway.start()


def polls(gateway):
    devices = gateway.get("/v1/devices")
    devices = devices["devices"] if isinstance(devices, dict) else devices
    return {device["name"]: device for device in devices}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--turbines", type=int, default=770)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--poll", type=int, default=1000)
    parser.add_argument("--cpu", type=float, help="limit: percent of a core")
    parser.add_argument("--memory", type=float, default=32, help="limit: RssAnon in MiB")
    wanted = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="windrow-bench-")
    name = f"site {wanted.turbines}x{wanted.points}"
    try:
        gateway = build(folder, wanted.turbines, wanted.points, wanted.poll)
        pid = gateway.process.popen.pid
        wait_for(lambda: all(one["polls"] > 0 for one in polls(gateway).values()), 60, "all polled")
        settle = min(WARM_UP_S, wanted.seconds // 2)
        time.sleep(settle)
        before, cpu, began = polls(gateway), cpu_s(pid), time.monotonic()
        anonymous = [rss_anon(pid)]
        while time.monotonic() - began < wanted.seconds:
            time.sleep(1)
            anonymous.append(rss_anon(pid))
        after, used, lasted = polls(gateway), cpu_s(pid) - cpu, time.monotonic() - began
        done = [after[key]["polls"] - before[key]["polls"] for key in after]
        missed = sum(max(0, int(lasted * 1000 / wanted.poll) - 1 - count) for count in done)
        failures = sum(after[key]["failures"] - before[key]["failures"] for key in after)
        late = [one["late_us_max"] / 1000 for one in after.values() if "late_us_max" in one]
        ledger = gateway.ledger()
        good = [
            emit("site", f"{name} cpu", 100 * used / lasted, "% of a core", wanted.cpu),
            emit("site", f"{name} rss anon", max(anonymous) / MIB, "MiB", wanted.memory),
            emit("site", f"{name} growth", (statistics.median(anonymous[-5:])
                                            - statistics.median(anonymous[:5])) / MIB, "MiB", 1),
            emit("site", f"{name} missed periods", missed, "polls", 0.5),
            emit("site", f"{name} failures", failures, "polls", 0.5),
            emit("site", f"{name} dropped", ledger["dropped"], "readings", 0.5),
            emit("site", f"{name} rate", sum(done) / lasted, "polls/s"),
        ]
        if late:
            emit("site", f"{name} lateness p50", statistics.median(late), "ms")
            emit("site", f"{name} lateness max", max(late), "ms")
        return 0 if all(good) else 1
    finally:
        kill_all()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
