/* presence.h - devices that are lost and come back, as events in their own event stream.
 *
 * A device is lost once its driver has given it up or it has failed for PRESENCE_SETTLE_MS, and has
 * returned with its next good reading. That it is lost outlives a restart, by a note in the store
 * that is in the same commit as the event. Pipeline thread. */
#pragma once

struct pipeline;

enum { PRESENCE_SETTLE_MS = 10000 };

/* Looks at all devices; the events are "device-lost" and "device-returned". */
void presence_look(struct pipeline *p);
