"""What every uplink keeps to, whatever it speaks: through cut connections, delays, errors and
restarts of both sides all readings arrive, each once in the receiving table (or as a repeat known
by its identity), the dead letters are exactly the refused ones, and the ledger adds up.

$WINDROW_CONTRACT_READINGS sets how many (the long run: 100000)."""
import collections
import json
import os
import re
import subprocess
import time

import pytest

from chaos import Chaos
from process import program, wait_for
from receivers import SEED, SIDES
from site_parts import Gateway, Simulator

READINGS = int(os.environ.get("WINDROW_CONTRACT_READINGS", "3000"))
TURBINES = 6
LIMIT_S = 60 + READINGS / 200


def test_every_registered_type_has_its_proof():
    text = subprocess.run([program("windrow"), "keys", "--example"], capture_output=True, text=True,
                          check=True).stdout
    uplinks = text[text.index("[uplink"):]
    registered = set(re.findall(r"# with type = ([\w-]+):", uplinks))
    assert registered == {side.type for side in SIDES}


@pytest.fixture(name="receiver", params=SIDES, ids=lambda side: side.__name__.removesuffix("Side"))
def make_receiver(request, tmp_path):
    receiver = request.param(tmp_path)
    yield receiver
    receiver.close()


@pytest.fixture(name="line")
def make_line(receiver):
    """What stands between the gateway and the started receiver; None where nothing can."""
    receiver.start()
    line = None
    if receiver.port is not None:
        line = Chaos(receiver.port, SEED, receiver.http, receiver.most)
        receiver.line(line.port)
    yield line
    if line is not None:
        line.close()


def wait_read(gateway, count):
    wait_for(lambda: gateway.ledger()["read"] >= count, LIMIT_S, lambda: str(gateway.ledger()))


def test_all_arrives_through_a_bad_line(tmp_path, receiver, line):
    simulator = Simulator(tmp_path, TURBINES, record=False).start()
    gateway = Gateway(tmp_path).turbines(simulator, poll="50 ms" if READINGS < 20000 else "20 ms")
    gateway.set("uplink cloud", type=receiver.type, send="raw", batch_records=50,
                batch_interval="100 ms", **receiver.keys(line and line.port))
    if receiver.type != "file":
        gateway.set("uplink cloud", timeout="3 s", connect_timeout="2 s")
    gateway.start()
    for part in range(1, 4):
        wait_read(gateway, READINGS * part // 4)
        if part == 2:
            receiver.restart()
            receiver.line(line and line.port)
        else:
            gateway.kill()
            receiver.gateway_died()
            gateway.start()
    wait_read(gateway, READINGS)
    gateway.stop_polling()
    # The line stays bad until most is through, so that the rest's way is proved as well.
    end = time.monotonic() + 5
    while gateway.ledger()["waiting"] > 0 and time.monotonic() < end:
        time.sleep(0.1)
    if line is not None:
        wait_for(lambda: line.cuts > 3, 20, lambda: f"the line is bad: {line.cuts} cuts")
        line.calm()
    receiver.calm()
    assert_arrived(receiver, gateway, gateway.drain(LIMIT_S))


def assert_arrived(receiver, gateway, ledger):
    assert ledger["read"] == ledger["delivered"] + ledger["dead"] + ledger["dropped"]
    assert ledger["dropped"] == 0 and ledger["waiting"] == 0

    def count():
        return sum(len(points) for points in receiver.readings().values())

    wait_for(lambda: count() == ledger["delivered"], 15, lambda: f"{ledger} against {count()}")
    found = receiver.readings()
    assert all(len(set(points)) == len(points) for points in found.values())
    dead = dead_letters(gateway)
    assert sum(map(len, dead.values())) == ledger["dead"]
    devices = collections.defaultdict(set)
    for device, seq in [*found, *dead]:
        devices[device].add(seq)
    assert len(devices) == TURBINES
    for device, seqs in devices.items():
        assert seqs == set(range(1, len(seqs) + 1)), f"{device} has gaps"
        refused = {seq for seq in seqs if receiver.refused(device, seq)}
        assert {seq for name, seq in dead if name == device} == refused
        assert not {seq for name, seq in found if name == device} & refused
    refuses = any(receiver.refused("t02", seq) for seq in range(1, 22))
    assert bool(dead) == refuses, "nothing was refused"


def dead_letters(gateway):
    """(device, seq) -> names of the points of what `windrow dead` has."""
    status, lines, errors = gateway.cli("dead", "export", "cloud")
    assert status in (0, 1), errors
    found = {}
    for line in lines.splitlines():
        record = json.loads(line)
        assert (record["device"], record["seq"]) not in found
        found[record["device"], record["seq"]] = list(record["values"])
    return found
