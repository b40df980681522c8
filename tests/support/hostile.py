"""Modbus TCP devices that misbehave, one mode each; they serve until close()."""
import socket
import struct
import threading
import time

MODES = ("wrong-transaction", "wrong-unit", "wrong-function", "wrong-protocol", "byte-count",
         "truncated", "huge-length", "garbage", "drip", "silent", "close", "twice", "late",
         "never-ending")


def receive(connection, size):
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError
        data += part
    return data


class HostileDevice:
    def __init__(self, mode):
        assert mode in MODES
        self.mode, self.requests, self.closing = mode, 0, threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        self.closing.set()
        self.listener.close()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        try:
            while not self.closing.is_set():
                transaction, _, length = struct.unpack(">HHH", receive(connection, 6))
                unit, function, _, count = struct.unpack(">BBHH", receive(connection, length)[:6])
                self.requests += 1
                self.misbehave(connection, transaction, unit, function, count)
        except OSError:
            pass
        finally:
            connection.close()

    def misbehave(self, connection, transaction, unit, function, count):
        data = bytes(range(1, 2 * count + 1)) if function in (3, 4) else bytes((count + 7) // 8)
        protocol, size, mode = 0, len(data), self.mode
        if mode == "wrong-transaction":
            transaction ^= 0x5A5A
        elif mode == "wrong-unit":
            unit += 1
        elif mode == "wrong-function":
            function = 6
        elif mode == "wrong-protocol":
            protocol = 1
        elif mode == "byte-count":
            size = len(data) - 2 if len(data) > 2 else 200
        payload = struct.pack(">BBB", unit, function, size & 0xFF) + data
        reply = struct.pack(">HHH", transaction, protocol, len(payload)) + payload
        if mode == "truncated":
            connection.sendall(reply[:-1])
            raise ConnectionError
        if mode == "huge-length":
            reply = struct.pack(">HHH", transaction, 0, 65535) + payload
        elif mode == "garbage":
            reply = b"HTTP/1.1 400 Bad Request\r\n\r\n" * 20
        if mode == "silent":
            self.closing.wait()
        elif mode == "close":
            raise ConnectionError
        elif mode == "drip":
            for byte in reply:
                connection.sendall(bytes([byte]))
                time.sleep(0.1)  # the fault itself: a byte every 100 ms
        elif mode == "late":
            time.sleep(1.5)  # the fault itself: answers after the time-out
            connection.sendall(reply)
        elif mode == "twice":
            connection.sendall(reply + reply)
        elif mode == "never-ending":
            for _ in range(2000):
                connection.sendall(reply * 16)
        else:
            connection.sendall(reply)
