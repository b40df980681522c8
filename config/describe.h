/* describe.h - what the key tables say, as text: the example file and the manual page.
 *
 * Pure, any thread. `windrow keys --example` and `--man` print these; the files in the tree are
 * held to them by a test. */
#pragma once

#include "config/schema.h"
#include "gateway/base/buffer.h"

/* config/windrow.ini.example: every key with its default or an example, as comments, so that the
 * file as it is configures a gateway without devices. */
void describe_example(struct buffer *out);

/* packaging/man/windrow.ini.5, in man(7) form. */
void describe_manual(struct buffer *out);

/* "duration, 10 ms to 1 min, or auto". */
void describe_type(const struct config_key *key, struct buffer *out);
