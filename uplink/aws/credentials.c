#include "uplink/aws/credentials.h"

#include "gateway/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>

int aws_source_parse(const char *text, enum aws_source *ret_source, const char **ret_rest)
{
    static const struct {
        const char *prefix;
        enum aws_source source;
    } sources[] = {
        {"file:", AWS_FROM_FILE}, {"env:", AWS_FROM_ENVIRONMENT}, {"iot:", AWS_FROM_IOT}};
    for (size_t i = 0; i < ARRAY_SIZE(sources); i++) {
        size_t len = strlen(sources[i].prefix);
        if (strncmp(text, sources[i].prefix, len) == 0) {
            bool wants_more = sources[i].source != AWS_FROM_ENVIRONMENT;
            if ((text[len] != '\0') != wants_more) {
                return -EINVAL;
            }
            *ret_source = sources[i].source;
            *ret_rest = text + len;
            return 0;
        }
    }
    return -EINVAL;
}

__attribute__((format(printf, 2, 3))) static int fail(char *words, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(words, AWS_WORDS_MAX, format, arguments);
    va_end(arguments);
    return -EINVAL;
}

struct text {
    const char *at;
    size_t len;
};

static struct text trim(const char *at, const char *end)
{
    while (at < end && (unsigned char)*at <= ' ') {
        at++;
    }
    while (end > at && (unsigned char)end[-1] <= ' ') {
        end--;
    }
    return (struct text){at, (size_t)(end - at)};
}

static bool is_word(struct text text, const char *word)
{
    return text.len == strlen(word) && memcmp(text.at, word, text.len) == 0;
}

static int keep(struct text value, const char *name, char *to, size_t size, char *words)
{
    if (value.len >= size || memchr(value.at, '\0', value.len) != NULL) {
        return fail(words, "%s is too long, or no text", name);
    }
    memcpy(to, value.at, value.len);
    to[value.len] = '\0';
    return 0;
}

static int take_key(struct text name, struct text value, struct aws_credentials *c, char *words)
{
    if (is_word(name, "aws_access_key_id")) {
        return keep(value, "aws_access_key_id", c->access_key, sizeof c->access_key, words);
    }
    if (is_word(name, "aws_secret_access_key")) {
        return keep(value, "aws_secret_access_key", c->secret_key, sizeof c->secret_key, words);
    }
    if (is_word(name, "aws_session_token")) {
        return keep(value, "aws_session_token", c->session_token, sizeof c->session_token, words);
    }
    return 0;
}

static int complete(const struct aws_credentials *c, char *words)
{
    if (c->access_key[0] == '\0' || c->secret_key[0] == '\0') {
        return fail(words, "%s is missing",
                    c->access_key[0] == '\0' ? "the access key id" : "the secret access key");
    }
    return 0;
}

/* Keys of [default]; those of a file with one other section only, too. */
int aws_credentials_parse_ini(const char *text, size_t len, struct aws_credentials *ret_credentials,
                              char words[AWS_WORDS_MAX])
{
    struct aws_credentials c = {0};
    bool wanted = true, in_default = false;
    const char *end = text + len;
    for (const char *at = text, *next; at < end; at = next) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        next = stop != NULL ? stop + 1 : end;
        struct text line = trim(at, stop != NULL ? stop : end);
        if (line.len == 0 || *line.at == '#' || *line.at == ';') {
            continue;
        }
        if (*line.at == '[') {
            bool is_default = is_word(line, "[default]");
            if (is_default) {
                explicit_bzero(&c, sizeof c);
            }
            wanted = is_default || (!in_default && c.access_key[0] == '\0');
            in_default |= is_default;
            continue;
        }
        const char *equals = memchr(line.at, '=', line.len);
        if (equals == NULL) {
            return fail(words, "a line is no 'key = value'");
        }
        struct text name = trim(line.at, equals), value = trim(equals + 1, line.at + line.len);
        int r = wanted ? take_key(name, value, &c, words) : 0;
        if (r < 0) {
            return r;
        }
    }
    int r = complete(&c, words);
    if (r == 0) {
        *ret_credentials = c;
    }
    explicit_bzero(&c, sizeof c);
    return r;
}

static int take_member(const json_t *from, const char *name, char *to, size_t size, char *words)
{
    const char *text = json_string_value(json_object_get(from, name));
    if (text == NULL || text[0] == '\0') {
        return fail(words, "the credential provider's answer holds no %s", name);
    }
    return keep((struct text){text, strlen(text)}, name, to, size, words);
}

int aws_credentials_parse_iot(const char *text, size_t len, struct aws_credentials *ret_credentials,
                              char words[AWS_WORDS_MAX])
{
    struct aws_credentials c = {0};
    json_t *root = json_loadb(text, len, 0, NULL);
    const json_t *from = json_object_get(root, "credentials");
    const char *expiration = json_string_value(json_object_get(from, "expiration"));
    int r = take_member(from, "accessKeyId", c.access_key, sizeof c.access_key, words);
    r = r < 0 ? r : take_member(from, "secretAccessKey", c.secret_key, sizeof c.secret_key, words);
    r = r < 0 ? r
              : take_member(from, "sessionToken", c.session_token, sizeof c.session_token, words);
    if (r == 0 && (expiration == NULL || clock_parse_utc(expiration, &c.expires_ms) < 0)) {
        r = fail(words, "the credential provider's answer holds no expiration");
    }
    if (r == 0) {
        *ret_credentials = c;
    }
    explicit_bzero(&c, sizeof c);
    json_decref(root);
    return r;
}

static int load_file(const char *path, struct aws_credentials *ret, char *words)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) < 0) {
        int r = -errno;
        fail(words, "%.80s: %s", path, strerror(errno));
        return r;
    }
    if ((status.st_mode & 077) != 0) {
        return fail(words, "%.80s may be read by others: chmod 600 it", path);
    }
    char *text = malloc(AWS_FILE_MAX);
    if (text == NULL) {
        return -ENOMEM;
    }
    ssize_t n = read(fd, text, AWS_FILE_MAX);
    char why[AWS_WORDS_MAX] = "cannot be read";
    int r = n < 0               ? -errno
            : n == AWS_FILE_MAX ? fail(why, "is too large")
                                : aws_credentials_parse_ini(text, (size_t)n, ret, why);
    explicit_bzero(text, AWS_FILE_MAX);
    free(text);
    if (r < 0) {
        fail(words, "%.80s: %.60s", path, why);
    }
    return r;
}

static int load_environment(struct aws_credentials *ret, char *words)
{
    struct aws_credentials c = {0};
    const char *access = getenv("AWS_ACCESS_KEY_ID"), *secret = getenv("AWS_SECRET_ACCESS_KEY"),
               *token = getenv("AWS_SESSION_TOKEN");
    if (access == NULL || secret == NULL) {
        return fail(words, "%s is not in the environment",
                    access == NULL ? "AWS_ACCESS_KEY_ID" : "AWS_SECRET_ACCESS_KEY");
    }
    int r = keep((struct text){access, strlen(access)}, "AWS_ACCESS_KEY_ID", c.access_key,
                 sizeof c.access_key, words);
    r = r < 0 ? r
              : keep((struct text){secret, strlen(secret)}, "AWS_SECRET_ACCESS_KEY", c.secret_key,
                     sizeof c.secret_key, words);
    if (r == 0 && token != NULL) {
        r = keep((struct text){token, strlen(token)}, "AWS_SESSION_TOKEN", c.session_token,
                 sizeof c.session_token, words);
    }
    r = r < 0 ? r : complete(&c, words);
    if (r == 0) {
        *ret = c;
    }
    explicit_bzero(&c, sizeof c);
    return r;
}

int aws_credentials_load(enum aws_source source, const char *path,
                         struct aws_credentials *ret_credentials, char words[AWS_WORDS_MAX])
{
    return source == AWS_FROM_FILE ? load_file(path, ret_credentials, words)
                                   : load_environment(ret_credentials, words);
}
