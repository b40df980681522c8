/* serial.h - one serial port as a Modbus RTU master: opened and set, one exchange at a time.
 *
 * The bus thread only; it blocks on the port, and wakes up at once when `stop_fd` becomes readable.
 * libmodbus opens and sets the port and sends. Replies are received here, with poll() instead of
 * its select(): a descriptor above 1023 does no harm, a device that drips bytes cannot hold the
 * bus, and a stop is prompt (libmodbus 3.1.6 does none of these). */
#pragma once

#include "drivers/modbus/rtu.h"

enum serial_parity { SERIAL_NONE, SERIAL_EVEN, SERIAL_ODD };

enum serial_transmitter {
    SERIAL_RS485_OFF,     /* the adapter does it, or the line is RS-232 */
    SERIAL_RTS_ON_SEND,   /* RTS high while sending */
    SERIAL_RTS_AFTER_SEND /* RTS low while sending */
};

struct serial_settings {
    const char *port;
    int64_t baud, data_bits, stop_bits;
    int parity; /* enum serial_parity */
    int rs485;  /* enum serial_transmitter */
    int64_t rts_before_ms, rts_after_ms;
    int64_t frame_gap_ms; /* at least; t3.5 always */
    int64_t broadcast_pause_ms;
};

enum {
    SERIAL_BYTE_GAP_MS = 50, /* silence inside a reply that ends it: adapters deliver in portions */
    SERIAL_SLACK_MS = 100,   /* what a reply may take beyond its time on the line */
    SERIAL_DRAIN_MAX_MS = 2000 /* longest wait for a babbling line to be silent */
};

struct _modbus;

struct serial {
    const struct serial_settings *settings;
    struct _modbus *modbus; /* NULL: closed */
    int fd, stop_fd;
    struct rtu_line line;
    int64_t quiet_ns; /* since when the line is silent, CLOCK_MONOTONIC */
};

/* What an exchange brought. */
struct serial_reply {
    uint8_t frame[RTU_FRAME_MAX];
    const uint8_t *pdu;
    size_t pdu_len;
    int64_t rtt_us;
    unsigned mismatches; /* replies of nobody asked, dropped */
};

/* The line's speed as the settings say. */
struct rtu_line serial_line(const struct serial_settings *settings);

/* Whether libmodbus can set this baud rate; it would quietly take 9600 for any other. */
bool serial_knows_baud(int64_t baud);

/* "/dev/ttyUSB0:19200E1": the port, then speed, parity (N, E, O) and stop bits; without them
 * 19200E1. settings->port points to ret_port. -EINVAL when it is none of these. */
must_check int serial_parse_port(const char *text, char ret_port[256],
                                 struct serial_settings *ret_settings);

/* settings outlives the port. 0, or -errno with words: -EBUSY when another program has the port. */
must_check int serial_open(struct serial *serial, const struct serial_settings *settings,
                           int stop_fd, char *ret_why, size_t why_size);
void serial_close(struct serial *serial);
static inline bool serial_is_open(const struct serial *serial)
{
    return serial->modbus != NULL;
}

/* Sends a PDU after the line was silent for t3.5 and at least pause_ms, and waits for the frame
 * that answers it. 0; -ETIMEDOUT: nothing came; -EPROTO: something came that is no answer (after
 * both the line is silent again and flushed); -ECANCELED: stopped; any other -errno: the port is
 * gone. A broadcast (unit 0) has no reply: 0 with pdu NULL after broadcast_pause_ms. */
must_check int serial_exchange(struct serial *serial, uint8_t unit,
                               const struct mbap_request *request, int64_t timeout_ms,
                               int64_t pause_ms, struct serial_reply *ret_reply,
                               struct mbap_reply *ret_values);
