/* The driver of logd_client.h for `logd conformance`; commands and answers are in PROTOCOL.md,
 * "Conformance".
 *
 *     cc -std=c11 -O2 -o driver shared/c/driver.c && logd conformance ./driver
 */
#include "logd_client.h"
#include <stdlib.h>
#include <sys/wait.h>

enum { LINE_BYTES = 300000, WORDS = 6 };

static struct logd_client client;
static char line[LINE_BYTES], type[LINE_BYTES / 2], user[LINE_BYTES / 2];
static unsigned char bytes[LINE_BYTES], more_bytes[LINE_BYTES];

static size_t unhex(const char *word, unsigned char *into)
{
    size_t n = 0;
    unsigned byte;
    for (; sscanf(word, "%2x", &byte) == 1; word += 2)
        into[n++] = (unsigned char)byte;
    into[n] = 0;
    return n;
}

static void answer_hex(const void *data, size_t n)
{
    const unsigned char *p = data;
    if (!n)
        putchar('.');
    while (n--)
        printf("%02x", *p++);
}

/* Packs {"n": NUMBER} and, if PAD is not 0, "pad": a text of that length. */
static struct logd_buffer props_of(const char *number, const char *pad)
{
    struct logd_buffer props = logd_buffer(bytes, sizeof bytes);
    size_t n = strtoul(pad, NULL, 10);
    memset(more_bytes, 'x', n < sizeof more_bytes ? n : sizeof more_bytes);
    logd_pack_map(&props, n ? 2 : 1);
    logd_pack_str(&props, "n", 1);
    logd_pack_uint(&props, strtoull(number, NULL, 10));
    if (n) {
        logd_pack_str(&props, "pad", 3);
        logd_pack_str(&props, (char *)more_bytes, n);
    }
    return props;
}

static const char *emit(const char *of_type, const char *of_user, const char *number,
                        const char *pad)
{
    struct logd_buffer props = props_of(number, pad);
    return logd_emit(&client, of_type, *of_user == '-' ? NULL : of_user, &props) ? "accepted"
                                                                                 : "refused";
}

/* Decodes TYPE, USER and PROPS from hexadecimal; returns 0 for a text with a NUL. */
static int given(char **word, const char *props_word, struct logd_buffer *props)
{
    size_t type_bytes = unhex(word[1], (unsigned char *)type);
    size_t user_bytes = unhex(word[2], (unsigned char *)user), n = unhex(props_word, bytes);
    *props = (struct logd_buffer){bytes, bytes + n, bytes + n, 0};
    return strlen(type) == type_bytes && strlen(user) == user_bytes;
}

static void do_event(char **word)
{
    struct logd_buffer props;
    if (!given(word, word[3], &props))
        printf("unsupported");
    else if (logd_emit(&client, type, *word[2] == '-' ? NULL : user, &props))
        printf("accepted");
    else
        printf("refused");
}

static void do_payload(char **word)
{
    static unsigned char payload[LOGD_PAYLOAD_MAX];
    struct logd_buffer props;
    uint32_t n;
    if (!given(word, word[4], &props)) {
        printf("unsupported");
        return;
    }
    n = logd_pack_payload(payload, type, strtoull(word[3], NULL, 10),
                          *word[2] == '-' ? NULL : user, &props);
    if (n)
        answer_hex(payload, n);
    else
        printf("refused");
}

static void do_datagram(const char *id, const char *kind, const char *sequence, const char *payload,
                        int record_only)
{
    struct logd_datagram *d = &client.datagram;
    d->length = (uint32_t)unhex(payload, bytes);
    memcpy(d->payload, bytes, d->length < sizeof d->payload ? d->length : 0);
    logd_seal(d, strtoull(id, NULL, 16), atoi(kind), strtoull(sequence, NULL, 10));
    if (record_only)
        answer_hex(&d->length, LOGD_HEAD + d->length);
    else
        answer_hex(d, 2 * LOGD_HEAD + d->length);
}

static void do_fork(const char *number)
{
    int status = 1, idle = !strcmp(number, "0");
    pid_t child = fork();
    if (!child) {
        status = !idle && strcmp(emit("conformance_tried", "7", number, "0"), "accepted");
        logd_close(&client);
        _exit(status);
    }
    waitpid(child, &status, 0);
    printf(status ? "refused" : idle ? "ok" : "accepted");
}

static void do_stats(void)
{
    uint64_t refused = 0;
    for (int cause = 0; cause < LOGD_CAUSES; cause++)
        refused += client.refused[cause];
    printf("%llu %llu %llu", (unsigned long long)(client.accepted + refused),
           (unsigned long long)client.accepted, (unsigned long long)refused);
}

int main(void)
{
    static const char *const outcomes[] = {"refused", "stored", "unknown"};
    while (fgets(line, sizeof line, stdin)) {
        char *word[WORDS] = {"", "", "", "", "", ""};
        int words = 0;
        for (char *w = strtok(line, " \n"); w && words < WORDS; w = strtok(NULL, " \n"))
            word[words++] = w;
        const char *name = word[0];
        if (!strcmp(name, "open")) {
            logd_open(&client, word[1], strtoull(word[2], NULL, 10));
            printf("ok");
        } else if (!strcmp(name, "emit")) {
            printf("%s", emit(word[1], word[2], word[3], word[4]));
        } else if (!strcmp(name, "event")) {
            do_event(word);
        } else if (!strcmp(name, "durable")) {
            struct logd_buffer props = props_of(word[3], "0");
            printf("%s", outcomes[logd_durable(&client, word[1], word[2], &props,
                                               (unsigned)atoi(word[4]))]);
        } else if (!strcmp(name, "outbox")) {
            printf(client.outbox.header ? "yes" : "no");
        } else if (!strcmp(name, "stats")) {
            do_stats();
        } else if (!strcmp(name, "flush")) {
            printf(logd_wait(&client, (unsigned)atoi(word[1])) ? "yes" : "no");
        } else if (!strcmp(name, "fork")) {
            do_fork(word[1]);
        } else if (!strcmp(name, "closefds")) {
            for (int fd = 3; fd < 256; fd++)
                close(fd);
            for (int opened = 0; opened < 16; opened++)
                if (open(word[1], O_RDWR) < 0)
                    break;
            printf("ok");
        } else if (!strcmp(name, "close")) {
            logd_close(&client);
            printf("ok");
        } else if (!strcmp(name, "payload")) {
            do_payload(word);
        } else if (!strcmp(name, "record")) {
            do_datagram(word[1], "0", word[2], word[3], 1);
        } else if (!strcmp(name, "datagram")) {
            do_datagram(word[1], word[2], word[3], word[4], 0);
        } else {
            printf("unsupported");
        }
        putchar('\n');
        fflush(stdout);
    }
    if (client.mark)
        logd_close(&client);
    return 0;
}
