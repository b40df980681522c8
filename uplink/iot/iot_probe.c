#include "uplink/iot/iot.h"
#include "uplink/probe/probe.h"

static bool target(const void *settings, struct probe_target *ret_target)
{
    const struct iot_settings *s = settings;
    if (!probe_target_of_url(&s->transport, s->transport.url, ret_target)) {
        return false;
    }
    ret_target->alpn = iot_alpn(s);
    return true;
}

const struct uplink_probe iot_probe = {.target = target};
