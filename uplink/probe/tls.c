#include "gateway/base/clock.h"
#include "uplink/probe/parts.h"
#include "uplink/transport/words.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <string.h>

enum { FAULTS_MAX = 4, WORDS = 700, DAY_S = 86400 };

/* What is wrong with the chain, gathered while the handshake goes on. */
struct faults {
    int codes[FAULTS_MAX];
    size_t count;
    bool wants_ours; /* the endpoint asked for a client certificate */
};

/* Goes on after a fault, so that all of them are seen; nothing is sent on such a connection. */
static int on_verify(int good, X509_STORE_CTX *context)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(context, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct faults *faults = ssl != NULL ? SSL_get_app_data(ssl) : NULL;
    int code = X509_STORE_CTX_get_error(context);
    bool known = good != 0 || faults == NULL || faults->count == FAULTS_MAX;
    for (size_t i = 0; !known && i < faults->count; i++) {
        known = faults->codes[i] == code;
    }
    if (!known) {
        faults->codes[faults->count++] = code;
    }
    return 1;
}

/* Called when the endpoint asks for a certificate. */
static int on_asked(SSL *ssl, void *user)
{
    (void)user;
    struct faults *faults = SSL_get_app_data(ssl);
    faults->wants_ours = true;
    return 1;
}

static int no_passphrase(char *to, int size, int writing, void *user)
{
    (void)to;
    (void)size;
    (void)writing;
    (void)user;
    return 0;
}

static const char *openssl_words(void)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    return reason != NULL ? reason : "no reason given";
}

static int64_t days_to(const ASN1_TIME *time)
{
    int days = 0, seconds = 0;
    return ASN1_TIME_diff(&days, &seconds, NULL, time) != 1 ? 0 : days - (seconds < 0);
}

static void add_name(struct buffer *out, const X509_NAME *name)
{
    char common[256];
    if (X509_NAME_get_text_by_NID(name, NID_commonName, common, sizeof common) < 0) {
        X509_NAME_oneline(name, common, sizeof common);
    }
    for (char *c = common; *c != '\0'; c++) {
        *c = (unsigned char)*c < ' ' ? '?' : *c;
    }
    buffer_printf(out, "%.100s", common);
}

static void add_date(struct buffer *out, const ASN1_TIME *time)
{
    struct tm tm = {0};
    if (ASN1_TIME_to_tm(time, &tm) == 1) {
        buffer_printf(out, "%04d-%02d-%02d", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday);
    }
}

int64_t probe_describe_certificate(const X509 *certificate, struct buffer *out)
{
    const ASN1_TIME *from = X509_get0_notBefore(certificate), *to = X509_get0_notAfter(certificate);
    int64_t days = days_to(to);
    add_name(out, X509_get_subject_name(certificate));
    buffer_add_text(out, ", issued by ");
    add_name(out, X509_get_issuer_name(certificate));
    if (X509_cmp_current_time(from) > 0) {
        buffer_add_text(out, ", valid only from ");
        add_date(out, from);
    } else {
        buffer_add_text(out, X509_cmp_current_time(to) < 0 ? ", expired " : ", valid to ");
        add_date(out, to);
        buffer_printf(out, " (%lld days%s)", (long long)(days < 0 ? -days : days),
                      days < 0 ? " ago" : "");
    }
    return days;
}

static void add_names(const X509 *certificate, struct buffer *out)
{
    enum { NAMES_SHOWN = 4 };
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    int count = names != NULL ? sk_GENERAL_NAME_num(names) : 0;
    for (int i = 0; i < count && i < NAMES_SHOWN; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        char text[INET6_ADDRSTRLEN] = "";
        buffer_add_text(out, i == 0 ? " (it is for " : ", ");
        if (name->type == GEN_DNS) {
            buffer_printf(out, "%.80s", (const char *)ASN1_STRING_get0_data(name->d.dNSName));
        } else if (name->type == GEN_IPADD) {
            int family = ASN1_STRING_length(name->d.iPAddress) == 4 ? AF_INET : AF_INET6;
            inet_ntop(family, ASN1_STRING_get0_data(name->d.iPAddress), text, sizeof text);
            buffer_add_text(out, text);
        } else {
            buffer_add_text(out, "?");
        }
    }
    buffer_add_text(out, count > NAMES_SHOWN ? ", ...)" : count > 0 ? ")" : "");
    GENERAL_NAMES_free(names);
}

static bool is_address(const char *host)
{
    struct in6_addr any;
    return inet_pton(AF_INET, host, &any) == 1 || inet_pton(AF_INET6, host, &any) == 1;
}

/* The files of the section; *ret_key names the one that cannot be used. */
static bool set_files(SSL_CTX *context, const struct probe_target *t, const char **ret_key)
{
    *ret_key = "ca_file";
    if ((t->ca_file != NULL ? SSL_CTX_load_verify_locations(context, t->ca_file, NULL)
                            : SSL_CTX_set_default_verify_paths(context)) != 1) {
        return false;
    }
    *ret_key = "crl_file";
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    if (t->http && t->crl_file == NULL) {
        /* As libcurl does: a certificate in ca_file need not be a root. */
        X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
    }
    if (t->crl_file != NULL) {
        X509_LOOKUP *look_up = X509_STORE_add_lookup(store, X509_LOOKUP_file());
        if (look_up == NULL || X509_load_crl_file(look_up, t->crl_file, X509_FILETYPE_PEM) <= 0) {
            return false;
        }
        X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    }
    *ret_key = "cert_file and key_file";
    return t->cert_file == NULL ||
           (SSL_CTX_use_certificate_chain_file(context, t->cert_file) == 1 &&
            SSL_CTX_use_PrivateKey_file(context, t->key_file, SSL_FILETYPE_PEM) == 1 &&
            SSL_CTX_check_private_key(context) == 1);
}

static SSL_CTX *make_context(const struct probe_target *t, const char **ret_key)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    *ret_key = "TLS";
    if (context == NULL) {
        return NULL;
    }
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_default_passwd_cb(context, no_passphrase);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, on_verify);
    SSL_CTX_set_cert_cb(context, on_asked, NULL);
    if (!set_files(context, t, ret_key)) {
        SSL_CTX_free(context);
        return NULL;
    }
    return context;
}

static bool prepare(SSL *ssl, const struct probe_target *t, int fd, struct faults *faults)
{
    X509_VERIFY_PARAM *names = SSL_get0_param(ssl);
    bool number = is_address(t->host);
    int good = number ? X509_VERIFY_PARAM_set1_ip_asc(names, t->host)
                      : X509_VERIFY_PARAM_set1_host(names, t->host, 0);
    good = good == 1 && !number ? (int)SSL_set_tlsext_host_name(ssl, t->host) : good;
    unsigned char protocols[80];
    const char *alpn = t->alpn;
    if (alpn != NULL && strlen(alpn) < sizeof protocols - 1) {
        protocols[0] = (unsigned char)strlen(alpn);
        memcpy(protocols + 1, alpn, protocols[0]);
        SSL_set_alpn_protos(ssl, protocols, protocols[0] + 1u);
    } else if (t->http) {
        SSL_set_alpn_protos(ssl, (const unsigned char *)"\2h2\10http/1.1", 12);
    }
    return good == 1 && SSL_set_app_data(ssl, faults) == 1 && SSL_set_fd(ssl, fd) == 1;
}

static bool is_in(const char *words, const char *const *list)
{
    for (; *list != NULL; list++) {
        if (strstr(words, *list) != NULL) {
            return true;
        }
    }
    return false;
}

static void say_unwanted(struct probe *probe, const struct probe_target *target)
{
    bool given = target->cert_file != NULL;
    probe_say(probe, "TLS", PROBE_BAD,
              given ? "is the certificate registered there, in date, and of the authority that the "
                      "endpoint expects?"
                    : "get a certificate for this gateway; cert_file and key_file name it",
              "the endpoint %s (%s)",
              given ? "does not take our certificate" : "wants a client certificate, we have none",
              openssl_words());
}

static void say_failed(struct probe *probe, int error, int os_error, bool *ret_not_tls)
{
    static const char *const no_tls[] = {"wrong version number", "http request",
                                         "packet length too long", NULL};
    static const char *const old[] = {"unsupported protocol", "protocol version",
                                      "no protocols available", NULL};
    static const char *const client[] = {"certificate required", "alert bad certificate",
                                         "alert unknown ca",     "alert certificate",
                                         "handshake failure",    NULL};
    const char *words = openssl_words();
    *ret_not_tls = error == SSL_ERROR_SSL && is_in(words, no_tls);
    if (*ret_not_tls) {
        return;
    }
    if (error == SSL_ERROR_SSL && is_in(words, old)) {
        probe_say(probe, "TLS", PROBE_BAD, "the service must offer TLS 1.2 or newer",
                  "it only offers TLS older than 1.2 (%s)", words);
    } else if (error == SSL_ERROR_SSL && is_in(words, client)) {
        probe_say(probe, "TLS", PROBE_BAD,
                  "cert_file and key_file: is the certificate registered there, in date, and of "
                  "the authority that the endpoint expects?",
                  "the endpoint refuses us: it does not take our certificate, or wants one (%s)",
                  words);
    } else if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        probe_say(probe, "TLS", PROBE_BAD,
                  "a firewall that looks into TLS, or a port of another service",
                  "connected, but there is no answer to the handshake");
    } else {
        bool cut = os_error == ECONNRESET || os_error == 0 || strstr(words, "eof") != NULL;
        probe_say(probe, "TLS", PROBE_BAD,
                  "a firewall that does not like this name, a port of another service, or an "
                  "endpoint that wants a client certificate",
                  "the handshake broke off: %s",
                  cut             ? "it closed the connection"
                  : os_error != 0 ? strerror(os_error)
                                  : words);
    }
}

static const char *certificate_mend(int code, const struct probe_target *target)
{
    switch (code) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        return "where that date is right, whoever runs the service must renew it; otherwise set "
               "this machine's clock (timedatectl)";
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return "where that date is wrong, set this machine's clock (timedatectl)";
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        return "use a name that the certificate is for; or somebody stands in between (a captive "
               "portal, a proxy that opens TLS)";
    case X509_V_ERR_CERT_REVOKED:
        return "whoever runs the service must get a new one";
    default:
        return target->ca_file != NULL
                   ? "ca_file must hold the authority that issued it; or somebody stands in "
                     "between "
                     "(a captive portal, a proxy that opens TLS)"
                   : "set ca_file where the service has an authority of its own; otherwise "
                     "somebody "
                     "stands in between (a captive portal, a proxy that opens TLS)";
    }
}

static const char *fault_words(int code)
{
    if (code == X509_V_ERR_HOSTNAME_MISMATCH || code == X509_V_ERR_IP_ADDRESS_MISMATCH) {
        return "its certificate is for another host name";
    }
    if (code == X509_V_ERR_CERT_HAS_EXPIRED) {
        return "its certificate has expired";
    }
    if (code == X509_V_ERR_CERT_NOT_YET_VALID) {
        return "its certificate is not valid yet";
    }
    const char *words = transport_certificate_words(code);
    return words != NULL ? words : X509_verify_cert_error_string(code);
}

/* The certificates behind the first one that the server sent. */
static void add_chain(SSL *ssl, struct buffer *out)
{
    STACK_OF(X509) *chain = SSL_get_peer_cert_chain(ssl);
    for (int i = 1; chain != NULL && i < sk_X509_num(chain); i++) {
        buffer_add_text(out, "; ");
        probe_describe_certificate(sk_X509_value(chain, i), out);
    }
}

static bool say_certificate(struct probe *probe, const struct probe_target *target, SSL *ssl,
                            const struct faults *faults)
{
    auto_buffer struct buffer text = {.max = WORDS};
    X509 *certificate = SSL_get1_peer_certificate(ssl);
    if (certificate == NULL) {
        probe_say(probe, "certificate", PROBE_BAD, NULL, "the endpoint shows none");
        return false;
    }
    for (size_t i = 0; i < faults->count; i++) {
        buffer_printf(&text, "%s; ", fault_words(faults->codes[i]));
        if (faults->codes[i] == X509_V_ERR_CERT_HAS_EXPIRED ||
            faults->codes[i] == X509_V_ERR_CERT_NOT_YET_VALID) {
            char now[CLOCK_TEXT_SIZE];
            clock_format_utc(clock_wall_ms(), now);
            buffer_printf(&text, "here it is %.10s; ", now);
        }
    }
    int64_t days = probe_describe_certificate(certificate, &text);
    add_names(certificate, &text);
    add_chain(ssl, &text);
    const char *words = buffer_text(&text);
    words = words != NULL ? words : "it is too long to be shown";
    if (faults->count > 0) {
        probe_say(probe, "certificate", PROBE_BAD, certificate_mend(faults->codes[0], target), "%s",
                  words);
    } else if (days < PROBE_EXPIRY_DAYS) {
        probe_say(probe, "certificate", PROBE_WARN,
                  "it ends soon: whoever runs the service must renew it", "%s", words);
    } else {
        probe_say(probe, "certificate", PROBE_GOOD, NULL, "%s", words);
    }
    X509_free(certificate);
    return faults->count == 0;
}

static void say_shaken(struct probe *probe, const struct probe_target *target, SSL *ssl)
{
    const unsigned char *protocol = NULL;
    unsigned len = 0;
    SSL_get0_alpn_selected(ssl, &protocol, &len);
    bool h2 = len == 2 && memcmp(protocol, "h2", 2) == 0;
    const char *http = !target->http ? "" : h2 ? "; HTTP/2 is offered" : "; HTTP/1.1";
    probe_say(probe, "TLS", PROBE_GOOD, NULL, "%s, %s%s%s%.*s", SSL_get_version(ssl),
              SSL_get_cipher_name(ssl), http, len > 0 && !target->http ? "; ALPN " : "",
              target->http ? 0 : (int)len, len > 0 ? (const char *)protocol : "");
}

/* In TLS 1.3 the handshake has ended for us before the endpoint has looked at our certificate: its
 * alert, if there is one, comes a round trip later (RFC 8446 section 2). */
static bool is_kept(SSL *ssl, int fd)
{
    enum { LEAST_MS = 300, STEP_MS = 20 };
    char byte;
    if (SSL_version(ssl) != TLS1_3_VERSION) {
        return true;
    }
    int64_t deadline_ms = clock_mono_ms() + LEAST_MS;
    fcntl(fd, F_SETFL, O_NONBLOCK); /* for good: nothing but the goodbye comes after this */
    while (clock_mono_ms() < deadline_ms) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (poll(&wait, 1, STEP_MS) <= 0) {
            continue;
        }
        int r = SSL_peek(ssl, &byte, 1);
        int error = SSL_get_error(ssl, r);
        if (error != SSL_ERROR_WANT_READ) {
            return r > 0;
        }
    }
    return true;
}

/* The wait is ours, not the handshake's: it is taken out of the step's time. */
static bool stays_open(struct probe *probe, SSL *ssl, int fd)
{
    int64_t before_ns = clock_mono_ns();
    bool kept = is_kept(ssl, fd);
    probe->begun_ns += kept ? clock_mono_ns() - before_ns : 0;
    return kept;
}

bool probe_shake_hands(struct probe *probe, const struct probe_target *target, int fd,
                       bool *ret_not_tls)
{
    const char *key = "";
    struct faults faults = {.count = 0};
    char words[200] = "";
    ERR_clear_error();
    SSL_CTX *context = make_context(target, &key);
    if (context == NULL) {
        probe_say(probe, "TLS", PROBE_BAD, "it must be PEM, the key without a passphrase",
                  "%s cannot be used: %s", key, openssl_words());
        return false;
    }
    SSL *ssl = SSL_new(context);
    bool good = false;
    probe_begin(probe);
    if (target->greet != NULL && target->greet(fd, words, sizeof words) < 0) {
        probe_say(probe, "TLS", PROBE_BAD, NULL, "%s", words);
    } else if (ssl == NULL || !prepare(ssl, target, fd, &faults)) {
        probe_say(probe, "TLS", PROBE_BAD, NULL, "%s", openssl_words());
    } else {
        errno = 0;
        int r = SSL_connect(ssl);
        if (r == 1 && !(faults.wants_ours && !stays_open(probe, ssl, fd))) {
            say_shaken(probe, target, ssl);
            good = say_certificate(probe, target, ssl, &faults);
            SSL_shutdown(ssl);
        } else if (r == 1) {
            say_unwanted(probe, target);
        } else {
            say_failed(probe, SSL_get_error(ssl, r), errno, ret_not_tls);
        }
    }
    SSL_free(ssl);
    SSL_CTX_free(context);
    return good;
}

bool probe_own_certificate(struct probe *probe, const struct probe_target *target)
{
    static const char step[] = "our certificate";
    const char *key = "";
    ERR_clear_error();
    SSL_CTX *context = make_context(target, &key);
    X509 *certificate = context != NULL ? SSL_CTX_get0_certificate(context) : NULL;
    if (certificate == NULL) {
        probe_say(probe, step, PROBE_BAD,
                  "PEM files are wanted, the key without a passphrase and that of the certificate",
                  "%s cannot be used: %s", key, openssl_words());
        SSL_CTX_free(context);
        return false;
    }
    auto_buffer struct buffer text = {.max = WORDS};
    int64_t days = probe_describe_certificate(certificate, &text);
    bool early = X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0;
    const char *words = buffer_text(&text);
    probe_say(probe, step,
              days < 0 || early          ? PROBE_BAD
              : days < PROBE_EXPIRY_DAYS ? PROBE_WARN
                                         : PROBE_GOOD,
              early      ? "is this machine's clock right? timedatectl shows it"
              : days < 0 ? "get a new certificate for this gateway and put it into cert_file"
              : days < PROBE_EXPIRY_DAYS
                  ? "it ends soon: get a new one in time and put it into cert_file"
                  : NULL,
              "%s", words != NULL ? words : "");
    SSL_CTX_free(context);
    return true;
}
