/* Commands after their store was set aside as damaged: what was executed is answered from what
 * comes back of its records; where these may be missing nothing is executed that may have been
 * before. */
#include "gateway/pipeline/salvage.h"
#include "gateway/store/salvage.h"
#include "gateway/writes/write_memory.h"
#include "write_rig.h"

#include <fcntl.h>

static const char folder[] = "store.damaged-2026-01-02T030405Z";
enum { HOUR_MS = 3600000 };

static void in_rig(const struct rig *rig, const char *name, char path[300])
{
    snprintf(path, 300, "%s/%s", rig->dir, name);
}

static void set_aside(struct rig *rig)
{
    char from[300], to[300];
    rig_close(rig);
    in_rig(rig, "store", from);
    in_rig(rig, folder, to);
    assert_int_equal(rename(from, to), 0);
}

/* One of its two meta pages is gone: the other may be the older one. */
static void damage(struct rig *rig)
{
    char path[300];
    static const uint8_t zeros[4096];
    snprintf(path, sizeof path, "%s/%s/data.mdb", rig->dir, folder);
    auto_close int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, zeros, sizeof zeros, 0), sizeof zeros);
}

static void salvage(struct rig *rig)
{
    struct store_salvage salvage = {.state = SALVAGE_NONE};
    assert_int_equal(pipeline_salvage(rig->pipeline, writes_take_over, rig->writes), 0);
    for (int i = 0; i < RIG_LIMIT_MS && salvage.state != SALVAGE_DONE; i++) {
        poll(NULL, 0, 1);
        store_salvage(rig->store, &salvage);
    }
    assert_int_equal(salvage.state, SALVAGE_DONE);
}

static unsigned times(const struct rig *rig, unsigned value)
{
    return rig->shared->executed[value];
}

static void order(struct rig *rig, const char *id, const char *value, int64_t expires_in_ms,
                  bool standing, int status, const char *words)
{
    struct answer answer = {.status = 0};
    const struct write_command command = {.id = id,
                                          .device = "t01",
                                          .point = "pitch",
                                          .value = value,
                                          .who = "afar",
                                          .timeout_ms = 5000,
                                          .expires_ms = clock_wall_ms() + expires_in_ms,
                                          .standing = standing,
                                          .afar = true,
                                          .order = standing ? 7 : 0};
    writes_execute(rig->writes, &command, on_done, &answer);
    if (wait_answer(&answer) != status || strstr(answer.body, words) == NULL) {
        fail_msg("%s: %d %s", value, answer.status, answer.body);
    }
}

static int set_up_shared(void **state)
{
    int r = set_up(state);
    ((struct rig *)*state)->shared = calloc(1, sizeof(struct shared));
    return r;
}

static int tear_down_shared(void **state)
{
    free(((struct rig *)*state)->shared);
    return tear_down(state);
}

/* Two commands, one of them standing; then the store is set aside, and nothing is salvaged yet. */
static void lose_the_store(struct rig *rig, bool damaged)
{
    rig_open(rig);
    order(rig, "o-1", "11", HOUR_MS, false, 200, "done");
    order(rig, "s-1", "12", HOUR_MS, true, 200, "done");
    set_aside(rig);
    if (damaged) {
        damage(rig);
    }
    rig_open(rig);
}

static void test_records_come_back(void **state)
{
    struct rig *rig = *state;
    lose_the_store(rig, false);
    order(rig, "o-1", "11", HOUR_MS, false, 503, "recovering");
    order(rig, "s-1", "12", HOUR_MS, true, 503, "recovering");
    expect(rig, NULL, "13", 200, "done"); /* nobody can have given that one before */
    salvage(rig);
    order(rig, "o-1", "11", HOUR_MS, false, 200, "done");
    order(rig, "o-1", "99", HOUR_MS, false, 409, "id_used");
    order(rig, "s-1", "12", HOUR_MS, true, 200, "done");
    order(rig, "o-2", "14", 60000, false, 200, "done");
    expect(rig, "o-3", "15", 200, "done");
    for (unsigned value = 11; value <= 15; value++) {
        assert_int_equal(times(rig, value), 1);
    }
    rig_close(rig);
    rig_open(rig); /* they are kept */
    order(rig, "o-1", "11", HOUR_MS, false, 200, "done");
    order(rig, "s-1", "12", HOUR_MS, true, 200, "done");
    assert_int_equal(times(rig, 11), 1);
    assert_int_equal(times(rig, 12), 1);
}

static void test_records_may_be_missing(void **state)
{
    struct rig *rig = *state;
    lose_the_store(rig, true);
    salvage(rig);
    order(rig, "o-1", "11", HOUR_MS, false, 200, "done"); /* what did come back is known */
    order(rig, "o-2", "13", 60000, false, 504, "unknown_outcome");
    order(rig, "s-2", "14", 60000, true, 504, "unknown_outcome"); /* was s-1 the last word? */
    expect(rig, "o-3", "15", 504, "will not be executed again");
    expect(rig, NULL, "16", 200, "done");
    /* So far ahead that nobody would have taken it before. */
    order(rig, "o-4", "17", WRITES_KEPT_MS + 60000, false, 200, "done");
    assert_int_equal(times(rig, 11) + times(rig, 12), 2);
    assert_int_equal(times(rig, 13) + times(rig, 14) + times(rig, 15), 0);
    assert_int_equal(times(rig, 16) + times(rig, 17), 2);
    rig_close(rig);
    rig_open(rig);
    order(rig, "o-2", "13", 60000, false, 504, "unknown_outcome");
    assert_int_equal(times(rig, 13), 0);
}

/* Its intent was stored, its outcome was not: never again, and that is said. */
static void test_what_was_under_way(void **state)
{
    struct rig *rig = *state;
    struct answer answer;
    rig_open(rig);
    rig->held = true;
    begin(rig, "o-1", "11", &answer);
    for (int i = 0; i < RIG_LIMIT_MS && rig->held_count == 0; i++) {
        poll(NULL, 0, 1);
    }
    assert_int_equal(rig->held_count, 1);
    char from[300], to[300], copy[700];
    in_rig(rig, "store", from);
    in_rig(rig, folder, to);
    snprintf(copy, sizeof copy, "cp -r %s %s", from, to); /* as it lies on the disk now */
    assert_int_equal(system(copy), 0);
    rig->helds[0].done(rig->helds[0].arg, 0, NULL, result_of("done"));
    assert_int_equal(wait_answer(&answer), 200);
    rig_close(rig);
    snprintf(copy, sizeof copy, "rm -r %s", from);
    assert_int_equal(system(copy), 0);
    rig->held = false;
    rig_open(rig);
    salvage(rig);
    expect(rig, "o-1", "11", 504, "unknown_outcome");
    expect(rig, NULL, "12", 200, "done"); /* the event is durable with it, or was before */
    expect_events(rig, "write-unknown ");
    assert_int_equal(times(rig, 11), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_records_come_back, set_up_shared, tear_down_shared),
        cmocka_unit_test_setup_teardown(test_records_may_be_missing, set_up_shared,
                                        tear_down_shared),
        cmocka_unit_test_setup_teardown(test_what_was_under_way, set_up_shared, tear_down_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
