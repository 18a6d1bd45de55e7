/* Payloads in C: the MessagePack and CRC-32 that events need, and the check of packed events. A
 * program that has libraries for these uses them in place of this file. Used by logd_client.h.
 */
#ifndef LOGD_PAYLOAD_H
#define LOGD_PAYLOAD_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { LOGD_PAYLOAD_MAX = 32768, LOGD_TYPE_MAX = 64, LOGD_USER_MAX = 255, LOGD_DEPTH_MAX = 16 };

struct logd_buffer {
    unsigned char *begin, *at, *end;
    int overflow; /* a value did not fit: an event with this buffer is refused */
};

static inline struct logd_buffer logd_buffer(void *bytes, size_t size)
{
    unsigned char *begin = bytes;
    return (struct logd_buffer){begin, begin, begin + size, 0};
}

static inline void logd_put(struct logd_buffer *b, const void *data, size_t n)
{
    b->overflow |= (size_t)(b->end - b->at) < n;
    if (b->overflow || !n)
        return;
    memcpy(b->at, data, n);
    b->at += n;
}

/* Writes a code, and a big-endian number of `bytes` bytes. */
static inline void logd_put_head(struct logd_buffer *b, unsigned code, uint64_t number, int bytes)
{
    unsigned char head[9] = {(unsigned char)code};
    for (int i = 0; i < bytes; i++)
        head[1 + i] = (unsigned char)(number >> 8 * (bytes - 1 - i));
    logd_put(b, head, 1 + (size_t)bytes);
}

/* Writes a number in the shortest form of 1, 2, 4 or 8 bytes; their codes are consecutive. */
static inline void logd_put_number(struct logd_buffer *b, unsigned code, uint64_t number)
{
    unsigned wide = (number >> 8 != 0) + (number >> 16 != 0) + (number >> 32 != 0);
    logd_put_head(b, code + wide, number, 1 << wide);
}

static inline void logd_pack_uint(struct logd_buffer *b, uint64_t number)
{
    if (number < 128)
        logd_put_head(b, (unsigned)number, 0, 0);
    else
        logd_put_number(b, 0xcc, number);
}

static inline void logd_pack_int(struct logd_buffer *b, int64_t number)
{
    if (number >= 0)
        logd_pack_uint(b, (uint64_t)number);
    else
        logd_put_head(b, 0xd3, (uint64_t)number, 8);
}

static inline void logd_pack_double(struct logd_buffer *b, double number)
{
    uint64_t bits;
    memcpy(&bits, &number, 8);
    logd_put_head(b, 0xcb, bits, 8);
}

static inline void logd_pack_nil(struct logd_buffer *b)
{
    logd_put_head(b, 0xc0, 0, 0);
}

static inline void logd_pack_bool(struct logd_buffer *b, int value)
{
    logd_put_head(b, value ? 0xc3 : 0xc2, 0, 0);
}

static inline void logd_pack_str(struct logd_buffer *b, const char *text, size_t n)
{
    if (n < 32)
        logd_put_head(b, 0xa0 | (unsigned)n, 0, 0);
    else
        logd_put_number(b, 0xd9, n);
    logd_put(b, text, n);
}

static inline void logd_pack_bin(struct logd_buffer *b, const void *data, size_t n)
{
    logd_put_number(b, 0xc4, n);
    logd_put(b, data, n);
}

static inline void logd_pack_map(struct logd_buffer *b, unsigned entries) /* up to 65,535 */
{
    logd_put_head(b, entries < 16 ? 0x80 | entries : 0xde, entries, entries < 16 ? 0 : 2);
}

static inline void logd_pack_array(struct logd_buffer *b, unsigned items) /* up to 65,535 */
{
    logd_put_head(b, items < 16 ? 0x90 | items : 0xdc, items, items < 16 ? 0 : 2);
}

/* CRC-32 like zlib's, half a byte at a time; zlib itself is faster for long payloads. */
static inline uint32_t logd_crc32(uint32_t crc, const void *data, size_t n)
{
    static const uint32_t table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
        0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
        0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    const unsigned char *p = data;
    for (crc = ~crc; n--; p++) {
        crc ^= *p;
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

static inline int logd_is_utf8(const unsigned char *s, size_t n)
{
    static const uint32_t lowest[4] = {0, 0x80, 0x800, 0x10000};
    while (n) {
        unsigned more = *s < 0x80         ? 0
                        : *s >> 5 == 0x06 ? 1
                        : *s >> 4 == 0x0e ? 2
                        : *s >> 3 == 0x1e ? 3
                                          : 4;
        uint32_t point = more ? *s & (0x3fu >> more) : *s;
        if (more == 4 || n <= more)
            return 0;
        for (unsigned i = 1; i <= more; i++) {
            if (s[i] >> 6 != 2)
                return 0;
            point = point << 6 | (s[i] & 0x3fu);
        }
        if (point < lowest[more] || point > 0x10ffff || point >> 11 == 0x1b)
            return 0; /* overlong, beyond Unicode, or half of a surrogate pair */
        s += more + 1, n -= more + 1;
    }
    return 1;
}

/* Reads packed props: from the position `at` to their end. */
struct logd_reader {
    const unsigned char *at, *end;
};

static inline int logd_take(struct logd_reader *r, int bytes, uint64_t *number)
{
    for (*number = 0; bytes; bytes--, r->at++) {
        if (r->at == r->end)
            return 0;
        *number = *number << 8 | *r->at;
    }
    return 1;
}

/* Skips a str; returns 0 if there is none, or it is not UTF-8. */
static inline int logd_take_str(struct logd_reader *r, struct logd_reader *text)
{
    uint64_t code, n = 0;
    if (!logd_take(r, 1, &code))
        return 0;
    if (code >> 5 == 5)
        n = code & 31;
    else if (code < 0xd9 || code > 0xdb || !logd_take(r, 1 << (code - 0xd9), &n))
        return 0;
    if ((uint64_t)(r->end - r->at) < n || !logd_is_utf8(r->at, n))
        return 0;
    *text = (struct logd_reader){r->at, r->at + n};
    r->at += n;
    return 1;
}

/* Returns whether the text is a key before `until` in the map whose entries begin at `r`. */
static inline int logd_is_key_before(struct logd_reader r, const unsigned char *until,
                                     struct logd_reader text);

/* Skips a value that props may have; returns 0 if it is not one. Each key is compared with all
 * others, so keep maps small; with `again` the value is skipped without a further check. */
static inline int logd_take_value(struct logd_reader *r, int depth, int again)
{
    struct logd_reader first = *r, text;
    uint64_t code, n = 0;
    int map;
    if (!logd_take(r, 1, &code))
        return 0;
    if (code < 0x80 || code >= 0xe0 || code == 0xc0 || code == 0xc2 || code == 0xc3)
        return 1;
    if (code >= 0xca && code <= 0xd3) /* floats and integers */
        return logd_take(r, code < 0xcc ? 4 << (code - 0xca) : 1 << (code & 3), &n);
    if (code >> 5 == 5 || (code >= 0xd9 && code <= 0xdb))
        return *r = first, logd_take_str(r, &text);
    map = code >> 4 == 8 || code >= 0xde;
    if (code >> 4 == 8 || code >> 4 == 9)
        n = code & 15;
    else if (code < 0xdc || !logd_take(r, 2 << (code & 1), &n))
        return 0; /* bin, an extension, or an unused code */
    if (depth > LOGD_DEPTH_MAX)
        return 0;
    for (first = *r; n; n--) {
        const unsigned char *entry = r->at;
        if (map && (!logd_take_str(r, &text) || (!again && logd_is_key_before(first, entry, text))))
            return 0;
        if (!logd_take_value(r, depth + 1, again))
            return 0;
    }
    return 1;
}

static inline int logd_is_key_before(struct logd_reader r, const unsigned char *until,
                                     struct logd_reader text)
{
    struct logd_reader key;
    size_t n = (size_t)(text.end - text.at);
    while (r.at < until && logd_take_str(&r, &key) && logd_take_value(&r, 1, 1))
        if ((size_t)(key.end - key.at) == n && !memcmp(key.at, text.at, n))
            return 1;
    return 0;
}

/* Returns whether packed props are one map with nothing after it. */
static inline int logd_are_props(const unsigned char *data, size_t n)
{
    struct logd_reader r = {data, data + n};
    return n && (*data >> 4 == 8 || *data >= 0xde) && *data <= 0xdf && logd_take_value(&r, 1, 0)
        && r.at == r.end;
}

static inline int logd_is_type(const char *type)
{
    static const char *const own[] = {"batches_collapsed", "events_pruned", "person_erased",
                                      "trail_backed_up", "trail_export_started", "trail_exported",
                                      "trail_rekeyed", "trail_restored", "report_read"};
    size_t n = strlen(type), word;
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (!strcmp(type, own[i]))
            return 0; /* only logd writes these */
    if (n > LOGD_TYPE_MAX || *type < 'a' || *type > 'z')
        return 0;
    for (;;) { /* words, joined by single dots or hyphens */
        if (!(word = strspn(type, "abcdefghijklmnopqrstuvwxyz0123456789_")))
            return 0;
        type += word;
        if (!*type)
            return 1;
        if (*type != '.' && *type != '-')
            return 0;
        type++;
    }
}

/* Returns whether valid UTF-8 has a control character (U+0000 to U+001F, U+007F to U+009F). */
static inline int logd_has_control(const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    for (; *s; s++)
        if (*s < 0x20 || *s == 0x7f || (*s == 0xc2 && s[1] < 0xa0))
            return 1;
    return 0;
}

/* Packs an event; returns its length, 0 if it breaks the schema. `user`, `props` may be NULL. */
static inline uint32_t logd_pack_payload(unsigned char *into, const char *type, uint64_t ts_ns,
                                         const char *user, const struct logd_buffer *props)
{
    struct logd_buffer b = logd_buffer(into, LOGD_PAYLOAD_MAX);
    size_t n = user ? strlen(user) : 1, given = props ? (size_t)(props->at - props->begin) : 0;
    if (!logd_is_type(type) || ts_ns >> 63 || n < 1 || n > LOGD_USER_MAX)
        return 0;
    if (user && (!logd_is_utf8((const unsigned char *)user, n) || logd_has_control(user)))
        return 0;
    if (props && (props->overflow || !logd_are_props(props->begin, given)))
        return 0;
    logd_put_head(&b, 0x94, 0, 0);
    logd_pack_str(&b, type, strlen(type));
    logd_pack_uint(&b, ts_ns);
    if (user)
        logd_pack_str(&b, user, n);
    else
        logd_pack_nil(&b);
    if (props)
        logd_pack_bin(&b, props->begin, given);
    else
        logd_pack_bin(&b, "\x80", 1);
    return b.overflow ? 0 : (uint32_t)(b.at - b.begin);
}
#endif
