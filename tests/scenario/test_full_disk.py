"""The daemon on a disk that others fill, or that becomes read-only: it says so in words, goes on as
far as that goes, and is its old self once there is room again."""
import os
import subprocess

import pytest

from process import wait_for
from served import assert_nothing_invented
from site_parts import Gateway, Simulator, Sink


LEFT_TO_OTHERS = 1 << 20  # what the store never takes: disk_margin_bytes of reclaim.c


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stderr


@pytest.fixture(name="disk")
def make_disk(tmp_path):
    """Mounts what it is told to; everything is unmounted at the end."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = []

    def mount(*words):
        done, errors = run("mount", *words, str(folder))
        if not done:
            pytest.skip(f"nothing may be mounted here: {errors.strip()}")
        mounted.append(folder)
        return str(folder)

    yield mount
    for path in mounted:
        run("umount", "-l", str(path))


def make_site(tmp_path, disk, **store):
    simulator, sink = Simulator(tmp_path, 4).start(), Sink(tmp_path)
    gateway = Gateway(tmp_path).turbines(simulator, poll="40 ms").uplink(sink)
    data = os.path.join(disk, "data")
    os.makedirs(data, exist_ok=True)
    gateway.set("gateway", data_dir=data)
    gateway.set("store", commit_interval="100 ms", **store)
    return simulator, sink, gateway


def fill(path, leave=0):
    """Until so many bytes are left on the disk."""
    with open(path, "ab", buffering=0) as file:
        try:
            while leave == 0 or os.statvfs(path).f_bavail * 4096 > leave:
                file.write(bytes(4096))
        except OSError:
            pass


def status(gateway):
    """The words that a technician reads, and the exit status."""
    code, output, errors = gateway.cli("status")
    return code, output + errors


def prove(simulator, sink, gateway):
    """What is in the sink is what the ledger says, and what is not is counted."""
    gateway.stop_polling()
    ledger = gateway.drain(60)
    assert ledger["adds_up"]
    lost = ledger["thinned"] + ledger["expired"] + ledger["dead"]
    assert ledger["stored"] + ledger["derived"] == ledger["delivered"] + lost
    assert sink.count() == ledger["delivered"]
    assert sink.count("conflicts") == 0
    assert len(sink.query("SELECT DISTINCT store FROM readings")) == 1
    assert_nothing_invented(simulator, sink)
    return ledger


@pytest.mark.parametrize("when_full, words, gone", [
    ("thin", "the oldest readings that wait", "thinned"),
    ("drop-oldest", "the oldest readings that wait are dropped", "thinned"),
    ("pause", "new readings are refused", "dropped"),
])
def test_a_disk_that_others_fill(tmp_path, disk, when_full, words, gone):
    folder = disk("-t", "tmpfs", "-o", "size=6m", "none")
    simulator, sink, gateway = make_site(tmp_path, folder, when_full=when_full)
    gateway.start()
    wait_for(lambda: gateway.ledger()["waiting"] > 1500, 30, "a backlog")
    ballast = os.path.join(folder, "ballast")
    fill(ballast, leave=LEFT_TO_OTHERS // 2)  # a commit that has just looked still has room
    wait_for(lambda: gateway.ledger()[gone] > 0, 20, lambda: gateway.process.log()[-2000:])
    fill(ballast)
    code, text = status(gateway)
    assert code == 1 and "the disk is full" in text and words in text, text
    before = gateway.ledger()["read"]
    wait_for(lambda: gateway.ledger()["read"] > before + 500, 20, "devices are read on")
    assert gateway.ledger()["adds_up"]
    os.remove(ballast)
    sink.start()
    wait_for(lambda: "is full" not in status(gateway)[1], 30, lambda: status(gateway)[1])
    there = sink.count()
    sink.wait_readings(there + 500)
    ledger = prove(simulator, sink, gateway)
    assert ledger[gone] > 0
    assert "the disk is full" in gateway.process.log() and "room again" in gateway.process.log()


def test_a_disk_that_becomes_read_only(tmp_path, disk):
    image = str(tmp_path / "image")
    run("truncate", "-s", "16M", image)
    if not run("mkfs.ext4", "-q", "-F", image)[0]:
        pytest.skip("mkfs.ext4 is missing")
    folder = disk("-o", "loop", image)
    simulator, sink, gateway = make_site(tmp_path, folder)
    sink.start()
    gateway.start()
    sink.wait_readings(500)
    assert run("mount", "-o", "remount,abort", folder)[0]  # as ext4 does after an error of its own
    wait_for(lambda: not gateway.process.alive(), 20, lambda: gateway.process.log()[-2000:])
    assert gateway.process.wait_end() == 1
    assert "nothing is acknowledged" in gateway.process.log()
    held = sink.count()
    assert run("umount", folder)[0]
    disk("-o", "loop", image)  # the journal is replayed
    assert run("mount", "-o", "remount,ro", folder)[0]
    code, text = status(gateway)
    assert code == 1 and "does not run" in text and "is read-only" in text, text
    gateway.process.start()  # as systemd does, while the disk still takes nothing
    assert gateway.process.wait_end() == 1
    assert "ead-only" in gateway.process.log()
    assert run("mount", "-o", "remount,rw", folder)[0]
    gateway.start()
    sink.wait_readings(held + 500)
    assert status(gateway)[0] == 0
    prove(simulator, sink, gateway)
