#include "uplink/sink/sink_tokens.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

struct token {
    enum sink_right right;
    char text[SINK_TOKEN_MAX + 1];
};

struct sink_tokens {
    size_t count;
    struct token tokens[SINK_TOKENS_MAX];
};

void sink_tokens_destroy(struct sink_tokens *tokens)
{
    free(tokens);
}

/* One line, cut in place; empty lines and comments are fine. */
static int parse_line(char *line, struct sink_tokens *tokens)
{
    char *rest = line;
    char *words[4] = {NULL};
    size_t count = 0;
    for (char *word; count < 4 && (word = strsep(&rest, " \t\r\n")) != NULL;) {
        if (*word != '\0') {
            words[count++] = word;
        }
    }
    if (count == 0 || words[0][0] == '#') {
        return 0;
    }
    if (count != 3 || strlen(words[2]) > SINK_TOKEN_MAX || tokens->count >= SINK_TOKENS_MAX) {
        return -EINVAL;
    }
    struct token *token = &tokens->tokens[tokens->count];
    if (strcmp(words[1], "read") == 0) {
        token->right = SINK_RIGHT_READ;
    } else if (strcmp(words[1], "write") == 0) {
        token->right = SINK_RIGHT_WRITE;
    } else {
        return -EINVAL;
    }
    memcpy(token->text, words[2], strlen(words[2]) + 1);
    tokens->count++;
    return 0;
}

int sink_tokens_load(const char *path, struct sink_tokens **ret_tokens, size_t *ret_line)
{
    auto_fclose FILE *file = fopen(path, "re");
    struct stat status;
    *ret_line = 0;
    if (file == NULL || fstat(fileno(file), &status) < 0) {
        return -errno;
    }
    if ((status.st_mode & 077) != 0) {
        return -EPERM;
    }
    struct sink_tokens *tokens = calloc(1, sizeof *tokens);
    if (tokens == NULL) {
        return -ENOMEM;
    }
    char line[1024];
    int r = 0;
    while (r == 0 && fgets(line, sizeof line, file) != NULL) {
        (*ret_line)++;
        r = parse_line(line, tokens);
    }
    if (r < 0) {
        sink_tokens_destroy(tokens);
        return r;
    }
    *ret_tokens = tokens;
    return 0;
}

enum sink_right sink_tokens_right(const struct sink_tokens *tokens, const char *authorization)
{
    if (authorization == NULL || strncasecmp(authorization, "Bearer ", 7) != 0) {
        return SINK_RIGHT_NONE;
    }
    const char *given = authorization + 7;
    size_t len = strlen(given);
    enum sink_right right = SINK_RIGHT_NONE;
    for (size_t i = 0; i < tokens->count; i++) {
        const struct token *token = &tokens->tokens[i];
        if (strlen(token->text) == len && CRYPTO_memcmp(token->text, given, len) == 0) {
            right = token->right;
        }
    }
    return right;
}
