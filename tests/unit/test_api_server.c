/* The bounds of the listening side: connections, idle and dripping peers, sizes, answers that come
 * late or never. */
#include "gateway/api/later.h"
#include "gateway/api/listen.h"
#include "gateway/api/reply.h"
#include "gateway/api/server.h"
#include "tests/unit/http_peer.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/stat.h>
/* clang-format off: cmocka needs the ones above */
#include <cmocka.h>
/* clang-format on */

enum { CONNECTIONS = 4, IDLE_MS = 300 };

/* A server with two addresses: /now answers, everything else opens a ticket that the test keeps. */
struct bench {
    char dir[64], path[96];
    struct event_base *base;
    struct server *server;
    struct later *later;
    struct event *stop;
    int stop_fd;
    pthread_t thread;
    pthread_mutex_t lock;
    struct ticket *tickets[LATER_TICKETS_MAX];
    size_t ticket_count;
    _Atomic size_t refused;
};

static void handle(struct server *server, struct evhttp_request *request, void *user)
{
    (void)server;
    struct bench *bench = user;
    const char *uri = evhttp_request_get_uri(request);
    struct ticket *ticket;
    if (uri == NULL || strcmp(uri, "/now") == 0) {
        auto_buffer struct buffer body = {0};
        buffer_add_text(&body, "{\"now\":true}");
        reply_send(request, 200, REPLY_JSON, &body);
    } else if (ticket_open(bench->later, request, &ticket) == 0) {
        pthread_mutex_lock(&bench->lock);
        bench->tickets[bench->ticket_count++] = ticket;
        pthread_mutex_unlock(&bench->lock);
    } else {
        bench->refused++;
        reply_error(request, 503, "busy", "too many");
    }
}

static void on_stop(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    event_base_loopbreak(user);
}

static void *run(void *user)
{
    event_base_dispatch(((struct bench *)user)->base);
    return NULL;
}

static int set_up_with(void **state, size_t connections)
{
    struct bench *bench = calloc(1, sizeof *bench);
    snprintf(bench->dir, sizeof bench->dir, "/tmp/test_api.XXXXXX");
    if (mkdtemp(bench->dir) == NULL) {
        return -1;
    }
    snprintf(bench->path, sizeof bench->path, "%s/s", bench->dir);
    char why[200];
    int fd = -1, pair[2];
    if (listen_unix(bench->path, &fd, why, sizeof why) < 0 || pipe(pair) < 0) {
        return -1;
    }
    pthread_mutex_init(&bench->lock, NULL);
    bench->base = event_base_new();
    bench->stop_fd = pair[1];
    bench->stop = event_new(bench->base, pair[0], EV_READ, on_stop, bench->base);
    event_add(bench->stop, NULL);
    const struct server_options options = {.connections_max = connections,
                                           .idle_ms = IDLE_MS,
                                           .answer_ms = 10 * IDLE_MS,
                                           .handle = handle,
                                           .user = bench};
    if (later_create(bench->base, &bench->later) < 0 ||
        server_create(bench->base, fd, &options, &bench->server) < 0) {
        return -1;
    }
    *state = bench;
    return pthread_create(&bench->thread, NULL, run, bench);
}

static int set_up(void **state)
{
    return set_up_with(state, CONNECTIONS);
}

static int set_up_wide(void **state)
{
    return set_up_with(state, SERVER_CONNECTIONS_MAX);
}

static void stop(struct bench *bench)
{
    close(bench->stop_fd);
    pthread_join(bench->thread, NULL);
    later_destroy(bench->later);
    server_destroy(bench->server);
    bench->server = NULL;
}

static int tear_down(void **state)
{
    struct bench *bench = *state;
    if (bench->server != NULL) {
        stop(bench);
    }
    close(event_get_fd(bench->stop));
    event_free(bench->stop);
    event_base_free(bench->base);
    unlink(bench->path);
    rmdir(bench->dir);
    pthread_mutex_destroy(&bench->lock);
    free(bench);
    return 0;
}

static int status_of(struct bench *bench, const char *request)
{
    auto_close int fd = peer_unix(bench->path);
    assert_true(fd >= 0);
    peer_say(fd, request);
    auto_buffer struct buffer heard = {0};
    peer_hear(fd, &heard, NULL);
    return peer_status(&heard);
}

#define NOW "GET /now HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

static void test_socket_mode_and_answer(void **state)
{
    struct bench *bench = *state;
    struct stat st;
    assert_int_equal(stat(bench->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0660);
    assert_int_equal(status_of(bench, NOW), 200);
}

/* At the bound the next connection waits; it is served as soon as a place is free. */
static void test_connections_bound(void **state)
{
    struct bench *bench = *state;
    int held[CONNECTIONS];
    for (size_t i = 0; i < CONNECTIONS; i++) {
        held[i] = peer_unix(bench->path);
        peer_say(held[i], "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    auto_close int next = peer_unix(bench->path);
    assert_true(next >= 0);
    peer_say(next, NOW);
    struct pollfd p = {.fd = next, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 2 * SERVER_SWEEP_MS), 0);
    while (true) { /* until all four tickets are open */
        pthread_mutex_lock(&bench->lock);
        size_t count = bench->ticket_count;
        pthread_mutex_unlock(&bench->lock);
        if (count == CONNECTIONS) {
            break;
        }
    }
    for (size_t i = 0; i < CONNECTIONS; i++) {
        ticket_answer(bench->tickets[i], 200, json_pack("{s:i}", "n", (int)i), NULL);
        close(held[i]);
    }
    auto_buffer struct buffer heard = {0};
    assert_true(peer_hear(next, &heard, NULL));
    assert_int_equal(peer_status(&heard), 200);
}

static void test_idle_peer_is_cut(void **state)
{
    struct bench *bench = *state;
    auto_close int silent = peer_unix(bench->path);
    assert_true(peer_is_cut(silent));
    auto_close int kept = peer_unix(bench->path);
    peer_say(kept, "GET /now HTTP/1.1\r\nHost: x\r\n\r\n");
    auto_buffer struct buffer heard = {0};
    assert_true(peer_hear(kept, &heard, "now\":true"));
    assert_true(peer_is_cut(kept));
}

/* A byte now and then keeps evhttp's own time-out away, but not ours. */
static void test_dripping_peer_is_cut(void **state)
{
    struct bench *bench = *state;
    auto_close int fd = peer_unix(bench->path);
    static const char text[] = "GET /now HTTP/1.1\r\nHost: x\r\nX-Long: ";
    bool cut = false;
    for (size_t i = 0; i < 200 && !cut; i++) {
        char c[2] = {i < sizeof text - 1 ? text[i] : 'x', 0};
        peer_say(fd, c);
        struct pollfd p = {.fd = fd, .events = POLLIN};
        cut = poll(&p, 1, 20) > 0;
    }
    assert_true(cut);
}

static void test_sizes(void **state)
{
    struct bench *bench = *state;
    auto_buffer struct buffer text = {0};
    buffer_add_text(&text, "GET /now HTTP/1.1\r\nHost: x\r\nX: ");
    for (int i = 0; i < SERVER_HEADERS_MAX; i++) {
        buffer_add_byte(&text, 'x');
    }
    buffer_add_text(&text, "\r\nConnection: close\r\n\r\n");
    assert_int_not_equal(status_of(bench, buffer_text(&text)), 200);
    char post[200];
    snprintf(post, sizeof post,
             "POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nConnection: close\r\n\r\nx",
             SERVER_BODY_MAX + 1);
    assert_int_equal(status_of(bench, post), 413);
    assert_int_equal(status_of(bench, "POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: "
                                      "99999999999999999999\r\n\r\n"),
                     413);
    assert_int_equal(status_of(bench, NOW), 200);
}

static void test_rubbish_does_not_hurt(void **state)
{
    struct bench *bench = *state;
    static const char *const rubbish[] = {
        "\r\n\r\n\r\n",
        "GET\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "GET /now HTTP/9.9\r\n\r\n",
        "POST /now HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "GET /now HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n"};
    for (size_t i = 0; i < ARRAY_SIZE(rubbish); i++) {
        status_of(bench, rubbish[i]);
    }
    assert_int_equal(status_of(bench, NOW), 200);
}

static void wait_for_tickets(struct bench *bench, size_t count)
{
    for (int i = 0; i < PEER_LIMIT_MS / 5; i++) {
        pthread_mutex_lock(&bench->lock);
        size_t have = bench->ticket_count;
        pthread_mutex_unlock(&bench->lock);
        if (have >= count) {
            return;
        }
        poll(NULL, 0, 5);
    }
    fail_msg("no ticket");
}

static void test_late_answer(void **state)
{
    struct bench *bench = *state;
    auto_close int fd = peer_unix(bench->path);
    peer_say(fd, "GET /later HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    wait_for_tickets(bench, 1);
    ticket_answer(bench->tickets[0], 502, json_pack("{s:s}", "a", "b"), NULL);
    auto_buffer struct buffer heard = {0};
    assert_true(peer_hear(fd, &heard, NULL));
    assert_int_equal(peer_status(&heard), 502);
    assert_string_equal(peer_body(&heard), "{\"a\":\"b\"}");
}

/* The client leaves before the answer, and the api stops before another one. */
static void test_nobody_waits_for_the_answer(void **state)
{
    struct bench *bench = *state;
    int fd = peer_unix(bench->path);
    peer_say(fd, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for_tickets(bench, 1);
    close(fd);
    ticket_answer(bench->tickets[0], 200, json_object(), NULL);
    fd = peer_unix(bench->path);
    peer_say(fd, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for_tickets(bench, 2);
    stop(bench);
    auto_buffer struct buffer body = {0};
    buffer_add_text(&body, "{}");
    ticket_answer(bench->tickets[1], 200, NULL, &body);
    close(fd);
}

static void test_tickets_bound(void **state)
{
    struct bench *bench = *state;
    int fds[LATER_TICKETS_MAX];
    for (size_t i = 0; i < LATER_TICKETS_MAX; i++) {
        fds[i] = peer_unix(bench->path);
        peer_say(fds[i], "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
        wait_for_tickets(bench, i + 1);
    }
    static const char one_more[] = "GET /later HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_int_equal(status_of(bench, one_more), 503);
    assert_int_equal(bench->refused, 1);
    for (size_t i = 0; i < LATER_TICKETS_MAX; i++) {
        ticket_answer(bench->tickets[i], 200, json_object(), NULL);
        auto_buffer struct buffer heard = {0};
        assert_true(peer_hear(fds[i], &heard, "{}"));
        close(fds[i]);
    }
}

static void test_stale_socket_is_replaced(void **state)
{
    struct bench *bench = *state;
    char why[200] = "";
    int fd = -1;
    assert_int_equal(listen_unix(bench->path, &fd, why, sizeof why), -EADDRINUSE);
    assert_non_null(strstr(why, "another windrowd"));
    stop(bench);
    assert_int_equal(access(bench->path, F_OK), 0);
    assert_int_equal(listen_unix(bench->path, &fd, why, sizeof why), 0);
    close(fd);
    char longer[200];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(listen_unix(longer, &fd, why, sizeof why), -ENAMETOOLONG);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_socket_mode_and_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_connections_bound, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_idle_peer_is_cut, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_dripping_peer_is_cut, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_sizes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rubbish_does_not_hurt, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_late_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nobody_waits_for_the_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_tickets_bound, set_up_wide, tear_down),
        cmocka_unit_test_setup_teardown(test_stale_socket_is_replaced, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
