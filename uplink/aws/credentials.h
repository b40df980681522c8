/* credentials.h - the keys that requests to AWS are signed with, and where they come from.
 *
 * `file:PATH` an INI file in the form of ~/.aws/credentials, mode 0600, section [default] (or the
 * only one); `env:` AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN; `iot:URL` the IoT
 * credential provider, asked over mutual TLS by aws_transport.c. The parsers are pure; reading a
 * file blocks on the disk. Keys are never printed. */
#pragma once

#include "gateway/base/cleanup.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { AWS_KEY_MAX = 256, AWS_TOKEN_MAX = 8192, AWS_FILE_MAX = 64 * 1024, AWS_WORDS_MAX = 160 };

struct aws_credentials {
    char access_key[AWS_KEY_MAX], secret_key[AWS_KEY_MAX];
    char session_token[AWS_TOKEN_MAX]; /* "": none */
    int64_t expires_ms;                /* UTC, 0: never */
};

enum aws_source { AWS_FROM_FILE, AWS_FROM_ENVIRONMENT, AWS_FROM_IOT };

/* What `credentials =` says; ret_rest points into text: the path or the URL. -EINVAL. */
must_check int aws_source_parse(const char *text, enum aws_source *ret_source,
                                const char **ret_rest);

/* All three fill `words` with what is wrong, for status and log, and then return -EINVAL (or the
 * -errno of the file). Parsing does not change its text. */
must_check int aws_credentials_parse_ini(const char *text, size_t len,
                                         struct aws_credentials *ret_credentials,
                                         char words[AWS_WORDS_MAX]);
/* {"credentials":{"accessKeyId","secretAccessKey","sessionToken","expiration"}} */
must_check int aws_credentials_parse_iot(const char *text, size_t len,
                                         struct aws_credentials *ret_credentials,
                                         char words[AWS_WORDS_MAX]);
/* From file or environment. */
must_check int aws_credentials_load(enum aws_source source, const char *path,
                                    struct aws_credentials *ret_credentials,
                                    char words[AWS_WORDS_MAX]);
