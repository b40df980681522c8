"""Endpoints that answer with too much, without end, torn, or with lies: nothing counts as delivered
that was not, memory stays bounded, the status says what is wrong, and all arrives afterwards."""
import pytest

from certificates import Authority
from hostile_http import MODES, HostileEndpoint, memory_kib
from process import wait_for
from site_parts import Gateway, Simulator

EACH = 9  # endpoints beside each other, an uplink each
MORE_KIB = 16 * 1024  # of memory for all of them; one answer of 100 MB would be six times that
ALL = list(MODES)
WORDS = {
    "more than was sent": "accounted for",
    "a negative number": "accounted for -1",
    "not a number": "did not account",
    "100 MB": "more than 256 KiB",
    "endless chunks": "more than 256 KiB",
    "endless headers": "more than 64 KiB of headers",
    "endless trailers": "more than 64 KiB of headers",
    "100 Continue for ever": "more than 64 KiB of headers",
    "103 with headers for ever": "more than 64 KiB of headers",
    "a header without an end": "does not end",
    "a torn body": "broke within the answer",
    "101": "began to answer",
    "another protocol": "does not speak HTTP",
    "closed at once": "closed the connection without an answer",
    "silence": "no answer in time",
    "to http": "elsewhere (307)",
    "to another host": "elsewhere (307)",
}


@pytest.mark.parametrize("modes", [ALL[i:i + EACH] for i in range(0, len(ALL), EACH)],
                         ids=lambda modes: modes[0])
def test_nothing_is_believed_and_nothing_lost(tmp_path, modes):
    authority = Authority(tmp_path / "ca")
    cert = authority.issue("cloud")
    gateway = Gateway(tmp_path).turbines(Simulator(tmp_path, 1).start())
    endpoints = {f"u{i}": HostileEndpoint(mode, *cert) for i, mode in enumerate(modes)}
    for name, endpoint in endpoints.items():
        gateway.set(f"uplink {name}", type="http", url=endpoint.url, ca_file=authority.cert,
                    send="raw", batch_records=20, batch_interval="100 ms", parallel=2,
                    timeout="1 s")
    gateway.start()
    memory = [memory_kib(gateway.process.popen.pid)]

    def uplinks():
        return {endpoints[one["name"]].mode: one for one in gateway.get("/v1/status")["uplinks"]}

    heard = {mode: [] for mode in modes}

    def all_failed():
        """A busy machine may run into the time-out first: the words come at the next attempt."""
        memory.append(memory_kib(gateway.process.popen.pid))
        for mode, one in uplinks().items():
            heard[mode].append(one["last_error"] or "")
            assert one["delivered"] == one["rejected"] == 0, (mode, one)
        return all(WORDS.get(mode, " ") in "".join(heard[mode]) for mode in modes)
    wait_for(all_failed, 60, lambda: {mode: set(words) for mode, words in heard.items()})
    assert max(memory) - memory[0] < MORE_KIB, memory
    assert not any(endpoint.strays for endpoint in endpoints.values())
    gateway.stop()
    for endpoint in endpoints.values():
        endpoint.mode = "good"
    gateway.start()
    gateway.stop_polling()
    ledger = gateway.drain()
    assert ledger["dead"] == 0
    for endpoint in endpoints.values():
        last = max(seq for _, seq in endpoint.records)
        assert endpoint.records == {("t01", seq) for seq in range(1, last + 1)}
        endpoint.close()
