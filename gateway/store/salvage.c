#include "gateway/store/salvage.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/store/lanes.h"
#include "gateway/store/salvage_work.h"
#include "gateway/store/store_clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum {
    READ_BYTES = 256 * 1024,
    RETRY_MS = 10000,
    SPLIT_MS = 30000,
    NOTE_SIZE = 2 * SALVAGE_NAME_MAX
};
static const char aside[] = "store.damaged-", marker[] = "salvaged";
static const char *const keys[SALVAGE_KEYS] = {"part",     "number",  "leaf",   "row",  "state",
                                               "readings", "blocks",  "bad",    "lost", "tries",
                                               "mixed",    "records", "letters"};

const char *salvage_state_name(int state)
{
    static const char *const names[] = {"none", "running", "done", "given up"};
    return state >= 0 && (size_t)state < ARRAY_SIZE(names) ? names[state] : "?";
}

static void note_name(const char *key, const char *from, char name[NOTE_SIZE])
{
    snprintf(name, NOTE_SIZE, "salvage.%s %s", key, from);
}

int64_t salvage_noted(const struct state *state, enum salvage_key key, const char *from)
{
    char name[NOTE_SIZE];
    note_name(keys[key], from, name);
    const struct state_note *note = state_note(state, name);
    return note == NULL ? 0 : note->value;
}

const char *salvage_about(const struct state_note *note, enum salvage_key key)
{
    char begin[NOTE_SIZE];
    note_name(keys[key], "", begin);
    size_t len = strlen(begin);
    bool is = strncmp(note->name, begin, len) == 0 && strlen(note->name + len) < SALVAGE_NAME_MAX;
    return is ? note->name + len : NULL;
}

void salvage_of_state(const struct state *state, struct store_salvage *ret_salvage)
{
    struct store_salvage salvage = {.state = SALVAGE_NONE};
    for (size_t i = 0; i < state->note_count; i++) {
        const char *from = salvage_about(&state->notes[i], SALVAGE_STATE);
        if (from != NULL && strcmp(from, salvage.from) > 0) {
            snprintf(salvage.from, sizeof(salvage.from), "%s", from);
        }
    }
    if (salvage.from[0] != '\0') {
        salvage.state = (int)salvage_noted(state, SALVAGE_STATE, salvage.from);
        salvage.readings = (uint64_t)salvage_noted(state, SALVAGE_READINGS, salvage.from);
        salvage.lost = (uint64_t)salvage_noted(state, SALVAGE_LOST, salvage.from);
        salvage.blocks = (uint64_t)salvage_noted(state, SALVAGE_BLOCKS, salvage.from);
        salvage.bad = (uint64_t)salvage_noted(state, SALVAGE_BAD, salvage.from);
        salvage.letters = (uint64_t)salvage_noted(state, SALVAGE_DEAD, salvage.from);
    }
    *ret_salvage = salvage;
}

void salvage_load(struct store *store)
{
    int64_t mixed_ms = 0;
    for (size_t i = 0; i < store->state.note_count; i++) {
        const struct state_note *note = &store->state.notes[i];
        if (salvage_about(note, SALVAGE_MIXED) != NULL && note->value > mixed_ms) {
            mixed_ms = note->value;
        }
    }
    store->mixed_until_ms = mixed_ms;
    if (!store->readonly) {
        salvage_weigh(store);
    }
    salvage_of_state(&store->state, &store->salvage_shown);
}

void store_salvage(struct store *store, struct store_salvage *ret_salvage)
{
    struct state read = {0};
    bool fresh = store->readonly && store_read_state(store, &read) == 0;
    store_lock(store);
    if (fresh) {
        salvage_of_state(&read, &store->salvage_shown);
    }
    *ret_salvage = store->salvage_shown;
    store_unlock(store);
    state_finish(&read);
}

/* What was changed since the last time. */
void salvage_note(struct store *store)
{
    struct salvage *s = store->salvage;
    bool weigh = s != NULL && s->now[SALVAGE_RECORDS] != s->noted[SALVAGE_RECORDS];
    for (int k = 0; s != NULL && s->from[0] != '\0' && k < SALVAGE_KEYS; k++) {
        char name[NOTE_SIZE];
        note_name(keys[k], s->from, name);
        if (s->now[k] != s->noted[k]) {
            store_set_note(store, name, s->now[k]);
            s->noted[k] = s->now[k];
        }
    }
    if (weigh) {
        salvage_weigh(store);
    }
    salvage_date(store);
}

void salvage_refused(struct store *store)
{
    struct salvage *s = store->salvage;
    bool appended = s != NULL && s->now[SALVAGE_READINGS] != s->durable[SALVAGE_READINGS];
    if (!appended) {
        return;
    }
    memcpy(s->now, s->durable, sizeof(s->now));
    s->refused = true;
    buffer_clear(&s->graves);
    for (int k = 0; k < SALVAGE_KEYS; k++) {
        char name[NOTE_SIZE];
        note_name(keys[k], s->from, name);
        if (s->now[k] == s->noted[k] || state_set_note(&store->state, name, s->now[k]) == 0) {
            s->noted[k] = s->now[k]; /* it was there: no room was needed */
        }
    }
}

/* What comes back is old, however new its block is: what waits then is backfill to the readers, so
 * that the live lane goes on with what is read now. */
static void tell_readers(struct salvage *s)
{
    int64_t now_ms = clock_mono_ms();
    bool done = s->noted[SALVAGE_STATE] >= SALVAGE_DONE;
    if (s->noted[SALVAGE_READINGS] == s->durable[SALVAGE_READINGS] && !done) {
        return;
    }
    if (done || now_ms - s->split_ms >= SPLIT_MS) {
        s->split_ms = now_ms;
        for (unsigned u = 0; u < STORE_UPLINKS_MAX; u++) {
            if (s->store->readers[u] != NULL) {
                s->store->readers[u]->split_due = true;
            }
        }
    }
}

void salvage_publish(struct store *store)
{
    struct salvage *s = store->salvage;
    if (s == NULL || s->from[0] == '\0') {
        return;
    }
    tell_readers(s);
    memcpy(s->durable, s->noted, sizeof(s->durable));
    salvage_of_state(&store->state, &store->salvage_shown);
    if (s->durable[SALVAGE_MIXED] > store->mixed_until_ms) {
        store->mixed_until_ms = s->durable[SALVAGE_MIXED];
    }
}

bool salvage_is_marked(const char *dir, const char *name)
{
    char path[4096 + SALVAGE_NAME_MAX + sizeof(marker) + 2];
    snprintf(path, sizeof(path), "%s/%s/%s", dir, name, marker);
    return access(path, F_OK) == 0;
}

/* So that the next store does not begin with it again. */
static void mark(const struct store *store, const char *folder)
{
    char path[4096 + SALVAGE_NAME_MAX + sizeof(marker) + 2];
    snprintf(path, sizeof(path), "%s/%s/%s", store->dir, folder, marker);
    auto_close int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
    char text[200];
    int len = snprintf(text, sizeof(text), "%lld readings went to store %s, %lld are lost\n",
                       (long long)salvage_noted(&store->state, SALVAGE_READINGS, folder),
                       store->state.id,
                       (long long)salvage_noted(&store->state, SALVAGE_LOST, folder));
    if (fd < 0 || write(fd, text, (size_t)len) != len || fsync(fd) < 0) {
        log_warning("store: %s cannot be made: %s", path, strerror(errno));
    }
}

static int is_folder(const struct dirent *entry)
{
    return strncmp(entry->d_name, aside, strlen(aside)) == 0 &&
           strlen(entry->d_name) < SALVAGE_NAME_MAX;
}

int salvage_folders(const char *dir, char ***ret_folders)
{
    struct dirent **entries = NULL;
    int count = scandir(dir, &entries, is_folder, alphasort);
    if (count < 0) {
        return -errno;
    }
    char **folders = calloc((size_t)count + 1, sizeof(char *));
    int rc = folders == NULL ? -ENOMEM : 0;
    for (int i = 0; i < count; i++) {
        if (rc == 0 && (folders[i] = strdup(entries[i]->d_name)) == NULL) {
            rc = -ENOMEM;
        }
        free(entries[i]);
    }
    free(entries);
    if (rc < 0) {
        salvage_folders_free(folders);
        return rc;
    }
    *ret_folders = folders;
    return 0;
}

void salvage_folders_free(char **folders)
{
    for (size_t i = 0; folders != NULL && folders[i] != NULL; i++) {
        free(folders[i]);
    }
    free(folders);
}

/* The last one that was set aside and is not done; false: none. */
static bool find_folder(const struct store *store, char ret_from[SALVAGE_NAME_MAX])
{
    char **folders = NULL;
    ret_from[0] = '\0';
    int rc = salvage_folders(store->dir, &folders);
    for (size_t i = 0; rc == 0 && folders != NULL && folders[i] != NULL; i++) {
        int64_t state = salvage_noted(&store->state, SALVAGE_STATE, folders[i]);
        if (salvage_is_marked(store->dir, folders[i])) {
            continue;
        }
        if (state == SALVAGE_DONE) {
            mark(store, folders[i]); /* a power cut came between the commit and the mark */
        } else if (state < SALVAGE_DONE) {
            snprintf(ret_from, SALVAGE_NAME_MAX, "%s", folders[i]);
        }
    }
    salvage_folders_free(folders);
    return ret_from[0] != '\0';
}

static void crash_key(unsigned i, char key[16])
{
    snprintf(key, 16, "crash%u", i);
}

static void load_progress(struct salvage *s)
{
    struct store *store = s->store;
    for (int k = 0; k < SALVAGE_KEYS; k++) {
        s->now[k] = s->durable[k] = s->noted[k] = salvage_noted(&store->state, (enum salvage_key)k,
                                                                s->from);
    }
    s->order = (struct salvage_order){.file = s->file};
    for (unsigned i = 0; i < SALVAGE_CRASHES_MAX; i++) {
        char key[16], name[NOTE_SIZE];
        crash_key(i, key);
        note_name(key, s->from, name);
        const struct state_note *note = state_note(&store->state, name);
        if (note != NULL) {
            s->order.crashes[s->order.crash_count++] = (uint64_t)note->value;
        }
    }
}

/* The next folder, or none. */
static void choose(struct salvage *s)
{
    salvage_forget(s);
    if (!find_folder(s->store, s->from)) {
        return;
    }
    snprintf(s->file, sizeof(s->file), "%s/%s/data.mdb", s->store->dir, s->from);
    load_progress(s);
    log_info("store: what is readable of %s is being salvaged", s->from);
    s->now[SALVAGE_STATE] = SALVAGE_RUNNING;
    s->wait_ms = 0;
    s->refused = false;
    s->store->counted = true;
}

int store_salvage_start(struct store *store, const struct salvage_takers *takers)
{
    if (store->readonly || store->salvage != NULL) {
        return store->readonly ? -EROFS : 0;
    }
    struct salvage *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return -ENOMEM;
    }
    *s = (struct salvage){.store = store,
                          .takers = takers != NULL ? *takers : (struct salvage_takers){0},
                          .step_bytes = SALVAGE_STEP_BYTES,
                          .child = {.fd = -1}};
    s->input.max = FRAME_BYTES_MAX + 2 * READ_BYTES;
    s->graves.max = 2 * FRAME_BYTES_MAX;
    store->salvage = s;
    choose(s);
    return 0;
}

void salvage_stop(struct store *store)
{
    struct salvage *s = store->salvage;
    if (s != NULL) {
        (void)child_finish(&s->child, true);
        salvage_forget(s);
        buffer_finish(&s->graves);
        free(s);
        store->salvage = NULL;
    }
}

bool store_salvage_busy(const struct store *store)
{
    return store->salvage != NULL && store->salvage->from[0] != '\0';
}

static void give_up(struct salvage *s, const char *why)
{
    log_error("store: salvage of %s is given up: %s; %lld readings came back", s->from, why,
              (long long)s->now[SALVAGE_READINGS]);
    s->now[SALVAGE_STATE] = SALVAGE_GIVEN_UP;
    if (s->now[SALVAGE_RECORDS] == RECORDS_SOUGHT) {
        s->now[SALVAGE_RECORDS] = RECORDS_MISSING;
    }
    s->store->counted = true;
}

/* The block that the child was at is not touched again; one that has given its scans already was
 * decoded, and is not to blame. */
static void blame(struct salvage *s)
{
    char key[16], name[NOTE_SIZE];
    uint64_t leaf = s->working.leaf;
    bool again = false;
    if (leaf != 0 && leaf == (uint64_t)s->now[SALVAGE_LEAF]) {
        return;
    }
    for (unsigned i = 0; i < s->order.crash_count; i++) {
        again |= s->order.crashes[i] == leaf;
    }
    if (again || s->order.crash_count == SALVAGE_CRASHES_MAX) {
        give_up(s, again ? "it crashes whoever reads it" : "too many blocks crash their reader");
        return;
    }
    log_warning("store: a block of %s crashed its reader and is passed over", s->from);
    crash_key(s->order.crash_count, key);
    note_name(key, s->from, name);
    store_set_note(s->store, name, (int64_t)leaf);
    s->order.crashes[s->order.crash_count++] = leaf;
}

static void end_child(struct salvage *s, bool kill, bool hung)
{
    enum child_end end = child_finish(&s->child, kill);
    if (s->ended) {
        return;
    }
    if (end == CHILD_CRASHED || hung) {
        blame(s);
    } else {
        s->wait_ms = clock_mono_ms() + RETRY_MS;
    }
    if (s->now[SALVAGE_STATE] == SALVAGE_RUNNING && s->now[SALVAGE_TRIES] >= SALVAGE_TRIES_MAX) {
        give_up(s, "it cannot be read");
    }
    salvage_forget(s);
}

static int start_child(struct salvage *s)
{
    salvage_forget(s);
    s->now[SALVAGE_TRIES]++;
    s->store->counted = true;
    s->order.from = (struct salvage_place){
        (uint64_t)s->now[SALVAGE_PART], (uint64_t)s->now[SALVAGE_NUMBER],
        (uint64_t)s->now[SALVAGE_LEAF], (uint64_t)s->now[SALVAGE_ROW]};
    s->order.records_done = s->now[SALVAGE_RECORDS] != RECORDS_SOUGHT;
    s->order.kept_since_ms = store_now_ms(s->store) - s->store->settings.keep_ms;
    int rc = child_start(&s->child, SALVAGE_MEMORY_MAX, salvage_child, &s->order);
    if (rc < 0) {
        s->wait_ms = clock_mono_ms() + RETRY_MS;
    }
    return rc;
}

/* More of what the child has sent. 0: there is some. */
static int fetch(struct salvage *s)
{
    if (s->at > 0) {
        memmove(s->input.data, s->input.data + s->at, s->input.len - s->at);
        s->input.len -= s->at;
        s->at = 0;
    }
    ssize_t n = child_read(&s->child, READ_BYTES, &s->input);
    if (n == -EPIPE || n == -ETIMEDOUT) {
        end_child(s, n == -ETIMEDOUT, n == -ETIMEDOUT);
    }
    s->input.failed = false;
    return n > 0 ? 0 : n == 0 ? -EAGAIN : (int)n;
}

static int take_some(struct salvage *s)
{
    int64_t until_ms = clock_mono_ms() + SALVAGE_STEP_MS;
    size_t bytes = 0;
    int rc = 0;
    while (rc == 0 && !s->ended && bytes < s->step_bytes && clock_mono_ms() < until_ms) {
        rc = salvage_take(s, &bytes);
        if (rc == -EAGAIN) {
            rc = fetch(s);
        }
    }
    if (s->ended || rc == -EBADMSG) {
        end_child(s, true, rc == -EBADMSG);
    }
    return rc == -EIO ? rc : 0;
}

static int finish(struct salvage *s)
{
    if (s->durable[SALVAGE_STATE] == SALVAGE_DONE) {
        log_info("store: %lld readings salvaged from %s; %lld of its blocks were not readable, "
                 "%lld readings are known to be lost",
                 (long long)s->now[SALVAGE_READINGS], s->from, (long long)s->now[SALVAGE_BAD],
                 (long long)s->now[SALVAGE_LOST]);
        mark(s->store, s->from);
    }
    choose(s);
    return 1;
}

int store_salvage_step(struct store *store)
{
    struct salvage *s = store->salvage;
    if (s == NULL || s->from[0] == '\0' || store->failed) {
        return store->failed ? -EIO : 0;
    }
    if (s->durable[SALVAGE_STATE] >= SALVAGE_DONE) {
        return finish(s);
    }
    if (s->now[SALVAGE_STATE] >= SALVAGE_DONE) {
        return 0; /* with the commit that comes */
    }
    if (s->refused) {
        (void)child_finish(&s->child, true);
        salvage_forget(s);
        s->refused = false;
        s->wait_ms = clock_mono_ms() + RETRY_MS;
    }
    if (store->full || clock_mono_ms() < s->wait_ms) {
        return 0;
    }
    if (s->child.pid == 0 && start_child(s) < 0) {
        return 0;
    }
    return take_some(s);
}
