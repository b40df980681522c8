/* json_reading.h - a JSON value as a reading, and as a time.
 *
 * Pure, any thread. For what HTTP sensors push and what JSON APIs are asked for: a number becomes
 * an exact decimal where 18 digits hold it, otherwise a double; true and false stay what they are;
 * a string is a text; null means that the sensor has no value. */
#pragma once

#include "gateway/base/json_in.h"
#include "gateway/base/scan.h"

enum { JSON_READING_TEXT_MAX = 1024 };

/* Takes one value whole. An object, an array or a text over JSON_READING_TEXT_MAX is stepped over
 * and becomes bad:type, null bad:invalid. A text is in *ret_text, with its length in the reading,
 * whose text.offset is for the caller to fill. False: the document is broken (json_in latched). */
bool json_reading_take(struct json_in *p, struct reading *ret_reading,
                       struct json_in_text *ret_text);

/* A reading of the above as UTC milliseconds: RFC 3339 text, or seconds since 1970 (with decimals)
 * below JSON_READING_SECONDS_BELOW, else milliseconds. -EINVAL: no time after 1970. */
#define JSON_READING_SECONDS_BELOW 1e11
must_check int json_reading_time(const struct reading *reading, struct json_in_text text,
                                 int64_t *ret_ms);
