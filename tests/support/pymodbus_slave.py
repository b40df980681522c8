"""pymodbus_slave.py PORT: a Modbus TCP slave by python3-pymodbus, with one value of each kind.

pymodbus_slave.py TTY, or --rtu PORT: the same in RTU frames, on a serial port or over TCP, as
units 1 and 2.

What it serves is what tests/scenario/test_peers.py expects; register numbers are wire addresses.
"""
import struct
import sys

from pymodbus.datastore import ModbusSequentialDataBlock, ModbusServerContext, ModbusSlaveContext
from pymodbus.server import StartSerialServer, StartTcpServer
from pymodbus.transaction import ModbusRtuFramer


def words(layout, value):
    data = struct.pack(">" + layout, value)
    return [data[i] << 8 | data[i + 1] for i in range(0, len(data), 2)]


def swapped_words(layout, value):
    return words(layout, value)[::-1]


def holding():
    registers = [0] * 200
    for address, content in {
        0: words("H", 65534), 1: words("h", -1234),
        2: words("I", 4000000000), 4: words("i", -2000000000),
        6: words("f", 3.25), 8: words("d", -1e100),
        12: words("Q", 2**63 + 5), 16: words("q", -(2**62)),
        20: swapped_words("i", -123456), 22: swapped_words("f", 0.5),
        30: [0x4567, 0x0123], 40: [0x6554, 0x7262, 0x6E69, 0x0065],  # BCD; "eTurbine"-style text
        50: [0b0000000000000100], 60: [0x8000], 100: words("H", 777),
    }.items():
        registers[address:address + len(content)] = content
    return registers


def main():
    store = ModbusSlaveContext(
        di=ModbusSequentialDataBlock(0, [0, 1, 0, 1, 1, 0, 0, 0]),
        co=ModbusSequentialDataBlock(0, [1, 0, 1, 0, 0, 0, 0, 0]),
        hr=ModbusSequentialDataBlock(0, holding()),
        ir=ModbusSequentialDataBlock(0, list(range(1000, 1100))), zero_mode=True)
    units = ModbusServerContext(slaves={1: store, 2: store}, single=False)
    if sys.argv[1].startswith("/"):
        # A pseudo-terminal has no parity bit, and refuses one that is all that would change.
        StartSerialServer(context=units, framer=ModbusRtuFramer, port=sys.argv[1], baudrate=19200,
                          timeout=0.005)
    elif sys.argv[1] == "--rtu":
        StartTcpServer(context=units, framer=ModbusRtuFramer,
                       address=("127.0.0.1", int(sys.argv[2])))
    else:
        StartTcpServer(context=ModbusServerContext(slaves=store, single=True),
                       address=("127.0.0.1", int(sys.argv[1])))


if __name__ == "__main__":
    main()
