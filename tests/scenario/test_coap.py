"""CoAP against programs that are not ours (libcoap's server and client), over a network that loses
what it should not, and with the gateway killed at random moments."""
import json
import os
import random
import socket
import subprocess
import time

import pytest

from certificates import Authority
from datagrams import ACK, CON, Message, Proxy, post
from process import PATIENCE_S, Process, free_ports, program, wait_for
from site_parts import Gateway, Sink

KILLS = int(os.environ.get("WINDROW_COAP_KILLS", "12"))
GRACE_S = 10  # a fresh reading within Max-Age and this, whatever happened
ALIVE_S = 10  # and each second by itself: sooner than Max-Age and grace, when one is asked for anew


def secret(folder, name, text):
    path = os.path.join(str(folder), name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    os.chmod(path, 0o600)
    return path


def coap_server(folder, port, *options, name="coap-server"):
    """libcoap's own example server: / is text, /time is observable and changes each second."""
    process = Process(name, ["coap-server-openssl", "-A", "127.0.0.1", "-p", port, *options],
                      folder)
    process.start()
    wait_for(lambda: client(port, "/", timeout=1)[0], 10, "coap-server answers")
    return process


def client(port, path, *options, scheme="coap", timeout=60, data=None):
    """coap-client: (whether it printed an answer, output). It ends with 0 whatever happens."""
    words = ["coap-client-openssl", "-B", str(timeout), *[str(one) for one in options]]
    if data is not None:
        words += ["-m", "post", "-e", data]
    result = subprocess.run([*words, f"{scheme}://127.0.0.1:{port}{path}"], capture_output=True,
                            text=True, timeout=timeout + PATIENCE_S, stdin=subprocess.DEVNULL)
    return result.stdout.strip() != "", result.stdout + result.stderr


def mast(folder, port, *options, name="mast", step="1 s"):
    """The simulator's met mast: Max-Age is five steps."""
    process = Process(name, [program("windrow"), "simulate", "--listen",
                             f"127.0.0.1:{free_ports()}", "--coap", f"127.0.0.1:{port}", "--step",
                             step, *options], folder)
    process.start()
    process.wait_log("listening")
    return process


def device(gateway, name, **keys):
    gateway.set(f"device {name}", driver="coap", **keys)
    return gateway


def value(gateway, name, point):
    """The latest value; None while there is none."""
    for one in gateway.get("/v1/points")["points"]:
        if one["device"] == name and one["point"] == point:
            return one["value"]
    raise AssertionError(f"no {name}.{point}")


def wait_value(gateway, name, point, expected):
    wait_for(lambda: value(gateway, name, point) == expected, 5,
             lambda: f"{name}.{point} is {expected}: {value(gateway, name, point)}")


def last_good(gateway, name):
    return gateway.device(name)["last_good"]


def wait_good(gateway, name, limit_s=10):
    wait_for(lambda: gateway.device(name)["state"] == "good", limit_s,
             lambda: f"{name} is good: {gateway.device(name)}")


def wait_fresh(gateway, name, limit_s):
    """A reading that is newer than now, within the limit."""
    before = last_good(gateway, name)
    wait_for(lambda: last_good(gateway, name) != before, limit_s,
             lambda: f"a fresh reading of {name}: {gateway.device(name)}", strictly=True)


# ---- programs that are not ours ----


def test_get_and_observe_of_libcoaps_server(tmp_path):
    port, absent = free_ports(), free_ports()
    coap_server(tmp_path, port)
    gateway = Gateway(tmp_path)
    device(gateway, "got", address=f"coap://127.0.0.1:{port}/", poll="200 ms",
           **{"point.text": "path /", "point.time": "path /time?ticks"})
    device(gateway, "seen", address=f"coap://localhost:{port}/", mode="observe",
           **{"point.time": "path /time?ticks"})
    device(gateway, "gone", address=f"coap://127.0.0.1:{absent}/", poll="200 ms",
           **{"point.x": "path /"})
    gateway.start()
    wait_good(gateway, "got")
    wait_good(gateway, "seen")
    wait_for(lambda: gateway.device("gone")["state"] == "dead", 20, "the absent one is given up")
    # Three notifications, and polls at full pace, beside a device that does not answer.
    for _ in range(3):
        wait_fresh(gateway, "seen", ALIVE_S)
    polls = gateway.device("got")["polls"]
    wait_for(lambda: gateway.device("got")["polls"] >= polls + 10, ALIVE_S, "the polls go on",
             strictly=True)
    assert gateway.device("got")["failures"] == 0
    assert gateway.device("seen")["failures"] == 0


def test_a_body_in_blocks(tmp_path):
    """A SenML pack of 12 KB is put and read back block by block, from libcoap's server."""
    port = free_ports()
    coap_server(tmp_path, port, "-d", "10")
    pack = [{"n": f"channel-{i:03d}", "u": "V", "v": i / 8} for i in range(300)]
    body = tmp_path / "pack.json"
    body.write_text(json.dumps(pack))
    subprocess.run(["coap-client-openssl", "-m", "put", "-t", "110", "-f", str(body), "-b", "256",
                    f"coap://127.0.0.1:{port}/pack"], check=True, timeout=PATIENCE_S)
    gateway = Gateway(tmp_path)
    device(gateway, "big", address=f"coap://127.0.0.1:{port}/pack", poll="500 ms", timeout="5 s",
           **{"point.first": "senml channel-000", "point.last": "senml channel-299"})
    gateway.start()
    wait_good(gateway, "big")
    wait_value(gateway, "big", "last", 299 / 8)


def test_certificates(tmp_path):
    """Mutual X.509; the device's name, its CA and our own certificate are all looked at."""
    ours, theirs = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    cert, key = ours.issue("sensor")
    own_cert, own_key = ours.issue("gateway")
    wrong_cert, wrong_key = ours.issue("elsewhere", "DNS:elsewhere.example")
    port, elsewhere = free_ports(2), free_ports(2)
    for at, pair, name in ((port, (cert, key), "right"), (elsewhere, (wrong_cert, wrong_key),
                                                          "wrong")):
        Process(name, ["coap-server-openssl", "-A", "127.0.0.1", "-p", at, "-c", pair[0], "-j",
                       pair[1], "-C", ours.cert], tmp_path).start()
    gateway = Gateway(tmp_path)
    common = {"poll": "300 ms", "point.time": "path /time", "cert_file": own_cert,
              "key_file": own_key}
    device(gateway, "good", address=f"coaps://localhost:{port + 1}/", ca_file=ours.cert, **common)
    device(gateway, "numeric", address=f"coaps://127.0.0.1:{port + 1}/", ca_file=ours.cert,
           **common)
    device(gateway, "stranger", address=f"coaps://localhost:{port + 1}/", ca_file=theirs.cert,
           **common)
    device(gateway, "misnamed", address=f"coaps://localhost:{elsewhere + 1}/", ca_file=ours.cert,
           **common)
    gateway.start()
    wait_good(gateway, "good")
    wait_good(gateway, "numeric")
    for name in ("stranger", "misnamed"):
        wait_for(lambda one=name: gateway.device(one)["failures"] > 0, 20, f"{name} is refused")
        assert gateway.device(name)["last_good"] is None
        assert "security" in gateway.process.log()


def test_keys(tmp_path):
    port, key = free_ports(), secret(tmp_path, "key", "0x746f70736563726574")
    coap_server(tmp_path, port)
    coap_mast = free_ports()
    mast(tmp_path, coap_mast, "--psk", "gw1:topsecret")
    gateway = Gateway(tmp_path)
    common = {"mode": "observe", "point.wind": "senml wind_speed", "point.ok": "senml mast/ok",
              "psk_identity": "gw1"}
    device(gateway, "mast", address=f"coaps://127.0.0.1:{coap_mast}/senml", psk_file=key, **common)
    device(gateway, "wrong", address=f"coaps://127.0.0.1:{coap_mast}/senml",
           psk_file=secret(tmp_path, "no", "nope"), **common)
    gateway.start()
    wait_good(gateway, "mast")
    wait_for(lambda: gateway.device("wrong")["failures"] > 0, 20, "the wrong key is refused")
    wait_fresh(gateway, "mast", ALIVE_S)
    wait_for(lambda: value(gateway, "mast", "wind") is not None, 5, "the wind has a value")
    assert gateway.device("wrong")["last_good"] is None


def test_scan_prints_sections_that_work(tmp_path):
    """What `windrow scan` prints is read back as a configuration."""
    plain, secure = free_ports(), free_ports()
    mast(tmp_path, plain)
    mast(tmp_path, secure, "--psk", "gw1:topsecret", name="secure")
    gateway = Gateway(tmp_path)
    gateway.write()
    status, output, errors = gateway.cli("scan", f"coap://127.0.0.1:{plain}")
    assert status == 0, errors
    assert "mode = observe" in output and "point.wind_speed = senml wind_speed" in output
    gateway.text = lambda text=gateway.text: text() + output
    gateway.start()
    for name in ("coap-1", "coap-2"):
        wait_good(gateway, name)
    hosts = gateway.json("scan", f"coaps://localhost:{secure}", "--psk", "gw1:topsecret")
    senml = next(one for one in hosts[0]["resources"] if one["path"] == "/senml")
    assert senml["observable"] and 112 in senml["formats"] and "ok" in senml["names"]
    assert gateway.cli("scan", f"coaps://localhost:{secure}", "--psk", "gw1:nope")[0] == 1
    assert gateway.cli("scan", f"coap://127.0.0.1:{free_ports()}", "--timeout", "300")[0] == 1
    assert gateway.cli("scan", "10.1.0.50")[0] == 2


# ---- an observation outlives everything ----


class Observed:
    """A gateway that observes the mast through a proxy; Max-Age is 5 s."""

    def __init__(self, folder, secure):
        self.folder, self.options = folder, ("--psk", "gw1:topsecret") if secure else ()
        self.port = free_ports()
        self.mast = mast(folder, self.port, *self.options)
        self.proxy = Proxy(self.port)
        self.gateway = Gateway(folder)
        keys = {"psk_identity": "gw1", "psk_file": secret(folder, "key", "topsecret")}
        device(self.gateway, "mast", mode="observe",
               address=f"coap{'s' if secure else ''}://127.0.0.1:{self.proxy.port}/senml",
               **(keys if secure else {}), **{"point.wind": "senml wind_speed"})
        self.gateway.start()
        wait_good(self.gateway, "mast")

    def fresh_within(self, max_age_s=5):
        wait_fresh(self.gateway, "mast", max_age_s + GRACE_S)
        wait_good(self.gateway, "mast")
        # and it stays: two more by themselves
        wait_fresh(self.gateway, "mast", ALIVE_S)
        wait_fresh(self.gateway, "mast", ALIVE_S)


@pytest.mark.lasts(36)
def test_one_lost_acknowledgement(tmp_path):
    """libcoap 4.3.1 drops the repeat of a notification without acknowledging it, so the server
    gives the observation up: the watchdog has to notice."""
    site = Observed(tmp_path, secure=False)
    lost = []

    def lose(to_sensor, data):
        message = Message(data)
        if to_sensor and message.type == ACK and message.code == 0:
            lost.append(message.mid)
            return lost.count(lost[0]) == 1 and message.mid == lost[0]
        return False

    site.proxy.drop = lose
    wait_for(lambda: lost, 30, "an acknowledgement is lost")
    # Whatever the server makes of it: never longer than Max-Age and 10 s without a reading.
    end = time.monotonic() + 2 * (5 + GRACE_S)
    while time.monotonic() < end:
        wait_fresh(site.gateway, "mast", 5 + GRACE_S)
    site.proxy.stop()


@pytest.mark.lasts(20)
@pytest.mark.parametrize("secure", [False, True])
def test_a_silent_sensor(tmp_path, secure):
    """Everything is lost for longer than Max-Age and grace; then the sensor is back."""
    site = Observed(tmp_path, secure)
    site.proxy.drop = lambda to_sensor, data: True
    wait_for(lambda: site.gateway.device("mast")["state"] != "good", 5 + GRACE_S + 10,
             "the silence is noticed")
    site.proxy.drop = lambda to_sensor, data: False
    site.fresh_within()
    site.proxy.stop()


@pytest.mark.parametrize("secure", [False, True])
def test_a_sensor_that_starts_anew(tmp_path, secure):
    site = Observed(tmp_path, secure)
    site.mast.kill()
    site.mast = mast(tmp_path, site.port, *site.options, name="mast-again")
    site.fresh_within()
    site.proxy.stop()


@pytest.mark.parametrize("secure", [False, True])
def test_a_sensor_that_moves(tmp_path, secure):
    site = Observed(tmp_path, secure)
    port = free_ports()
    site.mast.kill()
    mast(tmp_path, port, *site.options, name="mast-elsewhere")
    site.proxy.move(port)
    site.fresh_within()
    site.proxy.stop()


# ---- devices that post ----


def listening(folder):
    gateway, port = Gateway(folder), free_ports(2)
    gateway.set("coap", listen=f"127.0.0.1:{port}",
                psks_file=secret(folder, "psks", "# who\nvane-1 vane 0x70617373\nx nobody abc"))
    device(gateway, "buoy", mode="listen", **{"point.temp": "senml temp", "point.t2": "path /temp"})
    device(gateway, "vane", mode="listen", **{"point.dir": "senml dir"})
    return gateway, port


def code(output):
    """The code in what coap-client -v 6 printed last of a response with a class."""
    found = [word[2:] for line in output.splitlines() for word in line.split()
             if word.startswith("c:") and word[2:3] in "245" and word[3:4] == "."]
    return found[-1] if found else None


def test_posts_of_libcoaps_client(tmp_path):
    gateway, port = listening(tmp_path)
    gateway.start()
    good = '[{"n":"temp","v":12.5}]'
    cases = [
        ("/buoy", good, (), "2.04"),
        ("/", '[{"bn":"buoy/","n":"temp","v":13.5}]', (), "2.04"),
        ("/nobody", good, (), "4.03"),  # has a key
        ("/else", good, (), "4.04"),
        ("/vane", '[{"n":"dir","v":1}]', (), "4.03"),
        ("/", '[{"bn":"vane/","n":"dir","v":1}]', (), "4.03"),
        ("/buoy", '[{"n":"temp"', (), "4.00"),
        ("/buoy", '[{"n":"else","v":1}]', (), "4.00"),
    ]
    for path, data, options, expected in cases:
        _, output = client(port, path, "-t", 110, "-v", 6, *options, data=data)
        assert code(output) == expected, f"{path} {data}: {output}"
    _, output = client(port, "/buoy/temp", "-t", 0, "-v", 6, data="14.25")
    assert code(output) == "2.04"
    _, output = client(port, "/buoy", "-t", 50, "-v", 6, data="1")
    assert code(output) == "4.15"
    key = ("-u", "vane-1", "-k", "pass")
    for path, data, expected in (("/vane", '[{"n":"dir","v":90}]', "2.04"),
                                 ("/sensors", '[{"n":"dir","v":91}]', "2.04"),
                                 ("/buoy", good, "4.03"),
                                 ("/sensors", '[{"bn":"buoy/","n":"dir","v":1}]', "4.03")):
        _, output = client(port + 1, path, "-t", 110, "-v", 6, *key, scheme="coaps", data=data)
        assert code(output) == expected, f"{path} {data}: {output}"
    for wrong in (("-u", "vane-1", "-k", "other"), ("-u", "who", "-k", "pass")):
        _, output = client(port + 1, "/vane", "-t", 110, "-v", 6, *wrong, scheme="coaps",
                           data='[{"n":"dir","v":92}]', timeout=2)
        assert code(output) is None, output
    wait_value(gateway, "buoy", "t2", 14.25)
    wait_value(gateway, "vane", "dir", 91)
    assert gateway.ledger()["read"] == gateway.ledger()["stored"] == 5


def test_a_post_in_blocks_with_many_times(tmp_path):
    gateway, port = listening(tmp_path)
    gateway.start()
    body = tmp_path / "pack.json"
    body.write_text(json.dumps([{"n": "temp", "v": i / 10, "t": -i - 1} for i in range(200)]))
    words = ["coap-client-openssl", "-v", "6", "-m", "post", "-t", "110", "-b", "64", "-f",
             str(body), f"coap://127.0.0.1:{port}/buoy"]
    result = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S)
    assert code(result.stdout + result.stderr) == "2.04"
    assert gateway.ledger()["stored"] == 200
    body.write_text(json.dumps([{"n": "temp", "v": i, "t": -i - 1} for i in range(300)]))
    result = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S)
    assert code(result.stdout + result.stderr) == "4.13"
    assert gateway.ledger()["stored"] == 200


class Sensor:
    """Posts one number after the other, in one datagram each, and repeats it as RFC 7252 says."""

    def __init__(self, port):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(("127.0.0.1", port))
        self.mid = random.randrange(65536)

    def post(self, number, limit_s=PATIENCE_S):
        """The code of the answer, or None; what is unacknowledged is sent again and again."""
        self.mid = (self.mid + 1) % 65536
        token = number.to_bytes(4, "big")
        data = post("/buoy", b'[{"n":"temp","v":%d}]' % number, self.mid, token)
        end, wait = time.monotonic() + limit_s, 0.3
        again = 0
        while time.monotonic() < end:
            if time.monotonic() >= again:
                try:
                    self.socket.send(data)
                except ConnectionError:
                    pass
                again, wait = time.monotonic() + wait, min(wait * 1.5, 1)
            self.socket.settimeout(0.05)
            try:
                message = Message(self.socket.recv(65536))
            except (OSError, ConnectionError):
                continue
            if message.code and message.token == token:
                if message.type == CON:
                    self.socket.send(bytes([0x60, 0, message.mid >> 8, message.mid & 255]))
                return f"{message.klass()}.{message.code & 31:02d}"
        return None


def test_acknowledged_at_once_answered_after_the_commit(tmp_path):
    gateway, port = listening(tmp_path)
    gateway.set("store", commit_interval="1 s")
    gateway.start()
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.connect(("127.0.0.1", port))
    one.settimeout(PATIENCE_S)
    data = post("/buoy", b'[{"n":"temp","v":1}]', 7, b"tok")
    one.send(data)
    first = Message(one.recv(4096))
    assert (first.type, first.code, first.mid) == (ACK, 0, 7)
    one.send(data)  # the acknowledgement was lost
    second = Message(one.recv(4096))
    if second.code == 0:
        assert (second.type, second.mid) == (ACK, 7)
        second = Message(one.recv(4096))
    assert (second.type, second.code, second.token) == (CON, 0x44, b"tok")
    one.send(bytes([0x60, 0, second.mid >> 8, second.mid & 255]))
    one.send(data)  # so was the answer
    third = Message(one.recv(4096))
    assert third.code in (0, 0x44)
    assert gateway.ledger()["read"] == gateway.ledger()["stored"] == 1


def test_nothing_that_was_answered_is_lost(tmp_path):
    """kill -9 at random moments: each number that was answered 2.04 is there once; one that was not
    is there once or not at all."""
    gateway, port = listening(tmp_path)
    sink = Sink(tmp_path).start()
    gateway.uplink(sink).start()
    sensor, answered, number = Sensor(port), set(), 0
    for _ in range(KILLS):
        until = time.monotonic() + random.uniform(0.05, 0.8)
        while time.monotonic() < until:
            number += 1
            if sensor.post(number, limit_s=max(until - time.monotonic(), 0.02)) == "2.04":
                answered.add(number)
        # One is under way while it dies, and is repeated to the one that comes after it.
        gateway.kill()
        gateway.start()
        number += 1
        if sensor.post(number) == "2.04":
            answered.add(number)
    assert len(answered) > KILLS
    gateway.drain()
    stored = [int(float(row[0])) for row in
              sink.query("SELECT value FROM readings WHERE device = 'buoy' AND point = 'temp'")]
    assert len(stored) == len(set(stored)), "a number was stored twice"
    assert answered <= set(stored), f"lost: {sorted(answered - set(stored))}"


def test_a_repeat_across_a_crash_is_stored_once(tmp_path):
    """Stored, but the gateway dies before it can say so; the same datagram comes again."""
    gateway, port = listening(tmp_path)
    gateway.set("store", commit_interval="100 ms")
    gateway.start()
    for mid in range(1, KILLS + 1):
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.connect(("127.0.0.1", port))
        data = post("/buoy", b'[{"n":"temp","v":%d}]' % mid, mid, b"t%d" % mid)
        one.send(data)
        time.sleep(random.uniform(0, 0.2))  # a random moment is what is meant here
        gateway.kill()
        gateway.start()
        one.settimeout(PATIENCE_S)
        while True:  # whatever was sent before the crash
            one.send(data)
            message = Message(one.recv(4096))
            while message.code == 0:
                message = Message(one.recv(4096))
            if message.code == 0x44:
                break
    ledger = gateway.ledger()
    assert ledger["read"] == ledger["stored"] == KILLS


def test_hostile_senders_cost_little(tmp_path):
    """Noise, half bodies from many ports and broken packs; a good sensor does not notice, and the
    memory stays within its bound."""
    gateway, port = listening(tmp_path)
    gateway.start()

    def resident_kb():
        with open(f"/proc/{gateway.process.popen.pid}/status", encoding="utf-8") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

    sensor = Sensor(port)
    assert sensor.post(1) == "2.04"
    before, rng = resident_kb(), random.Random(1)
    block = b"x" * 1024
    for round_ in range(3000):
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.connect(("127.0.0.1", port + round_ % 2))
        try:
            # Block1 number 0 of many (0x0e: more, 1024 bytes), with a Size1 of 4 GiB
            head = post("/buoy", b"", round_ % 65536, b"h")[:-1]
            one.send(head + bytes([0xd1, 2, 0x0e, 0xd4, 20, 255, 255, 255, 255, 255]) + block)
            one.send(rng.randbytes(rng.randrange(1, 1200)))
            one.send(post("/buoy", b"[" * 1000, round_ % 65536, b"b"))
        except ConnectionError:
            pass
        one.close()
        if round_ % 500 == 499:
            assert sensor.post(round_) == "2.04"
    assert sensor.post(2) == "2.04"
    with open(f"/proc/{gateway.process.popen.pid}/maps", encoding="utf-8") as file:
        keeps_what_is_freed = "libasan" in file.read()
    bound_kb = (256 if keeps_what_is_freed else 24) * 1024
    assert resident_kb() < before + bound_kb, f"{before} KB before, {resident_kb()} KB after"
