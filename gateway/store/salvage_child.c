#include "gateway/store/anchors.h"
#include "gateway/store/child.h"
#include "gateway/store/dictionary.h"
#include "gateway/store/large.h"
#include "gateway/store/record.h"
#include "gateway/store/salvage_frames.h"
#include "gateway/store/salvage_letters.h"
#include "gateway/store/wal.h"
#include "gateway/store/wreck.h"

#include <errno.h>
#include <string.h>

/* What was found of a device and stream so far. */
struct found {
    struct ranges seqs;
    uint64_t scans, readings;
};

struct rescue {
    const struct salvage_order *order;
    int out, error; /* error: of the pipe */
    struct wreck *wreck;
    struct wal_decoder *decoder;
    struct buffer value, scans, frame;
    struct state state;
    bool state_known;
    struct anchors anchors;
    const struct wreck_entry **names; /* of each device: its best record in the dictionary */
    uint8_t *told;                    /* a bit a device: its record was sent */
    size_t devices;
    struct letter_list letters;
    struct found *found;                  /* by device and stream */
    uint64_t *sent_to[STORE_UPLINKS_MAX]; /* readings by device */
    struct frame_end end;
    uint64_t forgotten; /* scans that might come twice */
};

static void send_frame(struct rescue *r, enum frame_kind kind, const void *head, size_t head_len,
                       const void *tail, size_t tail_len)
{
    struct frame frame = {kind, (uint32_t)(head_len + tail_len)};
    buffer_clear(&r->frame);
    buffer_add(&r->frame, &frame, sizeof(frame));
    buffer_add(&r->frame, head, head_len);
    buffer_add(&r->frame, tail, tail_len);
    if (r->error == 0) {
        r->error = buffer_failed(&r->frame) || frame.len > FRAME_BYTES_MAX
                       ? -ENOMEM
                       : child_write(r->out, r->frame.data, r->frame.len);
    }
}

static void beat(void *user)
{
    send_frame(user, FRAME_BEAT, NULL, 0, NULL, 0);
}

static void use_state(struct rescue *r, struct state *state)
{
    /* Of several the one that is furthest. */
    if (r->state_known && r->state.commits >= state->commits) {
        state_finish(state);
        return;
    }
    state_finish(&r->state);
    r->state = *state;
    r->state_known = true;
}

static int read_states(struct rescue *r)
{
    for (size_t i = 0; i < wreck_count(r->wreck); i++) {
        const struct wreck_entry *entry = wreck_at(r->wreck, i);
        struct state state = {0};
        if (wreck_kind(entry) != WRECK_STATE) {
            continue;
        }
        int rc = wreck_read(r->wreck, entry, &r->value);
        rc = rc < 0 ? rc : state_decode(r->value.data, r->value.len, &state);
        if (rc == 0) {
            use_state(r, &state);
        } else if (rc == -ENOMEM) {
            return rc;
        }
    }
    return 0;
}

static int by_anchor(const void *a, const void *b)
{
    const struct anchor *x = a, *y = b;
    return x->number != y->number
               ? (x->number < y->number ? -1 : 1)
               : (x->learned_ms > y->learned_ms) - (x->learned_ms < y->learned_ms);
}

/* Each anchor once, as it was known last. */
static int read_anchors(struct rescue *r)
{
    auto_buffer struct buffer list = {0};
    for (size_t i = 0; i < wreck_count(r->wreck); i++) {
        const struct wreck_entry *entry = wreck_at(r->wreck, i);
        struct anchor anchor;
        if (wreck_kind(entry) == WRECK_ANCHOR && wreck_read(r->wreck, entry, &r->value) == 0 &&
            anchor_decode(r->value.data, r->value.len, &anchor) == 0) {
            anchor.number = entry->number;
            buffer_add(&list, &anchor, sizeof(anchor));
        }
    }
    size_t count = list.len / sizeof(struct anchor);
    struct anchor *anchors = (struct anchor *)(void *)list.data;
    if (count > 0) {
        qsort(anchors, count, sizeof(*anchors), by_anchor);
    }
    int rc = buffer_failed(&list) ? -ENOMEM : 0;
    anchors_finish(&r->anchors);
    for (size_t i = 0; i < count && rc == 0; i++) {
        if (i + 1 == count || anchors[i].number != anchors[i + 1].number) {
            r->anchors.next = anchors[i].number;
            rc = anchors_add_stored(&r->anchors, &anchors[i]);
        }
    }
    return rc;
}

/* Of several records of a device the newest version's longest: points are only ever added. */
static int read_names(struct rescue *r, bool *ret_all_good)
{
    auto_free size_t *lengths = calloc(STATE_DEVICES_MAX + 1, sizeof(*lengths));
    if (lengths == NULL) {
        return -ENOMEM;
    }
    memset(r->names, 0, (STATE_DEVICES_MAX + 1) * sizeof(*r->names));
    for (size_t i = 0; i < wreck_count(r->wreck); i++) {
        const struct wreck_entry *entry = wreck_at(r->wreck, i);
        uint32_t device = wreck_device(entry);
        if (wreck_kind(entry) != WRECK_DEVICE || device == 0 || device > STATE_DEVICES_MAX) {
            continue;
        }
        int rc = wreck_read(r->wreck, entry, &r->value);
        rc = rc < 0 ? rc : dictionary_check(r->value.data, r->value.len);
        if (rc < 0) {
            *ret_all_good = false;
            continue;
        }
        const struct wreck_entry *best = r->names[device];
        if (best == NULL || entry->number > best->number ||
            (entry->number == best->number && r->value.len > lengths[device])) {
            r->names[device] = entry;
            lengths[device] = r->value.len;
        }
        r->devices = device > r->devices ? device : r->devices;
    }
    return 0;
}

/* What explains the blocks. Where something is missing, pages that nothing leads to may have it. */
static int read_records(struct rescue *r)
{
    bool good = true;
    int rc = read_states(r);
    rc = rc < 0 ? rc : read_names(r, &good);
    if (rc < 0) {
        return rc;
    }
    if (!good || !r->state_known || wreck_is_broken(r->wreck)) {
        rc = wreck_add_orphans(r->wreck);
        rc = rc < 0 ? rc : read_states(r);
        rc = rc < 0 ? rc : read_names(r, &good);
    }
    return rc < 0 ? rc : read_anchors(r);
}

static void tell_beginning(struct rescue *r)
{
    static const char ours[] = "salvage.";
    struct frame_begin begin = {.state_known = r->state_known, .blocks = wreck_count(r->wreck)};
    send_frame(r, FRAME_BEGIN, &begin, sizeof(begin), NULL, 0);
    for (uint32_t u = 0; u < STORE_UPLINKS_MAX && r->state_known; u++) {
        const char *name = r->state.uplinks[u].name;
        if (name != NULL) {
            send_frame(r, FRAME_UPLINK, &u, sizeof(u), name, strlen(name));
        }
    }
    for (size_t i = 0; i < r->state.note_count; i++) {
        const struct state_note *note = &r->state.notes[i];
        if (strncmp(note->name, ours, strlen(ours)) == 0) {
            send_frame(r, FRAME_NOTE, &note->value, sizeof(note->value), note->name,
                       strlen(note->name));
        }
    }
}

static bool has_crashed(const struct salvage_order *order, uint64_t leaf)
{
    bool crashed = false;
    for (unsigned i = 0; i < order->crash_count; i++) {
        crashed |= order->crashes[i] == leaf;
    }
    return crashed;
}

/* Says that the entry is looked at now; false: it has crashed its reader. */
static bool touch(void *user, const struct wreck_entry *entry)
{
    struct rescue *r = user;
    const struct salvage_place place = {entry->part, entry->number, entry->leaf, 0};
    if (has_crashed(r->order, entry->leaf)) {
        return false;
    }
    send_frame(r, FRAME_BLOCK, &place, sizeof(place), NULL, 0);
    return true;
}

static int by_number(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* Whether the tree has given that number: then what is left over of it is older. Those of the tree
 * come first, ascending. */
static bool is_older(struct buffer *sent, const struct wreck_entry *entry)
{
    size_t count = sent->len / sizeof(uint64_t);
    if (!wreck_is_orphan(entry)) {
        buffer_add(sent, &entry->number, sizeof(entry->number));
        return false;
    }
    return count > 0 &&
           bsearch(&entry->number, sent->data, count, sizeof(uint64_t), by_number) != NULL;
}

/* Complete are those of a sound tree, if they are as many as its state has counted. */
static int tell_records(struct rescue *r)
{
    const struct state_note *note = state_note(&r->state, RECORD_COUNT_NOTE);
    uint64_t good = 0, expected = note == NULL ? 0 : (uint64_t)note->value;
    bool bad = false, send = !r->order->look_only && !r->order->records_done;
    auto_buffer struct buffer sent = {0};
    for (size_t i = 0; send && i < wreck_count(r->wreck); i++) {
        const struct wreck_entry *entry = wreck_at(r->wreck, i);
        if (wreck_kind(entry) != WRECK_RECORD) {
            continue;
        }
        int rc = touch(r, entry) ? wreck_read(r->wreck, entry, &r->value) : -EBADMSG;
        if (rc == -ENOMEM) {
            return rc;
        }
        if (rc == 0 && r->value.len <= STORE_RECORD_MAX) {
            if (is_older(&sent, entry)) {
                continue;
            }
            send_frame(r, FRAME_RECORD, &entry->number, sizeof(entry->number), r->value.data,
                       r->value.len);
            good++;
        } else {
            bad = true;
        }
    }
    if (send) {
        const struct frame_records records = {
            .complete = r->state_known && !wreck_is_broken(r->wreck) && !bad && good == expected};
        send_frame(r, FRAME_RECORDS, &records, sizeof(records), NULL, 0);
    }
    return r->error;
}

static bool tell_device(struct rescue *r, uint32_t device)
{
    if (device == 0 || device > r->devices || r->names[device] == NULL) {
        return false;
    }
    uint8_t bit = (uint8_t)(1u << device % 8);
    if (!r->order->look_only && (r->told[device / 8] & bit) == 0) {
        auto_buffer struct buffer record = {0};
        if (wreck_read(r->wreck, r->names[device], &record) < 0 ||
            record.len > FRAME_BYTES_MAX - sizeof(device) ||
            dictionary_check(record.data, record.len) < 0) {
            r->names[device] = NULL; /* it did read once: the disk is failing */
            return false;
        }
        send_frame(r, FRAME_DEVICE, &device, sizeof(device), record.data, record.len);
        r->told[device / 8] |= bit;
    }
    return true;
}

/* Which uplinks have it, or were never to have it; *ret_wanted: it is to be salvaged. */
static uint32_t settled_by(const struct rescue *r, const struct scan *scan, bool *ret_wanted)
{
    uint32_t settled = 0;
    bool anybody = false;
    *ret_wanted = !r->state_known;
    for (unsigned u = 0; u < STORE_UPLINKS_MAX && r->state_known; u++) {
        const struct state_uplink *uplink = &r->state.uplinks[u];
        bool selected = uplink->name != NULL && (uplink->streams & 1u << scan->stream) != 0;
        bool has = selected && scan->device <= r->state.device_count &&
                   ranges_contains(&uplink->devices[scan->device - 1].streams[scan->stream].settled,
                                   scan->seq);
        anybody |= selected;
        *ret_wanted |= selected && !has;
        settled |= (uint32_t)(!selected || has) << u;
    }
    *ret_wanted |= !anybody && scan->time_ms >= r->order->kept_since_ms;
    return settled;
}

static int order_of(const struct salvage_place *a, const struct salvage_place *b)
{
    struct wreck_entry x = {a->part, a->number, a->leaf}, y = {b->part, b->number, b->leaf};
    int order = wreck_order(&x, &y);
    return order != 0 ? order : a->row < b->row ? -1 : a->row > b->row;
}

/* Whether the uplink has no more to do with the scan, as far as anybody can say. */
static bool is_dead(const struct rescue *r, const struct scan *scan, const char *uplink)
{
    for (unsigned u = 0; u < STORE_UPLINKS_MAX && r->state_known; u++) {
        const struct state_uplink *known = &r->state.uplinks[u];
        if (known->name != NULL && strcmp(known->name, uplink) == 0 &&
            scan->device <= r->state.device_count) {
            return ranges_contains(&known->devices[scan->device - 1].streams[scan->stream].settled,
                                   scan->seq);
        }
    }
    return true;
}

static void send_letter(struct rescue *r, const struct store_letter *letter)
{
    const struct frame_letter head = {.refused_ms = letter->refused_ms,
                                      .uplink_len = (uint32_t)strlen(letter->uplink),
                                      .why_len = (uint32_t)strlen(letter->why),
                                      .refused_count = letter->refused_count};
    auto_buffer struct buffer tail = {0};
    buffer_add_text(&tail, letter->uplink);
    buffer_add_text(&tail, letter->why);
    buffer_add(&tail, letter->refused, letter->refused_count * sizeof(*letter->refused));
    r->error = r->error == 0 && buffer_failed(&tail) ? -ENOMEM : r->error;
    send_frame(r, FRAME_LETTER, &head, sizeof(head), tail.data, tail.len);
}

/* How many letters of the scan stand, one an uplink; `send`: and sends them. What waits for its
 * uplink (or nobody knows that it does not, and it is in a block) has none. */
static unsigned use_letters(struct rescue *r, const struct scan *scan, bool send)
{
    size_t count;
    unsigned stand = 0;
    char before[STATE_NAME_MAX + 1] = "";
    struct letter_ref *refs = letters_of(&r->letters, scan, &count);
    for (size_t i = 0; i < count; i++) {
        struct store_letter letter;
        refs[i].taken = true;
        if (letters_read(&r->letters, r->wreck, refs[i].entry, &letter) < 0 ||
            strcmp(letter.uplink, before) == 0 || !is_dead(r, scan, letter.uplink)) {
            continue;
        }
        snprintf(before, sizeof(before), "%s", letter.uplink);
        stand++;
        if (send) {
            send_letter(r, &letter);
        }
    }
    return stand;
}

static bool is_found(struct rescue *r, const struct scan *scan, uint64_t prev_seq)
{
    struct found *found = &r->found[(size_t)scan->device * STREAM_COUNT + scan->stream];
    if (ranges_contains(&found->seqs, scan->seq)) {
        return true;
    }
    uint64_t first = prev_seq < scan->seq ? prev_seq + 1 : scan->seq;
    if (ranges_add(&found->seqs, first, scan->seq) < 0) {
        r->forgotten++; /* more runs than can be remembered: then a repeat is the lesser evil */
    }
    found->scans++;
    found->readings += scan->count;
    return false;
}

/* Out of a block, or (lettered) out of its own dead letter. */
static void use_scan(struct rescue *r, const struct scan *scan, const struct salvage_place *place,
                     bool lettered)
{
    bool wanted, known = r->state_known || lettered;
    struct frame_scan head = {.place = *place, .settled = settled_by(r, scan, &wanted)};
    unsigned letters = use_letters(r, scan, false);
    if (!wanted && (letters == 0 || !known)) {
        return;
    }
    if (!tell_device(r, scan->device)) {
        r->end.nameless += scan->count;
        return;
    }
    for (unsigned u = 0; u < STORE_UPLINKS_MAX && r->state_known; u++) {
        r->sent_to[u][scan->device] += (head.settled & 1u << u) == 0 ? scan->count : 0;
    }
    head.place.row++;
    if (!r->order->look_only && order_of(place, &r->order->from) >= 0) {
        if (letters > 0 && known) {
            (void)use_letters(r, scan, true);
        }
        send_frame(r, FRAME_SCAN, &head, sizeof(head), scan, scan_size(scan));
    }
}

/* Whatever it is found in, the log or large blocks, each scan goes out once. */
static void take_scan(struct rescue *r, const struct scan *scan, uint64_t prev_seq,
                      const struct salvage_place *place)
{
    if (!is_found(r, scan, prev_seq)) {
        use_scan(r, scan, place, false);
    }
}

/* What no block holds any more has its letter still. */
static int take_letters(struct rescue *r)
{
    for (size_t i = 0; i < wreck_count(r->wreck) && r->error == 0; i++) {
        const struct wreck_entry *entry = wreck_at(r->wreck, i);
        struct store_letter letter;
        size_t count;
        if (wreck_kind(entry) != WRECK_LETTER || !touch(r, entry) ||
            letters_read(&r->letters, r->wreck, entry, &letter) < 0) {
            continue;
        }
        const struct letter_ref *refs = letters_of(&r->letters, letter.scan, &count);
        if (count > 0 && !refs->taken) {
            const struct salvage_place place = {SALVAGE_LETTERS | entry->part, entry->number,
                                                entry->leaf, 0};
            auto_free struct scan *scan = malloc(scan_size(letter.scan));
            if (scan == NULL) {
                return -ENOMEM;
            }
            /* The opener is needed for all letters of the scan. */
            memcpy(scan, letter.scan, scan_size(letter.scan));
            use_scan(r, scan, &place, true);
        }
    }
    return r->error;
}

static int take_large(struct rescue *r, const struct wreck_entry *entry,
                      struct salvage_place *place)
{
    struct key key = key_large(wreck_stream(entry), wreck_device(entry), entry->number);
    MDB_val name = {.mv_size = key.len, .mv_data = key.bytes};
    MDB_val value = {.mv_size = r->value.len, .mv_data = r->value.data};
    struct large large;
    int rc = large_read(&name, &value, &large)
                 ? large_decode(&large, value.mv_data, value.mv_size, &r->scans)
                 : -EBADMSG;
    uint64_t prev_seq = rc == 0 ? large.prev_seq : 0;
    if (rc == 0 && (large.device == 0 || large.device > STATE_DEVICES_MAX)) {
        rc = -EBADMSG;
    }
    for (size_t at = 0; rc == 0 && at < r->scans.len; place->row++) {
        const struct scan *scan = (const struct scan *)(const void *)(r->scans.data + at);
        take_scan(r, scan, prev_seq, place);
        prev_seq = scan->seq;
        at += scan_size(scan);
    }
    return rc;
}

static int take_log(struct rescue *r, const struct wreck_entry *entry, struct salvage_place *place)
{
    struct wal_header header;
    const struct wal_row *rows;
    int rc = wal_open(r->decoder, r->value.data, r->value.len, &header, &rows);
    if (rc == 0) {
        buffer_clear(&r->scans);
        uint8_t *arena = buffer_reserve(&r->scans, header.memory);
        rc = arena == NULL ? -ENOMEM : wal_scans(r->decoder, arena);
    }
    struct anchor_fate fate = anchors_fate(&r->anchors, entry->number);
    for (size_t i = 0; rc == 0 && i < header.scans; i++, place->row++) {
        struct scan *scan = (struct scan *)(void *)(r->scans.data + rows[i].offset);
        if (scan->device > 0 && scan->device <= STATE_DEVICES_MAX && scan->stream < STREAM_COUNT) {
            anchors_restamp(&fate, scan);
            take_scan(r, scan, rows[i].prev_seq, place);
        }
    }
    return rc;
}

static int take_block(struct rescue *r, const struct wreck_entry *entry)
{
    struct salvage_place place = {entry->part, entry->number, entry->leaf, 0};
    int rc = -EBADMSG;
    if (touch(r, entry)) {
        rc = wreck_read(r->wreck, entry, &r->value);
        if (rc == 0) {
            rc = wreck_kind(entry) == WRECK_LARGE ? take_large(r, entry, &place)
                                                  : take_log(r, entry, &place);
        }
    }
    if (rc == -ENOMEM) {
        return rc;
    }
    /* Of an orphan that does not read nobody knows that it was ever more than left-overs. */
    r->end.blocks += rc == 0;
    r->end.bad += rc < 0 && !wreck_is_orphan(entry);
    return r->error;
}

static uint64_t waited(const struct rescue *r, unsigned u, uint32_t device)
{
    uint64_t waiting = 0;
    for (unsigned s = 0; s < STREAM_COUNT && device <= r->state.device_count; s++) {
        waiting += r->state.uplinks[u].name == NULL
                       ? 0
                       : r->state.uplinks[u].devices[device - 1].streams[s].waiting;
    }
    return waiting;
}

/* Scans missing between those that were found, at the average size of these. */
static uint64_t missing(const struct rescue *r, uint32_t device)
{
    double readings = 0;
    for (unsigned s = 0; s < STREAM_COUNT; s++) {
        const struct found *found = &r->found[(size_t)device * STREAM_COUNT + s];
        uint64_t scans = 0;
        for (uint32_t i = 0; i + 1 < found->seqs.count; i++) {
            scans += found->seqs.list[i + 1].first - found->seqs.list[i].last - 1;
        }
        readings += found->scans == 0
                        ? 0
                        : (double)scans * (double)found->readings / (double)found->scans;
    }
    return (uint64_t)readings;
}

static void tell_lost(struct rescue *r)
{
    size_t devices = r->devices > r->state.device_count ? r->devices : r->state.device_count;
    for (uint32_t d = 1; d <= devices; d++) {
        struct frame_lost lost = {.device = d, .readings = r->state_known ? 0 : missing(r, d)};
        for (unsigned u = 0; u < STORE_UPLINKS_MAX && r->state_known; u++) {
            uint64_t waiting = waited(r, u, d), sent = r->sent_to[u][d];
            uint64_t gone = waiting > sent ? waiting - sent : 0;
            lost.readings = gone > lost.readings ? gone : lost.readings;
        }
        if (lost.readings > 0) {
            (void)tell_device(r, d);
            send_frame(r, FRAME_LOST, &lost, sizeof(lost), NULL, 0);
        }
    }
}

static int prepare(struct rescue *r)
{
    r->names = calloc(STATE_DEVICES_MAX + 1, sizeof(*r->names));
    r->told = calloc(STATE_DEVICES_MAX / 8 + 1, 1);
    r->found = calloc(((size_t)STATE_DEVICES_MAX + 1) * STREAM_COUNT, sizeof(*r->found));
    int rc = r->names == NULL || r->told == NULL || r->found == NULL ? -ENOMEM : 0;
    for (unsigned u = 0; u < STORE_UPLINKS_MAX && rc == 0; u++) {
        r->sent_to[u] = calloc(STATE_DEVICES_MAX + 1, sizeof(*r->sent_to[u]));
        rc = r->sent_to[u] == NULL ? -ENOMEM : 0;
    }
    return rc < 0 ? rc : wal_decoder_create(&r->decoder);
}

int salvage_child(int out, void *order)
{
    /* The end of the process gives all of it back. */
    struct rescue r = {.order = order, .out = out};
    r.value.max = WRECK_VALUE_MAX + 1;
    int rc = prepare(&r);
    rc = rc < 0 ? rc : wreck_open(r.order->file, beat, &r, &r.wreck);
    rc = rc < 0 ? rc : read_records(&r);
    if (rc == 0) {
        tell_beginning(&r);
        rc = tell_records(&r);
        rc = rc < 0 ? rc : letters_list(&r.letters, r.wreck, touch, &r);
    }
    for (size_t i = 0; rc == 0 && i < wreck_count(r.wreck); i++) {
        const struct wreck_entry *entry = wreck_at(r.wreck, i);
        if (wreck_kind(entry) == WRECK_LARGE || wreck_kind(entry) == WRECK_LOG) {
            rc = take_block(&r, entry);
        }
    }
    rc = rc < 0 ? rc : take_letters(&r);
    if (rc == 0) {
        tell_lost(&r);
        r.end.letters_bad = r.letters.bad;
        send_frame(&r, FRAME_END, &r.end, sizeof(r.end), NULL, 0);
        rc = r.error;
    }
    return -rc;
}
