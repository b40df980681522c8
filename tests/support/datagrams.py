"""A UDP proxy between a gateway and a sensor that loses, on request, what a test says; and just
enough of CoAP (RFC 7252) to tell messages apart and to be a sensor that posts."""
import os
import select
import socket
import struct
import threading

CON, NON, ACK, RST = range(4)


class Message:
    """The header and the options of a datagram; payload as bytes."""

    def __init__(self, data):
        first, self.code, self.mid = struct.unpack("!BBH", data[:4])
        self.type, length = first >> 4 & 3, first & 15
        self.token = data[4:4 + length]
        self.options, self.payload = {}, b""
        at, number = 4 + length, 0
        while at < len(data):
            if data[at] == 0xff:
                self.payload = data[at + 1:]
                break
            delta, size = data[at] >> 4, data[at] & 15
            at += 1
            fields = []
            for field in (delta, size):
                if field == 13:
                    field, at = data[at] + 13, at + 1
                elif field == 14:
                    field, at = struct.unpack("!H", data[at:at + 2])[0] + 269, at + 2
                fields.append(field)
            number += fields[0]
            self.options.setdefault(number, []).append(data[at:at + fields[1]])
            at += fields[1]

    def klass(self):
        return self.code >> 5


def post(path, body, mid, token, content_format=110, kind=CON):
    """A POST of one datagram."""
    data = struct.pack("!BBH", 0x40 | kind << 4 | len(token), 2, mid) + token
    number = 0
    for option, value in [(11, part.encode()) for part in path.split("/") if part] + [
            (12, bytes([content_format]))]:
        size = len(value)
        head = size if size < 13 else 13
        data += bytes([(option - number) << 4 | head])
        data += bytes([size - 13]) if head == 13 else b""
        data += value
        number = option
    return data + b"\xff" + body


class Proxy:
    """Datagrams to `port` go on to `target` and back. drop(to_sensor, bytes) says what is lost;
    a new address for the sensor's side is taken with move()."""

    def __init__(self, target_port):
        self.target = ("127.0.0.1", target_port)
        self.front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.front.bind(("127.0.0.1", 0))
        self.port = self.front.getsockname()[1]
        self.backs, self.clients = {}, {}  # client address <-> socket
        self.drop = lambda to_sensor, data: False
        self.lost = 0
        self.wake, self.woken = os.pipe()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def back(self, client):
        if client not in self.backs:
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.backs[client], self.clients[one] = one, client
        return self.backs[client]

    def run(self):
        while True:
            ready, _, _ = select.select([self.wake, self.front, *self.clients], [], [])
            for one in ready:
                if one == self.wake:
                    return
                try:
                    data, sender = one.recvfrom(65536)
                except OSError:
                    continue
                to_sensor = one is self.front
                if self.drop(to_sensor, data):
                    self.lost += 1
                elif to_sensor:
                    self.back(sender).sendto(data, self.target)
                elif one in self.clients:
                    self.front.sendto(data, self.clients[one])

    def move(self, target_port):
        """The sensor is somewhere else now."""
        self.target = ("127.0.0.1", target_port)

    def stop(self):
        os.close(self.woken)
        self.thread.join(90)
        for one in [self.front, *self.clients]:
            one.close()
        os.close(self.wake)
