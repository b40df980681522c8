"""Holding registers behind Modbus TCP that count what is written to them."""
import socket
import struct
import threading
import time


class Register:
    """A Modbus TCP slave of 100 holding registers that counts each value written to one of them."""

    def __init__(self):
        self.registers, self.written, self.delay_s = [0] * 100, {}, 0.0
        self.answers = threading.Event()  # cleared: a write is done, and its reply is held back
        self.answers.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        try:
            while True:
                head = self.take(connection, 7)
                pdu = self.take(connection, struct.unpack(">H", head[4:6])[0] - 1)
                reply = self.answer(pdu)
                connection.sendall(head[:4] + struct.pack(">HB", len(reply) + 1, head[6]) + reply)
        except (OSError, EOFError):
            connection.close()

    @staticmethod
    def take(connection, size):
        data = b""
        while len(data) < size:
            more = connection.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def answer(self, pdu):
        function, first, count = struct.unpack(">BHH", pdu[:5])
        if function == 3:
            values = self.registers[first:first + count]
            return struct.pack(f">BB{count}H", 3, 2 * count, *values)
        assert function == 6, function
        self.written[count] = self.written.get(count, 0) + 1
        self.registers[first] = count
        time.sleep(self.delay_s)
        self.answers.wait()
        return pdu
