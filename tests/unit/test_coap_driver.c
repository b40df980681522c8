/* The driver as a client, against a sensor made by hand that misbehaves in every way: what reaches
 * the pipeline, what the health says, what is bounded. The pipeline is a double. */
#include "drivers/coap/coap.h"
#include "drivers/coap/peer.h"
#include "drivers/coap/settings.h"
#include "gateway/base/clock.h"
#include "gateway/base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <string.h>
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
/* clang-format on */

enum { ROUNDS_MAX = 12000 };

struct request {
    bool any, observes;
    uint8_t type, mid[2], token[8];
    unsigned block; /* of Block2, num << 4 | szx */
    struct sockaddr_in from;
};

struct fixture {
    struct event_base *base;
    void *state;
    int sensor;
    char uri[64];
    struct coap_settings settings;
    struct coap_point addresses[2];
    struct config_point points[2];
    struct config_device config;
    struct device device;
    unsigned scans;
    int64_t value;
    uint8_t kind, quality;
};

static struct fixture fixture;

int scan_submit(struct device *device, struct scan *scan)
{
    struct fixture *f = &fixture;
    assert_ptr_equal(device, &f->device);
    f->scans++;
    f->value = scan->readings[0].integer;
    f->kind = scan->readings[0].kind;
    f->quality = scan->readings[0].quality;
    return 0;
}

int scan_submit_pushed(struct device *device, struct scan *scan,
                       void (*durable)(void *user, int error), void *user)
{
    (void)durable;
    (void)user;
    return scan_submit(device, scan);
}

bool scan_has_room(const struct device *device, size_t readings)
{
    (void)device;
    return readings < 65536;
}

static int set_up(void **state)
{
    struct fixture *f = &fixture;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    memset(f, 0, sizeof(*f));
    *state = f;
    f->sensor = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(f->sensor, (struct sockaddr *)&at, len), 0);
    assert_int_equal(getsockname(f->sensor, (struct sockaddr *)&at, &len), 0);
    snprintf(f->uri, sizeof(f->uri), "coap://127.0.0.1:%u/senml", ntohs(at.sin_port));
    f->settings = (struct coap_settings){.address = f->uri, .grace_ms = 200};
    f->points[0] = (struct config_point){
        .name = "a", .source = "senml a", .address = &f->addresses[0], .every = 1};
    f->addresses[0].offset = 6;
    f->config = (struct config_device){.name = "mast",
                                       .points = {f->points, 1},
                                       .poll_ms = 100,
                                       .timeout_ms = 300,
                                       .settings = &f->settings};
    f->device.config = &f->config;
    f->base = event_base_new();
    return coap_driver.create(f->base, NULL, &f->state);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    coap_driver.remove(f->state, &f->device);
    coap_driver.destroy(f->state);
    event_base_free(f->base);
    close(f->sensor);
    return 0;
}

static void start(struct fixture *f, enum coap_mode mode)
{
    f->settings.mode = (int)mode;
    assert_int_equal(coap_driver.add(f->state, &f->device), 0);
}

static void turn(struct fixture *f)
{
    const struct timeval tick = {0, 5000};
    event_base_loopexit(f->base, &tick);
    event_base_dispatch(f->base);
}

/* The options that matter here: Observe 6, Block2 23. */
static void parse_options(const uint8_t *at, const uint8_t *end, struct request *request)
{
    unsigned number = 0;
    while (at < end && *at != 0xff) {
        unsigned delta = *at >> 4, len = *at & 15;
        at++;
        delta = delta == 13 ? 13U + *at++ : delta;
        len = len == 13 ? 13U + *at++ : len;
        number += delta;
        unsigned value = 0;
        for (unsigned i = 0; i < len && i < 3; i++) {
            value = value << 8 | at[i];
        }
        request->observes = request->observes || (number == 6 && value == 0);
        request->block = number == 23 ? value : request->block;
        at += len;
    }
}

/* Whatever comes within the limit: a GET, an acknowledgement (code 0 of type 2), a reset. */
static struct request receive(struct fixture *f, unsigned type)
{
    uint8_t bytes[1500];
    for (int i = 0; i < ROUNDS_MAX; i++) {
        struct request request = {0};
        socklen_t len = sizeof(request.from);
        turn(f);
        ssize_t got = recvfrom(f->sensor, bytes, sizeof(bytes), 0, (struct sockaddr *)&request.from,
                               &len);
        if (got < 4 || (bytes[0] >> 4 & 3U) != type) {
            continue;
        }
        request.any = true;
        request.type = bytes[0] >> 4 & 3U;
        memcpy(request.mid, bytes + 2, 2);
        if (got >= 12) {
            memcpy(request.token, bytes + 4, 8);
            parse_options(bytes + 12, bytes + got, &request);
        }
        return request;
    }
    return (struct request){0};
}

struct reply {
    uint8_t type, code;
    int observe, block, etag; /* -1: none */
    int max_age_s;            /* -1: none */
    const void *body;
    size_t len;
};

static size_t option(uint8_t *at, unsigned delta, unsigned value, size_t len)
{
    size_t size = 0;
    at[size++] = (uint8_t)((delta < 13 ? delta : 13) << 4 | len);
    if (delta >= 13) {
        at[size++] = (uint8_t)(delta - 13);
    }
    for (size_t i = len; i > 0; i--) {
        at[size++] = (uint8_t)(value >> 8 * (i - 1));
    }
    return size;
}

static void answer(struct fixture *f, const struct request *request, const struct reply *reply,
                   uint16_t mid)
{
    uint8_t bytes[1500] = {(uint8_t)(0x48 | reply->type << 4), reply->code, (uint8_t)(mid >> 8),
                           (uint8_t)mid};
    size_t at = 12;
    unsigned number = 0;
    if (reply->type == 2) {
        memcpy(bytes + 2, request->mid, 2);
    }
    memcpy(bytes + 4, request->token, 8);
    if (reply->etag >= 0) {
        at += option(bytes + at, 4, (unsigned)reply->etag, 1);
        number = 4;
    }
    if (reply->observe >= 0) {
        at += option(bytes + at, 6 - number, (unsigned)reply->observe, 3);
        number = 6;
    }
    at += option(bytes + at, 12 - number, 110, 1);
    number = 12;
    if (reply->max_age_s >= 0) {
        at += option(bytes + at, 14 - number, (unsigned)reply->max_age_s, 1);
        number = 14;
    }
    if (reply->block >= 0) {
        at += option(bytes + at, 23 - number, (unsigned)reply->block, 2);
    }
    bytes[at++] = 0xff;
    memcpy(bytes + at, reply->body, reply->len);
    at += reply->len;
    assert_true(sendto(f->sensor, bytes, at, 0, (const struct sockaddr *)&request->from,
                       sizeof(request->from)) == (ssize_t)at);
}

static struct reply text_reply(const char *text)
{
    return (struct reply){.type = 2,
                          .code = 0x45,
                          .observe = -1,
                          .block = -1,
                          .etag = -1,
                          .max_age_s = -1,
                          .body = text,
                          .len = strlen(text)};
}

static void wait_scans(struct fixture *f, unsigned scans)
{
    for (int i = 0; i < ROUNDS_MAX && f->scans < scans; i++) {
        turn(f);
    }
    assert_int_equal(f->scans, scans);
}

static void wait_error(struct fixture *f, enum device_error error, uint64_t count)
{
    for (int i = 0; i < ROUNDS_MAX && f->device.health.errors[error] < count; i++) {
        turn(f);
    }
    assert_true(f->device.health.errors[error] >= count);
}

static void polled(void **state)
{
    struct fixture *f = *state;
    start(f, COAP_MODE_GET);
    struct request request = receive(f, 0);
    assert_true(request.any && !request.observes);
    struct reply reply = text_reply("[{\"n\":\"a\",\"v\":7}]");
    answer(f, &request, &reply, 0);
    wait_scans(f, 1);
    assert_int_equal(f->value, 7);
    assert_int_equal(f->device.health.state, DEVICE_GOOD);
    /* good, then refused: one scan marks the gap */
    request = receive(f, 0);
    reply.code = 0x84;
    answer(f, &request, &reply, 0);
    wait_scans(f, 2);
    assert_int_equal(f->quality, QUALITY_BAD_REFUSED);
    assert_int_equal(f->device.health.last_detail, 404);
    request = receive(f, 0);
    reply = text_reply("[{\"n\":");
    answer(f, &request, &reply, 0);
    wait_error(f, DEVICE_ERROR_PAYLOAD, 1);
    assert_int_equal(f->scans, 2);
    /* silence costs the session: the next question comes from another port */
    request = receive(f, 0);
    wait_error(f, DEVICE_ERROR_TIMEOUT, 1);
    for (int i = 0; i < 8; i++) {
        struct request next = receive(f, 0);
        assert_true(next.any);
        if (next.from.sin_port != request.from.sin_port) {
            return;
        }
    }
    fail_msg("the same port all the time");
}

static void answers_of_others(void **state)
{
    struct fixture *f = *state;
    start(f, COAP_MODE_GET);
    struct request request = receive(f, 0), other = request;
    struct reply reply = text_reply("[{\"n\":\"a\",\"v\":666}]");
    other.token[0] ^= 1;
    reply.type = 1;
    answer(f, &other, &reply, 1); /* another token */
    reply = text_reply("[{\"n\":\"a\",\"v\":8}]");
    answer(f, &request, &reply, 2);
    wait_scans(f, 1);
    assert_int_equal(f->value, 8);
    answer(f, &request, &reply, 3); /* the same once more: nobody waits for it */
    for (int i = 0; i < 10; i++) {
        turn(f);
    }
    assert_int_equal(f->scans, 1);
}

/* Blocks of 1024 without an end: refused when FETCH_BODY_MAX is passed. */
static void endless_body(void **state)
{
    struct fixture *f = *state;
    static uint8_t block[1024];
    memset(block, ' ', sizeof(block));
    f->config.timeout_ms = 3000;
    start(f, COAP_MODE_GET);
    struct reply reply = text_reply("");
    reply.body = block;
    reply.len = sizeof(block);
    for (unsigned i = 0; i <= FETCH_BODY_MAX / 1024; i++) {
        assert_int_equal(f->device.health.errors[DEVICE_ERROR_PAYLOAD], 0);
        struct request request = receive(f, 0);
        assert_true(request.any);
        assert_int_equal(request.block >> 4, i);
        reply.block = (int)(i << 4 | 8 | 6);
        answer(f, &request, &reply, 0);
    }
    wait_error(f, DEVICE_ERROR_PAYLOAD, 1);
    assert_int_equal(f->scans, 0);
}

static void bodies_in_blocks(void **state)
{
    struct fixture *f = *state;
    static const char whole[] = "[{\"n\":\"a\",\"v\":12}      ]"; /* 24 bytes */
    static const struct {
        int second, etag;
        size_t first_len;
        bool good;
    } cases[] = {
        {1 << 4, 1, 16, true},  {2 << 4, 1, 16, false}, /* one is left out */
        {1 << 4, 2, 16, false},                         /* it has changed meanwhile */
        {1 << 4, 1, 12, false},                         /* a block that is not full */
        {-1, 1, 16, false},                             /* no block any more */
    };
    f->config.timeout_ms = 3000;
    start(f, COAP_MODE_GET);
    unsigned scans = 0, errors = 0;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct request request = receive(f, 0);
        struct reply reply = text_reply(whole);
        reply.etag = 1;
        reply.block = 8;
        reply.len = cases[i].first_len;
        answer(f, &request, &reply, 0);
        if (cases[i].first_len == 16) {
            request = receive(f, 0);
            assert_int_equal(request.block, 1 << 4);
            reply.body = whole + 16;
            reply.len = 8;
            reply.block = cases[i].second;
            reply.etag = cases[i].etag;
            answer(f, &request, &reply, 0);
        }
        if (cases[i].good) {
            wait_scans(f, ++scans);
            assert_int_equal(f->value, 12);
        } else {
            wait_error(f, DEVICE_ERROR_PAYLOAD, ++errors);
            scans = f->scans; /* the first one marks a gap */
        }
    }
}

static void notifications(void **state)
{
    struct fixture *f = *state;
    start(f, COAP_MODE_OBSERVE);
    struct request request = receive(f, 0);
    assert_true(request.any && request.observes);
    struct reply reply = text_reply("[{\"n\":\"a\",\"v\":1}]");
    reply.observe = 10;
    reply.max_age_s = 1;
    answer(f, &request, &reply, 0);
    wait_scans(f, 1);
    /* confirmable: acknowledged; one that was overtaken: acknowledged, not taken */
    reply = text_reply("[{\"n\":\"a\",\"v\":2}]");
    reply.type = 0;
    reply.max_age_s = 1;
    reply.observe = 12;
    answer(f, &request, &reply, 100);
    assert_true(receive(f, 2).any);
    assert_int_equal(f->value, 2);
    reply = text_reply("[{\"n\":\"a\",\"v\":3}]");
    reply.type = 0;
    reply.max_age_s = 1;
    reply.observe = 11;
    answer(f, &request, &reply, 101);
    assert_true(receive(f, 2).any);
    assert_int_equal(f->scans, 2);
    /* over the turn of 24 bits */
    reply.observe = 0xfffffe;
    for (int i = 0; i < 3; i++) {
        reply.observe = i == 0 ? 0x7ffff0 : i == 1 ? 0xffffd0 : 5;
        answer(f, &request, &reply, (uint16_t)(102 + i));
        assert_true(receive(f, 2).any);
        assert_int_equal(f->scans, 3 + i);
    }
    /* Max-Age and grace pass: it registers anew, from another port */
    int64_t quiet_ms = clock_mono_ms();
    struct request again = receive(f, 0);
    assert_true(again.any && again.observes);
    assert_true(again.from.sin_port != request.from.sin_port);
    assert_true(clock_mono_ms() - quiet_ms < 5000);
    /* what still comes for the old one is not taken, and does no harm */
    answer(f, &request, &reply, 200);
    reply = text_reply("[{\"n\":\"a\",\"v\":9}]");
    reply.observe = 1;
    answer(f, &again, &reply, 0);
    wait_scans(f, 6);
    assert_int_equal(f->value, 9);
    assert_int_equal(f->device.health.failures, 0);
}

/* A sensor that observes nothing is asked at the pace of `poll`. */
static void not_observable(void **state)
{
    struct fixture *f = *state;
    start(f, COAP_MODE_OBSERVE);
    for (unsigned i = 1; i <= 3; i++) {
        struct request request = receive(f, 0);
        struct reply reply = text_reply("[{\"n\":\"a\",\"v\":1}]");
        answer(f, &request, &reply, 0);
        wait_scans(f, i);
    }
}

/* A notification that nobody asked for is reset, so that the sensor stops (RFC 7641 section 3.6).
 */
static void unwanted_notifications(void **state)
{
    struct fixture *f = *state;
    start(f, COAP_MODE_OBSERVE);
    struct request request = receive(f, 0), other = request;
    struct reply reply = text_reply("[{\"n\":\"a\",\"v\":1}]");
    reply.observe = 1;
    answer(f, &request, &reply, 0);
    wait_scans(f, 1);
    other.token[0] ^= 1;
    reply.type = 0;
    reply.observe = 2;
    answer(f, &other, &reply, 300);
    assert_true(receive(f, 3).any);
    assert_int_equal(f->scans, 1);
}

static void send_reset(struct fixture *f, const struct request *request)
{
    const uint8_t reset[] = {0x70, 0, request->mid[0], request->mid[1]};
    assert_int_equal(sendto(f->sensor, reset, sizeof(reset), 0,
                            (const struct sockaddr *)&request->from, sizeof(request->from)),
                     sizeof(reset));
}

/* A sensor that promises to be silent for an hour is pinged; one that is gone is found out within
 * seconds, and asked anew from another port. */
static void kept_alive(void **state)
{
    struct fixture *f = *state;
    f->settings.keepalive_ms = 200;
    start(f, COAP_MODE_OBSERVE);
    struct request request = receive(f, 0);
    struct reply reply = text_reply("[{\"n\":\"a\",\"v\":1}]");
    reply.observe = 1;
    reply.max_age_s = 255;
    answer(f, &request, &reply, 0);
    wait_scans(f, 1);
    for (int i = 0; i < 2; i++) {
        struct request ping = receive(f, 0);
        assert_true(ping.any && !ping.observes);
        assert_int_equal(ping.from.sin_port, request.from.sin_port);
        send_reset(f, &ping);
    }
    int64_t quiet_ms = clock_mono_ms();
    struct request again = {0};
    while (!again.observes && clock_mono_ms() - quiet_ms < PEER_PONG_MS + 5000) {
        again = receive(f, 0);
    }
    assert_true(again.observes && again.from.sin_port != request.from.sin_port);
    answer(f, &again, &reply, 0);
    wait_scans(f, 2);
    assert_int_equal(f->device.health.failures, 0);
}

struct question {
    struct driver_request request; /* first */
    int calls, error;
    char why[80];
    json_t *result;
};

static void on_done(struct driver_request *request, int error, const char *why, json_t *result)
{
    struct question *question = (struct question *)request;
    question->calls++;
    question->error = error;
    snprintf(question->why, sizeof(question->why), "%s", why == NULL ? "" : why);
    question->result = result;
}

/* Questions from outside: answered beside the schedule, bounded, ended with the device. */
static void read_now(void **state)
{
    struct fixture *f = *state;
    struct question questions[5 + 1] = {0};
    const size_t point = 0;
    f->config.poll_ms = 60000;
    start(f, COAP_MODE_GET);
    for (size_t i = 0; i < ARRAY_SIZE(questions); i++) {
        questions[i].request = (struct driver_request){.deadline_ms = clock_mono_ms() + 60000,
                                                       .points = &point,
                                                       .point_count = 1,
                                                       .done = on_done};
    }
    assert_int_equal(coap_driver.read_now(f->state, &f->device, &questions[0].request), 0);
    struct request request = receive(f, 0);
    struct reply reply = text_reply("[{\"n\":\"a\",\"v\":21.5}]");
    answer(f, &request, &reply, 0);
    for (int i = 0; i < ROUNDS_MAX && questions[0].calls == 0; i++) {
        turn(f);
    }
    assert_int_equal(questions[0].error, 0);
    json_t *shown = json_array_get(json_object_get(questions[0].result, "points"), 0);
    assert_true(json_number_value(json_object_get(shown, "raw_value")) == 21.5);
    json_decref(questions[0].result);
    assert_int_equal(f->scans, 0);
    for (size_t i = 1; i < ARRAY_SIZE(questions); i++) {
        assert_int_equal(coap_driver.read_now(f->state, &f->device, &questions[i].request),
                         i == ARRAY_SIZE(questions) - 1 ? -EBUSY : 0);
    }
    coap_driver.remove(f->state, &f->device);
    for (size_t i = 1; i < ARRAY_SIZE(questions) - 1; i++) {
        assert_int_equal(questions[i].calls, 1);
        assert_int_equal(questions[i].error, -ECANCELED);
    }
    start(f, COAP_MODE_GET);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(polled, set_up, tear_down),
        cmocka_unit_test_setup_teardown(answers_of_others, set_up, tear_down),
        cmocka_unit_test_setup_teardown(endless_body, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bodies_in_blocks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(notifications, set_up, tear_down),
        cmocka_unit_test_setup_teardown(not_observable, set_up, tear_down),
        cmocka_unit_test_setup_teardown(unwanted_notifications, set_up, tear_down),
        cmocka_unit_test_setup_teardown(kept_alive, set_up, tear_down),
        cmocka_unit_test_setup_teardown(read_now, set_up, tear_down),
    };
    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
