/* The simulator over TCP: read by libmodbus, which we did not write, and by bare sockets where a
 * turbine misbehaves. */
#include "drivers/modbus/mbap.h"
#include "drivers/simulator/sim_fault.h"
#include "drivers/simulator/sim_signal.h"
#include "drivers/simulator/simulator.h"
#include "gateway/base/address.h"
#include "gateway/base/clock.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/thread.h>
#include <modbus.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/wait.h>
/* clang-format off: cmocka needs the ones above */
#include <cmocka.h>
/* clang-format on */

struct fixture {
    struct event_base *base;
    struct simulator *simulator;
    pthread_t thread;
    char *printed;
    size_t printed_len;
    FILE *out;
    sem_t running;
    bool halted;
};

static void say_running(evutil_socket_t fd, short events, void *user)
{
    (void)fd, (void)events;
    sem_post(user);
}

static void *run_base(void *user)
{
    event_base_loop(user, EVLOOP_NO_EXIT_ON_EMPTY);
    return NULL;
}

static void start(struct fixture *f, struct simulator_options options)
{
    char error[SIMULATOR_ERROR_SIZE];
    options.listen = "127.0.0.1:0";
    options.seed = 1;
    *f = (struct fixture){.base = event_base_new()};
    f->out = open_memstream(&f->printed, &f->printed_len);
    if (simulator_create(&options, f->base, f->out, &f->simulator, error) < 0) {
        fail_msg("%s", error);
    }
    /* A loop that has not begun would forget halt()'s break. */
    const struct timeval now = {0};
    sem_init(&f->running, 0, 0);
    event_base_once(f->base, -1, EV_TIMEOUT, say_running, &f->running, &now);
    assert_int_equal(pthread_create(&f->thread, NULL, run_base, f->base), 0);
    sem_wait(&f->running);
}

static void halt(struct fixture *f)
{
    if (!f->halted) {
        event_base_loopbreak(f->base);
        pthread_join(f->thread, NULL);
        f->halted = true;
    }
}

/* Returns the summary. */
static json_t *stop(struct fixture *f)
{
    halt(f);
    json_t *summary = simulator_summary(f->simulator);
    assert_int_equal(simulator_destroy(f->simulator), 0);
    event_base_free(f->base);
    fclose(f->out);
    free(f->printed);
    return summary;
}

static void assert_count(const json_t *summary, const char *name, json_int_t expected)
{
    json_int_t value = json_integer_value(json_object_get(summary, name));
    if (value != expected) {
        fail_msg("%s is %lld, expected %lld", name, (long long)value, (long long)expected);
    }
}

static modbus_t *connect_modbus(const struct fixture *f, unsigned turbine)
{
    modbus_t *m = modbus_new_tcp("127.0.0.1", simulator_port(f->simulator) + (int)turbine - 1);
    modbus_set_slave(m, 1);
    modbus_set_response_timeout(m, 5, 0);
    assert_int_equal(modbus_connect(m), 0);
    return m;
}

static void test_libmodbus(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (struct simulator_options){.turbines = 3, .step_ms = 3600000});
    for (unsigned turbine = 1; turbine <= 3; turbine++) {
        modbus_t *m = connect_modbus(&f, turbine);
        uint16_t values[MODBUS_MAX_READ_REGISTERS];
        uint8_t bit = 0;
        struct sim_signal expected;
        sim_signal_init(&expected, 1, turbine);
        assert_int_equal(modbus_read_registers(m, 0, 21, values), 21);
        assert_memory_equal(values, expected.registers, 2 * 21);
        assert_int_equal(modbus_read_input_registers(m, 100, 100, values), 100);
        assert_memory_equal(values, expected.fillers, 2 * 100);
        assert_int_equal(modbus_read_input_bits(m, 0, 1, &bit), 1);
        assert_int_equal(bit, expected.grid_ok ? 1 : 0);
        assert_int_equal(modbus_write_register(m, SIM_PITCH, 300), 1);
        assert_int_equal(modbus_read_registers(m, SIM_PITCH, 1, values), 1);
        assert_int_equal(values[0], 300);
        values[0] = 250;
        assert_int_equal(modbus_write_registers(m, SIM_PITCH, 1, values), 1);
        assert_int_equal(modbus_write_register(m, SIM_PITCH, 9001), -1);
        assert_int_equal(errno, EMBXILVAL);
        assert_int_equal(modbus_read_registers(m, 40, 1, values), -1);
        assert_int_equal(errno, EMBXILADD);
        modbus_set_slave(m, 2);
        assert_int_equal(modbus_read_registers(m, 0, 1, values), -1);
        assert_int_equal(errno, EMBXGTAR);
        modbus_close(m);
        modbus_free(m);
    }
    json_t *summary = stop(&f);
    assert_count(summary, "registers", 3 * (21 + 100 + 1));
    assert_count(summary, "points", 3 * (7 + 100 + 1 + 1));
    assert_count(summary, "writes", 6);
    json_decref(summary);
}

/* ---- bare sockets ---- */

static int connect_plain(const struct fixture *f)
{
    struct sockaddr_storage address;
    socklen_t len;
    assert_int_equal(address_parse("127.0.0.1:1", &address, &len), 0);
    address_set_port(&address, simulator_port(f->simulator));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, len), 0);
    return fd;
}

static void ask(int fd, uint16_t transaction)
{
    uint8_t frame[MBAP_HEADER_SIZE + MBAP_PDU_MAX];
    struct mbap_request request = {.function = MBAP_READ_HOLDING, .first = 0, .count = 7};
    int len = mbap_encode_request(&request, frame + MBAP_HEADER_SIZE);
    mbap_write_header(frame, transaction, 1, (size_t)len);
    assert_int_equal(send(fd, frame, MBAP_HEADER_SIZE + (size_t)len, MSG_NOSIGNAL),
                     MBAP_HEADER_SIZE + len);
}

enum { ANSWER = MBAP_HEADER_SIZE + 2 + 14 };

/* What comes until `want` bytes are there, the other side closes or ms have passed. */
static size_t receive(int fd, uint8_t *bytes, size_t want, int64_t ms)
{
    size_t len = 0;
    int64_t until = clock_mono_ms() + ms;
    while (len < want) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        int64_t left = until - clock_mono_ms();
        if (left <= 0 || poll(&wait, 1, (int)left) != 1) {
            break;
        }
        ssize_t n = recv(fd, bytes + len, want - len, 0);
        if (n <= 0) {
            break;
        }
        len += (size_t)n;
    }
    return len;
}

static bool is_closed(int fd)
{
    char byte;
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    return poll(&wait, 1, 3000) == 1 && recv(fd, &byte, 1, 0) <= 0;
}

static bool is_true_answer(const uint8_t *bytes, uint16_t transaction)
{
    struct mbap_frame frame;
    struct mbap_request request = {.function = MBAP_READ_HOLDING, .first = 0, .count = 7};
    struct mbap_reply reply;
    return mbap_parse_frame(bytes, ANSWER, &frame) == ANSWER && frame.transaction == transaction &&
           frame.unit == 1 && mbap_parse_reply(&request, frame.pdu, frame.pdu_len, &reply) == 0 &&
           reply.exception == 0;
}

static void test_dead(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (struct simulator_options){.turbines = 1, .fault = "dead:1"});
    int fd auto_close = connect_plain(&f);
    uint8_t bytes[ANSWER];
    ask(fd, 1);
    assert_int_equal(receive(fd, bytes, 1, 300), 0);
    json_t *summary = stop(&f);
    assert_count(summary, "registers", 0);
    json_decref(summary);
}

static void test_absent(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (struct simulator_options){.turbines = 2, .fault = "absent:1"});
    modbus_t *m = modbus_new_tcp("127.0.0.1", simulator_port(f.simulator));
    assert_int_equal(modbus_connect(m), -1);
    assert_int_equal(errno, ECONNREFUSED);
    modbus_free(m);
    json_decref(stop(&f));
}

static void test_slow(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (struct simulator_options){.turbines = 1, .fault = "slow:1"});
    int fd auto_close = connect_plain(&f);
    uint8_t bytes[2 * ANSWER];
    int64_t begun = clock_mono_ms();
    ask(fd, 1);
    ask(fd, 2); /* waits behind the first */
    assert_int_equal(receive(fd, bytes, sizeof bytes, 10000), sizeof bytes);
    assert_true(clock_mono_ms() - begun >= 2 * SIM_SLOW_MS - 20);
    assert_true(is_true_answer(bytes, 1) && is_true_answer(bytes + ANSWER, 2));
    json_t *summary = stop(&f);
    assert_count(summary, "rounds", 2);
    json_decref(summary);
}

static void test_drip(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (struct simulator_options){.turbines = 1, .fault = "drip:1"});
    int fd auto_close = connect_plain(&f);
    uint8_t bytes[ANSWER];
    int64_t begun = clock_mono_ms();
    ask(fd, 1);
    assert_int_equal(receive(fd, bytes, ANSWER, 10000), ANSWER);
    assert_true(clock_mono_ms() - begun >= (ANSWER - 1) * SIM_DRIP_MS);
    assert_true(is_true_answer(bytes, 1));
    json_decref(stop(&f));
}

/* Five lies, each one different, then the truth; only that is counted. */
static void test_lying(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (struct simulator_options){.turbines = 1, .fault = "lying:1"});
    int fd auto_close = connect_plain(&f);
    uint8_t bytes[ANSWER];
    for (uint16_t i = 1; i <= 6; i++) {
        ask(fd, i);
        assert_int_equal(receive(fd, bytes, ANSWER, 3000), ANSWER);
        assert_int_equal(is_true_answer(bytes, i), i == 6);
    }
    json_t *summary = stop(&f);
    assert_count(summary, "requests", 6);
    assert_count(summary, "registers", 7);
    json_decref(summary);
}

static void test_torn_and_closing(void **state)
{
    (void)state;
    struct fixture f;
    uint8_t bytes[ANSWER];
    start(&f, (struct simulator_options){.turbines = 1, .fault = "torn:1"});
    int fd = connect_plain(&f);
    ask(fd, 1);
    assert_int_equal(receive(fd, bytes, ANSWER, 3000), ANSWER / 2);
    assert_true(is_closed(fd));
    close(fd);
    fd = connect_plain(&f);
    ask(fd, 2);
    assert_int_equal(receive(fd, bytes, ANSWER, 3000), ANSWER);
    assert_true(is_true_answer(bytes, 2));
    close(fd);
    json_t *summary = stop(&f);
    assert_count(summary, "registers", 7);
    json_decref(summary);
    start(&f, (struct simulator_options){.turbines = 1, .fault = "closing:1"});
    fd = connect_plain(&f);
    ask(fd, 1);
    assert_int_equal(receive(fd, bytes, ANSWER, 3000), ANSWER);
    assert_true(is_closed(fd));
    close(fd);
    json_decref(stop(&f));
}

static void test_garbage_and_bound(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (struct simulator_options){.turbines = 1});
    int fd = connect_plain(&f);
    assert_int_equal(send(fd, "GET / HTTP/1.1\r\n\r\n", 18, MSG_NOSIGNAL), 18);
    assert_true(is_closed(fd));
    close(fd);
    int held[SIMULATOR_CONNECTIONS_MAX];
    uint8_t bytes[ANSWER];
    for (int i = 0; i < SIMULATOR_CONNECTIONS_MAX; i++) {
        held[i] = connect_plain(&f);
        ask(held[i], 1);
        assert_int_equal(receive(held[i], bytes, ANSWER, 3000), ANSWER);
    }
    fd = connect_plain(&f);
    assert_true(is_closed(fd));
    close(fd);
    for (int i = 0; i < SIMULATOR_CONNECTIONS_MAX; i++) {
        close(held[i]);
    }
    json_decref(stop(&f));
}

/* ---- replay and record ---- */

static void read_replay(const struct fixture *f, int rounds)
{
    modbus_t *m = connect_modbus(f, 1);
    for (int i = 0; i < rounds; i++) {
        uint16_t values[4];
        assert_int_equal(modbus_read_registers(m, 0, 2, values), 2);
        assert_int_equal(modbus_read_registers(m, 2, 2, values + 2), 2);
    }
    modbus_close(m);
    modbus_free(m);
}

static void test_replay_recorded(void **state)
{
    (void)state;
    char csv[] = "/tmp/test_sim_csv_XXXXXX", record[] = "/tmp/test_sim_rec_XXXXXX";
    static const char text[] = "time,a,b\nx,1,-0.01\ny,,3\n";
    int fd = mkstemp(csv);
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    close(fd);
    close(mkstemp(record));
    struct fixture f;
    start(&f, (struct simulator_options){
                  .turbines = 2, .replay = csv, .record = record, .step_by_poll = true});
    read_replay(&f, 3);
    halt(&f); /* so that what it printed can be read */
    assert_string_equal(f.printed, "{\"replay\":\"done\",\"turbine\":1,\"rows\":2}\n");
    json_t *summary = stop(&f);
    assert_count(summary, "rounds", 3);
    assert_count(summary, "points", 6);
    assert_count(summary, "registers", 12);
    json_decref(summary);
    static const char *const expected[] = {
        "\"round\":1,\"step\":0,|\"first\":0,\"values\":[0,100]}",
        "\"round\":1,\"step\":0,|\"first\":2,\"values\":[65535,65535]}",
        "\"round\":2,\"step\":1,|\"first\":0,\"values\":[32768,0]}",
        "\"round\":2,\"step\":1,|\"first\":2,\"values\":[0,300]}",
        "\"round\":3,\"step\":1,|\"first\":0,\"values\":[32768,0]}",
        "\"round\":3,\"step\":1,|\"first\":2,\"values\":[0,300]}",
    };
    FILE *file = fopen(record, "re");
    char line[256];
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
        assert_non_null(fgets(line, sizeof line, file));
        size_t head = strcspn(expected[i], "|");
        assert_memory_equal(line + strlen("{\"turbine\":1,"), expected[i], head);
        assert_non_null(strstr(line, expected[i] + head + 1));
    }
    assert_null(fgets(line, sizeof line, file));
    fclose(file);
    unlink(csv);
    unlink(record);
}

static void test_errors(void **state)
{
    (void)state;
    char error[SIMULATOR_ERROR_SIZE];
    struct simulator *s;
    struct event_base *base = event_base_new();
    struct simulator_options options = {.listen = "nowhere", .turbines = 1};
    assert_true(simulator_create(&options, base, stdout, &s, error) < 0);
    assert_non_null(strstr(error, "IP:PORT"));
    options = (struct simulator_options){.listen = "127.0.0.1:0", .turbines = 2, .fault = "dead:3"};
    assert_true(simulator_create(&options, base, stdout, &s, error) < 0);
    assert_non_null(strstr(error, "turbine from 1 to 2"));
    options = (struct simulator_options){.listen = "127.0.0.1:65535", .turbines = 2};
    assert_true(simulator_create(&options, base, stdout, &s, error) < 0);
    options = (struct simulator_options){
        .listen = "127.0.0.1:0", .turbines = 1, .record = "/nonexistent/record"};
    assert_true(simulator_create(&options, base, stdout, &s, error) < 0);
    assert_non_null(strstr(error, "/nonexistent/record"));
    event_base_free(base);
}

/* More sockets than the usual 1,024 descriptors. */
static void test_many(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, (struct simulator_options){.turbines = 770});
    int fds[770];
    uint8_t bytes[ANSWER];
    struct sockaddr_storage address;
    socklen_t len;
    assert_int_equal(address_parse("127.0.0.1:1", &address, &len), 0);
    for (unsigned i = 0; i < 770; i++) {
        address_set_port(&address, (uint16_t)(simulator_port(f.simulator) + i));
        fds[i] = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(connect(fds[i], (struct sockaddr *)&address, len), 0);
        ask(fds[i], (uint16_t)i);
    }
    for (unsigned i = 0; i < 770; i++) {
        assert_int_equal(receive(fds[i], bytes, ANSWER, 5000), ANSWER);
        assert_true(is_true_answer(bytes, (uint16_t)i));
        close(fds[i]);
    }
    json_t *summary = stop(&f);
    assert_count(summary, "registers", 770 * 7);
    json_decref(summary);
}

/* As a process: the first line tells the port, SIGTERM brings the last one. */
static void test_process(void **state)
{
    (void)state;
    int out[2];
    assert_int_equal(pipe(out), 0);
    pid_t child = fork();
    if (child == 0) {
        const struct simulator_options options = {
            .listen = "127.0.0.1:0", .turbines = 2, .seed = 1, .step_ms = 1000};
        close(out[0]);
        FILE *to = fdopen(out[1], "w");
        int status = simulator_run(&options, to);
        fclose(to);
        _exit(status);
    }
    close(out[1]);
    FILE *from = fdopen(out[0], "r");
    char line[1024];
    int port = 0, status = -1;
    assert_non_null(fgets(line, sizeof line, from));
    assert_int_equal(sscanf(line, "{\"listening\":\"127.0.0.1:%d\"", &port), 1);
    assert_true(port > 0);
    kill(child, SIGTERM);
    assert_non_null(fgets(line, sizeof line, from));
    assert_non_null(strstr(line, "{\"turbines\":2,\"requests\":0,"));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    fclose(from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_process), /* first: it forks, and later there are threads */
        cmocka_unit_test(test_many), /* raises the bound on descriptors, which its client needs */
        cmocka_unit_test(test_libmodbus),
        cmocka_unit_test(test_dead),
        cmocka_unit_test(test_absent),
        cmocka_unit_test(test_slow),
        cmocka_unit_test(test_drip),
        cmocka_unit_test(test_lying),
        cmocka_unit_test(test_torn_and_closing),
        cmocka_unit_test(test_garbage_and_bound),
        cmocka_unit_test(test_replay_recorded),
        cmocka_unit_test(test_errors),
    };
    evthread_use_pthreads();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
