"""The daemon beside a disk whose calls fail: between simulator and sink nothing that was promised
is lost, nothing is invented, and the ledger says what both of them say.

WINDROW_FAILING_CALLS sets how many sessions (150), each with a failing call or a run of them, and
WINDROW_SEED which.
"""
import datetime
import os
import random
import re
import time

import pytest

from failing import ERRORS, FAR, Failing
from process import wait_for
from served import assert_nothing_invented
from site_parts import Gateway, Simulator, Sink
from test_http import Sensors

SESSIONS = int(os.environ.get("WINDROW_FAILING_CALLS", "150"))
STEADY_CALLS = 90  # a second or so of commits
STOP_CALLS = 7


def seconds_to_stop(log):
    """Between the failure of the store and the moment when the daemon acts on it."""
    times = [datetime.datetime.fromisoformat(found) for found in
             re.findall(r"^(\S+)Z error: (?:store: commit failed|the store failed)", log, re.M)]
    return (times[-1] - times[0]).total_seconds() if len(times) == 2 else 0


class Site:
    """Turbines that are polled and a mast that is pushed to; the daemon is started by hand."""

    def __init__(self, tmp_path):
        self.simulator, self.sink = Simulator(tmp_path, 4).start(), Sink(tmp_path).start()
        self.gateway = Gateway(tmp_path).turbines(self.simulator, poll="40 ms")
        self.gateway.set("device mast", driver="http", mode="listen", point__count="json")
        self.gateway.set("store", commit_interval="50 ms")
        self.gateway.uplink(self.sink, batch_interval="50 ms")
        self.gateway.write()
        self.failing = Failing(self.gateway)
        self.sensors = Sensors(self.gateway, 1)
        self.committed, self.ended, self.failed = {}, 0, 0

    def alive(self):
        return self.gateway.process.alive()

    def until_fault(self):
        """It runs until the armed call has failed, and then until it ends or goes on."""
        failing = self.failing
        wait_for(lambda: failing.failed > 0 or not self.alive(), 20,
                 lambda: f"call {failing.read()} fails:\n{self.gateway.process.log()[-2000:]}")
        after = failing.calls + 12
        wait_for(lambda: failing.calls >= after or not self.alive(), 20,
                 lambda: f"it ends or goes on after {failing.last}:\n"
                         f"{self.gateway.process.log()[-2000:]}")

    def end(self, kill):
        """Afterwards it is down; nothing but a kill may have been a signal."""
        process = self.gateway.process
        self.failed += self.failing.failed
        if not self.alive():
            self.ended += 1
            status = process.wait_end()
            assert 0 < status < 100, f"ended with {status}:\n{process.log()[-3000:]}"
            assert "error" in process.log(), "it ended without a word"
            assert seconds_to_stop(process.log()) < 10, process.log()[-3000:]
        elif kill:
            process.kill()
        else:
            status = process.stop(15)
            assert 0 <= status < 100, f"stopped with {status}:\n{process.log()[-3000:]}"
        self.failing.disarm()
        self.look()

    def look(self):
        """What the store says while the daemon is down has never become less."""
        if not os.path.exists(self.gateway.path("data/store/data.mdb")):
            assert not self.committed
            return
        status, output, errors = self.gateway.cli("ledger", "--json")
        assert status in (0, 1), output + errors
        rows = self.gateway.json("ledger")["devices"]
        for row in rows:
            assert row["stored"] >= self.committed.get(row["name"], 0), f"lost: {row}"
            self.committed[row["name"]] = row["stored"]

    def prove(self):
        """The trouble is over: what was read arrives, once, and everybody counts the same."""
        self.failing.disarm()
        self.gateway.start()
        self.gateway.wait_delivered(1, 30)
        time.sleep(0.3)  # some more of everything
        self.sensors.stop()
        self.gateway.stop_polling()
        ledger = self.gateway.drain(60)
        assert ledger["adds_up"] and ledger["dead"] == ledger["thinned"] == ledger["expired"] == 0
        assert ledger["stored"] == ledger["delivered"] == self.sink.count()
        assert self.sink.count("conflicts") == 0
        assert len(self.sink.query("SELECT DISTINCT store FROM readings")) == 1
        for device, first, last, scans, readings in self.sink.query(
                "SELECT device, min(seq), max(seq), count(DISTINCT seq), count(*) FROM readings"
                " GROUP BY device"):
            assert (first, scans) == (1, last), f"{device}: {scans} scans of {first}..{last}"
            assert readings >= self.committed.get(device, 0)
        counts = [round(row[0]) for row in self.sink.query(
            "SELECT value FROM readings WHERE device = 'mast'")]
        assert len(counts) == len(set(counts)), "a push is there twice"
        assert self.sensors.accepted <= set(counts), "a push was acknowledged and is lost"
        assert len(self.sensors.accepted) > SESSIONS / 2  # pushes came through all the while
        served = assert_nothing_invented(self.simulator, self.sink)
        scans = dict(self.sink.query("SELECT device, count(DISTINCT seq) FROM readings"
                                     " WHERE value IS NOT NULL GROUP BY device"))
        assert all(scans[device] <= served[device] for device in served)
        return ledger


def calls_of_a_start(site):
    """How many calls it takes until readings are committed."""
    site.failing.arm("EIO", FAR)
    site.gateway.start()
    sent = site.gateway.uplink_state()["delivered"]
    site.gateway.wait_delivered(sent + 20)
    calls = site.failing.calls
    site.end(kill=False)
    return calls


def sessions(chance, start_calls):
    """(error, first call, how many, moment), a third each at start, in between and at the stop."""
    kinds = [(error, moment) for moment in ("start", "steady", "stop") for error in ERRORS]
    for number in range(SESSIONS):
        error, moment = kinds[number % len(kinds)]
        span = {"start": start_calls, "steady": STEADY_CALLS, "stop": STOP_CALLS}[moment]
        # Without repeats as far as that goes: every call in its turn.
        turn = number // len(kinds)
        first = (turn * 7 + chance.randrange(7)) % span + 1
        several = 5 if error == "EINTR" else FAR  # LMDB tries again as long as a call says EINTR
        yield error, first, several if chance.random() < 0.15 else 1, moment


@pytest.mark.lasts(60)
def test_a_daemon_whose_calls_fail_loses_nothing_that_it_promised(tmp_path):
    seed = int(os.environ.get("WINDROW_SEED", random.randrange(2**32)))
    print(f"seed {seed}")
    chance = random.Random(seed)
    site = Site(tmp_path)
    start_calls = calls_of_a_start(site)
    for error, first, count, moment in sessions(chance, start_calls):
        print(f"{moment}: call {first} x {count} fails with {error}")
        if moment == "start":
            site.failing.arm(error, first, first + count - 1)
            site.gateway.process.start()
            site.until_fault()
        else:
            site.failing.arm("EIO", FAR)
            site.gateway.start()
            site.failing.arm_now(error, first, count)
            if moment == "steady":
                site.until_fault()
        site.end(kill=moment == "steady" and chance.random() < 0.5)
    ledger = site.prove()
    print(f"{SESSIONS} sessions, {site.failed} calls failed, {site.ended} times it ended by itself,"
          f" {len(site.sensors.accepted)} pushes acknowledged, {ledger['read']} readings")
    assert site.failed >= SESSIONS / 2  # at a stop there may be fewer calls than were asked to fail


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_a_store_that_cannot_be_made_leaves_a_daemon_that_says_so(tmp_path, error):
    site = Site(tmp_path)
    site.sensors.stop()
    for first in (1, 3, 7, 12, 20):
        site.failing.arm(error, first, FAR)
        site.gateway.process.start()
        wait_for(lambda: not site.alive(), 20, lambda: site.gateway.process.log()[-2000:])
        site.end(kill=False)
    site.failing.disarm()
    site.gateway.start()
    site.gateway.wait_delivered(20)
    assert not site.gateway.get("/v1/status")["store"]["quarantined"]
    site.gateway.stop()
