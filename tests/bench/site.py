"""site [--turbines N] [--points N] [--seconds N] [--poll MS] [--fault LIST]: a farm as it runs.

Polls simulated turbines (770 of 20 points at 1 Hz), commits every second, sends all of it to a
discarding sink over HTTPS; reports CPU, memory and lateness of windrowd alone. With --fault (as
`windrow simulate` takes it, "dead:3,slow:5,lying:7") the turbines named are left out of the counts.
"""
import argparse
import re
import shutil
import statistics
import sys
import tempfile
import time

from measure import MIB, cpu_s, emit, rss_anon
from process import kill_all, wait_for
from site_parts import Gateway, Simulator, Sink

WARM_UP_S = 60


def build(folder, turbines, points, poll_ms, fault):
    faults = ("--fault", fault) if fault else ()
    simulator = Simulator(folder, turbines, *faults, record=False).start()
    sink = Sink(folder, None, "--discard").start()
    gateway = Gateway(folder)
    gateway.sections["store"] = {"commit_interval": "1 s", "keep": "0 s"}
    gateway.sections["profile bench"] = {"max_gap": "16", **{
        f"point.r{number:02d}": f"holding {number} uint16" for number in range(points)}}
    gateway.turbines(simulator, poll=f"{poll_ms} ms", profile="bench")
    gateway.uplink(sink, batch_records=1000, batch_interval="1 s")
    return gateway.start()


def polls(gateway, faulty=frozenset()):
    devices = gateway.get("/v1/devices")
    devices = devices["devices"] if isinstance(devices, dict) else devices
    return {device["name"]: device for device in devices if int(device["name"][1:]) not in faulty}


def turbines_of(fault):
    """dead:3,slow:5-6 -> {3, 5, 6}"""
    spans = re.findall(r":(\d+)(?:-(\d+))?", fault)
    return {i for first, last in spans for i in range(int(first), int(last or first) + 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--turbines", type=int, default=770)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--poll", type=int, default=1000)
    parser.add_argument("--cpu", type=float, help="limit: percent of a core")
    parser.add_argument("--memory", type=float, default=32, help="limit: RssAnon in MiB")
    parser.add_argument("--fault", default="", help="faulty turbines, e.g. dead:3,slow:5,lying:7")
    wanted = parser.parse_args()
    faulty = turbines_of(wanted.fault)
    folder = tempfile.mkdtemp(prefix="windrow-bench-")
    name = f"site {wanted.turbines}x{wanted.points}"
    try:
        gateway = build(folder, wanted.turbines, wanted.points, wanted.poll, wanted.fault)
        pid = gateway.process.popen.pid
        wait_for(lambda: all(one["polls"] > 0 for one in polls(gateway, faulty).values()), 60,
                 "all polled")
        settle = min(WARM_UP_S, wanted.seconds // 2)
        time.sleep(settle)
        before, cpu, began = polls(gateway, faulty), cpu_s(pid), time.monotonic()
        anonymous = [rss_anon(pid)]
        while time.monotonic() - began < wanted.seconds:
            time.sleep(1)
            anonymous.append(rss_anon(pid))
        after, used, lasted = polls(gateway, faulty), cpu_s(pid) - cpu, time.monotonic() - began
        done = [after[key]["polls"] - before[key]["polls"] for key in after]
        missed = sum(max(0, int(lasted * 1000 / wanted.poll) - 1 - count) for count in done)
        failures = sum(after[key]["failures"] - before[key]["failures"] for key in after)
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
        gateway.stop()
        late = re.search(r"late by p50 (\S+) ms, p99 (\S+) ms, at most (\S+) ms",
                         gateway.process.log(whole=True))
        for quantile, value in zip(("p50", "p99", "max"), late.groups()):
            emit("site", f"{name} lateness {quantile}", float(value), "ms")
        return 0 if all(good) else 1
    finally:
        kill_all()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
