#include "drivers/coap/transfer.h"

#include "drivers/coap/senml.h"
#include "gateway/base/clock.h"

#include <errno.h>
#include <string.h>

struct transfer {
    const coap_session_t *session; /* NULL: free */
    unsigned next, szx;
    uint64_t path; /* a hash of path and content format */
    int64_t begun_ms, touched_ms;
    struct buffer body;
};

struct transfers {
    struct transfer at[TRANSFERS_MAX];
    struct buffer done;
};

int transfers_create(struct transfers **ret_transfers)
{
    *ret_transfers = calloc(1, sizeof(**ret_transfers));
    return *ret_transfers == NULL ? -ENOMEM : 0;
}

static void release(struct transfer *transfer)
{
    buffer_finish(&transfer->body);
    *transfer = (struct transfer){0};
}

void transfers_destroy(struct transfers *transfers)
{
    if (transfers != NULL) {
        for (size_t i = 0; i < TRANSFERS_MAX; i++) {
            release(&transfers->at[i]);
        }
        buffer_finish(&transfers->done);
        free(transfers);
    }
}

static struct transfer *find(struct transfers *transfers, const coap_session_t *session)
{
    for (size_t i = 0; i < TRANSFERS_MAX; i++) {
        if (transfers->at[i].session == session) {
            return &transfers->at[i];
        }
    }
    return NULL;
}

void transfers_drop(struct transfers *transfers, const coap_session_t *session)
{
    struct transfer *transfer = find(transfers, session);
    if (transfer != NULL) {
        release(transfer);
    }
}

size_t transfers_count(const struct transfers *transfers)
{
    size_t count = 0;
    for (size_t i = 0; i < TRANSFERS_MAX; i++) {
        count += transfers->at[i].session != NULL ? 1 : 0;
    }
    return count;
}

/* A free place, or that of a transfer that is too old, or of the one that is idle longest. */
static struct transfer *make_place(struct transfers *transfers, const coap_session_t *session)
{
    int64_t now_ms = clock_mono_ms();
    struct transfer *place = find(transfers, session), *idle = NULL;
    for (size_t i = 0; i < TRANSFERS_MAX && place == NULL; i++) {
        struct transfer *one = &transfers->at[i];
        if (one->session == NULL || now_ms - one->begun_ms > TRANSFER_LIFETIME_MS) {
            place = one;
        } else if (idle == NULL || one->touched_ms < idle->touched_ms) {
            idle = one;
        }
    }
    if (place == NULL && now_ms - idle->touched_ms > TRANSFER_IDLE_MS) {
        place = idle;
    }
    if (place != NULL) {
        release(place);
        place->session = session;
        place->begun_ms = place->touched_ms = now_ms;
        place->body.max = SENML_BYTES_MAX;
    }
    return place;
}

static uint64_t hash_of(const coap_pdu_t *request)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    coap_opt_iterator_t iterator;
    coap_opt_t *option;
    coap_option_iterator_init(request, &iterator, COAP_OPT_ALL);
    while ((option = coap_option_next(&iterator)) != NULL) {
        if (iterator.number == COAP_OPTION_URI_PATH ||
            iterator.number == COAP_OPTION_CONTENT_FORMAT) {
            const uint8_t *value = coap_opt_value(option);
            for (uint32_t i = 0; i < coap_opt_length(option); i++) {
                hash = (hash ^ value[i]) * UINT64_C(0x100000001b3);
            }
            hash = (hash ^ 0x100) * UINT64_C(0x100000001b3);
        }
    }
    return hash;
}

static int refuse(coap_pdu_t *response, coap_pdu_code_t code)
{
    coap_pdu_set_code(response, code);
    return 0;
}

static int go_on(coap_pdu_t *response, const coap_block_t *block)
{
    uint8_t bytes[4];
    unsigned value = block->num << 4 | (unsigned)block->m << 3 | block->szx;
    unsigned len = coap_encode_var_safe(bytes, sizeof(bytes), value);
    coap_pdu_set_code(response, COAP_RESPONSE_CODE_CONTINUE);
    coap_add_option(response, COAP_OPTION_BLOCK1, len, bytes);
    return 0;
}

/* Appends the block. NULL: it does not continue what is there, `code` says why. */
static struct transfer *append(struct transfers *transfers, const coap_session_t *session,
                               const coap_pdu_t *request, const coap_block_t *block,
                               coap_pdu_code_t *ret_code)
{
    const uint8_t *data = NULL;
    size_t len = 0;
    uint64_t path = hash_of(request);
    struct transfer *transfer = block->num == 0 ? make_place(transfers, session)
                                                : find(transfers, session);
    *ret_code = block->num == 0 ? COAP_RESPONSE_CODE_SERVICE_UNAVAILABLE
                                : COAP_RESPONSE_CODE_INCOMPLETE;
    if (transfer == NULL) {
        return NULL;
    }
    if (block->num == 0) {
        transfer->path = path;
        transfer->szx = block->szx;
    }
    coap_get_data(request, &len, &data);
    bool whole = block->m == 0 || len == (size_t)16 << block->szx;
    if (block->num != transfer->next || block->szx != transfer->szx || path != transfer->path ||
        !whole) {
        release(transfer);
        *ret_code = COAP_RESPONSE_CODE_INCOMPLETE;
        return NULL;
    }
    buffer_add(&transfer->body, data, len);
    if (buffer_failed(&transfer->body)) {
        release(transfer);
        *ret_code = COAP_RESPONSE_CODE_REQUEST_TOO_LARGE;
        return NULL;
    }
    transfer->next++;
    transfer->touched_ms = clock_mono_ms();
    return transfer;
}

int transfers_take(struct transfers *transfers, coap_session_t *session, const coap_pdu_t *request,
                   coap_pdu_t *response, const uint8_t **ret_body, size_t *ret_len)
{
    coap_block_t block;
    *ret_body = NULL;
    *ret_len = 0;
    if (coap_get_block(request, COAP_OPTION_BLOCK1, &block) == 0 ||
        (block.num == 0 && block.m == 0)) {
        coap_get_data(request, ret_len, ret_body);
        return 1;
    }
    struct transfer *transfer = find(transfers, session);
    if (transfer != NULL && block.m != 0 && block.num + 1 == transfer->next) {
        /* The answer to it was lost. */
        return go_on(response, &block);
    }
    coap_pdu_code_t code;
    transfer = append(transfers, session, request, &block, &code);
    if (transfer == NULL) {
        return refuse(response, code);
    }
    if (block.m != 0) {
        return go_on(response, &block);
    }
    buffer_finish(&transfers->done);
    transfers->done = transfer->body;
    transfer->body = (struct buffer){0};
    release(transfer);
    *ret_body = transfers->done.data;
    *ret_len = transfers->done.len;
    return 1;
}
