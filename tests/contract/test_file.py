"""Type file: kill -9 at random moments, rotation and compression under load; every scan is in the
files, whole, and what is there twice is known by its identity.

WINDROW_FILE_KILLS sets how often (8).
"""
import collections
import glob
import os
import random
import time

import pytest

from process import wait_for
from site_parts import Gateway, Simulator
from written_files import identities, tear

KILLS = int(os.environ.get("WINDROW_FILE_KILLS", "8"))


@pytest.mark.parametrize("kind,compress", [("ndjson", "gzip"), ("csv", "none")])
def test_killed_again_and_again(tmp_path, kind, compress):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    simulator = Simulator(tmp_path, 4).start()
    gateway = Gateway(tmp_path).turbines(simulator, poll="50 ms")
    gateway.set("store", commit_interval="100 ms")
    (tmp_path / "usb").mkdir()
    path = str(tmp_path / "usb" / f"readings.{kind}")
    gateway.set("uplink usb", type="file", path=path, format=kind, compress=compress,
                rotate_size="16 KiB", batch_interval="100 ms", batch_records=20, min_free="0 B")
    gateway.write()
    for _ in range(KILLS):
        gateway.process.start()
        time.sleep(chance.uniform(0.05, 0.8))  # the random moment itself
        gateway.kill()
        if os.path.exists(path) and chance.random() < 0.5:  # what a power cut leaves behind
            tear(path, chance)
    gateway.start()
    gateway.wait_delivered(1, 30, "usb")
    wait_for(lambda: glob.glob(path + ".*"), 30, "a file is rotated")
    gateway.stop_polling()
    ledger = gateway.drain(60)
    gateway.stop()
    seen = identities(path, kind)
    assert ledger["dead"] == 0
    assert sum(len(values) for values in seen.values()) == ledger["delivered"] == ledger["read"]
    by_device = collections.defaultdict(list)
    for _, _, device, seq in seen:
        by_device[device].append(seq)
    for device, seqs in by_device.items():
        assert sorted(seqs) == list(range(1, len(seqs) + 1)), f"{device} has gaps"
    assert len(by_device) == 4


def test_a_missing_medium_is_waited_for(tmp_path):
    simulator = Simulator(tmp_path, 1).start()
    gateway = Gateway(tmp_path).turbines(simulator, poll="100 ms")
    path = tmp_path / "usb" / "readings.ndjson"
    gateway.set("uplink usb", type="file", path=path, batch_interval="100 ms", min_free="0 B")
    gateway.start()
    wait_for(lambda: "mounted" in (gateway.uplink_state("usb")["last_error"] or ""), 10,
             lambda: gateway.uplink_state("usb"))
    (tmp_path / "usb").mkdir()
    gateway.wait_delivered(1, 15, "usb")
    gateway.stop_polling()
    ledger = gateway.drain()
    assert sum(len(values) for values in identities(str(path), "ndjson").values()) \
        == ledger["delivered"] == ledger["read"]
