#include "drivers/coap/target.h"

#include <coap3/coap.h>
#include <errno.h>
#include <string.h>

static int copy(char *to, size_t size, const char *from, size_t len)
{
    if (len >= size || memchr(from, '\0', len) != NULL) {
        return -EINVAL;
    }
    memcpy(to, from, len);
    to[len] = '\0';
    return 0;
}

/* Segments and terms of more than 255 bytes cannot be options (RFC 7252 section 5.10), and what is
 * escaped must be whole. */
static int check_escapes(const char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text <= ' ') {
            return -EINVAL;
        }
        if (*text == '%' && strspn(text + 1, "0123456789abcdefABCDEF") < 2) {
            return -EINVAL;
        }
    }
    return 0;
}

int target_parse_path(const char *text, struct target *target)
{
    text += *text == '/' ? 1 : 0;
    size_t path = strcspn(text, "?#");
    const char *query = text[path] == '?' ? text + path + 1 : "";
    if (text[path] == '#' || strchr(query, '#') != NULL ||
        copy(target->path, sizeof(target->path), text, path) != 0 ||
        copy(target->query, sizeof(target->query), query, strlen(query)) != 0) {
        return -EINVAL;
    }
    return check_escapes(text);
}

int target_parse(const char *text, struct target *ret_target)
{
    struct target target = {0};
    coap_uri_t uri;
    if (coap_split_uri((const uint8_t *)text, strlen(text), &uri) != 0 ||
        (uri.scheme != COAP_URI_SCHEME_COAP && uri.scheme != COAP_URI_SCHEME_COAPS) ||
        uri.host.length == 0 || uri.port == 0) {
        return -EINVAL;
    }
    target.secure = uri.scheme == COAP_URI_SCHEME_COAPS;
    target.port = uri.port;
    if (copy(target.host, sizeof(target.host), (const char *)uri.host.s, uri.host.length) != 0) {
        return -EINVAL;
    }
    const char *authority = strstr(text, "://") + 3;
    int r = target_parse_path(authority + strcspn(authority, "/?"), &target);
    if (r == 0) {
        *ret_target = target;
    }
    return r;
}
