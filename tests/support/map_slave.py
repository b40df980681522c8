"""map_slave.py PORT MAP.json: a Modbus TCP slave by python3-pymodbus that serves register maps.

MAP.json: {"UNIT": {"holding": {"ADDRESS": VALUE, ...}, "input": {...}}, ...}. Addresses that are
not in the map are refused (exception 2).
"""
import json
import sys

from pymodbus.datastore import ModbusServerContext, ModbusSlaveContext, ModbusSparseDataBlock
from pymodbus.server import StartTcpServer


def block(registers):
    return ModbusSparseDataBlock({int(address): value for address, value in registers.items()}
                                 or {65535: 0})


def main():
    with open(sys.argv[2], encoding="utf-8") as file:
        units = json.load(file)
    slaves = {int(unit): ModbusSlaveContext(hr=block(tables.get("holding", {})),
                                            ir=block(tables.get("input", {})), zero_mode=True)
              for unit, tables in units.items()}
    StartTcpServer(context=ModbusServerContext(slaves=slaves, single=False),
                   address=("127.0.0.1", int(sys.argv[1])))


if __name__ == "__main__":
    main()
