#include "uplink/sink/sink_tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

static int complain(char ret_error[SINK_ERROR_SIZE], const char *what, const char *path)
{
    char words[160] = "unknown";
    unsigned long code = ERR_peek_last_error();
    if (code != 0) {
        ERR_error_string_n(code, words, sizeof words);
    }
    ERR_clear_error();
    snprintf(ret_error, SINK_ERROR_SIZE, "%s %.80s: %.100s", what, path, words);
    return -EINVAL;
}

static int load_files(SSL_CTX *context, const struct sink_options *options,
                      char ret_error[SINK_ERROR_SIZE])
{
    if (SSL_CTX_use_certificate_chain_file(context, options->cert) != 1) {
        return complain(ret_error, "certificate", options->cert);
    }
    if (SSL_CTX_use_PrivateKey_file(context, options->key, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(context) != 1) {
        return complain(ret_error, "key", options->key);
    }
    if (options->client_ca == NULL) {
        return 0;
    }
    if (SSL_CTX_load_verify_file(context, options->client_ca) != 1) {
        return complain(ret_error, "client CA", options->client_ca);
    }
    /* The names tell a client which of its certificates to send. */
    SSL_CTX_set_client_CA_list(context, SSL_load_client_CA_file(options->client_ca));
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return 0;
}

int sink_tls_create(const struct sink_options *options, struct ssl_ctx_st **ret_context,
                    char ret_error[SINK_ERROR_SIZE])
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (context == NULL) {
        return -ENOMEM;
    }
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    /* Idle connections keep no buffers: hundreds of gateways cost little. */
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    static const unsigned char session_id[] = "windrow-sink";
    SSL_CTX_set_session_id_context(context, session_id, sizeof session_id - 1);
    int r = load_files(context, options, ret_error);
    if (r < 0) {
        SSL_CTX_free(context);
        return r;
    }
    *ret_context = context;
    return 0;
}
