/* tables.h - all key tables in one place: the core's own, the modules', the drivers', the uplinks'.
 *
 * Immutable, any thread. What this build does not have is known here by name, so that it is said
 * and not ignored. */
#pragma once

#include "config/schema.h"

/* A kind of section. */
struct section_kind {
    const char *name;
    bool named;   /* [device NAME] rather than [store] */
    bool present; /* false: of the contract, but not in this version */
    const char *help;
};

extern const struct section_kind section_kinds[];
extern const size_t section_kinds_count;
const struct section_kind *section_kind_find(const char *name);

/* The settings that config/ itself owns. */
struct core_gateway {
    const char *name, *data_dir, *run_dir;
    int log_level, clock;
    int64_t clock_wait_ms;
    bool allow_writes;
    int64_t write_interval_ms;
};

struct core_device {
    const char *driver, *profile;
    int64_t poll_ms, timeout_ms;
};

struct core_aggregate {
    int64_t window_ms;
    struct config_list points, functions;
};

struct core_uplink {
    const char *type;
};

extern const struct config_table core_gateway_table, core_device_table, core_aggregate_table,
    core_uplink_table;

/* The bit of enum config_functions, 0 for an unknown word; i counts the words, NULL at the end. */
unsigned core_function_bit(const char *word);
const char *core_function_word(size_t i);

/* The table of a section without variants ("store", "api", "gateway", "aggregate", "coap", "bus");
 * NULL: none in this version. */
const struct config_table *tables_section(const char *kind);

/* Whether a driver, an uplink type of that name belongs to the contract, though not built. */
bool tables_driver_is_planned(const char *name);
bool tables_uplink_is_planned(const char *name);

/* All tables in the order of the example file; i counts, NULL at the end. */
const struct config_table *tables_at(size_t i);

const struct config_key *table_key(const struct config_table *table, const char *name);
/* Whether the key is a family such as "tag.". */
bool key_is_family(const struct config_key *key);
