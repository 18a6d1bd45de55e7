/* Durable events, and the notes in the trail about those whose outcome is unknown. Used by
 * logd_client.h; shared/PROTOCOL.md, "Durable events".
 */
#ifndef LOGD_DURABLE_H
#define LOGD_DURABLE_H
#include "logd_client.h"

enum logd_outcome { LOGD_REFUSED, LOGD_STORED, LOGD_UNKNOWN };
enum { LOGD_NOTE_BYTES = 448 }; /* kept free after an awaited event, for its durable_unknown */

/* Returns whether the last event, and so all before it, is on the daemon's disk. */
static inline int logd_is_stored(struct logd_client *c)
{
    struct logd_header *h = c->last_id == c->id ? c->outbox.header : c->former.header;
    return h && h->producer == c->last_id && h->confirmed_sequence >= c->last_sequence;
}

static inline int logd_wait(struct logd_client *c, unsigned timeout_ms)
{
    uint64_t end = logd_now_ns(CLOCK_MONOTONIC) + timeout_ms * UINT64_C(1000000);
    struct timespec pause = {0, 200000};
    while (!logd_is_stored(c)) {
        if (logd_now_ns(CLOCK_MONOTONIC) >= end || !c->outbox.header)
            return 0;
        nanosleep(&pause, NULL);
        logd_check_former(c);
    }
    return 1;
}

/* Returns props that name the event, and its outcome if it is known. */
static inline struct logd_buffer logd_note(const struct logd_unresolved *event, void *bytes,
                                           size_t size, const char *outcome)
{
    struct logd_buffer note = logd_buffer(bytes, size);
    logd_pack_map(&note, outcome ? 4 : 3);
    logd_pack_str(&note, "producer", 8);
    logd_pack_str(&note, event->producer, strlen(event->producer));
    logd_pack_str(&note, "sequence", 8);
    logd_pack_uint(&note, event->sequence);
    logd_pack_str(&note, "type", 4);
    logd_pack_str(&note, event->type, strlen(event->type));
    if (outcome) {
        logd_pack_str(&note, "outcome", 7);
        logd_pack_str(&note, outcome, strlen(outcome));
    }
    return note;
}

static inline void logd_forget_oldest(struct logd_client *c)
{
    memmove(c->unresolved, c->unresolved + 1, --c->unresolved_count * sizeof *c->unresolved);
}

/* Records the outcomes that are known by now, of events reported as unknown, oldest first. */
static inline void logd_resolve(struct logd_client *c)
{
    unsigned char bytes[LOGD_NOTE_BYTES];
    while (c->unresolved_count) {
        struct logd_unresolved *event = c->unresolved;
        struct logd_header *h = event->id == c->id ? c->outbox.header : c->former.header;
        int is_there = h && h->producer == event->id;
        int is_stored = is_there && h->confirmed_sequence >= event->sequence;
        struct logd_buffer note;
        if (!is_stored && (is_there || event->id == c->id))
            return; /* not known yet */
        note = logd_note(event, bytes, sizeof bytes, is_stored ? "stored" : "unknown");
        c->datagram.length = logd_pack_payload(c->datagram.payload, "durable_settled",
                                               logd_now_ns(CLOCK_REALTIME),
                                               *event->user ? event->user : NULL, &note);
        if (!logd_write(c, LOGD_EVENTS, 0))
            return; /* no room: not a refusal, but retried at the next event */
        logd_forget_oldest(c);
    }
}

/* Logs an event and waits for the disk. An unknown outcome is recorded before this returns. */
static inline enum logd_outcome logd_durable(struct logd_client *c, const char *type,
                                             const char *user, const struct logd_buffer *props,
                                             unsigned timeout_ms)
{
    unsigned char bytes[LOGD_NOTE_BYTES];
    struct logd_buffer note;
    struct logd_unresolved event = {0};
    if (!logd_emit_kind(c, type, user, props, LOGD_AWAITED, LOGD_NOTE_BYTES))
        return LOGD_REFUSED;
    if (logd_wait(c, timeout_ms))
        return LOGD_STORED;
    snprintf(event.producer, sizeof event.producer, "%u-%016llx", c->outbox.uid,
             (unsigned long long)c->last_id);
    snprintf(event.type, sizeof event.type, "%s", type);
    snprintf(event.user, sizeof event.user, "%s", user ? user : "");
    event.id = c->last_id;
    event.sequence = c->last_sequence;
    note = logd_note(&event, bytes, sizeof bytes, NULL);
    logd_emit(c, "durable_unknown", user, &note);
    if (c->unresolved_count == LOGD_UNRESOLVED_MAX)
        logd_forget_oldest(c);
    c->unresolved[c->unresolved_count++] = event;
    return LOGD_UNKNOWN;
}
#endif
