/* What an observation costs: the coap driver against libcoap's own client loop, both fed by the
 * same forked server, which notifies of one small SenML pack again and again; taken in turns,
 * medians.
 *
 * Prints JSON lines {"bench","name","value","unit","limit","ratio"}; ratio is driver / bare, and
 * the exit status is 1 when it is over its limit. The driver's side ends where the pipeline begins:
 * scans are counted. The bare loop acknowledges and counts, and decodes nothing. */
#include "drivers/coap/coap.h"
#include "drivers/coap/coap_loop.h"
#include "drivers/coap/settings.h"
#include "gateway/base/clock.h"
#include "gateway/base/log.h"

#include <arpa/inet.h>
#include <event2/event.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

enum { OBSERVERS = 50, RATE = 20, SECONDS = 4, TURNS = 3 }; /* RATE notifications a second each */

#define CPU_LIMIT 3.0 /* SenML is decoded, scans are made */

static uint64_t scans;

int scan_submit(struct device *device, struct scan *scan)
{
    (void)device;
    scans += scan->count > 0 ? 1 : 0;
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

static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *what)
{
    perror(what);
    exit(2);
}

/* ---- the server ---- */

static const char pack[] = "[{\"bn\":\"mast/\",\"n\":\"wind\",\"u\":\"m/s\",\"v\":11.83},"
                           "{\"n\":\"dir\",\"v\":16.1},{\"n\":\"temp\",\"v\":11.2},"
                           "{\"n\":\"ok\",\"vb\":true}]";

static void on_get(coap_resource_t *resource, coap_session_t *session, const coap_pdu_t *request,
                   const coap_string_t *query, coap_pdu_t *response)
{
    uint8_t format[2];
    (void)resource;
    (void)session;
    (void)request;
    (void)query;
    coap_pdu_set_code(response, COAP_RESPONSE_CODE_CONTENT);
    coap_add_option(response, COAP_OPTION_CONTENT_FORMAT,
                    coap_encode_var_safe(format, sizeof(format), 110), format);
    coap_add_data(response, sizeof(pack) - 1, (const uint8_t *)pack);
}

static coap_address_t loopback(uint16_t port)
{
    const struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return coap_loop_address((const struct sockaddr *)&at, sizeof(at));
}

static void serve(uint16_t port)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    coap_address_t at = loopback(port);
    coap_context_t *context = coap_new_context(NULL);
    coap_resource_t *resource = coap_resource_init(coap_make_str_const("senml"),
                                                   COAP_RESOURCE_FLAGS_NOTIFY_NON_ALWAYS);
    if (context == NULL || resource == NULL ||
        coap_new_endpoint(context, &at, COAP_PROTO_UDP) == NULL) {
        die("server");
    }
    coap_register_request_handler(resource, COAP_REQUEST_GET, on_get);
    coap_resource_set_get_observable(resource, 1);
    coap_add_resource(context, resource);
    for (int64_t next_ms = clock_mono_ms();;) {
        int64_t left_ms = next_ms - clock_mono_ms();
        if (left_ms <= 0) {
            coap_resource_notify_observers(resource, NULL);
            next_ms += 1000 / RATE;
            left_ms = 1;
        }
        coap_io_process(context, (uint32_t)left_ms);
    }
}

/* ---- the two clients ---- */

static uint64_t answers;

static coap_response_t on_bare(coap_session_t *session, const coap_pdu_t *sent,
                               const coap_pdu_t *received, const coap_mid_t mid)
{
    (void)session;
    (void)sent;
    (void)received;
    (void)mid;
    answers++;
    return COAP_RESPONSE_OK;
}

static void observe_bare(coap_context_t *context, const coap_address_t *at, unsigned i)
{
    coap_session_t *session = coap_new_client_session(context, NULL, at, COAP_PROTO_UDP);
    coap_pdu_t *pdu = session == NULL ? NULL
                                      : coap_pdu_init(COAP_MESSAGE_CON, COAP_REQUEST_CODE_GET,
                                                      coap_new_message_id(session), 256);
    if (pdu == NULL) {
        die("session");
    }
    coap_add_token(pdu, sizeof(i), (const uint8_t *)&i);
    coap_add_option(pdu, COAP_OPTION_OBSERVE, 0, NULL);
    coap_add_option(pdu, COAP_OPTION_URI_PATH, 5, (const uint8_t *)"senml");
    coap_send(session, pdu);
}

static void stop(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    event_base_loopbreak(user);
}

/* CPU seconds a notification, of a base that runs for SECONDS. */
static double measure(struct event_base *base, const uint64_t *count, double *ret_rate)
{
    const struct timeval warm = {1, 0}, length = {SECONDS, 0};
    event_base_once(base, -1, EV_TIMEOUT, stop, base, &warm);
    event_base_dispatch(base);
    uint64_t before = *count;
    double cpu = cpu_s();
    event_base_once(base, -1, EV_TIMEOUT, stop, base, &length);
    event_base_dispatch(base);
    uint64_t got = *count - before;
    *ret_rate = (double)got / SECONDS;
    return (cpu_s() - cpu) / (double)(got > 0 ? got : 1);
}

static double run_bare(uint16_t port, double *ret_rate)
{
    struct event_base *base = event_base_new();
    struct coap_loop loop;
    coap_address_t at = loopback(port);
    if (base == NULL || coap_loop_init(&loop, base, NULL, NULL) != 0) {
        die("loop");
    }
    coap_register_response_handler(loop.context, on_bare);
    for (unsigned i = 0; i < OBSERVERS; i++) {
        observe_bare(loop.context, &at, i);
    }
    coap_loop_kick(&loop);
    double cpu = measure(base, &answers, ret_rate);
    coap_loop_finish(&loop);
    event_base_free(base);
    return cpu;
}

static double run_driver(uint16_t port, double *ret_rate)
{
    static struct coap_point addresses[4];
    static struct config_point points[4];
    static const char *const sources[] = {"senml wind", "senml dir", "senml temp", "senml ok"};
    static struct device devices[OBSERVERS];
    char uri[64], why[100];
    snprintf(uri, sizeof(uri), "coap://127.0.0.1:%u/senml", port);
    const struct coap_settings settings = {
        .address = uri, .mode = COAP_MODE_OBSERVE, .grace_ms = 5000};
    for (size_t i = 0; i < ARRAY_SIZE(points); i++) {
        points[i] = (struct config_point){
            .name = sources[i] + 6, .source = sources[i], .address = &addresses[i], .every = 1};
        if (coap_parse_point(&points[i], &settings, &addresses[i], why, sizeof(why)) != 0) {
            die(why);
        }
    }
    const struct config_device config = {.name = "mast",
                                         .points = {points, ARRAY_SIZE(points)},
                                         .poll_ms = 1000,
                                         .timeout_ms = 1000,
                                         .settings = &settings};
    struct event_base *base = event_base_new();
    void *state;
    if (base == NULL || coap_driver.create(base, NULL, &state) != 0) {
        die("driver");
    }
    for (size_t i = 0; i < OBSERVERS; i++) {
        devices[i] = (struct device){.config = &config, .id = (uint32_t)i};
        if (coap_driver.add(state, &devices[i]) != 0) {
            die("device");
        }
    }
    double cpu = measure(base, &scans, ret_rate);
    for (size_t i = 0; i < OBSERVERS; i++) {
        coap_driver.remove(state, &devices[i]);
    }
    coap_driver.destroy(state);
    event_base_free(base);
    return cpu;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double values[TURNS])
{
    qsort(values, TURNS, sizeof(*values), compare);
    return values[TURNS / 2];
}

int main(void)
{
    double bare[TURNS], driver[TURNS], bare_rate[TURNS], driver_rate[TURNS];
    uint16_t port = (uint16_t)(20000 + getpid() % 10000);
    log_set_level(LOG_LEVEL_ERROR);
    pid_t server = fork();
    if (server == 0) {
        serve(port);
    }
    for (int i = 0; i < TURNS; i++) {
        bare[i] = run_bare(port, &bare_rate[i]) * 1e6;
        driver[i] = run_driver(port, &driver_rate[i]) * 1e6;
    }
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    double of_bare = median(bare), of_driver = median(driver), ratio = of_driver / of_bare;
    double wanted = (double)OBSERVERS * RATE, rate = median(driver_rate);
    printf("{\"bench\":\"coap\",\"name\":\"bare\",\"value\":%.2f,\"unit\":\"us/notification\","
           "\"limit\":null,\"ratio\":null}\n",
           of_bare);
    printf("{\"bench\":\"coap\",\"name\":\"driver\",\"value\":%.2f,\"unit\":\"us/notification\","
           "\"limit\":%.2f,\"ratio\":%.2f}\n",
           of_driver, CPU_LIMIT, ratio);
    printf("{\"bench\":\"coap\",\"name\":\"rate\",\"value\":%.0f,\"unit\":\"notifications/s\","
           "\"limit\":%.0f,\"ratio\":%.2f}\n",
           rate, wanted, rate / wanted);
    return ratio <= CPU_LIMIT && rate >= 0.95 * wanted ? 0 : 1;
}
