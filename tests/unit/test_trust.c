/* The files of a transport: what takes effect when they change, and what is told of them. */
#include "certs_peer.h"
#include "uplink/transport/trust.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
// clang-format off
#include <cmocka.h> /* needs those above */
// clang-format on

static char dir[] = "/tmp/windrow-trust-XXXXXX";
static const int64_t day_ms = 86400000;

static const char *in_dir(const char *name)
{
    static char paths[8][128];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

static void write_file(const char *name, const void *bytes, size_t len)
{
    FILE *f = fopen(in_dir(name), "w");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(in_dir(name), 0600), 0);
}

static void copy(const char *from, const char *to)
{
    char command[300];
    snprintf(command, sizeof command, "cp %s %s && chmod 600 %s", in_dir(from), in_dir(to),
             in_dir(to));
    assert_int_equal(system(command), 0);
}

static bool holds(const struct buffer *bytes, const char *name)
{
    char text[8192];
    FILE *f = fopen(in_dir(name), "r");
    assert_non_null(f);
    size_t len = fread(text, 1, sizeof text, f);
    fclose(f);
    return bytes->len == len && memcmp(bytes->data, text, len) == 0;
}

static const char *told(const struct trust *t, int64_t wall_ms)
{
    static char words[TRUST_WORDS_MAX];
    trust_warning(t, wall_ms, words);
    return words;
}

static struct trust *make(const char *cert, const char *key, const char *ca, const char *token)
{
    struct transport_settings s = {.cert_file = cert != NULL ? in_dir(cert) : NULL,
                                   .key_file = key != NULL ? in_dir(key) : NULL,
                                   .ca_file = ca != NULL ? in_dir(ca) : NULL};
    s.token.path = token != NULL ? in_dir(token) : NULL;
    s.token.text = token != NULL ? "as configured" : NULL;
    struct trust *t = NULL;
    assert_int_equal(trust_create(&s, "token_file", &t), 0);
    return t;
}

/* Steps of a second, for which files are looked at. */
static int64_t look(struct trust *t, int seconds)
{
    static int64_t ahead_ms = (int64_t)1 << 40;
    for (int i = 0; i < seconds; i++) {
        trust_look(t, ahead_ms += TRUST_LOOK_MS);
    }
    return ahead_ms;
}

static void test_a_new_pair_takes_effect_as_a_whole(void **state)
{
    (void)state;
    copy("client.pem", "own.pem");
    copy("key.pem", "own.key");
    struct trust *t = make("own.pem", "own.key", "ca.pem", NULL);
    assert_true(holds(trust_cert(t), "client.pem") && holds(trust_ca(t), "ca.pem"));
    look(t, 3);
    assert_int_equal(trust_generation(t), 0);
    copy("good.pem", "own.pem");
    look(t, 1);
    assert_int_equal(trust_generation(t), 1);
    assert_true(holds(trust_cert(t), "good.pem") && holds(trust_key(t), "key.pem"));
    copy("good.pem", "own.pem"); /* nothing new in it */
    look(t, 2);
    assert_int_equal(trust_generation(t), 1);
    trust_destroy(t);
}

static void test_a_broken_pair_is_told_and_the_old_one_goes_on(void **state)
{
    (void)state;
    copy("client.pem", "own.pem");
    copy("key.pem", "own.key");
    struct trust *t = make("own.pem", "own.key", NULL, NULL);
    int64_t now_ms = 0; /* long before any certificate expires */
    write_file("own.pem", "nothing", 7);
    look(t, TRUST_GRACE_MS / TRUST_LOOK_MS);
    assert_string_equal(told(t, now_ms), ""); /* the second step may follow */
    look(t, 2);
    assert_non_null(strstr(told(t, now_ms), "cert_file holds no certificate in PEM; what was"));
    assert_true(holds(trust_cert(t), "client.pem"));
    assert_int_equal(trust_generation(t), 0);
    copy("good.pem", "own.pem");
    look(t, 1);
    assert_string_equal(told(t, now_ms), "");
    assert_true(holds(trust_cert(t), "good.pem"));
    assert_int_equal(chmod(in_dir("own.key"), 0644), 0);
    look(t, 6);
    assert_non_null(strstr(told(t, now_ms), "key_file may be read by others"));
    copy("other.key", "own.key");
    look(t, 6);
    assert_non_null(strstr(told(t, now_ms), "key_file is not the key of cert_file"));
    assert_int_equal(unlink(in_dir("own.key")), 0);
    look(t, 6);
    assert_non_null(strstr(told(t, now_ms), "key_file No such file"));
    assert_true(holds(trust_key(t), "key.pem"));
    trust_destroy(t);
}

static void test_tokens(void **state)
{
    (void)state;
    write_file("token", "one\n", 4);
    struct trust *t = make(NULL, NULL, NULL, "token");
    assert_string_equal(trust_token(t), "one");
    write_file("token", "two", 3);
    look(t, 1);
    assert_string_equal(trust_token(t), "two");
    write_file("token", "a\nb", 3);
    look(t, 6);
    assert_string_equal(trust_token(t), "two");
    assert_non_null(strstr(told(t, 0), "token_file holds no secret"));
    trust_destroy(t);
    t = make(NULL, NULL, NULL, "missing");
    assert_string_equal(trust_token(t), "as configured");
    trust_destroy(t);
}

static void test_passwords_and_logins(void **state)
{
    (void)state;
    write_file("password", "one\n", 4);
    write_file("login", "me:one\n", 7);
    char password[128], login[128];
    snprintf(password, sizeof password, "%s", in_dir("password"));
    snprintf(login, sizeof login, "%s", in_dir("login"));
    struct transport_settings s = {.token = {password, "as configured"},
                                   .proxy_login = {login, "as configured"}};
    struct trust *t = NULL;
    assert_int_equal(trust_create(&s, "password_file", &t), 0);
    assert_string_equal(trust_token(t), "one");
    assert_string_equal(trust_proxy_login(t), "me:one");
    write_file("login", "me:two\n", 7);
    look(t, 1);
    assert_string_equal(trust_proxy_login(t), "me:two");
    assert_int_equal(trust_generation(t), 1);
    write_file("password", "\n", 1);
    look(t, 6);
    assert_non_null(strstr(told(t, 0), "password_file holds no secret"));
    write_file("password", "two", 3);
    assert_int_equal(chmod(in_dir("login"), 0604), 0);
    look(t, 6);
    assert_non_null(strstr(told(t, 0), "proxy_login_file may be read by others"));
    assert_string_equal(trust_proxy_login(t), "me:two");
    trust_destroy(t);
}

static void test_the_endpoint_expires(void **state)
{
    (void)state;
    struct trust *t = make(NULL, NULL, NULL, NULL);
    trust_saw_peer(t, 100 * day_ms);
    assert_string_equal(told(t, 69 * day_ms), "");
    assert_non_null(strstr(told(t, 80 * day_ms), "the endpoint's certificate expires in 20 days"));
    trust_saw_peer(t, 0);
    assert_string_equal(told(t, 80 * day_ms), "");
    trust_destroy(t);
}

static void test_the_bound_on_a_file(void **state)
{
    (void)state;
    static char large[TRUST_FILE_MAX + 1];
    write_file("token", "one", 3);
    struct trust *t = make(NULL, NULL, NULL, "token");
    memset(large, 'x', sizeof large);
    write_file("token", large, sizeof large);
    look(t, 6);
    assert_string_equal(trust_token(t), "one");
    assert_non_null(strstr(told(t, 0), "token_file File too large"));
    write_file("token", large, sizeof large - 1);
    look(t, 1);
    assert_int_equal(strlen(trust_token(t)), TRUST_FILE_MAX);
    trust_destroy(t);
}

static void test_expiry(void **state)
{
    (void)state;
    char words[TRUST_WORDS_MAX];
    int64_t until_ms = 20000 * day_ms; /* 2024-10-04 */
    assert_false(trust_expiry_words("it", until_ms, until_ms - 31 * day_ms, words));
    assert_false(trust_expiry_words("it", 0, until_ms, words));
    assert_true(trust_expiry_words("it", until_ms, until_ms - 30 * day_ms, words));
    assert_string_equal(words, "it expires in 30 days, on 2024-10-04");
    assert_true(trust_expiry_words("it", until_ms, until_ms - day_ms, words));
    assert_string_equal(words, "it expires in 1 day, on 2024-10-04");
    assert_true(trust_expiry_words("it", until_ms, until_ms, words));
    assert_string_equal(words, "it has expired on 2024-10-04");

    int64_t ends_ms = trust_file_until_ms(in_dir("ca.pem"));
    assert_true(ends_ms > 0);
    struct trust *t = make("client.pem", "key.pem", "ca.pem", NULL);
    assert_string_equal(told(t, ends_ms - 400 * day_ms), "");
    assert_non_null(strstr(told(t, ends_ms + 1000 * day_ms), "cert_file has expired on"));
    trust_destroy(t);
    t = make(NULL, NULL, "ca.pem", NULL);
    assert_non_null(strstr(told(t, ends_ms + day_ms), "a certificate in ca_file has expired on"));
    trust_destroy(t);
}

static void test_a_bundle_of_the_world_is_nobodys_to_renew(void **state)
{
    (void)state;
    char command[300] = "";
    for (int i = 0; i < TRUST_BUNDLE_MAX + 1; i++) {
        snprintf(command, sizeof command, "cat %s >> %s", in_dir("expired.pem"),
                 in_dir("bundle.pem"));
        assert_int_equal(system(command), 0);
        assert_int_equal(trust_file_until_ms(in_dir("bundle.pem")) != 0, i < TRUST_BUNDLE_MAX);
    }
}

static int set_up(void **state)
{
    (void)state;
    char command[300];
    assert_non_null(mkdtemp(dir));
    certs_make(dir);
    snprintf(command, sizeof command, "openssl ecparam -name prime256v1 -genkey -noout -out %s",
             in_dir("other.key"));
    assert_int_equal(system(command), 0);
    return chmod(in_dir("key.pem"), 0600);
}

static int tear_down(void **state)
{
    (void)state;
    char command[100];
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_new_pair_takes_effect_as_a_whole),
        cmocka_unit_test(test_a_broken_pair_is_told_and_the_old_one_goes_on),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_passwords_and_logins),
        cmocka_unit_test(test_the_endpoint_expires),
        cmocka_unit_test(test_the_bound_on_a_file),
        cmocka_unit_test(test_expiry),
        cmocka_unit_test(test_a_bundle_of_the_world_is_nobodys_to_renew),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
