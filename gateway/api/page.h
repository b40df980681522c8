/* page.h - the page at `/`: one self-contained document, no outside resources.
 *
 * It asks /v1/status and /v1/live by script and shows states, values and the ledger. Pure. */
#pragma once

#include "gateway/base/buffer.h"

/* The whole document. */
void page_write(struct buffer *b);

/* Its Content-Security-Policy: only this very script runs, and it talks to this gateway only. */
void page_write_policy(struct buffer *b);
