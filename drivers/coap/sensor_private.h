/* sensor_private.h - what the files of a sensor share. Field thread only. */
#pragma once

#include "drivers/coap/sensor.h"

/* Into the harvest: the readings of an answer, or bad ones. 0, or the error to report. */
enum device_error sensor_take(struct resource *resource, const struct fetch_result *result);
void sensor_take_bad(struct resource *resource, enum quality quality);

/* Hands the harvest over and empties it; returns whether all of it was taken. */
bool sensor_submit(struct sensor *sensor);

/* The device failed: reports it, leaves the gap's scan and the log line where that is news. */
void sensor_fail(struct sensor *sensor, enum device_error error, int detail, bool dead);
void sensor_good(struct sensor *sensor, int64_t rtt_us);

enum quality sensor_quality(enum device_error error);

/* sensor_poll.c and sensor_observe.c: begin; both end with sensor_destroy(). */
void sensor_poll_start(struct sensor *sensor);
void sensor_observe_start(struct sensor *sensor);

/* sensor_read.c */
void sensor_read_cancel_all(struct sensor *sensor);
