"""Commands and states over MQTT: mosquitto with mutual TLS, the daemon, simulated turbines.

WINDROW_COMMAND_KILLS sets how often the gateway is ended in the middle of a command (4).
"""
import json
import os
import random
import socket
import threading
import time

import pytest

mqtt = pytest.importorskip("paho.mqtt.client")

from certificates import Authority
from mosquitto import Broker, installed
from process import PATIENCE_S, wait_for
from register_slave import Register
from site_parts import Gateway, Simulator

pytestmark = pytest.mark.skipif(not installed(), reason="mosquitto is not installed")
KILLS = int(os.environ.get("WINDROW_COMMAND_KILLS", "4"))
COMMANDS = {"command_topic": "windrow/{gateway}/commands/+", "writes": "allow",
            "write_points": "t0?.pitch_sp *.setpoint"}
WRITABLE = "holding 20 int16, scale 0.01, unit deg, writable 0 90"


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


def turbines(folder, broker, count=2, **keys):
    simulator = Simulator(folder, count).start()
    gateway = Gateway(folder).turbines(simulator, poll="100 ms", point__pitch_sp=WRITABLE)
    return uplink(gateway, broker, **keys), simulator


class Operator:
    """Publishes commands and keeps what comes back, and the retained states."""

    def __init__(self, broker, name="ops"):
        self.messages, self.ready = [], threading.Event()
        self.client = mqtt.Client(client_id=name, protocol=mqtt.MQTTv5)
        self.client.on_message = lambda _c, _u, m: self.messages.append(
            (m.topic, m.payload.decode("utf-8", "replace"), m.retain))
        self.client.on_subscribe = lambda *_: self.ready.set()
        self.client.connect("127.0.0.1", broker.plain)
        self.client.subscribe([("windrow/#", mqtt.SubscribeOptions(qos=1, noLocal=True)),
                               ("sensors/+/status", mqtt.SubscribeOptions(qos=1)),
                               ("sensors/+/alerts", mqtt.SubscribeOptions(qos=1))])
        self.client.loop_start()
        assert self.ready.wait(PATIENCE_S)

    def send(self, payload, retain=False, **changes):
        """A command as bytes or text; or out of id, value and changes."""
        if isinstance(payload, dict):
            body = {"device": "t01", "point": "pitch_sp", "expires": time.time() + 60}
            body.update(payload, **changes)
            payload = json.dumps({key: value for key, value in body.items() if value is not None})
        self.client.publish("windrow/gateway/commands/ops", payload, 1, retain)

    def replies(self):
        return [json.loads(text) for topic, text, _ in self.messages
                if topic == "windrow/gateway/replies"]

    def answers(self, name, count=1, limit_s=20):
        wait_for(lambda: len([1 for r in self.replies() if r["id"] == name]) >= count, limit_s,
                 lambda: f"{count} replies to {name}: {self.messages[-5:]}")
        return [reply for reply in self.replies() if reply["id"] == name]

    def refusal(self, name):
        reply = self.answers(name)[-1]
        assert reply["outcome"] == "refused", reply
        return reply["error"]["code"]

    def state(self, name):
        """The last one of a device or the gateway; "" when it was taken away."""
        texts = [text for topic, text, _ in self.messages if topic == f"sensors/{name}/status"]
        return json.loads(texts[-1])["status"] if texts and texts[-1] else ""

    def wait_state(self, name, state, limit_s=20):
        wait_for(lambda: self.state(name) == state, limit_s,
                 lambda: f"{name} is '{self.state(name)}', not '{state}': {self.messages[-5:]}")


def memory(gateway):
    with open(f"/proc/{gateway.process.popen.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) * 1024


def sanitized(gateway):
    """Such a build keeps what was freed."""
    with open(f"/proc/{gateway.process.popen.pid}/maps", encoding="utf-8") as file:
        return "libasan" in file.read()


def connected(gateway, operator):
    """Started, and its subscription has reached the broker: it answers; all that was asked before
    the last question is answered before it."""
    gateway.start()
    wait_for(lambda: gateway.get("/v1/status")["clock"]["synchronised"], 10, "the clock")
    first, last = f"probe-{time.monotonic()}", f"last-probe-{time.monotonic()}"

    def answered():
        operator.send({"id": first, "value": 1, "expires": 1})
        return [1 for reply in operator.replies() if reply["id"] == first]

    wait_for(answered, 20, "an answer to anything", 0.1)
    operator.send({"id": last, "value": 1, "expires": 1})
    operator.answers(last)
    operator.messages = [m for m in operator.messages if not m[0].endswith("/replies")]


def test_commands_are_checked_executed_and_answered(tmp_path):
    broker = Broker(tmp_path, Authority(str(tmp_path / "ca"))).start()
    operator = Operator(broker)
    gateway, _ = turbines(tmp_path, broker, **COMMANDS)
    connected(gateway, operator)
    operator.send({"id": "a", "value": 2.5})
    reply = operator.answers("a")[0]
    assert (reply["outcome"], reply["read_back"], reply["device"]) == ("done", 2.5, "t01"), reply
    assert gateway.json("read", "t01", "pitch_sp")["points"][0]["value"] == 2.5
    operator.send({"id": "a", "value": 2.5})  # as QoS 1 may
    assert operator.answers("a", 2)[1] == reply
    operator.send({"id": "a", "value": 3})
    operator.answers("a", 3)
    assert operator.refusal("a") == "id_used"
    for name, changes, code in (
            ("low", {"value": -1}, "out_of_range"), ("high", {"value": 90.01}, "out_of_range"),
            ("fine", {"value": 1.234}, "not_representable"),
            ("wind", {"value": 1, "point": "wind_speed"}, "not_allowed"),
            ("none", {"value": 1, "device": "t09"}, "no_such_device"),
            ("old", {"value": 1, "expires": time.time() - 1}, "expired"),
            ("far", {"value": 1, "expires": time.time() + 9999}, "too_far"),
            ("never", {"value": 1, "expires": None}, "incomplete"),
            ("word", {"value": "full"}, "not_a_number"), ("null", {"value": None}, "bad_request"),
            ("list", {"value": [1]}, "bad_request"), ("more", {"value": 1, "force": True},
                                                      "bad_request")):
        operator.send({"id": name}, **changes)
        reply = operator.answers(name)[0]
        assert reply["error"]["code"] == code, reply
    operator.send({"id": None, "value": 1})
    assert operator.answers("")[0]["error"]["code"] == "incomplete"
    operator.send({"id": "kept", "value": 1}, retain=True)
    assert operator.refusal("kept") == "retained"

    def all_counted():
        told = gateway.uplink_state("mq")["commands"]
        return told["done"] >= 2 and told["refused"] >= 15 and told["state"] == "ready" and \
            told["taken"] == told["done"] + told["refused"]
    wait_for(all_counted, 10, lambda: gateway.uplink_state("mq"))
    assert "commands ready: " in gateway.cli("status")[1]
    gateway.stop()
    connected(gateway, operator)  # and does not hear the one that the broker keeps
    operator.send({"id": "a", "value": 2.5})
    assert operator.answers("a")[0]["outcome"] == "done"
    assert not [1 for reply in operator.replies() if reply["id"] == "kept"]
    assert gateway.json("read", "t01", "pitch_sp")["points"][0]["value"] == 2.5


@pytest.mark.parametrize("keys,switch,code", [
    ({"writes": "off"}, "yes", "off"), ({"writes": "allow"}, "no", "off"),
    ({"writes": "allow", "write_points": "t02.*"}, "yes", "not_allowed")])
def test_off_unless_all_say_so(tmp_path, keys, switch, code):
    broker = Broker(tmp_path).start()
    operator = Operator(broker)
    gateway, _ = turbines(tmp_path, broker, 1, **dict(COMMANDS, **keys))
    gateway.set("gateway", allow_writes=switch)
    connected(gateway, operator)
    operator.send({"id": "a", "value": 1})
    assert operator.refusal("a") == code


def test_hostile_payloads_and_floods_are_bounded(tmp_path):
    broker = Broker(tmp_path).start()
    operator = Operator(broker)
    gateway, _ = turbines(tmp_path, broker, 1, **COMMANDS)
    connected(gateway, operator)
    before = memory(gateway)
    for payload in (b"\xff\xfe\x00", "[" * 4000, '{"a":' * 700, "nul", "{}", "[]", '"x"',
                    '{"id":"x"', '{"id":1}', "7" * 4000):
        operator.send(payload)
    operator.send("x" * 5000)
    operator.send("y" * 1000000)  # more than we let a broker send us: it does not arrive
    wait_for(lambda: len(operator.replies()) == 11, 20, lambda: f"{operator.replies()}")
    assert {r["error"]["code"] for r in operator.replies()} == {"bad_request", "too_long"}
    for number in range(3000):
        operator.send({"id": f"f{number}", "value": number % 90})

    def ended():
        operator.send({"id": f"last-{time.monotonic()}", "value": 7})
        return [1 for r in operator.replies() if "last" in r["id"] and r["outcome"] == "done"]

    wait_for(ended, 60, lambda: f"{len(operator.replies())} replies", 0.5)
    codes = {r.get("error", {}).get("code") for r in operator.replies()}
    assert codes <= {None, "bad_request", "too_long", "busy"}, codes
    assert gateway.json("read", "t01", "pitch_sp")["points"][0]["value"] == 7
    assert memory(gateway) < before + 16e6 or sanitized(gateway)
    ledger = gateway.ledger()
    assert ledger["dead"] == 0 and ledger["delivered"] > 0


class Impatient:
    """Gives one command after another and repeats what is not answered."""

    def __init__(self, operator):
        self.operator, self.stopping, self.outcomes = operator, False, {}
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def outcome(self, name):
        for reply in self.operator.replies():
            if reply["id"] == name and reply["outcome"] in ("done", "unknown"):
                return reply["outcome"]
        return None

    def run(self):
        number = 0
        while not self.stopping:
            number += 1
            name = f"order-{number}"
            while not self.stopping and self.outcome(name) is None:
                self.operator.send({"id": name, "value": number / 10, "point": "setpoint"})
                end = time.monotonic() + 0.3
                while time.monotonic() < end and self.outcome(name) is None:
                    time.sleep(0.005)
            self.outcomes[number] = self.outcome(name)


def registers(folder, broker, register, **keys):
    gateway = Gateway(folder)
    gateway.set("device t01", driver="modbus-tcp", address=f"127.0.0.1:{register.port}",
                poll="100 ms", timeout="500 ms",
                point__setpoint="holding 10 uint16, scale 0.1, writable 0 6000")
    return uplink(gateway, broker, **keys)


def test_no_command_is_executed_twice(tmp_path):
    broker, register = Broker(tmp_path).start(), Register()
    register.delay_s = 0.01
    operator = Operator(broker)
    gateway = registers(tmp_path, broker, register, **COMMANDS)
    connected(gateway, operator)
    impatient = Impatient(operator)
    for _ in range(KILLS):
        enough = len(impatient.outcomes) + random.randint(1, 4)
        wait_for(lambda: len(impatient.outcomes) >= enough, 30, "outcomes", 0.001)
        time.sleep(random.uniform(0, 0.1))
        gateway.kill()
        gateway.start()
    impatient.stopping = True
    impatient.thread.join(PATIENCE_S)
    gateway.stop()
    assert max(register.written.values()) == 1, "a command was executed twice"
    done = {number for number, outcome in impatient.outcomes.items() if outcome == "done"}
    assert done <= set(register.written)


def test_states_of_devices(tmp_path):
    broker = Broker(tmp_path).start()
    operator = Operator(broker)
    gateway, simulator = turbines(tmp_path, broker, send="raw events")
    gateway.start()

    def alerts(name):
        return [json.loads(text)["readings"]["event"] for topic, text, _ in operator.messages
                if topic == f"sensors/{name}/alerts"]
    for name in ("t01", "t02"):
        operator.wait_state(name, "online")
    simulator.stop()
    operator.wait_state("t01", "lost", 30)
    operator.wait_state("t02", "lost", 30)
    late = Operator(broker, "late")
    late.wait_state("t01", "lost")
    assert all(retained for topic, _, retained in late.messages if topic.endswith("/status"))
    simulator.start()
    operator.wait_state("t01", "online", 40)
    wait_for(lambda: alerts("t01") == ["device-lost", "device-returned"], 20,
             lambda: alerts("t01"))
    first = next(name for name in gateway.sections if name.startswith("device "))
    gateway.turbines(simulator, poll="100 ms", first=1, last=1, point__pitch_sp=WRITABLE)
    del gateway.sections[first]
    gateway.reload()
    operator.wait_state("t02", "")
    broker.stop()
    broker.start()  # nothing has to flow for a new connection
    last = Operator(broker, "last")
    last.wait_state("t01", "online")
    last.wait_state("gateway", "online")


def test_events_are_alerts(tmp_path):
    broker = Broker(tmp_path).start()
    operator = Operator(broker)
    gateway, _ = turbines(tmp_path, broker, 1, send="raw events", **COMMANDS)
    connected(gateway, operator)
    operator.send({"id": "a", "value": 2})
    operator.answers("a")

    def kinds():
        return [json.loads(text)["readings"]["event"] for topic, text, _ in operator.messages
                if topic == "sensors/t01/alerts"]

    wait_for(lambda: kinds() == ["write-intent", "write-done"], 10, kinds)


class Closer:
    """Before a broker: ends a connection that subscribes, as IoT Core does without the right."""

    def __init__(self, broker):
        self.broker, self.closed = broker, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(("127.0.0.1", self.broker.port))
            threading.Thread(target=self.up, args=(client, server), daemon=True).start()
            threading.Thread(target=self.down, args=(server, client), daemon=True).start()

    def up(self, client, server):
        stream = client.makefile("rb")
        try:
            while head := stream.read(1):
                length, shift, raw = 0, 0, head
                while True:
                    byte = stream.read(1)
                    raw += byte
                    length |= (byte[0] & 127) << shift
                    shift += 7
                    if byte[0] < 128:
                        break
                if head[0] >> 4 == 8:  # SUBSCRIBE
                    self.closed += 1
                    break
                server.sendall(raw + stream.read(length))
        except (OSError, IndexError):
            pass
        for one in (client, server):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    @staticmethod
    def down(server, client):
        try:
            while data := server.recv(65536):
                client.sendall(data)
        except OSError:
            pass


def test_a_broker_that_ends_what_it_does_not_allow_costs_no_readings(tmp_path):
    broker = Broker(tmp_path).start()
    closer = Closer(broker)
    gateway, _ = turbines(tmp_path, broker, 1, **dict(COMMANDS,
                                                      url=f"mqtt://127.0.0.1:{closer.port}"))
    gateway.start()
    gateway.process.wait_log("that rests for 60 s", 30)
    assert closer.closed == 3
    gateway.wait_delivered(gateway.uplink_state("mq")["delivered"] + 100, 30, "mq")
    assert closer.closed == 3


@pytest.mark.parametrize("keys,key,words", [
    ({"writes": "allow"}, "write_points", "which points"),
    ({"write_points": ""}, "write_points", ""),
    ({"command_topic": "windrow/#"}, "command_topic", "itself publishes"),
    ({"command_topic": "sensors/+/telemetry"}, "command_topic", "itself publishes"),
    ({"command_topic": "a/#/b"}, "command_topic", "no topic filter"),
    ({"command_topic": "a/{device}"}, "command_topic", "{gateway} only"),
    ({"command_topic": "c", "protocol": "3.1.1"}, "command_topic", "protocol = 5"),
    ({"shadow": "full", "protocol": "3.1.1"}, "shadow", "protocol = 5"),
    ({"shadow": "full", "thing": "a/b"}, "thing", "letters"),
    ({"shadow": "full", "shadow_name": "x" * 65}, "shadow_name", "64"),
    ({"device_status_topic": "sensors/status"}, "device_status_topic", "{device}"),
    ({"reply_topic": "r/{device}"}, "reply_topic", "{gateway} only"),
    ({"alerts_topic": "a/+"}, "alerts_topic", "+ or #"),
    ({"write_expiry": "11 min"}, "write_expiry", "")])
def test_keys_that_cannot_be(tmp_path, keys, key, words):
    gateway = Gateway(tmp_path)
    gateway.set("uplink mq", type="mqtt", url="mqtt://127.0.0.1:1", **keys)
    gateway.write()
    status, output, errors = gateway.cli("check")
    told = [line for line in (output + errors).splitlines()
            if f" {key}: " in line and "warning" not in line]
    assert status == 2 and told and words in told[0], output + errors
