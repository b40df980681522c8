"""Type mqtt against brokers that acknowledge what was never sent, too much or too little, and that
send what is no MQTT: only what each message's own acknowledgement says counts as delivered."""
import json

import pytest

from certificates import Authority
from hostile_broker import HostileBroker, packet
from hostile_http import memory_kib
from process import wait_for
from site_parts import Gateway, Simulator


def site(folder, broker, **keys):
    gateway = Gateway(folder).turbines(Simulator(folder, 1).start(), poll="50 ms")
    given = {"type": "mqtt", "url": broker.url, "batch_interval": "100 ms", "timeout": "1 s",
             "connect_timeout": "3 s", "inflight": 10}
    return gateway.set("uplink mq", **dict(given, **keys))


def seqs(broker):
    return {json.loads(payload)["seq"] for topic, payload in broker.messages
            if topic.endswith("/telemetry")}


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize("mode", ["strangers", "silence"])
def test_nothing_is_delivered_without_its_own_acknowledgement(tmp_path, mode, protocol):
    broker = HostileBroker(mode)
    gateway = site(tmp_path, broker, protocol=protocol).start()
    wait_for(lambda: gateway.uplink_state("mq")["failures"] >= 2, 30,
             lambda: gateway.uplink_state("mq"))
    state = gateway.uplink_state("mq")
    assert state["delivered"] == 0 and len(broker.messages) > 1
    assert "acknowledges nothing" in state["last_error"], state
    broker.mode = "good"
    gateway.stop_polling()
    ledger = gateway.drain(60)
    assert ledger["delivered"] == ledger["read"] and ledger["dead"] == 0
    assert seqs(broker) == set(range(1, max(seqs(broker)) + 1))
    broker.close()


@pytest.mark.parametrize("mode", ["twice", "backwards and forwards", "all there are"])
def test_more_acknowledgements_than_messages(tmp_path, mode):
    """Each message counts once, and all have reached the broker."""
    broker = HostileBroker(mode)
    gateway = site(tmp_path, broker).start()
    gateway.wait_delivered(100, name="mq")
    gateway.stop_polling()
    ledger = gateway.drain()
    assert ledger["delivered"] == ledger["read"] and ledger["dead"] == 0
    assert broker.sent > len(broker.messages)
    wait_for(lambda: seqs(broker) == set(range(1, ledger["read"] // 8 + 1)), 10,
             lambda: (ledger["read"], len(seqs(broker))))
    broker.close()


@pytest.mark.parametrize("greeting", [
    b"\x00\x00", b"\xf0\x00", b"\x40\xff\xff\xff\xff\xff", b"HTTP/1.1 400 Bad Request\r\n\r\n",
    packet(4, b""), packet(4, b"\0\0"), packet(2, b"\0\0\0"), packet(3, b"\xff\xffx"),
    packet(9, b"\0\1"), packet(14, b"\x8b\0"),
    packet(3, b"\0\1x\0" + b"y" * 2000000),
], ids=["reserved", "auth", "endless-length", "http", "no-id", "id-0", "connack-again",
        "topic-beyond", "suback", "goodbye", "large"])
def test_packets_that_nobody_asked_for(tmp_path, greeting):
    broker = HostileBroker("good", greeting)
    gateway = site(tmp_path, broker).start()
    before = memory_kib(gateway.process.popen.pid)
    wait_for(lambda: gateway.uplink_state("mq")["failures"] + gateway.uplink_state("mq")
             ["delivered"] > 0, 30, lambda: gateway.uplink_state("mq"))
    assert memory_kib(gateway.process.popen.pid) - before < 16 * 1024
    broker.greeting = None
    gateway.stop_polling()
    ledger = gateway.drain(60)
    assert ledger["delivered"] == ledger["read"] and ledger["dead"] == 0
    broker.close()


def test_a_message_without_end(tmp_path):
    """200 MB that a broker announces, although it was told to send 64 KiB at most."""
    authority = Authority(tmp_path / "ca")

    def flood(connection):
        connection.sendall(b"\x30\x80\x80\x80\x64\x00\x01x\x00")
        for _ in range(3200):
            connection.sendall(b"y" * 65536)

    broker = HostileBroker("good", flood, authority)
    gateway = site(tmp_path, broker, ca_file=authority.cert).start()
    memory = [memory_kib(gateway.process.popen.pid)]

    def told():
        memory.append(memory_kib(gateway.process.popen.pid))
        return "larger than we take" in (gateway.uplink_state("mq")["last_error"] or "")
    wait_for(told, 30, lambda: gateway.uplink_state("mq"))
    assert max(memory) - memory[0] < 24 * 1024, memory
    broker.greeting = None
    gateway.stop_polling()
    ledger = gateway.drain(60)
    assert ledger["delivered"] == ledger["read"] and ledger["dead"] == 0
    broker.close()
