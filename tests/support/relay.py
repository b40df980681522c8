"""A long or thin line on loopback, which counts: tests/support/relay.c."""
import json
import signal

from process import Process, free_ports, program, wait_for


class Relay:
    """Hands on what reaches `port`, delay_ms later, at most kbit_s in either direction."""

    def __init__(self, folder, to_port, delay_ms=0, kbit_s=0, port=None, name="relay"):
        self.port = port or free_ports()
        self.process = Process(name, [program("relay"), self.port, to_port, delay_ms, kbit_s],
                               str(folder))

    def start(self):
        self.process.start()
        self.process.wait_port(self.port)
        return self

    def cut(self):
        """The line is dead; start() brings it back."""
        self.process.kill()

    def counts(self):
        """{"up": bytes, "down": bytes, "connections": number} of TCP payload since its start."""
        before = len(self.process.log().splitlines())
        self.process.signal(signal.SIGUSR1)
        wait_for(lambda: len(self.process.log().splitlines()) > before, 5, "the relay's counts")
        return json.loads(self.process.log().splitlines()[-1])
