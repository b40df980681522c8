"""Type mqtt against mosquitto: mutual TLS, killed gateway, restarted broker, refusals.

WINDROW_MQTT_ROUNDS sets how often both are ended (4).
"""
import collections
import os
import random
import shutil
import socket
import ssl
import threading
import time

import pytest

from certificates import Authority
from mosquitto import Broker, Subscriber, installed, records
from process import PATIENCE_S, wait_for
from site_parts import Gateway, Simulator

pytestmark = pytest.mark.skipif(not installed(), reason="mosquitto is not installed")
ROUNDS = int(os.environ.get("WINDROW_MQTT_ROUNDS", "4"))


def site(folder, broker, turbines=3, **keys):
    simulator = Simulator(folder, turbines).start()
    gateway = Gateway(folder).turbines(simulator, poll="50 ms")
    gateway.set("store", commit_interval="100 ms")
    given = {"type": "mqtt", "url": broker.url, "batch_interval": "100 ms",
             "connect_timeout": "3 s", "timeout": "5 s"}
    if broker.authority:
        cert, key = broker.authority.issue("gw")
        given.update(ca_file=broker.authority.cert, cert_file=cert, key_file=key)
    given.update(keys)
    return gateway.set("uplink mq", **given)


def words(gateway):
    """The uplink's last error; it is not listed while a reload restarts it."""
    states = gateway.get("/v1/status")["uplinks"]
    return states[0]["last_error"] or "" if states else ""


def told(gateway, text, limit_s=20):
    wait_for(lambda: text in words(gateway), limit_s, lambda: f"'{text}': {words(gateway)}")


def settle(gateway, subscriber, limit_s=60):
    gateway.wait_delivered(1, 30, "mq")
    gateway.stop_polling()
    ledger = gateway.drain(limit_s)
    assert ledger["dead"] == 0 and ledger["delivered"] == ledger["read"] > 0
    subscriber.wait(lambda messages: sum(map(len, records(messages).values())) >= ledger["read"])
    seen = records(subscriber.messages())
    assert sum(map(len, seen.values())) == ledger["read"]
    by_device = collections.defaultdict(list)
    for _, _, device, seq in seen:
        by_device[device].append(seq)
    for device, seqs in by_device.items():
        assert sorted(seqs) == list(range(1, len(seqs) + 1)), f"{device} has gaps"
    return ledger


def test_both_sides_ended_again_and_again(tmp_path):
    broker = Broker(tmp_path, Authority(str(tmp_path / "ca"))).start()
    subscriber = Subscriber(broker).start()
    chance = random.Random(random.randrange(2**32))
    gateway = site(tmp_path, broker, inflight=20)
    gateway.write()
    for _ in range(ROUNDS):
        gateway.process.start()
        time.sleep(chance.uniform(0.1, 0.8))  # the random moment itself
        broker.stop()  # mosquitto keeps what it has acknowledged only when it ends by itself
        time.sleep(chance.uniform(0, 0.3))
        if chance.random() < 0.5:
            gateway.kill()
            broker.start()
        else:
            broker.start()
            time.sleep(chance.uniform(0, 0.5))
            gateway.kill()
    gateway.start()
    settle(gateway, subscriber)


@pytest.mark.parametrize("payload,protocol", [("record", "3.1.1"), ("batch", "5")])
def test_payloads(tmp_path, payload, protocol):
    broker = Broker(tmp_path).start()
    subscriber = Subscriber(broker).start()
    gateway = site(tmp_path, broker, payload=payload, protocol=protocol, max_payload="4 KiB",
                   batch_interval="500 ms").start()
    gateway.wait_delivered(1, 30, "mq")
    broker.stop()
    wait_for(lambda: words(gateway), 15, "an error is told")
    broker.start()
    settle(gateway, subscriber)


def test_status_and_last_will(tmp_path):
    broker = Broker(tmp_path).start()
    subscriber = Subscriber(broker).start()
    gateway = site(tmp_path, broker).start()

    def statuses(messages):
        return [payload["status"] for topic, payload in messages
                if topic == "sensors/gateway/status"]

    subscriber.wait(lambda messages: statuses(messages) == ["online"])
    gateway.kill()
    subscriber.wait(lambda messages: statuses(messages) == ["online", "offline"])
    gateway.start()
    subscriber.wait(lambda messages: statuses(messages)[2:] == ["online"])
    gateway.stop()
    subscriber.wait(lambda messages: statuses(messages)[3:] == ["offline"])


def delivered(gateway, device):
    devices = gateway.get("/v1/ledger")["uplinks"][0]["devices"]
    return next(d["delivered"] for d in devices if d["name"] == device)


@pytest.mark.lasts(19)
def test_what_is_not_allowed_waits_and_keeps_nobody_else(tmp_path):
    """A broker hangs up on a topic that it does not allow; the other devices are delivered all the
    same, and the one when it is allowed."""
    allowed = "topic readwrite sensors/t01/#\ntopic readwrite sensors/gateway/#\n" \
              "topic read sensors/#\n"
    broker = Broker(tmp_path, acl=allowed).start()
    gateway = site(tmp_path, broker, turbines=2, parallel=1).start()
    gateway.wait_delivered(1, 30, "mq")
    told(gateway, "does not allow this")
    gateway.process.wait_log("device t02 is not taken and stands aside: .* does not allow", 30)
    before = delivered(gateway, "t01")
    wait_for(lambda: delivered(gateway, "t01") > before + 1000, 30, "the device that is allowed")
    ledger = gateway.ledger()
    assert ledger["dead"] == 0 and ledger["waiting"] > 0 and delivered(gateway, "t02") == 0
    broker.allow(allowed + "topic readwrite sensors/t02/#\n")
    gateway.stop_polling()
    gateway.drain(60)
    ledger = gateway.ledger()
    assert delivered(gateway, "t01") + delivered(gateway, "t02") == ledger["stored"]
    assert delivered(gateway, "t02") > 0 and ledger["dead"] == 0


def test_another_client_with_our_name(tmp_path):
    broker = Broker(tmp_path).start()
    gateway = site(tmp_path, broker, client_id="collector").start()
    gateway.wait_delivered(1, 30, "mq")
    other = Subscriber(broker)
    other.process.start()
    gateway.process.wait_log("another client .* client_id", 20)
    other.process.kill()
    before = gateway.uplink_state("mq")["delivered"]
    gateway.wait_delivered(before + 1, 30, "mq")


def test_a_paced_publisher_keeps_its_rate(tmp_path):
    broker = Broker(tmp_path).start()
    gateway = site(tmp_path, broker, publish_rate=20, batch_records=10).start()
    gateway.wait_delivered(1, 30, "mq")
    before, start = gateway.uplink_state("mq")["delivered"], time.monotonic()
    gateway.wait_delivered(before + 60 * 8, 20, "mq")  # 8 points a message; it polls 60 scans/s
    assert time.monotonic() - start > 60 / 30


def test_strangers_are_refused(tmp_path):
    authority = Authority(str(tmp_path / "ca"))
    stranger = Authority(str(tmp_path / "stranger"))
    broker = Broker(tmp_path, authority).start()
    gateway = site(tmp_path, broker, ca_file=stranger.cert).start()
    told(gateway, "certificate verify failed")
    cert, key = stranger.issue("gw2")
    gateway.set("uplink mq", ca_file=authority.cert, cert_file=cert, key_file=key)
    gateway.reload()
    wait_for(lambda: words(gateway) and "verify failed" not in words(gateway), 20,
             lambda: words(gateway))
    assert gateway.uplink_state("mq")["delivered"] == 0
    gateway.set("uplink mq", url="mqtts://no-such-host.invalid:8883")
    gateway.reload()
    told(gateway, "no-such-host")
    gateway.set("uplink mq", url="mqtt://127.0.0.1:1")
    gateway.reload()
    told(gateway, "refused")


def test_certificates_change_while_it_runs(tmp_path):
    """The broker sees another one, nothing is lost; a pair that does not fit changes nothing."""
    authority, own = Authority(tmp_path / "ca"), tmp_path / "own"
    own.mkdir()
    cert, key = own / "gw.pem", own / "gw.key"

    def put(*names):
        for source, to in zip(names, (cert, key)):
            shutil.copy(source, own / "new")
            os.chmod(own / "new", 0o600)
            os.rename(own / "new", to)

    pairs = [authority.issue(f"gateway-{i}") for i in range(2)]
    put(*pairs[0])
    broker = Broker(tmp_path, authority, named=True).start()
    subscriber = Subscriber(broker).start()
    gateway = site(tmp_path, broker, cert_file=cert, key_file=key).start()
    broker.process.wait_log(r"u'gateway-0'")
    gateway.wait_delivered(50, name="mq")
    put(pairs[1][0])
    wait_for(lambda: "key_file is not the key" in (gateway.uplink_state("mq")["warning"] or ""), 20,
             "a warning")
    assert "u'gateway-1'" not in broker.process.log()
    put(*pairs[1])
    broker.process.wait_log(r"u'gateway-1'", 20)
    wait_for(lambda: not gateway.uplink_state("mq")["warning"], 20, "no warning")
    settle(gateway, subscriber)
    assert gateway.uplink_state("mq")["failures"] == 0
    assert "gateway-1" in broker.process.log()


def test_tls_greeting_names_host_and_protocol(tmp_path):
    """What AWS IoT Core on port 443 needs to see: SNI, ALPN, and a client certificate."""
    authority = Authority(str(tmp_path / "ca"))
    cert, key = authority.issue("server", "DNS:localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.load_verify_locations(authority.cert)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["x-amzn-mqtt-ca"])
    seen = {}
    context.sni_callback = lambda _socket, name, _context: seen.update(sni=name)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listener.accept()
        with context.wrap_socket(connection, server_side=True) as tls:
            seen.update(alpn=tls.selected_alpn_protocol(), version=tls.version(),
                        subject=tls.getpeercert()["subject"], first=tls.recv(1))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    class Stranger:
        url = f"mqtts://localhost:{listener.getsockname()[1]}"

    Stranger.authority = authority
    gateway = site(tmp_path, Stranger, turbines=1, alpn="x-amzn-mqtt-ca").start()
    thread.join(PATIENCE_S)
    gateway.kill()
    listener.close()
    assert seen["alpn"] == "x-amzn-mqtt-ca" and seen["sni"] == "localhost"
    assert seen["version"] in ("TLSv1.2", "TLSv1.3")
    assert seen["subject"] and seen["first"] == b"\x10"  # CONNECT
