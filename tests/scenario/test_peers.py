"""Against programs that are not ours: pymodbus, libmodbus, mbpoll, nginx."""
import os
import re
import subprocess
import sys

import pytest

from certificates import Authority
from process import Process, free_ports, program, wait_for
from site_parts import Gateway, Simulator, Sink

SUPPORT = os.path.join(os.path.dirname(__file__), "..", "support")

# What tests/support/pymodbus_slave.py serves: point, source, the value that must arrive.
PYMODBUS_POINTS = [
    ("u16", "holding 0 uint16", 65534), ("i16", "holding 1 int16", -1234),
    ("u32", "holding 2 uint32", 4000000000), ("i32", "holding 4 int32", -2000000000),
    ("f32", "holding 6 float32", 3.25), ("f64", "holding 8 float64", -1e100),
    ("u64", "holding 12 uint64", None), ("i64", "holding 16 int64", -(2**62)),
    ("i32_swapped", "holding 20 int32, order CDAB", -123456),
    ("f32_swapped", "holding 22 float32, order CDAB", 0.5),
    ("bcd", "holding 30 bcd16", 4567), ("bit2", "holding 50 bit:2", 1),
    ("bit3", "holding 50 bit:3", 0), ("scaled", "holding 1 int16, scale 0.01", -12.34),
    ("moved", "holding 100 uint16, scale 0.1, offset -50", 27.7),
    ("absent", "holding 60 int16, invalid 0x8000", None),
    ("input", "input 7 uint16", 1007), ("coil", "coil 2", 1), ("discrete", "discrete 3", 1),
    ("discrete_off", "discrete 2", 0),
]


def latest(sink, device):
    """The newest value of each point of a device, as the sink has it."""
    return dict(sink.query(
        "SELECT point, value FROM readings WHERE device = ? AND seq ="
        " (SELECT max(seq) FROM readings WHERE device = ?)", device, device))


def one_device(gateway, port, points, **keys):
    gateway.set("device one", driver="modbus-tcp", address=f"127.0.0.1:{port}", unit=1,
                poll="200 ms", timeout="5 s", **keys)
    gateway.set("device one", **{f"point.{name}": source for name, source, *_ in points})
    return gateway


def test_pymodbus_slave(tmp_path):
    port, sink = free_ports(), Sink(tmp_path).start()
    slave = Process("pymodbus", [sys.executable, os.path.join(SUPPORT, "pymodbus_slave.py"), port],
                    tmp_path).start()
    slave.wait_port(port)
    gateway = one_device(Gateway(tmp_path), port, PYMODBUS_POINTS).uplink(sink).start()
    sink.wait_readings(3 * len(PYMODBUS_POINTS))
    values = latest(sink, "one")
    for name, _, expected in PYMODBUS_POINTS:
        if expected is None:
            assert values[name] is None
        else:
            assert float(values[name]) == pytest.approx(expected, rel=1e-15), name
    assert gateway.device("one")["state"] == "good"
    assert gateway.device("one")["failures"] == 0


def test_libmodbus_slave(tmp_path):
    port, sink = free_ports(), Sink(tmp_path).start()
    slave = Process("libmodbus", [program("libmodbus_slave"), port], tmp_path).start()
    slave.wait_port(port)
    points = [(f"h{n}", f"holding {n} uint16", 100 + n) for n in range(0, 120, 7)]
    points += [(f"i{n}", f"input {n} uint16", 5000 + n) for n in (0, 1, 127)]
    points += [(f"d{n}", f"discrete {n}", int(n % 3 == 0)) for n in (0, 1, 3, 9)]
    points += [(f"c{n}", f"coil {n}", int(n % 2 == 0)) for n in (0, 1, 5, 100)]
    gateway = one_device(Gateway(tmp_path), port, points).uplink(sink).start()
    sink.wait_readings(3 * len(points))
    assert latest(sink, "one") == {name: value for name, _, value in points}
    slave.kill()
    wait_for(lambda: gateway.device("one")["state"] != "good", 10, "the loss is noticed")
    slave.start()
    wait_for(lambda: gateway.device("one")["state"] == "good", 30, "it is read again")


def test_addresses_that_a_slave_refuses_are_split_off(tmp_path):
    """libmodbus answers exception 2 beyond its 128 registers; the others are read all the same."""
    port, sink = free_ports(), Sink(tmp_path).start()
    Process("libmodbus", [program("libmodbus_slave"), port], tmp_path).start().wait_port(port)
    points = [("in", "holding 120 uint16", 220), ("last", "holding 127 uint16", 227),
              ("beyond", "holding 130 uint16", None)]
    one_device(Gateway(tmp_path), port, points, max_gap=16).uplink(sink).start()
    wait_for(lambda: {name: latest(sink, "one").get(name) for name, _, _ in points}
             == {name: value for name, _, value in points}, 20, lambda: str(latest(sink, "one")))


def mbpoll(port, table, first, count):
    """The values that mbpoll reads; first is a wire address."""
    result = subprocess.run(["mbpoll", "-q", "-1", "-o", "10", "-m", "tcp", "-p", str(port),
                             "-a", "1", "-t", table, "-r", str(first + 1), "-c", str(count),
                             "127.0.0.1"],
                            capture_output=True, text=True, timeout=90, stdin=subprocess.DEVNULL)
    assert result.returncode == 0, result.stdout + result.stderr
    return [int(value) for value in re.findall(r"^\[\d+\]:\s+(-?\d+)", result.stdout, re.M)]


def test_mbpoll_reads_the_simulator(tmp_path):
    simulator = Simulator(tmp_path, 2).start()
    for port in (simulator.port, simulator.port + 1):
        registers = mbpoll(port, "4", 0, 7)
        assert len(registers) == 7
        assert registers[0] <= 5000  # wind, in cm/s
        assert 0 <= registers[4] < 3600
        assert mbpoll(port, "1", 0, 1)[0] in (0, 1)


NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr info;
events {{ worker_connections 64; }}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {cert}; ssl_certificate_key {key};
    ssl_client_certificate {ca}; ssl_verify_client on;
    client_max_body_size 2k;
    location / {{ proxy_pass https://127.0.0.1:{sink}; }}
  }}
}}
"""


@pytest.fixture(name="nginx")
def make_nginx(tmp_path):
    """(port, authority, sink): nginx asks for client certificates and hands on to the sink; it
    refuses bodies over 2 KiB with 413."""
    authority, port = Authority(tmp_path / "ca"), free_ports()
    sink = Sink(tmp_path, authority).start()
    cert, key = authority.issue("nginx")
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(folder=tmp_path, port=port, cert=cert, key=key,
                                   ca=authority.cert, sink=sink.port))
    Process("nginx", ["/usr/sbin/nginx", "-c", config, "-p", tmp_path, "-e", "stderr"],
            tmp_path).start().wait_port(port)
    return port, authority, sink


def test_nginx_with_client_certificate(tmp_path, nginx):
    port, authority, sink = nginx
    cert, key = authority.issue("gateway")
    gateway = Gateway(tmp_path).turbines(Simulator(tmp_path, 3).start(), poll="100 ms")
    gateway.uplink(sink, url=f"https://127.0.0.1:{port}/v1/readings", cert_file=cert, key_file=key)
    gateway.start()
    gateway.wait_delivered(1000, 30)
    gateway.stop_polling()
    ledger = gateway.drain()
    assert sink.count() == ledger["delivered"] == ledger["read"]
    statuses = re.findall(r'" (\d{3}) ', (tmp_path / "access.log").read_text())
    assert "413" in statuses, "bodies over nginx's limit were cut in halves"


def test_nginx_without_client_certificate(tmp_path, nginx):
    port, _, sink = nginx
    gateway = Gateway(tmp_path).turbines(Simulator(tmp_path, 2).start())
    gateway.uplink(sink, url=f"https://127.0.0.1:{port}/v1/readings").start()
    error = wait_for(lambda: gateway.uplink_state()["last_error"], 20, "the refusal is told")
    assert "400" in error or "certificate" in error.lower()
    wait_for(lambda: gateway.ledger()["waiting"] > 50, 20, "readings wait")
    assert gateway.uplink_state()["delivered"] == 0 and gateway.ledger()["dead"] == 0
    assert sink.count() == 0
