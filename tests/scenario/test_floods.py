"""Many peers at once, and large ones: what listens and what polls stays within its memory."""
import http.client
import resource
import selectors
import socket

import pytest

from hostile import HostileDevice
from measure import MIB, rss_anon
from process import free_ports, wait_for
from site_parts import Gateway, Simulator, Sink

CONNECTIONS = 10_000
GROWTH_MIB = 6  # what a flood may cost, at most
REQUESTS = (b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nX-Drip: ",  # never ends
            b"\x16\x03\x01\x02\x00" + bytes(range(256)),  # TLS where there is none
            b"POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n{",
            b"A" * 20_000, b"")


@pytest.fixture(autouse=True)
def many_descriptors():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < CONNECTIONS + 500:
        pytest.skip(f"no more than {before[1]} descriptors here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def flood(port, count):
    """Opens the connections without waiting for any, writes what each is able to take."""
    sockets, selector = [], selectors.DefaultSelector()
    for number in range(count):
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(("127.0.0.1", port))
        sockets.append(one)
        selector.register(one, selectors.EVENT_WRITE, REQUESTS[number % len(REQUESTS)])
    for key, _ in selector.select(2):
        try:
            key.fileobj.send(key.data)
        except OSError:
            pass
    selector.close()
    return sockets


def tcp_status(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/v1/status")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def test_ten_thousand_connections_to_the_api(tmp_path):
    simulator, sink, port = Simulator(tmp_path, 4).start(), Sink(tmp_path).start(), free_ports()
    gateway = Gateway(tmp_path).turbines(simulator).uplink(sink)
    gateway.set("api", listen=f"127.0.0.1:{port}")
    gateway.start()
    wait_for(lambda: tcp_status(port) == 200, 10, "the api answers over TCP")
    pid, before = gateway.process.popen.pid, rss_anon(gateway.process.popen.pid)
    polls = gateway.device("t01")["polls"]
    sockets = flood(port, CONNECTIONS)
    wait_for(lambda: gateway.device("t01")["polls"] >= polls + 20, 20, "the polls go on")
    grown = (rss_anon(pid) - before) / MIB
    assert grown < GROWTH_MIB, f"{grown:.1f} MiB more"
    for one in sockets:
        one.close()
    wait_for(lambda: tcp_status(port) == 200, 40, "the api answers over TCP again")
    assert all(device["failures"] == 0 for device in gateway.get("/v1/status")["devices"])


def test_a_hundred_endless_devices(tmp_path):
    """Devices that answer more than was asked for, for ever, cost no memory and no neighbour."""
    simulator, sink = Simulator(tmp_path, 4).start(), Sink(tmp_path).start()
    gateway = Gateway(tmp_path).turbines(simulator).uplink(sink)
    hostile = [HostileDevice(mode) for mode in ("never-ending", "huge-length", "garbage", "twice")
               for _ in range(25)]
    for number, device in enumerate(hostile):
        gateway.set(f"device hostile{number}", driver="modbus-tcp", poll="200 ms",
                    timeout="500 ms", address=f"127.0.0.1:{device.port}",
                    profile="demo-turbine")
    gateway.start()
    wait_for(lambda: gateway.device("t01")["polls"] >= 20, 20, "the good ones are read")
    pid = gateway.process.popen.pid
    before = rss_anon(pid)
    wait_for(lambda: gateway.device("t01")["polls"] >= 60, 30, "they go on being read")
    grown = (rss_anon(pid) - before) / MIB
    for device in hostile:
        device.close()
    assert grown < GROWTH_MIB, f"{grown:.1f} MiB more"
    for number in range(1, 5):
        assert gateway.device(f"t{number:02d}")["failures"] == 0


@pytest.mark.lasts(14)
def test_a_hundred_dead_of_770(tmp_path):
    """The others are polled in their periods as if there were no dead ones. A busy machine may be
    late with all of them: then so is the one that counts the periods."""
    simulator = Simulator(tmp_path, 770, "--fault", "dead:1-100", record=False).start()
    sink = Sink(tmp_path, None, "--discard").start()
    gateway = Gateway(tmp_path).turbines(simulator, poll="1 s").uplink(sink).start()

    def living():
        return {device["name"]: device for device in gateway.get("/v1/status")["devices"]
                if int(device["name"][1:]) > 100}

    wait_for(lambda: all(device["polls"] > 1 for device in living().values()), 30, "all polled")
    before = living()
    wait_for(lambda: living()["t770"]["polls"] >= before["t770"]["polls"] + 12, 30, "12 periods",
             strictly=True)
    after = living()
    for name, device in after.items():
        assert device["failures"] == 0, name
        assert device["polls"] - before[name]["polls"] >= 11, name
