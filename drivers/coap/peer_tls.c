#include "drivers/coap/peer_tls.h"

#include "drivers/modbus/resolver.h"

#include <openssl/x509v3.h>
#include <string.h>

static bool is_numeric(const char *host)
{
    struct sockaddr_storage address;
    socklen_t len;
    return resolver_numeric(host, 0, &address, &len) == 0;
}

coap_session_t *peer_tls_open_psk(coap_context_t *context, const coap_address_t *address,
                                  struct target *target, const char *identity, const uint8_t *key,
                                  size_t key_len)
{
    coap_dtls_cpsk_t setup = {
        .version = COAP_DTLS_CPSK_SETUP_VERSION,
        .client_sni = is_numeric(target->host) ? NULL : target->host,
        .psk_info = {.identity = {strlen(identity), (const uint8_t *)identity},
                     .key = {key_len, key}},
    };
    return coap_new_client_session_psk2(context, NULL, address, COAP_PROTO_DTLS, &setup);
}

/* libcoap checks the chain and the dates; whose certificate it is we look at ourselves, because it
 * hands over one name only, however many the certificate has. */
static int check_name(const char *cn, const uint8_t *certificate, size_t len,
                      coap_session_t *session, unsigned depth, int validated, void *user)
{
    const struct target *target = user;
    (void)cn;
    (void)session;
    if (!validated || depth > 0) {
        return validated;
    }
    X509 *x509 = d2i_X509(NULL, &certificate, (long)len);
    if (x509 == NULL) {
        return 0;
    }
    int fine = is_numeric(target->host)
                   ? X509_check_ip_asc(x509, target->host, 0)
                   : X509_check_host(x509, target->host, 0, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS,
                                     NULL);
    X509_free(x509);
    return fine == 1;
}

coap_session_t *peer_tls_open_pki(coap_context_t *context, const coap_address_t *address,
                                  struct target *target, const struct coap_settings *settings)
{
    coap_dtls_pki_t setup = {
        .version = COAP_DTLS_PKI_SETUP_VERSION,
        .verify_peer_cert = 1,
        .check_common_ca = 1, /* in 4.3.1 ca_file is not even read without it */
        .cert_chain_validation = 1,
        .cert_chain_verify_depth = 4,
        .validate_cn_call_back = check_name,
        .cn_call_back_arg = target,
        .client_sni = is_numeric(target->host) ? NULL : target->host,
        .pki_key = {.key_type = COAP_PKI_KEY_PEM,
                    .key.pem = {.ca_file = settings->ca_file,
                                .public_cert = settings->cert_file,
                                .private_key = settings->key_file}},
    };
    return coap_new_client_session_pki(context, NULL, address, COAP_PROTO_DTLS, &setup);
}
