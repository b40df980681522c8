"""An HTTPS endpoint that misbehaves in one of MODES until its mode is set to "good"; one at a time
for each way in which an answer can be too much, endless, torn or a lie."""
import contextlib
import gzip
import json
import os
import socket
import ssl
import threading

BOMB = gzip.compress(b"0" * (100 << 20), 1)
PORTION = b" " * 65536


def plain(body, status="200 OK", *headers):
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json",
             f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def accounts(count, accepted):
    return plain(json.dumps({"accepted": "?"}).replace('"?"', accepted(count)).encode())


# What is answered at once to a batch of so many records.
ANSWERS = {
    "more than was sent": lambda n: accounts(n, lambda count: str(count + 1)),
    "a negative number": lambda n: accounts(n, lambda _: "-1"),
    "not a number": lambda n: accounts(n, lambda _: "NaN"),
    "beyond all numbers": lambda n: accounts(n, lambda _: "1e999"),
    "larger than 64 bits": lambda n: accounts(n, lambda count: str((1 << 64) + count)),
    "a fraction": lambda n: accounts(n, lambda count: f"{count}.5"),
    "a text": lambda n: accounts(n, lambda count: f'"{count}"'),
    "a list": lambda n: accounts(n, lambda count: f"[{count}]"),
    "true": lambda n: accounts(n, lambda _: "true"),
    "deep arrays": lambda n: plain(b'{"accepted":%d,"x":' % n + b"[" * 100000 + b"]" * 100000
                                   + b"}"),
    "deep objects": lambda n: plain(b'{"a":' * 25000 + b"1" + b"}" * 25000),
    "something behind it": lambda n: plain(b'{"accepted":%d}<html>' % n),
    "a body under 204": lambda n: plain(b'{"accepted":%d}' % n, "204 No Content"),
    "a bomb of gzip": lambda n: plain(BOMB, "200 OK", "Content-Encoding: gzip"),
    "status 600": lambda n: plain(b'{"accepted":%d}' % n, "600 Fine"),
    "101": lambda n: plain(b'{"accepted":%d}' % n, "101 Switching Protocols",
                           "Upgrade: websocket", "Connection: Upgrade"),
    "accepted under 500": lambda n: plain(b'{"accepted":%d}' % n, "500 Oh"),
    "a torn body": lambda n: plain(b'{"accepted":%d}' % n)[:-1],
    "a torn head": lambda n: plain(b'{"accepted":%d}' % n).split(b"\r\n\r\n")[0],
    "two lengths": lambda n: plain(b'{"accepted":%d}' % n, "200 OK", "Content-Length: 3"),
    "a negative length": lambda n: b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n"
                                   b'{"accepted":%d}' % n,
    "another protocol": lambda n: b"SSH-2.0-OpenSSH_9.2p1\r\n" * 20,
    "HTTP/0.9": lambda n: b'{"accepted":%d}' % n,
    "bytes that are none": lambda n: plain(b'{"accepted":%d,"\xff\x00":1}' % n),
}
# What goes on until the other side has had enough.
ENDLESS = {
    "100 MB": (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (100 << 20), PORTION),
    "an endless body": (b"HTTP/1.1 200 OK\r\n\r\n", PORTION),
    "endless chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                       b"10000\r\n" + PORTION + b"\r\n"),
    "a chunk without an end": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                               b"7fffffffffffffff\r\n", PORTION),
    "a size of chunk without an end": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                                       b"0" * 65536),
    "endless headers": (b"HTTP/1.1 200 OK\r\n", b"X-%s: y\r\n" % (b"x" * 1000) * 60),
    "a header without an end": (b"HTTP/1.1 200 OK\r\nX: ", b"y" * 65536),
    "endless trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
                         b"X-%s: y\r\n" % (b"x" * 1000) * 60),
    "100 Continue for ever": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000),
    "103 with headers for ever": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 1000),
}
ABRUPT = ("closed at once", "half closed", "reset", "silence", "dripping")
REDIRECTS = ("to http", "to another host", "to itself")
MODES = (*ANSWERS, *ENDLESS, *ABRUPT, *REDIRECTS)


class HostileEndpoint:
    """strays: connections to where the redirects lead; records: each (device, seq) that
    was accepted when good."""

    def __init__(self, mode, cert, key):
        assert mode in MODES
        self.mode, self.strays, self.records = mode, 0, set()
        self.lock = threading.Lock()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(cert, key)
        self.listener, self.elsewhere = self.listen(self.serve), self.listen(self.stray)
        self.port = self.listener.getsockname()[1]
        self.url = f"https://127.0.0.1:{self.port}/v1/readings"

    def listen(self, serve):
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=self.one, args=(serve, listener.accept()[0]),
                                     daemon=True).start()
        threading.Thread(target=accept, daemon=True).start()
        return listener

    @staticmethod
    def one(serve, connection):
        with contextlib.suppress(OSError, ValueError), connection:
            connection.settimeout(20)
            serve(connection)

    def close(self):
        for listener in (self.listener, self.elsewhere):
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def stray(self, _):
        with self.lock:
            self.strays += 1

    def serve(self, raw):
        with self.context.wrap_socket(raw, server_side=True) as connection:
            with connection.makefile("rb") as stream:
                while True:
                    length = 0
                    while (line := stream.readline()).strip():
                        if line.lower().startswith(b"content-length:"):
                            length = int(line.split(b":")[1])
                    if not line:
                        return
                    self.answer(connection, json.loads(stream.read(length))["records"])

    def answer(self, connection, records):
        with self.lock:
            mode = self.mode
            if mode == "good":
                self.records |= {(one["device"], one["seq"]) for one in records}
        count = len(records)
        if mode == "good":
            connection.sendall(plain(b'{"accepted":%d}' % count))
        elif mode in ANSWERS:
            connection.sendall(ANSWERS[mode](count))
            if "torn" in mode or mode in ("HTTP/0.9", "another protocol"):
                raise ConnectionError
        elif mode in ENDLESS:
            head, portion = ENDLESS[mode]
            connection.sendall(head)
            while True:
                connection.sendall(portion)
        elif mode in REDIRECTS:
            port = self.elsewhere.getsockname()[1]
            where = {"to http": f"http://127.0.0.1:{port}/", "to itself": self.url,
                     "to another host": f"https://localhost:{port}/"}[mode]
            connection.sendall(plain(b'{"accepted":%d}' % count, "307 Temporary Redirect",
                                     "Location: " + where))
        else:
            self.break_off(mode, connection, count)

    @staticmethod
    def break_off(mode, connection, count):
        if mode == "half closed":
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            socket.socket.shutdown(connection, socket.SHUT_WR)
            connection.recv(1)
        elif mode == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        elif mode == "silence":
            connection.recv(1)
        elif mode == "dripping":
            for byte in plain(b'{"accepted":%d}' % count):
                connection.sendall(bytes([byte]))
                threading.Event().wait(0.1)  # the fault itself: 10 bytes a second
        raise ConnectionError


def memory_kib(pid):
    """Resident anonymous memory of a process."""
    with open(os.path.join("/proc", str(pid), "status"), encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))
