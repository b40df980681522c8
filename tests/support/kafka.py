"""A cluster that speaks Kafka's protocol (kafka_broker.c), and what stands before a real one: TLS,
client certificates, SASL, an address of its own."""
import base64
import hashlib
import hmac
import json
import os
import re
import socket
import struct
import subprocess
import threading

from process import Process, program, wait_for

PRODUCE, METADATA, SASL_HANDSHAKE, API_VERSIONS, SASL_AUTHENTICATE = 0, 3, 17, 18, 36
INIT_PRODUCER = 22
UNKNOWN_TOPIC, NOT_LEADER, TIMED_OUT, TOO_LARGE = 3, 6, 7, 10
TOPIC_FORBIDDEN, CLUSTER_FORBIDDEN, UNSUPPORTED_VERSION, BAD_PASSWORD = 29, 31, 35, 58
DISCONNECT = -195


class Cluster:
    """Brokers with their topics, and a witness that keeps every message."""

    def __init__(self, folder, brokers=1, partitions=3, topics=("windrow.raw",)):
        self.kept, self.brokers = os.path.join(str(folder), "kafka.ndjson"), brokers
        self.process = Process("kafka", [program("kafka_broker"), self.kept, brokers, partitions,
                                         *topics], str(folder))
        self.process.stdin = subprocess.PIPE
        self.bootstrap, self.obeyed = [], 0

    def start(self):
        self.process.start()
        found = self.process.wait_log(r"bootstrap (\S+)\n")
        self.bootstrap = found.group(1).split(",")
        return self

    @property
    def port(self):
        return int(self.bootstrap[0].rpartition(":")[2])

    def tell(self, *words):
        """A line for kafka_broker's stdin; returns when it has been obeyed."""
        self.process.popen.stdin.write((" ".join(str(word) for word in words) + "\n").encode())
        self.process.popen.stdin.flush()
        self.obeyed += 1
        wait_for(lambda: self.process.log().count("done\n") >= self.obeyed, 10,
                 lambda: f"{words}: {self.process.log()[-500:]}")

    def fail(self, code, times=1, api=PRODUCE):
        self.tell("error", api, code, times)

    def down(self):
        for broker in range(1, self.brokers + 1):
            self.tell("down", broker)

    def up(self):
        for broker in range(1, self.brokers + 1):
            self.tell("up", broker)

    def messages(self):
        """In the order of each partition; only whole lines."""
        with open(self.kept, encoding="utf-8") as file:
            lines = [json.loads(line) for line in file if line.endswith("\n")]
        return sorted(lines, key=lambda one: (one["topic"], one["partition"], one["offset"]))

    def wait(self, condition, limit_s=20):
        return wait_for(lambda: condition(self.messages()), limit_s,
                        lambda: f"messages: {self.messages()[-3:]}")


def records(messages):
    """(store, stream, device, seq) -> values; what comes twice must be the same."""
    seen = {}
    for message in messages:
        payload = message["value"]
        for one in payload.get("records", [payload]):
            device = one.get("device", one.get("deviceId"))
            assert message["key"] == device
            key = (payload["store"], payload["stream"], device, one["seq"])
            values = one.get("values", one.get("readings"))
            assert seen.setdefault(key, values) == values, f"{key} came again with other values"
    return seen


def receive(connection, count):
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise OSError("the connection ended")
        data += more
    return data


def receive_frame(connection):
    return receive(connection, struct.unpack(">i", receive(connection, 4))[0])


def send_frame(connection, frame):
    connection.sendall(struct.pack(">i", len(frame)) + frame)


class Front:
    """Takes connections for a broker on `to_port`: with TLS when a context is given, with a login
    when users (name -> password) are. In what the broker says about the cluster its address
    becomes that of `advertised` (the front's own port)."""

    def __init__(self, to_port, context=None, users=None, mechanisms=("PLAIN",)):
        self.to_port, self.context, self.users = to_port, context, users
        self.mechanisms, self.logins, self.refused = mechanisms, [], 0
        self.peers = []  # the serial numbers of the certificates that were shown
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.advertised = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        self.listener.close()

    def accept(self):
        while True:
            try:
                one, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(one,), daemon=True).start()

    def serve(self, one):
        try:
            if self.context is not None:
                one = self.context.wrap_socket(one, server_side=True)
                self.peers.append((one.getpeercert() or {}).get("serialNumber"))
            with one, socket.create_connection(("127.0.0.1", self.to_port), 5) as other:
                if self.users is None or self.log_in(one, other):
                    self.forward(one, other)
        except (OSError, ValueError):
            self.refused += 1

    # -- the login, before anything else goes to the broker --

    def log_in(self, one, other):
        exchange = None
        while True:
            request = receive_frame(one)
            key, version, number, name_len = struct.unpack(">hhih", request[:10])
            body = request[10 + max(name_len, 0):]
            if key == API_VERSIONS:
                send_frame(one, self.versions(request, version, other))
            elif key == SASL_HANDSHAKE:
                mechanism = body[2:].decode()
                good = mechanism in self.mechanisms
                exchange = Exchange(mechanism, self.users) if good else None
                names = b"".join(struct.pack(">h", len(name)) + name.encode()
                                 for name in self.mechanisms)
                send_frame(one, struct.pack(">ihi", number, 0 if good else 33,
                                            len(self.mechanisms)) + names)
            elif key == SASL_AUTHENTICATE:
                said, done = exchange.step(body[4:])
                if said is None:
                    words = b"Authentication failed: Invalid username or password"
                    send_frame(one, struct.pack(">ihh", number, BAD_PASSWORD, len(words)) + words +
                               struct.pack(">i", 0))
                    return False
                send_frame(one, struct.pack(">ihhi", number, 0, -1, len(said)) + said)
                if done:
                    self.logins.append((exchange.mechanism, exchange.user))
                    return True
            else:
                raise ValueError(f"request {key} before the login")

    @staticmethod
    def versions(request, version, other):
        """The broker's own answer, and that there is SASL."""
        number = request[4:8]
        if version > 2:
            return number + struct.pack(">hi", UNSUPPORTED_VERSION, 1) + \
                struct.pack(">hhh", API_VERSIONS, 0, 2)
        send_frame(other, request)
        reply = receive_frame(other)
        count = struct.unpack(">i", reply[6:10])[0]
        more = struct.pack(">hhhhhh", SASL_HANDSHAKE, 0, 1, SASL_AUTHENTICATE, 0, 0)
        return reply[:6] + struct.pack(">i", count + 2) + more + reply[10:]

    # -- afterwards --

    def forward(self, one, other):
        kinds = {}
        other.settimeout(None)

        def requests():
            try:
                while True:
                    frame = receive_frame(one)
                    key, _, number = struct.unpack(">hhi", frame[:8])
                    kinds[number] = key
                    send_frame(other, frame)
            except OSError:
                end(other)

        threading.Thread(target=requests, daemon=True).start()
        try:
            while True:
                frame = receive_frame(other)
                if kinds.pop(struct.unpack(">i", frame[:4])[0], None) == METADATA:
                    frame = self.readdress(frame)
                send_frame(one, frame)
        except OSError:
            end(one)

    def readdress(self, frame):
        old = b"127.0.0.1" + struct.pack(">i", self.to_port)
        return frame.replace(old, b"127.0.0.1" + struct.pack(">i", self.advertised))


def end(connection):
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


class Exchange:
    """The server's side of PLAIN (RFC 4616) or SCRAM (RFC 5802). step(): (bytes to say, whether
    that was all); None: refused."""

    def __init__(self, mechanism, users):
        self.mechanism, self.users, self.user, self.first = mechanism, users, None, None
        self.salt, self.rounds = b"0123456789abcdef", 4096

    def step(self, data):
        if self.mechanism == "PLAIN":
            _, self.user, password = data.decode().split("\0")
            return (b"" if self.users.get(self.user) == password else None), True
        return self.greet(data) if self.first is None else self.prove(data)

    def greet(self, data):
        bare = data.decode().split(",", 2)[2]
        self.user, nonce = re.fullmatch(r"n=([^,]*),r=(.*)", bare).groups()
        self.nonce = nonce + "server"
        said = f"r={self.nonce},s={base64.b64encode(self.salt).decode()},i={self.rounds}"
        self.first = bare + "," + said
        return said.encode(), False

    def prove(self, data):
        kind = "sha" + self.mechanism.rpartition("-")[2]
        without, _, proof = data.decode().rpartition(",p=")
        text = (self.first + "," + without).encode()
        password = self.users.get(self.user, "").encode()
        salted = hashlib.pbkdf2_hmac(kind, password, self.salt, self.rounds)
        key = hmac.digest(salted, b"Client Key", kind)
        signature = hmac.digest(hashlib.new(kind, key).digest(), text, kind)
        given = bytes(a ^ b for a, b in zip(base64.b64decode(proof), signature))
        if given != key or self.user not in self.users:
            return None, True
        server = hmac.digest(hmac.digest(salted, b"Server Key", kind), text, kind)
        return b"v=" + base64.b64encode(server), True
