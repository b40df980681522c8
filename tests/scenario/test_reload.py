"""SIGHUP and `windrow reload`: by difference, and never into a broken configuration."""
import signal

import pytest

from process import wait_for
from site_parts import Gateway, Simulator, Sink


@pytest.fixture(name="site")
def make_site(tmp_path):
    simulator, sink = Simulator(tmp_path, 4).start(), Sink(tmp_path).start()
    gateway = Gateway(tmp_path).turbines(simulator, poll="100 ms", last=2).uplink(sink).start()
    wait_for(lambda: gateway.device("t01")["state"] == "good", 15, "t01 is read")
    return simulator, sink, gateway


def names(gateway, kind="devices"):
    return {entry["name"] for entry in gateway.get("/v1/status")[kind]}


def assert_goes_on(gateway, name="t01"):
    """It is polled on, by the same object: its count of polls did not start again."""
    polls = gateway.device(name)["polls"]
    wait_for(lambda: gateway.device(name)["polls"] > polls + 5, 10, f"{name} is polled on")


@pytest.mark.parametrize("broken", [
    "[gateway\n", "[nonsense]\na = 1\n", "[device new]\ndriver = modbus-tpc\n",
    "[device new]\nprofile = absent\n", "[uplink new]\ntype = http\n"])
def test_broken_configuration_keeps_the_old(site, broken):
    _, _, gateway = site
    polls = gateway.device("t01")["polls"]
    gateway.write(gateway.text() + broken)
    gateway.process.signal(signal.SIGHUP)
    gateway.process.wait_log(r"windrow\.ini")
    assert names(gateway) == {"t01", "t02"}
    assert_goes_on(gateway)
    assert gateway.device("t01")["polls"] > polls
    status, output, errors = gateway.cli("reload")
    assert status != 0 and "windrow.ini" in output + errors


def test_an_empty_file_drops_no_devices(site):
    """An editor that writes in place has the file empty for a moment."""
    _, _, gateway = site
    gateway.write("")
    gateway.process.signal(signal.SIGHUP)
    gateway.process.wait_log(r"windrow\.ini: is empty")
    assert names(gateway) == {"t01", "t02"}
    assert_goes_on(gateway)


def test_add_and_remove_a_device(site):
    simulator, sink, gateway = site
    polls = gateway.device("t01")["polls"]
    gateway.turbines(simulator, poll="100 ms", first=4)
    gateway.write()
    gateway.process.signal(signal.SIGHUP)
    wait_for(lambda: names(gateway) == {"t01", "t02", "t04"}, 10, "t04 is there")
    wait_for(lambda: sink.query("SELECT 1 FROM readings WHERE device = 't04'"), 10, "t04 arrives")
    assert gateway.device("t01")["polls"] >= polls, "t01 was not started again"
    del gateway.sections["device t04"]
    gateway.reload()
    wait_for(lambda: names(gateway) == {"t01", "t02"}, 10, "t04 is gone")
    assert_goes_on(gateway)


def test_device_that_comes_back_keeps_its_seq(site):
    simulator, sink, gateway = site
    wait_for(lambda: sink.query("SELECT 1 FROM readings WHERE device = 't02' AND seq > 10"), 10,
             "t02 is read")
    section = "device t{01..02}"
    saved = gateway.sections.pop(section)
    gateway.stop_polling()
    gateway.drain()
    gateway.sections[section] = saved
    last = sink.query("SELECT max(seq) FROM readings WHERE device = 't02'")[0][0]
    gateway.reload()
    wait_for(lambda: sink.query("SELECT 1 FROM readings WHERE device = 't02' AND seq > ?",
                                last + 5), 10, "t02 goes on")
    wait_for(lambda: sink.query("SELECT count(DISTINCT seq), max(seq) FROM readings WHERE"
                                " device = 't02' AND seq <= ?", last + 5)[0]
             == (last + 5, last + 5), 10, "without a gap")
    assert sink.count("conflicts") == 0


def test_changed_poll_restarts_only_that_device(site):
    _, _, gateway = site
    wait_for(lambda: gateway.device("t02")["polls"] > 20, 10, "t02 is polled")
    polls = gateway.device("t01")["polls"]
    gateway.set("device t02", poll="1 s")
    gateway.reload()
    wait_for(lambda: "t02" in names(gateway) and gateway.device("t02")["polls"] < 15, 10,
             "t02 starts again")
    assert gateway.device("t01")["polls"] >= polls
    assert_goes_on(gateway)


def test_add_and_remove_an_uplink(site, tmp_path):
    _, sink, gateway = site
    second = Sink(tmp_path, name="second").start()
    gateway.wait_delivered(100)
    gateway.uplink(second, name="spare")
    gateway.reload()
    wait_for(lambda: names(gateway, "uplinks") == {"cloud", "spare"}, 10, "the spare one is there")
    second.wait_readings(100)
    del gateway.sections["uplink spare"]
    gateway.reload()
    wait_for(lambda: names(gateway, "uplinks") == {"cloud"}, 20, "the spare one is gone")
    delivered = gateway.uplink_state()["delivered"]
    gateway.wait_delivered(delivered + 100)
    gateway.stop_polling()
    ledger = gateway.drain()
    assert sink.count() == ledger["read"]


def test_uplink_of_another_address(site, tmp_path):
    """The endpoint moves; what waits is delivered to the new one, and nothing is lost."""
    _, sink, gateway = site
    gateway.wait_delivered(100)
    sink.stop()
    moved = Sink(tmp_path, sink.authority, name="moved")
    moved.start()
    gateway.sections["uplink cloud"]["url"] = moved.url
    gateway.reload()
    moved.wait_readings(100)
    gateway.stop_polling()
    ledger = gateway.drain()
    both = set(moved.query("SELECT device, seq, point FROM readings"))
    both |= set(sink.query("SELECT device, seq, point FROM readings"))
    assert len(both) == ledger["read"]
