#include "drivers/coap/coap_loop.h"

#include "gateway/base/log.h"

#include <errno.h>
#include <event2/event.h>
#include <string.h>

/* The library's own words are for those who debug; what matters reaches us through its callbacks.
 */
static void on_log(coap_log_t level, const char *message)
{
    (void)level;
    log_debug("libcoap: %.*s", (int)strcspn(message, "\n"), message);
}

static void on_ready(evutil_socket_t fd, short what, void *user)
{
    struct coap_loop *loop = user;
    (void)fd;
    (void)what;
    if (coap_io_process(loop->context, COAP_IO_NO_WAIT) < 0) {
        log_debug("libcoap: a turn failed: %s", strerror(errno));
    }
    if (loop->after != NULL) {
        loop->after(loop->user);
    }
}

int coap_loop_init(struct coap_loop *loop, struct event_base *base, void (*after)(void *user),
                   void *user)
{
    *loop = (struct coap_loop){.after = after, .user = user};
    loop->context = coap_new_context(NULL);
    if (loop->context == NULL) {
        return -ENOMEM;
    }
    coap_set_log_handler(on_log);
    coap_set_log_level(LOG_ERR);
    coap_dtls_set_log_level(LOG_ERR);
    int fd = coap_context_get_coap_fd(loop->context);
    loop->event = fd < 0 ? NULL : event_new(base, fd, EV_READ | EV_PERSIST, on_ready, loop);
    if (loop->event == NULL || event_add(loop->event, NULL) < 0) {
        coap_loop_finish(loop);
        return -ENOMEM;
    }
    return 0;
}

void coap_loop_finish(struct coap_loop *loop)
{
    if (loop->event != NULL) {
        event_free(loop->event);
        loop->event = NULL;
    }
    coap_free_context(loop->context);
    loop->context = NULL;
}

void coap_loop_kick(struct coap_loop *loop)
{
    event_active(loop->event, EV_READ, 1);
}

coap_address_t coap_loop_address(const struct sockaddr *address, socklen_t len)
{
    coap_address_t to;
    coap_address_init(&to);
    if (len <= sizeof(to.addr)) {
        memcpy(&to.addr, address, len);
        to.size = len;
    }
    return to;
}
