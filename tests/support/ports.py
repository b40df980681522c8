"""Ports for the servers of a test that no other test takes, though many run side by side.

Between choosing a free port and listening on it, and while a server is down on purpose, a port
belongs to nobody: what keeps the others away is a name in the abstract socket space, which goes
with the process that holds it and knows the same network namespace as the ports do.
"""
import socket

FIRST, LAST = 12000, 32000  # below the ephemeral range: no connection of others begins there
BLOCK = 50
KEPT_MAX = 40  # blocks of one process; the oldest one's tests have ended long ago


class Ports:
    def __init__(self):
        self.claims = []  # sockets that hold a block each, the oldest first
        self.next = self.end = FIRST

    def take(self, count):
        """The first of `count` ports in a row; none of them was given away before."""
        while self.end - self.next >= count:
            first, self.next = self.next, self.next + count
            if nobody_listens(first, count):
                return first
        return self.claim(count)

    def claim(self, count):
        """The same out of blocks that become this process's own: single ones from the bottom, so
        that there is always a long row left at the top."""
        blocks = -(-count // BLOCK)
        while self.claims and len(self.claims) + blocks > KEPT_MAX:
            self.claims.pop(0).close()
        last = (LAST - FIRST) // BLOCK - blocks
        for number in range(last + 1) if blocks == 1 else range(last, -1, -1):
            first = FIRST + number * BLOCK
            held = hold(first, blocks)
            if held and nobody_listens(first, count):
                self.claims += held
                self.next, self.end = first + count, first + blocks * BLOCK
                return first
            for one in held:
                one.close()
        raise AssertionError(f"no {count} free ports in a row")


def hold(first, blocks):
    """The sockets that keep others from these blocks; none where one is taken."""
    held = []
    for number in range(blocks):
        one = socket.socket(socket.AF_UNIX)
        held.append(one)
        try:
            one.bind(f"\0windrow-test-ports-{first + number * BLOCK}")
        except OSError:
            for each in held:
                each.close()
            return []
    return held


def nobody_listens(first, count):
    """Nor is there anything left of closed connections, which not every server takes a port over;
    long rows are for our own servers, which do."""
    for port in range(first, first + count):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as one:
                if kind == socket.SOCK_STREAM and count > BLOCK:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    one.bind(("127.0.0.1", port))
                except OSError:
                    return False
    return True


ports = Ports()


def free_ports(count=1):
    """The first of `count` ports in a row that nobody listens on, and no other test will."""
    return ports.take(count)
