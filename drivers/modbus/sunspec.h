/* sunspec.h - SunSpec models: what stands in them, and where a device keeps them.
 *
 * Pure, any thread. A SunSpec map begins with the marker "SunS" at 40000, 50000 or 0, followed by a
 * chain of models, each headed by its id and its length in registers, up to id 0xFFFF (SunSpec
 * Information Model Specification 1.9). A point of a model is a span of registers: its value and
 * the scale factor that belongs to it. */
#pragma once

#include "drivers/modbus/registers.h"

enum {
    SUNSPEC_MODELS_MAX = 64, /* followed in a chain; an endless one must end */
    SUNSPEC_INSTANCES_MAX = 9,
    SUNSPEC_FIRST = 40002 /* where the chain usually begins */
};

/* How many registers follow id and length; 0: a model not known here. */
unsigned sunspec_model_length(uint16_t model);

/* Fills type, span, scale factor and "not implemented" of a point; `first` counts from the model's
 * id. False: the model has no such point. */
bool sunspec_find_point(uint16_t model, const char *name, struct registers_point *point);

/* The words behind "sunspec" in `point.NAME = sunspec 103 W`, or "203:2 W" for the second model 203
 * of the chain. On -EINVAL ret_why says what is wrong. */
must_check int sunspec_parse_point(const char *model, const char *name,
                                   struct registers_point *point, char *ret_why, size_t why_size);

/* A model as it was found: `first` is the address of its id. */
struct sunspec_place {
    uint16_t model, first, length;
};

/* The way along the marker and the chain, a read of two registers after the other. */
struct sunspec_walk {
    unsigned marker; /* which of the addresses is being tried */
    bool found, ended;
    uint16_t at;
    size_t count;
    struct sunspec_place places[SUNSPEC_MODELS_MAX];
};

enum { SUNSPEC_WALK_REGISTERS = 2 };

void sunspec_walk_start(struct sunspec_walk *walk);

/* Where the next two holding registers are to be read; only while it has not ended. */
uint16_t sunspec_walk_at(const struct sunspec_walk *walk);

/* What they hold, and that the device does not give them. */
void sunspec_walk_take(struct sunspec_walk *walk, const uint8_t data[4]);
void sunspec_walk_refused(struct sunspec_walk *walk);

/* Puts a point of a model to where that model was found. False: it was not, or is too short. */
bool sunspec_place_point(const struct sunspec_walk *walk, struct registers_point *point);

/* "1 103 160", the models found; "none". */
void sunspec_walk_describe(const struct sunspec_walk *walk, char *text, size_t size);
