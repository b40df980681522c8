#include "certs_peer.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>

struct authority {
    const char *dir;
    EVP_PKEY *key;
    X509 *cert;
};

enum { DAY = 86400, REVOKED_SERIAL = 77 };

static void need(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "certificates for the test: %s failed\n", what);
        abort();
    }
}

static FILE *create(const char *dir, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    need(f != NULL, path);
    return f;
}

static void save(const char *dir, const char *name, X509 *cert)
{
    FILE *f = create(dir, name);
    need(PEM_write_X509(f, cert), name);
    fclose(f);
}

static void extend(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    need(e != NULL && X509_add_ext(cert, e, -1), value);
    X509_EXTENSION_free(e);
}

/* issuer NULL: signs itself. */
static X509 *make(EVP_PKEY *key, X509 *issuer, const char *name, const char *alternative,
                  long serial, long from_s, long until_s)
{
    X509 *cert = X509_new();
    need(cert != NULL && X509_set_version(cert, 2), "X509_new");
    ASN1_INTEGER_set(X509_get_serialNumber(cert), serial);
    X509_gmtime_adj(X509_getm_notBefore(cert), from_s);
    X509_gmtime_adj(X509_getm_notAfter(cert), until_s);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)name, -1, -1, 0);
    issuer = issuer != NULL ? issuer : cert;
    X509_set_issuer_name(cert, X509_get_subject_name(issuer));
    if (alternative != NULL) {
        extend(cert, issuer, NID_subject_alt_name, alternative);
    } else {
        extend(cert, issuer, NID_basic_constraints, "critical,CA:TRUE");
        extend(cert, issuer, NID_key_usage, "critical,keyCertSign,cRLSign");
    }
    need(X509_sign(cert, key, EVP_sha256()) > 0, "X509_sign");
    return cert;
}

static void leaf(const struct authority *a, const char *file, const char *alternative, long serial,
                 long from_s, long until_s)
{
    X509 *cert = make(a->key, a->cert, file, alternative, serial, from_s, until_s);
    save(a->dir, file, cert);
    X509_free(cert);
}

static void revocation_list(const struct authority *a)
{
    X509_CRL *crl = X509_CRL_new();
    ASN1_TIME *now = X509_gmtime_adj(NULL, -DAY), *next = X509_gmtime_adj(NULL, 30 * DAY);
    X509_REVOKED *revoked = X509_REVOKED_new();
    ASN1_INTEGER *serial = ASN1_INTEGER_new();
    ASN1_INTEGER_set(serial, REVOKED_SERIAL);
    X509_REVOKED_set_serialNumber(revoked, serial);
    X509_REVOKED_set_revocationDate(revoked, now);
    X509_CRL_set_version(crl, 1);
    X509_CRL_set_issuer_name(crl, X509_get_subject_name(a->cert));
    X509_CRL_set1_lastUpdate(crl, now);
    X509_CRL_set1_nextUpdate(crl, next);
    X509_CRL_add0_revoked(crl, revoked);
    need(X509_CRL_sign(crl, a->key, EVP_sha256()) > 0, "X509_CRL_sign");
    FILE *f = create(a->dir, "crl.pem");
    need(PEM_write_X509_CRL(f, crl), "crl.pem");
    fclose(f);
    X509_CRL_free(crl);
    ASN1_INTEGER_free(serial);
    ASN1_TIME_free(now);
    ASN1_TIME_free(next);
}

void certs_make(const char *dir)
{
    static const char here[] = "DNS:localhost,IP:127.0.0.1";
    struct authority a = {.dir = dir, .key = EVP_EC_gen("P-256")};
    need(a.key != NULL, "EVP_EC_gen");
    FILE *f = create(dir, "key.pem");
    need(PEM_write_PrivateKey(f, a.key, NULL, NULL, 0, NULL, NULL), "key.pem");
    fclose(f);
    a.cert = make(a.key, NULL, "test authority", NULL, 1, -DAY, 30 * DAY);
    save(dir, "ca.pem", a.cert);
    leaf(&a, "good.pem", here, 2, -DAY, 30 * DAY);
    leaf(&a, "otherhost.pem", "DNS:elsewhere.example", 3, -DAY, 30 * DAY);
    leaf(&a, "expired.pem", here, 4, -20 * DAY, -DAY);
    leaf(&a, "early.pem", here, 5, DAY, 30 * DAY);
    leaf(&a, "client.pem", "DNS:gateway", 6, -DAY, 30 * DAY);
    leaf(&a, "revoked.pem", here, REVOKED_SERIAL, -DAY, 30 * DAY);
    X509 *alone = make(a.key, NULL, "alone", here, 8, -DAY, 30 * DAY);
    save(dir, "selfsigned.pem", alone);
    X509_free(alone);
    revocation_list(&a);
    X509_free(a.cert);
    EVP_PKEY_free(a.key);
}
