"""A cluster that speaks Kafka's protocol (kafka_broker.c), and what stands before a real one: TLS,
client certificates, SASL, an address of its own."""
import base64
import hashlib
import hmac
import json
import os
import re
import select
import socket
import ssl
import struct
import subprocess
import threading

from process import Process, program, wait_for

PRODUCE, METADATA, SASL_HANDSHAKE, API_VERSIONS, SASL_AUTHENTICATE = 0, 3, 17, 18, 36
INIT_PRODUCER = 22
UNKNOWN_TOPIC, NOT_LEADER, TIMED_OUT, TOO_LARGE = 3, 6, 7, 10
TOPIC_FORBIDDEN, CLUSTER_FORBIDDEN, UNSUPPORTED_VERSION, BAD_PASSWORD = 29, 31, 35, 58
OUT_OF_ORDER = 45
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
        """The addresses are of fronts: librdkafka's brokers do not check sequences."""
        self.process.start()
        found = self.process.wait_log(r"bootstrap (\S+)\n")
        book = Sequences()
        fronts = {int(port): Front(int(port), book=book)
                  for port in re.findall(r":(\d+)", found.group(1))}
        for front in fronts.values():
            front.readdressed = {port: other.port for port, other in fronts.items()}
        self.bootstrap = [f"127.0.0.1:{front.port}" for front in fronts.values()]
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

    def wait(self, condition, limit_s=60):
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


class Sequences:
    """What a broker knows of idempotent producers: a batch that is not the next one of its producer
    is refused, and one of the last five that comes again is answered as it was."""

    def __init__(self):
        self.next, self.answers = {}, {}

    @staticmethod
    def place(request):
        """Where the partition's number stands in a Produce request of version 7."""
        at = 10 + max(struct.unpack(">h", request[8:10])[0], 0)
        at += 2 + max(struct.unpack(">h", request[at:at + 2])[0], 0) + 2 + 4
        topics, name = struct.unpack(">ih", request[at:at + 6])
        at += 6 + name
        assert topics == 1 and struct.unpack(">i", request[at:at + 4])[0] == 1
        return at + 4, request[at - name:at]

    def read(self, request):
        """(who writes where, its first sequence, how many)"""
        at, topic = self.place(request)
        batch = request[at + 8:]
        producer, epoch, first, count = struct.unpack(">qhii", batch[43:61])
        return (producer, epoch, topic, request[at:at + 4]), first, count

    def answer(self, request):
        """The reply when the broker needs not be asked, None: it has to."""
        who, first, _ = self.read(request)
        known = self.answers.get((who, first))
        if known is not None:
            return request[4:8] + known
        if first == self.next.get(who, 0):
            return None
        return request[4:8] + struct.pack(">ih", 1, len(who[2])) + who[2] + struct.pack(">i", 1) + \
            who[3] + struct.pack(">hqqqi", OUT_OF_ORDER, -1, -1, -1, 0)

    def note(self, request, reply):
        who, first, count = self.read(request)
        at = 4 + 4 + 2 + len(who[2]) + 4 + 4
        if struct.unpack(">h", reply[at:at + 2])[0] == 0:
            self.next[who] = first + count
            self.answers[who, first] = reply[4:]
            mine = sorted(key for key in self.answers if key[0] == who)
            for old in mine[:-5]:
                del self.answers[old]


class Front:
    """Takes connections for a broker on `to_port`: with TLS when a context is given, with a login
    when users (name -> password) are. In what the broker says about the cluster the
    ports are exchanged as `readdressed` says: its own for the front's."""

    def __init__(self, to_port, context=None, users=None, mechanisms=("PLAIN",), book=None):
        self.to_port, self.context, self.users, self.book = to_port, context, users, book
        self.mechanisms, self.logins, self.refused = mechanisms, [], 0
        self.peers = []  # the serial numbers of the certificates that were shown
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.readdressed = {to_port: self.port}
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
        """One request after the other, as a broker serves a connection."""
        other.settimeout(None)
        while self.wait(one, other):
            request = receive_frame(one)
            key, version = struct.unpack(">hh", request[:4])
            if key == PRODUCE and self.book is not None:
                assert version == 7
                reply = self.book.answer(request)
                if reply is not None:
                    send_frame(one, reply)
                    continue
            send_frame(other, request)
            reply = receive_frame(other)
            if key == PRODUCE and self.book is not None:
                self.book.note(request, reply)
            send_frame(one, self.readdress(reply) if key == METADATA else reply)

    @staticmethod
    def wait(one, other):
        """Whether a request comes; the broker itself says nothing unless it ends."""
        if isinstance(one, ssl.SSLSocket) and one.pending() > 0:
            return True
        readable, _, _ = select.select([one, other], [], [])
        return other not in readable

    def readdress(self, frame):
        for old, new in self.readdressed.items():
            frame = frame.replace(b"127.0.0.1" + struct.pack(">i", old),
                                  b"127.0.0.1" + struct.pack(">i", new))
        return frame


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
