"""Servers for line protocol that we did not write: InfluxDB 1.6, VictoriaMetrics; from Debian."""
import json
import os
import urllib.error
import urllib.parse
import urllib.request

from process import PATIENCE_S, Process, free_ports, wait_for


class Server:
    """One server with its data below a folder; stop() and start() keep the data."""

    def __init__(self, folder, name, argv, port):
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        self.process = Process(name, argv, str(folder))

    def start(self):
        self.process.start()
        wait_for(self.answers, 30, lambda: f"{self.url} answers: {self.process.log()[-2000:]}")
        return self

    def answers(self):
        assert self.process.alive(), self.process.log()[-2000:]
        try:
            return self.ask(self.ready_path) is not None
        except OSError:
            return False

    def kill(self):
        self.process.kill()

    def ask(self, path, body=None, **parameters):
        query = "?" + urllib.parse.urlencode(parameters) if parameters else ""
        with urllib.request.urlopen(self.url + path + query, data=body,
                                    timeout=PATIENCE_S) as reply:
            return reply.read().decode()


class InfluxDB(Server):
    ready_path = "/ping"

    def __init__(self, folder):
        port = free_ports(2)
        home = os.path.join(str(folder), "influxdb")
        os.makedirs(home)
        config = os.path.join(home, "influxdb.conf")
        with open(config, "w", encoding="utf-8") as file:
            file.write(f'reporting-disabled = true\nbind-address = "127.0.0.1:{port + 1}"\n'
                       f'[meta]\ndir = "{home}/meta"\n'
                       f'[data]\ndir = "{home}/data"\nwal-dir = "{home}/wal"\n'
                       f'[http]\nbind-address = "127.0.0.1:{port}"\nlog-enabled = false\n'
                       '[monitor]\nstore-enabled = false\n')
        super().__init__(folder, "influxd", ["influxd", "run", "-config", config], port)

    def query(self, text, db="wind"):
        """The rows of all series, each as a dict with its tags."""
        reply = json.loads(self.ask("/query", body=b"", q=text, db=db, epoch="ms"))
        rows = []
        for result in reply["results"]:
            assert "error" not in result, result
            for series in result.get("series", []):
                rows += [dict(zip(series["columns"], values), **series.get("tags", {}))
                         for values in series["values"]]
        return rows

    def create(self, db="wind"):
        self.query(f"CREATE DATABASE {db}")


class VictoriaMetrics(Server):
    ready_path = "/health"

    def __init__(self, folder):
        port = free_ports()
        super().__init__(folder, "victoria-metrics",
                         ["victoria-metrics", f"-httpListenAddr=127.0.0.1:{port}",
                          f"-storageDataPath={folder}/victoria", "-retentionPeriod=100y",
                          "-search.disableCache", "-memory.allowedPercent=10"], port)

    def export(self, match):
        """All series as dicts with metric, values and timestamps."""
        self.ask("/internal/force_flush")
        text = self.ask("/api/v1/export", **{"match[]": match})
        return [json.loads(line) for line in text.splitlines()]
