#include "gateway/base/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* clang-format off: cmocka needs the ones above */
#include <cmocka.h>
/* clang-format on */

static void test_good(void **state)
{
    (void)state;
    struct sockaddr_storage address;
    socklen_t len;
    assert_int_equal(address_parse("127.0.0.1:0", &address, &len), 0);
    assert_int_equal(address.ss_family, AF_INET);
    assert_int_equal(len, sizeof(struct sockaddr_in));
    assert_int_equal(address_port(&address), 0);
    assert_int_equal(address_parse("[::1]:65535", &address, &len), 0);
    assert_int_equal(address.ss_family, AF_INET6);
    assert_int_equal(address_port(&address), 65535);
    address_set_port(&address, 502);
    assert_int_equal(address_port(&address), 502);
}

static void test_bad(void **state)
{
    (void)state;
    static const char *const bad[] = {"",           ":",           "127.0.0.1",     "127.0.0.1:",
                                      "1.2.3:80",   "host:80",     "1.2.3.4:65536", "1.2.3.4:-1",
                                      "1.2.3.4:8x", "::1:80",      "[::1]",         "[]:80",
                                      "[:80",       "1.2.3.4: 80", "[1.2.3.4]:80"};
    struct sockaddr_storage address;
    socklen_t len;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        if (address_parse(bad[i], &address, &len) != -EINVAL) {
            fail_msg("taken: %s", bad[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_good), cmocka_unit_test(test_bad)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
