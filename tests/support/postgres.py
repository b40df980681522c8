"""A private PostgreSQL on a free port and a Unix socket; it never runs as root."""
import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile

from process import PATIENCE_S, Process, free_ports, wait_for

BIN = (sorted(glob.glob("/usr/lib/postgresql/*/bin")) or [""])[-1]


class Postgres:
    """With `authority` it speaks TLS, and wants it from everybody who comes by TCP."""

    def __init__(self, authority=None):
        assert BIN, "no PostgreSQL server is installed"
        self.folder = tempfile.mkdtemp(prefix="windrow-pg-", dir="/tmp")
        self.data = os.path.join(self.folder, "data")
        self.port = free_ports()
        self.drop = []
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            self.drop = ["setpriv", "--reuid", str(owner.pw_uid), "--regid", str(owner.pw_gid),
                         "--clear-groups"]
        self.call("initdb", "-D", self.data, "-U", "admin", "-A", "trust", "-E", "UTF8",
                  "--locale=C", "-N")
        if authority:
            self.use_tls(authority)
        # What a restart costs does not matter here; what it does to the data is not tested.
        self.process = Process("postgres", [*self.drop, os.path.join(BIN, "postgres"),
                                            "-D", self.data, "-p", self.port, "-k", self.folder,
                                            "-c", "listen_addresses=127.0.0.1",
                                            "-c", "shared_buffers=16MB", "-c", "fsync=off"],
                               self.folder)

    def call(self, name, *words):
        result = subprocess.run([*self.drop, os.path.join(BIN, name), *words], check=False,
                                capture_output=True, text=True, timeout=2 * PATIENCE_S,
                                cwd=self.folder)
        assert result.returncode == 0, f"{name}: {result.stdout}{result.stderr}"

    def use_tls(self, authority):
        cert, key = authority.issue("postgres")
        for name, path in (("server.crt", cert), ("server.key", key)):
            target = os.path.join(self.data, name)
            shutil.copy(path, target)
            os.chmod(target, 0o600)
            if self.drop:
                owner = pwd.getpwnam("postgres")
                os.chown(target, owner.pw_uid, owner.pw_gid)
        with open(os.path.join(self.data, "postgresql.conf"), "a", encoding="ascii") as file:
            file.write("ssl = on\n")
        with open(os.path.join(self.data, "pg_hba.conf"), "w", encoding="ascii") as file:
            file.write("local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n")

    def start(self):
        self.process.start()
        wait_for(lambda: self.try_sql("SELECT 1") == "1", 30,
                 lambda: f"PostgreSQL answers:\n{self.process.log()[-2000:]}")
        return self

    def try_sql(self, sql, database="postgres"):
        result = subprocess.run(
            [os.path.join(BIN, "psql"), "-h", self.folder, "-p", str(self.port), "-U", "admin",
             "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql],
            check=False, capture_output=True, text=True, timeout=PATIENCE_S,
            stdin=subprocess.DEVNULL)
        self.errors = result.stderr
        return result.stdout.strip() if result.returncode == 0 else None

    def sql(self, sql, database="postgres"):
        result = self.try_sql(sql, database)
        assert result is not None, f"{sql}: {self.errors}"
        return result

    def kill(self):
        """As a crash of the machine: the server and its children go at once."""
        self.process.kill()

    def stop(self):
        """A restart by its operator: sessions are told 57P01 and cut."""
        self.process.signal(signal.SIGINT)
        self.process.wait_end(20)

    def remove(self):
        if self.process.alive():
            self.process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
