#include "drivers/coap/coap.h"
#include "drivers/driver.h"
#include "drivers/http/http_driver.h"
#include "drivers/modbus/modbus_rtu.h"
#include "drivers/modbus/modbus_tcp.h"

#include <string.h>

const struct driver *const drivers[] = {
    &modbus_tcp_driver, &modbus_rtu_driver, &modbus_rtu_tcp_driver,
    &coap_driver,       &http_driver,       NULL,
};
const size_t drivers_count = ARRAY_SIZE(drivers) - 1;

const struct driver *driver_find(const char *name)
{
    for (size_t i = 0; i < drivers_count; i++) {
        if (strcmp(drivers[i]->name, name) == 0) {
            return drivers[i];
        }
    }
    return NULL;
}
