#include "gateway/pipeline/device.h"

#include "gateway/base/clock.h"

#include <errno.h>
#include <string.h>

const char *device_state_name(enum device_state state)
{
    static const char *const names[DEVICE_STATES] = {"starting", "good", "failing", "dead"};
    return state < DEVICE_STATES ? names[state] : "?";
}

const char *device_error_name(enum device_error error)
{
    static const char *const names[DEVICE_ERRORS] = {
        [DEVICE_ERROR_NONE] = "none",         [DEVICE_ERROR_RESOLVE] = "resolve",
        [DEVICE_ERROR_CONNECT] = "connect",   [DEVICE_ERROR_TIMEOUT] = "timeout",
        [DEVICE_ERROR_CLOSED] = "closed",     [DEVICE_ERROR_EXCEPTION] = "exception",
        [DEVICE_ERROR_FRAMING] = "framing",   [DEVICE_ERROR_MISMATCH] = "mismatch",
        [DEVICE_ERROR_SECURITY] = "security", [DEVICE_ERROR_PAYLOAD] = "payload",
        [DEVICE_ERROR_OVERRUN] = "overrun",
    };
    return error < DEVICE_ERRORS ? names[error] : "?";
}

int device_create(const struct config *owner, const struct config_device *config, uint32_t id,
                  const uint64_t last_seq[STREAM_COUNT], struct device **ret_device)
{
    struct device *device = calloc(1, sizeof *device);
    if (device == NULL) {
        return -ENOMEM;
    }
    device->owner = config_ref(owner);
    device->config = config;
    device->id = id;
    for (size_t i = 0; i < STREAM_COUNT; i++) {
        atomic_init(&device->seq[i], last_seq[i]);
    }
    atomic_init(&device->references, 1);
    *ret_device = device;
    return 0;
}

struct device *device_ref(struct device *device)
{
    atomic_fetch_add_explicit(&device->references, 1, memory_order_relaxed);
    return device;
}

void device_unref(struct device *device)
{
    if (device == NULL ||
        atomic_fetch_sub_explicit(&device->references, 1, memory_order_acq_rel) != 1) {
        return;
    }
    config_unref(device->owner);
    free(device);
}

void device_report_good(struct device *device, int64_t rtt_us)
{
    struct device_health *health = &device->health;
    atomic_store_explicit(&health->rtt_us, rtt_us, memory_order_relaxed);
    atomic_store_explicit(&health->last_good_ms, clock_wall_ms(), memory_order_relaxed);
    atomic_store_explicit(&health->state, DEVICE_GOOD, memory_order_relaxed);
}

void device_report_error(struct device *device, enum device_error error, int detail, bool dead)
{
    if (error == DEVICE_ERROR_NONE || error >= DEVICE_ERRORS) {
        return;
    }
    struct device_health *health = &device->health;
    atomic_fetch_add_explicit(&health->errors[error], 1, memory_order_relaxed);
    atomic_store_explicit(&health->last_detail, detail, memory_order_relaxed);
    atomic_store_explicit(&health->last_error, (int)error, memory_order_relaxed);
    if (error == DEVICE_ERROR_OVERRUN || error == DEVICE_ERROR_MISMATCH) {
        return;
    }
    atomic_fetch_add_explicit(&health->failures, 1, memory_order_relaxed);
    atomic_store_explicit(&health->state, dead ? DEVICE_DEAD : DEVICE_FAILING,
                          memory_order_relaxed);
}

/* Modbus Application Protocol V1.1b3 section 7. */
static const char *exception_words(int code)
{
    static const char *const words[] = {
        [1] = "illegal function",
        [2] = "illegal data address",
        [3] = "illegal data value",
        [4] = "server device failure",
        [5] = "acknowledge, the device needs longer",
        [6] = "device busy",
        [8] = "memory parity error",
        [10] = "gateway path unavailable",
        [11] = "gateway target did not respond",
    };
    return code < 0 || (size_t)code >= ARRAY_SIZE(words) ? NULL : words[code];
}

static void describe_exception(int detail, char *text, size_t size)
{
    const char *words = exception_words(detail);
    if (words != NULL) {
        snprintf(text, size, "exception: %s (%d)", words, detail);
    } else {
        snprintf(text, size, "exception: the device answered with code %d", detail);
    }
}

/* The errors whose words need no figure. */
static const char *const plain_words[DEVICE_ERRORS] = {
    [DEVICE_ERROR_NONE] = "",
    [DEVICE_ERROR_RESOLVE] = "resolve: the name has no address",
    [DEVICE_ERROR_CLOSED] = "closed: the device closed the connection",
    [DEVICE_ERROR_FRAMING] = "framing: what came is damaged or not the protocol",
    [DEVICE_ERROR_MISMATCH] = "mismatch: a late, duplicate or foreign reply was dropped",
    [DEVICE_ERROR_SECURITY] = "security: TLS or key not accepted",
    [DEVICE_ERROR_PAYLOAD] = "payload: the reply does not decode",
    [DEVICE_ERROR_OVERRUN] = "overrun: a period was skipped",
};

void device_describe_error(const struct device *device, char *text, size_t size)
{
    int error = atomic_load_explicit(&device->health.last_error, memory_order_relaxed);
    int detail = atomic_load_explicit(&device->health.last_detail, memory_order_relaxed);
    const char *reason = strerrordesc_np(abs(detail));
    switch (error) {
    case DEVICE_ERROR_CONNECT:
        snprintf(text, size, "connect: %s", detail == 0 || reason == NULL ? "failed" : reason);
        break;
    case DEVICE_ERROR_TIMEOUT:
        snprintf(text, size, "timeout: no answer within %lld ms",
                 (long long)device->config->timeout_ms);
        break;
    case DEVICE_ERROR_EXCEPTION:
        describe_exception(detail, text, size);
        break;
    default:
        snprintf(text, size, "%s",
                 error >= 0 && error < DEVICE_ERRORS ? plain_words[error] : "unknown");
        break;
    }
}
