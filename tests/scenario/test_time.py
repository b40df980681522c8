"""The gateway's clock: boots in 1970, steps, a clock that nobody ever sets. Each reading arrives
once, value for value, with the time it was taken at, or it says that its time is uncertain.

The daemon alone lives in the wrong time (fake_clock.py); devices, cloud and this test do not.
"""
import collections
import datetime
import json
import time

import pytest

from fake_clock import FakeClock, LastingAuthority, YEAR_S
from process import wait_for
from served import assert_delivered, held_scans, served_scans
from site_parts import Gateway, Simulator, Sink

NEAR_MS = 5000  # how far a time may be from when the value was served: a machine may stall


class Site:
    """Two turbines and a cloud whose certificate holds at any time; the gateway is not started."""

    def __init__(self, folder, clock_wait="7 d", **clock):
        self.simulator = Simulator(folder, 2).start()
        authority = LastingAuthority(folder / "ca")
        self.sink = Sink(folder, authority).start()
        self.clock = FakeClock(folder, **clock)
        self.gateway = Gateway(folder).turbines(self.simulator, poll="100 ms")
        self.gateway.set("gateway", clock="kernel", clock_wait=clock_wait)
        self.gateway.set("store", commit_interval="100 ms")
        self.gateway.uplink(self.sink, batch_interval="100 ms", send="raw aggregates events",
                            max_age="30 d")
        self.gateway.set("aggregate short", window="2 s", points="*", functions="mean count")
        self.clock.hold(self.gateway)

    def start(self):
        self.gateway.start()
        return self

    def state(self):
        return self.gateway.get("/v1/status")["clock"]

    def wait_read(self, more):
        """Until so many readings more were read and stored."""
        begun = self.gateway.ledger()["stored"]
        wait_for(lambda: self.gateway.ledger()["stored"] >= begun + more, 20,
                 lambda: f"{more} readings more: {self.gateway.ledger()}")

    def raw(self):
        """{device: [(time_ms, is uncertain)]} of the sink, in the order of seq."""
        scans = collections.defaultdict(dict)
        for device, seq, time_ms, quality in self.sink.query(
                "SELECT device, seq, time_ms, max(quality) FROM readings WHERE stream = 'raw'"
                " GROUP BY device, seq ORDER BY device, seq"):
            scans[device][seq] = (time_ms, quality == "uncertain")
        return {device: [scan for _, scan in sorted(of.items())] for device, of in scans.items()}

    def served_times(self):
        """{device: [time_ms]} of the rounds that the simulator served."""
        times = collections.defaultdict(dict)
        with open(self.simulator.record_path, encoding="utf-8") as file:
            for line in file:
                one = json.loads(line)
                times[f"t{one['turbine']:02d}"].setdefault(one["round"], one["time_ms"])
        return {device: [at for _, at in sorted(of.items())] for device, of in times.items()}

    def served_scans(self):
        return sum(len(times) for times in self.served_times().values())

    def finish(self):
        """No more polls; everything arrives and adds up."""
        self.gateway.stop_polling()
        ledger = self.gateway.drain()
        assert ledger["adds_up"] and ledger["dropped"] == 0, ledger
        assert ledger["delivered"] == ledger["read"] + ledger["derived"], ledger
        assert ledger["expired"] == 0 and ledger["dead"] == 0, ledger
        assert self.sink.count() == ledger["delivered"]
        assert self.sink.count("conflicts") == 0
        assert self.state()["held"] == 0
        self.simulator.stop()

    def times(self, stops=1):
        """[(time, time it was served at, is uncertain)] of a device after the other: all that was
        served, value for value, but for one answer that was on its way at each stop; the times of
        each device rise with its seqs."""
        served, values = self.served_times(), served_scans(self.simulator)
        held = held_scans(self.sink)
        everything = []
        for device, scans in self.raw().items():
            truth = list(zip(served[device], values[device]))
            assert len(truth) - len(scans) in range(stops + 1), device
            both, at = [], 0
            for (stamped, doubt), scan in zip(scans, held[device]):
                while truth[at][1] != scan:
                    at += 1  # beyond the end: a value that was never served
                both.append((stamped, truth[at][0], doubt))
                at += 1
            assert all(a[0] < b[0] for a, b in zip(both, both[1:])), f"{device} runs backwards"
            everything += both
        assert everything
        return everything

    def aggregates(self):
        """[(beginning, scans in it, is uncertain)]"""
        return self.sink.query("SELECT time_ms, value, quality = 'uncertain' FROM readings WHERE"
                               " stream = 'aggregate' AND point = 'wind_speed_count'")


def all_right(times):
    wrong = [(at - truly, doubt) for at, truly, doubt in times
             if doubt or abs(at - truly) > NEAR_MS]
    assert not wrong, f"{len(wrong)} of {len(times)} readings: {wrong[:5]}"


def counted(site):
    """How many scans are in aggregates; each is in one window at most."""
    return sum(value for _, value, _ in site.aggregates())


def history(site):
    """The times that the gateway's own history of a point shows."""
    shown = site.gateway.get("/v1/history?point=t01.wind_speed&last=1h")["readings"]
    return [round(datetime.datetime.fromisoformat(one["time"]).timestamp() * 1000)
            for one in shown]


@pytest.fixture(name="now_ms")
def now():
    return time.time() * 1000


def test_boot_in_1970_and_synchronise_later(tmp_path, now_ms):
    site = Site(tmp_path)
    site.gateway.set("store", keep="1 h")
    site.clock.set_1970()
    site.start()
    site.wait_read(400)
    state = site.state()
    assert not state["synchronised"] and state["state"] == "waiting"
    assert state["held"] >= 400 and site.sink.count() == 0
    words = site.gateway.cli("status")[1]
    assert "not synchronised" in words and "readings wait for it up to 7 d" in words
    site.clock.sync(offset_s=0)
    site.sink.wait_readings(400)
    site.wait_read(400)
    assert site.state()["synchronised"]
    site.finish()
    all_right(site.times())
    aggregates = site.aggregates()
    assert len(aggregates) > 4 and all(at > now_ms - 60000 for at, _, _ in aggregates)
    assert history(site) == [at for at, _ in site.raw()["t01"]]
    assert any(doubt for _, _, doubt in aggregates) and not all(doubt for _, _, doubt in aggregates)


def handed_over(site, path):
    status, output, errors = site.gateway.cli("export", "cloud", "--json", "--mark-delivered",
                                              "--out", path)
    assert status == 0, output + errors
    return json.loads(output)


@pytest.mark.parametrize("running", [True, False])
def test_what_has_no_time_yet_does_not_leave_by_hand(tmp_path, running):
    """An export before the clock is set says how many readings stay, and they arrive as ever."""
    site = Site(tmp_path)
    site.clock.set_1970()
    site.start()
    site.wait_read(400)
    site.gateway.stop_polling()
    site.gateway.stop()
    if running:
        site.gateway.start()
    answer = handed_over(site, tmp_path / "early.ndjson")
    assert answer["readings"] == answer["marked"]["readings"] == 0
    assert answer["held"]["readings"] >= 400
    status, words, _ = site.gateway.cli("export", "cloud", "--out", tmp_path / "again.ndjson")
    assert status == 0 and "stay waiting: the clock is not synchronised" in words
    if not running:
        site.gateway.start()
    site.clock.sync(offset_s=0)
    site.finish()
    all_right(site.times(stops=2))
    assert "held" not in handed_over(site, tmp_path / "late.ndjson")


@pytest.mark.parametrize("step_s", [YEAR_S, -YEAR_S])
def test_synchronised_clock_is_stepped(tmp_path, step_s):
    """Somebody sets it, and NTP sets it back: what was read between has the right time."""
    site = Site(tmp_path, synchronised=True).start()
    site.wait_read(200)
    site.clock.sync(False)
    site.clock.set(step_s)
    site.gateway.process.wait_log("clock was set")
    site.wait_read(300)
    assert site.state()["held"] > 200
    site.clock.sync(offset_s=0)
    site.wait_read(200)
    site.finish()
    all_right(site.times())
    assert not any(doubt for _, _, doubt in site.aggregates())


@pytest.mark.parametrize("step_s", [YEAR_S, -YEAR_S])
def test_step_that_is_vouched_for_is_followed(tmp_path, step_s):
    site = Site(tmp_path, synchronised=True)
    site.gateway.set("uplink cloud", max_age="800 d")  # a year is no reason to throw it away
    site.start()
    site.wait_read(300)
    site.clock.sync(offset_s=step_s)
    site.gateway.process.wait_log("clock was set")
    site.wait_read(300)
    site.clock.sync(offset_s=0)
    site.wait_read(300)
    site.gateway.stop_polling()
    site.gateway.drain()
    ledger = site.gateway.ledger()
    assert ledger["delivered"] == ledger["read"] + ledger["derived"], ledger
    assert_delivered(site.simulator, site.sink)
    served = site.served_times()
    for device, scans in site.raw().items():
        offsets = [at - truly for (at, _), truly in zip(scans, served[device])]
        assert not any(doubt for _, doubt in scans)
        near = [round(offset / 1000 / step_s, 3) for offset in offsets]
        assert set(near) == {0.0, 1.0}, set(near)
    assert counted(site) > 0


def test_step_across_a_window(tmp_path):
    """Forward out of the open window and back into it: short windows, and each scan in one."""
    site = Site(tmp_path, synchronised=True)
    site.gateway.set("aggregate short", window="1 min", points="*", functions="count")
    site.start()
    site.wait_read(300)
    site.clock.set(90)
    site.wait_read(300)
    site.clock.set(0)
    site.wait_read(300)
    site.gateway.stop_polling()
    site.simulator.stop()
    site.clock.set(300)  # what is still open closes
    scans = site.served_scans()
    site.gateway.drain()
    held = site.sink.query(
        "SELECT count(*) FROM readings WHERE stream = 'raw' AND point = 'wind_speed'")[0][0]
    assert scans - 2 <= held <= scans
    wait_for(lambda: counted(site) >= held, 20, lambda: f"{site.aggregates()} of {held}")
    site.gateway.drain()
    assert counted(site) == held
    assert site.gateway.get("/v1/status")["pipeline"]["late"] == 0
    starts = collections.Counter(at for at, _, _ in site.aggregates())
    assert len(starts) >= 3 and max(starts.values()) <= 2  # one a turbine


def test_never_synchronised(tmp_path):
    """Two hours wrong for ever: everything arrives after clock_wait, and says so."""
    site = Site(tmp_path, clock_wait="2 s", offset_s=-7200)
    begun = time.monotonic()
    site.start()
    site.sink.wait_readings(10)
    assert time.monotonic() - begun >= 2
    site.wait_read(400)
    wait_for(lambda: site.sink.count() < site.gateway.ledger()["stored"], 20, "some still wait")
    site.finish()
    times = site.times()
    assert all(doubt for _, _, doubt in times)
    assert all(abs(at - truly + 7200000) <= NEAR_MS for at, truly, _ in times)


def test_synchronised_after_some_went_out_uncertain(tmp_path):
    site = Site(tmp_path, clock_wait="2 s", offset_s=-7200).start()
    site.sink.wait_readings(100)
    site.clock.sync(offset_s=0)
    site.wait_read(300)
    site.finish()
    times = site.times()
    assert any(doubt for _, _, doubt in times)
    for at, truly, doubt in times:
        assert abs(at - truly + (7200000 if doubt else 0)) <= NEAR_MS
    assert sum(1 for _, _, doubt in times if not doubt) > 20


@pytest.mark.lasts(20)
def test_restart_within_the_boot(tmp_path):
    """In 1970, killed and started again twice, then synchronised: nothing is off."""
    site = Site(tmp_path)
    site.clock.set_1970()
    for _ in range(2):
        site.start()
        site.wait_read(200)
        site.gateway.stop()
    site.start()
    site.wait_read(200)
    assert site.sink.count() == 0
    site.clock.sync(offset_s=0)
    site.wait_read(200)
    site.finish()
    all_right(site.times(stops=3))


@pytest.mark.lasts(20)
def test_two_boots_in_1970_then_one_is_synchronised(tmp_path, now_ms):
    """The first two never learn the time; they lie before the third, in order, and uncertain."""
    site = Site(tmp_path)
    for boot in (1, 2):
        site.clock.boot(boot)
        site.clock.set_1970()
        site.start()
        site.wait_read(200)
        site.gateway.stop()
    assert site.sink.count() == 0
    third_ms = time.time() * 1000
    site.clock.boot(3, up_s=1)
    site.start()
    site.wait_read(200)
    site.clock.sync(offset_s=0)
    site.wait_read(200)
    site.finish()
    times = site.times(stops=3)
    for at, truly, doubt in times:
        if truly < third_ms:
            assert doubt and now_ms - 120000 < at < third_ms + 1000
        else:
            assert not doubt and abs(at - truly) <= NEAR_MS
    assert sum(1 for _, _, doubt in times if doubt) >= 2 * 200 // 8


def test_kill_does_not_change_what_was_sent(tmp_path):
    """Readings of an unsynchronised boot, sent again after kill -9: the times of the first."""
    site = Site(tmp_path, clock_wait="1 s", offset_s=-7200)
    for _ in range(12):
        site.start()
        site.wait_read(50)
        seen = site.sink.count()
        wait_for(lambda: site.sink.count() > seen, 20, "some were sent")
        site.gateway.kill()
    site.start()
    site.clock.sync(offset_s=0)
    site.wait_read(100)
    site.gateway.stop_polling()
    ledger = site.gateway.drain()
    assert ledger["delivered"] == site.sink.count() == ledger["read"] + ledger["derived"]
    assert site.sink.count("conflicts") == 0
    print("repeats:", site.sink.count("repeats"))
    assert site.sink.query("SELECT restamped FROM totals") == [(0,)]


def test_trusted_does_not_ask_the_kernel(tmp_path):
    site = Site(tmp_path)
    site.gateway.set("gateway", clock="trusted")
    site.start()
    site.wait_read(200)
    assert site.state() == {"synchronised": True, "state": "trusted", "held": 0, "wait_s": 604800}
    site.finish()
    all_right(site.times())
