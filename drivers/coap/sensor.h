/* sensor.h - one CoAP device that is asked or observed: what it is asked, when, and what becomes of
 * the answers.
 *
 * Field thread only. Points with `senml NAME` share one resource, that of the device's address;
 * each point with `path` has a resource of its own. mode = get: a round each poll asks for all of
 * them, one after another, and makes one scan (more where the device gives several times).
 * mode = observe: each resource is observed, every notification makes a scan; a watchdog on Max-Age
 * and grace registers anew on a new session. A device that was good and fails leaves one scan of
 * bad readings, where the gap begins. */
#pragma once

#include "drivers/coap/harvest.h"
#include "drivers/coap/peer.h"
#include "drivers/driver.h"
#include "drivers/modbus/breaker.h"

enum {
    SENSOR_RETRY_MIN_MS = 1000,  /* until an observation that failed is tried again: grows */
    SENSOR_RETRY_MAX_MS = 4000,  /* short, so that a device that is back is read at once */
    SENSOR_REFUSED_MS = 30000,   /* a resource that was refused (4.04) is asked for again */
    SENSOR_REGISTER_MS = 4000,   /* a registration may take so long, whatever `timeout` says */
    SENSOR_MAX_AGE_MAX_S = 3600, /* a device that promises silence for longer is asked earlier */
    SENSOR_READS_MAX = 4         /* questions from outside at a time */
};

struct sensor;

struct resource {
    struct fetch fetch; /* first */
    struct sensor *sensor;
    size_t point;                   /* of a path */
    bool by_name;                   /* the resource of all named points */
    bool good;                      /* observe: its last representation was fine */
    struct schedule_timer watchdog; /* observe: looks after it, or tries again */
};

struct sensor {
    struct device *device;
    const struct coap_settings *settings;
    struct schedule *schedule;
    struct peer *peer;
    struct harvest *harvest;
    struct resource *resources;
    size_t resource_count;
    struct schedule_entry entry; /* get */
    struct breaker breaker;
    struct breaker_line line;
    size_t at, answers; /* of the round */
    bool running;
    int64_t round_ms, rtt_us, pause_ms;
    enum device_error error; /* the round's first */
    int detail;
    struct sensor_read *reads;
};

must_check int sensor_create(struct peers *peers, struct device *device,
                             struct sensor **ret_sensor);
void sensor_destroy(struct sensor *sensor);

/* For struct driver. */
must_check int sensor_read_now(struct sensor *sensor, struct driver_request *request);
