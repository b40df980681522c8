/* device.h - one device at run time: what the driver, the pipeline and the api share of it.
 *
 * Made and freed by the core (device_create, device_unref); the configuration in it never changes:
 * a reload that changes a device retires this object and makes a new one that goes on with the same
 * seq. Health is written by the thread that drives the device and read by any; all of it is atomic,
 * and no set of fields is promised to be of one moment. */
#pragma once

#include "config/config.h"
#include "gateway/base/scan.h"

#include <stdatomic.h>
#include <stdbool.h>

enum device_state {
    DEVICE_STARTING, /* not answered yet */
    DEVICE_GOOD,
    DEVICE_FAILING, /* the last poll failed */
    DEVICE_DEAD,    /* the circuit breaker is open: probed now and then */
    DEVICE_STATES
};

enum device_error {
    DEVICE_ERROR_NONE,
    DEVICE_ERROR_RESOLVE,
    DEVICE_ERROR_CONNECT, /* refused, unreachable; detail: errno */
    DEVICE_ERROR_TIMEOUT,
    DEVICE_ERROR_CLOSED,    /* the peer closed the connection */
    DEVICE_ERROR_EXCEPTION, /* detail: the Modbus exception code or the CoAP or HTTP code */
    DEVICE_ERROR_FRAMING,   /* what came is not the protocol; the connection was closed */
    DEVICE_ERROR_MISMATCH,  /* late, duplicate or foreign reply, dropped */
    DEVICE_ERROR_SECURITY,  /* TLS, DTLS, PSK, certificate */
    DEVICE_ERROR_PAYLOAD,   /* arrived, but does not decode */
    DEVICE_ERROR_OVERRUN,   /* a period skipped: the last poll still ran, or the queue was full */
    DEVICE_ERRORS
};

const char *device_state_name(enum device_state state);
const char *device_error_name(enum device_error error);

struct device_health {
    _Atomic int state;            /* enum device_state */
    _Atomic int64_t last_good_ms; /* UTC, 0: never */
    _Atomic int64_t rtt_us;       /* of the last good request */
    _Atomic uint64_t polls;       /* rounds begun */
    _Atomic uint64_t failures;    /* rounds that failed, wholly or in part */
    _Atomic uint64_t errors[DEVICE_ERRORS];
    _Atomic int last_error; /* enum device_error */
    _Atomic int last_detail;
    _Atomic int64_t late_us_max; /* how late a poll began after its slot, at most */
};

struct pipeline;

struct device {
    const struct config_device *config;
    const struct config *owner; /* the config that holds it; one reference */
    struct pipeline *pipeline;
    uint32_t id;    /* the store's id of this name */
    uint32_t index; /* in the live view: the same name keeps it across reloads */
    _Atomic uint64_t seq[STREAM_COUNT]; /* the last one taken */
    _Atomic uint64_t overrun_readings;  /* dropped at the full queue, not yet in the ledger */
    struct device_health health;
    _Atomic bool takes_pushes; /* set by its driver: POST /sensor of the api may bring readings */
    void *driver_data;         /* the driver's own, field or bus thread only */
    void *pipeline_data;       /* the pipeline's own, pipeline thread only */
    _Atomic int references;
};

/* -ENOMEM only. Takes a reference to owner; seq continues after last_seq. */
must_check int device_create(const struct config *owner, const struct config_device *config,
                             uint32_t id, const uint64_t last_seq[STREAM_COUNT],
                             struct device **ret_device);
struct device *device_ref(struct device *device);
void device_unref(struct device *device);

/* The driver's report of one round: good sets last_good, the round trip and the state good; an
 * error is counted under errors[] and failures, kept as the last one, and sets the state failing
 * (or dead, when `dead`). OVERRUN and MISMATCH are counted and kept only: they say nothing of the
 * device. `polls` is counted by the driver. */
void device_report_good(struct device *device, int64_t rtt_us);
void device_report_error(struct device *device, enum device_error error, int detail, bool dead);

/* The last error in a technician's words: "timeout: no answer within 500 ms". */
void device_describe_error(const struct device *device, char *text, size_t size);

/* Hands a scan over to the pipeline: takes the next seq (stream raw), stamps it, and copies it into
 * the queue. Its time is that of boot_ms where the driver set one (CLOCK_BOOTTIME, when it was
 * taken; 0 afterwards), or time_ms where the sender gave one, or now when both are 0. Never blocks;
 * any thread, but one at a time for a device. -ENOBUFS: the queue is at its bound, the readings are
 * counted as dropped (overrun). -EINVAL: a point, kind or text is out of bounds, nothing was taken.
 */
must_check int scan_submit(struct device *device, struct scan *scan);

/* The same for a pushed scan whose sender waits: `durable` is called once on the pipeline thread
 * after the commit that covers it (error 0) or when it cannot be stored (-errno). */
must_check int scan_submit_pushed(struct device *device, struct scan *scan,
                                  void (*durable)(void *user, int error), void *user);

/* Whether the queue has room for a poll of that many readings; a poll that finds none is skipped
 * and counted as DEVICE_ERROR_OVERRUN, nothing is read. */
bool scan_has_room(const struct device *device, size_t readings);
