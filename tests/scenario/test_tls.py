"""Whom the gateway talks to: nothing leaves before the peer has proved itself, and only an answer
that accounts for the batch counts as delivery."""
import socket
import ssl

import pytest

from certificates import Authority
from endpoint import Endpoint, accept_all, captive_portal, old_tls
from process import wait_for
from site_parts import Gateway, Simulator


@pytest.fixture(name="authority")
def make_authority(tmp_path):
    return Authority(tmp_path / "ca")


@pytest.fixture(name="gateway")
def make_gateway(tmp_path):
    simulator = Simulator(tmp_path, 2).start()
    return Gateway(tmp_path).turbines(simulator)


def point_at(gateway, endpoint, authority, **keys):
    url = keys.pop("url", endpoint.url)
    gateway.set("uplink cloud", type="http", url=url, ca_file=authority.cert, send="raw",
                batch_records=10, batch_interval="100 ms", **keys)
    return gateway.start()


def assert_refused(gateway, endpoint, *words):
    """Several attempts were made, each ended before any byte of HTTP, and status says why."""
    wait_for(lambda: endpoint.connections >= 2, 30, lambda: str(gateway.get("/v1/status")))
    error = wait_for(lambda: gateway.uplink_state()["last_error"], 10, "status names the error")
    wait_for(lambda: gateway.ledger()["waiting"] > 0, 10, "readings wait")
    assert endpoint.bytes_in == 0 and not endpoint.requests
    assert gateway.uplink_state()["delivered"] == 0
    assert any(word in error.lower() for word in words), error


def test_proper_endpoint_is_served(gateway, authority):
    """The control of this file: the same set-up delivers where nothing is wrong."""
    endpoint = Endpoint(*authority.issue("good"), accept_all)
    point_at(gateway, endpoint, authority)
    gateway.wait_delivered(50)
    assert endpoint.bytes_in > 0
    endpoint.close()


def test_wrong_host(gateway, authority):
    endpoint = Endpoint(*authority.issue("other", "DNS:other.example"), accept_all)
    point_at(gateway, endpoint, authority)
    assert_refused(gateway, endpoint, "host", "name", "match")


def test_expired(gateway, authority):
    cert = authority.issue("old", start="20230101000000Z", end="20230201000000Z")
    endpoint = Endpoint(*cert, accept_all)
    point_at(gateway, endpoint, authority)
    assert_refused(gateway, endpoint, "expired")


def test_not_yet_valid(gateway, authority):
    cert = authority.issue("new", start="20480101000000Z", end="20490101000000Z")
    endpoint = Endpoint(*cert, accept_all)
    point_at(gateway, endpoint, authority)
    assert_refused(gateway, endpoint, "not yet valid")


def test_self_signed(gateway, authority):
    endpoint = Endpoint(*authority.self_signed("alone"), accept_all)
    point_at(gateway, endpoint, authority)
    assert_refused(gateway, endpoint, "self", "issuer", "certificate")


def test_foreign_authority(gateway, authority, tmp_path):
    stranger = Authority(tmp_path / "stranger", "stranger")
    endpoint = Endpoint(*stranger.issue("good"), accept_all)
    point_at(gateway, endpoint, authority)
    assert_refused(gateway, endpoint, "issuer", "certificate")


def test_revoked(gateway, authority):
    cert, key = authority.issue("revoked")
    endpoint = Endpoint(cert, key, accept_all)
    authority.revoke(cert)
    point_at(gateway, endpoint, authority, crl_file=authority.crl())
    assert_refused(gateway, endpoint, "revoked")


def test_not_revoked(gateway, authority):
    """A revocation list that names another certificate does no harm."""
    other, _ = authority.issue("other")
    authority.revoke(other)
    endpoint = Endpoint(*authority.issue("good"), accept_all)
    point_at(gateway, endpoint, authority, crl_file=authority.crl())
    gateway.wait_delivered(50)


def test_tls_1_1(gateway, authority):
    endpoint = Endpoint(*authority.issue("good"), accept_all, old_tls())
    weak = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    weak.load_verify_locations(authority.cert)
    weak.set_ciphers("ALL:@SECLEVEL=0")
    weak.minimum_version = ssl.TLSVersion.TLSv1
    with socket.create_connection(("127.0.0.1", endpoint.port)) as plain:
        with weak.wrap_socket(plain, server_hostname="127.0.0.1") as one:
            assert one.version() == "TLSv1.1"  # the endpoint works, for whoever stoops to it
    endpoint.connections = 0
    point_at(gateway, endpoint, authority)
    assert_refused(gateway, endpoint, "protocol", "version", "alert", "tls")


def test_captive_portal_is_no_acknowledgement(gateway, authority):
    endpoint = Endpoint(*authority.issue("portal"), captive_portal)
    point_at(gateway, endpoint, authority)
    wait_for(lambda: len(endpoint.requests) >= 2, 30, "the batch is tried again")
    state = gateway.uplink_state()
    assert state["delivered"] == 0 and state["last_error"]
    assert gateway.ledger()["delivered"] == 0
    endpoint.answer = accept_all
    gateway.stop_polling()
    ledger = gateway.drain()
    assert ledger["delivered"] == ledger["read"]


@pytest.mark.parametrize("body", ['{"accepted": 1000000}', '{"accepted": 0}', "{}", "", "[]",
                                  '{"accepted": "all"}', '{"accepted": 1'])
def test_wrong_count_is_no_acknowledgement(gateway, authority, body):
    endpoint = Endpoint(*authority.issue("odd"),
                        lambda *_: (200, "application/json", body))
    point_at(gateway, endpoint, authority)
    wait_for(lambda: len(endpoint.requests) >= 2, 30, "the batch is tried again")
    assert gateway.uplink_state()["delivered"] == 0


def test_status_is_enough_where_the_user_says_so(gateway, authority):
    endpoint = Endpoint(*authority.issue("mute"), lambda *_: (204, "text/plain", ""))
    point_at(gateway, endpoint, authority, ack="status")
    gateway.wait_delivered(50)


def test_plain_http_beyond_loopback_is_refused(gateway):
    gateway.set("uplink cloud", type="http", url="http://192.0.2.1/v1/readings", send="raw")
    gateway.write()
    status, output, errors = gateway.cli("check")
    assert status == 2 and "[uplink cloud] url" in output + errors
