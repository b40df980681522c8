"""wire [--batches N]: bytes a reading on the wire, TLS included.

Batches of 500 scans of 20 points of the reference signal go to `windrow sink` (lines to an endpoint
that answers as InfluxDB does) through a relay of 4 Mbit/s that counts TCP payloads: handshake, TLS
records, headers, bodies. "up" is what the limits hold, "down" is shown. In device order a backlog
is sent; in arrival order readings as they come in, of 50 devices (10 scans of each a batch) and of
500. The physical reference is the order-0 entropy of the differences.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

from certificates import Authority
from endpoint import Endpoint
from measure import emit
from process import kill_all, program
from relay import Relay
from site_parts import Sink

KBIT_S = 4000
CASES = [  # name, order, devices, keys, limit
    ("batch+zstd, device order", "device", 10, "compress = zstd", 2.2),
    ("batch+zstd, arrival order", "arrival", 50, "compress = zstd", 3.2),
    ("batch+zstd, arrival order of 500 devices", "arrival", 500, "compress = zstd", 3.2),
    ("batch+gzip, device order", "device", 10, "compress = gzip", None),
    ("columns+zstd, device order", "device", 10, "format = columns;compress = zstd", 0.9),
    ("columns+zstd, arrival order", "arrival", 50, "format = columns;compress = zstd", None),
    ("line protocol+gzip, device order", "device", 10,
     "type = influx;version = v1;db = wind;compress = gzip", 2.4),
    ("line protocol+gzip, arrival order", "arrival", 50,
     "type = influx;version = v1;db = wind;compress = gzip", None),
]


def measure(folder, url, port, authority, case, batches):
    name, order, devices, keys, limit = case
    relay = Relay(folder, port, 0, KBIT_S).start()
    before = relay.counts()
    result = subprocess.run(
        [program("bench_wire"), order, str(devices), str(batches),
         url.replace(str(port), str(relay.port)), authority.cert,
         f"{keys};batch_records = 500;batch_interval = 1 s"
         + ("" if "influx" in keys else f";token_file = {folder}/token")],
        stdout=subprocess.PIPE, text=True, check=True)
    sent, after = json.loads(result.stdout), relay.counts()
    relay.cut()
    up, down = (after[key] - before[key] for key in ("up", "down"))
    emit("wire", f"{name}, request with its headers",
         sent["bytes_sent"] / sent["readings"], "B/reading")
    emit("wire", f"{name}, down", down / sent["readings"], "B/reading")
    emit("wire", f"{name}, scans a request", sent["readings"] / 20 / sent["requests"], "scans")
    good = emit("wire", f"{name}, up", up / sent["readings"], "B/reading", limit)
    return good, sent["entropy"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--batches", type=int, default=100, help="requests a case")
    wanted = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="windrow-bench-")
    try:
        with open(os.path.join(folder, "token"), "w", encoding="ascii",
                  opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write("0123456789abcdef0123456789abcdef")
        authority = Authority(os.path.join(folder, "ca"))
        sink = Sink(folder, authority, "--discard").start()
        influx = Endpoint(*authority.issue("influx"), lambda *_: (204, "text/plain", ""))
        held = []
        for case in CASES:
            lines = "influx" in case[3]
            good, entropy = measure(folder, f"https://127.0.0.1:{influx.port}" if lines else
                                    sink.url, influx.port if lines else sink.port, authority,
                                    case, wanted.batches)
            held.append(good)
        emit("wire", "order-0 entropy of the differences", entropy, "B/reading")
        return 0 if all(held) else 1
    finally:
        kill_all()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
