"""kill -9 at random moments under load: what a commit covered arrives, once, without a gap.

WINDROW_KILLS sets how often (200), WINDROW_SEED the moments.
"""
import json
import os
import random
import time

import pytest

from served import assert_nothing_invented
from site_parts import Gateway, Simulator, Sink

KILLS = int(os.environ.get("WINDROW_KILLS", "200"))
LONGEST_LIFE_S = 0.6


def stored_by_device(gateway):
    """What the store's own ledger counts, read while the daemon is dead."""
    status, output, errors = gateway.cli("ledger", "--json")
    if not os.path.exists(gateway.path("data/store")):
        return {}  # killed before the store was made
    assert status in (0, 1), output + errors
    return {row["name"]: row["stored"] for row in json.loads(output)["devices"]}


@pytest.mark.lasts(90)
def test_kill_at_random_moments(tmp_path):
    seed = int(os.environ.get("WINDROW_SEED", random.randrange(2**32)))
    print(f"seed {seed}")
    chance = random.Random(seed)
    simulator, sink = Simulator(tmp_path, 8).start(), Sink(tmp_path).start()
    gateway = Gateway(tmp_path).turbines(simulator, poll="50 ms")
    gateway.set("store", commit_interval="100 ms").uplink(sink, batch_interval="100 ms")
    gateway.write()
    committed = {}
    for _ in range(KILLS):
        gateway.process.start()
        time.sleep(chance.uniform(0, LONGEST_LIFE_S))  # the random moment itself
        assert gateway.process.alive(), gateway.process.log()
        gateway.kill()
        for device, stored in stored_by_device(gateway).items():
            assert stored >= committed.get(device, 0), f"{device} lost what a commit covered"
            committed[device] = stored
    gateway.start()
    gateway.wait_delivered(1, 30)
    gateway.stop_polling()
    ledger = gateway.drain(60)
    assert sum(committed.values()) > KILLS  # it was under load
    assert ledger["read"] == ledger["delivered"] >= sum(committed.values())
    assert sink.count() == ledger["delivered"]
    assert sink.count("conflicts") == 0
    for device, stored in committed.items():
        first, last, scans, readings = sink.query(
            "SELECT min(seq), max(seq), count(DISTINCT seq), count(*) FROM readings"
            " WHERE device = ?", device)[0]
        assert (first, scans) == (1, last), f"{device}: {scans} scans of {first}..{last}"
        assert readings >= stored
    assert len(sink.query("SELECT DISTINCT store FROM readings")) == 1
    served = assert_nothing_invented(simulator, sink)
    for device, scans in sink.query("SELECT device, count(DISTINCT seq) FROM readings"
                                    " WHERE value IS NOT NULL GROUP BY device"):
        assert scans <= served[device], f"{device}: more than was served"
