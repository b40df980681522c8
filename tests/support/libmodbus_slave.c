/* libmodbus_slave PORT: a Modbus TCP slave by libmodbus, a program that Windrow did not write.
 * libmodbus_slave TTY UNIT: the same as an RTU slave on a serial port, 19200E1.
 * Holding register n holds 100 + n, input register n holds 5000 + n, discrete input n is n % 3 ==
 * 0, coil n is n % 2 == 0; unit 1, one connection after the other, until it is killed. */
#include <errno.h>
#include <modbus/modbus.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { ENTRIES = 128 };

static modbus_mapping_t *new_mapping(void)
{
    modbus_mapping_t *map = modbus_mapping_new(ENTRIES, ENTRIES, ENTRIES, ENTRIES);
    if (!map) {
        return NULL;
    }
    for (int i = 0; i < ENTRIES; i++) {
        map->tab_registers[i] = (uint16_t)(100 + i);
        map->tab_input_registers[i] = (uint16_t)(5000 + i);
        map->tab_input_bits[i] = i % 3 == 0;
        map->tab_bits[i] = i % 2 == 0;
    }
    return map;
}

static void serve(modbus_t *bus, modbus_mapping_t *map, int on_tty)
{
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
    for (;;) {
        /* 0: for another unit. On a serial line a broken request ends nothing. */
        int length = modbus_receive(bus, query);
        if (length < 0 && on_tty && errno != EIO) {
            continue;
        }
        if (length < 0 || (length > 0 && modbus_reply(bus, query, length, map) < 0)) {
            return;
        }
    }
}

static int serve_tty(const char *tty, int unit)
{
    modbus_t *bus = modbus_new_rtu(tty, 19200, 'E', 8, 1);
    modbus_mapping_t *map = new_mapping();
    if (!bus || !map || modbus_set_slave(bus, unit) < 0 || modbus_connect(bus) < 0) {
        fprintf(stderr, "libmodbus_slave: %s: %s\n", tty, modbus_strerror(errno));
        return 1;
    }
    printf("ready\n");
    fflush(stdout);
    serve(bus, map, 1);
    modbus_close(bus);
    modbus_mapping_free(map);
    modbus_free(bus);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && argv[1][0] == '/') {
        return serve_tty(argv[1], (int)strtol(argv[2], NULL, 10));
    }
    int port = argc == 2 ? (int)strtol(argv[1], NULL, 10) : 0;
    if (port <= 0) {
        fprintf(stderr, "usage: libmodbus_slave PORT | TTY UNIT\n");
        return 2;
    }
    modbus_t *bus = modbus_new_tcp("127.0.0.1", port);
    modbus_mapping_t *map = new_mapping();
    int listener = bus ? modbus_tcp_listen(bus, 1) : -1;
    if (!map || listener < 0) {
        fprintf(stderr, "libmodbus_slave: port %d: %s\n", port, modbus_strerror(errno));
        return 1;
    }
    while (modbus_tcp_accept(bus, &listener) >= 0) {
        serve(bus, map, 0);
        modbus_close(bus);
    }
    close(listener);
    modbus_mapping_free(map);
    modbus_free(bus);
    return 0;
}
