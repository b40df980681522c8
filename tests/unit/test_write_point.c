/* POST /v1/write: its body, who may send it, and the way of an answer. */
#include "gateway/api/access.h"
#include "gateway/api/write_point.h"
#include "tests/unit/mini_gateway.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
/* clang-format off: cmocka needs the ones above */
#include <cmocka.h>
/* clang-format on */
#include "tests/unit/mini_gateway.inc"

static struct write_request asked;
static const char *why;

static int parse(const char *text)
{
    why = "";
    return write_request_parse(text, strlen(text), &asked, &why);
}

static void test_a_body(void **state)
{
    (void)state;
    assert_int_equal(parse("{\"device\":\"t01\",\"point\":\"pitch\",\"value\":2.50}"), 0);
    assert_string_equal(asked.value, "2.5");
    assert_string_equal(asked.id, "");
    assert_int_equal(asked.timeout_ms, 5000);
    assert_int_equal(parse("{\"device\":\"t01\",\"point\":\"p\",\"value\":0.1234567890123456,"
                           "\"id\":\"x\",\"timeout_ms\":100}"),
                     0);
    assert_string_equal(asked.value, "0.1234567890123456");
    assert_int_equal(asked.timeout_ms, 100);
    assert_int_equal(parse("{\"device\":\"t01\",\"point\":\"p\",\"value\":true}"), 0);
    assert_string_equal(asked.value, "1");
    assert_int_equal(parse("{\"device\":\"t01\",\"point\":\"p\",\"value\":\"-7\"}"), 0);
    assert_string_equal(asked.value, "-7");
    assert_int_equal(asked.expires_ms, 0);
    assert_int_equal(parse("{\"device\":\"t01\",\"point\":\"p\",\"value\":1,"
                           "\"expires\":\"2026-01-31T10:30:00Z\"}"),
                     0);
    assert_true(asked.expires_ms == 1769855400000);
    assert_int_equal(
        parse("{\"device\":\"t01\",\"point\":\"p\",\"value\":1,\"expires\":1769855400.5}"), 0);
    assert_true(asked.expires_ms == 1769855400500);
}

static void test_bodies_that_are_none(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "[]",
        "{}",
        "{\"device\":\"t01\",\"point\":\"p\"}",
        "{\"device\":\"t01\",\"value\":1}",
        "{\"device\":\"\",\"point\":\"p\",\"value\":1}",
        "{\"device\":1,\"point\":\"p\",\"value\":1}",
        "{\"device\":\"t01\",\"point\":\"p\",\"value\":null}",
        "{\"device\":\"t01\",\"point\":\"p\",\"value\":[1]}",
        "{\"device\":\"t01\",\"point\":\"p\",\"value\":1,\"timeout_ms\":99}",
        "{\"device\":\"t01\",\"point\":\"p\",\"value\":1,\"timeout_ms\":30001}",
        "{\"device\":\"t01\",\"point\":\"p\",\"value\":1,\"force\":true}",
        "{\"device\":\"t01\",\"point\":\"p\",\"value\":1,\"expires\":\"soon\"}",
        "{\"device\":\"t01\",\"point\":\"p\",\"value\":1,\"expires\":null}",
        "{\"device\":\"t01\",\"point\":\"p\",\"value\":1}}",
        "{\"device\":\"t01\",\"point\":\"p\",\"value\":123456789012345678901234567890}",
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        if (parse(bad[i]) != -EINVAL || why[0] == '\0') {
            fail_msg("%s: %s", bad[i], why);
        }
    }
    char long_name[300];
    snprintf(long_name, sizeof long_name, "{\"device\":\"%0*d\",\"point\":\"p\",\"value\":1}",
             WRITES_TEXT_MAX + 1, 1);
    assert_int_equal(parse(long_name), -EINVAL);
}

#define READ_TOKEN  "0123456789abcdef0123"
#define WRITE_TOKEN "fedcba9876543210fedc"

static int judge(bool allow_writes, bool over_socket, const char *authorization)
{
    struct api_settings settings = {.listen = "127.0.0.1:8080", .allow_writes = allow_writes};
    settings.tokens.text = "monitor read " READ_TOKEN "\nscada write " WRITE_TOKEN "\n";
    struct access *access;
    char reason[200];
    const char *words = "";
    assert_int_equal(access_create(&settings, "g", &access, reason, sizeof reason), 0);
    const struct access_request request = {.over_socket = over_socket,
                                           .changes = true,
                                           .writes = true,
                                           .host = "localhost",
                                           .authorization = authorization};
    int status = access_judge(access, &request, &words);
    if (status == 0 && !over_socket) {
        assert_string_equal(access_who(access, authorization), "scada");
    }
    access_destroy(access);
    return status;
}

static void test_who_may(void **state)
{
    (void)state;
    assert_int_equal(judge(false, true, NULL), 0);
    assert_int_equal(judge(false, false, "Bearer " WRITE_TOKEN), 403);
    assert_int_equal(judge(true, false, "Bearer " WRITE_TOKEN), 0);
    assert_int_equal(judge(true, false, "Bearer " READ_TOKEN), 403);
    assert_int_equal(judge(true, false, "Bearer nonsensenonsense"), 401);
    assert_int_equal(judge(true, false, NULL), 401);
}

/* The gateway's part is a double: it answers with what it was asked. */
static void echo(void *user, const struct write_command *command,
                 void (*done)(void *arg, int status, struct buffer *body), void *arg)
{
    (void)user;
    auto_buffer struct buffer body = {0};
    buffer_printf(&body, "{\"was\":\"%s.%s=%s %s %s %lld\"}", command->device, command->point,
                  command->value, command->id != NULL ? command->id : "-", command->who,
                  (long long)command->timeout_ms);
    done(arg, 429, &body);
}

static int post(const char *path, const char *text, struct buffer *heard)
{
    char request[600];
    snprintf(request, sizeof request,
             "POST /v1/write HTTP/1.1\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
             strlen(text), text);
    auto_close int fd = peer_unix(path);
    assert_true(fd >= 0);
    peer_say(fd, request);
    assert_true(peer_hear(fd, heard, NULL));
    return peer_status(heard);
}

static void test_the_way_of_an_answer(void **state)
{
    (void)state;
    struct mini mini;
    struct api *api;
    char reason[200], path[128], who[32];
    static const char text[] = "{\"device\":\"t01\",\"point\":\"p\",\"value\":2,\"id\":\"x\"}";
    auto_buffer struct buffer heard = {0}, without = {0}, broken = {0};
    assert_int_equal(mini_start(&mini, NULL), 0);
    struct api_host host = mini.host;
    const struct api_settings settings = {0};
    snprintf(path, sizeof path, "%s/second.sock", mini.dir);
    host.socket_path = path;
    host.write = echo;
    assert_int_equal(api_start(&host, &settings, &api, reason, sizeof reason), 0);
    assert_int_equal(post(path, text, &heard), 429);
    snprintf(who, sizeof who, "t01.p=2 x uid %u 5000", (unsigned)getuid());
    assert_non_null(strstr(peer_body(&heard), who));
    assert_int_equal(post(path, "{}", &broken), 400);
    assert_int_equal(post(mini.socket, text, &without), 501);
    api_stop(api);
    mini_stop(&mini);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_body),
        cmocka_unit_test(test_bodies_that_are_none),
        cmocka_unit_test(test_who_may),
        cmocka_unit_test(test_the_way_of_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
