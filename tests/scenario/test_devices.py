"""A dead, slow, lying or hostile device costs no other device its readings."""
import pytest

from hostile import MODES, HostileDevice
from process import Process, program, wait_for
from site_parts import Gateway, Simulator, Sink

POLL_MS = 100
OBSERVED_POLLS = 60


def assert_undisturbed(gateway, names, sink):
    """These devices are polled on time, without a failure, for OBSERVED_POLLS periods."""
    wait_for(lambda: all(gateway.device(name)["state"] == "good" for name in names), 15, "all good")
    before = {name: gateway.device(name) for name in names}
    first = names[0]
    wait_for(lambda: gateway.device(first)["polls"] >= before[first]["polls"] + OBSERVED_POLLS,
             4 * OBSERVED_POLLS * POLL_MS / 1000,
             lambda: f"{OBSERVED_POLLS} polls of {first}: {gateway.device(first)}", strictly=True)
    after = {name: gateway.device(name) for name in names}
    for name in names:
        assert after[name]["failures"] == before[name]["failures"], after[name]
        assert after[name]["polls"] - before[name]["polls"] >= 0.95 * OBSERVED_POLLS, after[name]
        missing = sink.query("SELECT count(*) FROM readings WHERE device = ? AND value IS NULL",
                             name)[0][0]
        assert missing == 0, f"{name} has {missing} bad readings"


def test_faulty_turbines(tmp_path):
    sink = Sink(tmp_path).start()
    simulator = Simulator(tmp_path, 8, "--fault", "dead:3,slow:5,illegal:7").start()
    gateway = Gateway(tmp_path).uplink(sink)
    for number in range(1, 9):  # only the faulty ones are not waited for
        gateway.turbines(simulator, f"{POLL_MS} ms", "80 ms" if number in (3, 5, 7) else "3 s",
                         number, number)
    gateway.start()
    assert_undisturbed(gateway, ["t01", "t02", "t04", "t06", "t08"], sink)
    wait_for(lambda: gateway.device("t03")["state"] in ("failing", "dead"), 10, "t03 is away")
    assert gateway.device("t03")["failures"] > 0


@pytest.mark.parametrize("mode", MODES)
def test_hostile_device(tmp_path, mode):
    """No value of the hostile device is taken unless its reply was right in every field."""
    sink, hostile = Sink(tmp_path).start(), HostileDevice(mode)
    simulator = Simulator(tmp_path, 2).start()
    gateway = Gateway(tmp_path).turbines(simulator, f"{POLL_MS} ms").uplink(sink)
    gateway.set("device hostile", driver="modbus-tcp", address=f"127.0.0.1:{hostile.port}", unit=1,
                poll=f"{POLL_MS} ms", timeout="80 ms", point__a="holding 0 uint16",
                point__b="holding 1 uint16")
    gateway.start()
    assert_undisturbed(gateway, ["t01", "t02"], sink)
    assert hostile.requests > 0 or mode in ("close",)
    values = {value for value, in sink.query("SELECT DISTINCT value FROM readings"
                                             " WHERE device = 'hostile'")}
    if mode in ("twice", "never-ending"):
        assert values <= {0x0102, 0x0304, None}
    else:
        assert values <= {None}, f"{mode}: {values}"
        assert gateway.device("hostile")["failures"] > 0
    hostile.close()
    status = gateway.process.stop()
    assert status == 0


def test_device_comes_back(tmp_path):
    """A device that was dead at the start and dies later is read again when it answers."""
    sink = Sink(tmp_path).start()
    simulator = Simulator(tmp_path, 1)
    gateway = Gateway(tmp_path).turbines(simulator, f"{POLL_MS} ms").uplink(sink).start()
    wait_for(lambda: gateway.device("t01")["failures"] >= 3, 20, "failures are counted")
    simulator.start()
    wait_for(lambda: gateway.device("t01")["state"] == "good", 40, "it is found")
    simulator.process.kill()
    wait_for(lambda: gateway.device("t01")["state"] == "dead", 40, "the breaker opens")
    simulator.start()
    wait_for(lambda: gateway.device("t01")["state"] == "good", 40, "it is found again")


def test_units_share_one_connection(tmp_path):
    """Two devices at one address are two units behind one connection: libmodbus serves only one
    connection at a time, so a second one would never be answered."""
    from process import free_ports
    port, sink = free_ports(), Sink(tmp_path).start()
    Process("libmodbus", [program("libmodbus_slave"), port], tmp_path).start().wait_port(port)
    gateway = Gateway(tmp_path).uplink(sink)
    for unit in (1, 2):
        gateway.set(f"device u{unit}", driver="modbus-tcp", address=f"127.0.0.1:{port}", unit=unit,
                    poll="200 ms", point__a=f"holding {unit} uint16")
    gateway.start()
    for unit in (1, 2):
        wait_for(lambda: sink.query("SELECT 1 FROM readings WHERE device = ? AND value = ?",
                                    f"u{unit}", 100 + unit), 15, f"unit {unit} is read")
