"""`windrow write` against a whole gateway: off by default, checked, read back, logged, and never
executed twice, however often the gateway is killed. WINDROW_WRITE_KILLS sets how often."""
import http.client
import json
import os
import random
import threading
import time

import pytest

from process import PATIENCE_S, wait_for
from register_slave import Register
from site_parts import Gateway

KILLS = int(os.environ.get("WINDROW_WRITE_KILLS", "6"))


def site(tmp_path, register, **keys):
    gateway = Gateway(tmp_path)
    gateway.set("gateway", **keys)
    return gateway.set("device t01", driver="modbus-tcp", address=f"127.0.0.1:{register.port}",
                       poll="200 ms", timeout="500 ms",
                       point__setpoint="holding 10 uint16, scale 0.1, writable 0 6000",
                       point__wind="holding 11 uint16")


def test_a_technician_writes(tmp_path):
    register = Register()
    gateway = site(tmp_path, register).start()
    status, _, errors = gateway.cli("write", "t01", "setpoint", "12.5")
    assert status == 1 and "allow_writes" in errors
    gateway.set("gateway", allow_writes="yes")
    gateway.reload()
    wait_for(lambda: "reload: done" in gateway.process.log(), 10, "the reload")
    answer = gateway.json("write", "t01", "setpoint", "12.5")
    assert (answer["outcome"], answer["old"], answer["read_back"]) == ("done", 0, 12.5)
    assert register.registers[10] == 125 and register.written == {125: 1}
    for words, why in ((("setpoint", "13"), "again in"), (("wind", "1"), "writable"),
                       (("setpoint", "6001"), "0 to 6000"), (("setpoint", "x"), "no number")):
        status, _, errors = gateway.cli("write", "t01", *words)
        assert status == 1 and why in errors, errors
    log = gateway.process.log()
    assert log.index("write-intent:") < log.index("write-done:") and '"who":"uid ' in log
    gateway.stop()


class Operator:
    """Gives one command after another, each with an id and a value of its own, and repeats what
    was not answered, as an impatient client does."""

    def __init__(self, gateway):
        self.gateway, self.stopping, self.outcomes = gateway, False, {}
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        number = 0
        while not self.stopping:
            number += 1
            body = json.dumps({"device": "t01", "point": "setpoint", "id": f"order-{number}",
                               "value": number / 10})
            while not self.stopping:
                try:
                    status, text = self.gateway.request("POST", "/v1/write", body)
                except (OSError, http.client.HTTPException):
                    time.sleep(0.01)
                    continue
                answer = json.loads(text)
                if answer["outcome"] in ("done", "unknown"):
                    self.outcomes[number] = (status, answer["outcome"])
                    break
                time.sleep(0.01)

    def stop(self):
        self.stopping = True
        self.thread.join(PATIENCE_S)


@pytest.mark.parametrize("kills", [KILLS])
def test_never_twice(tmp_path, kills):
    register = Register()
    register.delay_s = 0.01
    gateway = site(tmp_path, register, allow_writes="yes", write_interval="0 s").start()
    operator = Operator(gateway)
    for _ in range(kills):
        enough = len(operator.outcomes) + random.randint(1, 4)
        wait_for(lambda: len(operator.outcomes) >= enough, 20, "outcomes", 0.001)
        time.sleep(random.uniform(0, 0.05))
        gateway.kill()
        gateway.start()
    operator.stop()
    gateway.stop()
    assert max(register.written.values()) == 1, "a command was executed twice"
    done = {number for number, (_, outcome) in operator.outcomes.items() if outcome == "done"}
    assert done <= set(register.written)
    unknown = len(operator.outcomes) - len(done)
    print(f"{kills} kills: {len(done)} writes done, {unknown} unknown, "
          f"{len(register.written)} executed, none twice")


@pytest.mark.parametrize("damage", ["meta", "record"])
def test_never_twice_across_a_damaged_store(tmp_path, damage):
    """The records come back where they read; where not, nothing that may have been done is done
    again: it is answered "unknown"."""
    register = Register()
    gateway = site(tmp_path, register, allow_writes="yes", write_interval="0 s").start()
    first = gateway.json("write", "t01", "setpoint", "12.5", "--id", "order-1")
    assert first["outcome"] == "done" and register.written == {125: 1}
    commits = gateway.get("/v1/status")["store"]["commits"]
    wait_for(lambda: gateway.get("/v1/status")["store"]["commits"] > commits + 2, 20, "commits")
    gateway.stop()
    with open(gateway.path("data/store/data.mdb"), "r+b") as file:
        data = file.read()
        file.seek(0)
        file.write(bytes(4096))  # so that it is set aside
        at = data.find(b"order-1")
        while damage == "record" and at >= 0:
            file.seek(at)
            file.write(b"ORDER")
            at = data.find(b"order-1", at + 1)
    gateway.start()

    def ask(name, value):
        def told():
            words = gateway.cli("write", "t01", "setpoint", value, "--id", name, "--json")[1]
            answer = json.loads(words)
            passing = answer.get("error", {}).get("code") in ("recovering", "no_such_device")
            return None if passing else answer
        return wait_for(told, 20, f"an answer to {name}")

    answer = ask("order-1", "12.5")
    assert answer["outcome"] == ("done" if damage == "meta" else "unknown"), answer
    assert ask("order-2", "13.5")["outcome"] == "unknown"
    assert register.written == {125: 1}, "executed twice, or what may have been executed"
    status, text = gateway.request("POST", "/v1/write", json.dumps(
        {"device": "t01", "point": "setpoint", "value": 14.5}))
    assert status == 200 and json.loads(text)["outcome"] == "done"
    gateway.stop()
