/* write_rig.h - commands over a real store and pipeline; the field is a double that counts what it
 * executes in memory that may outlive the process. Static functions for the test_writes*.c
 * programs. */
#pragma once

#include "gateway/base/clock.h"
#include "gateway/pipeline/pipeline.h"
#include "gateway/store/store_clock.h"
#include "gateway/writes/writes.h"
#include "tests/unit/scratch.h"

#include <errno.h>
#include <ftw.h>
#include <poll.h>
#include <string.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
/* clang-format on */

enum { RIG_LIMIT_MS = 60000, CUTS_MAX = 100000 };
#define UNUSED __attribute__((unused))

/* Where the process is cut off. */
enum cut {
    CUT_NOWHERE,
    CUT_BEFORE_EXECUTION,
    CUT_AFTER_EXECUTION,
    CUT_AFTER_OUTCOME,
    CUT_ANSWERED,
    CUT_AT_RANDOM,
    CUT_KINDS
};

struct shared {
    _Atomic unsigned executed[CUTS_MAX + 2];
    _Atomic int answered[CUTS_MAX + 2]; /* the last status */
};

struct rig {
    char dir[64], ini[96];
    const struct config *config;
    struct store *store;
    struct pipeline *pipeline;
    struct device *device;
    struct writes *writes;
    struct shared *shared;
    enum cut cut;
    /* What the field does: an error of ask_device, of the driver, or an outcome; held: not yet. */
    int ask_error, driver_error;
    const char *outcome;
    bool held;
    _Atomic size_t held_count;
    struct {
        void (*done)(void *arg, int error, const char *why, json_t *result);
        void *arg;
    } helds[WRITES_OPEN_MAX];
    unsigned intents_seen; /* durable ones, when the field was asked */
};

struct answer {
    _Atomic int status;
    char body[WRITE_BODY_MAX + 1];
};

UNUSED static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

UNUSED static int count_intent(void *user, const struct scan *scan)
{
    const char *kind = scan_text(scan, &scan->readings[0]);
    size_t len = scan->readings[0].text.len;
    *(unsigned *)user += len == 12 && memcmp(kind, "write-intent", len) == 0;
    return 0;
}

UNUSED static json_t *result_of(const char *outcome)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s}", "outcome", outcome, "why", "as the test says",
                     "old", "1", "written", "2", "read_back", "2");
}

/* On the pipeline's thread. */
UNUSED static int ask_device(void *user, const char *device, const size_t *points, size_t count,
                             const char *value, int64_t deadline_ms,
                             void (*done)(void *arg, int error, const char *why, json_t *result),
                             void *arg)
{
    struct rig *rig = user;
    assert_string_equal(device, "t01");
    assert_true(count == 1 && points[0] == 0 && deadline_ms > 0);
    rig->intents_seen = 0;
    assert_int_equal(
        store_history(rig->store, STREAM_EVENT, 0, 0, INT64_MAX, count_intent, &rig->intents_seen),
        0);
    if (rig->ask_error < 0) {
        return rig->ask_error;
    }
    if (rig->held) {
        assert_true(rig->held_count < WRITES_OPEN_MAX);
        size_t i = rig->held_count;
        rig->helds[i].arg = arg;
        rig->helds[i].done = done;
        rig->held_count = i + 1;
        return 0;
    }
    if (rig->cut == CUT_BEFORE_EXECUTION) {
        _exit(0);
    }
    if (rig->shared != NULL) {
        rig->shared->executed[strtoul(value, NULL, 10)]++;
    }
    if (rig->cut == CUT_AFTER_EXECUTION) {
        _exit(0);
    }
    bool failed = rig->driver_error < 0;
    done(arg, rig->driver_error, failed ? "it failed" : NULL,
         failed ? NULL : result_of(rig->outcome));
    if (rig->cut == CUT_AFTER_OUTCOME) {
        _exit(0);
    }
    return 0;
}

UNUSED static struct device *find_device(void *user, const char *name)
{
    struct rig *rig = user;
    return strcmp(name, "t01") == 0 ? device_ref(rig->device) : NULL;
}

static const struct config *give_config(void *user)
{
    return config_ref(((struct rig *)user)->config);
}

UNUSED static void write_ini(const struct rig *rig, const char *writes, const char *interval)
{
    FILE *file = fopen(rig->ini, "we");
    assert_non_null(file);
    fprintf(
        file,
        "[gateway]\nname = g\ndata_dir = %s\nrun_dir = %s\nallow_writes = %s\n"
        "clock = trusted\nwrite_interval = %s\n[store]\ncommit_interval = 1 s\nmax_size = 64 MiB\n"
        "[device t01]\ndriver = modbus-tcp\naddress = 127.0.0.1:1\npoll = 1 s\n"
        "point.pitch = holding 0 int32, writable 0 100000\n"
        "point.wind = holding 2 uint16\n",
        rig->dir, rig->dir, writes, interval);
    fclose(file);
}

UNUSED static void rig_open(struct rig *rig)
{
    struct config_errors *errors = config_errors_create();
    assert_int_equal(config_load(rig->ini, errors, &rig->config), 0);
    config_errors_destroy(errors);
    assert_int_equal(store_open(rig->dir, rig->config->store, &rig->store), 0);
    assert_int_equal(pipeline_create(rig->store, rig->config, &rig->pipeline), 0);
    const uint64_t last_seq[STREAM_COUNT] = {0};
    uint32_t id;
    assert_int_equal(store_device(rig->store, "t01", "", &id), 0);
    assert_int_equal(
        device_create(rig->config, &rig->config->devices[0], id, last_seq, &rig->device), 0);
    assert_int_equal(pipeline_add_device(rig->pipeline, rig->device), 0);
    const struct writes_host host = {
        .user = rig, .config = give_config, .find_device = find_device, .ask_device = ask_device};
    assert_int_equal(writes_create(rig->store, rig->pipeline, &host, &rig->writes), 0);
    assert_int_equal(pipeline_start(rig->pipeline), 0);
}

UNUSED static void rig_close(struct rig *rig)
{
    if (rig->store != NULL) {
        assert_int_equal(pipeline_retire_device(rig->pipeline, rig->device), 0);
        pipeline_stop(rig->pipeline);
        pipeline_destroy(rig->pipeline);
        writes_destroy(rig->writes);
        device_unref(rig->device);
        store_close(rig->store);
        config_unref(rig->config);
        rig->store = NULL;
    }
}

UNUSED static int set_up(void **state)
{
    struct rig *rig = calloc(1, sizeof *rig);
    *state = rig;
    assert_non_null(scratch_dir(rig->dir, sizeof rig->dir, "test_writes"));
    snprintf(rig->ini, sizeof rig->ini, "%s/windrow.ini", rig->dir);
    write_ini(rig, "yes", "0 s");
    rig->outcome = "done";
    return 0;
}

UNUSED static int tear_down(void **state)
{
    struct rig *rig = *state;
    rig_close(rig);
    nftw(rig->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(rig);
    return 0;
}

UNUSED static void on_done(void *arg, int status, struct buffer *body)
{
    struct answer *answer = arg;
    const char *text = buffer_text(body);
    snprintf(answer->body, sizeof answer->body, "%s", text != NULL ? text : "");
    atomic_store(&answer->status, status);
}

UNUSED static void begin(struct rig *rig, const char *id, const char *value, struct answer *answer)
{
    const struct write_command command = {.id = id,
                                          .device = "t01",
                                          .point = "pitch",
                                          .value = value,
                                          .who = "test",
                                          .timeout_ms = 5000};
    atomic_store(&answer->status, 0);
    writes_execute(rig->writes, &command, on_done, answer);
}

UNUSED static int wait_answer(struct answer *answer)
{
    for (int i = 0; i < RIG_LIMIT_MS && atomic_load(&answer->status) == 0; i++) {
        poll(NULL, 0, 1);
    }
    return atomic_load(&answer->status);
}

UNUSED static void expect(struct rig *rig, const char *id, const char *value, int status,
                          const char *words)
{
    struct answer answer;
    begin(rig, id, value, &answer);
    if (wait_answer(&answer) != status || strstr(answer.body, words) == NULL) {
        fail_msg("%s: %d %s", value, answer.status, answer.body);
    }
}

struct kinds {
    char text[400];
};

UNUSED static int add_kind(void *user, const struct scan *scan)
{
    struct kinds *kinds = user;
    size_t len = strlen(kinds->text);
    snprintf(kinds->text + len, sizeof kinds->text - len, "%.*s ", (int)scan->readings[0].text.len,
             scan_text(scan, &scan->readings[0]));
    return 0;
}

UNUSED static void expect_events(struct rig *rig, const char *text)
{
    struct kinds kinds = {""};
    assert_int_equal(store_history(rig->store, STREAM_EVENT, 0, 0, INT64_MAX, add_kind, &kinds), 0);
    if (strstr(kinds.text, text) == NULL) {
        fail_msg("'%s' in '%s'", text, kinds.text);
    }
}
