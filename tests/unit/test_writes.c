/* Commands that change something: checked, intent first, executed at most once, whatever dies when.
 * A real store and pipeline; the field is a double that counts what it executes in memory that
 * outlives the process. WINDROW_WRITE_CUTS sets how often the process is cut off (10,000 in the
 * long run). */
#include "gateway/base/log.h"
#include "gateway/writes/remote.h"
#include "gateway/writes/write_answer.h"
#include "gateway/writes/write_memory.h"
#include "write_rig.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { LIMIT_MS = RIG_LIMIT_MS, CUTS_DEFAULT = 42, ANSWERS_MAX = 32 };

static void test_intent_first_then_outcome(void **state)
{
    struct rig *rig = *state;
    rig_open(rig);
    expect(rig, NULL, "2", 200, "\"old\":1,\"written\":2,\"read_back\":2");
    assert_int_equal(rig->intents_seen, 1);
    expect_events(rig, "write-intent write-done ");
    rig->outcome = "failed";
    expect(rig, NULL, "2", 502, "as the test says");
    rig->outcome = "unknown";
    expect(rig, NULL, "2", 504, "unknown_outcome");
    expect_events(rig, "write-intent write-failed write-intent write-unknown ");
}

static void test_what_is_not_begun(void **state)
{
    struct rig *rig = *state;
    rig_open(rig);
    rig->ask_error = -ENOSYS;
    expect(rig, NULL, "2", 501, "cannot write");
    rig->ask_error = -EBUSY;
    expect(rig, NULL, "2", 503, "busy");
    rig->ask_error = 0;
    rig->driver_error = -EINVAL;
    expect(rig, NULL, "2", 422, "not_representable");
    rig->driver_error = -ETIMEDOUT;
    expect(rig, NULL, "2", 504, "expired");
    const struct write_command late = {
        .device = "t01", .point = "pitch", .value = "2", .who = "test", .timeout_ms = -1};
    struct answer answer = {0};
    writes_execute(rig->writes, &late, on_done, &answer);
    assert_int_equal(wait_answer(&answer), 504);
    expect_events(rig, "write-intent write-failed ");
}

static void refused(struct rig *rig, const char *device, const char *point, const char *value,
                    int status, const char *code)
{
    const struct write_command command = {
        .device = device, .point = point, .value = value, .who = "test", .timeout_ms = 1000};
    struct answer answer = {0};
    writes_execute(rig->writes, &command, on_done, &answer);
    if (answer.status != status || strstr(answer.body, code) == NULL) {
        fail_msg("%s.%s = %s: %d %s", device, point, value, answer.status, answer.body);
    }
}

static void test_refusals_leave_no_trace(void **state)
{
    struct rig *rig = *state;
    rig_open(rig);
    refused(rig, "t02", "pitch", "1", 404, "no_such_device");
    refused(rig, "t01", "none", "1", 404, "no_such_point");
    refused(rig, "t01", "wind", "1", 403, "not_writable");
    refused(rig, "t01", "pitch", "-1", 422, "out_of_range");
    refused(rig, "t01", "pitch", "100000.5", 422, "out_of_range");
    refused(rig, "t01", "pitch", "nan", 422, "not_a_number");
    refused(rig, "t01", "pitch", "", 422, "not_a_number");
    refused(rig, "t01", "pitch", "1 2", 422, "not_a_number");
    char id[WRITE_ID_MAX + 2];
    memset(id, 'x', sizeof id);
    id[WRITE_ID_MAX + 1] = '\0';
    expect(rig, id, "1", 422, "bad_id");
    expect(rig, "", "1", 422, "bad_id");
    atomic_store(&rig->device->health.state, DEVICE_DEAD);
    refused(rig, "t01", "pitch", "1", 503, "dead");
    struct kinds kinds = {""};
    assert_int_equal(store_history(rig->store, STREAM_EVENT, 0, 0, INT64_MAX, add_kind, &kinds), 0);
    assert_null(strstr(kinds.text, "write-"));
}

static void test_off_by_default_and_paced(void **state)
{
    struct rig *rig = *state;
    write_ini(rig, "no", "10 s");
    rig_open(rig);
    refused(rig, "t01", "pitch", "1", 403, "\"off\"");
    rig_close(rig);
    write_ini(rig, "yes", "10 s");
    rig_open(rig);
    expect(rig, NULL, "1", 200, "done");
    refused(rig, "t01", "pitch", "1", 429, "too_soon");
}

static void test_an_id_is_executed_once(void **state)
{
    struct rig *rig = *state;
    rig_open(rig);
    expect(rig, "a", "1", 200, "\"id\":\"a\"");
    rig->driver_error = -EIO; /* a second execution would show */
    expect(rig, "a", "1", 200, "\"outcome\":\"done\"");
    expect(rig, "a", "2", 409, "id_used");
    rig_close(rig);
    rig_open(rig);
    expect(rig, "a", "1", 200, "\"outcome\":\"done\"");
    expect(rig, "b", "1", 502, "it failed");
    rig->driver_error = 0;
    expect(rig, "b", "1", 502, "it failed");
}

/* While the field has it, a repeat is refused; at the bound any other is. */
static void test_what_is_under_way(void **state)
{
    struct rig *rig = *state;
    rig_open(rig);
    rig->held = true;
    struct answer answers[WRITES_OPEN_MAX];
    for (size_t i = 0; i < WRITES_OPEN_MAX; i++) {
        char id[8];
        snprintf(id, sizeof id, "w%zu", i);
        begin(rig, id, "1", &answers[i]);
    }
    expect(rig, "w3", "1", 409, "under_way");
    expect(rig, "more", "1", 503, "busy");
    for (int i = 0; i < LIMIT_MS && rig->held_count < WRITES_OPEN_MAX; i++) {
        poll(NULL, 0, 1);
    }
    assert_int_equal(rig->held_count, WRITES_OPEN_MAX);
    for (size_t i = 0; i < WRITES_OPEN_MAX; i++) {
        rig->helds[i].done(rig->helds[i].arg, -ECANCELED, "stopped", NULL);
    }
    for (size_t i = 0; i < WRITES_OPEN_MAX; i++) {
        assert_int_equal(wait_answer(&answers[i]), 502);
    }
    rig->held = false;
    expect(rig, "more", "1", 200, "done");
}

static void test_a_record_and_back(void **state)
{
    (void)state;
    struct write_record record = {.time_ms = -5, .status = 504, .chosen = true, .order = -7}, back;
    record.standing = record.afar = true;
    memset(record.id, 'i', WRITE_ID_MAX);
    memset(record.body, 'b', WRITE_BODY_MAX);
    snprintf(record.device, sizeof record.device, "t01");
    snprintf(record.value, sizeof record.value, "2.5");
    auto_buffer struct buffer bytes = {0};
    write_record_encode(&record, &bytes);
    assert_true(bytes.len <= STORE_RECORD_MAX);
    assert_int_equal(write_record_decode(bytes.data, bytes.len, &back), 0);
    assert_string_equal(back.id, record.id);
    assert_string_equal(back.body, record.body);
    assert_true(back.time_ms == -5 && back.status == 504 && back.chosen);
    assert_true(write_record_same(&record, &back) && write_record_rivals(&record, &back));
    assert_true(back.standing && back.afar && back.order == -7);
    assert_true(write_record_is_sealed(bytes.data));
    for (size_t i = 0; i < bytes.len; i++) {
        bytes.data[i] ^= 4;
        assert_int_equal(write_record_decode(bytes.data, bytes.len, &back), -EBADMSG);
        bytes.data[i] ^= 4;
    }
    /* As the first versions wrote it. */
    bytes.len -= 4;
    bytes.data[0] = 1;
    assert_int_equal(write_record_decode(bytes.data, bytes.len - 2, &back), 0);
    assert_true(!back.standing && back.order == 0);
    bytes.data[0] = 2;
    assert_int_equal(write_record_decode(bytes.data, bytes.len, &back), 0);
    assert_true(back.standing && back.order == -7 && !write_record_is_sealed(bytes.data));
    for (size_t len = 0; len < bytes.len; len++) {
        assert_int_equal(write_record_decode(bytes.data, len, &back), -EBADMSG);
    }
}

static void test_memory_has_a_bound(void **state)
{
    (void)state;
    struct write_memory memory;
    uint64_t number, forgotten;
    assert_int_equal(write_memory_init(&memory), 0);
    struct write_record record = {.time_ms = 1000000, .status = 200};
    for (unsigned i = 0; i < WRITES_REMEMBERED; i++) {
        snprintf(record.id, sizeof record.id, "%u", i);
        assert_int_equal(write_memory_add(&memory, &record, &number, &forgotten), 0);
        assert_int_equal(forgotten, 0);
    }
    assert_int_equal(write_memory_add(&memory, &record, &number, &forgotten), -EBUSY);
    record.time_ms += WRITES_KEPT_MS;
    snprintf(record.id, sizeof record.id, "new");
    assert_int_equal(write_memory_add(&memory, &record, &number, &forgotten), 0);
    assert_int_equal(forgotten, 1);
    assert_null(write_memory_find(&memory, "0"));
    assert_non_null(write_memory_find(&memory, "new"));
    for (unsigned i = 0; i < WRITES_PACED; i++) {
        snprintf(record.point, sizeof record.point, "%u", i);
        assert_int_equal(write_memory_wait_ms(&memory, &record, 1000, 5), 0);
        assert_int_equal(write_memory_begin(&memory, &record, 5), 0);
    }
    assert_int_equal(write_memory_wait_ms(&memory, &record, 1000, 505), 500);
    snprintf(record.point, sizeof record.point, "other");
    assert_true(write_memory_wait_ms(&memory, &record, 1000, 505) > 0);
    assert_int_equal(write_memory_wait_ms(&memory, &record, 1000, 1006), 0);
    write_memory_finish(&memory);
}

/* --- the last word on a point --- */

static void say(struct rig *rig, const char *id, int64_t order, int status, const char *words)
{
    const struct write_command command = {.id = id,
                                          .device = "t01",
                                          .point = "pitch",
                                          .value = "2",
                                          .who = "far",
                                          .timeout_ms = 5000,
                                          .standing = true,
                                          .order = order};
    struct answer answer = {0};
    writes_execute(rig->writes, &command, on_done, &answer);
    if (wait_answer(&answer) != status || strstr(answer.body, words) == NULL) {
        fail_msg("%s: %d %s", id, answer.status, answer.body);
    }
}

/* However many others come after it, and whatever stops. */
static void test_the_last_word_is_remembered(void **state)
{
    struct rig *rig = *state;
    rig_open(rig);
    say(rig, "a", 5, 200, "done");
    say(rig, "b", 7, 200, "done");
    rig->driver_error = -EIO; /* a second execution would show */
    say(rig, "b", 7, 200, "done");
    say(rig, "a", 5, 409, "outdated");
    rig_close(rig);
    rig_open(rig);
    say(rig, "b", 7, 200, "done");
    say(rig, "a", 5, 409, "outdated");
    rig->driver_error = 0;
    say(rig, "c", 7, 200, "done"); /* as late as the last one, but another */
    expect(rig, "c", "2", 200, "done");
    rig->held = true;
    struct answer answer;
    const struct write_command held = {.id = "d",
                                       .device = "t01",
                                       .point = "pitch",
                                       .value = "2",
                                       .who = "far",
                                       .timeout_ms = 5000,
                                       .standing = true,
                                       .order = 8};
    atomic_store(&answer.status, 0);
    writes_execute(rig->writes, &held, on_done, &answer);
    say(rig, "d", 8, 503, "under_way");
    say(rig, "e", 9, 503, "under_way");
    for (int i = 0; i < LIMIT_MS && rig->held_count < 1; i++) {
        poll(NULL, 0, 1);
    }
    rig->helds[0].done(rig->helds[0].arg, -ECANCELED, "stopped", NULL);
    assert_int_equal(wait_answer(&answer), 502);
    say(rig, "d", 8, 502, "stopped");
}

static void test_last_words_have_a_bound(void **state)
{
    (void)state;
    struct write_memory memory;
    uint64_t number, forgotten;
    assert_int_equal(write_memory_init(&memory), 0);
    struct write_record record = {.status = 200, .standing = true};
    for (unsigned i = 0; i < WRITES_STANDING; i++) {
        snprintf(record.point, sizeof record.point, "%u", i);
        assert_int_equal(write_memory_add(&memory, &record, &number, &forgotten), 0);
    }
    assert_int_equal(write_memory_add(&memory, &record, &number, &forgotten), -EBUSY);
    record.standing = false;
    for (unsigned i = WRITES_STANDING; i < WRITES_REMEMBERED + 9; i++) {
        record.time_ms += WRITES_KEPT_MS; /* those that stand stay, however old */
        assert_int_equal(write_memory_add(&memory, &record, &number, &forgotten), 0);
        assert_true(forgotten == 0 || forgotten > WRITES_STANDING);
    }
    write_memory_finish(&memory);
}

/* However many come from afar, there is room for others. */
static void test_those_from_afar_leave_room(void **state)
{
    (void)state;
    struct write_memory memory;
    uint64_t number, forgotten;
    assert_int_equal(write_memory_init(&memory), 0);
    struct write_record record = {.time_ms = 1000000, .status = 200, .afar = true};
    for (unsigned i = 0; i < WRITES_AFAR; i++) {
        assert_int_equal(write_memory_add(&memory, &record, &number, &forgotten), 0);
    }
    assert_int_equal(write_memory_add(&memory, &record, &number, &forgotten), -EBUSY);
    record.afar = false;
    assert_int_equal(write_memory_add(&memory, &record, &number, &forgotten), 0);
    record.afar = true;
    record.time_ms += WRITES_KEPT_MS;
    assert_int_equal(write_memory_add(&memory, &record, &number, &forgotten), 0);
    assert_int_equal(forgotten, 1);
    write_memory_finish(&memory);
}

/* --- from afar --- */

static void write_afar(void *user, const struct write_command *command,
                       void (*done)(void *arg, int status, struct buffer *body), void *arg)
{
    writes_execute(((struct rig *)user)->writes, command, done, arg);
}

static int64_t now_afar(void *user)
{
    return store_now_ms(((struct rig *)user)->store);
}

static struct remote *remote_open(struct rig *rig, const struct remote_rights *rights)
{
    const struct remote_host host = {.user = rig, .write = write_afar, .now_ms = now_afar};
    struct remote *remote;
    assert_int_equal(remote_create(&host, rights, &remote), 0);
    struct store_clock clock = {0};
    for (int i = 0; i < LIMIT_MS && !clock.vouched; i++) {
        poll(NULL, 0, 1);
        store_clock(rig->store, &clock);
    }
    assert_true(clock.vouched);
    return remote;
}

static void order(struct rig *rig, struct remote *remote, const char *id, int64_t expires_in_ms,
                  int status, const char *words)
{
    const struct write_command command = {.id = id,
                                          .device = "t01",
                                          .point = "pitch",
                                          .value = "2",
                                          .who = "far",
                                          .timeout_ms = 5000,
                                          .expires_ms = now_afar(rig) + expires_in_ms};
    struct remote_answer answer;
    assert_false(remote_next(remote, &answer));
    assert_int_equal(remote_order(remote, &command, 77), 0);
    struct pollfd fd = {.fd = remote_fd(remote), .events = POLLIN};
    assert_int_equal(poll(&fd, 1, LIMIT_MS), 1);
    assert_true(remote_next(remote, &answer));
    if (answer.tag != 77 || answer.status != status || strstr(answer.body, words) == NULL) {
        fail_msg("%s: %d %s", id, answer.status, answer.body);
    }
    assert_int_equal(poll(&fd, 1, 0), 0);
}

static void test_from_afar(void **state)
{
    struct rig *rig = *state;
    static const char *const all[] = {"t0?.pit*"}, *const others[] = {"t02.*", "*.wind"};
    const struct config_list list = {all, 1}, other = {others, 2};
    struct remote_rights rights = {.points = &list, .horizon_ms = 60000};
    rig_open(rig);
    struct remote *remote = remote_open(rig, &rights);
    order(rig, remote, "a", 1000, 403, "\"off\"");
    remote_close(remote);
    rights.allowed = true;
    remote = remote_open(rig, &rights);
    order(rig, remote, "a", 1000, 200, "done");
    order(rig, remote, "a", -1000, 200, "done"); /* a repeat, however late */
    order(rig, remote, "b", -1, 422, "expired");
    order(rig, remote, "b", 61000, 422, "too_far");
    order(rig, remote, NULL, 1000, 422, "incomplete");
    remote_close(remote);
    rights.points = &other;
    remote = remote_open(rig, &rights);
    order(rig, remote, "b", 1000, 403, "not_allowed");
    remote_close(remote);
}

/* At the bound nothing is taken; an answer that comes when the uplink has left is thrown away. */
static void test_from_afar_has_a_bound(void **state)
{
    struct rig *rig = *state;
    static const char *const all[] = {"*"};
    const struct config_list list = {all, 1};
    const struct remote_rights rights = {.allowed = true, .points = &list, .horizon_ms = 60000};
    rig_open(rig);
    struct remote *remote = remote_open(rig, &rights);
    rig->held = true;
    struct write_command command = {.device = "t01",
                                    .point = "pitch",
                                    .value = "2",
                                    .who = "far",
                                    .timeout_ms = 5000,
                                    .expires_ms = now_afar(rig) + 5000};
    char id[8];
    for (unsigned i = 0; i <= REMOTE_OPEN_MAX; i++) {
        snprintf(id, sizeof id, "%u", i);
        command.id = id;
        assert_int_equal(remote_order(remote, &command, i), i < REMOTE_OPEN_MAX ? 0 : -EBUSY);
    }
    for (int i = 0; i < LIMIT_MS && rig->held_count < REMOTE_OPEN_MAX; i++) {
        poll(NULL, 0, 1);
    }
    for (size_t i = 0; i < REMOTE_OPEN_MAX; i++) {
        if (i == REMOTE_OPEN_MAX / 2) {
            remote_close(remote);
        }
        rig->helds[i].done(rig->helds[i].arg, -ECANCELED, "stopped", NULL);
    }
}

/* --- cut off --- */

struct told {
    struct rig *rig;
    unsigned command;
    _Atomic bool done;
};

static void on_told(void *arg, int status, struct buffer *body)
{
    struct told *told = arg;
    (void)body;
    told->rig->shared->answered[told->command] = status;
    if (told->rig->cut == CUT_ANSWERED) {
        _exit(0);
    }
    atomic_store(&told->done, true);
}

static void give(struct rig *rig, unsigned number)
{
    struct told told = {.rig = rig, .command = number};
    char id[16], value[16];
    snprintf(id, sizeof id, "c%u", number);
    snprintf(value, sizeof value, "%u", number);
    const struct write_command command = {.id = id,
                                          .device = "t01",
                                          .point = "pitch",
                                          .value = value,
                                          .who = "test",
                                          .timeout_ms = 5000,
                                          .standing = number / CUT_KINDS % 2 == 1,
                                          .order = number};
    writes_execute(rig->writes, &command, on_told, &told);
    for (int i = 0; i < LIMIT_MS * 10 && !atomic_load(&told.done); i++) {
        poll(NULL, 0, 1);
    }
}

/* A life of the gateway: the command before is repeated, as a client does that got no answer, then
 * the next one is given, and dies somewhere. */
static void live(struct rig *rig, unsigned number, enum cut cut)
{
    rig_open(rig);
    if (number > 1) {
        give(rig, number - 1);
    }
    rig->cut = cut;
    give(rig, number);
    _exit(0);
}

static void cut_off(struct rig *rig, unsigned number)
{
    enum cut cut = number % CUT_KINDS;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        live(rig, number, cut == CUT_AT_RANDOM ? CUT_NOWHERE : cut);
    }
    if (cut == CUT_AT_RANDOM) {
        const struct timespec pause = {.tv_nsec = (long)(number * 7919L % 60) * 1000000};
        nanosleep(&pause, NULL);
        kill(pid, SIGKILL);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL && cut == CUT_AT_RANDOM
                                    : WEXITSTATUS(status) == 0);
}

static void test_never_twice_across_cuts(void **state)
{
    struct rig *rig = *state;
    const char *wish = getenv("WINDROW_WRITE_CUTS");
    unsigned cuts = wish != NULL ? (unsigned)strtoul(wish, NULL, 10) : CUTS_DEFAULT;
    assert_in_range(cuts, 1, CUTS_MAX);
    rig->shared = mmap(NULL, sizeof *rig->shared, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(rig->shared, MAP_FAILED);
    for (unsigned i = 1; i <= cuts; i++) {
        cut_off(rig, i);
    }
    unsigned executed = 0, unknown = 0;
    for (unsigned i = 1; i <= cuts; i++) {
        unsigned times = rig->shared->executed[i];
        int answered = rig->shared->answered[i];
        if (times > 1 || (answered == 200 && times != 1)) {
            fail_msg("command %u was executed %u times and answered with %d", i, times, answered);
        }
        executed += times;
        unknown += answered == 504;
    }
    /* What was cut between intent and outcome is said to be unknown. */
    assert_true(cuts < CUT_KINDS || unknown > 0);
    print_message("%u cuts: %u commands executed, none twice; %u outcomes unknown\n", cuts,
                  executed, unknown);
    munmap(rig->shared, sizeof *rig->shared);
}

int main(void)
{
    log_set_level(LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_intent_first_then_outcome, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_not_begun, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refusals_leave_no_trace, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_off_by_default_and_paced, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_id_is_executed_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_under_way, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_last_word_is_remembered, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_from_afar, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_from_afar_has_a_bound, set_up, tear_down),
        cmocka_unit_test(test_last_words_have_a_bound),
        cmocka_unit_test(test_those_from_afar_leave_room),
        cmocka_unit_test(test_a_record_and_back),
        cmocka_unit_test(test_memory_has_a_bound),
        cmocka_unit_test_setup_teardown(test_never_twice_across_cuts, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
