/* senml.h - Sensor Measurement Lists (RFC 8428) to resolved records, from JSON and from CBOR.
 *
 * Pure, any thread. Base fields are applied, names are whole, times are UTC milliseconds: a sum of
 * base time and time below 2^28 seconds is relative to now (RFC 8428 section 4.5.3). Numbers keep
 * their decimal form where they have one. All input is hostile: its size, the number of records,
 * the length of a name and the nesting are bounded. */
#pragma once

#include "gateway/base/scan.h"

enum {
    SENML_BYTES_MAX = 65536,
    SENML_RECORDS_MAX = 4096,
    SENML_NAME_MAX = 255,
    SENML_TEXT_MAX = 2 << 20, /* of all names and texts together */
    SENML_VERSION = 10,       /* the one of RFC 8428; a higher one is refused (section 4.4) */
    SENML_DEPTH_MAX = 16      /* of unknown values that are skipped, CBOR */
};

/* A record that has a value. A VALUE_TEXT stands at value.text.offset in the pack's text. */
struct senml_record {
    uint32_t name, name_len; /* base name and name, in the pack's text */
    uint32_t base_len;       /* of it: the base name */
    bool timed;              /* has a time other than now */
    int64_t time_ms;
    struct reading value; /* point is not set */
};

struct senml_pack {
    struct senml_record *records;
    size_t count;
    struct buffer text;
};

/* -EINVAL: no SenML, -ENOTSUP: a newer version or a field that must be understood, -EMSGSIZE: a
 * bound is passed, -ENOMEM. On 0 the pack is to be finished. */
must_check int senml_parse_json(const uint8_t *bytes, size_t len, int64_t now_ms,
                                struct senml_pack *ret_pack);
must_check int senml_parse_cbor(const uint8_t *bytes, size_t len, int64_t now_ms,
                                struct senml_pack *ret_pack);
void senml_finish(struct senml_pack *pack);

static inline const char *senml_name(const struct senml_pack *pack,
                                     const struct senml_record *record)
{
    return (const char *)pack->text.data + record->name;
}
