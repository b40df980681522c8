/* What a right configuration becomes; the wrong ones are in test_config_errors.c. */
#include "config/load.h"
#include "config_fakes.inc"
#include "gateway/api/api.h"
#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/store/store.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
/* clang-format off: cmocka needs the ones above */
#include <cmocka.h>
/* clang-format on */

#define POINTS "point.a = holding 0 uint16\npoint.b = holding 1 int32, scale 0.1, unit kW\n"

/* Loads texts as main file and conf.d; prints the errors of one that should have none. */
static const struct config *load(const char *main_text, const char *later)
{
    struct config_errors *errors = config_errors_create();
    const struct config_text texts[] = {
        {"windrow.ini", "/etc/windrow", main_text, strlen(main_text)},
        {"conf.d/1.ini", "/etc/windrow/conf.d", later == NULL ? "" : later,
         later == NULL ? 0 : strlen(later)},
    };
    const struct config *config = NULL;
    int error = config_load_texts(texts, later == NULL ? 1 : 2, errors, &config);
    for (size_t i = 0; config_errors_at(errors, i) != NULL; i++) {
        auto_buffer struct buffer line = {0};
        config_error_write(config_errors_at(errors, i), &line);
        print_message("%s\n", buffer_text(&line));
    }
    config_errors_destroy(errors);
    assert_int_equal(error, 0);
    return config;
}

static const struct fake_device *settings_of(const struct config *config, const char *name)
{
    const struct config_device *device = config_find_device(config, name);
    assert_non_null(device);
    return device->settings;
}

static void test_empty(void **state)
{
    (void)state;
    const struct config *config = load("", NULL);
    assert_string_equal(config->gateway->data_dir, "/var/lib/windrow");
    assert_string_equal(config->gateway->run_dir, "/run/windrow");
    assert_true(strlen(config->gateway->name) > 0);
    assert_int_equal(config->gateway->log_level, LOG_LEVEL_INFO);
    const struct store_settings *store = config->store;
    assert_int_equal(store->commit_interval_ms, 1000);
    assert_int_equal(store->max_size_bytes, -1);
    assert_int_equal(store->keep_ms, 7 * 86400000);
    assert_int_equal(store->when_full, STORE_FULL_THIN);
    const struct api_settings *api = config->api;
    assert_string_equal(api->listen, "127.0.0.1:8080");
    assert_null(api->tokens.path);
    assert_null(config->coap);
    assert_int_equal(config->device_count + config->uplink_count + config->bus_count, 0);
    config_unref(config);
}

static void test_words_and_comments(void **state)
{
    (void)state;
    const struct config *config = load("\xef\xbb\xbf[api] ; off\r\n  listen = off # all of it\r\n"
                                       "[store]\r\ncommit_interval = auto\r\n"
                                       "[gateway]\nname = a#b;c\ndata_dir = data\n",
                                       NULL);
    assert_null(((const struct api_settings *)config->api)->listen);
    assert_int_equal(((const struct store_settings *)config->store)->commit_interval_ms, -1);
    assert_string_equal(config->gateway->name, "a#b;c");
    assert_string_equal(config->gateway->data_dir, "/etc/windrow/data");
    config_unref(config);
}

static void test_range_in_step(void **state)
{
    (void)state;
    const struct config *config = load("[device t{01..24}]\ndriver = modbus-tcp\n"
                                       "address = 10.1.0.{11..34}:502\nunit = {24..1}\n"
                                       "note = {device} {a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,"
                                       "t,u,v,w, x }\n"
                                       "tag.nr = n{1..24}\n" POINTS,
                                       NULL);
    assert_int_equal(config->device_count, 24);
    assert_string_equal(config->devices[0].name, "t01");
    assert_string_equal(config->devices[23].name, "t24");
    const struct fake_device *last = settings_of(config, "t24");
    assert_string_equal(last->address, "10.1.0.34:502");
    assert_string_equal(last->note, "{device} x");
    assert_int_equal(last->unit, 1);
    assert_int_equal(settings_of(config, "t01")->unit, 24);
    assert_string_equal(config->devices[4].tags[0].name, "nr");
    assert_string_equal(config->devices[4].tags[0].value, "n5");
    assert_null(config_find_device(config, "t1"));
    assert_int_equal(config->devices[7].line, 1);
    config_unref(config);
}

static void test_range_width(void **state)
{
    (void)state;
    const struct config *config = load("[device w{8..10}]\ndriver = modbus-tcp\n"
                                       "address = h{008..010}:502\n[device {north,south}]\n"
                                       "driver = modbus-tcp\naddress = {a,b}:502\n",
                                       NULL);
    assert_string_equal(config->devices[0].name, "w8");
    assert_string_equal(config->devices[2].name, "w10");
    assert_string_equal(settings_of(config, "w9")->address, "h009:502");
    assert_string_equal(settings_of(config, "south")->address, "b:502");
    config_unref(config);
}

static void test_overrides(void **state)
{
    (void)state;
    const struct config *config = load(
        "[device t{1..3}]\ndriver = modbus-tcp\naddress = 10.0.0.{1..3}:502\nunit = 7\n"
        "tag.type = V90\n" POINTS "[device t2]\nunit = 9\ntag.type = V112\n"
        "[gateway]\nname = one\n",
        "[gateway]\nname = two\n[device t3]\npoint.b = holding 5 int16\npoll = 5 s\n");
    assert_int_equal(config->device_count, 3);
    assert_int_equal(settings_of(config, "t1")->unit, 7);
    assert_int_equal(settings_of(config, "t2")->unit, 9);
    assert_string_equal(settings_of(config, "t2")->address, "10.0.0.2:502");
    assert_string_equal(config_find_device(config, "t2")->tags[0].value, "V112");
    assert_int_equal(config_find_device(config, "t2")->tag_count, 1);
    const struct config_device *third = config_find_device(config, "t3");
    assert_int_equal(third->poll_ms, 5000);
    assert_int_equal(third->points.count, 2);
    assert_string_equal(third->points.list[1].source, "holding 5 int16");
    assert_string_equal(config_find_device(config, "t1")->points.list[1].unit, "kW");
    assert_string_equal(config->gateway->name, "two");
    config_unref(config);
}

static const char profile_text[] =
    "[profile v90]\ndriver = modbus-tcp\nunit = 3\npoll = 2 s\naddress_base = 1\n"
    "tag.make = Vestas\n" POINTS "[device a]\nprofile = v90\naddress = h:1\n"
    "[device b]\nprofile = v90\naddress = h:2\nunit = 4\ntag.row = 2\n"
    "[device c]\nprofile = v90\naddress = h:3\naddress_base = 0\n"
    "[device d]\nprofile = v90\naddress = h:4\npoint.a = holding 9 uint16\n"
    "point.extra = holding 8 uint16\n";

static void test_profile(void **state)
{
    (void)state;
    const struct config *config = load(profile_text, NULL);
    assert_int_equal(settings_of(config, "a")->unit, 3);
    assert_int_equal(settings_of(config, "b")->unit, 4);
    const struct config_device *b = config_find_device(config, "b");
    assert_int_equal(b->poll_ms, 2000);
    assert_int_equal(b->tag_count, 2);
    assert_string_equal(b->tags[0].value, "Vestas");
    assert_string_equal(b->profile, "v90");
    const struct config_device *d = config_find_device(config, "d");
    assert_int_equal(d->points.count, 3);
    assert_string_equal(d->points.list[0].name, "a");
    assert_string_equal(d->points.list[0].source, "holding 9 uint16");
    assert_string_equal(d->points.list[2].name, "extra");
    config_unref(config);
}

/* Equal points are one array; a setting that moves addresses makes another. */
static void test_sharing(void **state)
{
    (void)state;
    const struct config *config = load(profile_text, NULL);
    const struct config_device *a = config_find_device(config, "a");
    const struct config_device *c = config_find_device(config, "c");
    assert_ptr_equal(a->points.list, config_find_device(config, "b")->points.list);
    assert_ptr_not_equal(a->points.list, c->points.list);
    assert_int_equal(((const struct fake_address *)a->points.list[0].address)->base, 1);
    assert_int_equal(((const struct fake_address *)c->points.list[0].address)->base, 0);
    config_unref(config);
}

static void test_point_attributes(void **state)
{
    (void)state;
    const struct config *config = load(
        "[device a]\ndriver = modbus-tcp\naddress = h:1\n"
        "point.p = holding 7 int16 , scale 0.01,offset -40, unit kW h, invalid 0x8000, "
        "min -4.5, max 150, circular, deadband 0.5, order CDAB, every 10, writable -1 90\n"
        "point.q = holding 1, on-change, invalid 65535\n",
        NULL);
    const struct config_point *p = &config->devices[0].points.list[0], *q = p + 1;
    assert_string_equal(p->source, "holding 7 int16");
    assert_true(p->scale.mantissa == 1 && p->scale.exponent == -2);
    assert_true(decimal_to_double(p->offset) == -40);
    assert_string_equal(p->unit, "kW h");
    assert_true(p->has_invalid && p->invalid == 0x8000);
    assert_true(p->min == -4.5 && p->max == 150 && p->deadband == 0.5);
    assert_true(p->circular && p->writable && p->write_min == -1 && p->write_max == 90);
    assert_string_equal(p->order, "CDAB");
    assert_int_equal(p->every, 10);
    assert_true(q->on_change && !q->circular && !q->writable && q->invalid == 65535);
    assert_true(isinf(q->min) && isinf(q->max) && q->order == NULL && q->every == 1);
    assert_true(q->scale.mantissa == 1 && q->scale.exponent == 0 && q->offset.mantissa == 0);
    config_unref(config);
}

static void test_parts(void **state)
{
    (void)state;
    const struct config *config = load(
        "[bus rs485-1]\nport = /dev/null\n[device m]\ndriver = modbus-rtu\nbus = rs485-1\n"
        "[aggregate s]\nwindow = 1 min\nfunctions = mean p95 ti\npoints = *.a b\n"
        "[uplink u{1..2}]\ntype = http\nurl = https://h{1..2}.example.com/x\nsend = raw events\n",
        NULL);
    assert_int_equal(config->bus_count, 1);
    assert_int_equal(((const struct fake_device *)config->buses[0].settings)->limit, 9600);
    const struct config_aggregate *aggregate = &config->aggregates[0];
    assert_int_equal(aggregate->window_ms, 60000);
    assert_int_equal(aggregate->functions, FUNCTION_MEAN | FUNCTION_P95 | FUNCTION_TI);
    assert_int_equal(aggregate->points.count, 2);
    const struct config_uplink *uplink = config_find_uplink(config, "u2");
    const struct uplink_settings *common = uplink->common;
    assert_int_equal(common->send.count, 2);
    assert_int_equal(common->batch_records, 500);
    assert_int_equal(common->max_age_ms, 0);
    assert_string_equal(((const struct fake_device *)uplink->settings)->url,
                        "https://h2.example.com/x");
    config_unref(config);
}

static uint64_t print_of(const char *main_text, const char *later, const char *device)
{
    const struct config *config = load(main_text, later);
    uint64_t fingerprint = config_find_device(config, device)->fingerprint;
    config_unref(config);
    return fingerprint;
}

static void test_fingerprints(void **state)
{
    (void)state;
    uint64_t before = print_of(profile_text, NULL, "a");
    assert_true(before == print_of(profile_text, NULL, "a"));
    assert_true(before == print_of(profile_text, "[device b]\nunit = 5\n", "a"));
    assert_true(before != print_of(profile_text, "[device a]\nunit = 5\n", "a"));
    assert_true(before != print_of(profile_text, "[device a]\ntag.x = 5\n", "a"));
    assert_true(before != print_of(profile_text, "[device a]\npoll = 3 s\n", "a"));
    assert_true(before != print_of(profile_text, "[device a]\npoint.b = holding 4\n", "a"));
    assert_true(before != print_of(profile_text, "[profile v90]\npoint.b = holding 4\n", "a"));
    assert_true(before != print_of(profile_text, "[profile v90]\nunit = 8\n", "a"));
    const char *bus = "[bus x]\nport = /dev/null\n[device m]\ndriver = modbus-rtu\nbus = x\n";
    assert_true(print_of(bus, NULL, "m") != print_of(bus, "[bus x]\nbaud = 19200\n", "m"));
}

/* A renewed token under the same path must restart its uplink. */
static void test_secret_fingerprint(void **state)
{
    (void)state;
    char path[] = "/tmp/test-config-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, "first \n\n", 8) == 8);
    char text[200];
    snprintf(text, sizeof text, "[uplink u]\ntype = http\nurl = https://h/\ntoken_file = %s\n",
             path);
    const struct config *first = load(text, NULL);
    const struct fake_device *settings = first->uplinks[0].settings;
    assert_string_equal(settings->secret.text, "first");
    assert_true(pwrite(fd, "other", 5, 0) == 5);
    const struct config *second = load(text, NULL);
    assert_true(first->uplinks[0].fingerprint != second->uplinks[0].fingerprint);
    config_unref(first);
    config_unref(second);
    close(fd);
    unlink(path);
}

static void test_credential(void **state)
{
    (void)state;
    char folder[] = "/tmp/test-config-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/cloud", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("secret\n", file);
    fclose(file);
    setenv("CREDENTIALS_DIRECTORY", folder, 1);
    const struct config *config = load(
        "[uplink u]\ntype = http\nurl = https://h/\ntoken_file = credential:cloud\n", NULL);
    const struct fake_device *settings = config->uplinks[0].settings;
    assert_string_equal(settings->secret.text, "secret");
    config_unref(config);
    unsetenv("CREDENTIALS_DIRECTORY");
    unlink(path);
    rmdir(folder);
}

static void test_references(void **state)
{
    (void)state;
    const struct config *config = load("[gateway]\nname = x\n", NULL);
    assert_ptr_equal(config_ref(config), config);
    config_unref(config);
    assert_string_equal(config->gateway->name, "x");
    config_unref(config);
    config_unref(NULL);
}

static void test_shipped_profile(void **state)
{
    (void)state;
    setenv("WINDROW_PROFILES", TEST_SOURCE_DIR "/tests/unit/profiles", 1);
    const struct config *config = load(
        "[device a]\ndriver = modbus-tcp\naddress = h:1\nprofile = plain\n", NULL);
    assert_int_equal(config->devices[0].points.count, 2);
    assert_int_equal(settings_of(config, "a")->unit, 17);
    config_unref(config);
    unsetenv("WINDROW_PROFILES");
}

/* Sanitizers make everything slow. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { LARGE_LIMIT_MS = 500 };
#else
enum { LARGE_LIMIT_MS = 50 };
#endif

/* The reference load: 770 turbines of 20 points, in less than 50 ms and without a copy of the
 * points a turbine; the best of five, as other programs run beside the test. */
static void test_large(void **state)
{
    (void)state;
    auto_buffer struct buffer text = {0};
    buffer_add_text(&text, "[profile t]\ndriver = modbus-tcp\n");
    for (int i = 0; i < 20; i++) {
        buffer_printf(&text, "point.p%d = holding %d int32, scale 0.1, unit kW\n", i, 2 * i);
    }
    buffer_add_text(&text, "[device t{001..770}]\nprofile = t\naddress = 127.0.0.1:{5020..5789}\n"
                           "tag.nr = {1..770}\n");
    const char *bytes = buffer_text(&text);
    int64_t best_ns = INT64_MAX;
    for (int i = 0; i < 5; i++) {
        int64_t start = clock_mono_ns();
        const struct config *config = load(bytes, NULL);
        int64_t took = clock_mono_ns() - start;
        best_ns = took < best_ns ? took : best_ns;
        assert_int_equal(config->device_count, 770);
        assert_ptr_equal(config->devices[0].points.list, config->devices[769].points.list);
        assert_true(config_memory(config) < 400 * 1024);
        if (i == 0) {
            print_message("770 devices: %zu bytes\n", config_memory(config));
        }
        config_unref(config);
    }
    print_message("770 devices: %.1f ms\n", (double)best_ns / 1e6);
    assert_true(best_ns < LARGE_LIMIT_MS * INT64_C(1000000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_words_and_comments),
        cmocka_unit_test(test_range_in_step),
        cmocka_unit_test(test_range_width),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_profile),
        cmocka_unit_test(test_sharing),
        cmocka_unit_test(test_point_attributes),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_fingerprints),
        cmocka_unit_test(test_secret_fingerprint),
        cmocka_unit_test(test_credential),
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_shipped_profile),
        cmocka_unit_test(test_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
