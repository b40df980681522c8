#include "rtu_peer.h"

#include "gateway/base/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <string.h>
#include <sys/eventfd.h>
#include <termios.h>
#include <time.h>

static void nap_us(int64_t us)
{
    const struct timespec pause = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&pause, NULL);
}

static void must(bool good, const char *what)
{
    if (!good) {
        perror(what);
        abort();
    }
}

static void put(struct rtu_peer *peer, const uint8_t *data, size_t len)
{
    ssize_t n = peer->listener >= 0 ? send(peer->master, data, len, MSG_NOSIGNAL)
                                    : write(peer->master, data, len);
    (void)n; /* a port that nobody has open takes nothing */
}

/* Bytes at the pace of the line, in portions of about a millisecond, as adapters deliver them. */
static void put_paced(struct rtu_peer *peer, const uint8_t *data, size_t len)
{
    unsigned baud = peer->baud;
    if (baud == 0) {
        put(peer, data, len);
        return;
    }
    const struct rtu_line line = {baud, 11};
    int64_t began_ns = clock_mono_ns();
    for (size_t at = 0; at < len;) {
        size_t most = baud / 11000 + 1, n = len - at < most ? len - at : most;
        int64_t wait_ns = began_ns + 1000 * rtu_bytes_us(line, at + n) - clock_mono_ns();
        nap_us(wait_ns > 0 ? wait_ns / 1000 : 0);
        put(peer, data + at, n);
        at += n;
    }
}

static void put_slowly(struct rtu_peer *peer, const uint8_t *data, size_t len, int64_t pause_us)
{
    for (size_t i = 0; i < len; i++) {
        put(peer, data + i, 1);
        nap_us(pause_us);
    }
}

static size_t answer_pdu(struct rtu_peer *peer, uint8_t unit, const struct mbap_request *request,
                         uint8_t pdu[MBAP_PDU_MAX])
{
    uint16_t values[MBAP_READ_REGISTERS_MAX];
    uint8_t bits[MBAP_READ_BITS_MAX];
    const uint16_t *registers = peer->registers;
    switch (request->function) {
    case MBAP_READ_COILS:
    case MBAP_READ_DISCRETES:
        for (unsigned i = 0; i < request->count; i++) {
            bits[i] = (request->first + i) % 2;
        }
        return mbap_reply_bits(pdu, request->function, bits, request->count);
    case MBAP_READ_HOLDING:
    case MBAP_READ_INPUT:
        for (unsigned i = 0; i < request->count; i++) {
            unsigned at = request->first + i;
            values[i] = registers != NULL ? registers[at] : (uint16_t)(100U * unit + at);
        }
        return mbap_reply_registers(pdu, request->function, values, request->count);
    default:
        peer->writes++;
        return mbap_reply_write(pdu, request);
    }
}

static void misbehave(struct rtu_peer *peer, int mode, uint8_t frame[RTU_FRAME_MAX], size_t len,
                      uint8_t unit)
{
    uint8_t other[RTU_FRAME_MAX];
    switch (mode) {
    case RTU_PEER_LATE:
        nap_us(peer->delay_ms * 1000L);
        put(peer, frame, len);
        break;
    case RTU_PEER_BAD_CRC:
        frame[len - 1] ^= 1;
        put(peer, frame, len);
        break;
    case RTU_PEER_CUT:
        put(peer, frame, len / 2);
        break;
    case RTU_PEER_DRIP:
        put_slowly(peer, frame, len, 30000);
        break;
    case RTU_PEER_TORN:
        put_slowly(peer, frame, len, 1000);
        break;
    case RTU_PEER_FOREIGN:
        memcpy(other, frame, len);
        put(peer, other, rtu_write_frame(other, (uint8_t)(unit + 1), frame + 1, len - 3));
        nap_us(5000);
        put(peer, frame, len);
        break;
    case RTU_PEER_WRONG_FUNCTION:
        frame[1] = frame[1] == MBAP_READ_INPUT ? MBAP_READ_HOLDING : MBAP_READ_INPUT;
        put(peer, frame, rtu_write_frame(frame, unit, frame + 1, len - 3));
        break;
    case RTU_PEER_WRONG_COUNT:
        frame[2] = (uint8_t)(frame[2] - 2);
        put(peer, frame, rtu_write_frame(frame, unit, frame + 1, len - 5));
        break;
    case RTU_PEER_GARBAGE:
        memset(other, 0xa5, sizeof(other));
        put_slowly(peer, other, 60, 5000);
        break;
    case RTU_PEER_NOISE:
        put(peer, frame, len);
        put(peer, (const uint8_t *)"\xff\xff\xff", 3);
        break;
    default:
        put_paced(peer, frame, len);
        break;
    }
}

static void answer(struct rtu_peer *peer, uint8_t unit, const uint8_t *pdu, size_t pdu_len)
{
    struct mbap_request request;
    uint8_t reply[MBAP_PDU_MAX], frame[RTU_FRAME_MAX];
    unsigned exception = mbap_parse_request(pdu, pdu_len, &request);
    int mode = peer->mode;
    if (peer->once) {
        peer->once = 0;
        peer->mode = RTU_PEER_GOOD;
    }
    exception = mode == RTU_PEER_EXCEPTION ? MBAP_ILLEGAL_ADDRESS : exception;
    size_t len = exception != 0 ? mbap_reply_exception(reply, request.function, exception)
                                : answer_pdu(peer, unit, &request, reply);
    if (unit == RTU_BROADCAST || (unit < 64 && (peer->silent_units >> unit & 1) != 0)) {
        return;
    }
    if (peer->baud > 0) {
        const struct rtu_line line = {peer->baud, 11};
        nap_us(rtu_bytes_us(line, pdu_len + 3) + rtu_gap_us(line));
    }
    misbehave(peer, mode, frame, rtu_write_frame(frame, unit, reply, len), unit);
    peer->replied_ns = clock_mono_ns();
}

/* The size of the request that begins so; 0: not known yet. */
static size_t request_size(const uint8_t *data, size_t len)
{
    bool many = len > 1 && (data[1] == MBAP_WRITE_COILS || data[1] == MBAP_WRITE_REGISTERS);
    return !many ? 8 : len > 6 ? 9U + data[6] : 0;
}

static void note_gap(struct rtu_peer *peer)
{
    int64_t gap_ns = clock_mono_ns() - peer->replied_ns;
    if (peer->replied_ns != 0 && (peer->least_gap_ns == 0 || gap_ns < peer->least_gap_ns)) {
        peer->least_gap_ns = gap_ns;
    }
}

static void close_master(struct rtu_peer *peer)
{
    if (peer->master >= 0) {
        close(peer->master);
        peer->master = -1;
    }
}

static void *peer_main(void *arg)
{
    struct rtu_peer *peer = arg;
    uint8_t in[RTU_FRAME_MAX];
    size_t len = 0;
    for (;;) {
        struct pollfd fds[] = {{.fd = peer->master, .events = POLLIN},
                               {.fd = peer->stop_fd, .events = POLLIN},
                               {.fd = peer->listener, .events = POLLIN}};
        /* Half a request and then silence: it was none. */
        int r = poll(fds, 3, len > 0 ? 50 : -1);
        if (fds[1].revents != 0) {
            return NULL;
        }
        if (fds[2].revents != 0) {
            close_master(peer);
            peer->master = accept4(peer->listener, NULL, NULL, SOCK_CLOEXEC);
            peer->accepted++;
            len = 0;
            continue;
        }
        if (r == 0) {
            peer->broken++;
            len = 0;
            continue;
        }
        if (len == 0) {
            note_gap(peer);
        }
        ssize_t n = read(peer->master, in + len, sizeof(in) - len);
        if (n <= 0 && peer->listener >= 0) {
            close_master(peer);
            continue;
        }
        len += n > 0 ? (size_t)n : 0;
        size_t size = request_size(in, len);
        if (size == 0 || len < size) {
            continue;
        }
        if (rtu_crc(in, len) != 0 || len > size) {
            peer->broken++;
        } else {
            peer->requests++;
            peer->unit_requests[in[0]]++;
            answer(peer, in[0], in + 1, len - 3);
        }
        len = 0;
    }
}

static void start_thread(struct rtu_peer *peer)
{
    peer->stop_fd = eventfd(0, EFD_CLOEXEC);
    must(peer->stop_fd >= 0, "eventfd");
    must(pthread_create(&peer->thread, NULL, peer_main, peer) == 0, "thread");
}

void rtu_peer_start(struct rtu_peer *peer)
{
    struct termios raw;
    memset(&raw, 0, sizeof(raw));
    cfmakeraw(&raw);
    must(openpty(&peer->master, &peer->slave, peer->path, &raw, NULL) == 0, "openpty");
    peer->listener = -1;
    start_thread(peer);
}

void rtu_peer_start_tcp(struct rtu_peer *peer)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(address);
    peer->master = peer->slave = -1;
    peer->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(bind(peer->listener, (struct sockaddr *)&address, len) == 0, "bind");
    must(listen(peer->listener, 8) == 0, "listen");
    must(getsockname(peer->listener, (struct sockaddr *)&address, &len) == 0, "getsockname");
    snprintf(peer->path, sizeof(peer->path), "127.0.0.1:%u", ntohs(address.sin_port));
    start_thread(peer);
}

static void end_thread(struct rtu_peer *peer)
{
    uint64_t one = 1;
    if (peer->stop_fd >= 0) {
        must(write(peer->stop_fd, &one, sizeof(one)) == sizeof(one), "stop");
        pthread_join(peer->thread, NULL);
        close(peer->stop_fd);
        peer->stop_fd = -1;
    }
}

void rtu_peer_unplug(struct rtu_peer *peer)
{
    end_thread(peer);
    close(peer->master);
    close(peer->slave);
    peer->master = peer->slave = -1;
}

void rtu_peer_stop(struct rtu_peer *peer)
{
    end_thread(peer);
    close_master(peer);
    if (peer->slave >= 0) {
        close(peer->slave);
    }
    if (peer->listener >= 0) {
        close(peer->listener);
    }
}
