/* kafka_broker - a cluster of brokers that speak Kafka's protocol: librdkafka's own mock cluster,
 * which is a public interface of that library and was not written here. Debian has no Kafka itself.
 *
 *   kafka_broker OUT BROKERS PARTITIONS TOPIC...
 *
 * Prints "bootstrap HOST:PORT,..." and then obeys lines on stdin, each answered by "done":
 *   error API CODE TIMES   the next requests of that API key (0 Produce, 22 InitProducerId) fail
 *   clear API              ... or do not any more
 *   down ID | up ID        a broker goes or comes back, with its messages
 *   rtt ID MS              it answers that much later
 *   topic TOPIC CODE       the metadata says that of the topic
 * All messages of the topics go to OUT as they come, one JSON object a line. Ends with stdin. */
#include "gateway/base/buffer.h"
#include "gateway/base/decimal.h"

#include <errno.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 256, WORDS = 512, POLL_MS = 50 };

static rd_kafka_t *make(rd_kafka_type_t type, const char *const (*options)[2], size_t count)
{
    char words[WORDS];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    for (size_t i = 0; i < count; i++) {
        if (rd_kafka_conf_set(conf, options[i][0], options[i][1], words, sizeof words) !=
            RD_KAFKA_CONF_OK) {
            fprintf(stderr, "%s\n", words);
            exit(1);
        }
    }
    rd_kafka_t *handle = rd_kafka_new(type, conf, words, sizeof words);
    if (handle == NULL) {
        fprintf(stderr, "%s\n", words);
        exit(1);
    }
    return handle;
}

static rd_kafka_t *make_consumer(const char *bootstrap, char *topics[], int count, int partitions)
{
    const char *const options[][2] = {{"bootstrap.servers", bootstrap},
                                      {"group.id", "witness"},
                                      {"enable.auto.commit", "false"},
                                      {"auto.offset.reset", "earliest"},
                                      {"reconnect.backoff.max.ms", "500"},
                                      {"fetch.wait.max.ms", "100"},
                                      {"log_level", "2"}};
    rd_kafka_t *consumer = make(RD_KAFKA_CONSUMER, options, sizeof options / sizeof options[0]);
    rd_kafka_poll_set_consumer(consumer);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(count * partitions);
    for (int i = 0; i < count * partitions; i++) {
        rd_kafka_topic_partition_list_add(list, topics[i / partitions], i % partitions)->offset = 0;
    }
    rd_kafka_assign(consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
    return consumer;
}

static void keep(FILE *out, const rd_kafka_message_t *m)
{
    auto_buffer struct buffer line = {0};
    rd_kafka_timestamp_type_t kind;
    buffer_printf(&line, "{\"topic\":\"%s\",\"partition\":%d,\"offset\":%lld,\"time_ms\":%lld",
                  rd_kafka_topic_name(m->rkt), (int)m->partition, (long long)m->offset,
                  (long long)rd_kafka_message_timestamp(m, &kind));
    buffer_add_text(&line, ",\"key\":");
    json_write_string(&line, m->key, m->key_len);
    buffer_add_text(&line, ",\"value\":");
    buffer_add(&line, m->payload, m->len);
    buffer_add_text(&line, "}\n");
    fwrite(line.data, 1, line.len, out);
}

static void consume(rd_kafka_t *consumer, FILE *out)
{
    rd_kafka_message_t *m;
    int wait_ms = POLL_MS;
    while ((m = rd_kafka_consumer_poll(consumer, wait_ms)) != NULL) {
        if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
            keep(out, m);
            wait_ms = 0;
        }
        rd_kafka_message_destroy(m);
    }
    fflush(out);
}

static bool obey(rd_kafka_mock_cluster_t *cluster, const char *line)
{
    int a, b, c;
    char topic[LINE];
    if (sscanf(line, "error %d %d %d", &a, &b, &c) == 3) {
        for (; c > 0; c--) {
            rd_kafka_mock_push_request_errors(cluster, (int16_t)a, 1, (rd_kafka_resp_err_t)b);
        }
        return true;
    }
    if (sscanf(line, "clear %d", &a) == 1) {
        rd_kafka_mock_clear_request_errors(cluster, (int16_t)a);
        return true;
    }
    if (sscanf(line, "down %d", &a) == 1) {
        return rd_kafka_mock_broker_set_down(cluster, a) == RD_KAFKA_RESP_ERR_NO_ERROR;
    }
    if (sscanf(line, "up %d", &a) == 1) {
        return rd_kafka_mock_broker_set_up(cluster, a) == RD_KAFKA_RESP_ERR_NO_ERROR;
    }
    if (sscanf(line, "rtt %d %d", &a, &b) == 2) {
        return rd_kafka_mock_broker_set_rtt(cluster, a, b) == RD_KAFKA_RESP_ERR_NO_ERROR;
    }
    if (sscanf(line, "topic %255s %d", topic, &a) == 2) {
        rd_kafka_mock_topic_set_error(cluster, topic, (rd_kafka_resp_err_t)a);
        return true;
    }
    return false;
}

/* Until stdin ends; a line is short enough to come whole. */
static int serve(rd_kafka_mock_cluster_t *cluster, rd_kafka_t *consumer, FILE *out)
{
    for (;;) {
        struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
        consume(consumer, out);
        if (poll(&in, 1, 0) <= 0) {
            continue;
        }
        char line[LINE];
        ssize_t n = read(STDIN_FILENO, line, sizeof line - 1);
        if (n <= 0) {
            return 0;
        }
        line[n] = '\0';
        if (!obey(cluster, line)) {
            fprintf(stderr, "not understood: %s", line);
            return 1;
        }
        printf("done\n");
        fflush(stdout);
    }
}

int main(int argc, char *argv[])
{
    int brokers = argc > 4 ? (int)strtol(argv[2], NULL, 10) : 0;
    int partitions = argc > 4 ? (int)strtol(argv[3], NULL, 10) : 0;
    FILE *out = brokers > 0 && partitions > 0 ? fopen(argv[1], "a") : NULL;
    if (out == NULL) {
        fprintf(stderr, "usage: kafka_broker OUT BROKERS PARTITIONS TOPIC...\n");
        return 2;
    }
    rd_kafka_t *keeper = make(RD_KAFKA_PRODUCER, NULL, 0);
    rd_kafka_mock_cluster_t *cluster = rd_kafka_mock_cluster_new(keeper, brokers);
    for (int i = 4; i < argc; i++) {
        rd_kafka_mock_topic_create(cluster, argv[i], partitions, brokers < 3 ? brokers : 3);
    }
    const char *bootstrap = rd_kafka_mock_cluster_bootstraps(cluster);
    rd_kafka_t *consumer = make_consumer(bootstrap, argv + 4, argc - 4, partitions);
    printf("bootstrap %s\n", bootstrap);
    fflush(stdout);
    int r = serve(cluster, consumer, out);
    rd_kafka_consumer_close(consumer);
    rd_kafka_destroy(consumer);
    rd_kafka_mock_cluster_destroy(cluster);
    rd_kafka_destroy(keeper);
    fclose(out);
    return r;
}
