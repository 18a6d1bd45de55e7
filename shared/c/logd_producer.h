/* A producer in C: its id, outbox and socket, and how it is followed by another, after a fork or
 * when the outbox is lost. Used by logd_client.h; shared/PROTOCOL.md has the rules.
 */
#ifndef LOGD_PRODUCER_H
#define LOGD_PRODUCER_H
#include "logd_outbox.h"
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

enum { LOGD_EVENTS, LOGD_FAREWELL, LOGD_AWAITED }; /* kinds of datagrams */
enum { LOGD_MALFORMED, LOGD_FULL, LOGD_REENTERED, LOGD_UNDELIVERED, LOGD_CLOSED, LOGD_CAUSES };

enum { LOGD_UNRESOLVED_MAX = 16 };

struct logd_unresolved { /* an event that was reported as unknown to the caller */
    uint64_t id, sequence;
    char producer[40], type[LOGD_TYPE_MAX + 1], user[LOGD_USER_MAX + 1];
};

struct logd_client {
    struct sockaddr_un address;
    uint64_t asked_ring_bytes, id, sequence, accepted, refused[LOGD_CAUSES];
    uint64_t reported[LOGD_CAUSES]; /* those that this producer reports */
    uint64_t last_id, last_sequence; /* of the last event, also if it was written again */
    uint64_t connect_after_ns, outbox_after_ns, outbox_wait_ns, check_after_ns, former_after_ns;
    int socket, inside, closed, sent; /* sent: the last event was sent, not watched */
    int refused_outboxes;             /* by the daemon; after the third no more is created */
    uid_t user;
    struct stat peer;
    unsigned char *mark; /* reads as 0 in a child */
    struct logd_outbox outbox, former;
    struct logd_unresolved unresolved[LOGD_UNRESOLVED_MAX]; /* oldest first */
    size_t unresolved_count;
    struct logd_datagram datagram;
};

static inline uint64_t logd_now_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t logd_refuse(struct logd_client *c, int cause)
{
    c->refused[cause]++;
    c->reported[cause]++;
    if (c->outbox.header)
        c->outbox.header->refused[cause] = c->reported[cause];
    return 0;
}

/* -- sending ----------------------------------------------------------------------------------- */

static inline void logd_disconnect(struct logd_client *c)
{
    if (logd_is_same(c->socket, &c->peer))
        close(c->socket);
    c->socket = -1;
}

/* Sends a datagram once, without waiting; returns whether the kernel took it. */
static inline int logd_send(struct logd_client *c, const struct logd_datagram *d)
{
    uint64_t now = logd_now_ns(CLOCK_MONOTONIC);
    if (c->socket >= 0 && !logd_is_same(c->socket, &c->peer))
        c->socket = -1; /* closed by the application, which may use the number now */
    if (c->socket < 0) {
        if (now < c->connect_after_ns)
            return 0;
        c->connect_after_ns = now + 100000000;
        c->socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (c->socket < 0)
            return 0;
        fstat(c->socket, &c->peer);
        if (connect(c->socket, (struct sockaddr *)&c->address, sizeof c->address))
            return logd_disconnect(c), 0;
    }
    if (send(c->socket, d, 2 * LOGD_HEAD + d->length, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
        return 1;
    if (errno != EAGAIN)
        logd_disconnect(c); /* once refused, it is refused for ever */
    return 0;
}

/* Fills in head, sequence and CRC of a datagram that has its payload. */
static inline void logd_seal(struct logd_datagram *d, uint64_t id, int kind, uint64_t sequence)
{
    memcpy(d->magic, "LGD", 3);
    d->version = 1;
    d->kind = (uint8_t)kind;
    memset(d->zeros, 0, 3);
    d->producer = id;
    d->sequence = sequence;
    d->crc = logd_crc32(logd_crc32(0, &id, 8), &d->sequence, 8 + d->length);
}

/* Sends a farewell: the last sequence of a producer whose outbox no daemon reads, and refusals. */
static inline int logd_farewell(struct logd_client *c, uint64_t id, uint64_t last,
                                const uint64_t counts[LOGD_CAUSES])
{
    static const char *const names[] = {"malformed", "outbox_full", "reentered", "undelivered",
                                        "closed"};
    struct logd_datagram d;
    struct logd_buffer b = logd_buffer(d.payload, sizeof d.payload);
    logd_pack_map(&b, counts ? LOGD_CAUSES : 0);
    for (int cause = 0; counts && cause < LOGD_CAUSES; cause++) {
        logd_pack_str(&b, names[cause], strlen(names[cause]));
        logd_pack_uint(&b, counts[cause]);
    }
    d.length = (uint32_t)(b.at - b.begin);
    logd_seal(&d, id, LOGD_FAREWELL, last + 1);
    if (getuid() != c->user)
        return 0;
    if (logd_send(c, &d))
        return 1;
    c->connect_after_ns = 0; /* the socket of a killed daemon is dead */
    return c->socket < 0 && logd_send(c, &d);
}

static inline int logd_has_refused(const struct logd_client *c)
{
    uint64_t any = 0;
    for (int cause = 0; cause < LOGD_CAUSES; cause++)
        any |= c->reported[cause];
    return any != 0;
}

/* Sends the farewell of a former producer. */
static inline int logd_farewell_former(struct logd_client *c, struct logd_header *h)
{
    uint64_t counts[LOGD_CAUSES];
    for (int cause = 0; cause < LOGD_CAUSES; cause++)
        counts[cause] = h->refused[cause];
    return logd_farewell(c, h->producer, h->written, counts);
}

/* -- producers --------------------------------------------------------------------------------- */

/* Draws an id and creates its outbox; returns 0 if that is not possible now. */
static inline int logd_draw(struct logd_client *c, uint64_t *id, struct logd_outbox *outbox)
{
    int error = c->refused_outboxes < 3 ? EEXIST : ENOENT;
    for (int tries = 0; error == EEXIST && tries < 3; tries++) {
        if (getrandom(id, 8, 0) != 8)
            return 0;
        error = logd_make_outbox(outbox, c->address.sun_path, *id, c->asked_ring_bytes,
                                 logd_now_ns(CLOCK_REALTIME));
    }
    c->outbox_after_ns = logd_now_ns(CLOCK_MONOTONIC) + c->outbox_wait_ns;
    c->outbox_wait_ns = c->outbox_wait_ns < 2500000000 ? 2 * c->outbox_wait_ns : 5000000000;
    return !error;
}

static inline void logd_begin(struct logd_client *c, uint64_t id, struct logd_outbox outbox)
{
    c->id = id;
    c->outbox = outbox;
    c->sequence = c->check_after_ns = 0;
    c->user = getuid();
    for (int cause = 0; outbox.header && cause < LOGD_CAUSES; cause++)
        outbox.header->refused[cause] = c->reported[cause];
}

static inline void logd_start(struct logd_client *c)
{
    struct logd_outbox outbox = {.fd = -1};
    uint64_t id = 0;
    c->outbox_wait_ns = 500000000;
    logd_draw(c, &id, &outbox);
    logd_begin(c, id, outbox);
}

static inline void logd_open(struct logd_client *c, const char *socket_path, uint64_t ring_bytes)
{
    memset(c, 0, sizeof *c);
    c->address.sun_family = AF_UNIX;
    snprintf(c->address.sun_path, sizeof c->address.sun_path, "%s", socket_path);
    c->asked_ring_bytes = ring_bytes;
    c->socket = c->outbox.fd = c->former.fd = -1;
    c->mark = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    madvise(c->mark, 4096, MADV_WIPEONFORK);
    *c->mark = 1;
    logd_start(c);
}

/* Closes everything without a write, since in a child the outboxes are the parent's. */
static inline void logd_drop(struct logd_client *c)
{
    logd_disconnect(c);
    logd_leave_outbox(&c->outbox, 1);
    logd_leave_outbox(&c->former, 1);
}

static inline void logd_renew(struct logd_client *c) /* in a child */
{
    logd_drop(c);
    memset(c->refused, 0, sizeof c->refused);
    memset(c->reported, 0, sizeof c->reported);
    c->accepted = 0;
    c->inside = c->sent = 0;
    c->unresolved_count = 0;
    *c->mark = 1;
    if (!c->closed)
        logd_start(c);
}

/* Returns whether the producer can continue; checks descriptors and user every 5 ms at most. */
static inline int logd_is_intact(struct logd_client *c, int fully)
{
    uint64_t now = logd_now_ns(CLOCK_MONOTONIC);
    struct logd_header *h = c->outbox.header;
    if (h && (h->retired || h->given_up))
        return 0;
    if (!fully && now < c->check_after_ns)
        return 1;
    c->check_after_ns = now + 5000000;
    return getuid() == c->user && (!h || logd_is_same(c->outbox.fd, &c->outbox.file));
}

/* Continues as another producer; the daemon reads what the former one has written. */
static inline void logd_follow(struct logd_client *c)
{
    struct logd_header *h = c->outbox.header;
    c->refused_outboxes += h && h->given_up && !h->confirmed_sequence;
    if (h)
        memset(c->reported, 0, sizeof c->reported); /* else the next one reports them */
    else if (c->sequence)
        logd_farewell(c, c->id, c->sequence, NULL);
    logd_leave_outbox(&c->former, 1);
    logd_leave_outbox(&c->outbox, 0);
    c->former = c->outbox;
    logd_start(c);
}

/* Retries to create an outbox: the daemon may have started since. */
static inline void logd_retry_outbox(struct logd_client *c)
{
    struct logd_outbox fresh = {.fd = -1};
    uint64_t id;
    if (c->outbox.header || logd_now_ns(CLOCK_MONOTONIC) < c->outbox_after_ns
        || !logd_draw(c, &id, &fresh))
        return;
    if (c->sequence)
        logd_farewell(c, c->id, c->sequence, NULL); /* the new outbox has the refusals */
    logd_begin(c, id, fresh);
}
#endif
