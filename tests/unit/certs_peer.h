/* certs_peer.h - certificates made on the spot, for tests of what TLS must refuse.
 *
 * One authority and one EC key for all; files in PEM under `dir`: ca.pem, key.pem, crl.pem and the
 * certificates named below. */
#pragma once

/* good.pem (localhost, 127.0.0.1), otherhost.pem, expired.pem, early.pem (not valid yet),
 * selfsigned.pem, revoked.pem (in crl.pem), client.pem. Fails the test when OpenSSL does. */
void certs_make(const char *dir);
