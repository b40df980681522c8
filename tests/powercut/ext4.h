/* ext4.h - a real ext4 file system on a disk that records, and images of that disk mounted again.
 *
 * The disk is a file behind nbdkit (nbd_recorder.c), which nbdfuse shows as a file and a loop
 * device takes for a disk. In a mount namespace of this process's own. One thread. */
#pragma once

#include "gateway/base/cleanup.h"

#include <stdint.h>

enum { EXT4_BYTES = 9 << 20 }; /* 4 MiB of them are the journal, the least for blocks of 4 KiB */

struct ext4 {
    char dir[64];       /* everything lies below it, in memory */
    char trace[96];     /* what the recorder wrote down, in the form of record.h */
    char mounted[96];   /* where the recorded disk, or an image, is mounted */
    char data[112];     /* the store's folder on it */
    char recorder[512]; /* the plugin */
    int nbdfuse;        /* its process id while it runs */
};

/* plugin: path of nbd_recorder.so. A sentence why not, or NULL: loop devices, FUSE, nbdkit and the
 * right to mount are there. */
const char *ext4_prepare(struct ext4 *ext4, const char *plugin);
void ext4_finish(struct ext4 *ext4);

/* A fresh file system with the folder `data` is mounted, and the trace begins with all of it. */
must_check int ext4_record(struct ext4 *ext4);
/* It is unmounted: the trace is complete. */
must_check int ext4_recorded(struct ext4 *ext4);

/* Mounts those EXT4_BYTES, by which the kernel replays the journal. */
must_check int ext4_mount_image(struct ext4 *ext4, const uint8_t *bytes);
must_check int ext4_unmount(struct ext4 *ext4);
