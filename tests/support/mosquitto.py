"""A private mosquitto broker, and a subscriber that keeps all it gets."""
import base64
import hashlib
import json
import os
import shutil
import signal

from process import Process, free_ports, wait_for

BROKER = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
SUBSCRIBER = shutil.which("mosquitto_sub")


def installed():
    return os.path.exists(BROKER) and SUBSCRIBER is not None


class Broker:
    """A plain listener for subscribers, and one for the gateway: mutual TLS with `authority`."""

    def __init__(self, folder, authority=None, acl=None, named=False, users=None):
        self.folder = os.path.join(str(folder), "broker")
        os.makedirs(self.folder)
        self.plain = free_ports(2)
        self.port = self.plain + 1
        self.authority = authority
        self.config = os.path.join(self.folder, "mosquitto.conf")
        lines = ["user root", "allow_anonymous true", "max_queued_messages 0",
                 "persistence true", f"persistence_location {self.folder}/",
                 "log_type error", "log_type warning", "log_type notice",
                 f"listener {self.plain} 127.0.0.1", f"listener {self.port} 127.0.0.1"]
        if authority:
            cert, key = authority.issue("broker")
            lines += [f"cafile {authority.cert}", f"certfile {cert}", f"keyfile {key}",
                      "require_certificate true", "tls_version tlsv1.2"]
            lines += ["use_identity_as_username true"] * named  # told in the log
        self.acl = os.path.join(self.folder, "acl")
        if acl:
            self.write_acl(acl)
            lines.append(f"acl_file {self.acl}")
        self.users = os.path.join(self.folder, "users")
        if users:
            self.write_users(users)
            lines.append(f"password_file {self.users}")
        with open(self.config, "w", encoding="ascii") as file:
            file.write("\n".join(lines) + "\n")
        self.url = f"{'mqtts' if authority else 'mqtt'}://127.0.0.1:{self.port}"
        self.process = Process("mosquitto", [BROKER, "-c", self.config], self.folder)

    def write_acl(self, acl):
        with open(self.acl, "w", encoding="ascii") as file:
            file.write(acl)
        os.chmod(self.acl, 0o600)

    def write_users(self, users):
        """{name: password}; in the running broker after SIGHUP."""
        with open(self.users, "w", encoding="ascii") as file:
            for name, password in users.items():
                salt = b"0123456789ab"
                hashed = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101)
                file.write(f"{name}:$7$101${base64.b64encode(salt).decode()}$"
                           f"{base64.b64encode(hashed).decode()}\n")
        os.chmod(self.users, 0o600)

    def allow(self, acl):
        """Another list takes its place in the running broker."""
        self.write_acl(acl)
        self.process.signal(signal.SIGHUP)

    def start(self):
        self.process.start()
        self.process.wait_port(self.port)
        return self

    def stop(self):
        self.process.stop()


class Subscriber:
    """Its session outlives it and the broker, so that it misses nothing."""

    def __init__(self, broker, topics=("sensors/#",)):
        words = [word for topic in topics for word in ("-t", topic)]
        self.process = Process("subscriber", [SUBSCRIBER, "-h", "127.0.0.1", "-p", broker.plain,
                                              "-q", "1", "-c", "-i", "collector", "-V", "5",
                                              "-x", "3600", "-F", "%t %p", *words], broker.folder)
        self.broker = broker

    def start(self):
        self.process.start()
        # notice: "New client connected from 127.0.0.1:1 as collector (p5, ...)"
        self.broker.process.wait_log(r"as collector \(")
        return self

    def messages(self):
        """(topic, payload) of all that has come."""
        for line in self.process.log(whole=True).splitlines():
            topic, _, payload = line.partition(" ")
            if topic.startswith("sensors/") and payload:
                yield topic, json.loads(payload)

    def wait(self, condition, limit_s=20):
        return wait_for(lambda: condition(list(self.messages())), limit_s,
                        lambda: f"messages: {list(self.messages())[-3:]}")


def records(messages):
    """(store, stream, device, seq) -> values; what comes twice must be the same."""
    seen = {}
    for topic, payload in messages:
        if topic.endswith("/status"):
            continue
        device = topic.split("/")[1]
        for one in payload.get("records", [payload]):
            name = one.get("device", one.get("deviceId"))
            assert name == device
            key = (payload["store"], payload["stream"], name, one["seq"])
            values = one.get("values", one.get("readings"))
            assert seen.setdefault(key, values) == values, f"{key} came again with other values"
    return seen
