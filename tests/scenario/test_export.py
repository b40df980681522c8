"""`windrow export`: what waits for an uplink leaves on a stick, is marked as delivered once its
file is safe, and the ledger adds up; killed at any moment, what is marked is in a whole file."""
import csv
import hashlib
import json
import os
import random
import subprocess
import time

import pytest

from process import PATIENCE_S, free_ports, program, wait_for
from site_parts import Gateway, Simulator, Sink

KILLS = int(os.environ.get("WINDROW_EXPORT_KILLS", "12"))
POINTS = 8


def begin(folder, scans=60, **keys):
    """A gateway whose cloud cannot be reached, and which has stopped polling."""
    simulator = Simulator(folder, 2).start()
    gateway = Gateway(folder).turbines(simulator, poll="50 ms")
    gateway.set("uplink cloud", **{"type": "http", "url": f"https://127.0.0.1:{free_ports()}/",
                                   "batch_records": 20, "batch_interval": "100 ms", **keys})
    gateway.start()
    wait_for(lambda: gateway.ledger()["stored"] >= scans * POINTS, 20, "scans are stored")
    return at_rest(gateway)


def at_rest(gateway):
    """No device any more, and all that was read is in the store."""
    gateway.stop_polling()
    gateway.stop()
    return gateway.start()


@pytest.fixture(name="gateway")
def make_gateway(tmp_path):
    return begin(tmp_path)


def uplink(gateway):
    status, output, errors = gateway.cli("ledger", "--json")
    assert status == 0, output + errors
    return next(one for one in json.loads(output)["uplinks"] if one["name"] == "cloud")


def empty(gateway):
    wait_for(lambda: uplink(gateway)["waiting"] == 0, 10, "nothing waits")
    return uplink(gateway)


def export(gateway, path, *words, name="cloud"):
    status, output, errors = gateway.cli("export", *([name] if name else []), "--json", "--out",
                                         path, *words)
    assert status == 0, output + errors
    answer = json.loads(output)
    digest, sum_of = open(f"{path}.sha256", encoding="utf-8").read().split()
    data = open(path, "rb").read()
    assert digest == answer["sha256"] == hashlib.sha256(data).hexdigest()
    assert sum_of == os.path.basename(path) and not os.path.exists(f"{path}.part")
    return answer


def records(path):
    return [json.loads(line) for line in open(path, encoding="utf-8")]


def identities(path):
    found = [(one["device"], one["seq"]) for one in records(path)]
    assert len(set(found)) == len(found), "each scan once"
    return set(found)


def test_what_waits(gateway, tmp_path):
    """The same with the gateway running and stopped; nothing is marked unless asked for."""
    before = uplink(gateway)
    assert before["waiting"] == before["offered"] > 0
    answer = export(gateway, tmp_path / "a.ndjson")
    assert answer["readings"] == before["waiting"] and "marked" not in answer
    assert sum(len(one["values"]) for one in records(tmp_path / "a.ndjson")) == before["waiting"]
    assert {one["gateway"] for one in records(tmp_path / "a.ndjson")} == {"gateway"}
    rows = export(gateway, tmp_path / "a.csv", "--format", "csv")
    assert rows["readings"] == len(list(csv.DictReader(open(tmp_path / "a.csv",
                                                            encoding="utf-8"))))
    one = export(gateway, tmp_path / "t01.ndjson", "--device", "*01")
    assert {device for device, _ in identities(tmp_path / "t01.ndjson")} == {"t01"}
    assert 0 < one["scans"] < answer["scans"]
    assert uplink(gateway) == before
    gateway.stop()
    assert export(gateway, tmp_path / "b.ndjson")["sha256"] == answer["sha256"]
    status, output, _ = gateway.cli("export", "cloud")
    assert status == 0 and output == open(tmp_path / "a.ndjson", encoding="utf-8").read()


def test_times(gateway, tmp_path):
    export(gateway, tmp_path / "all.ndjson", "--from", "-1h", name=None)
    times = sorted(one["time"] for one in records(tmp_path / "all.ndjson"))
    middle = times[len(times) // 2]
    export(gateway, tmp_path / "late.ndjson", "--from", middle)
    export(gateway, tmp_path / "early.ndjson", "--to", middle)
    assert min(one["time"] for one in records(tmp_path / "late.ndjson")) >= middle
    assert identities(tmp_path / "late.ndjson") | identities(tmp_path / "early.ndjson") == \
        identities(tmp_path / "all.ndjson")


def test_usage(gateway, tmp_path):
    for words in ([], ["nobody"], ["cloud", "--mark-delivered"], ["cloud", "--format", "xml"],
                  ["--from", "-1h", "--mark-delivered", "--out", tmp_path / "x"],
                  ["cloud", "--from", "yesterday"]):
        assert gateway.cli("export", *words)[0] == 2, words
    assert gateway.cli("export", "cloud", "--out", "/nowhere/x")[0] == 1
    assert os.listdir(tmp_path) and not os.path.exists(tmp_path / "x")


@pytest.mark.parametrize("running", [True, False])
def test_marked(gateway, tmp_path, running):
    """A part first, then the rest; a second time there is nothing left to hand over."""
    before = uplink(gateway)
    if not running:
        gateway.stop()
    first = export(gateway, tmp_path / "1.ndjson", "--device", "t01", "--mark-delivered")
    assert first["marked"] == {"scans": first["scans"], "readings": first["readings"], "before": 0,
                               "open": 0}
    ledger = uplink(gateway)
    assert ledger["delivered"] == first["readings"]
    assert ledger["waiting"] == before["waiting"] - first["readings"]
    second = export(gateway, tmp_path / "2.ndjson", "--mark-delivered")
    ledger = uplink(gateway)
    assert (ledger["delivered"], ledger["waiting"]) == (before["waiting"], 0)
    assert not identities(tmp_path / "1.ndjson") & identities(tmp_path / "2.ndjson")
    third = export(gateway, tmp_path / "3.ndjson", "--mark-delivered")
    assert third["scans"] == 0 and third["marked"]["scans"] == 0 and second["scans"] > 0
    assert uplink(gateway) == ledger
    if not running:
        gateway.start()
    assert uplink(gateway) == ledger
    wait_for(lambda: gateway.uplink_state()["waiting"] == 0, 10, "status says so, too")


def test_selected_points(tmp_path):
    gateway = begin(tmp_path, points="*.power *.state")
    before = uplink(gateway)
    answer = export(gateway, tmp_path / "a.ndjson", "--mark-delivered")
    assert {tuple(one["values"]) for one in records(tmp_path / "a.ndjson")} == {("power", "state")}
    ledger = uplink(gateway)
    assert answer["readings"] == ledger["delivered"] == 2 * answer["scans"]
    assert ledger["not_selected"] == before["offered"] - ledger["delivered"]
    assert ledger["waiting"] == 0


def test_what_was_handed_over_is_not_sent(tmp_path):
    """The cloud comes back: it gets what came after the export, and a batch that had been on its
    way at most."""
    gateway = begin(tmp_path)
    export(gateway, tmp_path / "a.ndjson", "--mark-delivered")
    handed, total = identities(tmp_path / "a.ndjson"), uplink(gateway)["offered"]
    gateway.stop()
    sink = Sink(tmp_path).start()
    simulator = Simulator(tmp_path, 2, name="again").start()
    gateway.turbines(simulator, poll="50 ms").uplink(sink)
    gateway.start()
    sink.wait_readings(20 * POINTS)
    at_rest(gateway).drain()
    sent = set(sink.query("SELECT DISTINCT device, seq FROM readings"))
    assert sent and not sent & handed
    ledger = empty(gateway)
    assert ledger["delivered"] == total + sink.count() == ledger["offered"]


def test_while_the_network_delivers(tmp_path):
    """Both at once: every reading is delivered, counted once, and nothing is left."""
    sink = Sink(tmp_path).start()
    simulator = Simulator(tmp_path, 2).start()
    gateway = Gateway(tmp_path).turbines(simulator, poll="20 ms").uplink(
        sink, batch_interval="50 ms", batch_records=5)
    gateway.start().wait_delivered(1)
    held = set()
    for turn in range(8):
        path = tmp_path / f"{turn}.ndjson"
        export(gateway, path, "--mark-delivered")
        held |= identities(path)
    at_rest(gateway).drain()
    ledger = empty(gateway)
    assert ledger["delivered"] == ledger["offered"]
    everything = held | set(sink.query("SELECT DISTINCT device, seq FROM readings"))
    assert len(everything) * POINTS == ledger["offered"]


@pytest.mark.parametrize("running", [True, False])
def test_killed_at_any_moment(tmp_path, running):
    """What counts as delivered is in a whole file, whenever the command dies; once more, and all
    is."""
    gateway = begin(tmp_path, scans=200)
    total, dice = uplink(gateway)["waiting"], random.Random(11)
    if not running:
        gateway.stop()
    begun = time.monotonic()
    assert gateway.cli("export", "cloud", "--out", tmp_path / "trial")[0] == 0
    takes = time.monotonic() - begun
    marked = 0
    for turn in range(KILLS):
        path = tmp_path / f"{turn}.ndjson"
        device = f"t0{1 + turn % 2}"
        command = subprocess.Popen(
            [program("windrow"), "export", "-c", gateway.config_path, "cloud", "--out", path,
             "--device", device, "--mark-delivered"], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        time.sleep(dice.random() * takes * 1.5)
        command.kill()
        command.wait(PATIENCE_S)
        # A request that the daemon has taken is done to its end, without who asked.
        if running:
            assert gateway.get("/v1/status")
        ledger = uplink(gateway)
        assert ledger["delivered"] + ledger["waiting"] == total
        if ledger["delivered"] > marked:
            assert sum(len(one["values"]) for one in records(path)) >= \
                ledger["delivered"] - marked
        marked = ledger["delivered"]
    export(gateway, tmp_path / "rest.ndjson", "--mark-delivered")
    ledger = uplink(gateway)
    assert (ledger["delivered"], ledger["waiting"]) == (total, 0)
    held = set()
    for name in os.listdir(tmp_path):
        if name.endswith(".ndjson"):
            held |= identities(tmp_path / name)
    assert len(held) * POINTS == total
