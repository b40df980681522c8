#include "drivers/simulator/sim_mast.h"

#include "drivers/coap/coap_loop.h"
#include "drivers/coap/payload.h"
#include "drivers/simulator/sim_signal.h"
#include "gateway/base/address.h"
#include "gateway/base/buffer.h"
#include "gateway/base/clock.h"

#include <cbor.h>
#include <errno.h>
#include <event2/event.h>
#include <math.h>
#include <string.h>

enum { MAST_SEED = 9999, ACCEPT_NONE = 0xffff, SESSIONS_MAX = 64, BODY_MAX = 1024 };

struct sim_mast {
    struct coap_loop loop;
    struct event *tick;
    coap_resource_t *senml, *temp;
    struct sim_signal signal;
    double humidity, pressure, air;
    int64_t time_ms, step_ms;
    uint64_t served;
    char psk[COAP_DTLS_MAX_PSK_IDENTITY + COAP_DTLS_MAX_PSK + 2]; /* ID:KEY */
    coap_bin_const_t identity, key;
};

struct quantity {
    const char *name, *unit;
    int decimals;
};

static const struct quantity quantities[] = {
    {"wind_speed", "m/s", 2}, {"wind_dir", "deg", 1}, {"temp", "Cel", 1},
    {"humidity", "%RH", 1},   {"pressure", "hPa", 1},
};

static double value_of(const struct sim_mast *mast, size_t quantity)
{
    const double values[] = {mast->signal.wind, mast->signal.direction, mast->air, mast->humidity,
                             mast->pressure};
    double unit = pow(10.0, quantities[quantity].decimals);
    return round(values[quantity] * unit) / unit;
}

static void sample(struct sim_mast *mast)
{
    sim_signal_next(&mast->signal);
    double t = (double)mast->signal.step;
    mast->air = 11.0 + 4.0 * sin(t / 900.0) + 0.05 * mast->signal.wind_fast;
    mast->humidity = 70.0 - 2.5 * (mast->air - 11.0);
    mast->pressure = 1013.0 + 6.0 * sin(t / 3600.0);
    mast->time_ms = clock_wall_ms();
}

static void write_json(const struct sim_mast *mast, struct buffer *b)
{
    buffer_printf(b, "[{\"bn\":\"mast/\",\"bt\":%lld.%03d},", (long long)(mast->time_ms / 1000),
                  (int)(mast->time_ms % 1000));
    for (size_t i = 0; i < ARRAY_SIZE(quantities); i++) {
        buffer_printf(b, "{\"n\":\"%s\",\"u\":\"%s\",\"v\":%.*f},", quantities[i].name,
                      quantities[i].unit, quantities[i].decimals, value_of(mast, i));
    }
    buffer_printf(b, "{\"n\":\"ok\",\"vb\":%s}]", mast->signal.grid_ok ? "true" : "false");
}

/* Labels of RFC 8428 section 6. */
static void write_cbor(const struct sim_mast *mast, struct buffer *b)
{
    uint8_t *at = buffer_reserve(b, BODY_MAX);
    uint8_t *end = at == NULL ? NULL : at + BODY_MAX;
    if (at == NULL) {
        return;
    }
    const uint8_t *begin = at;
#define LEFT (size_t)(end - at)
    at += cbor_encode_array_start(ARRAY_SIZE(quantities) + 2, at, LEFT);
    at += cbor_encode_map_start(2, at, LEFT);
    at += cbor_encode_negint(1, at, LEFT);
    at += cbor_encode_string_start(5, at, LEFT);
    memcpy(at, "mast/", 5);
    at += 5;
    at += cbor_encode_negint(2, at, LEFT);
    at += cbor_encode_double((double)mast->time_ms / 1000.0, at, LEFT);
    for (size_t i = 0; i < ARRAY_SIZE(quantities); i++) {
        size_t len = strlen(quantities[i].name);
        at += cbor_encode_map_start(2, at, LEFT);
        at += cbor_encode_uint(0, at, LEFT);
        at += cbor_encode_string_start(len, at, LEFT);
        memcpy(at, quantities[i].name, len);
        at += len;
        at += cbor_encode_uint(2, at, LEFT);
        at += cbor_encode_double(value_of(mast, i), at, LEFT);
    }
    at += cbor_encode_map_start(2, at, LEFT);
    at += cbor_encode_uint(0, at, LEFT);
    at += cbor_encode_string_start(2, at, LEFT);
    memcpy(at, "ok", 2);
    at += 2;
    at += cbor_encode_uint(4, at, LEFT);
    at += cbor_encode_bool(mast->signal.grid_ok, at, LEFT);
#undef LEFT
    b->len += (size_t)(at - begin);
}

/* The library keeps a body that goes out in blocks. */
static void release_body(coap_session_t *session, void *body)
{
    (void)session;
    free(body);
}

static void answer(struct sim_mast *mast, coap_resource_t *resource, coap_session_t *session,
                   const coap_pdu_t *request, const coap_string_t *query, coap_pdu_t *response)
{
    coap_opt_iterator_t iterator;
    const coap_opt_t *accept = coap_check_option(request, COAP_OPTION_ACCEPT, &iterator);
    unsigned wanted = accept == NULL
                          ? ACCEPT_NONE
                          : coap_decode_var_bytes(coap_opt_value(accept), coap_opt_length(accept));
    auto_buffer struct buffer body = {.max = 2 * BODY_MAX};
    uint16_t format = PAYLOAD_SENML_JSON;
    if (resource == mast->temp) {
        format = PAYLOAD_TEXT;
        buffer_printf(&body, "%.1f", value_of(mast, 2));
    } else if (wanted == PAYLOAD_SENML_CBOR) {
        format = PAYLOAD_SENML_CBOR;
        write_cbor(mast, &body);
    } else {
        write_json(mast, &body);
    }
    if (wanted != ACCEPT_NONE && wanted != format) {
        coap_pdu_set_code(response, COAP_RESPONSE_CODE_NOT_ACCEPTABLE);
        return;
    }
    uint8_t *copy = malloc(body.len + 1);
    if (copy == NULL || buffer_failed(&body)) {
        free(copy);
        coap_pdu_set_code(response, COAP_RESPONSE_CODE_INTERNAL_ERROR);
        return;
    }
    memcpy(copy, body.data, body.len);
    int max_age_s = (int)(mast->step_ms * SIM_MAST_MAX_AGE_STEPS / 1000);
    coap_pdu_set_code(response, COAP_RESPONSE_CODE_CONTENT);
    coap_add_data_large_response(resource, session, request, response, query, format,
                                 max_age_s > 0 ? max_age_s : 1, 0, body.len, copy, release_body,
                                 copy);
    mast->served++;
}

static void on_get(coap_resource_t *resource, coap_session_t *session, const coap_pdu_t *request,
                   const coap_string_t *query, coap_pdu_t *response)
{
    answer(coap_get_app_data(coap_session_get_context(session)), resource, session, request, query,
           response);
}

static void on_tick(evutil_socket_t fd, short what, void *user)
{
    struct sim_mast *mast = user;
    (void)fd;
    (void)what;
    sample(mast);
    coap_resource_notify_observers(mast->senml, NULL);
    coap_resource_notify_observers(mast->temp, NULL);
    coap_loop_kick(&mast->loop);
}

static coap_resource_t *add_resource(struct sim_mast *mast, const char *path, const char *format)
{
    coap_resource_t *resource = coap_resource_init(coap_make_str_const(path), 0);
    if (resource == NULL) {
        return NULL;
    }
    coap_register_request_handler(resource, COAP_REQUEST_GET, on_get);
    coap_resource_set_get_observable(resource, 1);
    coap_add_attr(resource, coap_make_str_const("ct"), coap_make_str_const(format), 0);
    coap_add_attr(resource, coap_make_str_const("rt"), coap_make_str_const("\"met-mast\""), 0);
    coap_add_resource(mast->loop.context, resource);
    return resource;
}

static const coap_bin_const_t *check_identity(coap_bin_const_t *identity, coap_session_t *session,
                                              void *user)
{
    const struct sim_mast *mast = user;
    bool ours = identity->length == mast->identity.length &&
                memcmp(identity->s, mast->identity.s, identity->length) == 0;
    (void)session;
    return ours ? &mast->key : NULL;
}

static int set_key(struct sim_mast *mast, const char *psk)
{
    const char *colon = strchr(psk, ':');
    if (colon == NULL || colon == psk || colon[1] == '\0' || strlen(psk) >= sizeof(mast->psk)) {
        return -EINVAL;
    }
    memcpy(mast->psk, psk, strlen(psk) + 1);
    const uint8_t *text = (const uint8_t *)mast->psk;
    size_t identity = (size_t)(colon - psk);
    mast->identity = (coap_bin_const_t){identity, text};
    mast->key = (coap_bin_const_t){strlen(colon + 1), text + identity + 1};
    coap_dtls_spsk_t setup = {
        .version = COAP_DTLS_SPSK_SETUP_VERSION,
        .validate_id_call_back = check_identity,
        .id_call_back_arg = mast,
        .psk_info = {.hint = {0, (const uint8_t *)""}, .key = mast->key},
    };
    return coap_context_set_psk2(mast->loop.context, &setup) != 0 ? 0 : -ENOMEM;
}

static int listen_at(struct sim_mast *mast, const struct sim_mast_options *options)
{
    struct sockaddr_storage address;
    socklen_t len;
    int r = address_parse(options->listen, &address, &len);
    if (r != 0) {
        return r;
    }
    coap_address_t at = coap_loop_address((struct sockaddr *)&address, len);
    bool secure = options->psk != NULL;
    errno = 0;
    if (coap_new_endpoint(mast->loop.context, &at, secure ? COAP_PROTO_DTLS : COAP_PROTO_UDP) ==
        NULL) {
        return errno != 0 ? -errno : -EADDRINUSE;
    }
    return 0;
}

static int start(struct sim_mast *mast, const struct sim_mast_options *options,
                 struct event_base *base)
{
    int r = coap_loop_init(&mast->loop, base, NULL, NULL);
    if (r != 0) {
        return r;
    }
    coap_context_t *context = mast->loop.context;
    coap_set_app_data(context, mast);
    coap_context_set_block_mode(context, COAP_BLOCK_USE_LIBCOAP | COAP_BLOCK_SINGLE_BODY);
    coap_context_set_max_idle_sessions(context, SESSIONS_MAX);
    coap_context_set_max_handshake_sessions(context, SESSIONS_MAX);
    mast->senml = add_resource(mast, "senml", "\"110 112\"");
    mast->temp = add_resource(mast, "temp", "0");
    mast->tick = event_new(base, -1, EV_PERSIST, on_tick, mast);
    if (mast->senml == NULL || mast->temp == NULL || mast->tick == NULL) {
        return -ENOMEM;
    }
    r = options->psk == NULL ? 0 : set_key(mast, options->psk);
    r = r != 0 ? r : listen_at(mast, options);
    const struct timeval step = {options->step_ms / 1000, options->step_ms % 1000 * 1000};
    return r != 0 ? r : event_add(mast->tick, &step) == 0 ? 0 : -ENOMEM;
}

int sim_mast_create(const struct sim_mast_options *options, struct event_base *base,
                    struct sim_mast **ret_mast, char ret_error[SIM_MAST_ERROR_SIZE])
{
    struct sim_mast *mast = calloc(1, sizeof(*mast));
    if (mast == NULL) {
        snprintf(ret_error, SIM_MAST_ERROR_SIZE, "out of memory");
        return -ENOMEM;
    }
    mast->step_ms = options->step_ms;
    sim_signal_init(&mast->signal, options->seed, MAST_SEED);
    sample(mast);
    int r = start(mast, options, base);
    if (r != 0) {
        const char *why = r == -EINVAL ? "--coap is IP:PORT, --psk is ID:KEY" : strerror(-r);
        snprintf(ret_error, SIM_MAST_ERROR_SIZE, "%s: %s", options->listen, why);
        sim_mast_destroy(mast);
        return r;
    }
    *ret_mast = mast;
    return 0;
}

void sim_mast_destroy(struct sim_mast *mast)
{
    if (mast == NULL) {
        return;
    }
    if (mast->tick != NULL) {
        event_free(mast->tick);
    }
    coap_loop_finish(&mast->loop);
    free(mast);
}

uint64_t sim_mast_served(const struct sim_mast *mast)
{
    return mast->served;
}
