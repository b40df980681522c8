"""A store whose file was damaged while the gateway stood still is set aside, a fresh one begins,
and what had not been delivered comes back out of the damaged one, once, with its times.

WINDROW_SALVAGE_STARTS sets how many starts of the gateway are killed meanwhile (4).
"""
import json
import os
import random
import time

from process import wait_for
from site_parts import Gateway, Simulator, Sink

STARTS = int(os.environ.get("WINDROW_SALVAGE_STARTS", "4"))
PAGE = 4096


def outage(tmp_path):
    """A gateway, stopped, with some delivered and much that waits; its ledger then."""
    simulator, sink = Simulator(tmp_path, 8).start(), Sink(tmp_path).start()
    gateway = Gateway(tmp_path).turbines(simulator, poll="50 ms")
    gateway.set("store", commit_interval="100 ms").uplink(sink, batch_interval="100 ms")
    gateway.start()
    gateway.wait_delivered(500)
    sink.stop()
    wait_for(lambda: gateway.ledger()["waiting"] > 2500, 20, "an outage's worth of readings")
    gateway.stop()
    return simulator, sink, gateway, gateway.json("ledger")


def damage(gateway, at, data):
    with open(gateway.path("data/store/data.mdb"), "r+b") as file:
        file.seek(at)
        file.write(data)


def set_aside(gateway):
    return [name for name in os.listdir(gateway.path("data")) if name.startswith("store.damaged")]


def test_what_waited_comes_back(tmp_path):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    _, sink, gateway, before = outage(tmp_path)
    damage(gateway, 0, bytes(2 * PAGE))  # no meta page: nothing leads to anything any more
    for _ in range(STARTS):
        gateway.process.start()
        time.sleep(chance.uniform(0.05, 0.5))  # the random moment itself
        gateway.kill()
    sink.start()
    gateway.start()
    assert len(set_aside(gateway)) == 1
    salvage = wait_for(lambda: [found for found in [gateway.get("/v1/status")["store"]["salvage"]]
                                if found and found["state"] == "done"], 20, "salvage is done")[0]
    gateway.stop_polling()
    after = gateway.drain()
    assert salvage["from"] == set_aside(gateway)[0]
    assert salvage["lost"] == 0
    assert after["salvaged"] == salvage["readings"]
    assert after["adds_up"]
    # Every reading of both stores, once: nothing was lost, and nothing came twice.
    old = before["total"]["read"]
    assert sink.count() == old + after["read"] - after["salvaged"]
    assert sink.count("conflicts") == 0
    once = "SELECT count(*) FROM (SELECT DISTINCT device, point, time_ms FROM readings)"
    assert sink.query(once)[0][0] == sink.count()
    events = gateway.cli("store", "stat")[1]
    assert "readings recovered from store.damaged-" in events, events
    assert "salvage: " in gateway.cli("status")[1]
    gateway.stop()
    mark = gateway.path(f"data/{salvage['from']}/salvaged")
    assert os.path.exists(mark)
    os.remove(mark)  # as if the power had gone between the last commit and the mark
    gateway.start()
    wait_for(lambda: os.path.exists(mark), 10, "the mark is made again")
    assert gateway.ledger()["salvaged"] == after["salvaged"]


def test_a_store_without_a_root_gives_its_leaves(tmp_path):
    _, sink, gateway, before = outage(tmp_path)
    with open(gateway.path("data/store/data.mdb"), "rb") as file:
        pages = os.path.getsize(file.name) // PAGE
        for number in range(2, pages):
            file.seek(number * PAGE + 10)
            if int.from_bytes(file.read(2), "little") == 1:  # a branch of a tree
                damage(gateway, number * PAGE, b"\xff" * 64)
    damage(gateway, 20, b"\x77")
    damage(gateway, PAGE + 20, b"\x77")
    sink.start()
    gateway.start()
    wait_for(lambda: (gateway.get("/v1/status")["store"]["salvage"] or {}).get("state") == "done",
             20, "salvage is done")
    gateway.stop_polling()
    after = gateway.drain()
    assert sink.count() == before["total"]["read"] + after["read"] - after["salvaged"]
    verified = json.loads(gateway.cli("store", "--json", "verify")[1])
    assert verified["bad"] == 0
    gateway.stop()
