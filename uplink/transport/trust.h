/* trust.h - the files by which a transport is known and knows others, as they are at present.
 *
 * ca_file, cert_file, key_file, crl_file, token_file or password_file, and proxy_login_file are
 * read into memory and looked at again while requests are sent; a changed set takes effect as a
 * whole and only when it can be used: the certificate belongs to the key, the key is ours alone,
 * there is a token. A broken one is told of and the set before it goes on. The transport's thread;
 * blocks on local files only. */
#pragma once

#include "uplink/transport/transport.h"

#include <openssl/x509.h>

enum {
    TRUST_LOOK_MS = 1000,  /* between two looks at the files */
    TRUST_GRACE_MS = 3000, /* a pair is not changed in one step: it may be half done this long */
    TRUST_FILE_MAX = 1024 * 1024,
    TRUST_BUNDLE_MAX = 8, /* certificates; of more in ca_file nobody here renews one */
    TRUST_WARN_DAYS = 30, /* before a certificate expires */
    TRUST_WORDS_MAX = 200,
};

struct trust;

/* Reads the files; those that cannot be read or used now are left to fail by the request.
 * secret_key: what the token's file is called in the configuration. */
must_check int trust_create(const struct transport_settings *settings, const char *secret_key,
                            struct trust **ret_trust);
void trust_destroy(struct trust *t);

/* Looks whether a file has changed, when it is time to. */
void trust_look(struct trust *t, int64_t mono_ms);
/* The same at any time: before a connection is made, which is rare. */
void trust_look_now(struct trust *t, int64_t mono_ms);
/* Counts the sets that took effect; it changes when connections have to be made anew. */
unsigned trust_generation(const struct trust *t);

/* What a request needs, valid until the next look; no bytes where there is no such file, or none
 * that could ever be read. */
const struct buffer *trust_ca(const struct trust *t);
const struct buffer *trust_cert(const struct trust *t);
const struct buffer *trust_key(const struct trust *t);
const char *trust_token(const struct trust *t);       /* NULL: none */
const char *trust_proxy_login(const struct trust *t); /* NULL: none */

/* The endpoint has shown a certificate that ends then; 0: it has not. */
void trust_saw_peer(struct trust *t, int64_t until_ms);

/* What is to be told of the files, "" when all is well: a set that cannot be used, or one that
 * expires within TRUST_WARN_DAYS, as the endpoint's certificate may as well. */
void trust_warning(const struct trust *t, int64_t wall_ms, char words[TRUST_WORDS_MAX]);

/* Says that `what` expires soon or has done so; false: neither. until_ms 0: not known. */
bool trust_expiry_words(const char *what, int64_t until_ms, int64_t wall_ms,
                        char words[TRUST_WORDS_MAX]);
/* The end of a certificate's validity in UTC milliseconds, 0: no such date. */
int64_t trust_until_ms(const X509 *certificate);
/* The first end of all certificates in a PEM file of at most TRUST_BUNDLE_MAX; 0: cannot be read,
 * or larger. */
int64_t trust_file_until_ms(const char *path);
