/* The reader of damaged environments: a good file with the input's bytes written over it. Each four
 * bytes are a place and what it becomes; the first one says how much of the file is left. */
#include "gateway/store/store.h"
#include "gateway/store/wreck.h"

#include <assert.h>
#include <ftw.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { FILE_MAX = 512 * 1024, SCANS = 300, POINTS = 6 };

static uint8_t good[FILE_MAX];
static size_t good_len;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void append(struct store *store, uint32_t device, uint64_t seq)
{
    struct scan *scan = calloc(1, scan_size_for(POINTS, 0));
    assert(scan != NULL);
    *scan = (struct scan){.seq = seq, .time_ms = (int64_t)seq, .device = device, .count = POINTS};
    for (uint16_t p = 0; p < POINTS; p++) {
        scan->readings[p] = (struct reading){
            .point = p, .kind = VALUE_DECIMAL, .integer = (int64_t)(seq * 2654435761u >> p)};
    }
    int rc = store_append(store, scan);
    assert(rc == 0);
    free(scan);
}

/* A store with some of everything, read into memory. */
static void make_good(void)
{
    char dir[] = "/tmp/fuzz_wreck.XXXXXX", path[64];
    struct store_settings settings = {.commit_interval_ms = 1000, .max_size_bytes = 1 << 20};
    struct store *store = NULL;
    unsigned uplink;
    uint32_t device;
    assert(mkdtemp(dir) != NULL && store_open(dir, &settings, &store) == 0);
    int rc = store_add_uplink(store, "cloud", 1, 0, &uplink);
    assert(rc == 0);
    for (uint64_t seq = 1; seq <= SCANS; seq++) {
        char name[16];
        snprintf(name, sizeof(name), "t%u", (unsigned)(seq % 7));
        rc = store_device(store, name, "", &device);
        assert(rc == 0);
        append(store, device, seq);
        rc = seq % 4 == 0 ? store_commit(store) : 0;
        assert(rc == 0);
    }
    store_close(store);
    snprintf(path, sizeof(path), "%s/store/data.mdb", dir);
    FILE *f = fopen(path, "re");
    good_len = f == NULL ? 0 : fread(good, 1, sizeof(good), f);
    assert(good_len > 4096);
    fclose(f);
    nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static void no_beat(void *user)
{
    (void)user;
}

static void look(const char *path)
{
    struct wreck *wreck;
    struct buffer value = {.max = WRECK_VALUE_MAX + 1};
    if (wreck_open(path, no_beat, NULL, &wreck) < 0) {
        return;
    }
    int rc = wreck_add_orphans(wreck);
    assert(rc == 0);
    for (size_t i = 0; i < wreck_count(wreck); i++) {
        const struct wreck_entry *entry = wreck_at(wreck, i);
        assert(i == 0 || wreck_order(entry - 1, entry) <= 0);
        assert(wreck_kind(entry) < WRECK_KINDS && wreck_stream(entry) < STREAM_COUNT);
        rc = wreck_read(wreck, entry, &value);
        assert(rc <= 0);
    }
    buffer_finish(&value);
    wreck_close(wreck);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[40];
    if (good_len == 0) {
        make_good();
    }
    int fd = memfd_create("wreck", MFD_CLOEXEC);
    size_t len = size == 0 || data[0] > 127 ? good_len : good_len * data[0] / 128;
    if (fd < 0 || write(fd, good, len) != (ssize_t)len) {
        abort();
    }
    for (size_t i = 1; i + 4 <= size && len > 0; i += 4) {
        size_t at = (data[i] | (size_t)data[i + 1] << 8 | (size_t)data[i + 2] << 16) % len;
        if (pwrite(fd, &data[i + 3], 1, (off_t)at) != 1) {
            abort();
        }
    }
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    look(path);
    close(fd);
    return 0;
}
