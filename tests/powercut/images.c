#include "images.h"

enum { SINGLES = 10, RANDOMS = 40, PREFIXES = 6 };

struct chooser {
    struct disk *disk;
    size_t count;
    uint64_t rng;
    void (*image)(void *user, const char *pattern);
    void *user;
};

static uint64_t chance(struct chooser *chooser, uint64_t bound)
{
    chooser->rng ^= chooser->rng << 13;
    chooser->rng ^= chooser->rng >> 7;
    chooser->rng ^= chooser->rng << 17;
    return (chooser->rng >> 11) % bound;
}

static void pick(struct cell *cell, bool written)
{
    cell->pick = written ? cell->count - 1 : 0;
}

static void pick_all(struct chooser *chooser, bool sectors, bool others)
{
    for (size_t i = 0; i < chooser->count; i++) {
        struct cell *cell = chooser->disk->dirty[i];
        pick(cell, cell->kind == CELL_SECTOR ? sectors : others);
    }
}

static void emit(struct chooser *chooser, const char *pattern)
{
    chooser->image(chooser->user, pattern);
}

static void every_subset(struct chooser *chooser)
{
    for (unsigned mask = 0; mask < 1u << chooser->count; mask++) {
        for (size_t i = 0; i < chooser->count; i++) {
            pick(chooser->disk->dirty[i], (mask >> i & 1) != 0);
        }
        emit(chooser, "subset");
    }
}

static void singles(struct chooser *chooser)
{
    for (unsigned n = 0; n < SINGLES; n++) {
        size_t which = (size_t)chance(chooser, chooser->count);
        pick_all(chooser, false, true);
        pick(chooser->disk->dirty[which], true);
        emit(chooser, "only one");
        pick_all(chooser, true, true);
        pick(chooser->disk->dirty[which], false);
        emit(chooser, "all but one");
        for (size_t i = 0; i < chooser->count; i++) {
            bool others = chooser->disk->dirty[i]->kind != CELL_SECTOR;
            pick(chooser->disk->dirty[i], i < which || others);
        }
        emit(chooser, "torn");
    }
}

/* Few, many or half of the cells have got further than the floor. */
static void random_versions(struct chooser *chooser)
{
    for (unsigned n = 0; n < RANDOMS; n++) {
        uint64_t share = 1 + chance(chooser, 15);
        for (size_t i = 0; i < chooser->count; i++) {
            struct cell *cell = chooser->disk->dirty[i];
            bool further = chance(chooser, 16) < share;
            cell->pick = further ? 1 + (uint32_t)chance(chooser, cell->count - 1) : 0;
        }
        emit(chooser, "random");
    }
}

static void prefixes(struct chooser *chooser, uint64_t event)
{
    for (uint64_t upto = event; upto + PREFIXES > event && upto > 0; upto--) {
        for (size_t i = 0; i < chooser->count; i++) {
            struct cell *cell = chooser->disk->dirty[i];
            cell->pick = 0;
            while (cell->pick + 1 < cell->count && cell->versions[cell->pick + 1].event <= upto) {
                cell->pick++;
            }
        }
        emit(chooser, "prefix");
    }
}

void images_at(struct disk *disk, uint64_t event, uint64_t seed,
               void (*image)(void *user, const char *pattern), void *user)
{
    struct chooser chooser = {.disk = disk,
                              .count = disk_dirty(disk),
                              .rng = (seed + 1) * 0x9E3779B97F4A7C15ull ^ event,
                              .image = image,
                              .user = user};
    if (chooser.count <= IMAGES_EXHAUSTIVE) {
        every_subset(&chooser);
        return;
    }
    pick_all(&chooser, false, false);
    emit(&chooser, "floor");
    pick_all(&chooser, false, true);
    emit(&chooser, "floor, new sizes");
    pick_all(&chooser, true, true);
    emit(&chooser, "all");
    pick_all(&chooser, true, false);
    emit(&chooser, "all, old sizes");
    singles(&chooser);
    prefixes(&chooser, event);
    random_versions(&chooser);
}
