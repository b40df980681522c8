/* wire.h - what carries the requests of devices: a TCP connection or a serial bus.
 *
 * Field thread only; nothing blocks. A wire is embedded first in a session or a bus and shared by
 * all devices on it, one use each. Requests are struct session_request; what is said in session.h
 * of session_submit() and session_cancel() holds for every wire. */
#pragma once

#include "drivers/modbus/breaker.h"
#include "gateway/base/cleanup.h"

struct session_request;
struct wire;

struct wire_ops {
    /* required */
    int (*submit)(struct wire *wire, struct session_request *request, bool front);
    void (*cancel)(struct wire *wire, struct session_request *request);
    void (*put)(struct wire *wire);
    void (*close_idle)(struct wire *wire); /* optional: there is something to close */
};

struct wire {
    const struct wire_ops *ops;
    unsigned users;           /* devices */
    struct breaker_line line; /* what its silent devices cost the others */
};

must_check static inline int wire_submit(struct wire *wire, struct session_request *request,
                                         bool front)
{
    return wire->ops->submit(wire, request, front);
}

static inline void wire_cancel(struct wire *wire, struct session_request *request)
{
    wire->ops->cancel(wire, request);
}

/* Gives one use back. */
static inline void wire_put(struct wire *wire)
{
    wire->ops->put(wire);
}

static inline void wire_close_idle(struct wire *wire)
{
    if (wire->ops->close_idle != NULL) {
        wire->ops->close_idle(wire);
    }
}
