/* pages.h - are the pages of an LMDB file what its trees say?
 *
 * At start, in the child that looks before LMDB does: LMDB trusts every page number, length and
 * count that it finds, and ends in SIGBUS or an abort over a damaged one, also long after it was
 * opened. Reads the file by the layout of data format 1 (LMDB 0.9, mdb.c), byte order and word size
 * of this machine. Touches the pages of the trees, not the blocks: of those the first pages only,
 * and of so many. Blocks on the disk. */
#pragma once

#include "gateway/base/cleanup.h"

enum { PAGES_HEADS_MAX = 8192 };

/* Walks the trees of the newest meta page: each page is where it belongs and used once, keys
 * ascend, counts are right, and what is in the free list no tree uses. -EBADMSG: not so; -ENOMEM,
 * or another -errno: could not be looked at. An empty file is -EBADMSG. */
must_check int pages_check(const char *file);
