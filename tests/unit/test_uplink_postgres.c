/* Type postgres without a server: rows, statements, and what SQLSTATEs mean. */
#include "tests/unit/batch_fixture.h"
#include "uplink/postgres/postgres.h"

#include <errno.h>

static void test_rows(void **state)
{
    struct batch_fixture *f = *state;
    struct scan *s = batch_add(f, &batch_t01, 7, 1, 4);
    s->window_s = 600;
    f->batch.stream = STREAM_AGGREGATE;
    s->readings[1] = (struct reading){.point = 40, .quality = QUALITY_BAD_RANGE};
    s->readings[2] = (struct reading){.point = 2, .kind = VALUE_TEXT, .text = {0, 9}};
    s->text_len = 9;
    memcpy((char *)&s->readings[4], "a\\b\nc\t\0\xff\"", 9);
    s->readings[3] = (struct reading){.point = 3, .kind = VALUE_BOOL, .integer = 1};
    s = batch_add(f, &batch_t02, 8, 2, 2);
    s->readings[1] = (struct reading){.point = 1, .kind = VALUE_REAL, .real = __builtin_inf()};
    assert_int_equal(uplink_postgres.encode(NULL, &f->batch, &f->request), 0);
#define T01 "borssele-1\t9f2c61d07a3b\taggregate\tt01\t1\t2026-01-31T10:30:00.001Z\t600\t"
#define T02 "borssele-1\t9f2c61d07a3b\taggregate\tt\\t0/2\t2\t2026-01-31T10:30:00.002Z\t\\N\t"
    assert_string_equal(buffer_text(&f->request.body), T01 "wind_speed\t8.42\t\\N\tgood\n"  /* */
                        T01 "point_40\t\\N\t\\N\tbad:range\n"                               /* */
                        T01 "grid_ok\t\\N\ta\\\\b\\nc\\t\xef\xbf\xbd\xef\xbf\xbd\"\tgood\n" /* */
                        T01 "odd,\"name\"\t1\t\\N\tgood\n"                                  /* */
                        T02 "wind_speed\t8.42\t\\N\tgood\n"                                 /* */
                        T02 "power\t\\N\t\\N\tgood\n");
}

static void test_only_selected_readings(void **state)
{
    struct batch_fixture *f = *state;
    static const uint16_t selected[] = {1};
    batch_add(f, &batch_t01, 7, 1, 3);
    f->records[0].selected = selected;
    f->records[0].selected_count = 1;
    assert_int_equal(uplink_postgres.encode(NULL, &f->batch, &f->request), 0);
    assert_string_equal(buffer_text(&f->request.body),
                        "borssele-1\t9f2c61d07a3b\traw\tt01\t1\t2026-01-31T10:30:00.001Z\t\\N\t"
                        "power\t8.43\t\\N\tgood\n");
}

static void test_too_large_a_batch_is_cut(void **state)
{
    struct batch_fixture *f = *state;
    for (uint64_t i = 0; i < BATCH_SCANS_MAX; i++) {
        batch_add(f, &batch_t01, 7, i + 1, 4096);
    }
    assert_int_equal(uplink_postgres.encode(NULL, &f->batch, &f->request), -E2BIG);
}

static void test_names_cannot_leave_their_quotes(void **state)
{
    (void)state;
    auto_buffer struct buffer out = {0};
    postgres_write_table(&out, "a\"b.c'd");
    assert_string_equal(buffer_text(&out), "\"a\"\"b\".\"c'd\"");
    const char *sql = postgres_setup_sql(&out, "x'; DROP TABLE y; --");
    assert_non_null(sql);
    /* Within the DO string the quotes of the regclass literal are doubled once more. */
    assert_non_null(strstr(sql, "to_regclass(''\"x''''; DROP TABLE y; --\"'')"));
    assert_non_null(strstr(postgres_insert_sql(&out, "t"), "INSERT INTO \"t\" (gateway, "));
}

static struct uplink_verdict judge(struct batch_fixture *f, int status, const char *code)
{
    struct uplink_reply reply = {.status = status,
                                 .code = code,
                                 .body = "",
                                 .content_type = "",
                                 .retry_after_ms = -1,
                                 .error = "its words"};
    struct uplink_verdict verdict;
    uplink_postgres.judge(NULL, &f->batch, &reply, &verdict);
    assert_null(verdict.rejected);
    return verdict;
}

static void test_judge(void **state)
{
    struct batch_fixture *f = *state;
    static const struct {
        const char *code;
        enum uplink_outcome two, one;
    } cases[] = {
        {"08006", UPLINK_RETRY, UPLINK_RETRY},    {"57P01", UPLINK_RETRY, UPLINK_RETRY},
        {"57P03", UPLINK_RETRY, UPLINK_RETRY},    {"53100", UPLINK_RETRY, UPLINK_RETRY},
        {"53300", UPLINK_RETRY, UPLINK_RETRY},    {"40P01", UPLINK_RETRY, UPLINK_RETRY},
        {"25006", UPLINK_RETRY, UPLINK_RETRY},    {"XX000", UPLINK_RETRY, UPLINK_RETRY},
        {"", UPLINK_RETRY, UPLINK_RETRY},         {"28P01", UPLINK_HOLD, UPLINK_HOLD},
        {"42501", UPLINK_HOLD, UPLINK_HOLD},      {"42P01", UPLINK_HOLD, UPLINK_HOLD},
        {"3D000", UPLINK_HOLD, UPLINK_HOLD},      {"22003", UPLINK_SPLIT, UPLINK_REJECTED},
        {"23514", UPLINK_SPLIT, UPLINK_REJECTED}, {"54000", UPLINK_SPLIT, UPLINK_REJECTED},
    };
    batch_add(f, &batch_t01, 7, 1, 1);
    batch_add(f, &batch_t01, 7, 2, 1);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        f->batch.count = 2;
        struct uplink_verdict verdict = judge(f, 400, cases[i].code);
        assert_int_equal(verdict.outcome, cases[i].two);
        assert_non_null(strstr(verdict.why, "its words"));
        f->batch.count = 1;
        assert_int_equal(judge(f, 400, cases[i].code).outcome, cases[i].one);
        f->batch.count = 2;
    }
    assert_int_equal(judge(f, 200, NULL).outcome, UPLINK_DELIVERED);
    assert_int_equal(judge(f, 0, NULL).outcome, UPLINK_RETRY);
}

static void test_local(void **state)
{
    (void)state;
    assert_true(postgres_is_local("/run/postgresql"));
    assert_true(postgres_is_local("127.1.2.3"));
    assert_true(postgres_is_local("::1"));
    assert_true(postgres_is_local("localhost"));
    assert_false(postgres_is_local("10.0.0.1"));
    assert_false(postgres_is_local("localhost.example.com"));
    assert_false(postgres_is_local("127.0.0.1.example.com"));
}

static void on_answer(void *user, const struct uplink_reply *reply)
{
    char *words = user;
    snprintf(words, 200, "%d %s", reply->status, reply->error);
}

static void test_refused_connection_and_bounds(void **state)
{
    (void)state;
    struct postgres_settings settings = {.host = "127.0.0.1",
                                         .port = 1,
                                         .database = "d",
                                         .user = "u",
                                         .table = "t",
                                         .line.timeout_ms = 1000,
                                         .line.connect_timeout_ms = 1000};
    struct uplink_request request = {0};
    char words[200] = "";
    void *transport;
    assert_int_equal(transport_postgres.create(&settings, "gw", 1, &transport), 0);
    assert_int_equal(transport_postgres.send(transport, &request, on_answer, words), 0);
    assert_int_equal(transport_postgres.send(transport, &request, on_answer, words), -EBUSY);
    for (int i = 0; i < 100 && words[0] == '\0'; i++) {
        assert_int_equal(transport_postgres.run(transport, -1, 100), 0);
    }
    assert_int_equal(words[0], '0');
    assert_non_null(strstr(words, "refused"));
    transport_postgres.destroy(transport);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rows, batch_setup, batch_teardown),
        cmocka_unit_test_setup_teardown(test_only_selected_readings, batch_setup, batch_teardown),
        cmocka_unit_test_setup_teardown(test_too_large_a_batch_is_cut, batch_setup, batch_teardown),
        cmocka_unit_test(test_names_cannot_leave_their_quotes),
        cmocka_unit_test_setup_teardown(test_judge, batch_setup, batch_teardown),
        cmocka_unit_test(test_local),
        cmocka_unit_test(test_refused_connection_and_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
