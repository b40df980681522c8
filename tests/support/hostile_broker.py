"""A broker of MQTT 3.1.1 or 5 that is none: it takes messages and acknowledges as its mode says."""
import contextlib
import socket
import ssl
import struct
import threading

CONNECT, PUBLISH, SUBSCRIBE, PINGREQ = 1, 3, 8, 12
MODES = {
    "good": lambda n: [n],
    "strangers": lambda n: [(n + 7000) % 65535 + 1],  # ids that were never sent
    "silence": lambda _: [],
    "twice": lambda n: [n, n],
    "backwards and forwards": lambda n: [max(n - 1, 1), n + 1, n],
    "all there are": lambda _: range(1, 400),  # also those still to come
}


def receive(connection, size):
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError
        data += part
    return data


def packet(kind, body):
    length, size = b"", len(body)
    while True:
        size, digit = size >> 7, size & 127
        length += bytes([digit | (128 if size else 0)])
        if not size:
            return bytes([kind << 4]) + length + body


class HostileBroker:
    """messages: (topic, payload) of all that came; sent: acknowledgements. greeting: what follows
    the answer to CONNECT, bytes or a function of the connection."""

    def __init__(self, mode, greeting=None, authority=None):
        self.context = None
        if authority:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(*authority.issue("broker"))
        self.mode, self.greeting, self.messages, self.sent = mode, greeting, [], 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"mqtt{'s' if authority else ''}://127.0.0.1:{self.port}"
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.one, args=(self.listener.accept()[0],),
                                 daemon=True).start()

    def one(self, connection):
        with contextlib.suppress(OSError, IndexError), connection:
            connection.settimeout(20)
            if self.context:
                connection = self.context.wrap_socket(connection, server_side=True)
            while True:
                self.answer(connection, *self.read(connection))

    @staticmethod
    def read(connection):
        head, length, shift = receive(connection, 1)[0], 0, 0
        while True:
            byte = receive(connection, 1)[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return head, receive(connection, length)

    def answer(self, connection, head, body):
        kind = head >> 4
        if kind == CONNECT:
            self.five = body[6] == 5
            connection.sendall(packet(2, b"\0\0\0" if self.five else b"\0\0"))
            if callable(self.greeting):
                self.greeting(connection)
            elif self.greeting is not None:
                connection.sendall(self.greeting)
        elif kind == PUBLISH and head & 6:
            size = struct.unpack(">H", body[:2])[0]
            topic, number = body[2:2 + size], struct.unpack(">H", body[2 + size:4 + size])[0]
            with self.lock:
                self.messages.append((topic.decode(), body[4 + size + (1 if self.five else 0):]))
                answers = MODES[self.mode](number)
                self.sent += len(answers)
            connection.sendall(b"".join(packet(4, struct.pack(">H", one)) for one in answers))
        elif kind == SUBSCRIBE:
            connection.sendall(packet(9, body[:2] + (b"\0" if self.five else b"") + b"\1"))
        elif kind == PINGREQ:
            connection.sendall(packet(13, b""))
