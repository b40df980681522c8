"""What the simulator wrote down as served, to hold what arrived against it."""
import collections
import json

# Point: (table, address, words, scale) of the profile demo-turbine.
MAP = {
    "wind_speed": ("holding", 0, "H", 0.01), "power": ("holding", 1, "i", 0.1),
    "rotor_speed": ("holding", 3, "H", 0.01), "nacelle_dir": ("holding", 4, "H", 0.1),
    "gear_temp": ("holding", 5, "h", 0.1), "state": ("holding", 6, "H", 1),
    "grid_ok": ("discrete", 0, "H", 1), "pitch_sp": ("holding", 20, "h", 0.01),
}


def rounds(simulator):
    """{turbine: {round: {(table, address): raw}}} from the record."""
    result = collections.defaultdict(lambda: collections.defaultdict(dict))
    with open(simulator.record_path, encoding="utf-8") as file:
        for line in file:
            one = json.loads(line)
            into = result[one["turbine"]][one["round"]]
            for offset, value in enumerate(one["values"]):
                into[one["table"], one["first"] + offset] = value
    return result


def decode(raw, table, address, kind):
    value = raw[table, address]
    if kind == "i":
        value = value << 16 | raw[table, address + 1]
        return value - 2**32 if value >= 2**31 else value
    return value - 2**16 if kind == "h" and value >= 2**15 else value


def served_scans(simulator):
    """{device: [{point: value in units of its scale}]} in the order served."""
    return {f"t{turbine:02d}": [{point: decode(raw, table, address, kind)
                                 for point, (table, address, kind, _) in MAP.items()
                                 if (table, address) in raw}
                                for _, raw in sorted(of_turbine.items())]
            for turbine, of_turbine in rounds(simulator).items()}


def held_scans(sink):
    """The same of what the sink holds, scans without any good value left out."""
    scans = collections.defaultdict(lambda: collections.defaultdict(dict))
    for device, seq, point, value in sink.query(
            "SELECT device, seq, point, value FROM readings WHERE value IS NOT NULL"
            " AND stream = 'raw'"):
        if point in MAP:
            scans[device][seq][point] = round(value / MAP[point][3])
    return {device: [scan for _, scan in sorted(of_device.items())]
            for device, of_device in scans.items()}


def assert_delivered(simulator, sink):
    """Everything served has arrived, in order, value for value. The very last answer of a device
    may have been on its way when the polling stopped."""
    simulator.stop()
    assert_same(served_scans(simulator), held_scans(sink))


def assert_same(served, held):
    assert served.keys() == held.keys()
    for device, scans in served.items():
        assert held[device] in (scans, scans[:-1]), f"{device} differs from what was served"


def assert_nothing_invented(simulator, sink):
    """What has arrived was served, in the order in which it was served, value for value, though not
    all of it arrived: what no commit had covered when the gateway died was never read."""
    simulator.stop()
    served, held = served_scans(simulator), held_scans(sink)
    for device in served.keys() & held.keys():
        left = iter(served[device])
        for number, scan in enumerate(held[device], 1):
            assert any(one == scan for one in left), f"{device}: scan {number} was never served"
    return {device: len(scans) for device, scans in served.items()}
