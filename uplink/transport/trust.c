#include "uplink/transport/trust.h"

#include "gateway/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum file { FILE_CA, FILE_CERT, FILE_KEY, FILE_CRL, FILE_TOKEN, FILE_LOGIN, FILES };
static const char *const file_keys[FILES] = {"ca_file",  "cert_file", "key_file",
                                             "crl_file", NULL,        "proxy_login_file"};

/* By what a change is seen: also a file put over another one within a second, of equal size. */
struct mark {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec changed;
};

struct trust {
    const char *paths[FILES]; /* NULL: there is none */
    const char *secret_key;   /* what FILE_TOKEN is called */
    const char *first_token;  /* as the configuration read it */
    const char *first_login;
    struct mark seen[FILES]; /* of the set in use, or of the one that was found broken */
    struct buffer contents[FILES];
    int64_t until_ms[FILES]; /* 0: none, or not known */
    unsigned generation;
    int64_t looked_ms;
    struct mark odd[FILES]; /* of the set that does not fit together at present ... */
    int64_t odd_since_ms;   /* ... since then; 0: it does */
    int64_t peer_until_ms;  /* the end of the certificate that was shown last; 0: none yet */
    char trouble[TRUST_WORDS_MAX];
};

/* A change that makes no difference to whoever reads it may show here; that costs a look. */
static void mark_file(const char *path, struct mark *ret_mark)
{
    struct stat s;
    memset(ret_mark, 0, sizeof *ret_mark);
    if (path != NULL && stat(path, &s) == 0) {
        ret_mark->device = s.st_dev;
        ret_mark->inode = s.st_ino;
        ret_mark->size = s.st_size;
        ret_mark->changed = s.st_ctim;
    }
}

static void mark_all(const struct trust *t, struct mark marks[FILES])
{
    for (size_t i = 0; i < FILES; i++) {
        mark_file(t->paths[i], &marks[i]);
    }
}

static int read_file(const char *path, bool ours_alone, struct buffer *out)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    struct stat s;
    if (fd < 0 || fstat(fd, &s) < 0) {
        return -errno;
    }
    if (!S_ISREG(s.st_mode) || s.st_size > TRUST_FILE_MAX) {
        return -EFBIG;
    }
    if (ours_alone && (s.st_mode & 077) != 0) {
        return -EPERM;
    }
    uint8_t bytes[4096];
    for (ssize_t n; (n = read(fd, bytes, sizeof bytes)) != 0;) {
        if (n < 0 || out->len > TRUST_FILE_MAX) {
            return n < 0 ? -errno : -EFBIG;
        }
        buffer_add(out, bytes, (size_t)n);
    }
    return buffer_failed(out) ? -ENOMEM : 0;
}

/* An encrypted key must fail; without this OpenSSL asks on the terminal. */
static int no_passphrase(char *text, int size, int writing, void *user)
{
    (void)text, (void)size, (void)writing, (void)user;
    return -1;
}

int64_t trust_until_ms(const X509 *certificate)
{
    struct tm tm = {0};
    const ASN1_TIME *until = X509_get0_notAfter(certificate);
    return until != NULL && ASN1_TIME_to_tm(until, &tm) == 1 ? (int64_t)timegm(&tm) * 1000 : 0;
}

/* The certificates of a file, and when the first of them expires; ret_first may be NULL. */
static int read_certificates(const struct buffer *pem, size_t *ret_count, int64_t *ret_until_ms,
                             X509 **ret_first)
{
    BIO *bio = BIO_new_mem_buf(pem->data, (int)pem->len);
    size_t count = 0;
    int64_t until_ms = 0;
    X509 *one;
    while (bio != NULL && (one = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) != NULL) {
        int64_t until = trust_until_ms(one);
        until_ms = until_ms == 0 || (until != 0 && until < until_ms) ? until : until_ms;
        if (count++ == 0 && ret_first != NULL) {
            *ret_first = one;
        } else {
            X509_free(one);
        }
    }
    BIO_free(bio);
    ERR_clear_error();
    *ret_count = count;
    *ret_until_ms = until_ms;
    return count > 0 ? 0 : -EINVAL;
}

static bool fits(X509 *certificate, const struct buffer *pem)
{
    BIO *bio = BIO_new_mem_buf(pem->data, (int)pem->len);
    EVP_PKEY *key = bio == NULL ? NULL : PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
    bool good = key != NULL && X509_check_private_key(certificate, key) == 1;
    EVP_PKEY_free(key);
    BIO_free(bio);
    ERR_clear_error();
    return good;
}

static bool is_token(struct buffer *b)
{
    while (b->len > 0 && b->data[b->len - 1] <= ' ') {
        b->len--;
    }
    for (size_t i = 0; i < b->len; i++) {
        if (b->data[i] < ' ' || b->data[i] == 0x7f) {
            return false;
        }
    }
    buffer_add_byte(b, '\0');
    return b->len > 1 && !buffer_failed(b);
}

struct set {
    struct buffer contents[FILES];
    int64_t until_ms[FILES];
};

static void set_finish(struct set *set)
{
    for (size_t i = 0; i < FILES; i++) {
        buffer_finish(&set->contents[i]);
    }
}

static int trouble(const struct trust *t, char words[TRUST_WORDS_MAX], enum file file,
                   const char *why)
{
    snprintf(words, TRUST_WORDS_MAX, "%s %s", file == FILE_TOKEN ? t->secret_key : file_keys[file],
             why);
    return -EINVAL;
}

static int check_pair(const struct trust *t, struct set *set, char words[TRUST_WORDS_MAX])
{
    X509 *own = NULL;
    size_t count;
    const struct buffer *cert = &set->contents[FILE_CERT];
    if (read_certificates(cert, &count, &set->until_ms[FILE_CERT], &own) < 0) {
        return trouble(t, words, FILE_CERT, "holds no certificate in PEM");
    }
    bool good = fits(own, &set->contents[FILE_KEY]);
    X509_free(own);
    return good ? 0 : trouble(t, words, FILE_KEY, "is not the key of cert_file");
}

/* What lies in the files now, when it can be used as a whole. */
static int read_set(const struct trust *t, struct set *set, char words[TRUST_WORDS_MAX])
{
    for (size_t i = 0; i < FILES; i++) {
        bool ours_alone = i == FILE_KEY || i >= FILE_TOKEN;
        int r = t->paths[i] == NULL ? 0 : read_file(t->paths[i], ours_alone, &set->contents[i]);
        if (r < 0) {
            return trouble(t, words, (enum file)i,
                           r == -EPERM ? "may be read by others: its mode must be 0600"
                                       : strerror(-r));
        }
    }
    size_t count;
    if (t->paths[FILE_CA] != NULL &&
        read_certificates(&set->contents[FILE_CA], &count, &set->until_ms[FILE_CA], NULL) < 0) {
        return trouble(t, words, FILE_CA, "holds no certificate in PEM");
    }
    set->until_ms[FILE_CA] = t->paths[FILE_CA] != NULL && count <= TRUST_BUNDLE_MAX
                                 ? set->until_ms[FILE_CA]
                                 : 0;
    for (size_t i = FILE_TOKEN; i < FILES; i++) {
        if (t->paths[i] != NULL && !is_token(&set->contents[i])) {
            return trouble(t, words, (enum file)i, "holds no secret");
        }
    }
    return t->paths[FILE_CERT] != NULL && t->paths[FILE_KEY] != NULL ? check_pair(t, set, words)
                                                                     : 0;
}

static bool is_news(const struct trust *t, const struct set *set)
{
    for (size_t i = 0; i < FILES; i++) {
        const struct buffer *old = &t->contents[i], *now = &set->contents[i];
        if (old->len != now->len || (old->len > 0 && memcmp(old->data, now->data, old->len) != 0)) {
            return true;
        }
    }
    return false;
}

static void use(struct trust *t, struct set *set)
{
    for (size_t i = 0; i < FILES; i++) {
        struct buffer old = t->contents[i];
        t->contents[i] = set->contents[i];
        set->contents[i] = old;
        t->until_ms[i] = set->until_ms[i];
    }
}

int trust_create(const struct transport_settings *s, const char *secret_key,
                 struct trust **ret_trust)
{
    struct trust *t = calloc(1, sizeof *t);
    if (t == NULL) {
        return -ENOMEM;
    }
    t->paths[FILE_CA] = s->ca_file;
    t->paths[FILE_CERT] = s->cert_file;
    t->paths[FILE_KEY] = s->key_file;
    t->paths[FILE_CRL] = s->crl_file;
    t->paths[FILE_TOKEN] = s->token.path;
    t->paths[FILE_LOGIN] = s->proxy_login.path;
    t->secret_key = secret_key;
    t->first_token = s->token.text;
    t->first_login = s->proxy_login.text;
    t->looked_ms = clock_mono_ms();
    struct set set = {0};
    mark_all(t, t->seen);
    if (read_set(t, &set, t->trouble) == 0) {
        use(t, &set);
    }
    set_finish(&set);
    *ret_trust = t;
    return 0;
}

void trust_destroy(struct trust *t)
{
    for (size_t i = 0; t != NULL && i < FILES; i++) {
        buffer_finish(&t->contents[i]);
    }
    free(t);
}

/* Whether what is wrong now may still be put right by the second step of a change. */
static bool may_mend(struct trust *t, const struct mark now[FILES], int64_t mono_ms)
{
    if (t->odd_since_ms == 0 || memcmp(t->odd, now, sizeof t->odd) != 0) {
        memcpy(t->odd, now, sizeof t->odd);
        t->odd_since_ms = mono_ms;
    }
    return mono_ms - t->odd_since_ms < TRUST_GRACE_MS;
}

void trust_look(struct trust *t, int64_t mono_ms)
{
    if (mono_ms - t->looked_ms < TRUST_LOOK_MS) {
        return;
    }
    struct mark now[FILES];
    t->looked_ms = mono_ms;
    mark_all(t, now);
    if (memcmp(now, t->seen, sizeof now) == 0) {
        t->odd_since_ms = 0;
        return;
    }
    struct set set = {0};
    char words[TRUST_WORDS_MAX];
    if (read_set(t, &set, words) == 0) {
        t->generation += is_news(t, &set);
        use(t, &set);
        t->trouble[0] = '\0';
    } else if (may_mend(t, now, mono_ms)) {
        set_finish(&set);
        return;
    } else {
        snprintf(t->trouble, sizeof t->trouble, "%.150s; what was there before goes on", words);
    }
    t->odd_since_ms = 0;
    memcpy(t->seen, now, sizeof now);
    set_finish(&set);
}

void trust_look_now(struct trust *t, int64_t mono_ms)
{
    t->looked_ms = mono_ms - TRUST_LOOK_MS;
    trust_look(t, mono_ms);
}

unsigned trust_generation(const struct trust *t)
{
    return t->generation;
}

const struct buffer *trust_ca(const struct trust *t)
{
    return &t->contents[FILE_CA];
}

const struct buffer *trust_cert(const struct trust *t)
{
    return &t->contents[FILE_CERT];
}

const struct buffer *trust_key(const struct trust *t)
{
    return &t->contents[FILE_KEY];
}

static const char *secret(const struct buffer *now, const char *first)
{
    return now->len > 0 ? (const char *)now->data : first;
}

const char *trust_token(const struct trust *t)
{
    return secret(&t->contents[FILE_TOKEN], t->first_token);
}

const char *trust_proxy_login(const struct trust *t)
{
    return secret(&t->contents[FILE_LOGIN], t->first_login);
}

void trust_saw_peer(struct trust *t, int64_t until_ms)
{
    t->peer_until_ms = until_ms;
}

bool trust_expiry_words(const char *what, int64_t until_ms, int64_t wall_ms,
                        char words[TRUST_WORDS_MAX])
{
    static const int64_t day_ms = 86400000;
    char date[CLOCK_TEXT_SIZE] = "";
    if (until_ms == 0 || until_ms - wall_ms > TRUST_WARN_DAYS * day_ms) {
        return false;
    }
    clock_format_utc(until_ms, date);
    date[10] = '\0'; /* the day is enough */
    if (until_ms <= wall_ms) {
        snprintf(words, TRUST_WORDS_MAX, "%s has expired on %s", what, date);
    } else {
        int days = (int)((until_ms - wall_ms) / day_ms);
        snprintf(words, TRUST_WORDS_MAX, "%s expires in %d day%s, on %s", what, days,
                 days == 1 ? "" : "s", date);
    }
    return true;
}

void trust_warning(const struct trust *t, int64_t wall_ms, char words[TRUST_WORDS_MAX])
{
    words[0] = '\0';
    if (t->trouble[0] != '\0') {
        snprintf(words, TRUST_WORDS_MAX, "%s", t->trouble);
    } else if (!trust_expiry_words("cert_file", t->until_ms[FILE_CERT], wall_ms, words) &&
               !trust_expiry_words("a certificate in ca_file", t->until_ms[FILE_CA], wall_ms,
                                   words)) {
        (void)trust_expiry_words("the endpoint's certificate", t->peer_until_ms, wall_ms, words);
    }
}

int64_t trust_file_until_ms(const char *path)
{
    auto_buffer struct buffer pem = {0};
    size_t count = 0;
    int64_t until_ms = 0;
    if (read_file(path, false, &pem) < 0 || read_certificates(&pem, &count, &until_ms, NULL) < 0) {
        return 0;
    }
    return count <= TRUST_BUNDLE_MAX ? until_ms : 0;
}
