"""drain [--seconds N] [--full]: how fast a backlog goes, and how soon an outage is forgotten.

A million waiting readings to a discarding sink, beside a bare libcurl loop with ready-made
documents (bench_drain), over loopback and over 100 ms of round trip (tests/support/relay.c); half a
million through 1 Mbit/s (tc tbf before a network namespace, where that is permitted). --full: ten
million each. Then a site of 1,000 readings a second whose sink is away for 30 s.
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
from measure import emit
from process import Process, kill_all, program, wait_for
from relay import Relay
from site_parts import Gateway, Simulator, Sink
from thin_line import NotPermitted, ThinLine

TURBINES, POINTS, LIMIT_S, DELAY_MS, KBIT_S = 50, 20, 2, 50, 1000


def drain(*words):
    print("# " + " ".join(words[2:]), file=sys.stderr, flush=True)
    return subprocess.run([program("bench_drain"), *words], check=False).returncode == 0


def backlog(folder, full):
    scans = "10000" if full else "1000"
    sink = Sink(folder, None, "--discard", name="backlog").start()
    good = [drain(sink.url, sink.authority.cert, keys, scans)
            for keys in ("compress = none", "compress = zstd", "format = columns;compress = zstd")]
    line = Relay(folder, sink.port, DELAY_MS).start()
    far = f"https://127.0.0.1:{line.port}/v1/readings"
    print(f"# {2 * DELAY_MS} ms of round trip", file=sys.stderr, flush=True)
    good.append(drain(far, sink.authority.cert, "compress = zstd", scans, "long"))
    line.cut()
    sink.stop()
    return all(good)


def thin(folder, full):
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
        result = subprocess.run(
            [program("bench_drain"), f"https://{line.address}:8443/v1/readings", authority.cert,
             "compress = zstd", "10000" if full else "500", "alone"],
            stdout=subprocess.PIPE, text=True, check=True)
        told = json.loads(result.stdout)
        sink.stop()
    finally:
        line.close()
    used = told["bytes_sent"] * 8 / 1000 / KBIT_S / told["wall_s"]
    emit("drain", "1 Mbit/s: readings", told["readings"] / told["wall_s"], "readings/s")
    return emit("drain", "1 Mbit/s: part of the link unused", 1 - used, "of the link", 0.15)


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
    parser.add_argument("--full", action="store_true", help="ten million readings")
    wanted = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="windrow-bench-")
    try:
        return 0 if all([backlog(folder, wanted.full), thin(folder, wanted.full),
                         outage(folder, wanted.seconds)]) else 1
    finally:
        kill_all()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
