"""The AWS IoT shadow over mosquitto with mutual TLS, against a service that behaves as its guide
says: what is reported, what is desired, conflicts, and that nothing desired is executed twice.

WINDROW_SHADOW_KILLS sets how often the gateway is ended in the middle of a write (3).
"""
import json
import os
import time

import pytest

pytest.importorskip("paho.mqtt.client")

from certificates import Authority
from mosquitto import Broker, installed
from process import PATIENCE_S, wait_for
from register_slave import Register
from shadow_service import SIZE_MAX, ShadowService
from site_parts import Gateway, Simulator

pytestmark = pytest.mark.skipif(not installed(), reason="mosquitto is not installed")
KILLS = int(os.environ.get("WINDROW_SHADOW_KILLS", "3"))
WRITABLE = "holding 20 int16, scale 0.01, unit deg, writable 0 90"
FULL = {"shadow": "full", "writes": "allow", "write_points": "t*.pitch_sp *.setpoint",
        "shadow_interval": "1 s"}


def uplink(gateway, broker, **keys):
    given = {"type": "mqtt", "url": broker.url, "batch_interval": "100 ms",
             "connect_timeout": "3 s", "timeout": "5 s"}
    if broker.authority:
        cert, key = broker.authority.issue("gw")
        given.update(ca_file=broker.authority.cert, cert_file=cert, key_file=key)
    given.update(keys)
    gateway.set("gateway", allow_writes="yes", write_interval="0 s")
    gateway.set("store", commit_interval="50 ms")
    return gateway.set("uplink mq", **given)


def turbines(folder, broker, count=2, poll="100 ms", **keys):
    simulator = Simulator(folder, count, record=False).start()
    gateway = Gateway(folder).turbines(simulator, poll=poll, point__pitch_sp=WRITABLE)
    return uplink(gateway, broker, **keys), simulator


def value(gateway, device="t01"):
    return gateway.json("read", device, "pitch_sp")["points"][0]["value"]


def wait_outcome(service, word, code=None, device="t01", point="pitch_sp", wanted=None):
    service.wait(lambda told: bool(told) and told["outcome"] == word and told.get("code") == code
                 and wanted in (None, told["value"]), "writes", device, point)
    return service.reported("writes", device, point)


@pytest.mark.parametrize("name", [None, "site"])
def test_a_desired_value_is_written_and_reported(tmp_path, name):
    broker = Broker(tmp_path, Authority(str(tmp_path / "ca"))).start()
    service = ShadowService(broker, "wt-7", name)
    keys = dict(FULL, thing="wt-7", **({"shadow_name": name} if name else {}))
    gateway, _ = turbines(tmp_path, broker, **keys)
    gateway.start()
    service.wait("online", "devices", "t01", "state")
    service.wait(0, "points", "t01", "pitch_sp")
    reported = service.reported()
    assert reported["gateway"]["name"] == "gateway" and reported["gateway"]["version"]
    assert reported["uplinks"]["mq"]["state"] == "good" and reported["counts"]["online"] == 2
    service.desire(t01__pitch_sp=2.5)
    told = wait_outcome(service, "done")
    assert told["value"] == "2.5" and service.reported("points", "t01", "pitch_sp") == 2.5
    assert value(gateway) == 2.5 and value(gateway, "t02") == 0
    service.desire(t01__pitch_sp=3, t02__pitch_sp=4.25)
    service.wait(4.25, "points", "t02", "pitch_sp")
    service.wait(3, "points", "t01", "pitch_sp")
    events = gateway.process.log()
    assert events.count("write-intent:") == 3 and '"who":"shadow wt-7' in events
    # Somebody on site turns it back: that is reported, and not fought.
    assert gateway.json("write", "t01", "pitch_sp", "1")["outcome"] == "done"
    service.wait(1, "points", "t01", "pitch_sp")
    service.send_delta()
    time.sleep(1)
    assert value(gateway) == 1
    assert gateway.process.log().count("write-intent:") == 4
    told = wait_for(lambda: (one := gateway.uplink_state("mq")["shadow"])["done"] == 3 and one, 10,
                    lambda: gateway.uplink_state("mq"))
    assert told["state"] == "followed" and told["version"] > 3 and told["last_report"]
    assert "shadow followed: last report " in gateway.cli("status")[1]


def test_what_is_refused_is_said_once(tmp_path):
    broker = Broker(tmp_path).start()
    service = ShadowService(broker, "gateway")
    gateway, _ = turbines(tmp_path, broker, **FULL)
    gateway.start()
    service.wait("online", "devices", "t01", "state")
    service.desire(t01__pitch_sp=91)
    told = wait_outcome(service, "refused", "out_of_range")
    assert "0 to 90" in told["why"] and told["value"] == "91"
    for change, code, place in (
            ({"t01__wind_speed": 1}, "not_allowed", ("t01", "wind_speed")),
            ({"t09__pitch_sp": 1}, "no_such_device", ("t09", "pitch_sp")),
            ({"t02__pitch_sp": "full"}, "not_a_number", ("t02", "pitch_sp"))):
        service.desire(**change)
        wait_outcome(service, "refused", code, *place)
    service.desire(t01__pitch_sp=1.234)  # between two values of the register
    wait_outcome(service, "failed", "not_representable")
    count = len(service.updates)
    intents = gateway.process.log().count("write-intent:")
    for _ in range(5):
        service.send_delta()
    time.sleep(2.5)
    assert len(service.updates) == count, "a refusal is reported again and again"
    gateway.stop()
    gateway.start()
    service.wait(lambda _: len(service.updates) > count, "gateway")
    time.sleep(1)
    assert gateway.process.log().count("write-intent:") == 0 and intents == 1
    assert value(gateway) == 0


def test_off_by_default(tmp_path):
    broker = Broker(tmp_path).start()
    service = ShadowService(broker, "gateway")
    gateway, _ = turbines(tmp_path, broker, 1, shadow="full", shadow_interval="1 s")
    gateway.start()
    service.wait("online", "devices", "t01", "state")
    service.desire(t01__pitch_sp=1)
    wait_outcome(service, "refused", "off")
    gets = service.gets
    gateway.set("uplink mq", shadow="reported", writes="allow", write_points="*")
    gateway.reload()
    service.desire(t01__pitch_sp=2)
    wait_for(lambda: service.gets > gets, 20, "a new get")
    time.sleep(1.5)
    assert value(gateway) == 0 and "write-intent" not in gateway.process.log()


def test_old_desires_and_late_deltas_are_not_executed(tmp_path):
    broker = Broker(tmp_path).start()
    service = ShadowService(broker, "gateway")
    service.desire(t01__pitch_sp=5)
    service.metadata["desired"]["points"]["t01"]["pitch_sp"]["timestamp"] -= 1000
    gateway, _ = turbines(tmp_path, broker, 1, **FULL)
    gateway.start()
    wait_outcome(service, "refused", "expired")
    service.desire(t01__pitch_sp=6)
    wait_outcome(service, "done")
    # A delta of an earlier version, as it may come out of order.
    service.publish("update/delta", {"state": {"points": {"t01": {"pitch_sp": 7}}}, "version": 1,
                                     "metadata": {"points": {"t01": {"pitch_sp": {
                                         "timestamp": int(time.time()) + 1}}}}})
    for payload in (b"", b"{", b"[" * 3000, b"\xff\x00", b'{"version":99}', b'{"version":"x"}',
                    b'{"state":{"points":[]},"version":1e3}', b'{"version":999,"state":{"points":{'
                    b'"t01":{"pitch_sp":{"a":1}}}}}'):
        service.client.publish(f"{service.prefix}/update/delta", payload, 1)
        service.client.publish(f"{service.prefix}/get/accepted", payload, 1)
        service.client.publish(f"{service.prefix}/update/rejected", payload, 1)
    time.sleep(1)
    assert value(gateway) == 6
    service.desire(t01__pitch_sp=8)
    service.wait(8, "points", "t01", "pitch_sp")
    assert gateway.process.log().count("write-intent:") == 2


@pytest.mark.lasts(24)
def test_conflicts_and_refusals_of_the_service(tmp_path):
    broker = Broker(tmp_path).start()
    service = ShadowService(broker, "gateway")
    service.refuse = [("get", 500), ("get", 429)]
    gateway, _ = turbines(tmp_path, broker, 1, **FULL)
    gateway.start()
    service.wait("online", "devices", "t01", "state")
    gets = service.gets
    service.refuse = [("update", 409)] * 5
    service.desire(t01__pitch_sp=2)
    service.wait(2, "points", "t01", "pitch_sp", limit_s=60)
    assert service.gets >= gets + 5 and not service.refuse
    # A real one: somebody else's update comes between, again and again.
    for number in range(20):
        with service.lock:
            service.update({"state": {"reported": {"gateway": {"clock": f"x{number}"}}}}, 0, {})
        time.sleep(0.05)
    service.wait("synchronised", "gateway", "clock")
    service.refuse = [("update", 429), ("update", 500)]
    service.desire(t01__pitch_sp=3)
    service.wait(3, "points", "t01", "pitch_sp", limit_s=60)
    with service.lock:  # deleted for more than 48 hours: versions begin anew
        service.state = service.metadata = None
        service.version = 0
    service.desire(t01__pitch_sp=4)
    service.wait(4, "points", "t01", "pitch_sp")
    service.wait("online", "devices", "t01", "state")
    broker.stop()
    broker.start()
    assert service.ready.wait(PATIENCE_S)
    service.desire(t01__pitch_sp=5)
    service.wait(5, "points", "t01", "pitch_sp", limit_s=40)
    assert gateway.process.log().count("write-intent:") == 4


def test_a_large_site_fits(tmp_path):
    """8 KB hold no 300 devices: the lost ones first, the rest counted."""
    broker = Broker(tmp_path).start()
    service = ShadowService(broker, "gateway")
    gateway, _ = turbines(tmp_path, broker, 40, "1 s", **FULL)
    gateway.set("device gone{001..260}", driver="modbus-tcp", address="127.0.0.1:1",
                profile="demo-turbine", poll="1 s")
    gateway.start()
    service.wait(lambda counts: counts == {"starting": 0, "online": 40, "lost": 260}, "counts",
                 limit_s=60)
    service.wait(lambda devices: len(devices) > 50, "devices")
    reported = service.reported()
    states = {device["state"] for device in reported["devices"].values()}
    assert states == {"lost"}
    assert reported["devices_left_out"] == 300 - len(reported["devices"])
    service.desire(**{f"t{n:02d}__pitch_sp": 1 for n in range(1, 41)})
    service.wait(lambda points: all(points.get(f"t{n:02d}") == {"pitch_sp": 1}
                                    for n in range(1, 41)), "points", limit_s=60)
    assert len(json.dumps(service.state, separators=(",", ":"))) <= SIZE_MAX
    assert (("update", 413) not in service.refused)
    del gateway.sections["device gone{001..260}"]
    gateway.reload()
    service.wait(lambda devices: {name[0] for name in devices} == {"t"}, "devices")
    reported = service.reported()
    assert len(reported["devices"]) + reported.get("devices_left_out", 0) == 40


def test_reports_keep_their_interval(tmp_path):
    broker = Broker(tmp_path).start()
    service = ShadowService(broker, "gateway")
    gateway, simulator = turbines(tmp_path, broker, 1, **dict(FULL, shadow_interval="3 s"))
    gateway.start()
    service.wait("online", "devices", "t01", "state")
    before = len(service.updates)
    time.sleep(4)  # nothing but counters moves
    assert len(service.updates) <= before + 2
    simulator.stop()
    service.wait("lost", "devices", "t01", "state", limit_s=30)
    moments = [moment for moment, _ in service.updates]
    # They may be late here by what the machine has else to do.
    assert all(b - a > 1.5 for a, b in zip(moments[1:], moments[2:])), moments


def registers(folder, broker, register):
    gateway = Gateway(folder)
    gateway.set("device t01", driver="modbus-tcp", address=f"127.0.0.1:{register.port}",
                poll="100 ms", timeout="60 s",
                point__setpoint="holding 10 uint16, scale 0.1, writable 0 6000")
    return uplink(gateway, broker, **FULL)


def test_nothing_desired_is_written_twice(tmp_path):
    """Ended between intent and outcome: it is told as unknown, and stays as it is until it is
    desired anew."""
    broker, register = Broker(tmp_path).start(), Register()
    service = ShadowService(broker, "gateway")
    gateway = registers(tmp_path, broker, register)
    gateway.start()
    service.wait("online", "devices", "t01", "state")
    for number in range(1, KILLS + 1):
        register.answers.clear()
        service.desire(t01__setpoint=number)
        wait_for(lambda: register.written.get(number * 10), 10, "the register is written")
        gateway.kill()
        register.answers.set()
        gateway.start()
        wait_outcome(service, "unknown", "unknown_outcome", "t01", "setpoint", str(number))
        service.send_delta()
    wait_for(lambda: service.reported("points", "t01", "setpoint") == KILLS, 20, "the last value")
    service.desire(t01__setpoint=500)
    wait_outcome(service, "done", None, "t01", "setpoint")
    assert set(register.written.values()) == {1}, register.written


def test_the_same_value_desired_anew_is_another_order(tmp_path):
    broker, register = Broker(tmp_path).start(), Register()
    service = ShadowService(broker, "gateway")
    gateway = registers(tmp_path, broker, register)
    gateway.start()
    service.wait("online", "devices", "t01", "state")
    service.desire(t01__setpoint=7)
    service.wait(7, "points", "t01", "setpoint")
    register.registers[10] = 0
    service.wait(0, "points", "t01", "setpoint")
    time.sleep(1.1)  # the service's timestamps are seconds
    service.desire(t01__setpoint=7)
    service.wait(7, "points", "t01", "setpoint")
    assert register.written == {70: 2}
