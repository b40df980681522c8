/* payload.h - what a CoAP message carries, by its content format, as a SenML pack.
 *
 * Pure, any thread. Plain text and plain CBOR are one value without a name: a pack of one record
 * whose name is empty. Formats: RFC 7252 section 12.3, RFC 8428 section 12.3. */
#pragma once

#include "drivers/coap/senml.h"

enum payload_format {
    PAYLOAD_TEXT = 0,
    PAYLOAD_CBOR = 60,
    PAYLOAD_SENML_JSON = 110,
    PAYLOAD_SENSML_JSON = 111,
    PAYLOAD_SENML_CBOR = 112,
    PAYLOAD_SENSML_CBOR = 113
};

bool payload_known(unsigned format);

/* -ENOTSUP: a format that is not read here; else as senml_parse_json(). */
must_check int payload_parse(unsigned format, const uint8_t *bytes, size_t len, int64_t now_ms,
                             struct senml_pack *ret_pack);
