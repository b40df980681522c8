/* Type file: its lines, the repair after a power cut, and what its transport does on a real disk.
 */
#include "gateway/base/clock.h"
#include "tests/unit/batch_fixture.h"
#include "uplink/file/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <zlib.h>

struct site {
    char dir[64], path[96];
    struct file_settings settings;
    void *transport;
    struct uplink_request request;
    int answers;
    int status;
    char error[200];
};

static void test_ndjson(void **state)
{
    struct batch_fixture *f = *state;
    batch_add(f, &batch_t01, 7, 18231, 1);
    struct scan *s = batch_add(f, &batch_t02, 8, 2, 2);
    s->readings[1] = (struct reading){.point = 1, .quality = QUALITY_BAD_TIMEOUT};
    struct file_settings settings = {.format = FILE_NDJSON};
    assert_int_equal(uplink_file.encode(&settings, &f->batch, &f->request), 0);
    assert_string_equal(
        buffer_text(&f->request.body),
        "{\"gateway\":\"borssele-1\",\"store\":\"9f2c61d07a3b\",\"stream\":\"raw\",\"seq\":18231,"
        "\"device\":\"t01\",\"time\":\"2026-01-31T10:30:18.231Z\",\"tags\":{\"type\":\"V90\"},"
        "\"values\":{\"wind_speed\":8.42}}\n"
        "{\"gateway\":\"borssele-1\",\"store\":\"9f2c61d07a3b\",\"stream\":\"raw\",\"seq\":2,"
        "\"device\":\"t\\u00090/2\",\"time\":\"2026-01-31T10:30:00.002Z\","
        "\"values\":{\"wind_speed\":8.42,\"power\":null},"
        "\"quality\":{\"power\":\"bad:timeout\"}}\n");
}

static void test_csv(void **state)
{
    struct batch_fixture *f = *state;
    struct scan *s = batch_add(f, &batch_t01, 7, 1, 4);
    s->window_s = 600;
    f->batch.stream = STREAM_AGGREGATE;
    s->readings[1] = (struct reading){.point = 40, .quality = QUALITY_BAD_RANGE};
    s->readings[2] = (struct reading){.point = 2, .kind = VALUE_TEXT, .text = {0, 5}};
    s->text_len = 5;
    memcpy((char *)&s->readings[4], "a\"b\nc", 5);
    struct file_settings settings = {.format = FILE_CSV};
    assert_int_equal(uplink_file.encode(&settings, &f->batch, &f->request), 0);
    assert_string_equal(
        buffer_text(&f->request.body),
        "borssele-1,9f2c61d07a3b,aggregate,t01,1,2026-01-31T10:30:00.001Z,600,wind_speed,8.42,"
        "good\n"
        "borssele-1,9f2c61d07a3b,aggregate,t01,1,2026-01-31T10:30:00.001Z,600,point_40,,"
        "bad:range\n"
        "borssele-1,9f2c61d07a3b,aggregate,t01,1,2026-01-31T10:30:00.001Z,600,grid_ok,"
        "\"a\"\"b c\",good\n"
        "borssele-1,9f2c61d07a3b,aggregate,t01,1,2026-01-31T10:30:00.001Z,600,"
        "\"odd,\"\"name\"\"\",8.45,good\n");
}

static void test_too_large_a_batch_is_cut(void **state)
{
    struct batch_fixture *f = *state;
    static const size_t readings = 4096;
    for (uint64_t i = 0; i < BATCH_SCANS_MAX; i++) {
        batch_add(f, &batch_t01, 7, i + 1, (uint16_t)readings);
    }
    struct file_settings settings = {.format = FILE_CSV};
    assert_int_equal(uplink_file.encode(&settings, &f->batch, &f->request), -E2BIG);
    f->batch.count = 1;
    assert_int_equal(uplink_file.encode(&settings, &f->batch, &f->request), 0);
    f->batch.count = BATCH_SCANS_MAX;
}

static void test_whole_lines(void **state)
{
    (void)state;
    static const struct {
        const char *tail;
        size_t len, whole;
    } cases[] = {
        {"", 0, 0},
        {"a\nb\n", 4, 4},
        {"a\nbc", 4, 2},
        {"torn", 4, 0},
        {"\0\0\0", 3, 0},
        {"a\nb\0\0\nc\n", 8, 2}, /* a hole within: what follows it is doubtful, too */
        {"a\n\0\0\0\0", 6, 2},   /* grown, never written */
        {"\n", 1, 1},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(file_whole_lines((const uint8_t *)cases[i].tail, cases[i].len),
                         cases[i].whole);
    }
}

static int site_setup(void **state)
{
    struct site *s = calloc(1, sizeof *s);
    assert_non_null(s);
    snprintf(s->dir, sizeof s->dir, "/tmp/windrow-file-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    snprintf(s->path, sizeof s->path, "%s/out.ndjson", s->dir);
    s->settings = (struct file_settings){
        .path = s->path, .rotate_size = 1 << 20, .rotate_interval_ms = 86400000};
    *state = s;
    return 0;
}

static void start(struct site *s)
{
    assert_int_equal(transport_file.create(&s->settings, "gw", 2, &s->transport), 0);
}

static void stop(struct site *s)
{
    transport_file.destroy(s->transport);
    s->transport = NULL;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int site_teardown(void **state)
{
    struct site *s = *state;
    stop(s);
    nftw(s->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    buffer_finish(&s->request.body);
    free(s);
    return 0;
}

static void on_answer(void *user, const struct uplink_reply *reply)
{
    struct site *s = user;
    s->answers++;
    s->status = reply->status;
    snprintf(s->error, sizeof s->error, "%s", reply->error);
}

static int put(struct site *s, const char *lines)
{
    buffer_clear(&s->request.body);
    buffer_add_text(&s->request.body, lines);
    assert_int_equal(transport_file.send(s->transport, &s->request, on_answer, s), 0);
    int before = s->answers;
    assert_int_equal(transport_file.run(s->transport, -1, -1), 0);
    assert_int_equal(s->answers, before + 1);
    return s->status;
}

static const char *content(const char *path)
{
    static char text[4096];
    auto_fclose FILE *file = fopen(path, "r");
    size_t n = file != NULL ? fread(text, 1, sizeof text - 1, file) : 0;
    text[n] = '\0';
    return text;
}

static void write_file(const char *path, const void *bytes, size_t len)
{
    auto_fclose FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
}

static void test_appends_and_repairs(void **state)
{
    struct site *s = *state;
    static const char torn[] = "{\"seq\":1}\n{\"seq\":2}\n{\"se\0\0\0";
    write_file(s->path, torn, sizeof torn - 1);
    start(s);
    assert_int_equal(put(s, "{\"seq\":3}\n"), 200);
    assert_string_equal(content(s->path), "{\"seq\":1}\n{\"seq\":2}\n{\"seq\":3}\n");
    stop(s);
    start(s);
    assert_int_equal(put(s, "{\"seq\":4}\n"), 200);
    assert_string_equal(content(s->path), "{\"seq\":1}\n{\"seq\":2}\n{\"seq\":3}\n{\"seq\":4}\n");
    assert_int_equal(transport_file.bytes_sent(s->transport), 10);
}

static void test_csv_header_once_a_file(void **state)
{
    struct site *s = *state;
    s->settings.format = FILE_CSV;
    write_file(s->path, "gatew", 5); /* a power cut in the very first write */
    start(s);
    put(s, "row\n");
    stop(s);
    start(s);
    put(s, "row\n");
    const char *text = content(s->path);
    assert_int_equal(strncmp(text, file_csv_header, strlen(file_csv_header)), 0);
    assert_string_equal(text + strlen(file_csv_header), "row\nrow\n");
}

static void test_a_moved_file_begins_anew(void **state)
{
    struct site *s = *state;
    char moved[128];
    snprintf(moved, sizeof moved, "%s/taken", s->dir);
    start(s);
    put(s, "a\n");
    assert_int_equal(rename(s->path, moved), 0);
    assert_int_equal(put(s, "b\n"), 200);
    assert_string_equal(content(s->path), "b\n");
    assert_int_equal(truncate(s->path, 0), 0); /* logrotate's copytruncate */
    assert_int_equal(put(s, "c\n"), 200);
    assert_string_equal(content(s->path), "c\n");
    assert_string_equal(content(moved), "a\n");
}

static void test_trouble_is_told(void **state)
{
    struct site *s = *state;
    char directory[128];
    start(s);
    s->settings.min_free = INT64_MAX / 4;
    assert_int_equal(put(s, "a\n"), 0);
    assert_non_null(strstr(s->error, "full"));
    s->settings.min_free = 0;
    int other = open(s->path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(flock(other, LOCK_EX), 0);
    assert_int_equal(put(s, "a\n"), 0);
    assert_non_null(strstr(s->error, "another process"));
    close(other);
    assert_int_equal(put(s, "a\n"), 200);
    snprintf(directory, sizeof directory, "%s/none/x", s->dir);
    s->settings.path = directory;
    assert_int_equal(put(s, "b\n"), 0);
    assert_non_null(strstr(s->error, "mounted"));
    s->settings.path = s->dir;
    assert_int_equal(put(s, "b\n"), 0);
    s->settings.path = "/dev/null";
    assert_int_equal(put(s, "b\n"), 0);
    assert_non_null(strstr(s->error, "no file of lines"));
    assert_string_equal(content(s->path), "a\n");
}

static void test_at_most_parallel(void **state)
{
    struct site *s = *state;
    start(s);
    buffer_add_text(&s->request.body, "a\n");
    assert_int_equal(transport_file.send(s->transport, &s->request, on_answer, s), 0);
    assert_int_equal(transport_file.send(s->transport, &s->request, on_answer, s), 0);
    assert_int_equal(transport_file.send(s->transport, &s->request, on_answer, s), -EBUSY);
    assert_int_equal(transport_file.run(s->transport, -1, -1), 0);
    assert_int_equal(s->answers, 2);
    assert_string_equal(content(s->path), "a\na\n");
}

static size_t rotated(struct site *s, struct file_rotated **list)
{
    size_t count;
    assert_int_equal(file_list(s->path, list, &count), 0);
    return count;
}

static void test_rotates_prunes_and_packs(void **state)
{
    struct site *s = *state;
    struct file_rotated *list;
    s->settings.rotate_size = 4;
    s->settings.keep_files = 3;
    s->settings.compress = FILE_GZIP;
    char stranger[128], line[16];
    snprintf(stranger, sizeof stranger, "%s.keep", s->path);
    write_file(stranger, "x", 1);
    start(s);
    for (int i = 0; i < 8; i++) {
        snprintf(line, sizeof line, "%06d\n", i);
        assert_int_equal(put(s, line), 200);
    }
    for (int i = 0; i < 100; i++) {
        assert_int_equal(transport_file.run(s->transport, -1, 1), 0);
    }
    size_t count = rotated(s, &list);
    assert_int_equal(count, 3);
    for (size_t i = 0; i < count; i++) {
        auto_free char *path = file_beside(s->path, list[i].name);
        char text[32] = "";
        gzFile file = gzopen(path, "r");
        assert_non_null(file);
        assert_true(list[i].packed && gzdirect(file) == 0);
        gzread(file, text, sizeof text - 1);
        gzclose(file);
        snprintf(line, sizeof line, "%06d\n", (int)i + 5);
        assert_string_equal(text, line);
    }
    file_list_free(list, count);
    assert_string_equal(content(stranger), "x");
    assert_int_equal(access(s->path, F_OK), -1); /* the last one was full, too */
}

static void test_rotates_by_time_when_idle(void **state)
{
    struct site *s = *state;
    struct file_rotated *list;
    s->settings.rotate_interval_ms = 30;
    start(s);
    put(s, "a\n");
    assert_int_equal(transport_file.run(s->transport, -1, 200), 0);
    size_t count = rotated(s, &list);
    assert_int_equal(count, 1);
    file_list_free(list, count);
    assert_int_equal(transport_file.run(s->transport, -1, 100), 0);
    count = rotated(s, &list);
    assert_int_equal(count, 1); /* an empty file is not rotated */
    file_list_free(list, count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ndjson, batch_setup, batch_teardown),
        cmocka_unit_test_setup_teardown(test_csv, batch_setup, batch_teardown),
        cmocka_unit_test_setup_teardown(test_too_large_a_batch_is_cut, batch_setup, batch_teardown),
        cmocka_unit_test(test_whole_lines),
        cmocka_unit_test_setup_teardown(test_appends_and_repairs, site_setup, site_teardown),
        cmocka_unit_test_setup_teardown(test_csv_header_once_a_file, site_setup, site_teardown),
        cmocka_unit_test_setup_teardown(test_a_moved_file_begins_anew, site_setup, site_teardown),
        cmocka_unit_test_setup_teardown(test_trouble_is_told, site_setup, site_teardown),
        cmocka_unit_test_setup_teardown(test_at_most_parallel, site_setup, site_teardown),
        cmocka_unit_test_setup_teardown(test_rotates_prunes_and_packs, site_setup, site_teardown),
        cmocka_unit_test_setup_teardown(test_rotates_by_time_when_idle, site_setup, site_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
