"""A small site end to end: devices, gateway, a cloud that goes away and comes back, the ledger."""
import pytest

from process import wait_for
from site_parts import Gateway, Simulator, Sink
from served import assert_delivered, served_scans


@pytest.fixture(name="site")
def make_site(tmp_path):
    simulator, sink = Simulator(tmp_path, 4).start(), Sink(tmp_path).start()
    gateway = Gateway(tmp_path).turbines(simulator).uplink(sink).start()
    return simulator, sink, gateway


def test_uplink_cut(site):
    simulator, sink, gateway = site
    sink.wait_readings(100)
    sink.stop()
    at_cut = gateway.ledger()["read"]
    wait_for(lambda: gateway.ledger()["waiting"] > 800, 30, lambda: str(gateway.get("/v1/status")))
    state = gateway.uplink_state()
    assert state["last_error"], "a cut uplink says what is wrong"
    assert state["waiting"] > 800 and state["delivered"] <= at_cut
    sink.start()
    gateway.wait_delivered(at_cut + 800, 30)
    gateway.stop_polling()
    ledger = gateway.drain()
    assert ledger["read"] == ledger["delivered"] and ledger["dropped"] == 0
    assert sink.count() == ledger["delivered"]
    assert sink.count("conflicts") == 0
    assert_delivered(simulator, sink)


def test_restart_goes_on_where_it_was(site):
    _, sink, gateway = site
    sink.wait_readings(100)
    sink.stop()
    wait_for(lambda: gateway.ledger()["waiting"] > 100, 30, "readings wait")
    gateway.stop()
    before = gateway_seqs(sink)
    sink.start()
    gateway.start()
    wait_for(lambda: all(seq > before[device] + 10 for device, seq in gateway_seqs(sink).items()),
             30, "the seqs go on")
    gateway.stop_polling()
    ledger = gateway.drain()
    assert sink.count() == ledger["delivered"] == ledger["read"]
    assert_no_gaps(sink)
    assert len(sink.query("SELECT DISTINCT store FROM readings")) == 1
    assert sink.count("conflicts") == 0


def gateway_seqs(sink):
    return dict(sink.query("SELECT device, max(seq) FROM readings GROUP BY device"))


def assert_no_gaps(sink):
    for device, first, last, count in sink.query(
            "SELECT device, min(seq), max(seq), count(DISTINCT seq) FROM readings"
            " WHERE stream = 'raw' GROUP BY device"):
        assert (first, count) == (1, last), f"{device} has gaps: {count} scans of 1..{last}"


def test_time_stamps_are_of_now(site):
    _, sink, _ = site
    sink.wait_readings(100)
    ages = sink.query("SELECT min(strftime('%s','now') - time_ms / 1000),"
                      " max(strftime('%s','now') - time_ms / 1000) FROM readings")[0]
    assert -2 <= ages[0] and ages[1] <= 120


def test_served_values_arrive(site):
    simulator, sink, gateway = site
    sink.wait_readings(400)
    gateway.stop_polling()
    gateway.drain()
    assert_delivered(simulator, sink)
    assert all(len(scans) >= 5 for scans in served_scans(simulator).values())
