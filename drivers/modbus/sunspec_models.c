#include "drivers/modbus/sunspec.h"
#include "gateway/base/cleanup.h"

#include <string.h>

/* Offsets, types and scale factors of the models, as the SunSpec Alliance publishes them. Offsets
 * count from the model's id. */
enum kind { I16, U16, A32, B32, F32, STR };

struct row {
    const char *name;
    uint8_t offset, kind;
    uint8_t scale;   /* offset of its scale factor, 0: none */
    int8_t exponent; /* fixed by the model */
    uint8_t length;  /* bytes of a string */
};

static const struct row model_1[] = {
    {"Mn", 2, STR, 0, 0, 32},  {"Md", 18, STR, 0, 0, 32}, {"Opt", 34, STR, 0, 0, 16},
    {"Vr", 42, STR, 0, 0, 16}, {"SN", 50, STR, 0, 0, 32}, {"DA", 66, U16, 0, 0, 0},
};

static const struct row model_103[] = {
    {"A", 2, U16, 6, 0, 0},         {"AphA", 3, U16, 6, 0, 0},     {"AphB", 4, U16, 6, 0, 0},
    {"AphC", 5, U16, 6, 0, 0},      {"PPVphAB", 7, U16, 13, 0, 0}, {"PPVphBC", 8, U16, 13, 0, 0},
    {"PPVphCA", 9, U16, 13, 0, 0},  {"PhVphA", 10, U16, 13, 0, 0}, {"PhVphB", 11, U16, 13, 0, 0},
    {"PhVphC", 12, U16, 13, 0, 0},  {"W", 14, I16, 15, 0, 0},      {"Hz", 16, U16, 17, 0, 0},
    {"VA", 18, I16, 19, 0, 0},      {"VAr", 20, I16, 21, 0, 0},    {"PF", 22, I16, 23, 0, 0},
    {"WH", 24, A32, 26, 0, 0},      {"DCA", 27, U16, 28, 0, 0},    {"DCV", 29, U16, 30, 0, 0},
    {"DCW", 31, I16, 32, 0, 0},     {"TmpCab", 33, I16, 37, 0, 0}, {"TmpSnk", 34, I16, 37, 0, 0},
    {"TmpTrns", 35, I16, 37, 0, 0}, {"TmpOt", 36, I16, 37, 0, 0},  {"St", 38, U16, 0, 0, 0},
    {"StVnd", 39, U16, 0, 0, 0},    {"Evt1", 40, B32, 0, 0, 0},    {"Evt2", 42, B32, 0, 0, 0},
    {"EvtVnd1", 44, B32, 0, 0, 0},  {"EvtVnd2", 46, B32, 0, 0, 0}, {"EvtVnd3", 48, B32, 0, 0, 0},
    {"EvtVnd4", 50, B32, 0, 0, 0},
};

static const struct row model_113[] = {
    {"A", 2, F32, 0, 0, 0},        {"AphA", 4, F32, 0, 0, 0},     {"AphB", 6, F32, 0, 0, 0},
    {"AphC", 8, F32, 0, 0, 0},     {"PPVphAB", 10, F32, 0, 0, 0}, {"PPVphBC", 12, F32, 0, 0, 0},
    {"PPVphCA", 14, F32, 0, 0, 0}, {"PhVphA", 16, F32, 0, 0, 0},  {"PhVphB", 18, F32, 0, 0, 0},
    {"PhVphC", 20, F32, 0, 0, 0},  {"W", 22, F32, 0, 0, 0},       {"Hz", 24, F32, 0, 0, 0},
    {"VA", 26, F32, 0, 0, 0},      {"VAr", 28, F32, 0, 0, 0},     {"PF", 30, F32, 0, 0, 0},
    {"WH", 32, F32, 0, 0, 0},      {"DCA", 34, F32, 0, 0, 0},     {"DCV", 36, F32, 0, 0, 0},
    {"DCW", 38, F32, 0, 0, 0},     {"TmpCab", 40, F32, 0, 0, 0},  {"TmpSnk", 42, F32, 0, 0, 0},
    {"TmpTrns", 44, F32, 0, 0, 0}, {"TmpOt", 46, F32, 0, 0, 0},   {"St", 48, U16, 0, 0, 0},
    {"StVnd", 49, U16, 0, 0, 0},   {"Evt1", 50, B32, 0, 0, 0},    {"Evt2", 52, B32, 0, 0, 0},
    {"EvtVnd1", 54, B32, 0, 0, 0}, {"EvtVnd2", 56, B32, 0, 0, 0}, {"EvtVnd3", 58, B32, 0, 0, 0},
    {"EvtVnd4", 60, B32, 0, 0, 0},
};

static const struct row model_203[] = {
    {"A", 2, I16, 6, 0, 0},
    {"AphA", 3, I16, 6, 0, 0},
    {"AphB", 4, I16, 6, 0, 0},
    {"AphC", 5, I16, 6, 0, 0},
    {"PhV", 7, I16, 15, 0, 0},
    {"PhVphA", 8, I16, 15, 0, 0},
    {"PhVphB", 9, I16, 15, 0, 0},
    {"PhVphC", 10, I16, 15, 0, 0},
    {"PPV", 11, I16, 15, 0, 0},
    {"PhVphAB", 12, I16, 15, 0, 0},
    {"PhVphBC", 13, I16, 15, 0, 0},
    {"PhVphCA", 14, I16, 15, 0, 0},
    {"Hz", 16, I16, 17, 0, 0},
    {"W", 18, I16, 22, 0, 0},
    {"WphA", 19, I16, 22, 0, 0},
    {"WphB", 20, I16, 22, 0, 0},
    {"WphC", 21, I16, 22, 0, 0},
    {"VA", 23, I16, 27, 0, 0},
    {"VAphA", 24, I16, 27, 0, 0},
    {"VAphB", 25, I16, 27, 0, 0},
    {"VAphC", 26, I16, 27, 0, 0},
    {"VAR", 28, I16, 32, 0, 0},
    {"VARphA", 29, I16, 32, 0, 0},
    {"VARphB", 30, I16, 32, 0, 0},
    {"VARphC", 31, I16, 32, 0, 0},
    {"PF", 33, I16, 37, 0, 0},
    {"PFphA", 34, I16, 37, 0, 0},
    {"PFphB", 35, I16, 37, 0, 0},
    {"PFphC", 36, I16, 37, 0, 0},
    {"TotWhExp", 38, A32, 54, 0, 0},
    {"TotWhExpPhA", 40, A32, 54, 0, 0},
    {"TotWhExpPhB", 42, A32, 54, 0, 0},
    {"TotWhExpPhC", 44, A32, 54, 0, 0},
    {"TotWhImp", 46, A32, 54, 0, 0},
    {"TotWhImpPhA", 48, A32, 54, 0, 0},
    {"TotWhImpPhB", 50, A32, 54, 0, 0},
    {"TotWhImpPhC", 52, A32, 54, 0, 0},
    {"TotVAhExp", 55, A32, 71, 0, 0},
    {"TotVAhExpPhA", 57, A32, 71, 0, 0},
    {"TotVAhExpPhB", 59, A32, 71, 0, 0},
    {"TotVAhExpPhC", 61, A32, 71, 0, 0},
    {"TotVAhImp", 63, A32, 71, 0, 0},
    {"TotVAhImpPhA", 65, A32, 71, 0, 0},
    {"TotVAhImpPhB", 67, A32, 71, 0, 0},
    {"TotVAhImpPhC", 69, A32, 71, 0, 0},
    {"TotVArhImpQ1", 72, A32, 104, 0, 0},
    {"TotVArhImpQ1PhA", 74, A32, 104, 0, 0},
    {"TotVArhImpQ1PhB", 76, A32, 104, 0, 0},
    {"TotVArhImpQ1PhC", 78, A32, 104, 0, 0},
    {"TotVArhImpQ2", 80, A32, 104, 0, 0},
    {"TotVArhImpQ2PhA", 82, A32, 104, 0, 0},
    {"TotVArhImpQ2PhB", 84, A32, 104, 0, 0},
    {"TotVArhImpQ2PhC", 86, A32, 104, 0, 0},
    {"TotVArhExpQ3", 88, A32, 104, 0, 0},
    {"TotVArhExpQ3PhA", 90, A32, 104, 0, 0},
    {"TotVArhExpQ3PhB", 92, A32, 104, 0, 0},
    {"TotVArhExpQ3PhC", 94, A32, 104, 0, 0},
    {"TotVArhExpQ4", 96, A32, 104, 0, 0},
    {"TotVArhExpQ4PhA", 98, A32, 104, 0, 0},
    {"TotVArhExpQ4PhB", 100, A32, 104, 0, 0},
    {"TotVArhExpQ4PhC", 102, A32, 104, 0, 0},
    {"Evt", 105, B32, 0, 0, 0},
};

static const struct row model_213[] = {
    {"A", 2, F32, 0, 0, 0},
    {"AphA", 4, F32, 0, 0, 0},
    {"AphB", 6, F32, 0, 0, 0},
    {"AphC", 8, F32, 0, 0, 0},
    {"PhV", 10, F32, 0, 0, 0},
    {"PhVphA", 12, F32, 0, 0, 0},
    {"PhVphB", 14, F32, 0, 0, 0},
    {"PhVphC", 16, F32, 0, 0, 0},
    {"PPV", 18, F32, 0, 0, 0},
    {"PPVphAB", 20, F32, 0, 0, 0},
    {"PPVphBC", 22, F32, 0, 0, 0},
    {"PPVphCA", 24, F32, 0, 0, 0},
    {"Hz", 26, F32, 0, 0, 0},
    {"W", 28, F32, 0, 0, 0},
    {"WphA", 30, F32, 0, 0, 0},
    {"WphB", 32, F32, 0, 0, 0},
    {"WphC", 34, F32, 0, 0, 0},
    {"VA", 36, F32, 0, 0, 0},
    {"VAphA", 38, F32, 0, 0, 0},
    {"VAphB", 40, F32, 0, 0, 0},
    {"VAphC", 42, F32, 0, 0, 0},
    {"VAR", 44, F32, 0, 0, 0},
    {"VARphA", 46, F32, 0, 0, 0},
    {"VARphB", 48, F32, 0, 0, 0},
    {"VARphC", 50, F32, 0, 0, 0},
    {"PF", 52, F32, 0, 0, 0},
    {"PFphA", 54, F32, 0, 0, 0},
    {"PFphB", 56, F32, 0, 0, 0},
    {"PFphC", 58, F32, 0, 0, 0},
    {"TotWhExp", 60, F32, 0, 0, 0},
    {"TotWhExpPhA", 62, F32, 0, 0, 0},
    {"TotWhExpPhB", 64, F32, 0, 0, 0},
    {"TotWhExpPhC", 66, F32, 0, 0, 0},
    {"TotWhImp", 68, F32, 0, 0, 0},
    {"TotWhImpPhA", 70, F32, 0, 0, 0},
    {"TotWhImpPhB", 72, F32, 0, 0, 0},
    {"TotWhImpPhC", 74, F32, 0, 0, 0},
    {"TotVAhExp", 76, F32, 0, 0, 0},
    {"TotVAhExpPhA", 78, F32, 0, 0, 0},
    {"TotVAhExpPhB", 80, F32, 0, 0, 0},
    {"TotVAhExpPhC", 82, F32, 0, 0, 0},
    {"TotVAhImp", 84, F32, 0, 0, 0},
    {"TotVAhImpPhA", 86, F32, 0, 0, 0},
    {"TotVAhImpPhB", 88, F32, 0, 0, 0},
    {"TotVAhImpPhC", 90, F32, 0, 0, 0},
    {"TotVArhImpQ1", 92, F32, 0, 0, 0},
    {"TotVArhImpQ1phA", 94, F32, 0, 0, 0},
    {"TotVArhImpQ1phB", 96, F32, 0, 0, 0},
    {"TotVArhImpQ1phC", 98, F32, 0, 0, 0},
    {"TotVArhImpQ2", 100, F32, 0, 0, 0},
    {"TotVArhImpQ2phA", 102, F32, 0, 0, 0},
    {"TotVArhImpQ2phB", 104, F32, 0, 0, 0},
    {"TotVArhImpQ2phC", 106, F32, 0, 0, 0},
    {"TotVArhExpQ3", 108, F32, 0, 0, 0},
    {"TotVArhExpQ3phA", 110, F32, 0, 0, 0},
    {"TotVArhExpQ3phB", 112, F32, 0, 0, 0},
    {"TotVArhExpQ3phC", 114, F32, 0, 0, 0},
    {"TotVArhExpQ4", 116, F32, 0, 0, 0},
    {"TotVArhExpQ4phA", 118, F32, 0, 0, 0},
    {"TotVArhExpQ4phB", 120, F32, 0, 0, 0},
    {"TotVArhExpQ4phC", 122, F32, 0, 0, 0},
    {"Evt", 124, B32, 0, 0, 0},
};

static const struct row model_307[] = {
    {"TmpAmb", 2, I16, 0, -1, 0}, {"RH", 3, I16, 0, 0, 0},       {"Pres", 4, I16, 0, 0, 0},
    {"WndSpd", 5, I16, 0, 0, 0},  {"WndDir", 6, I16, 0, 0, 0},   {"Rain", 7, I16, 0, 0, 0},
    {"Snw", 8, I16, 0, 0, 0},     {"PPT", 9, I16, 0, 0, 0},      {"ElecFld", 10, I16, 0, 0, 0},
    {"SurWet", 11, I16, 0, 0, 0}, {"SoilWet", 12, I16, 0, 0, 0},
};

static const struct {
    uint16_t model, length; /* registers behind id and length */
    const struct row *rows;
    size_t count;
} models[] = {
    {1, 66, model_1, ARRAY_SIZE(model_1)},        {101, 50, model_103, ARRAY_SIZE(model_103)},
    {102, 50, model_103, ARRAY_SIZE(model_103)},  {103, 50, model_103, ARRAY_SIZE(model_103)},
    {111, 60, model_113, ARRAY_SIZE(model_113)},  {112, 60, model_113, ARRAY_SIZE(model_113)},
    {113, 60, model_113, ARRAY_SIZE(model_113)},  {201, 105, model_203, ARRAY_SIZE(model_203)},
    {202, 105, model_203, ARRAY_SIZE(model_203)}, {203, 105, model_203, ARRAY_SIZE(model_203)},
    {204, 105, model_203, ARRAY_SIZE(model_203)}, {211, 124, model_213, ARRAY_SIZE(model_213)},
    {212, 124, model_213, ARRAY_SIZE(model_213)}, {213, 124, model_213, ARRAY_SIZE(model_213)},
    {214, 124, model_213, ARRAY_SIZE(model_213)}, {307, 11, model_307, ARRAY_SIZE(model_307)},
};

unsigned sunspec_model_length(uint16_t model)
{
    for (size_t i = 0; i < ARRAY_SIZE(models); i++) {
        if (models[i].model == model) {
            return models[i].length;
        }
    }
    return 0;
}

static void fill_kind(const struct row *row, struct registers_point *point)
{
    static const struct {
        uint8_t type;
        bool has_invalid, top_bit_invalid;
        uint64_t invalid;
    } kinds[] = {
        [I16] = {REGISTERS_INT16, true, false, 0x8000},
        [U16] = {REGISTERS_UINT16, true, false, 0xffff},
        /* An accumulator says 0 when it is not there, and also when it is new: 0 is a value. */
        [A32] = {REGISTERS_UINT32, false, false, 0},
        [B32] = {REGISTERS_UINT32, false, true, 0},
        [F32] = {REGISTERS_FLOAT32, false, false, 0}, /* NaN */
        [STR] = {REGISTERS_STRING, false, false, 0},
    };
    point->type = kinds[row->kind].type;
    point->top_bit_invalid = kinds[row->kind].top_bit_invalid;
    point->detail = row->length;
    if (!point->has_invalid) {
        point->has_invalid = kinds[row->kind].has_invalid;
        point->invalid = kinds[row->kind].invalid;
    }
}

/* The span of registers that holds the value and its scale factor, so that one request reads
 * both. */
static void fill_span(const struct row *row, struct registers_point *point)
{
    unsigned width = registers_width(point->type, point->detail);
    unsigned first = row->offset, end = first + width;
    if (row->scale != 0) {
        first = row->scale < first ? row->scale : first;
        end = row->scale + 1U > end ? row->scale + 1U : end;
        point->has_scale = true;
        point->scale_at = (uint8_t)(row->scale - first);
    }
    point->first = (uint16_t)first;
    point->width = (uint16_t)(end - first);
    point->value_at = (uint8_t)(row->offset - first);
    point->exponent = row->exponent;
}

bool sunspec_find_point(uint16_t model, const char *name, struct registers_point *point)
{
    for (size_t i = 0; i < ARRAY_SIZE(models); i++) {
        for (size_t j = 0; models[i].model == model && j < models[i].count; j++) {
            if (strcmp(models[i].rows[j].name, name) == 0) {
                point->table = REGISTERS_HOLDING;
                fill_kind(&models[i].rows[j], point);
                fill_span(&models[i].rows[j], point);
                return true;
            }
        }
    }
    return false;
}
