#include "modbus_peer.h"

#include <arpa/inet.h>
#include <event2/listener.h>
#include <string.h>
#include <sys/socket.h>

static void peer_close(struct peer_connection *c)
{
    if (c->fd >= 0) {
        event_free(c->event);
        event_free(c->drip);
        close(c->fd);
        c->fd = -1;
        c->peer->open--;
    }
}

static unsigned peer_bad(const struct peer *peer, const struct mbap_request *request)
{
    unsigned end = request->first + request->count;
    if (end > PEER_REGISTERS) {
        return MBAP_ILLEGAL_ADDRESS;
    }
    bool in_hole = peer->hole_count > 0 && request->first < peer->hole_first + peer->hole_count &&
                   end > peer->hole_first;
    return in_hole ? MBAP_ILLEGAL_ADDRESS : 0;
}

static void peer_take_write(struct peer *peer, const struct mbap_request *request)
{
    peer->writes++;
    peer->write_function = request->function;
    for (unsigned i = 0; i < request->count && !peer->ignores_writes; i++) {
        uint16_t *to = &peer->registers[request->first + i];
        if (request->function == MBAP_WRITE_COIL) {
            *to = request->data[0] != 0;
        } else if (request->function == MBAP_WRITE_COILS) {
            *to = request->data[i / 8] >> (i % 8) & 1;
        } else {
            *to = mbap_get16(request->data + 2 * (size_t)i);
        }
    }
}

/* The reply frame of a good slave; its length. */
static size_t peer_reply(struct peer *peer, const struct mbap_frame *frame,
                         uint8_t out[MBAP_FRAME_MAX])
{
    struct mbap_request request;
    uint8_t *pdu = out + MBAP_HEADER_SIZE, bits[MBAP_READ_BITS_MAX];
    unsigned exception = mbap_parse_request(frame->pdu, frame->pdu_len, &request);
    exception = exception == 0 ? peer_bad(peer, &request) : exception;
    if (peer->mode == PEER_EXCEPTION) {
        exception = peer->exception;
        peer->mode = peer->exceptions_left > 0 && --peer->exceptions_left == 0 ? PEER_GOOD
                                                                               : PEER_EXCEPTION;
    }
    if (frame->unit < 32 && (peer->unreachable_units >> frame->unit & 1) != 0) {
        exception = MBAP_GATEWAY_TARGET;
    }
    bool writes = request.function > MBAP_READ_INPUT;
    exception = exception == 0 && writes ? peer->write_exception : exception;
    size_t len;
    if (exception == 0 && writes) {
        peer_take_write(peer, &request);
        len = mbap_reply_write(pdu, &request);
    } else if (exception != 0) {
        len = mbap_reply_exception(pdu, request.function, exception);
    } else if (request.function <= MBAP_READ_DISCRETES) {
        for (unsigned i = 0; i < request.count; i++) {
            bits[i] = peer->registers[request.first + i] & 1;
        }
        len = mbap_reply_bits(pdu, request.function, bits, request.count);
    } else {
        len = mbap_reply_registers(pdu, request.function, &peer->registers[request.first],
                                   request.count);
    }
    mbap_write_header(out, frame->transaction, frame->unit, len);
    return MBAP_HEADER_SIZE + len;
}

static void peer_send(struct peer_connection *c, const void *data, size_t len)
{
    if (send(c->fd, data, len, MSG_NOSIGNAL) != (ssize_t)len) {
        abort();
    }
}

static void peer_on_drip(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    struct peer_connection *c = user;
    const struct timeval gap = {.tv_usec = c->peer->mode == PEER_DRIP ? 40000 : 200};
    (void)send(c->fd, c->out + c->dripped, 1, MSG_NOSIGNAL);
    if (++c->dripped < c->kept) {
        event_add(c->drip, &gap);
    }
}

static void peer_answer_badly(struct peer_connection *c, uint8_t *reply, size_t len)
{
    uint8_t copy[MBAP_FRAME_MAX];
    switch (c->peer->mode) {
    case PEER_LATE:
        if (c->kept > 0) {
            peer_send(c, c->out, c->kept);
        }
        memcpy(c->out, reply, len);
        c->kept = len;
        return;
    case PEER_DUPLICATE:
        peer_send(c, reply, len);
        peer_send(c, reply, len);
        return;
    case PEER_TORN:
    case PEER_DRIP:
        memcpy(c->out, reply, len);
        c->kept = len;
        c->dripped = 0;
        peer_on_drip(-1, 0, c);
        return;
    case PEER_GARBAGE:
        peer_send(c, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
        return;
    case PEER_FLOOD:
        memcpy(copy, reply, len);
        copy[1] ^= 0x55;
        for (int i = 0; i < 40; i++) {
            peer_send(c, copy, len);
        }
        return;
    default:
        break;
    }
    /* the single wrong bytes */
    reply[1] ^= c->peer->mode == PEER_WRONG_TRANSACTION ? 0x40 : 0;
    reply[2] ^= c->peer->mode == PEER_WRONG_PROTOCOL ? 1 : 0;
    reply[6] ^= c->peer->mode == PEER_WRONG_UNIT ? 1 : 0;
    reply[7] ^= c->peer->mode == PEER_WRONG_FUNCTION ? 7 : 0;
    reply[8] = (uint8_t)(reply[8] - (c->peer->mode == PEER_WRONG_COUNT ? 2 : 0));
    peer_send(c, reply, len);
}

static void peer_answer(struct peer_connection *c, const struct mbap_frame *frame)
{
    uint8_t reply[MBAP_FRAME_MAX];
    struct peer *peer = c->peer;
    peer->requests++;
    peer->unit_requests[frame->unit % 32]++;
    if (peer->mode == PEER_SILENT ||
        (frame->unit < 32 && (peer->silent_units >> frame->unit & 1) != 0)) {
        return;
    }
    if (peer->mode == PEER_CLOSE) {
        peer_close(c);
        return;
    }
    unsigned writes = peer->writes;
    size_t len = peer_reply(peer, frame, reply);
    if (peer->writes > writes && (peer->swallows_writes || peer->closes_on_write)) {
        if (peer->closes_on_write) {
            peer_close(c);
        }
        return;
    }
    if (peer->mode == PEER_GOOD || peer->mode == PEER_EXCEPTION) {
        peer_send(c, reply, len);
    } else if (peer->mode == PEER_CLOSE_AFTER) {
        peer_send(c, reply, len);
        peer_close(c);
    } else {
        peer_answer_badly(c, reply, len);
    }
}

static void peer_on_read(evutil_socket_t fd, short what, void *user)
{
    (void)what;
    struct peer_connection *c = user;
    ssize_t n = recv((int)fd, c->in + c->received, sizeof(c->in) - c->received, 0);
    if (n <= 0) {
        peer_close(c);
        return;
    }
    c->received += (size_t)n;
    struct mbap_frame frame;
    int size;
    while (c->fd >= 0 && (size = mbap_parse_frame(c->in, c->received, &frame)) > 0) {
        peer_answer(c, &frame);
        c->received -= (size_t)size;
        memmove(c->in, c->in + size, c->received);
    }
}

static void peer_on_accept(struct evconnlistener *listener, evutil_socket_t fd,
                           struct sockaddr *address, int len, void *user)
{
    (void)listener;
    (void)address;
    (void)len;
    struct peer *peer = user;
    for (size_t i = 0; i < PEER_CONNECTIONS; i++) {
        struct peer_connection *c = &peer->connections[i];
        if (c->fd < 0) {
            *c = (struct peer_connection){.peer = peer, .fd = (int)fd};
            c->event = event_new(peer->base, fd, EV_READ | EV_PERSIST, peer_on_read, c);
            c->drip = evtimer_new(peer->base, peer_on_drip, c);
            event_add(c->event, NULL);
            peer->accepted++;
            peer->open++;
            return;
        }
    }
    abort(); /* more connections than a test needs */
}

/* Listens on a free port of 127.0.0.1, or again on the one it had. */
void peer_listen(struct peer *peer)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    const char *colon = strchr(peer->address, ':');
    at.sin_port = htons((uint16_t)(colon != NULL ? strtoul(colon + 1, NULL, 10) : 0));
    cleanup_close(&peer->keeper);
    peer->keeper = -1;
    peer->listener = evconnlistener_new_bind(peer->base, peer_on_accept, peer,
                                             LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE, 16,
                                             (struct sockaddr *)&at, sizeof(at));
    if (peer->listener == NULL) {
        abort();
    }
    getsockname(evconnlistener_get_fd(peer->listener), (struct sockaddr *)&at, &len);
    snprintf(peer->address, sizeof(peer->address), "127.0.0.1:%u", ntohs(at.sin_port));
}

void peer_start(struct peer *peer, struct event_base *base)
{
    *peer = (struct peer){.base = base, .keeper = -1};
    for (size_t i = 0; i < PEER_CONNECTIONS; i++) {
        peer->connections[i].fd = -1;
    }
    for (unsigned i = 0; i < PEER_REGISTERS; i++) {
        peer->registers[i] = (uint16_t)(1000 + i);
    }
    peer_listen(peer);
}

void peer_leave(struct peer *peer)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int yes = 1;
    at.sin_port = htons((uint16_t)strtoul(strchr(peer->address, ':') + 1, NULL, 10));
    peer_stop(peer);
    peer->keeper = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (setsockopt(peer->keeper, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) < 0 ||
        bind(peer->keeper, (struct sockaddr *)&at, sizeof(at)) < 0) {
        abort();
    }
}

void peer_stop(struct peer *peer)
{
    cleanup_close(&peer->keeper);
    peer->keeper = -1;
    for (size_t i = 0; i < PEER_CONNECTIONS; i++) {
        peer_close(&peer->connections[i]);
    }
    if (peer->listener != NULL) {
        evconnlistener_free(peer->listener);
        peer->listener = NULL;
    }
}

void peer_run(struct event_base *base, int64_t ms)
{
    int64_t end = clock_mono_ms() + ms;
    do {
        const struct timeval step = {.tv_usec = 2000};
        event_base_loopexit(base, &step);
        event_base_dispatch(base);
    } while (clock_mono_ms() < end);
}
