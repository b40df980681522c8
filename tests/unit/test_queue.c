#include "gateway/pipeline/queue.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
/* clang-format off: cmocka needs the ones above */
#include <cmocka.h>
/* clang-format on */

/* A scan of `count` readings with `text_len` bytes of text; free it. */
static struct scan *make_scan(uint64_t seq, size_t count, size_t text_len)
{
    struct scan *scan = calloc(1, scan_size_for(count, text_len));
    assert_non_null(scan);
    scan->seq = seq;
    scan->count = (uint16_t)count;
    scan->text_len = (uint32_t)text_len;
    for (size_t i = 0; i < count; i++) {
        scan->readings[i].integer = (int64_t)(seq * 1000 + i);
    }
    return scan;
}

static int push(struct queue *q, uint64_t seq, size_t count, size_t text_len)
{
    auto_free struct scan *scan = make_scan(seq, count, text_len);
    struct queue_entry head = {.kind = QUEUE_SCAN, .readings = (uint16_t)count};
    return queue_push(q, &head, scan, scan_size(scan));
}

static void expect(struct queue *q, uint64_t seq)
{
    struct queue_entry *entry = queue_take(q);
    assert_non_null(entry);
    const struct scan *scan = (const struct scan *)entry->payload;
    assert_int_equal(scan->seq, seq);
    if (scan->count > 0) {
        assert_int_equal(scan->readings[scan->count - 1].integer, seq * 1000 + scan->count - 1U);
    }
}

static void test_order_and_bound_in_readings(void **state)
{
    (void)state;
    struct queue *q;
    assert_int_equal(queue_create(100, &q), 0);
    for (uint64_t i = 1; i <= 10; i++) {
        assert_true(queue_has_room(q, 10));
        assert_int_equal(push(q, i, 10, 0), 0);
    }
    assert_false(queue_has_room(q, 1));
    assert_int_equal(push(q, 11, 1, 0), -ENOBUFS);
    assert_int_equal(push(q, 12, 0, 0), 0); /* nothing to bound but its bytes */
    struct queue_entry control = {.kind = QUEUE_RETIRE};
    assert_int_equal(queue_push(q, &control, NULL, 0), 0);
    for (uint64_t i = 1; i <= 10; i++) {
        expect(q, i);
    }
    expect(q, 12);
    assert_int_equal(queue_take(q)->kind, QUEUE_RETIRE);
    assert_null(queue_take(q));
    assert_int_equal(queue_readings(q), 100); /* room comes back with the release only */
    queue_release(q);
    assert_int_equal(queue_readings(q), 0);
    assert_int_equal(queue_peak(q), 100);
    queue_destroy(q);
}

static void test_bound_in_bytes_leaves_a_reserve(void **state)
{
    (void)state;
    struct queue *q;
    assert_int_equal(queue_create(1 << 20, &q), 0);
    uint64_t n = 0;
    while (push(q, n + 1, 1, SCAN_TEXT_MAX) == 0) {
        n++;
    }
    assert_in_range(n, QUEUE_SCAN_BYTES / (SCAN_TEXT_MAX + 200), QUEUE_SCAN_BYTES / SCAN_TEXT_MAX);
    size_t controls = 0;
    struct queue_entry control = {.kind = QUEUE_ADD};
    while (queue_push(q, &control, NULL, 0) == 0) {
        controls++;
    }
    assert_in_range(controls, QUEUE_CONTROL_RESERVE / sizeof control, 2 * QUEUE_SCAN_BYTES);
    for (uint64_t i = 1; i <= n; i++) {
        expect(q, i);
    }
    queue_release(q);
    assert_int_equal(push(q, 1, 1, 0), 0);
    queue_destroy(q);
}

static void test_pushes_are_bounded(void **state)
{
    (void)state;
    struct queue *q;
    assert_int_equal(queue_create(1 << 16, &q), 0);
    auto_free struct scan *scan = make_scan(1, 1, 0);
    struct queue_entry head = {
        .kind = QUEUE_SCAN, .readings = 1, .durable = (void (*)(void *, int))(uintptr_t)1};
    for (size_t i = 0; i < QUEUE_PUSHES_MAX; i++) {
        assert_int_equal(queue_push(q, &head, scan, scan_size(scan)), 0);
    }
    assert_int_equal(queue_push(q, &head, scan, scan_size(scan)), -ENOBUFS);
    queue_push_settled(q);
    assert_int_equal(queue_push(q, &head, scan, scan_size(scan)), 0);
    queue_destroy(q);
}

/* Sizes that never divide the ring, so that every way of meeting its end comes up. */
static void test_wraps_whole_entries(void **state)
{
    (void)state;
    struct queue *q;
    assert_int_equal(queue_create(1 << 20, &q), 0);
    uint64_t in = 0, out = 0;
    unsigned random = 7;
    for (size_t round = 0; round < 20000; round++) {
        random = random * 1103515245 + 12345;
        size_t burst = (random >> 16) % 40;
        for (size_t i = 0; i < burst; i++) {
            random = random * 1103515245 + 12345;
            if (push(q, in + 1, (random >> 16) % 300, (random >> 8) % 2000) == 0) {
                in++;
            }
        }
        random = random * 1103515245 + 12345;
        size_t take = (random >> 16) % 40;
        for (size_t i = 0; i < take && out < in; i++) {
            expect(q, ++out);
        }
        queue_release(q);
    }
    while (out < in) {
        expect(q, ++out);
    }
    assert_null(queue_take(q));
    assert_true(in > 100000);
    queue_destroy(q);
}

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void test_wakes_for_what_cannot_wait(void **state)
{
    (void)state;
    struct queue *q;
    bool pushed;
    assert_int_equal(queue_create(100, &q), 0);
    assert_int_equal(push(q, 1, 10, 0), 0);
    int64_t start = now_ms();
    assert_false(queue_wait(q, 50, &pushed)); /* a plain scan waits for its commit */
    assert_true(now_ms() - start >= 49);
    assert_int_equal(push(q, 2, 15, 0), 0); /* a quarter */
    assert_true(queue_wait(q, 60000, &pushed));
    assert_false(pushed);
    expect(q, 1);
    expect(q, 2);
    queue_release(q);
    struct queue_entry control = {.kind = QUEUE_ADD};
    assert_int_equal(queue_push(q, &control, NULL, 0), 0);
    assert_true(queue_wait(q, 60000, &pushed));
    assert_false(queue_wait(q, 0, &pushed));
    queue_wake(q);
    assert_true(queue_wait(q, 60000, &pushed));
    queue_destroy(q);
}

enum { PRODUCERS = 4, SCANS_EACH = 20000 };

struct producer {
    struct queue *queue;
    uint64_t refused;
    size_t id;
};

static void *produce(void *arg)
{
    struct producer *producer = arg;
    for (uint64_t i = 1; i <= SCANS_EACH; i++) {
        auto_free struct scan *scan = make_scan(i, i % 7, i % 50);
        scan->device = (uint32_t)producer->id;
        struct queue_entry head = {.kind = QUEUE_SCAN, .readings = scan->count};
        while (queue_push(producer->queue, &head, scan, scan_size(scan)) < 0) {
            producer->refused++;
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        }
    }
    return NULL;
}

static void test_many_producers_keep_their_order(void **state)
{
    (void)state;
    struct queue *q;
    assert_int_equal(queue_create(2000, &q), 0);
    struct producer producers[PRODUCERS];
    pthread_t threads[PRODUCERS];
    for (size_t i = 0; i < PRODUCERS; i++) {
        producers[i] = (struct producer){.queue = q, .id = i};
        assert_int_equal(pthread_create(&threads[i], NULL, produce, &producers[i]), 0);
    }
    uint64_t last[PRODUCERS] = {0};
    size_t total = 0;
    while (total < PRODUCERS * SCANS_EACH) {
        bool pushed;
        queue_wait(q, 5, &pushed);
        for (struct queue_entry *e; (e = queue_take(q)) != NULL; total++) {
            const struct scan *scan = (const struct scan *)e->payload;
            assert_int_equal(scan->seq, last[scan->device] + 1);
            last[scan->device]++;
            if (total % 64 == 0) {
                queue_release(q);
            }
        }
        queue_release(q);
    }
    for (size_t i = 0; i < PRODUCERS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(queue_readings(q), 0);
    queue_destroy(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_and_bound_in_readings),
        cmocka_unit_test(test_bound_in_bytes_leaves_a_reserve),
        cmocka_unit_test(test_pushes_are_bounded),
        cmocka_unit_test(test_wraps_whole_entries),
        cmocka_unit_test(test_wakes_for_what_cannot_wait),
        cmocka_unit_test(test_many_producers_keep_their_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
