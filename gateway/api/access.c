#include "gateway/api/access.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <string.h>

struct token {
    char name[65];
    uint8_t hash[SHA256_DIGEST_LENGTH];
    bool write;
};

struct access {
    struct token tokens[ACCESS_TOKENS_MAX];
    size_t token_count;
    bool tokens_needed, allow_writes;
    bool check_host;
    char gateway_name[64], listen_host[128];
};

static void copy_host(const char *listen, char *text, size_t size)
{
    const char *colon = strrchr(listen, ':');
    size_t len = colon != NULL ? (size_t)(colon - listen) : strlen(listen);
    snprintf(text, size, "%.*s", (int)len, listen);
}

static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "[::1]") == 0 ||
           strcmp(host, "localhost") == 0;
}

/* One line "NAME read|write TOKEN"; empty ones and comments are passed over. */
static int take_line(struct access *access, const char *line, size_t len, const char **ret_why)
{
    char copy[64 + 8 + ACCESS_TOKEN_LEN_MAX + 8], name[65], role[9],
        token[ACCESS_TOKEN_LEN_MAX + 1], rest[2];
    if (len >= sizeof copy) {
        *ret_why = "the line is too long";
        return -EINVAL;
    }
    memcpy(copy, line, len);
    copy[len] = '\0';
    int words = sscanf(copy, "%64s %8s %256s %1s", name, role, token, rest);
    if (words <= 0 || name[0] == '#' || name[0] == ';') {
        return 0;
    }
    bool write = words > 1 && strcmp(role, "write") == 0;
    if (words != 3 || (!write && strcmp(role, "read") != 0)) {
        *ret_why = "a line is NAME read|write TOKEN";
        return -EINVAL;
    }
    if (strlen(token) < ACCESS_TOKEN_LEN_MIN) {
        *ret_why = "a token has at least 16 characters (`openssl rand -hex 24` makes one)";
        return -EINVAL;
    }
    if (access->token_count == ACCESS_TOKENS_MAX) {
        *ret_why = "there are more than 64 tokens";
        return -EINVAL;
    }
    struct token *t = &access->tokens[access->token_count++];
    t->write = write;
    memcpy(t->name, name, sizeof name);
    SHA256((const uint8_t *)token, strlen(token), t->hash);
    OPENSSL_cleanse(token, sizeof token);
    OPENSSL_cleanse(copy, sizeof copy);
    return 0;
}

static int take_tokens(struct access *access, const char *text, char *ret_why, size_t why_size)
{
    unsigned number = 1;
    for (const char *at = text; *at != '\0'; number++) {
        size_t len = strcspn(at, "\n");
        const char *why = "";
        int r = take_line(access, at, len, &why);
        if (r < 0) {
            snprintf(ret_why, why_size, "tokens_file, line %u: %s", number, why);
            return r;
        }
        at += len + (at[len] == '\n' ? 1 : 0);
    }
    return 0;
}

int access_create(const struct api_settings *settings, const char *gateway_name,
                  struct access **ret_access, char *ret_why, size_t why_size)
{
    struct access *access = calloc(1, sizeof *access);
    if (access == NULL) {
        snprintf(ret_why, why_size, "out of memory");
        return -ENOMEM;
    }
    snprintf(access->gateway_name, sizeof access->gateway_name, "%s", gateway_name);
    if (settings->listen != NULL) {
        copy_host(settings->listen, access->listen_host, sizeof access->listen_host);
    }
    access->allow_writes = settings->allow_writes;
    access->check_host = is_loopback(access->listen_host);
    access->tokens_needed = settings->tokens.text != NULL || !access->check_host;
    int r = settings->tokens.text == NULL
                ? 0
                : take_tokens(access, settings->tokens.text, ret_why, why_size);
    if (r < 0) {
        access_destroy(access);
        return r;
    }
    *ret_access = access;
    return 0;
}

void access_destroy(struct access *access)
{
    if (access != NULL) {
        OPENSSL_cleanse(access, sizeof *access);
        free(access);
    }
}

/* The name in "name", "name:port", "[v6]" or "[v6]:port" is one of ours. */
static bool host_is_ours(const struct access *access, const char *host)
{
    if (host == NULL) {
        return false;
    }
    const char *from = host[0] == '[' ? strchr(host, ']') : host;
    const char *colon = from != NULL ? strchr(from, ':') : NULL;
    size_t len = colon != NULL ? (size_t)(colon - host) : strlen(host);
    const char *const names[] = {"localhost", "127.0.0.1", "[::1]", access->gateway_name,
                                 access->listen_host};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (len > 0 && strlen(names[i]) == len && strncasecmp(names[i], host, len) == 0) {
            return true;
        }
    }
    return false;
}

/* Compares with every token, each in constant time: neither the place nor the prefix leaks. */
static const struct token *find_token(const struct access *access, const char *authorization)
{
    static const char scheme[] = "Bearer ";
    if (authorization == NULL || strncasecmp(authorization, scheme, sizeof scheme - 1) != 0) {
        return NULL;
    }
    const char *text = authorization + sizeof scheme - 1;
    uint8_t hash[SHA256_DIGEST_LENGTH];
    SHA256((const uint8_t *)text, strlen(text), hash);
    const struct token *found = NULL;
    for (size_t i = 0; i < access->token_count; i++) {
        bool same = CRYPTO_memcmp(hash, access->tokens[i].hash, sizeof hash) == 0;
        found = same ? &access->tokens[i] : found;
    }
    return found;
}

const char *access_who(const struct access *access, const char *authorization)
{
    const struct token *token = find_token(access, authorization);
    return token != NULL ? token->name : NULL;
}

int access_judge(const struct access *access, const struct access_request *request,
                 const char **ret_why)
{
    if (request->over_socket) {
        return 0;
    }
    if (access->check_host && !host_is_ours(access, request->host)) {
        *ret_why = "the Host header names another machine than this one";
        return 403;
    }
    if (request->open && !request->changes) {
        return 0;
    }
    const struct token *token = find_token(access, request->authorization);
    if (access->tokens_needed && token == NULL) {
        *ret_why = "a token is needed: Authorization: Bearer TOKEN, with one of tokens_file";
        return 401;
    }
    if (request->writes && !access->allow_writes) {
        *ret_why = "points are written over the Unix socket only: [api] allow_writes is no";
        return 403;
    }
    bool by_token = request->pushes || request->writes;
    if (by_token && (token == NULL || !token->write)) {
        *ret_why = token == NULL ? "this is for tokens only: give [api] a tokens_file"
                                 : "this token may only read: one with the role write is needed";
        return 403;
    }
    if (request->changes && !by_token) {
        *ret_why = "only the Unix socket may change anything: use the windrow command";
        return 403;
    }
    return 0;
}
