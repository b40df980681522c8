"""A line that is as bad as lines get: it stands between the gateway and a server and, by the dice
of a seed, delays, cuts connections at any byte of request or reply, and answers itself with what a
proxy on the way might say."""
import random
import select
import socket
import threading
import time

ERRORS = [b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\n",
          b"HTTP/1.1 502 Bad Gateway\r\n", b"HTTP/1.1 504 Gateway Timeout\r\n",
          b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\n",
          b"HTTP/1.1 500 Internal Server Error\r\n", b"HTTP/1.1 408 Request Timeout\r\n"]
PORTAL = (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 27\r\n"
          b"Connection: close\r\n\r\n<html>Welcome aboard</html>")


class Chaos:
    """Forwards from `port` to to_port until close(). calm() makes it a good line. No connection
    lives for more than `most` bytes; with `http` it answers requests itself now and then."""

    def __init__(self, to_port, seed=1, http=True, most=60000):
        self.to_port, self.http, self.most, self.wild = to_port, http, most, True
        self.random, self.lock = random.Random(seed), threading.Lock()
        self.cuts = self.errors = self.passed = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def calm(self):
        self.wild = False

    def close(self):
        self.listener.close()

    def roll(self, low, high):
        with self.lock:
            return self.random.randint(low, high)

    def accept(self):
        while True:
            try:
                one, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(one,), daemon=True).start()

    def serve(self, one):
        try:
            with one:
                dice = self.roll(0, 9) if self.wild else 9
                if dice == 0 and self.http:
                    self.answer(one)
                elif dice == 1:
                    self.cuts += 1
                    reset(one)
                else:
                    with socket.create_connection(("127.0.0.1", self.to_port), 30) as other:
                        self.forward(one, other)
        except OSError:
            self.cuts += 1

    def answer(self, one):
        one.settimeout(30)
        one.recv(65536)
        choice = self.roll(0, len(ERRORS))
        one.sendall(PORTAL if choice == len(ERRORS) else
                    ERRORS[choice] + b"Content-Length: 0\r\nConnection: close\r\n\r\n")
        self.errors += 1

    def forward(self, one, other):
        """Until an end closes, or the dice's number of bytes has passed in either direction."""
        left = self.roll(1, self.most) if self.wild else 1 << 60
        while True:
            ready, _, _ = select.select([one, other], [], [], 30)
            if not ready:
                return
            for source in ready:
                data = source.recv(16384)
                if not data:
                    return
                if self.wild and self.roll(0, 3) == 0:
                    time.sleep(self.roll(0, 60) / 1000)
                target = other if source is one else one
                target.sendall(data[:left])
                self.passed += len(data[:left])
                left -= len(data)
                if left <= 0:
                    self.cuts += 1
                    reset(one)
                    return


def reset(one):
    """Closes with RST: what had not been read by the peer is lost to it."""
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
