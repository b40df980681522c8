/* access.h - who may ask what.
 *
 * Over the Unix socket anything goes: its file mode is the lock. Over TCP nothing may be changed,
 * but readings may be pushed (and points written, where that is allowed) by who has a token with
 * the role write; where a tokens file is given each request needs one of its tokens; without one
 * only loopback is served, and there the Host header must name this machine, or a web page
 * elsewhere could reach us through a name that it points at 127.0.0.1 (DNS rebinding). Pure after
 * creation; any thread. */
#pragma once

#include "gateway/api/api.h"

struct access;

enum { ACCESS_TOKENS_MAX = 64, ACCESS_TOKEN_LEN_MIN = 16, ACCESS_TOKEN_LEN_MAX = 256 };

/* Takes the tokens and names out of the settings; gateway_name is one more name for the Host
 * header. -EINVAL: the tokens file does not read, ret_why says the line. */
must_check int access_create(const struct api_settings *settings, const char *gateway_name,
                             struct access **ret_access, char *ret_why, size_t why_size);
void access_destroy(struct access *access);

struct access_request {
    bool over_socket;
    bool changes;              /* not GET or HEAD */
    bool pushes;               /* brings readings: a token with the role write will do */
    bool writes;               /* writes a point: the same, where [api] allow_writes says so */
    bool open;                 /* holds no data (the page): needs no token */
    const char *host;          /* the Host header, NULL when absent */
    const char *authorization; /* the Authorization header, NULL when absent */
};

/* The name of the token in an Authorization header, NULL: none of ours. */
const char *access_who(const struct access *access, const char *authorization);

/* 0, or the HTTP status to refuse with (401, 403) and the reason. */
int access_judge(const struct access *access, const struct access_request *request,
                 const char **ret_why);
