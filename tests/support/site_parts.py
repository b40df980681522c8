"""A whole site for a test: simulated devices, the gateway and a cloud, on free ports.

Every object belongs to a folder of the test's own; conftest.py ends what still runs and shows the
logs of a test that failed.
"""
import http.client
import json
import os
import socket
import sqlite3
import subprocess

from certificates import Authority
from process import PATIENCE_S, Process, free_ports, program, wait_for

# The register map of the shipped profile demo-turbine, as interface.md gives it.
DEMO_TURBINE = {
    "address_base": "0",
    "byte_order": "ABCD",
    "max_gap": "16",
    "point.wind_speed": "holding 0 uint16, scale 0.01, unit m/s",
    "point.power": "holding 1 int32, scale 0.1, unit kW, invalid 0x80000000",
    "point.rotor_speed": "holding 3 uint16, scale 0.01, unit rpm",
    "point.nacelle_dir": "holding 4 uint16, scale 0.1, unit deg, circular",
    "point.gear_temp": "holding 5 int16, scale 0.1, unit degC, min -40, max 150",
    "point.state": "holding 6 uint16",
    "point.grid_ok": "discrete 0",
    "point.pitch_sp": "holding 20 int16, scale 0.01, unit deg",
}


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout_s):
        super().__init__("localhost", timeout=timeout_s)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Gateway:
    """windrowd with its own configuration, data and control socket."""

    def __init__(self, folder, name="gateway"):
        self.folder = os.path.join(str(folder), name)
        os.makedirs(self.folder, exist_ok=True)
        self.config_path = os.path.join(self.folder, "windrow.ini")
        self.sections = {
            "gateway": {"name": name, "data_dir": self.path("data"),
                        "run_dir": self.path("run"), "clock": "trusted"},
            "store": {"commit_interval": "200 ms", "max_size": "256 MiB", "keep": "0 s"},
            "api": {"listen": "off"},
            "profile demo-turbine": dict(DEMO_TURBINE),
        }
        for key in ("data_dir", "run_dir"):
            os.makedirs(self.sections["gateway"][key], exist_ok=True)
        self.process = Process("windrowd", [program("windrowd"), "-c", self.config_path],
                               self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def set(self, section, **keys):
        """Adds keys to a section; a dot in a key is written as two underscores."""
        into = self.sections.setdefault(section, {})
        into.update({key.replace("__", "."): str(value) for key, value in keys.items()})
        return self

    def turbines(self, simulator, poll="200 ms", timeout="3 s", first=1, last=None,
                 profile="demo-turbine", **keys):
        """The devices t01... that read the simulator's turbines."""
        last = last or simulator.turbines
        ports = f"{simulator.port + first - 1}..{simulator.port + last - 1}"
        name, address = f"t{{{first:02d}..{last:02d}}}", f"127.0.0.1:{{{ports}}}"
        if first == last:
            name, address = f"t{first:02d}", f"127.0.0.1:{simulator.port + first - 1}"
        return self.set(f"device {name}", driver="modbus-tcp", address=address, unit=1,
                        profile=profile, poll=poll, timeout=timeout, **keys)

    def uplink(self, sink, name="cloud", **keys):
        given = {"type": "http", "url": sink.url, "ca_file": sink.authority.cert, "send": "raw",
                 "batch_records": 100, "batch_interval": "200 ms"}
        given.update(keys)
        return self.set(f"uplink {name}", **given)

    def text(self):
        return "".join(f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
                       + "\n" for name, keys in self.sections.items())

    def write(self, text=None):
        """As a whole: the reload before may still be reading."""
        with open(self.config_path + ".new", "w", encoding="utf-8") as file:
            file.write(self.text() if text is None else text)
        os.replace(self.config_path + ".new", self.config_path)

    def start(self, limit_s=20):
        self.write()
        self.process.start()

        def ready():
            assert self.process.alive(), f"windrowd ended:\n{self.process.log()[-3000:]}"
            try:
                return self.get("/v1/status")
            except (OSError, http.client.HTTPException):
                return None

        wait_for(ready, limit_s, lambda: f"windrowd answers:\n{self.process.log()[-3000:]}")
        return self

    def stop(self, limit_s=15):
        status = self.process.stop(limit_s)
        assert status == 0, f"windrowd ended with {status}:\n{self.process.log()[-3000:]}"

    def kill(self):
        self.process.kill()

    def request(self, method, path, body=None, limit_s=PATIENCE_S):
        connection = UnixConnection(self.path("run/windrow.sock"), limit_s)
        try:
            connection.request(method, path, body)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        finally:
            connection.close()

    def get(self, path):
        status, body = self.request("GET", path)
        assert status == 200, f"{path}: {status} {body}"
        return json.loads(body)

    def cli(self, *words, limit_s=PATIENCE_S):
        """`windrow WORDS -c FILE`: (exit status, output, errors)."""
        result = subprocess.run([program("windrow"), words[0], "-c", self.config_path,
                                 *[str(word) for word in words[1:]]], capture_output=True,
                                text=True, timeout=limit_s, stdin=subprocess.DEVNULL)
        return result.returncode, result.stdout, result.stderr

    def json(self, *words):
        status, output, errors = self.cli(words[0], "--json", *words[1:])
        assert status in (0, 1), f"windrow {' '.join(words)}: {status} {errors}"
        return json.loads(output)

    def device(self, name):
        return next(device for device in self.get("/v1/status")["devices"]
                    if device["name"] == name)

    def uplink_state(self, name="cloud"):
        """It is not listed while a reload restarts it: that is waited for."""
        def listed():
            return next((uplink for uplink in self.get("/v1/status")["uplinks"]
                         if uplink["name"] == name), None)
        return wait_for(listed, 10, f"uplink {name} in the status")

    def ledger(self):
        return self.get("/v1/status")["ledger"]

    def wait_delivered(self, readings, limit_s=20, name="cloud"):
        """An uplink is not listed while a reload restarts it."""
        def uplinks():
            return self.get("/v1/status")["uplinks"]

        return wait_for(lambda: any(one["name"] == name and one["delivered"] >= readings
                                    for one in uplinks()), limit_s,
                        lambda: f"{readings} readings delivered; {uplinks()}")

    def stop_polling(self):
        """Takes all devices out of the configuration, so that the counts come to rest."""
        for name in [name for name in self.sections if name.startswith("device ")]:
            del self.sections[name]
        self.reload()
        wait_for(lambda: not self.get("/v1/status")["devices"], 10, "no device is left")

    def reload(self):
        self.write()
        status, output, errors = self.cli("reload")
        assert status == 0, f"reload: {output}{errors}"

    def drain(self, limit_s=30):
        """Waits until nothing waits for any uplink; returns the ledger then. Nothing waits for one
        that a reload has not started again yet, either."""
        wanted = {name.split(" ", 1)[1] for name in self.sections if name.startswith("uplink ")}

        def empty():
            status = self.get("/v1/status")
            there = {uplink["name"] for uplink in status["uplinks"]}
            return status["ledger"] if status["ledger"]["waiting"] == 0 and wanted <= there \
                else None

        return wait_for(empty, limit_s, lambda: f"nothing waits: {self.get('/v1/status')}")


class Simulator:
    """`windrow simulate`: turbines on consecutive ports; what it served is in record_path."""

    def __init__(self, folder, turbines=4, *options, name="simulator", record=True):
        self.turbines, self.port = turbines, free_ports(max(turbines, 1))
        self.record_path = os.path.join(str(folder), name + ".record")
        self.process = Process(name, [program("windrow"), "simulate", "--turbines", turbines,
                                      "--listen", f"127.0.0.1:{self.port}",
                                      *(["--record", self.record_path] if record else []),
                                      *options], str(folder))

    def start(self):
        self.process.start()
        self.process.wait_port(self.port + self.turbines - 1)
        return self

    def stop(self):
        self.process.stop()


class Sink:
    """`windrow sink`: the cloud over TLS, its readings in SQLite."""

    def __init__(self, folder, authority=None, *options, name="sink"):
        self.authority = authority or Authority(os.path.join(str(folder), name + "-ca"))
        self.port = free_ports()
        self.db = os.path.join(str(folder), name + ".db")
        cert, key = self.authority.issue(name)
        self.url = f"https://127.0.0.1:{self.port}/v1/readings"
        keeps = () if "--discard" in options else ("--db", self.db)
        self.process = Process(name, [program("windrow"), "sink",
                                      "--listen", f"127.0.0.1:{self.port}", *keeps,
                                      "--cert", cert, "--key", key, *options], str(folder))

    def start(self):
        self.process.start()
        self.process.wait_port(self.port)
        return self

    def stop(self):
        self.process.stop()

    def query(self, sql, *values):
        connection = sqlite3.connect(f"file:{self.db}?mode=ro", uri=True, timeout=PATIENCE_S)
        try:
            return connection.execute(sql, values).fetchall()
        finally:
            connection.close()

    def count(self, table="readings"):
        """Readings held, repeats counted, or conflicts, of which there must be none."""
        what = "coalesce(sum(count), 0)" if table == "repeats" else "count(*)"
        return self.query(f"SELECT {what} FROM {table}")[0][0]

    def wait_readings(self, count, limit_s=20):
        wait_for(lambda: self.count() >= count, limit_s,
                 lambda: f"{count} readings in the sink; it has {self.count()}")
