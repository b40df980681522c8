#include "drivers/modbus/bus.h"
#include "drivers/modbus/show.h"
#include "gateway/base/log.h"
#include "gateway/cli/cli.h"

#include <errno.h>
#include <event2/event.h>
#include <math.h>
#include <string.h>

enum { TIMEOUT_MS = 2000, REGISTERS_MAX = 65536 };

/* One run of the command. */
struct poll {
    struct session_request request; /* first */
    struct event_base *base;
    struct wire *wire;
    const char *address;
    bool serial, rtu;
    char port[256];
    struct serial_settings line;
    char trouble[160]; /* of the serial port */
    uint8_t table;
    unsigned from, count, taken;
    uint8_t *data; /* registers as on the wire; bits one a byte */
    struct session_result result;
};

static int run_poll(int argc, char **argv);

const struct command command_poll = {
    .name = "poll",
    .arguments = "ADDRESS --unit N TABLE FROM COUNT",
    .summary = "reads registers of any Modbus device, as they are",
    .help = "  ADDRESS         HOST or HOST:PORT (502); or a serial port with its speed, parity\n"
            "                  and stop bits: /dev/ttyUSB0:19200E1\n"
            "  TABLE           holding, input, coil or discrete\n"
            "  FROM            the first address as on the wire, from 0; 0x1F also\n"
            "  COUNT           how many; more than a request carries take several\n"
            "  --unit N        unit identifier (1)\n"
            "  --rtu           RTU frames over TCP, to a serial server\n"
            "  --timeout N     milliseconds to wait for each answer (2000)\n",
    .run = run_poll,
};

static bool is_bits(const struct poll *poll)
{
    return registers_table_has_bits(poll->table);
}

static int ask_next(struct poll *poll)
{
    unsigned most = is_bits(poll) ? MBAP_READ_BITS_MAX : MBAP_READ_REGISTERS_MAX;
    unsigned left = poll->count - poll->taken;
    poll->request.ask = (struct mbap_request){
        .function = registers_read_function(poll->table),
        .first = (uint16_t)(poll->from + poll->taken),
        .count = (uint16_t)(left < most ? left : most),
    };
    return wire_submit(poll->wire, &poll->request, false);
}

static void on_result(struct session_request *request, const struct session_result *result)
{
    struct poll *poll = (struct poll *)request;
    poll->result = *result;
    if (result->error == DEVICE_ERROR_NONE) {
        for (unsigned i = 0; is_bits(poll) && i < request->ask.count; i++) {
            poll->data[poll->taken + i] = result->data[i / 8] >> (i % 8) & 1;
        }
        if (!is_bits(poll)) {
            memcpy(poll->data + 2 * (size_t)poll->taken, result->data, result->data_len);
        }
        poll->taken += request->ask.count;
        if (poll->taken < poll->count && ask_next(poll) == 0) {
            return;
        }
    }
    event_base_loopbreak(poll->base);
}

static int read_serial(struct poll *poll)
{
    struct bus *bus;
    log_set_level(LOG_LEVEL_ERROR); /* the result says it all */
    int r = bus_create(poll->base, "poll", &poll->line, &bus);
    if (r != 0) {
        return r;
    }
    poll->wire = bus_wire(bus);
    r = ask_next(poll);
    if (r == 0) {
        event_base_dispatch(poll->base);
    }
    bus_trouble(bus, poll->trouble, sizeof(poll->trouble));
    wire_put(poll->wire);
    return r;
}

static int read_network(struct poll *poll)
{
    struct schedule *schedule = NULL;
    struct session_pool *pool = NULL;
    struct session *session = NULL;
    int r = schedule_create(poll->base, &schedule);
    if (r == 0) {
        r = session_pool_create(poll->base, schedule, poll->rtu ? SESSION_RTU : SESSION_MBAP,
                                &pool);
    }
    if (r == 0) {
        r = session_get(pool, poll->address, (struct session_pauses){0}, &session);
    }
    if (r == 0) {
        poll->wire = session_wire(session);
        r = ask_next(poll);
    }
    if (r == 0) {
        event_base_dispatch(poll->base);
    }
    session_put(session);
    session_pool_destroy(pool);
    schedule_destroy(schedule);
    return r;
}

static int read_all(struct poll *poll)
{
    poll->base = event_base_new();
    if (poll->base == NULL) {
        return -ENOMEM;
    }
    int r = poll->serial ? read_serial(poll) : read_network(poll);
    event_base_free(poll->base);
    return r;
}

static void describe_failure(const struct poll *poll, char *text, size_t size)
{
    const struct session_result *result = &poll->result;
    if (poll->trouble[0] != '\0') {
        snprintf(text, size, "%s %s", poll->port, poll->trouble);
        return;
    }
    switch (result->error) {
    case DEVICE_ERROR_EXCEPTION:
        snprintf(text, size, "the device answered with exception %d: %s", result->detail,
                 mbap_exception_name((unsigned)result->detail));
        break;
    case DEVICE_ERROR_CONNECT:
        snprintf(text, size, "no connection: %s", strerror(result->detail));
        break;
    case DEVICE_ERROR_RESOLVE:
        snprintf(text, size, "the name has no address");
        break;
    case DEVICE_ERROR_TIMEOUT:
        snprintf(text, size, "no answer within %lld ms%s", (long long)poll->request.timeout_ms,
                 result->mismatches > 0 ? "; what came was late or of another unit" : "");
        break;
    case DEVICE_ERROR_CLOSED:
        snprintf(text, size, "the device closed the connection");
        break;
    default:
        snprintf(text, size, "what came is not a Modbus answer to this request%s",
                 poll->serial ? ": noise, or another speed or parity?" : "");
        break;
    }
}

static double float_at(const uint8_t *data, unsigned order)
{
    const struct registers_point point = {
        .type = REGISTERS_FLOAT32, .order = (uint8_t)order, .width = 2};
    struct reading reading = {0};
    char text[REGISTERS_TEXT_MAX];
    registers_decode(&point, data, &reading, text);
    return reading.kind == VALUE_FLOAT ? reading.real : (double)NAN;
}

static void print_registers(const struct poll *poll)
{
    printf("%7s  %6s  %6s  %6s  %11s  %11s  %14s  %14s\n", "address", "hex", "int16", "uint16",
           "int32 ABCD", "int32 CDAB", "float32 ABCD", "float32 CDAB");
    for (unsigned i = 0; i < poll->count; i++) {
        const uint8_t *at = poll->data + 2 * (size_t)i;
        unsigned word = mbap_get16(at);
        printf("%7u  0x%04x  %6d  %6u", poll->from + i, word, (int16_t)word, word);
        if (i + 1 < poll->count) {
            printf("  %11d  %11d  %14.6g  %14.6g", (int32_t)registers_raw(at, 2, REGISTERS_ABCD),
                   (int32_t)registers_raw(at, 2, REGISTERS_CDAB), float_at(at, REGISTERS_ABCD),
                   float_at(at, REGISTERS_CDAB));
        }
        putchar('\n');
    }
}

static void print_bits(const struct poll *poll)
{
    for (unsigned i = 0; i < poll->count; i++) {
        printf("%7u  %u\n", poll->from + i, poll->data[i]);
    }
}

static json_t *show_all(const struct poll *poll)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < poll->count && is_bits(poll); i++) {
        json_array_append_new(list, json_pack("{s:i, s:b}", "address", (int)(poll->from + i),
                                              "value", (int)poll->data[i]));
    }
    for (unsigned i = 0; i < poll->count && !is_bits(poll); i++) {
        const uint8_t *at = poll->data + 2 * (size_t)i;
        json_t *one = show_decodings(at, 1);
        json_object_set_new(one, "address", json_integer(poll->from + i));
        json_object_set_new(one, "hex", json_sprintf("0x%04x", mbap_get16(at)));
        json_object_set_new(one, "int16", json_integer((int16_t)mbap_get16(at)));
        json_object_set_new(one, "uint16", json_integer(mbap_get16(at)));
        json_object_del(one, "bcd16");
        if (i + 1 < poll->count) {
            json_t *pair = show_decodings(at, 2);
            json_object_update(one, pair);
            json_decref(pair);
        }
        json_array_append_new(list, one);
    }
    return list;
}

static void print_json(const struct poll *poll, const char *failure)
{
    json_t *all = json_pack("{s:s, s:i, s:s}", "address", poll->address, "unit",
                            (int)poll->request.unit, "table", registers_table_name(poll->table));
    if (failure != NULL) {
        json_object_set_new(all, "error", json_string(failure));
    } else {
        json_object_set_new(all, "rtt_ms", json_real((double)poll->result.rtt_us / 1000));
        json_object_set_new(all, is_bits(poll) ? "bits" : "registers", show_all(poll));
    }
    json_dumpf(all, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(all);
}

/* A whole number in words[i], "0x" too. */
static int parse_number(const char *word, long least, long most, long *ret_number)
{
    char *end = NULL;
    errno = 0;
    long number = word != NULL && word[0] >= '0' && word[0] <= '9' ? strtol(word, &end, 0) : -1;
    if (errno != 0 || end == NULL || *end != '\0' || number < least || number > most) {
        return -EINVAL;
    }
    *ret_number = number;
    return 0;
}

/* Fills poll from the command line; CLI_GO or the exit status. */
static int parse_words(const struct cli *cli, const char *unit, const char *timeout,
                       struct poll *poll)
{
    char host[256];
    uint16_t port;
    long unit_number = 1, timeout_ms = TIMEOUT_MS, from, count;
    poll->address = cli->words[0];
    poll->serial = poll->address[0] == '/';
    if (poll->serial && serial_parse_port(poll->address, poll->port, &poll->line) != 0) {
        return cli_usage_error(&command_poll, "'%s' is not PORT or PORT:19200E1", poll->address);
    }
    if (!poll->serial && session_split_address(poll->address, host, &port) != 0) {
        return cli_usage_error(&command_poll, "'%s' is not HOST or HOST:PORT", poll->address);
    }
    bool line = poll->serial || poll->rtu;
    long least = line ? 1 : 0, most = line ? RTU_UNIT_MAX : 255;
    if (unit != NULL && parse_number(unit, least, most, &unit_number) != 0) {
        return cli_usage_error(&command_poll, "--unit takes a number from %ld to %ld", least, most);
    }
    if (timeout != NULL && parse_number(timeout, 1, 600000, &timeout_ms) != 0) {
        return cli_usage_error(&command_poll, "--timeout takes milliseconds, 1 to 600000");
    }
    if (registers_parse_table(cli->words[1], &poll->table) != 0) {
        return cli_usage_error(&command_poll, "'%s' is none of holding input coil discrete",
                               cli->words[1]);
    }
    if (parse_number(cli->words[2], 0, REGISTERS_MAX - 1, &from) != 0 ||
        parse_number(cli->words[3], 1, REGISTERS_MAX - from, &count) != 0) {
        return cli_usage_error(&command_poll, "FROM and COUNT lie outside addresses 0 to 65535");
    }
    poll->request.unit = (uint8_t)unit_number;
    poll->request.timeout_ms = timeout_ms;
    poll->from = (unsigned)from;
    poll->count = (unsigned)count;
    return CLI_GO;
}

static int report(const struct cli *cli, const struct poll *poll)
{
    bool good = poll->taken == poll->count;
    char failure[448];
    describe_failure(poll, failure, sizeof(failure));
    if (cli->json) {
        print_json(poll, good ? NULL : failure);
    } else if (!good) {
        fprintf(stderr, "windrow poll: %s\n", failure);
    } else if (is_bits(poll)) {
        print_bits(poll);
    } else {
        print_registers(poll);
    }
    return good ? COMMAND_GOOD : COMMAND_NOT_WELL;
}

static int run_poll(int argc, char **argv)
{
    const char *unit = NULL, *timeout = NULL;
    struct poll poll = {.request.done = on_result};
    const struct cli_option options[] = {{.name = "--unit", .value = &unit},
                                         {.name = "--rtu", .flag = &poll.rtu},
                                         {.name = "--timeout", .value = &timeout}};
    struct cli cli;
    int r = cli_parse(&command_poll, argc, argv, options, ARRAY_SIZE(options), 4, 4, &cli);
    if (r == CLI_GO) {
        r = parse_words(&cli, unit, timeout, &poll);
    }
    if (r != CLI_GO) {
        return r;
    }
    poll.data = calloc((size_t)poll.count + 1, 2);
    r = poll.data == NULL ? -ENOMEM : read_all(&poll);
    if (r == 0) {
        r = report(&cli, &poll);
    } else {
        fprintf(stderr, "windrow poll: %s\n", strerror(-r));
        r = COMMAND_NOT_WELL;
    }
    free(poll.data);
    return r;
}
