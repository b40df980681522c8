"""Type iot-https against a stand-in for AWS IoT Core over mutual TLS."""
import json

import pytest

from certificates import Authority
from iot_core import IotCore
from process import wait_for
from site_parts import Gateway, Simulator


@pytest.fixture(name="authority")
def make_authority(tmp_path):
    return Authority(str(tmp_path / "ca"))


@pytest.fixture(name="gateway")
def make_gateway(tmp_path):
    simulator = Simulator(tmp_path, 2).start()
    return Gateway(tmp_path).turbines(simulator, poll="50 ms")


@pytest.fixture(name="core")
def make_core(authority):
    core = IotCore(authority)
    yield core
    core.close()


def site(gateway, core, **keys):
    cert, key = core.authority.issue("gw")
    given = {"type": "iot-https", "url": f"https://127.0.0.1:{core.port}", "send": "raw",
             "ca_file": core.authority.cert, "cert_file": cert, "key_file": key,
             "batch_interval": "200 ms", "timeout": "5 s"}
    given.update(keys)
    return gateway.set("uplink iot", **given)


def words(gateway):
    return gateway.uplink_state("iot")["last_error"] or ""


def told(gateway, text, limit_s=20):
    wait_for(lambda: text in words(gateway), limit_s, lambda: f"'{text}': {words(gateway)}")


def settle(gateway, core):
    gateway.wait_delivered(1, 30, "iot")
    gateway.stop_polling()
    ledger = gateway.drain()
    found = core.records()
    assert ledger["read"] == ledger["delivered"] == sum(map(len, found.values())) > 0
    assert ledger["dead"] == 0
    for device in ("t01", "t02"):
        seqs = sorted(seq for name, seq in found if name == device)
        assert seqs == list(range(1, len(seqs) + 1))


@pytest.mark.parametrize("payload", ["telemetry", "record", "batch"])
def test_payloads_through_restarts(gateway, core, payload):
    site(gateway, core, payload=payload, topic="$aws/rules/wind/a/b/{gateway}/{device}").start()
    for _ in range(2):
        before = gateway.uplink_state("iot")["delivered"]
        gateway.wait_delivered(before + 200, 20, "iot")
        core.restart()
    gateway.kill()
    gateway.start()
    settle(gateway, core)
    for topic, body in core.published:
        device = topic.rpartition("/")[2]
        one = json.loads(body)
        assert one.get("device", one.get("deviceId", one.get("records", [{}])[0].get("device"))) \
            == device and topic == f"$aws/rules/wind/a/b/gateway/{device}"


def test_on_port_443_by_its_protocol(gateway, authority):
    """ALPN as IoT Core's port 443 tells HTTPS from MQTT."""
    core = IotCore(authority, "x-amzn-http-ca")
    site(gateway, core, alpn="x-amzn-http-ca").start()
    settle(gateway, core)
    assert core.protocols == {"x-amzn-http-ca"}
    core.close()


@pytest.mark.parametrize("planned, text", [
    ((403, "Forbidden"), "iot:Publish"), ((401, "Unauthorized"), "is it active"),
    ((429, "Too Many Requests"), "slow down"), ((500, None), "in trouble"),
    ((400, "Bad Request"), "refuses the request"), ((200, "<html>Log in"), "captive portal"),
    ((200, "Hello"), "captive portal"),
])
def test_what_goes_wrong_is_told_and_nothing_lost(gateway, core, planned, text):
    core.script = [planned] * 30
    site(gateway, core).start()
    told(gateway, text)
    assert not core.published and gateway.ledger()["dead"] == 0
    core.script = []
    gateway.set("uplink iot", batch_interval="100 ms")
    gateway.reload()
    settle(gateway, core)


def test_too_large_is_cut(gateway, core):
    core.script = [(413, "Request Entity Too Large")] * 2
    site(gateway, core, batch_interval="1 s").start()
    settle(gateway, core)


def test_without_a_certificate(gateway, core):
    keys = gateway.set("uplink iot", type="iot-https", url=f"https://127.0.0.1:{core.port}")
    keys.write()
    status, output, _ = gateway.cli("check")
    assert status == 2 and "knows a gateway by its certificate" in output
    stranger = Authority(gateway.path("stranger"))
    cert, key = stranger.issue("gw")
    site(gateway, core, cert_file=cert, key_file=key).start()
    told(gateway, "does not accept our client certificate")
    assert not core.published
