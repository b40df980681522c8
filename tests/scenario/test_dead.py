"""`windrow dead`: what an endpoint refused is listed with its reasons, exported, and sent once more
when the cloud has been mended; the ledger adds up at every step, through kills too."""
import csv
import hashlib
import json
import os
import random
import subprocess
import time

import pytest

from certificates import Authority
from endpoint import Endpoint
from process import PATIENCE_S, program, wait_for
from site_parts import Gateway, Simulator

KILLS = int(os.environ.get("WINDROW_DEAD_KILLS", "5"))


class Cloud:
    """Takes every reading but those of each `every`-th scan, until it is mended."""

    def __init__(self, authority):
        self.every, self.held, self.repeats = 5, {}, 0
        self.endpoint = Endpoint(*authority.issue("cloud"), self.answer)

    def answer(self, _path, _headers, body):
        accepted, rejected = 0, []
        for record in json.loads(body)["records"]:
            if self.every and record["seq"] % self.every == 0:
                reason = "unit unknown" if record["device"] == "t01" else "no such device"
                rejected.append({"seq": record["seq"], "device": record["device"],
                                 "reason": reason})
                continue
            accepted += 1
            key = (record["device"], record["seq"])
            assert self.held.get(key, record["values"]) == record["values"]
            self.repeats += key in self.held
            self.held[key] = record["values"]
        return 200, "application/json", json.dumps({"accepted": accepted, "rejected": rejected})


@pytest.fixture(name="cloud")
def make_cloud(tmp_path):
    cloud = Cloud(Authority(tmp_path / "ca"))
    yield cloud
    cloud.endpoint.close()


def begin(tmp_path, cloud, scans=40, **keys):
    """A gateway whose readings have all come to an end: delivered, or dead."""
    simulator = Simulator(tmp_path, 2).start()
    gateway = Gateway(tmp_path).turbines(simulator, poll="50 ms")
    gateway.set("uplink cloud", type="http", url=cloud.endpoint.url,
                ca_file=os.path.join(str(tmp_path), "ca", "ca.pem"), batch_records=20,
                batch_interval="100 ms", **keys)
    gateway.start()
    wait_for(lambda: len(cloud.held) > scans, 20, "scans arrive")
    gateway.stop_polling()
    gateway.drain()
    wait_for(lambda: adds_up(gateway)["waiting"] == 0, 10, "nothing waits in the store either")
    return gateway


def adds_up(gateway):
    status, output, errors = gateway.cli("ledger", "--json")
    assert status == 0, output + errors
    return next(one for one in json.loads(output)["uplinks"] if one["name"] == "cloud")


def dead(gateway, *words):
    status, output, errors = gateway.cli("dead", *words, "--json")
    assert status in (0, 1), errors
    return status, json.loads(output)


def lose_the_store(gateway):
    """Damaged while the gateway stands still: one of its two meta pages is gone, so that only what
    came before the last commit is sure to be found; here nothing new came with it."""
    for _ in range(2):
        gateway.stop()
        gateway.start()
    gateway.stop()
    with open(gateway.path("data/store/data.mdb"), "r+b") as file:
        file.write(bytes(4096))
    gateway.start()
    found = wait_for(lambda: [one for one in [gateway.get("/v1/status")["store"]["salvage"]]
                              if one and one["state"] == "done"], 20, "salvage is done")
    return found[0]


def test_letters_outlive_a_damaged_store(tmp_path, cloud):
    """They come back dead, with their words, and go out once more when asked to."""
    gateway = begin(tmp_path, cloud)
    _, before = dead(gateway)
    salvage = lose_the_store(gateway)
    status, after = dead(gateway)
    assert status == 1 and salvage["letters"] == after["scans"] == before["scans"] > 0
    assert sorted(map(str, after["reasons"])) == sorted(map(str, before["reasons"]))
    for words in (("refused", "reason", "device"), ("time", "points")):
        assert sorted([one[word] for word in words] for one in after["letters"]) == \
            sorted([one[word] for word in words] for one in before["letters"])
    ledger = adds_up(gateway)
    assert ledger["dead"] == after["readings"] and ledger["waiting"] == 0
    cloud.every, cloud.held = 0, {}  # another store: its seqs are others
    status, answer = dead(gateway, "requeue", "cloud")
    assert status == 0 and answer["scans"] == before["scans"], answer
    gateway.drain()
    assert dead(gateway)[1]["scans"] == 0
    assert len(cloud.held) == before["scans"] and cloud.repeats == 0
    ledger = wait_for(lambda: [one for one in [adds_up(gateway)] if one["waiting"] == 0], 10,
                      "nothing waits")[0]
    assert ledger["delivered"] == answer["readings"] and ledger["dead"] == 0


def test_list(tmp_path, cloud):
    gateway = begin(tmp_path, cloud)
    ledger = adds_up(gateway)
    status, answer = dead(gateway)
    assert status == 1 and answer["readings"] == ledger["dead"] > 0
    assert {one["reason"] for one in answer["reasons"]} == {"unit unknown", "no such device"}
    assert sum(one["readings"] for one in answer["reasons"]) == ledger["dead"]
    letter = answer["letters"][0]
    assert letter["seq"] % 5 == 0 and "wind_speed" in letter["points"]
    assert (letter["device"], letter["seq"]) not in cloud.held
    _, some = dead(gateway, "cloud", "--device", "t02", "--reason", "NO SUCH")
    assert {one["device"] for one in some["letters"]} == {"t02"}
    assert dead(gateway, "--reason", "nonsense") == (0, {"scans": 0, "readings": 0, "reasons": [],
                                                        "letters": []})
    status, text, _ = gateway.cli("dead", "--limit", "2")
    assert status == 1 and "unit unknown" in text and "newest 2 of" in text
    gateway.stop()
    assert dead(gateway)[1] == answer, "the same with the gateway stopped"
    assert gateway.cli("dead", "requeue")[0] == 2 and gateway.cli("dead", "a", "b")[0] == 2


def test_export(tmp_path, cloud):
    gateway = begin(tmp_path, cloud)
    answer = dead(gateway)[1]
    for stopped in (False, True):
        path = tmp_path / f"dead{stopped}.ndjson"
        status, output, errors = gateway.cli("dead", "export", "cloud", "--out", path)
        assert status == 0 and str(path) in output, errors
        records = [json.loads(line) for line in open(path, encoding="utf-8")]
        assert [(one["device"], one["seq"], one["reason"]) for one in records] == \
            [(one["device"], one["seq"], one["reason"]) for one in answer["letters"]]
        assert sum(len(one["values"]) for one in records) == answer["readings"]
        digest, name = open(f"{path}.sha256", encoding="utf-8").read().split()
        assert name == path.name and digest == hashlib.sha256(path.read_bytes()).hexdigest()
        if not stopped:
            gateway.stop()
    rows = list(csv.DictReader(gateway.cli("dead", "export", "cloud", "--format", "csv")[1]
                               .splitlines()))
    assert len(rows) == answer["readings"] and rows[0]["reason"] in ("unit unknown",
                                                                     "no such device")
    assert rows[0]["uplink"] == "cloud" and float(rows[0]["value"]) is not None
    assert gateway.cli("dead", "export", "cloud", "--out", "/nowhere/x")[0] == 1


def test_requeue(tmp_path, cloud):
    """One device first, then all; each reading arrives once, none is left."""
    gateway = begin(tmp_path, cloud, points="*.wind_speed *.power")
    before = adds_up(gateway)
    letters = dead(gateway)[1]
    assert letters["readings"] == before["dead"] == 2 * letters["scans"]
    cloud.every = 0
    status, answer = dead(gateway, "requeue", "cloud", "--device", "t01")
    assert status == 0 and 0 < answer["scans"] < letters["scans"] and answer["refused"] == 0
    wait_for(lambda: adds_up(gateway)["waiting"] == 0, 20, "those of one device are delivered")
    assert dead(gateway)[1]["scans"] == letters["scans"] - answer["scans"]
    status, output, _ = gateway.cli("dead", "requeue", "cloud")
    assert status == 0 and "wait again" in output
    ledger = wait_for(lambda: (lambda one: one["waiting"] == 0 and one)(adds_up(gateway)), 20,
                      "all are delivered")
    assert ledger["dead"] == 0 and dead(gateway)[0] == 0
    assert ledger["delivered"] == before["delivered"] + before["dead"] == 2 * len(cloud.held)
    assert cloud.repeats == 0
    assert gateway.cli("dead", "requeue", "nobody")[0] == 1


def test_requeue_without_the_gateway(tmp_path, cloud):
    gateway = begin(tmp_path, cloud)
    gateway.stop()
    before = adds_up(gateway)
    status, answer = dead(gateway, "requeue", "cloud")
    assert status == 0 and answer["scans"] > 0
    after = adds_up(gateway)
    assert after["dead"] == 0 and after["waiting"] == before["dead"] + before["waiting"]
    cloud.every = 0
    gateway.start()
    wait_for(lambda: adds_up(gateway)["waiting"] == 0, 20, "all are delivered")
    assert cloud.repeats == 0


def test_refused_again(tmp_path, cloud):
    gateway = begin(tmp_path, cloud)
    before = dead(gateway)[1]
    assert dead(gateway, "requeue", "cloud")[0] == 0
    wait_for(lambda: dead(gateway)[1]["scans"] == before["scans"], 20, "they are refused again")
    assert adds_up(gateway)["dead"] == before["readings"]


def test_drop(tmp_path, cloud):
    gateway = begin(tmp_path, cloud)
    before = adds_up(gateway)
    status, answer = dead(gateway, "drop", "cloud", "--reason", "unit")
    assert status == 0 and answer["scans"] > 0
    left = dead(gateway)[1]
    assert {one["reason"] for one in left["reasons"]} == {"no such device"}
    assert adds_up(gateway) == before, "the ledger still counts them as refused"
    gateway.stop()
    assert dead(gateway, "drop", "cloud")[0] == 0 and dead(gateway)[0] == 0
    assert adds_up(gateway)["dead"] == before["dead"]


def test_kills_lose_nothing(tmp_path, cloud):
    """Killed around the moment of a requeue: dead or waiting, never neither."""
    gateway = begin(tmp_path, cloud, scans=100)
    total = adds_up(gateway)["offered"]
    dice = random.Random(7)
    for _ in range(KILLS):
        command = subprocess.Popen([program("windrow"), "dead", "-c", gateway.config_path,
                                    "requeue", "cloud"], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        time.sleep(dice.random() * 0.05)  # any moment will do
        gateway.kill()
        command.wait(PATIENCE_S)
        ledger = adds_up(gateway)
        assert ledger["offered"] == total
        assert ledger["dead"] == dead(gateway)[1]["readings"]
        gateway.start()
        wait_for(lambda: adds_up(gateway)["waiting"] == 0, 20, "what waits is refused again")
    cloud.every = 0
    assert dead(gateway, "requeue", "cloud")[0] == 0
    ledger = wait_for(lambda: (lambda one: one["waiting"] == 0 and one)(adds_up(gateway)), 20,
                      "all are delivered")
    assert ledger["dead"] == 0 and ledger["delivered"] == total
    assert sum(len(values) for values in cloud.held.values()) == total
