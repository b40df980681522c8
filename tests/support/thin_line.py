"""A network of its own behind a thin line: a namespace at the far end of a veth pair, whose two
directions tc holds to a rate. Needs root and the kernel's tbf."""
import os
import subprocess


class NotPermitted(Exception):
    """Why there can be no such network here, in words."""


class ThinLine:
    """`run` before a program's words starts it at the far end, at `address`; close() ends it."""

    def __init__(self, kbit_s, queue_ms=200):
        self.name, self.address = f"wr{os.getpid()}", "10.201.77.2"
        self.run = ["ip", "netns", "exec", self.name]
        near, far = f"{self.name}a"[-15:], f"{self.name}b"[-15:]
        shape = ["root", "tbf", "rate", f"{kbit_s}kbit", "burst", "8kb", "latency",
                 f"{queue_ms}ms"]
        try:
            self.ip("netns", "add", self.name)
            self.ip("link", "add", near, "type", "veth", "peer", "name", far)
            self.ip("link", "set", far, "netns", self.name)
            self.ip("addr", "add", "10.201.77.1/24", "dev", near)
            self.ip("link", "set", near, "up")
            for words in (["addr", "add", f"{self.address}/24", "dev", far],
                          ["link", "set", far, "up"], ["link", "set", "lo", "up"]):
                self.ip("-n", self.name, *words)
            self.call("tc", "qdisc", "add", "dev", near, *shape)
            self.call("tc", "-n", self.name, "qdisc", "add", "dev", far, *shape)
        except NotPermitted:
            self.close()
            raise

    @staticmethod
    def call(*words):
        try:
            result = subprocess.run(words, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise NotPermitted(f"{words[0]} is not installed (iproute2)") from error
        if result.returncode != 0:
            raise NotPermitted(f"{' '.join(words)}: {result.stderr.strip()}")

    def ip(self, *words):
        self.call("ip", *words)

    def close(self):
        """The veth pair goes with its namespace."""
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)
