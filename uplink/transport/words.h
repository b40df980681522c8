/* words.h - why a request found no answer, in words that tell a technician what to look at.
 *
 * Pure apart from reading what a finished curl handle knows; the transport's thread. */
#pragma once

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>

enum { WORDS_MAX = 200 };

/* Of a request that ended with `code`; detail is the handle's CURLOPT_ERRORBUFFER. */
void transport_words(CURL *easy, CURLcode code, const char *detail, char text[WORDS_MAX]);

/* The same where it was the proxy on the way that failed or refused; false: it was not. */
bool transport_proxy_words(CURL *easy, CURLcode code, const char *proxy, char text[WORDS_MAX]);

/* The same for what OpenSSL said while it checked a certificate (X509_V_ERR_*); NULL when the code
 * has no better words than its own. */
const char *transport_certificate_words(long verify_result);
