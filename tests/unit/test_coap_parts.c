/* The pure parts of the CoAP driver: addresses, keys, points, whose a post is, which posts were
 * seen, and the way from records to scans. */
#include "drivers/coap/harvest.h"
#include "drivers/coap/links.h"
#include "drivers/coap/recent.h"
#include "drivers/coap/route.h"
#include "drivers/coap/settings.h"
#include "drivers/coap/target.h"

#include <errno.h>
#include <string.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

#define NOW INT64_C(1795262400000)

static void addresses(void **state)
{
    (void)state;
    struct target target;
    assert_int_equal(target_parse("coap://10.1.0.50/senml", &target), 0);
    assert_false(target.secure);
    assert_int_equal(target.port, 5683);
    assert_string_equal(target.host, "10.1.0.50");
    assert_string_equal(target.path, "senml");
    assert_int_equal(target_parse("coaps://[fe80::1]:7000/a/b%20c?x=1&y", &target), 0);
    assert_true(target.secure);
    assert_int_equal(target.port, 7000);
    assert_string_equal(target.host, "fe80::1");
    assert_string_equal(target.path, "a/b%20c");
    assert_string_equal(target.query, "x=1&y");
    assert_int_equal(target_parse("coaps://mast.example", &target), 0);
    assert_int_equal(target.port, 5684);
    assert_string_equal(target.path, "");
    static const char *const wrong[] = {
        "",           "10.1.0.50",   "http://10.1.0.50/", "coap+tcp://10.1.0.50/", "coap://",
        "coap:///x",  "coap://a:0/", "coap://a:70000/",   "coap://a/b#c",          "coap://a/b c",
        "coap://a/%4"};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        assert_int_equal(target_parse(wrong[i], &target), -EINVAL);
    }
    char longest[TARGET_PATH_MAX + 3] = "/";
    memset(longest + 1, 'p', TARGET_PATH_MAX);
    assert_int_equal(target_parse_path(longest, &target), 0);
    longest[TARGET_PATH_MAX + 1] = 'p';
    assert_int_equal(target_parse_path(longest, &target), -EINVAL);
}

static void keys(void **state)
{
    (void)state;
    uint8_t key[COAP_KEY_MAX];
    size_t len;
    assert_int_equal(coap_parse_key("secret", key, &len), 0);
    assert_int_equal(len, 6);
    assert_int_equal(coap_parse_key("0x00fFa1", key, &len), 0);
    assert_int_equal(len, 3);
    assert_memory_equal(key, "\x00\xff\xa1", 3);
    char longest[COAP_KEY_MAX + 2] = "";
    memset(longest, 'k', COAP_KEY_MAX);
    assert_int_equal(coap_parse_key(longest, key, &len), 0);
    longest[COAP_KEY_MAX] = 'k';
    assert_int_equal(coap_parse_key(longest, key, &len), -EINVAL);
    static const char *const wrong[] = {"", "0x", "0x1", "0x1g", "0xzz"};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        assert_int_equal(coap_parse_key(wrong[i], key, &len), -EINVAL);
    }
}

static void lines_of_keys(void **state)
{
    (void)state;
    const char *text = "# who\n\n  vane-1\tvane 0x0102\r\nx y\n a b c d\n; no\nbuoy buoy key";
    struct coap_psk psk;
    unsigned line = 0;
    assert_int_equal(coap_next_psk(&text, &line, &psk), 0);
    assert_int_equal(line, 3);
    assert_string_equal(psk.identity, "vane-1");
    assert_string_equal(psk.device, "vane");
    assert_int_equal(psk.key_len, 2);
    assert_int_equal(coap_next_psk(&text, &line, &psk), -EINVAL);
    assert_int_equal(coap_next_psk(&text, &line, &psk), -EINVAL);
    assert_int_equal(line, 5);
    assert_int_equal(coap_next_psk(&text, &line, &psk), 0);
    assert_string_equal(psk.device, "buoy");
    assert_int_equal(coap_next_psk(&text, &line, &psk), -ENOENT);
}

static void points(void **state)
{
    (void)state;
    struct config_point point = {.source = "senml  temp"};
    struct coap_point address;
    char why[100];
    assert_int_equal(coap_parse_point(&point, NULL, &address, why, sizeof(why)), 0);
    assert_false(address.by_path);
    assert_string_equal(point.source + address.offset, "temp");
    point.source = "path /a/b?c=1";
    assert_int_equal(coap_parse_point(&point, NULL, &address, why, sizeof(why)), 0);
    assert_true(address.by_path);
    static const char *const wrong[] = {"",          "senml",     "path",      "path temp",
                                        "holding 0", "senml a b", "path /a b", "path /%z"};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        point.source = wrong[i];
        assert_int_equal(coap_parse_point(&point, NULL, &address, why, sizeof(why)), -EINVAL);
    }
}

/* buoy listens without a key, vane with one; mast has a key and does not listen. */
static bool is(const char *name, size_t len, const char *other)
{
    return strlen(other) == len && memcmp(name, other, len) == 0;
}

static bool listens(void *user, const char *name, size_t len)
{
    (void)user;
    return is(name, len, "buoy") || is(name, len, "vane");
}

static bool has_key(void *user, const char *name, size_t len)
{
    (void)user;
    return is(name, len, "vane") || is(name, len, "mast");
}

static void whose_a_post_is(void **state)
{
    (void)state;
    const struct route_names names = {listens, has_key, NULL};
    static const struct {
        const char *key, *path, *base;
        int error;
        const char *device, *rest;
    } cases[] = {
        {NULL, "buoy", "", 0, "buoy", ""},
        {NULL, "buoy/temp", "", 0, "buoy", "temp"},
        {NULL, "", "buoy/", 0, "buoy", ""},
        {NULL, "", "buoy:", 0, "buoy", ""},
        {NULL, "sensors", "buoy", 0, "buoy", "sensors"},
        {NULL, "", "", -ENOENT, NULL, NULL},
        {NULL, "buoyant", "", -ENOENT, NULL, NULL},
        {NULL, "vane", "", -EACCES, NULL, NULL},
        {NULL, "mast", "", -EACCES, NULL, NULL},
        {NULL, "", "vane/", -EACCES, NULL, NULL},
        {NULL, "buoy", "vane/", -EACCES, NULL, NULL},
        {"vane", "", "", 0, "vane", ""},
        {"vane", "vane", "", 0, "vane", ""},
        {"vane", "vane/dir", "urn:dev:1:", 0, "vane", "dir"},
        {"vane", "dir", "vane/", 0, "vane", "dir"},
        {"vane", "buoy", "", -EACCES, NULL, NULL},
        {"vane", "buoy/temp", "vane/", -EACCES, NULL, NULL},
        {"vane", "dir", "buoy/", -EACCES, NULL, NULL},
        {"vane", "mast", "", -EACCES, NULL, NULL},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct route route;
        int r = route_path(&names, cases[i].key, cases[i].path, &route);
        r = r != 0 ? r
                   : route_base_name(&names, cases[i].key, cases[i].base, strlen(cases[i].base),
                                     &route);
        assert_int_equal(r, cases[i].error);
        if (r == 0) {
            assert_true(is(route.device, route.device_len, cases[i].device));
            assert_string_equal(route.rest, cases[i].rest);
        }
    }
}

/* RFC 6690 section 5, and what hostile devices write. */
static void lists_of_resources(void **state)
{
    (void)state;
    const char *text = "</sensors>;ct=40;title=\"a, b; c\",</sensors/temp>;rt=\"temperature-c\";"
                       "if=\"sensor\";obs, </senml>;ct=\"110 112\";obs,"
                       "<http://www.example.com/x>;anchor=\"/sensors\",</t>;rel=alternate";
    size_t len = strlen(text);
    struct link link;
    assert_int_equal(link_next(&text, &len, &link), 0);
    assert_string_equal(link.path, "/sensors");
    assert_true(link_has_format(&link, 40) && !link.observable);
    assert_int_equal(link_next(&text, &len, &link), 0);
    assert_string_equal(link.type, "temperature-c");
    assert_true(link.observable);
    assert_int_equal(link_next(&text, &len, &link), 0);
    assert_true(link_has_format(&link, 110) && link_has_format(&link, 112));
    assert_int_equal(link_next(&text, &len, &link), 0);
    assert_string_equal(link.path, "/t");
    assert_int_equal(link_next(&text, &len, &link), -ENOENT);
    assert_int_equal(len, 0);
    static const char *const hostile[] = {
        "",      "x",
        "<",     "</a",
        "</\n>", "</a b>",
        "<>",    "</a>x</b>;\"",
        ",,,",   "</\xff>;ct=\"99999999999 1 2 3 4 5 6 7 8 9 10\""};
    for (size_t i = 0; i < ARRAY_SIZE(hostile); i++) {
        text = hostile[i];
        len = strlen(text);
        for (int links = 0; link_next(&text, &len, &link) == 0; links++) {
            assert_true(links < 2 && link.format_count <= LINK_FORMATS_MAX);
        }
        assert_int_equal(len, 0);
    }
}

static void posts_that_were_seen(void **state)
{
    (void)state;
    struct recent *recent;
    assert_int_equal(recent_create(NULL, &recent), 0);
    uint64_t a = recent_key("addr", 4, 7, "tok", 3), b = recent_key("addr", 4, 8, "tok", 3);
    assert_true(a != b && a != recent_key("addr", 4, 7, "to", 2) &&
                a != recent_key("adds", 4, 7, "tok", 3));
    assert_int_equal(recent_find(recent, a, 1000), RECENT_NONE);
    recent_begin(recent, a, "buoy", 5, 1000);
    assert_int_equal(recent_find(recent, a, 1000), RECENT_PENDING);
    recent_settle(recent, a, true);
    assert_int_equal(recent_find(recent, a, 1000 + RECENT_LIFETIME_MS), RECENT_STORED);
    assert_int_equal(recent_find(recent, a, 1001 + RECENT_LIFETIME_MS), RECENT_NONE);
    recent_begin(recent, b, "buoy", 6, 1000);
    recent_settle(recent, b, false);
    assert_int_equal(recent_find(recent, b, 1000), RECENT_NONE);
    /* The ring holds the latest RECENT_MAX. */
    for (int i = 0; i < RECENT_MAX - 1; i++) { /* a and b have a place each */
        assert_int_equal(recent_find(recent, a, 2000), RECENT_STORED);
        recent_begin(recent, recent_key("other", 5, i, "t", 1), "buoy", 7, 2000);
    }
    assert_int_equal(recent_find(recent, a, 2000), RECENT_NONE);
    recent_destroy(recent);
}

static void posts_across_a_crash(void **state)
{
    (void)state;
    char path[] = "/tmp/windrow-recent-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    struct recent *recent;
    uint64_t stored = recent_key("a", 1, 1, "", 0), committed = recent_key("a", 1, 2, "", 0);
    uint64_t lost = recent_key("a", 1, 3, "", 0), other = recent_key("a", 1, 4, "", 0);
    assert_int_equal(recent_create(path, &recent), 0);
    recent_begin(recent, stored, "buoy", 1, 1000);
    recent_settle(recent, stored, true);
    recent_begin(recent, committed, "buoy", 2, 1000);
    recent_begin(recent, lost, "buoy", 3, 1000);
    recent_begin(recent, other, "vane", 3, 1000);
    recent_destroy(recent); /* nothing is written here that a crash would not leave as well */

    assert_int_equal(recent_create(path, &recent), 0);
    assert_int_equal(recent_find(recent, lost, 1000), RECENT_LEFT_OVER);
    recent_resolve(recent, "buoy", 2);
    assert_int_equal(recent_find(recent, stored, 1000), RECENT_STORED);
    assert_int_equal(recent_find(recent, committed, 1000), RECENT_STORED);
    assert_int_equal(recent_find(recent, lost, 1000), RECENT_NONE);
    assert_int_equal(recent_find(recent, other, 1000), RECENT_LEFT_OVER);
    recent_destroy(recent);

    /* A file of something else is begun anew. */
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    fputs("something else, and longer than a number", file);
    fclose(file);
    assert_int_equal(recent_create(path, &recent), 0);
    assert_int_equal(recent_find(recent, stored, 1000), RECENT_NONE);
    recent_destroy(recent);
    unlink(path);
}

/* ---- records to scans ---- */

static struct coap_point point_addresses[] = {
    {.offset = 6}, {.offset = 6}, {.offset = 6}, {.by_path = 1, .offset = 5}};
static const struct config_point point_list[] = {
    {.name = "temp", .source = "senml temp", .address = &point_addresses[0]},
    {.name = "again", .source = "senml temp", .address = &point_addresses[1]},
    {.name = "whole", .source = "senml mast/wind", .address = &point_addresses[2]},
    {.name = "label", .source = "path /label", .address = &point_addresses[3]},
};
static const struct config_device device = {.name = "d",
                                            .points = {point_list, ARRAY_SIZE(point_list)}};

struct seen {
    unsigned scans;
    int64_t times[4];
    unsigned counts[4];
    int64_t values[4];
    char text[32];
    int fail_at; /* -1: never */
};

static int see(void *user, struct scan *scan)
{
    struct seen *seen = user;
    if ((int)seen->scans == seen->fail_at) {
        return -ENOBUFS;
    }
    assert_true(seen->scans < ARRAY_SIZE(seen->times));
    seen->times[seen->scans] = scan->time_ms;
    seen->counts[seen->scans] = scan->count;
    seen->values[seen->scans] = scan->readings[0].integer;
    for (size_t i = 0; i < scan->count; i++) {
        const struct reading *reading = &scan->readings[i];
        if (reading->kind == VALUE_TEXT) {
            memcpy(seen->text, scan_text(scan, reading), reading->text.len);
        }
    }
    seen->scans++;
    return 0;
}

static int add_json(struct harvest *harvest, const char *json)
{
    struct senml_pack pack;
    assert_int_equal(senml_parse_json((const uint8_t *)json, strlen(json), NOW, &pack), 0);
    int r = harvest_add(harvest, &pack);
    senml_finish(&pack);
    return r;
}

static void records_to_scans(void **state)
{
    (void)state;
    struct harvest *harvest;
    assert_int_equal(harvest_create(&device, &harvest), 0);
    harvest_clear(harvest);
    /* three times in one pack, the latest first; a point twice at one time; names that are not ours
     */
    assert_int_equal(add_json(harvest, "[{\"bn\":\"mast/\",\"n\":\"temp\",\"v\":3},"
                                       "{\"n\":\"temp\",\"t\":-10,\"v\":1},"
                                       "{\"n\":\"temp\",\"t\":-5,\"v\":2},"
                                       "{\"n\":\"wind\",\"t\":-5,\"v\":20},"
                                       "{\"n\":\"temp\",\"v\":4},{\"n\":\"wi\",\"v\":0},"
                                       "{\"n\":\"windy\",\"v\":0},"
                                       "{\"bn\":\"\",\"n\":\"wind\",\"v\":9}]"),
                     9);
    struct seen seen = {.fail_at = -1};
    assert_int_equal(harvest_scans(harvest), 3);
    assert_int_equal(harvest_each(harvest, NOW, see, &seen), 0);
    assert_int_equal(seen.scans, 3);
    assert_int_equal(seen.times[0], NOW - 10000);
    assert_int_equal(seen.times[1], NOW - 5000);
    assert_int_equal(seen.times[2], NOW);
    assert_int_equal(seen.counts[0], 2);
    assert_int_equal(seen.counts[1], 3);
    assert_int_equal(seen.values[2], 4);
    seen = (struct seen){.fail_at = 1};
    assert_int_equal(harvest_each(harvest, NOW, see, &seen), -ENOBUFS);
    assert_int_equal(seen.scans, 1);

    harvest_clear(harvest);
    struct senml_pack pack;
    const char *json = "[{\"n\":\"x\",\"vs\":\"calm\"}]";
    assert_int_equal(senml_parse_json((const uint8_t *)json, strlen(json), NOW, &pack), 0);
    assert_int_equal(harvest_add_value(harvest, 3, &pack), 0);
    senml_finish(&pack);
    assert_int_equal(harvest_add_bad(harvest, 0, QUALITY_BAD_TIMEOUT), 0);
    seen = (struct seen){.fail_at = -1};
    assert_int_equal(harvest_each(harvest, NOW, see, &seen), 0);
    assert_int_equal(seen.scans, 1);
    assert_int_equal(seen.counts[0], 2);
    assert_string_equal(seen.text, "calm");
    harvest_destroy(harvest);
}

static void harvest_bound(void **state)
{
    (void)state;
    struct harvest *harvest;
    assert_int_equal(harvest_create(&device, &harvest), 0);
    harvest_clear(harvest);
    for (int i = 0; i < HARVEST_READINGS_MAX; i++) {
        assert_int_equal(harvest_add_bad(harvest, 0, QUALITY_BAD_TIMEOUT), 0);
    }
    assert_int_equal(harvest_add_bad(harvest, 0, QUALITY_BAD_TIMEOUT), -EMSGSIZE);
    assert_int_equal(harvest_scans(harvest), 1);
    harvest_destroy(harvest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses),
        cmocka_unit_test(keys),
        cmocka_unit_test(lines_of_keys),
        cmocka_unit_test(points),
        cmocka_unit_test(whose_a_post_is),
        cmocka_unit_test(posts_that_were_seen),
        cmocka_unit_test(posts_across_a_crash),
        cmocka_unit_test(records_to_scans),
        cmocka_unit_test(harvest_bound),
        cmocka_unit_test(lists_of_resources),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
