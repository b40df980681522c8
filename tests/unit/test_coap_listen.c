/* The server that devices post to, against datagrams made by hand; the pipeline is a double that
 * settles pushes when the test says, from a thread of its own. */
#include "drivers/coap/listen.h"
#include "drivers/coap/push.h"
#include "drivers/coap/transfer.h"
#include "gateway/base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <string.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

enum { TYPE_CON, TYPE_NON, TYPE_ACK, CODE_POST = 2, HELD_MAX = 4096, ROUNDS_MAX = 12000 };

#define CODE(c, d) ((c) << 5 | (d))

struct fixture {
    struct event_base *base;
    struct listener *listener;
    struct coap_section section;
    char address[32];
    uint16_t port;
    struct device device;
    bool full;
    int error_after; /* submissions until one fails; -1: never */
    struct {
        void (*durable)(void *user, int error);
        void *user;
    } held[HELD_MAX];
    size_t held_count;
    int64_t last_value;
};

static struct fixture fixture;

static struct coap_point addresses[] = {{.offset = 6}, {.by_path = 1, .offset = 5}};
static const struct config_point points[] = {
    {.name = "temp", .source = "senml temp", .address = &addresses[0]},
    {.name = "raw", .source = "path /raw", .address = &addresses[1]},
};
static const struct coap_settings settings = {.mode = COAP_MODE_LISTEN};
static const struct config_device config = {
    .name = "buoy", .points = {points, ARRAY_SIZE(points)}, .settings = &settings};

int scan_submit_pushed(struct device *device, struct scan *scan,
                       void (*durable)(void *user, int error), void *user)
{
    struct fixture *f = &fixture;
    assert_ptr_equal(device, &f->device);
    if (f->error_after == 0) {
        return -ENOBUFS;
    }
    f->error_after -= f->error_after > 0 ? 1 : 0;
    assert_true(f->held_count < HELD_MAX);
    f->held[f->held_count].durable = durable;
    f->held[f->held_count++].user = user;
    f->last_value = scan->readings[0].integer;
    atomic_fetch_add(&device->seq[STREAM_RAW], 1);
    return 0;
}

int scan_submit(struct device *device, struct scan *scan)
{
    return scan_submit_pushed(device, scan, NULL, NULL);
}

bool scan_has_room(const struct device *device, size_t readings)
{
    (void)device;
    assert_true(readings > 0);
    return !fixture.full;
}

static uint16_t free_port(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    auto_close int fd = socket(AF_INET, SOCK_DGRAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    return ntohs(at.sin_port);
}

static int set_up(void **state)
{
    struct fixture *f = &fixture;
    memset(f, 0, sizeof(*f));
    f->error_after = -1;
    f->base = event_base_new();
    f->port = free_port();
    snprintf(f->address, sizeof(f->address), "127.0.0.1:%u", f->port);
    f->section = (struct coap_section){.listen = f->address};
    f->device.config = &config;
    *state = f;
    assert_int_equal(listener_create(f->base, &f->section, NULL, &f->listener), 0);
    return listener_add(f->listener, &f->device);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    if (f->listener != NULL) {
        listener_remove(f->listener, &f->device);
        listener_destroy(f->listener);
    }
    event_base_free(f->base);
    return 0;
}

static int client(const struct fixture *f)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(f->port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

/* A POST of SenML JSON to /buoy; block < 0: whole, else its Block1 option. */
static void post(int fd, int type, uint16_t mid, const char *path, int block, const void *body,
                 size_t len)
{
    uint8_t bytes[2048] = {(uint8_t)(0x42 | type << 4), CODE_POST,
                           (uint8_t)(mid >> 8),         (uint8_t)mid,
                           (uint8_t)(mid >> 8),         (uint8_t)mid};
    size_t at = 6;
    bytes[at++] = (uint8_t)(0xb0 | strlen(path)); /* Uri-Path */
    memcpy(bytes + at, path, strlen(path));
    at += strlen(path);
    bytes[at++] = 0x11; /* Content-Format */
    bytes[at++] = 110;
    if (block >= 0) {
        bytes[at++] = 0xd2; /* Block1, 27 */
        bytes[at++] = 27 - 12 - 13;
        bytes[at++] = (uint8_t)(block >> 8);
        bytes[at++] = (uint8_t)block;
    }
    bytes[at++] = 0xff;
    memcpy(bytes + at, body, len);
    assert_int_equal(send(fd, bytes, at + len, 0), (ssize_t)(at + len));
}

static void post_text(int fd, uint16_t mid, const char *text)
{
    post(fd, TYPE_CON, mid, "buoy", -1, text, strlen(text));
}

struct answer {
    unsigned type, code;
    uint16_t mid, token;
    bool any;
};

/* Runs the loop until the client has a datagram, for a minute at most. */
static struct answer receive(struct fixture *f, int fd)
{
    uint8_t bytes[2048];
    struct answer answer = {0};
    for (int i = 0; i < ROUNDS_MAX; i++) {
        const struct timeval tick = {0, 5000};
        event_base_loopexit(f->base, &tick);
        event_base_dispatch(f->base);
        ssize_t got = recv(fd, bytes, sizeof(bytes), 0);
        if (got >= 4) {
            answer = (struct answer){.type = bytes[0] >> 4 & 3U,
                                     .code = bytes[1],
                                     .mid = (uint16_t)(bytes[2] << 8 | bytes[3]),
                                     .any = true};
            if (got >= 6) {
                answer.token = (uint16_t)(bytes[4] << 8 | bytes[5]);
            }
            return answer;
        }
    }
    return answer;
}

static void expect(struct fixture *f, int fd, unsigned type, unsigned code, uint16_t mid)
{
    struct answer answer = receive(f, fd);
    assert_true(answer.any);
    assert_int_equal(answer.type, type);
    assert_int_equal(answer.code, code);
    if (type == TYPE_ACK) {
        assert_int_equal(answer.mid, mid);
    }
    if (code != 0) {
        assert_int_equal(answer.token, mid);
    }
    if (type == TYPE_CON) {
        const uint8_t ack[] = {0x60, 0, (uint8_t)(answer.mid >> 8), (uint8_t)answer.mid};
        assert_int_equal(send(fd, ack, sizeof(ack), 0), sizeof(ack));
    }
}

struct settling {
    size_t from, to;
    int error;
};

static void *settle_thread(void *user)
{
    const struct settling *settling = user;
    for (size_t i = settling->from; i < settling->to; i++) {
        fixture.held[i].durable(fixture.held[i].user, settling->error);
    }
    return NULL;
}

/* As the pipeline does: from another thread. */
static void settle(size_t from, size_t to, int error)
{
    struct settling settling = {from, to, error};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, settle_thread, &settling), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static void answered_after_the_commit(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = client(f);
    post_text(fd, 7, "[{\"n\":\"temp\",\"v\":42}]");
    expect(f, fd, TYPE_ACK, 0, 7);
    assert_int_equal(f->held_count, 1);
    assert_int_equal(f->last_value, 42);
    post_text(fd, 7, "[{\"n\":\"temp\",\"v\":42}]"); /* the same again: acknowledged, not taken */
    expect(f, fd, TYPE_ACK, 0, 7);
    settle(0, 1, 0);
    expect(f, fd, TYPE_CON, CODE(2, 4), 7);
    post_text(fd, 7, "[{\"n\":\"temp\",\"v\":42}]"); /* and again */
    expect(f, fd, TYPE_ACK, CODE(2, 4), 7);
    assert_int_equal(f->held_count, 1);
    assert_int_equal(f->device.health.state, DEVICE_GOOD);
}

static void unconfirmed_posts(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = client(f);
    const char *text = "[{\"n\":\"temp\",\"v\":1}]";
    post(fd, TYPE_NON, 9, "buoy", -1, text, strlen(text));
    while (f->held_count == 0) {
        event_base_loop(f->base, EVLOOP_ONCE);
    }
    settle(0, 1, 0);
    expect(f, fd, TYPE_NON, CODE(2, 4), 9);
}

static void what_cannot_be_stored(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = client(f);
    post_text(fd, 1, "[{\"n\":\"temp\",\"v\":1},{\"n\":\"temp\",\"v\":1,\"t\":-1}]");
    expect(f, fd, TYPE_ACK, 0, 1);
    assert_int_equal(f->held_count, 2);
    settle(0, 1, -ENOSPC);
    settle(1, 2, 0);
    expect(f, fd, TYPE_CON, CODE(5, 3), 1);
    /* refused, so the same request again is a new one */
    post_text(fd, 1, "[{\"n\":\"temp\",\"v\":1}]");
    expect(f, fd, TYPE_ACK, 0, 1);
    assert_int_equal(f->held_count, 3);
    settle(2, 3, 0);
    expect(f, fd, TYPE_CON, CODE(2, 4), 1);
}

static void no_room(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = client(f);
    f->full = true;
    post_text(fd, 1, "[{\"n\":\"temp\",\"v\":1}]");
    expect(f, fd, TYPE_ACK, CODE(5, 3), 1);
    f->full = false;
    f->error_after = 0; /* another thread was quicker */
    post_text(fd, 2, "[{\"n\":\"temp\",\"v\":1}]");
    expect(f, fd, TYPE_ACK, CODE(5, 3), 2);
    f->error_after = 1; /* and here between the first scan and the second */
    post_text(fd, 3, "[{\"n\":\"temp\",\"v\":1},{\"n\":\"temp\",\"v\":1,\"t\":-1}]");
    expect(f, fd, TYPE_ACK, 0, 3);
    settle(0, 1, 0);
    expect(f, fd, TYPE_CON, CODE(5, 3), 3);
    assert_int_equal(f->device.health.errors[DEVICE_ERROR_OVERRUN], 2);
}

static void senders_that_wait_are_bounded(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = client(f);
    for (uint16_t i = 1; i <= PUSHES_MAX; i++) {
        post_text(fd, i, "[{\"n\":\"temp\",\"v\":1}]");
        expect(f, fd, TYPE_ACK, 0, i);
    }
    post_text(fd, PUSHES_MAX + 1, "[{\"n\":\"temp\",\"v\":1}]");
    expect(f, fd, TYPE_ACK, CODE(5, 3), PUSHES_MAX + 1);
    assert_int_equal(f->held_count, PUSHES_MAX);
    settle(0, 1, 0);
    expect(f, fd, TYPE_CON, CODE(2, 4), 1);
    post_text(fd, PUSHES_MAX + 2, "[{\"n\":\"temp\",\"v\":1}]");
    expect(f, fd, TYPE_ACK, 0, PUSHES_MAX + 2);
    settle(1, f->held_count, 0); /* the answers go nowhere, and nothing leaks */
}

static void times_in_a_post_are_bounded(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = client(f);
    auto_buffer struct buffer text = {0};
    for (int over = 0; over <= 1; over++) {
        buffer_clear(&text);
        buffer_add_text(&text, "[{\"bn\":\"\",\"n\":\"temp\",\"v\":1}");
        for (int i = 1; i < PUSH_SCANS_MAX + over; i++) {
            buffer_printf(&text, ",{\"n\":\"temp\",\"v\":1,\"t\":-%d}", i);
        }
        buffer_add_text(&text, "]");
        unsigned blocks = (unsigned)((text.len + 1023) / 1024);
        for (unsigned i = 0; i < blocks; i++) {
            bool more = i + 1 < blocks;
            size_t len = more ? 1024 : text.len - (size_t)i * 1024;
            uint16_t mid = (uint16_t)(100 * (over + 1) + (int)i);
            post(fd, TYPE_CON, mid, "buoy", (int)(i << 4 | (more ? 8U : 0U) | 6),
                 text.data + (size_t)i * 1024, len);
            expect(f, fd, TYPE_ACK, more ? CODE(2, 31) : over ? CODE(4, 13) : 0, mid);
        }
        assert_int_equal(f->held_count, PUSH_SCANS_MAX);
    }
    settle(0, PUSH_SCANS_MAX, 0);
    expect(f, fd, TYPE_CON, CODE(2, 4), 100 + (uint16_t)((text.len + 1023) / 1024 - 1));
}

static void bodies_in_blocks(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = client(f);
    uint8_t block[1024];
    memset(block, ' ', sizeof(block));
    /* more than SENML_BYTES_MAX */
    uint16_t mid = 1;
    for (unsigned i = 0; i < SENML_BYTES_MAX / 1024; i++, mid++) {
        post(fd, TYPE_CON, mid, "buoy", (int)(i << 4 | 8 | 6), block, sizeof(block));
        expect(f, fd, TYPE_ACK, CODE(2, 31), mid);
    }
    post(fd, TYPE_CON, mid, "buoy", SENML_BYTES_MAX / 1024 << 4 | 8 | 6, block, sizeof(block));
    expect(f, fd, TYPE_ACK, CODE(4, 13), mid++);
    /* one that is missing, one whose size changes, one half full, another path, no beginning */
    static const struct {
        int block;
        size_t len;
        const char *path;
    } cases[] = {{2 << 4 | 6, 1024, "buoy"},
                 {1 << 4 | 5, 512, "buoy"},
                 {1 << 4 | 8 | 6, 100, "buoy"},
                 {1 << 4 | 6, 10, "bouy"}};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        post(fd, TYPE_CON, mid, "buoy", 8 | 6, block, sizeof(block));
        expect(f, fd, TYPE_ACK, CODE(2, 31), mid++);
        post(fd, TYPE_CON, mid, cases[i].path, cases[i].block, block, cases[i].len);
        expect(f, fd, TYPE_ACK, CODE(4, 8), mid++);
    }
    post(fd, TYPE_CON, mid, "buoy", 1 << 4 | 6, block, 10);
    expect(f, fd, TYPE_ACK, CODE(4, 8), mid++);
    /* a block whose answer was lost is not taken twice */
    post(fd, TYPE_CON, mid, "buoy", 8 | 6, block, sizeof(block));
    expect(f, fd, TYPE_ACK, CODE(2, 31), mid);
    post(fd, TYPE_CON, mid, "buoy", 8 | 6, block, sizeof(block));
    expect(f, fd, TYPE_ACK, CODE(2, 31), mid++);
    const char *rest = "[{\"n\":\"temp\",\"v\":5}]";
    post(fd, TYPE_CON, mid, "buoy", 1 << 4 | 6, rest, strlen(rest));
    expect(f, fd, TYPE_ACK, 0, mid);
    assert_int_equal(f->last_value, 5);
    settle(0, 1, 0);
    expect(f, fd, TYPE_CON, CODE(2, 4), mid);
}

static void bodies_under_way_are_bounded(void **state)
{
    struct fixture *f = *state;
    int fds[TRANSFERS_MAX + 1];
    uint8_t block[1024];
    memset(block, ' ', sizeof(block));
    for (uint16_t i = 0; i <= TRANSFERS_MAX; i++) {
        fds[i] = client(f);
        post(fds[i], TYPE_CON, i, "buoy", 8 | 6, block, sizeof(block));
        expect(f, fds[i], TYPE_ACK, i < TRANSFERS_MAX ? CODE(2, 31) : CODE(5, 3), i);
    }
    /* the others go on */
    const char *rest = "[{\"n\":\"temp\",\"v\":5}]";
    post(fds[0], TYPE_CON, 500, "buoy", 1 << 4 | 6, rest, strlen(rest));
    expect(f, fds[0], TYPE_ACK, 0, 500);
    post(fds[TRANSFERS_MAX], TYPE_CON, 501, "buoy", 8 | 6, block, sizeof(block));
    expect(f, fds[TRANSFERS_MAX], TYPE_ACK, CODE(2, 31), 501);
    settle(0, 1, 0);
    for (int i = 0; i <= TRANSFERS_MAX; i++) {
        close(fds[i]);
    }
}

static void stopped_while_senders_wait(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = client(f);
    for (uint16_t i = 1; i <= 4; i++) {
        post_text(fd, i, "[{\"n\":\"temp\",\"v\":1}]");
        expect(f, fd, TYPE_ACK, 0, i);
    }
    settle(0, 1, 0); /* lies in the mailbox */
    listener_remove(f->listener, &f->device);
    listener_destroy(f->listener);
    f->listener = NULL;
    settle(1, 4, 0); /* the pipeline stops after the field */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(answered_after_the_commit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(unconfirmed_posts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_cannot_be_stored, set_up, tear_down),
        cmocka_unit_test_setup_teardown(no_room, set_up, tear_down),
        cmocka_unit_test_setup_teardown(senders_that_wait_are_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(times_in_a_post_are_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bodies_in_blocks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bodies_under_way_are_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(stopped_while_senders_wait, set_up, tear_down),
    };
    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
