#include "drivers/driver.h"

#include <string.h>

const struct driver *const drivers[] = {
    NULL,
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
