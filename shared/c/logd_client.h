/* A client of logd in C11 for Linux, with an outbox. shared/PROTOCOL.md explains each step.
 * logd_durable.h has durable events, logd_producer.h sending, forks and following, logd_outbox.h
 * the file, logd_payload.h MessagePack, CRC-32 and the schema. Needs libc only. Not thread-safe: a
 * program with several threads holds a mutex around each call.
 *
 *     struct logd_client client;
 *     unsigned char bytes[256];
 *     struct logd_buffer props = logd_buffer(bytes, sizeof bytes);
 *     logd_open(&client, "/run/logd/logd.sock", 65536);
 *     logd_pack_map(&props, 1);
 *     logd_pack_str(&props, "task", 4);
 *     logd_pack_uint(&props, 12);
 *     if (!logd_emit(&client, "task_completed", "7", &props))
 *         ... the event was refused: client.refused[] counts the causes
 *     logd_close(&client);
 */
#ifndef LOGD_CLIENT_H
#define LOGD_CLIENT_H
#include "logd_producer.h"

static inline void logd_check_former(struct logd_client *c);
static inline void logd_resolve(struct logd_client *c);

/* Writes the packed event, and sends it unless the daemon polls anyway. Returns its sequence, or 0
 * if the ring has no room; the caller decides whether that counts as a refusal. */
static inline uint64_t logd_write(struct logd_client *c, int kind, uint64_t kept)
{
    struct logd_datagram *d = &c->datagram;
    struct logd_outbox *o = &c->outbox;
    uint64_t now, until, size = LOGD_HEAD + d->length;
    if (c->sent && !logd_is_intact(c, 0))
        logd_follow(c);
    logd_retry_outbox(c);
    logd_seal(d, c->id, kind, c->sequence + 1);
    if (!o->header) {
        c->sent = 1;
        if (!logd_send(c, d))
            return 0;
    } else {
        uint64_t next = o->position + ((size + 7) & ~UINT64_C(7));
        uint64_t freed = o->header->confirmed_position;
        if (freed > o->position || next + kept - freed > o->ring_bytes) {
            if (!logd_is_nameless(o))
                return 0;
            logd_follow(c); /* an outbox without a name never gets room */
            return logd_write(c, kind, kept);
        }
        if (!*c->mark) /* forked by a signal handler */
            return logd_renew(c), logd_write(c, kind, kept);
        /* This store accepts the event; the fence precedes reads of the clock and header. */
        logd_copy_in(o, o->position, &d->length, size);
        atomic_store_explicit(&o->header->written, d->sequence, memory_order_release);
        atomic_thread_fence(memory_order_seq_cst);
        o->position = next;
    }
    c->sequence = c->last_sequence = d->sequence;
    c->last_id = c->id;
    c->accepted++;
    if (!o->header)
        return c->sequence;
    now = logd_now_ns(CLOCK_MONOTONIC);
    until = o->header->watched_until_ns;
    if (kind != LOGD_AWAITED && now < until && until - now <= 1000000000)
        return c->sent = 0, c->sequence;
    if (logd_is_intact(c, !c->sent))
        logd_send(c, d); /* once, whatever the result */
    else
        logd_follow(c), logd_check_former(c); /* not sent: read, or written again */
    c->sent = 1;
    return c->last_sequence;
}

/* Writes again the one event in the former outbox that the daemon did not read. */
static inline void logd_check_former(struct logd_client *c)
{
    struct logd_outbox former = c->former, *o = &former;
    struct logd_header *h = o->header;
    uint64_t missing = h ? h->written - h->confirmed_sequence : 0;
    uint64_t at = h ? h->confirmed_position : 0;
    c->former_after_ns = logd_now_ns(CLOCK_MONOTONIC) + 100000000;
    if (missing && !h->given_up && !logd_is_nameless(o))
        return; /* a daemon will read it */
    if (missing && (!h->retired || h->given_up)) {
        logd_farewell_former(c, h); /* so that the ledger has its numbers */
    } else if (missing == 1 && !h->given_up && at < o->position) {
        logd_copy_out(o, at, &c->datagram.length, LOGD_HEAD);
        if (c->datagram.length <= LOGD_PAYLOAD_MAX) {
            logd_copy_out(o, at + LOGD_HEAD, c->datagram.payload, c->datagram.length);
            c->former = (struct logd_outbox){.fd = -1}; /* the write may set another one */
            if (!logd_write(c, LOGD_EVENTS, 0)) {
                logd_leave_outbox(&c->former, 1);
                c->former = former; /* no room: retried at the next event */
                return;
            }
            c->accepted--; /* it was counted before */
            logd_leave_outbox(o, 1);
            return;
        }
    }
    logd_leave_outbox(&c->former, 1);
}

static inline uint64_t logd_emit_kind(struct logd_client *c, const char *type, const char *user,
                                      const struct logd_buffer *props, int kind, uint64_t kept)
{
    uint64_t sequence;
    if (!*c->mark)
        logd_renew(c);
    if (c->inside)
        return logd_refuse(c, LOGD_REENTERED);
    if (c->closed)
        return logd_refuse(c, LOGD_CLOSED);
    c->inside = 1;
    if (c->former.header && logd_now_ns(CLOCK_MONOTONIC) >= c->former_after_ns)
        logd_check_former(c);
    logd_resolve(c);
    c->datagram.length = logd_pack_payload(c->datagram.payload, type, logd_now_ns(CLOCK_REALTIME),
                                           user, props);
    sequence = c->datagram.length ? logd_write(c, kind, kept) : 0;
    if (!sequence)
        logd_refuse(c, !c->datagram.length   ? LOGD_MALFORMED
                       : c->outbox.header ? LOGD_FULL
                                          : LOGD_UNDELIVERED);
    c->inside = 0;
    return sequence;
}

/* Logs an event without waiting; returns its sequence, or 0 if it is refused. */
static inline uint64_t logd_emit(struct logd_client *c, const char *type, const char *user,
                                 const struct logd_buffer *props)
{
    return logd_emit_kind(c, type, user, props, LOGD_EVENTS, 0);
}

static inline void logd_close(struct logd_client *c)
{
    if (!c->closed && *c->mark) { /* else in a child, whose parent's producer continues */
        logd_check_former(c);
        if (c->outbox.header)
            c->outbox.header->farewell = 1;
        else if (c->sequence || logd_has_refused(c))
            logd_farewell(c, c->id, c->sequence, c->reported);
    }
    logd_drop(c);
    c->closed = 1;
}
#include "logd_durable.h"
#endif
