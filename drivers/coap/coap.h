/* coap.h - the driver `coap` (RFC 7252): devices that are asked, that are observed, or that post to
 * us.
 *
 * One state a field event base. Field thread only, but for the pure callbacks. */
#pragma once

#include "drivers/driver.h"

extern const struct driver coap_driver;
