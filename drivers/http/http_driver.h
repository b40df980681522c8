/* http_driver.h - the driver `http`: JSON APIs that are asked, and sensors that post.
 *
 * One state a field event base: a schedule and one libcurl multi handle. A device of mode listen
 * costs nothing here: it is marked as one that takes pushes, and the local API does the rest. */
#pragma once

#include "drivers/driver.h"

extern const struct driver http_driver;
