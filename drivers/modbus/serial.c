#include "drivers/modbus/serial.h"

#include "gateway/base/clock.h"

#include <errno.h>
#include <linux/serial.h>
#include <modbus.h>
#include <poll.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>

enum { MS_NS = 1000000, US_NS = 1000 };

static const char parities[] = {'N', 'E', 'O'};

struct rtu_line serial_line(const struct serial_settings *settings)
{
    unsigned parity = settings->parity != SERIAL_NONE ? 1 : 0;
    return (struct rtu_line){
        .baud = (unsigned)settings->baud,
        .bits = 1 + (unsigned)settings->data_bits + parity + (unsigned)settings->stop_bits,
    };
}

bool serial_knows_baud(int64_t baud)
{
    static const int64_t known[] = {300,   600,    1200,   2400,   4800,   9600,   19200,  38400,
                                    57600, 115200, 230400, 460800, 500000, 576000, 921600, 1000000};
    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (known[i] == baud) {
            return true;
        }
    }
    return false;
}

int serial_parse_port(const char *text, char ret_port[256], struct serial_settings *ret_settings)
{
    struct serial_settings settings = {.port = ret_port,
                                       .baud = 19200,
                                       .parity = SERIAL_EVEN,
                                       .data_bits = 8,
                                       .stop_bits = 1,
                                       .broadcast_pause_ms = 100};
    const char *colon = strrchr(text, ':');
    /* Names in /dev/serial/by-path hold colons of their own. */
    bool has_mode = colon != NULL && strchr(colon, '/') == NULL && colon[1] >= '0' &&
                    colon[1] <= '9' && strpbrk(colon, "NEO") != NULL;
    size_t len = has_mode ? (size_t)(colon - text) : strlen(text);
    if (text[0] != '/' || len > 255) {
        return -EINVAL;
    }
    if (has_mode) {
        char *end = NULL;
        settings.baud = strtol(colon + 1, &end, 10);
        const char *parity = memchr(parities, end[0], sizeof(parities));
        if (parity == NULL || (end[1] != '1' && end[1] != '2') || end[2] != '\0' ||
            !serial_knows_baud(settings.baud)) {
            return -EINVAL;
        }
        settings.parity = (int)(parity - parities);
        settings.stop_bits = end[1] - '0';
    }
    memcpy(ret_port, text, len);
    ret_port[len] = '\0';
    *ret_settings = settings;
    return 0;
}

/* modbus_rtu_set_serial_mode() would only set SER_RS485_ENABLED: neither polarity nor delays. */
static int set_rs485(int fd, const struct serial_settings *settings)
{
    if (settings->rs485 == SERIAL_RS485_OFF) {
        return 0;
    }
    struct serial_rs485 rs485 = {
        .flags = SER_RS485_ENABLED |
                 (settings->rs485 == SERIAL_RTS_ON_SEND ? SER_RS485_RTS_ON_SEND
                                                        : SER_RS485_RTS_AFTER_SEND),
        .delay_rts_before_send = (uint32_t)settings->rts_before_ms,
        .delay_rts_after_send = (uint32_t)settings->rts_after_ms,
    };
    return ioctl(fd, TIOCSRS485, &rs485) == 0 ? 0 : -errno;
}

static int open_port(struct serial *serial, char *ret_why, size_t why_size)
{
    const struct serial_settings *settings = serial->settings;
    if (modbus_connect(serial->modbus) != 0) {
        int error = errno != 0 ? errno : EIO;
        const char *hint = error == ENOTTY   ? " (not a serial port)"
                           : error == ENOENT ? " (unplugged, or under another name now?)"
                                             : "";
        snprintf(ret_why, why_size, "cannot be opened: %s%s", strerror(error), hint);
        return -error;
    }
    serial->fd = modbus_get_socket(serial->modbus);
    /* Two masters on one line would take each other's replies. */
    if (flock(serial->fd, LOCK_EX | LOCK_NB) != 0) {
        snprintf(ret_why, why_size, "another program uses it");
        return -EBUSY;
    }
    int r = set_rs485(serial->fd, settings);
    if (r != 0) {
        snprintf(ret_why, why_size, "its driver cannot switch RS-485 (TIOCSRS485): %s",
                 strerror(-r));
    }
    return r;
}

int serial_open(struct serial *serial, const struct serial_settings *settings, int stop_fd,
                char *ret_why, size_t why_size)
{
    *serial = (struct serial){
        .settings = settings, .fd = -1, .stop_fd = stop_fd, .line = serial_line(settings)};
    serial->modbus = modbus_new_rtu(settings->port, (int)settings->baud, parities[settings->parity],
                                    (int)settings->data_bits, (int)settings->stop_bits);
    if (serial->modbus == NULL) {
        snprintf(ret_why, why_size, "cannot be set so: %s", modbus_strerror(errno));
        return errno == ENOMEM ? -ENOMEM : -EINVAL;
    }
    int r = open_port(serial, ret_why, why_size);
    if (r != 0) {
        serial_close(serial);
        return r;
    }
    modbus_flush(serial->modbus);
    serial->quiet_ns = clock_mono_ns();
    return 0;
}

void serial_close(struct serial *serial)
{
    if (serial->modbus == NULL) {
        return;
    }
    /* Without this, close() may wait for half a minute until the output has left. */
    modbus_flush(serial->modbus);
    modbus_close(serial->modbus);
    modbus_free(serial->modbus);
    serial->modbus = NULL;
    serial->fd = -1;
}

/* 1: bytes (or a hang-up) wait, 0: the time is over, -ECANCELED: stopped. */
static int wait_until(struct serial *serial, bool for_bytes, int64_t until_ns)
{
    for (;;) {
        struct pollfd fds[] = {{.fd = serial->stop_fd, .events = POLLIN},
                               {.fd = for_bytes ? serial->fd : -1, .events = POLLIN}};
        int64_t left_ns = until_ns - clock_mono_ns();
        left_ns = left_ns > 0 ? left_ns : 0;
        const struct timespec left = {left_ns / 1000000000, left_ns % 1000000000};
        int r = ppoll(fds, ARRAY_SIZE(fds), &left, NULL);
        if (r < 0 && errno != EINTR) {
            return -errno;
        }
        if (r > 0) {
            return fds[0].revents != 0 ? -ECANCELED : 1;
        }
        if (r == 0) {
            return 0;
        }
    }
}

/* Bytes read, 0 when none wait after all, -errno when the port is gone. */
static int read_bytes(struct serial *serial, uint8_t *data, size_t size)
{
    ssize_t n = read(serial->fd, data, size);
    if (n > 0) {
        serial->quiet_ns = clock_mono_ns();
        return (int)n;
    }
    return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : n < 0 ? -errno : -EIO;
}

/* Throws away what comes until the line has been silent for quiet_ms: a late reply would be taken
 * for the answer to the next request. */
static int drain(struct serial *serial, int64_t quiet_ms, unsigned *mismatches)
{
    uint8_t waste[RTU_FRAME_MAX];
    int64_t end_ns = clock_mono_ns() + (int64_t)SERIAL_DRAIN_MAX_MS * MS_NS;
    bool any = false;
    int r = 1;
    while (r > 0) {
        int64_t until_ns = clock_mono_ns() + quiet_ms * MS_NS;
        r = wait_until(serial, true, until_ns < end_ns ? until_ns : end_ns);
        if (r > 0) {
            r = read_bytes(serial, waste, sizeof(waste));
            any = any || r > 0;
            r = r < 0 ? r : clock_mono_ns() < end_ns;
        }
    }
    *mismatches += any;
    modbus_flush(serial->modbus);
    return r;
}

static int send_frame(struct serial *serial, uint8_t unit, const struct mbap_request *request,
                      int64_t *ret_end_ns)
{
    uint8_t raw[1 + MBAP_PDU_MAX] = {unit};
    int len = mbap_encode_request(request, raw + 1);
    if (len < 0) {
        return len;
    }
    /* Adds the CRC. */
    int sent = modbus_send_raw_request(serial->modbus, raw, 1 + len);
    if (sent < 0) {
        return errno != 0 ? -errno : -EIO;
    }
    *ret_end_ns = clock_mono_ns() + US_NS * rtu_bytes_us(serial->line, (size_t)sent);
    serial->quiet_ns = *ret_end_ns;
    return 0;
}

/* Takes the frames in reply->frame[0..*len): 1 when the answer is there, 0 when it is still to
 * come, -EPROTO when the line is out of step. Frames of other units are late or foreign. */
static int take_frames(uint8_t unit, const struct mbap_request *request, struct serial_reply *reply,
                       size_t *len, struct mbap_reply *ret_values)
{
    struct rtu_frame frame;
    int size;
    while ((size = rtu_parse_reply(reply->frame, *len, &frame)) > 0) {
        if (frame.unit == unit) {
            reply->pdu = frame.pdu;
            reply->pdu_len = frame.pdu_len;
            return mbap_parse_reply(request, frame.pdu, frame.pdu_len, ret_values) == 0 ? 1
                                                                                        : -EPROTO;
        }
        reply->mismatches++;
        *len -= (size_t)size;
        memmove(reply->frame, reply->frame + size, *len);
    }
    return size < 0 || *len == sizeof(reply->frame) ? -EPROTO : 0;
}

static int receive(struct serial *serial, uint8_t unit, const struct mbap_request *request,
                   int64_t sent_ns, int64_t timeout_ms, struct serial_reply *reply,
                   struct mbap_reply *ret_values)
{
    size_t len = 0;
    int64_t first_ns = sent_ns + timeout_ms * MS_NS;
    int64_t whole_ns = US_NS * rtu_bytes_us(serial->line, RTU_FRAME_MAX);
    int64_t end_ns = first_ns + whole_ns + (int64_t)SERIAL_SLACK_MS * MS_NS;
    for (;;) {
        int64_t until_ns = first_ns;
        if (len > 0) {
            until_ns = serial->quiet_ns + (int64_t)SERIAL_BYTE_GAP_MS * MS_NS;
            until_ns = until_ns < end_ns ? until_ns : end_ns;
        }
        int r = wait_until(serial, true, until_ns);
        if (r <= 0) {
            return r < 0 ? r : len > 0 ? -EPROTO : -ETIMEDOUT;
        }
        r = read_bytes(serial, reply->frame + len, sizeof(reply->frame) - len);
        if (r < 0) {
            return r;
        }
        len += (size_t)r;
        r = take_frames(unit, request, reply, &len, ret_values);
        if (r != 0) {
            return r < 0 ? r : 0;
        }
        if (len > 0 && clock_mono_ns() >= end_ns) {
            return -EPROTO;
        }
    }
}

/* The silence that must be before a frame; what came in meanwhile is nobody's answer. */
static int wait_for_turn(struct serial *serial, int64_t pause_ms, unsigned *mismatches)
{
    int64_t gap_ns = US_NS * rtu_gap_us(serial->line);
    int64_t least_ns = serial->settings->frame_gap_ms * MS_NS;
    gap_ns = gap_ns > least_ns ? gap_ns : least_ns;
    gap_ns = gap_ns > pause_ms * MS_NS ? gap_ns : pause_ms * MS_NS;
    int waiting = 0;
    if (ioctl(serial->fd, FIONREAD, &waiting) == 0 && waiting > 0) {
        int r = drain(serial, 1 + gap_ns / MS_NS, mismatches);
        return r < 0 ? r : 0;
    }
    int64_t until_ns = serial->quiet_ns + gap_ns;
    return clock_mono_ns() < until_ns ? wait_until(serial, false, until_ns) : 0;
}

int serial_exchange(struct serial *serial, uint8_t unit, const struct mbap_request *request,
                    int64_t timeout_ms, int64_t pause_ms, struct serial_reply *ret_reply,
                    struct mbap_reply *ret_values)
{
    int64_t sent_ns = 0;
    ret_reply->pdu = NULL;
    ret_reply->pdu_len = 0;
    ret_reply->mismatches = 0;
    *ret_values = (struct mbap_reply){0};
    int r = wait_for_turn(serial, pause_ms, &ret_reply->mismatches);
    int64_t began_ns = clock_mono_ns();
    if (r == 0) {
        r = send_frame(serial, unit, request, &sent_ns);
    }
    if (r == 0 && unit == RTU_BROADCAST) {
        return wait_until(serial, false, sent_ns + serial->settings->broadcast_pause_ms * MS_NS);
    }
    if (r == 0) {
        r = receive(serial, unit, request, sent_ns, timeout_ms, ret_reply, ret_values);
    }
    ret_reply->rtt_us = (clock_mono_ns() - began_ns) / US_NS;
    if (r == -ETIMEDOUT || r == -EPROTO) {
        int64_t quiet_ms = r == -EPROTO ? RTU_QUIET_MIN_MS : rtu_quiet_ms(timeout_ms);
        int drained = drain(serial, quiet_ms, &ret_reply->mismatches);
        r = drained < 0 ? drained : r;
    }
    return r;
}
