/* The commands against a running gateway and without one: what they print, and how they exit. */
#include "gateway/cli/cli.h"
#include "gateway/cli/client.h"
#include "gateway/cli/text.h"
#include "tests/unit/mini_gateway.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>
/* clang-format off: cmocka needs the ones above */
#include <cmocka.h>
/* clang-format on */
#include "tests/unit/mini_gateway.inc"

static int64_t t0;

static int set_up(void **state)
{
    struct mini *mini = malloc(sizeof *mini);
    *state = mini;
    t0 = (clock_wall_ms() / 10000 - 6) * 10000;
    return mini_start(mini, NULL);
}

static int tear_down(void **state)
{
    mini_stop(*state);
    free(*state);
    return 0;
}

/* stdout and stderr of one command. */
struct said {
    char out[8192], err[4096];
};

static void take_file(int fd, char *text, size_t size)
{
    ssize_t n = pread(fd, text, size - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    close(fd);
}

/* Runs "windrow WORD..." (words divided by blanks) with -c of the gateway; returns its exit. */
static int run(struct mini *mini, struct said *said, const char *words)
{
    char copy[512], name[] = "windrow", option[] = "-c";
    char *argv[24] = {name}, *rest = copy;
    int argc = 1;
    snprintf(copy, sizeof copy, "%s", words);
    for (char *word; (word = strsep(&rest, " ")) != NULL;) {
        argv[argc++] = word;
    }
    argv[argc++] = option;
    argv[argc++] = mini->ini;
    fflush(stdout);
    fflush(stderr);
    int keep_out = dup(STDOUT_FILENO), keep_err = dup(STDERR_FILENO);
    int out = memfd_create("out", MFD_CLOEXEC), err = memfd_create("err", MFD_CLOEXEC);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    int status = commands_main(argc, argv);
    fflush(stdout);
    fflush(stderr);
    dup2(keep_out, STDOUT_FILENO);
    dup2(keep_err, STDERR_FILENO);
    close(keep_out);
    close(keep_err);
    take_file(out, said->out, sizeof said->out);
    take_file(err, said->err, sizeof said->err);
    return status;
}

static void expect(const char *text, const char *part)
{
    if (strstr(text, part) == NULL) {
        fail_msg("no '%s' in:\n%s", part, text);
    }
}

/* No line of ordinary output is wider than a terminal, or ends in blanks, or has colours. */
static void expect_tidy(const char *text)
{
    while (*text != '\0') {
        size_t len = strcspn(text, "\n"), width = 0;
        for (size_t i = 0; i < len; i++) {
            width += ((unsigned char)text[i] & 0xc0) != 0x80;
        }
        if (width > 80 || (len > 0 && text[len - 1] == ' ') || memchr(text, '\033', len) != NULL) {
            fail_msg("not tidy: %.*s", (int)len, text);
        }
        text += len + (text[len] == '\n' ? 1 : 0);
    }
}

static void test_status(void **state)
{
    struct mini *mini = *state;
    struct said said;
    mini_put(mini, 0, clock_wall_ms(), 13125, true, 842);
    mini_wait_stored(mini, 3);
    assert_int_equal(run(mini, &said, "status"), COMMAND_GOOD);
    expect(said.out, "borssele-1");
    expect(said.out, "3: 1 good, 2 starting");
    expect(said.out, "read 3 = 3 stored");
    expect(said.out, "adds up");
    expect_tidy(said.out);
    device_report_error(mini->devices[1], DEVICE_ERROR_TIMEOUT, 0, true);
    assert_int_equal(run(mini, &said, "status"), COMMAND_NOT_WELL);
    expect(said.out, "t02  dead");
    expect(said.out, "timeout");
    expect_tidy(said.out);
    assert_int_equal(run(mini, &said, "status --json"), COMMAND_NOT_WELL);
    json_t *json = json_loads(said.out, 0, NULL);
    assert_non_null(json);
    assert_string_equal(json_string_value(json_object_get(json, "gateway")), "borssele-1");
    json_decref(json);
}

static void test_devices_and_points(void **state)
{
    struct mini *mini = *state;
    struct said said;
    mini_put(mini, 0, clock_wall_ms() - 3000, 13125, true, -1);
    assert_int_equal(run(mini, &said, "devices"), COMMAND_GOOD);
    expect(said.out, "DEVICE  STATE");
    expect(said.out, "2.3 ms");
    expect_tidy(said.out);
    assert_int_equal(run(mini, &said, "devices t01"), COMMAND_GOOD);
    expect(said.out, "modbus-tcp, profile p");
    assert_int_equal(run(mini, &said, "devices t99"), COMMAND_NOT_WELL);
    expect(said.err, "no device");
    assert_int_equal(run(mini, &said, "points t01"), COMMAND_NOT_WELL);
    expect(said.out, "t01.power    1312.5  kW    3 s ago  good");
    expect(said.out, "t01.grid_ok     yes");
    expect(said.out, "no answer in time");
    expect_tidy(said.out);
    assert_int_equal(run(mini, &said, "points *.power"), COMMAND_GOOD);
    expect(said.out, "no value yet");
    assert_int_equal(run(mini, &said, "points nothing"), COMMAND_NOT_WELL);
    assert_int_equal(run(mini, &said, "points a b"), COMMAND_USAGE);
}

static void put_some(struct mini *mini)
{
    for (int i = 0; i < 20; i++) {
        mini_put(mini, 0, t0 + i * 1000, 10 * i, true, i == 7 ? -1 : 800 + i);
    }
    mini_wait_stored(mini, 60);
}

static void expect_history(struct mini *mini, struct said *said)
{
    assert_int_equal(run(mini, said, "history t01.power --last 5min"), COMMAND_GOOD);
    expect(said->out, "mean 9.5, minimum 0, maximum 19 kW; 20 readings, 0 bad");
    expect_tidy(said->out);
    assert_int_equal(run(mini, said, "history t01.wind --csv --last 5min"), COMMAND_GOOD);
    expect(said->out, "time,value,quality\n");
    expect(said->out, ",8.06,good\n");
    expect(said->out, ",,bad:timeout\n");
    assert_int_equal(run(mini, said, "history t01.wind --json --bin 10s"), COMMAND_GOOD);
    json_t *json = json_loads(said->out, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(json, "bins")), 2);
    json_decref(json);
    assert_int_equal(run(mini, said, "history t01.nothing"), COMMAND_NOT_WELL);
    expect(said->err, "nothing was ever stored");
    assert_int_equal(run(mini, said, "history t01.wind --from 2001-01-01 --to 2001-01-02"),
                     COMMAND_NOT_WELL);
}

static void test_history(void **state)
{
    struct mini *mini = *state;
    struct said said;
    put_some(mini);
    expect_history(mini, &said);
    assert_string_equal(said.err, "");
    static const char *const wrong[] = {"history",
                                        "history power",
                                        "history t01.power --last x",
                                        "history t01.power --from x",
                                        "history t01.power --bin 0",
                                        "history t01.power --from now --to -1h"};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        assert_int_equal(run(mini, &said, wrong[i]), COMMAND_USAGE);
    }
}

static void expect_ledger(struct mini *mini, struct said *said)
{
    assert_int_equal(run(mini, said, "ledger"), COMMAND_GOOD);
    expect(said->out, "borssele-1");
    expect(said->out, "all       60      60  adds up");
    expect_tidy(said->out);
    assert_int_equal(run(mini, said, "ledger nobody"), COMMAND_NOT_WELL);
    expect(said->err, "no uplink 'nobody'");
}

static void test_ledger(void **state)
{
    struct mini *mini = *state;
    struct said said;
    put_some(mini);
    expect_ledger(mini, &said);
    assert_int_equal(run(mini, &said, "ledger --json"), COMMAND_GOOD);
    json_t *json = json_loads(said.out, 0, NULL);
    assert_true(json_is_object(json_object_get(json, "total")));
    json_decref(json);
}

static void put_snapshot(struct mini *mini, const char *counts, const char *store)
{
    char text[200];
    snprintf(text, sizeof text, "%s, store %s; cloud: offered 30, delivered 20, waiting 10", counts,
             store);
    pipeline_event(mini->pipeline, NULL, "ledger", text);
}

static void expect_days(struct mini *mini, struct said *said)
{
    assert_int_equal(run(mini, said, "ledger --days"), COMMAND_GOOD);
    expect(said->out, "DAY (UTC)");
    expect(said->out, "    40      40        3  adds up");
    expect(said->out, "    20      20        1  adds up");
    expect_tidy(said->out);
    assert_int_equal(run(mini, said, "ledger --days --json"), COMMAND_GOOD);
    json_t *json = json_loads(said->out, 0, NULL);
    const json_t *days = json_object_get(json, "days"), *first = json_array_get(days, 0);
    assert_int_equal(json_array_size(days), 2);
    assert_int_equal(answer_int(first, "read"), 40);
    const json_t *uplink = json_array_get(json_object_get(first, "uplinks"), 0);
    assert_string_equal(answer_text(uplink, "name"), "cloud");
    assert_int_equal(answer_int(uplink, "delivered"), 20);
    assert_true(json_is_true(json_object_get(uplink, "adds_up")));
    json_decref(json);
}

/* Snapshots of this store count, those that came back of another one do not. */
static void test_ledger_by_day(void **state)
{
    struct mini *mini = *state;
    struct said said;
    put_some(mini);
    put_snapshot(mini, "read 999, stored 999", "000000000000");
    put_snapshot(mini, "read 40, stored 40, derived 3", store_id(mini->store));
    for (unsigned i = 0; i < 100 && run(mini, &said, "ledger --days") == COMMAND_GOOD &&
                         strstr(said.out, "  40      40") == NULL;
         i++) {
        struct timespec pause = {.tv_nsec = 50000000};
        nanosleep(&pause, NULL);
    }
    expect_days(mini, &said);
    put_snapshot(mini, "read 45, stored 44", store_id(mini->store));
    for (unsigned i = 0; i < 100 && run(mini, &said, "ledger --days") == COMMAND_GOOD; i++) {
        struct timespec pause = {.tv_nsec = 50000000};
        nanosleep(&pause, NULL);
    }
    assert_string_equal(said.err, "");
    expect(said.out, "DOES NOT ADD UP");
}

/* The daemon's part ends; its store is what is left. */
static void test_daemon_down(void **state)
{
    struct mini *mini = *state;
    struct said said;
    put_some(mini);
    api_stop(mini->api);
    mini->api = NULL;
    assert_int_equal(run(mini, &said, "status"), COMMAND_NOT_WELL);
    expect(said.err, "the gateway does not run");
    expect(said.err, "history, ledger");
    assert_int_equal(run(mini, &said, "status --json"), COMMAND_NOT_WELL);
    expect(said.out, "not_running");
    for (const char *const *word =
             (const char *const[]){"devices", "points", "reload", "read t01", "watch", NULL};
         *word != NULL; word++) {
        assert_int_equal(run(mini, &said, *word), COMMAND_NOT_WELL);
    }
    /* LMDB wants one environment a process: the daemon's has to be closed. */
    mini_let_go(mini);
    expect_history(mini, &said);
    expect_ledger(mini, &said);
    expect(said.err, "does not run; this is from its store");
    assert_int_equal(run(mini, &said, "store stat"), COMMAND_GOOD);
    expect(said.out, "blocks");
    assert_int_equal(run(mini, &said, "store verify"), COMMAND_GOOD);
    expect(said.out, "all of them sound");
}

static void test_reload(void **state)
{
    struct mini *mini = *state;
    struct said said;
    assert_int_equal(run(mini, &said, "reload"), COMMAND_GOOD);
    expect(said.out, "configuration is good");
    mini->reload_errors = "windrow.ini:7: [store] keep: no duration";
    assert_int_equal(run(mini, &said, "reload"), COMMAND_USAGE);
    expect(said.err, "windrow.ini:7");
    expect(said.err, "Nothing was changed");
    assert_int_equal(mini->reloads, 2);
}

static void *answer_read(void *user)
{
    struct mini *mini = user;
    while (mini->done == NULL) {
        poll(NULL, 0, 1);
    }
    mini->done(mini->done_arg, 0, NULL,
               json_pack("{s:s, s:[{s:s,s:s,s:f,s:s,s:s,s:[s,s],s:{s:{s:i,s:i,s:i,s:i}}},"
                         "{s:s,s:s,s:s}]}",
                         "device", "t01", "points", "name", "power", "source", "holding 1 int32",
                         "value", 1312.5, "unit", "kW", "order", "ABCD", "registers", "0x0000",
                         "0x3345", "decodings", "int32", "ABCD", 13125, "CDAB", 860160000, "BADC",
                         17715, "DCBA", 1160970240, "name", "state", "source", "holding 6 uint16",
                         "error", "exception: illegal address (2)"));
    return NULL;
}

static void test_read(void **state)
{
    struct mini *mini = *state;
    struct said said;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, answer_read, mini), 0);
    assert_int_equal(run(mini, &said, "read t01 power grid_ok"), COMMAND_NOT_WELL);
    pthread_join(thread, NULL);
    expect(said.out, "power  1312.5  kW    0x0000 0x3345  holding 1 int32, ABCD");
    expect(said.out, "illegal address");
    expect(said.out, "int32  13125  17715  860160000  1160970240");
    mini->ask_error = -ENOSYS;
    assert_int_equal(run(mini, &said, "read t01"), COMMAND_NOT_WELL);
    expect(said.err, "cannot read off schedule");
    assert_int_equal(run(mini, &said, "read t99"), COMMAND_NOT_WELL);
    assert_int_equal(run(mini, &said, "read"), COMMAND_USAGE);
    assert_int_equal(run(mini, &said, "read t01 --timeout 1min"), COMMAND_USAGE);
}

/* The socket is found although the configuration has errors in it. */
static void test_broken_configuration(void **state)
{
    struct mini *mini = *state;
    struct said said;
    FILE *file = fopen(mini->ini, "we");
    fprintf(file,
            "[store]\nkeep = soon\nrun_dir = /wrong\n[gateway]\nrun_dir = %s   # here\nnonsense\n",
            mini->dir);
    fclose(file);
    assert_int_equal(run(mini, &said, "status"), COMMAND_GOOD);
}

static void expect_text(struct buffer *b, const char *text)
{
    assert_string_equal(buffer_text(b), text);
    buffer_clear(b);
}

static void test_words(void **state)
{
    (void)state;
    auto_buffer struct buffer b = {0};
    static const struct {
        int64_t seconds;
        const char *text;
    } spans[] = {{0, "0 s"},    {119, "119 s"},   {120, "2 min"},  {7199, "119 min"},
                 {7200, "2 h"}, {172799, "47 h"}, {172800, "2 d"}, {86400 * 800, "2 y"}};
    for (size_t i = 0; i < ARRAY_SIZE(spans); i++) {
        text_span(&b, spans[i].seconds);
        expect_text(&b, spans[i].text);
    }
    text_age(&b, 10000, 0);
    expect_text(&b, "never");
    text_age(&b, 10000, 9500);
    expect_text(&b, "just now");
    text_age(&b, 10000, 7000);
    expect_text(&b, "3 s ago");
    text_age(&b, 10000, 15000);
    expect_text(&b, "in 5 s");
    text_count(&b, 1204332);
    expect_text(&b, "1 204 332");
    text_count(&b, 999);
    expect_text(&b, "999");
    text_bytes(&b, 1536);
    expect_text(&b, "1.5 KiB");
    text_clean(&b, "a\033[2Jb\n");
    expect_text(&b, "a?[2Jb?");
    assert_string_equal(text_quality("bad:timeout"), "no answer in time");
    assert_string_equal(text_quality("bad:new"), "bad:new");
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
#define WITH_GATEWAY(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_GATEWAY(test_status),
        WITH_GATEWAY(test_devices_and_points),
        WITH_GATEWAY(test_history),
        WITH_GATEWAY(test_ledger),
        WITH_GATEWAY(test_ledger_by_day),
        WITH_GATEWAY(test_daemon_down),
        WITH_GATEWAY(test_reload),
        WITH_GATEWAY(test_read),
        WITH_GATEWAY(test_broken_configuration),
        cmocka_unit_test(test_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
