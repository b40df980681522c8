/* keys.h - the keys of struct transport_settings, for the table of every type that uses it.
 *
 * One list, so that token, certificates and time-outs are called the same in all of them. The
 * values are defaults and bounds as text, see config/schema.h. `member` is where the struct lies in
 * the type's settings `type_`. */
#pragma once

#include "uplink/transport/transport.h"

#define TRANSPORT_KEY(type_, member, field) offsetof(type_, member.field)

/* The bearer token. */
#define TRANSPORT_TOKEN_KEYS(type_, member)                                                        \
    {                                                                                              \
        .name = "token_file", .type = CONFIG_SECRET_FILE,                                          \
        .offset = TRANSPORT_KEY(type_, member, token), .example = "/etc/windrow/token",            \
        .help = "file with the bearer token"                                                       \
    }

/* As whom to come; the offsets of both paths. */
#define TRANSPORT_IDENTITY_KEYS(cert_, key_)                                                       \
    {.name = "cert_file",                                                                          \
     .type = CONFIG_FILE,                                                                          \
     .offset = cert_,                                                                              \
     .example = "/etc/windrow/gw.pem",                                                             \
     .help = "this gateway's certificate (mutual TLS)"},                                           \
    {                                                                                              \
        .name = "key_file", .type = CONFIG_PRIVATE_FILE, .offset = key_,                           \
        .example = "/etc/windrow/gw.key", .help = "the key of cert_file, without a passphrase"     \
    }

/* Whom to trust. */
#define TRANSPORT_CA_KEY(type_, member)                                                            \
    {                                                                                              \
        .name = "ca_file", .type = CONFIG_FILE, .offset = TRANSPORT_KEY(type_, member, ca_file),   \
        .example = "/etc/windrow/ca.pem",                                                          \
        .help = "certificates that may vouch for the endpoint, instead of the system's"            \
    }

/* The secret of a login, in the place of a token. */
#define TRANSPORT_PASSWORD_KEY(type_, member, example_)                                            \
    {                                                                                              \
        .name = "password_file", .type = CONFIG_SECRET_FILE,                                       \
        .offset = TRANSPORT_KEY(type_, member, token), .example = example_,                        \
        .help = "file with the user's password"                                                    \
    }

/* Whom to trust and as whom to come. */
#define TRANSPORT_TLS_KEYS(type_, member)                                                          \
    TRANSPORT_CA_KEY(type_, member),                                                               \
        {.name = "crl_file",                                                                       \
         .type = CONFIG_FILE,                                                                      \
         .offset = TRANSPORT_KEY(type_, member, crl_file),                                         \
         .example = "/etc/windrow/crl.pem",                                                        \
         .help = "revoked certificates; needs a list of every authority in the chain"},            \
        TRANSPORT_IDENTITY_KEYS(TRANSPORT_KEY(type_, member, cert_file),                           \
                                TRANSPORT_KEY(type_, member, key_file))

#define TRANSPORT_COMPRESS_KEY(type_, member, fallback_, choices_)                                 \
    {                                                                                              \
        .name = "compress", .type = CONFIG_CHOICE,                                                 \
        .offset = TRANSPORT_KEY(type_, member, compress), .fallback = fallback_,                   \
        .choices = choices_, .help = "compression of request bodies"                               \
    }

/* How long to wait. */
#define TRANSPORT_TIME_KEYS(type_, member)                                                         \
    {.name = "timeout",                                                                            \
     .type = CONFIG_DURATION,                                                                      \
     .offset = TRANSPORT_KEY(type_, member, timeout_ms),                                           \
     .fallback = "60 s",                                                                           \
     .min = 1000,                                                                                  \
     .max = 600000,                                                                                \
     .help = "longest time a request may take as a whole"},                                        \
    {                                                                                              \
        .name = "connect_timeout", .type = CONFIG_DURATION,                                        \
        .offset = TRANSPORT_KEY(type_, member, connect_timeout_ms), .fallback = "10 s",            \
        .min = 100, .max = 120000,                                                                 \
        .help = "longest time for name, connection, TLS handshake and login"                       \
    }

/* How long to wait, and which HTTP. */
#define TRANSPORT_LINE_KEYS(type_, member)                                                         \
    TRANSPORT_TIME_KEYS(type_, member),                                                            \
        {.name = "proxy",                                                                          \
         .type = CONFIG_URL,                                                                       \
         .offset = TRANSPORT_KEY(type_, member, proxy),                                            \
         .example = "http://proxy.example.com:3128",                                               \
         .help = "HTTP proxy to go through; default: none, or what https_proxy names"},            \
        {.name = "proxy_login_file",                                                               \
         .type = CONFIG_SECRET_FILE,                                                               \
         .offset = TRANSPORT_KEY(type_, member, proxy_login),                                      \
         .example = "/etc/windrow/proxy.login",                                                    \
         .help = "file with USER:PASSWORD for the proxy"},                                         \
    {                                                                                              \
        .name = "http2", .type = CONFIG_BOOL, .offset = TRANSPORT_KEY(type_, member, http2),       \
        .fallback = "no", .help = "offer HTTP/2"                                                   \
    }

/* All of them but url, which not every type has. */
#define TRANSPORT_CONFIG_KEYS(type_, member)                                                       \
    TRANSPORT_TOKEN_KEYS(type_, member), TRANSPORT_TLS_KEYS(type_, member),                        \
        TRANSPORT_COMPRESS_KEY(type_, member, "none", transport_compress_choices),                 \
        TRANSPORT_LINE_KEYS(type_, member)
