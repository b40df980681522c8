"""Serial lines, as pairs of pseudo-terminals by socat: pymodbus, libmodbus and mbpoll on them."""
import os
import subprocess
import sys

import pytest

from process import PATIENCE_S, Process, free_ports, program, wait_for
from site_parts import Gateway, Sink
from test_peers import PYMODBUS_POINTS, SUPPORT, latest


class Line:
    """Two ends of a line; `ours` is the gateway's port."""

    def __init__(self, folder):
        self.ours, self.theirs = os.path.join(folder, "ours"), os.path.join(folder, "theirs")
        self.socat = Process("socat", ["socat", f"pty,raw,echo=0,link={self.ours}",
                                       f"pty,raw,echo=0,link={self.theirs}"], folder)

    def plug(self):
        self.socat.start()
        wait_for(lambda: os.path.exists(self.ours) and os.path.exists(self.theirs), 5, "the line")
        return self

    def unplug(self):
        self.socat.stop()


def pymodbus(folder, *arguments):
    return Process("pymodbus", [sys.executable, os.path.join(SUPPORT, "pymodbus_slave.py"),
                                *arguments], folder).start()


def libmodbus(folder, line, unit):
    slave = Process("libmodbus", [program("libmodbus_slave"), line.theirs, str(unit)], folder)
    slave.start().wait_log("ready")
    return slave


def poll(line, unit, timeout_ms, *words):
    return subprocess.run([program("windrow"), "poll", f"{line.ours}:19200E1", "--unit", str(unit),
                           "--timeout", str(timeout_ms), *words], capture_output=True, text=True,
                          timeout=PATIENCE_S)


def wait_open(slave, line):
    """Until the slave has the port open: pymodbus never gets over bytes that came before."""
    folder, port = f"/proc/{slave.popen.pid}/fd", os.path.realpath(line.theirs)
    wait_for(lambda: any(os.path.realpath(os.path.join(folder, fd)) == port
                         for fd in os.listdir(folder)), 15, "the slave opens the port")


def bus(gateway, line, **keys):
    gateway.set("bus b1", port=line.ours, baud=19200, **keys)
    return gateway


def device(gateway, name, unit, points, **keys):
    gateway.set(f"device {name}", driver="modbus-rtu", bus="b1", unit=unit, poll="250 ms",
                timeout="2 s", **keys)
    gateway.set(f"device {name}", **{f"point.{name}": source for name, source, *_ in points})
    return gateway


def assert_arrived(sink, name, points):
    values = latest(sink, name)
    for point, _, expected in points:
        if expected is None:
            assert values[point] is None
        else:
            assert float(values[point]) == pytest.approx(expected, rel=1e-15), point


def test_pymodbus_on_a_serial_line(tmp_path):
    line, sink = Line(str(tmp_path)).plug(), Sink(tmp_path).start()
    wait_open(pymodbus(tmp_path, line.theirs), line)
    gateway = device(bus(Gateway(tmp_path), line), "one", 1, PYMODBUS_POINTS)
    device(gateway, "two", 2, PYMODBUS_POINTS).uplink(sink).start()
    for name in ("one", "two"):
        wait_for(lambda: len(latest(sink, name)) == len(PYMODBUS_POINTS)
                 and gateway.device(name)["state"] == "good", 20, f"{name} is read")
        assert_arrived(sink, name, PYMODBUS_POINTS)


def test_pymodbus_behind_a_serial_server(tmp_path):
    port, sink = free_ports(), Sink(tmp_path).start()
    pymodbus(tmp_path, "--rtu", str(port)).wait_port(port)
    gateway = Gateway(tmp_path)
    for name, unit in (("one", 1), ("two", 2)):
        gateway.set(f"device {name}", driver="modbus-rtu-tcp", address=f"127.0.0.1:{port}",
                    unit=unit, poll="200 ms", timeout="5 s")
        gateway.set(f"device {name}", **{f"point.{point}": source
                                         for point, source, _ in PYMODBUS_POINTS})
    gateway.uplink(sink).start()
    for name in ("one", "two"):
        wait_for(lambda: len(latest(sink, name)) == len(PYMODBUS_POINTS)
                 and gateway.device(name)["state"] == "good", 20, f"{name} is read")
        assert_arrived(sink, name, PYMODBUS_POINTS)
        assert gateway.device(name)["failures"] == 0
    poll = subprocess.run([program("windrow"), "poll", f"127.0.0.1:{port}", "--rtu", "--unit", "2",
                           "holding", "0", "2"], capture_output=True, text=True, timeout=PATIENCE_S)
    assert poll.returncode == 0 and "0xfffe" in poll.stdout, poll.stderr


LIBMODBUS_POINTS = [("first", "holding 0 uint16", 100), ("last", "holding 127 uint16", 227),
                    ("input", "input 7 uint16", 5007), ("coil", "coil 2", 1),
                    ("discrete", "discrete 4", 0), ("beyond", "holding 130 uint16", None)]


def test_libmodbus_slave_unplugged_and_back(tmp_path):
    line, sink = Line(str(tmp_path)).plug(), Sink(tmp_path).start()
    slave = libmodbus(tmp_path, line, 9)
    gateway = device(bus(Gateway(tmp_path), line), "one", 9, LIBMODBUS_POINTS).uplink(sink).start()
    wait_for(lambda: len(latest(sink, "one")) == len(LIBMODBUS_POINTS)
             and latest(sink, "one")["last"] == 227, 20, lambda: str(latest(sink, "one")))
    assert_arrived(sink, "one", LIBMODBUS_POINTS)
    slave.kill()
    line.unplug()
    wait_for(lambda: gateway.device("one")["state"] != "good", 10, "the loss is noticed")
    gateway.process.wait_log("unplugged")
    line.plug()
    libmodbus(tmp_path, line, 9)
    wait_for(lambda: gateway.device("one")["state"] == "good", 45, "it is read again")


def test_a_bus_is_changed_by_a_reload(tmp_path):
    """Its devices move to a new bus on the same port; the old one has left it by then, or soon."""
    line, sink = Line(str(tmp_path)).plug(), Sink(tmp_path).start()
    libmodbus(tmp_path, line, 9)
    gateway = device(bus(Gateway(tmp_path), line), "one", 9, LIBMODBUS_POINTS)
    device(gateway, "two", 9, LIBMODBUS_POINTS).uplink(sink).start()
    wait_for(lambda: latest(sink, "two"), 20, "both are read")
    status, output, errors = gateway.cli("read", "one", "last")
    assert status == 0 and "227" in output, errors
    gateway.set("bus b1", frame_gap="5 ms")
    gateway.reload()
    gateway.process.wait_log("reload: done")
    polls = {name: gateway.device(name)["polls"] for name in ("one", "two")}
    for name in polls:
        wait_for(lambda: gateway.device(name)["polls"] > polls[name] + 2
                 and gateway.device(name)["state"] == "good", 20, f"{name} is read again")
    gateway.stop()


def test_the_bus_in_words(tmp_path):
    """check --plan shows what the line carries, and says when it cannot."""
    line = Line(str(tmp_path))
    gateway = bus(Gateway(tmp_path), line)
    for unit in range(1, 9):
        device(gateway, f"unit{unit}", unit, [(f"p{n}", f"holding {n} uint16") for n in range(60)])
    gateway.write()
    check = subprocess.run([program("windrow"), "check", "--plan", gateway.config_path],
                           capture_output=True, text=True, timeout=PATIENCE_S)
    assert check.returncode == 0, check.stdout + check.stderr
    assert "bus b1:" in check.stdout and "8 devices" in check.stdout
    assert "impossible" in check.stdout and "warning" in check.stdout


def test_doubtful_ports_are_told(tmp_path):
    gateway = Gateway(tmp_path)
    gateway.set("bus b1", port="/dev/ttyUSB0", data_bits=7, rs485_delay_after="2 ms")
    gateway.set("bus {b2,b3}", port="/dev/ttyS1", baud=9600)
    device(gateway, "one", 1, [("p", "holding 0 uint16")])
    gateway.write()
    status, output, _ = gateway.cli("check")
    assert status == 0
    for words in ("/dev/serial/by-id/", "needs 8 data bits", "the delays have no effect",
                  "also the port of [bus b3]"):
        assert words in output
    gateway.set("bus b1", baud=19201)
    gateway.set("device one", unit=248)
    gateway.set("device two", driver="modbus-rtu", bus="b4", unit=2)
    device(gateway, "three", 3, [("p", "sunspec 103 Watt")])
    gateway.write()
    status, output, _ = gateway.cli("check")
    assert status == 2
    for words in ("no standard rate", "unit", "there is no [bus b4]", "has no point 'Watt'"):
        assert words in output


def test_mbpoll_and_windrow_poll_agree(tmp_path):
    line = Line(str(tmp_path)).plug()
    libmodbus(tmp_path, line, 3)
    ours = poll(line, 3, 10000, "holding", "10", "3")
    assert ours.returncode == 0, ours.stderr
    theirs = subprocess.run(["mbpoll", "-o", "10", "-m", "rtu", "-b", "19200", "-P", "even",
                             "-a", "3", "-r", "11", "-c", "3", "-1", line.ours],
                            capture_output=True, text=True, timeout=PATIENCE_S)
    for value in (110, 111, 112):
        assert str(value) in ours.stdout and str(value) in theirs.stdout, theirs.stderr
    silent = poll(line, 4, 200, "holding", "10", "3")
    assert silent.returncode == 1 and "no answer within 200 ms" in silent.stderr
