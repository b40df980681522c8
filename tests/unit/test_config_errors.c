/* Every line of broken_configurations.txt is said, and nothing else. */
#include "config/complain.h"
#include "config/config.h"
#include "config/lines.h"
#include "config/load.h"
#include "config_fakes.inc"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
/* clang-format off: cmocka needs the ones above */
#include <cmocka.h>
/* clang-format on */

#define DATA TEST_SOURCE_DIR "/tests/scenario/broken_configurations.txt"

/* "..." in the pattern stands for any text. */
static bool matches(const char *pattern, const char *text)
{
    const char *gap = strstr(pattern, "...");
    if (gap == NULL) {
        return strcmp(pattern, text) == 0;
    }
    size_t len = (size_t)(gap - pattern);
    if (strncmp(pattern, text, len) != 0) {
        return false;
    }
    if (gap[3] == '\0') {
        return true;
    }
    for (const char *at = text + len; *at != '\0'; at++) {
        if (matches(gap + 3, at)) {
            return true;
        }
    }
    return false;
}

struct broken {
    char name[2048];
    FILE *out;
    mode_t mode;
    char path[80];
    char *expected[32];
    size_t expected_count;
    size_t failures, count;
};

static void close_file(struct broken *broken)
{
    if (broken->out != NULL) {
        fclose(broken->out);
        assert_int_equal(chmod(broken->path, broken->mode), 0);
        broken->out = NULL;
    }
}

static void open_file(struct broken *broken, const char *words)
{
    unsigned mode = 0644;
    close_file(broken);
    assert_true(sscanf(words, "%79s %o", broken->path, &mode) >= 1);
    broken->mode = (mode_t)mode;
    if (strncmp(broken->path, "conf.d/", 7) == 0) {
        (void)mkdir("conf.d", 0755);
    }
    broken->out = fopen(broken->path, "w");
    assert_non_null(broken->out);
}

static void write_line(FILE *out, const char *line)
{
    for (; *line != '\0'; line++) {
        unsigned byte;
        if (line[0] == '\\' && sscanf(line, "\\x%2x", &byte) == 1) {
            fputc((int)byte, out);
            line += 3;
        } else {
            fputc(*line, out);
        }
    }
    fputc('\n', out);
}

static void judge(struct broken *broken)
{
    struct config_errors *errors = config_errors_create();
    const struct config *config = NULL;
    size_t said = 0;
    int result = config_load("windrow.ini", errors, &config);
    bool good = result == -EINVAL && config == NULL;
    const struct config_error *error;
    for (size_t i = 0; (error = config_errors_at(errors, i)) != NULL; i++) {
        auto_buffer struct buffer line = {0};
        config_error_write(error, &line);
        if (error->warning) {
            continue;
        }
        if (said >= broken->expected_count ||
            !matches(broken->expected[said], buffer_text(&line))) {
            print_message("%s: said     %s\n", broken->name, buffer_text(&line));
            good = false;
        }
        said++;
    }
    for (size_t i = said; i < broken->expected_count; i++) {
        print_message("%s: not said %s\n", broken->name, broken->expected[i]);
        good = false;
    }
    broken->failures += !good;
    broken->count++;
    config_unref(config);
    config_errors_destroy(errors);
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *at)
{
    (void)status;
    (void)type;
    return at->level == 0 ? 0 : remove(path);
}

static void end_case(struct broken *broken)
{
    if (broken->name[0] == '\0') {
        return;
    }
    close_file(broken);
    judge(broken);
    for (size_t i = 0; i < broken->expected_count; i++) {
        free(broken->expected[i]);
    }
    broken->expected_count = 0;
    nftw(".", remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static void take_line(struct broken *broken, const char *line)
{
    if (strncmp(line, "=== ", 4) == 0) {
        end_case(broken);
        snprintf(broken->name, sizeof broken->name, "%s", line + 4);
        open_file(broken, "windrow.ini");
    } else if (strncmp(line, "+++ ", 4) == 0) {
        open_file(broken, line + 4);
    } else if (strncmp(line, ">>> ", 4) == 0) {
        assert_true(broken->expected_count < ARRAY_SIZE(broken->expected));
        broken->expected[broken->expected_count++] = strdup(line + 4);
    } else if (broken->out != NULL && broken->expected_count == 0) {
        write_line(broken->out, line);
    }
}

static void test_broken_configurations(void **state)
{
    (void)state;
    struct broken broken = {0};
    FILE *data = fopen(DATA, "r");
    assert_non_null(data);
    char folder[] = "/tmp/test-config-XXXXXX", line[2048];
    assert_non_null(mkdtemp(folder));
    assert_int_equal(chdir(folder), 0);
    while (fgets(line, sizeof line, data) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        take_line(&broken, line);
    }
    end_case(&broken);
    fclose(data);
    assert_int_equal(chdir("/"), 0);
    assert_int_equal(rmdir(folder), 0);
    print_message("%zu broken configurations\n", broken.count);
    assert_int_equal(broken.failures, 0);
    assert_true(broken.count >= 60);
}

/* The lines said about one text, joined by '\n', with drivers that complain themselves. */
static void expect(const char *text, const char *expected, bool good)
{
    struct config_errors *errors = config_errors_create();
    const struct config *config = NULL;
    const struct config_text source = {"w.ini", "/", text, strlen(text)};
    int error = config_load_texts(&source, 1, errors, &config);
    assert_int_equal(error, good ? 0 : -EINVAL);
    auto_buffer struct buffer lines = {0};
    for (size_t i = 0; config_errors_at(errors, i) != NULL; i++) {
        config_error_write(config_errors_at(errors, i), &lines);
        buffer_add_byte(&lines, '\n');
    }
    assert_string_equal(buffer_text(&lines), expected);
    config_unref(config);
    config_errors_destroy(errors);
}

static void test_module_checks(void **state)
{
    (void)state;
    expect("[device a]\ndriver = modbus-tcp\naddress = h:1\nunit = 42\npoint.x = holding 1\n",
           "w.ini:4: [device a] unit: warning: is a strange unit\n", true);
    expect("[device a{1..3}]\ndriver = modbus-tcp\naddress = h:1\npoint.x = holding 4711\n",
           "w.ini:4: [device a{1..3}] point.x: there is no 4711\n", false);
    expect("[device m]\ndriver = modbus-rtu\nbus = rs485-2\npoint.x = holding 1\n"
           "[bus rs485-1]\nport = /dev/null\n",
           "w.ini:3: [device m] bus: there is no [bus rs485-2] (did you mean rs485-1?)\n", false);
    expect("[device a]\ndriver = coap\npoint.x = senml x, scale\n",
           "w.ini:2: [device a] driver: this version has no driver 'coap'\n"
           "w.ini:3: [device a] point.x: 'scale' needs a value\n",
           false);
    expect("[uplink u]\ntype = mqtt\n",
           "w.ini:2: [uplink u] type: this version has no uplink type 'mqtt'\n", false);
}

static void test_advice(void **state)
{
    (void)state;
    expect("[device a{1..2}]\ndriver = modbus-tcp\naddress = h:1\npoint.x = holding 1\n"
           "[device b]\ndriver = modbus-tcp\naddress = h:1\n"
           "[aggregate s]\npoints = x a1.x a3.x *.y z*\n"
           "[uplink u]\ntype = http\nurl = https://h/\npoints = a*.x x\n"
           "[uplink v]\ntype = http\nurl = https://h/\npoints = x\nsend = aggregates\n",
           "w.ini:5: [device b] warning: has no point: nothing is read from it\n"
           "w.ini:9: [aggregate s] points: warning: 'a3.x' is the name of no point\n"
           "w.ini:13: [uplink u] points: warning: 'x' is the name of no point\n",
           true);
}

static void test_every_type(void **state)
{
    (void)state;
    expect("[device a]\ndriver = modbus-tcp\naddress = h:1\nratio = 2\nclose = yess\n"
           "file = none\nurl = none\nlimit = 1 XB\nrate = 1 B/min\npause = 1\nbyte_order = ABDC\n"
           "point.x = holding 1\n",
           "w.ini:4: [device a] ratio: '2' is outside its bounds: 0 to 1\n"
           "w.ini:5: [device a] close: 'yess' is neither yes nor no (did you mean yes?)\n"
           "w.ini:8: [device a] limit: 'XB' is not a unit (B, KiB, MiB, GiB, TiB) (did you mean "
           "kB?)\n"
           "w.ini:9: [device a] rate: '1 B/min' is outside its bounds: at least 60 B/min\n"
           "w.ini:10: [device a] pause: '1' needs a unit (ms, s, min, h, d)\n"
           "w.ini:11: [device a] byte_order: 'ABDC' is none of: ABCD CDAB BADC DCBA (did you mean "
           "ABCD?)\n",
           false);
}

/* count lines of format with a number each. */
static void add_lines(struct buffer *text, const char *start, const char *end, int count)
{
    for (int i = 0; i < count; i++) {
        buffer_printf(text, "%s%d%s\n", start, i, end);
    }
}

static void expect_first(struct buffer *text, const char *expected)
{
    struct config_errors *errors = config_errors_create();
    const struct config *config = NULL;
    const char *bytes = buffer_text(text);
    assert_non_null(bytes);
    const struct config_text source = {"w.ini", "/", bytes, text->len};
    assert_int_equal(config_load_texts(&source, 1, errors, &config), -EINVAL);
    auto_buffer struct buffer line = {0};
    config_error_write(config_errors_at(errors, 0), &line);
    assert_string_equal(buffer_text(&line), expected);
    config_errors_destroy(errors);
}

static void test_large_files(void **state)
{
    (void)state;
    auto_buffer struct buffer text = {0};
    buffer_printf(&text, "[gateway]\nname = %0*d\n", LINES_LINE_MAX - 6, 1);
    expect_first(&text, "w.ini:2: [gateway] the line is longer than 4096 characters");
    buffer_clear(&text);
    add_lines(&text, "# ", "", LINES_FILE_MAX / 6);
    expect_first(&text, "w.ini: the file is larger than 1048576 bytes");
    buffer_clear(&text);
    buffer_add_text(&text, "[device a]\ndriver = modbus-tcp\naddress = h:1\n");
    add_lines(&text, "tag.t", " = 1", LINES_KEYS_MAX - 1);
    expect_first(&text, "w.ini:5002: [device a] tag.t4998: more than 5000 keys in one section");
}

static void test_large_sites(void **state)
{
    (void)state;
    auto_buffer struct buffer text = {0};
    buffer_add_text(&text, "[device a]\ndriver = modbus-tcp\naddress = h:1\n");
    add_lines(&text, "point.p", " = holding 1", SCAN_READINGS_MAX + 1);
    expect_first(&text, "w.ini:1: [device a] has more than 4096 points");
    buffer_clear(&text);
    buffer_add_text(&text, "[device a{1..9000}]\ndriver = modbus-tcp\naddress = h:1\n"
                           "[device b{1..9000}]\ndriver = modbus-tcp\naddress = h:1\n");
    expect_first(&text, "18000 devices are more than 16384");
}

/* A range says a mistake once, and a hopeless file stops at the bound. */
static void test_bound(void **state)
{
    (void)state;
    auto_buffer struct buffer text = {0};
    buffer_add_text(&text, "[gateway]\n");
    for (int i = 0; i < CONFIG_ERRORS_MAX + 50; i++) {
        buffer_printf(&text, "key%d = 1\n", i);
    }
    struct config_errors *errors = config_errors_create();
    const struct config *config = NULL;
    const struct config_text source = {"w.ini", "/", buffer_text(&text), text.len};
    assert_int_equal(config_load_texts(&source, 1, errors, &config), -EINVAL);
    assert_int_equal(config_errors_count(errors, false), CONFIG_ERRORS_MAX);
    config_errors_destroy(errors);
}

static void test_unreadable(void **state)
{
    (void)state;
    struct config_errors *errors = config_errors_create();
    const struct config *config = NULL;
    assert_int_equal(config_load("/nowhere/windrow.ini", errors, &config), -ENOENT);
    auto_buffer struct buffer line = {0};
    config_error_write(config_errors_at(errors, 0), &line);
    assert_string_equal(buffer_text(&line),
                        "/nowhere/windrow.ini: cannot be read: No such file or directory");
    assert_null(config);
    config_errors_destroy(errors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_broken_configurations),
        cmocka_unit_test(test_module_checks),
        cmocka_unit_test(test_advice),
        cmocka_unit_test(test_every_type),
        cmocka_unit_test(test_large_files),
        cmocka_unit_test(test_large_sites),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_unreadable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
