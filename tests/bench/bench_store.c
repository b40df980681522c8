/* bench_store PART FOLDER [ARGUMENT...] - one part of the store's figures, in a folder to work in,
 * as JSON lines; the exit status is 1 when a limit is not held. tests/bench/store.py runs them all.
 *
 *   rest CHANNELS DEVICES LIMIT   a day at 1 Hz, in a file
 *   haute-borne CSV               real 10-minute records, in a file
 *   rate COMMITS                  readings a second through append and commit, beside LMDB
 *   device COUNTER COMMITS        bytes written, by /sys/block/X/stat of what holds the folder
 *   backlog MILLIONS A_SECOND     drained at so many millions a second while readings arrive */
#include "gateway/base/log.h"
#include "store_bench.h"

#include <string.h>

static double number(char **argv, int i)
{
    return strtod(argv[i], NULL);
}

int main(int argc, char **argv)
{
    const char *part = argc > 2 ? argv[1] : "", *base = argc > 2 ? argv[2] : "";
    int bad = -1;
    log_set_level(LOG_LEVEL_ERROR);
    if (strcmp(part, "rest") == 0 && argc == 6) {
        bad = bench_rest(base, (unsigned)number(argv, 3), (unsigned)number(argv, 4),
                         number(argv, 5));
    } else if (strcmp(part, "haute-borne") == 0 && argc == 4) {
        bad = bench_haute_borne(base, argv[3]);
    } else if (strcmp(part, "rate") == 0 && argc == 4) {
        bad = bench_rate(base, (unsigned)number(argv, 3));
    } else if (strcmp(part, "device") == 0 && argc == 5) {
        bad = bench_device(base, argv[3], (unsigned)number(argv, 4));
    } else if (strcmp(part, "backlog") == 0 && argc == 5) {
        bad = bench_backlog(base, number(argv, 3), number(argv, 4));
    } else {
        fprintf(stderr, "usage: bench_store PART FOLDER [ARGUMENT...]; see tests/bench/store.py\n");
        return 2;
    }
    return bad == 0 ? 0 : 1;
}
