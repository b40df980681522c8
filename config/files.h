/* files.h - the files that a configuration names: readable, and closed to others where they must
 * be.
 *
 * One thread at a time, reads the disk. Every file is looked at once a load. */
#pragma once

#include "config/arena.h"
#include "gateway/base/buffer.h"

enum { FILES_SECRET_MAX = 64 * 1024, FILES_HASHED_MAX = 1 << 20 };

struct files {
    struct arena *arena; /* of the texts, those that the config keeps */
    struct vector seen;  /* struct files_entry */
};

struct files_entry {
    const char *path;
    bool exclusive;   /* was checked for mode 0600 or stricter */
    const char *why;  /* NULL: good; otherwise what is wrong */
    const char *text; /* the content without trailing white space; only when `exclusive` */
    uint64_t hash;    /* of the content, up to FILES_HASHED_MAX */
};

/* Never NULL. A value "credential:NAME" means that file of systemd's credentials, whose protection
 * is systemd's; any other path is taken from `folder` when it is relative. */
const struct files_entry *files_look(struct files *files, const char *folder, const char *value,
                                     bool exclusive);
const char *files_path(struct arena *arena, const char *folder, const char *value);
void files_finish(struct files *files);

/* A regular file, at most max bytes, NUL-terminated behind len. -errno; -EFBIG: larger; -EINVAL:
 * no regular file. */
must_check int files_read(const char *path, size_t max, struct buffer *ret_bytes);
