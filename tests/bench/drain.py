"""drain [--seconds N] [--readings N]: how fast a backlog goes, and how soon an outage is forgotten.

A backlog of a million readings (--readings 10M) to a discarding sink over loopback and over 100 ms
of round trip (tests/support/relay.c), beside a bare libcurl loop that posts ready-made documents
(bench_drain); and through 1 Mbit/s (half a million if not told otherwise; tc tbf before a network
namespace, where that is permitted). Then a site of 1,000 readings a second whose sink is away for
30 s.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

from certificates import Authority
from measure import MIB, emit
from process import Process, kill_all, program, wait_for
from relay import Relay
from site_parts import Gateway, Simulator, Sink
from thin_line import NotPermitted, ThinLine

TURBINES, POINTS, LIMIT_S, DELAY_MS, KBIT_S = 50, 20, 2, 50, 1000
A_SCAN = 1000  # readings: bench_drain has 50 devices of 20 points
LINK, CPU, MEMORY_MIB = 0.85, 0.6, 48  # parts of the link and of a bare loop's rate, at least
FORMATS = [("batch+zstd", "compress = zstd"),
           ("columns+zstd", "format = columns;compress = zstd")]


def at_least(name, value, unit, limit):
    emit("drain", name, value, unit, limit, limit / value)
    return value >= limit


def drain(name, url, authority, keys, readings, *mode):
    """Figures of one backlog; what any line tells of it is printed."""
    print(f"# {readings} readings, {name}", file=sys.stderr, flush=True)
    result = subprocess.run([program("bench_drain"), url, authority.cert, keys,
                             str(readings // A_SCAN), *mode],
                            stdout=subprocess.PIPE, text=True, check=True)
    told = json.loads(result.stdout)
    millions = told["readings"] / 1e6
    emit("drain", f"{name}: backlog of {millions:g} M gone", told["wall_s"], "s")
    emit("drain", f"{name}: CPU", told["cpu_s"] / millions, "s a million")
    emit("drain", f"{name}: requests with their headers",
         told["bytes_sent"] / told["readings"], "B/reading")
    return told


def beside_bare(name, url, authority, keys, readings, limit):
    told = drain(name, url, authority, keys, readings)
    emit("drain", f"{name}: CPU, times that of a bare loop", told["cpu_s"] / told["bare_cpu_s"],
         "times")
    return at_least(f"{name}: part of a bare loop's rate", told["bare_wall_s"] / told["wall_s"],
                    "of the rate", limit)


def loopback(folder, readings):
    """Without a delay the processors are the limit, with one what four requests in flight allow."""
    sink = Sink(folder, None, "--discard", name="backlog").start()
    good = [beside_bare(f"{name}, 0 ms", sink.url, sink.authority, keys, readings, CPU)
            for name, keys in [("batch", "compress = none"), *FORMATS]]
    line = Relay(folder, sink.port, DELAY_MS).start()
    far = f"https://127.0.0.1:{line.port}/v1/readings"
    good += [beside_bare(f"{name}, {2 * DELAY_MS} ms", far, sink.authority, keys, readings, LINK)
             for name, keys in FORMATS]
    line.cut()
    sink.stop()
    return all(good)


def thin(folder, readings):
    """Through the link's rate as tc counts it, which is of whole packets."""
    try:
        line = ThinLine(KBIT_S)
    except NotPermitted as why:
        print(f"# not measured through 1 Mbit/s: {why}", file=sys.stderr, flush=True)
        return True
    try:
        authority = Authority(os.path.join(folder, "thin-ca"))
        cert, key = authority.issue("thin", f"IP:{line.address}")
        sink = Process("thin", [*line.run, program("windrow"), "sink", "--listen",
                                f"{line.address}:8443", "--cert", cert, "--key", key,
                                "--discard"], folder).start()
        sink.wait_log("listening")
        good = [through(f"{name}, 1 Mbit/s", f"https://{line.address}:8443/v1/readings", authority,
                        keys, readings) for name, keys in FORMATS]
        sink.stop()
    finally:
        line.close()
    return all(good)


def through(name, url, authority, keys, readings):
    told = drain(name, url, authority, keys, readings, "alone")
    used = told["bytes_sent"] * 8 / 1000 / KBIT_S / told["wall_s"]
    emit("drain", f"{name}: rate", told["readings"] / told["wall_s"], "readings/s")
    small = emit("drain", f"{name}: anonymous memory, the bench's own with it",
                 told["anon_bytes"] / MIB, "MiB", MEMORY_MIB)
    return at_least(f"{name}: part of the link used", used, "of the link", LINK) and small


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


def count(text):
    return int(text.rstrip("Mk")) * {"M": 1000000, "k": 1000}.get(text[-1:], 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=int, default=30, help="how long the outage lasts")
    parser.add_argument("--readings", type=count, metavar="N", help="of each backlog, 10M")
    wanted = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="windrow-bench-")
    try:
        return 0 if all([loopback(folder, wanted.readings or 1000000),
                         thin(folder, wanted.readings or 500000),
                         outage(folder, wanted.seconds)]) else 1
    finally:
        kill_all()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
