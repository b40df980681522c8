#include "drivers/modbus/load.h"

#include "drivers/modbus/settings.h"

int load_add(struct load *load, struct rtu_line line, const struct config_device *device)
{
    const struct modbus_settings *settings = device->settings;
    struct plan plan;
    int r = modbus_plan_device(device, &plan);
    if (r != 0) {
        return r;
    }
    for (size_t i = 0; i < plan.request_count; i++) {
        const struct plan_request *request = &plan.requests[i];
        const struct mbap_request ask = {
            .function = registers_read_function(request->table),
            .first = request->first,
            .count = request->count,
        };
        double ms = (double)rtu_exchange_us(line, &ask) / 1000;
        double pause_ms = (double)settings->request_pause_ms - (double)rtu_gap_us(line) / 1000;
        ms += pause_ms > 0 ? pause_ms : 0;
        load->round_ms += ms;
        load->utilisation += ms / ((double)device->poll_ms * request->every);
    }
    load->requests += plan.request_count;
    load->devices++;
    plan_finish(&plan);
    return 0;
}
