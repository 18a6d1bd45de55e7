/* An outbox in C: its layout, checked by static assertions, and how it is found and created. Needs
 * libc on Linux only. Used by logd_client.h; shared/PROTOCOL.md, "Rendezvous" and "Outbox".
 */
#ifndef LOGD_OUTBOX_H
#define LOGD_OUTBOX_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* O_PATH, MADV_WIPEONFORK: include this before any header of libc */
#endif
#include "logd_payload.h"
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct logd_header { /* words in the machine's own byte order */
    _Atomic uint64_t magic, version, producer, ring_bytes, pid, created_ns, word_6[2];
    _Atomic uint64_t written, farewell, word_10[6];
    _Atomic uint64_t confirmed_sequence, confirmed_position, watched_until_ns, retired, given_up;
    _Atomic uint64_t word_21[3], refused[6], word_30[482];
};
struct logd_datagram { /* little-endian; the record begins at `length` */
    char magic[3];
    uint8_t version, kind, zeros[3];
    uint64_t producer;
    uint32_t length, crc;
    uint64_t sequence;
    unsigned char payload[LOGD_PAYLOAD_MAX];
};
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "else swap the numbers of datagrams");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && sizeof(_Atomic uint64_t) == 8, "words in one store");
_Static_assert(sizeof(struct logd_header) == 4096, "the header is a page");
_Static_assert(offsetof(struct logd_header, written) == 8 * 8, "word 8");
_Static_assert(offsetof(struct logd_header, confirmed_sequence) == 16 * 8, "word 16");
_Static_assert(offsetof(struct logd_header, retired) == 19 * 8, "word 19");
_Static_assert(offsetof(struct logd_header, given_up) == 20 * 8, "word 20");
_Static_assert(offsetof(struct logd_header, refused) == 24 * 8, "word 24");
_Static_assert(offsetof(struct logd_datagram, length) == 16, "a head of 16 bytes");
_Static_assert(offsetof(struct logd_datagram, payload) == 32, "a record's head of 16 bytes");

enum { LOGD_HEAD = 16, LOGD_RING_MIN = 65536, LOGD_RING_MAX = 67108864 };

struct logd_outbox {
    struct logd_header *header; /* NULL without an outbox; `why_none` has the reason */
    unsigned char *ring;
    uint64_t ring_bytes, position;
    int fd;
    uint32_t uid; /* the user id that the daemon sees */
    struct stat file, dir;
    char dir_path[256], name[64];
    const char *why_none;
};

/* Returns whether the descriptor still names the file: applications may close all descriptors */
static inline int logd_is_same(int fd, const struct stat *was)
{
    struct stat is;
    return fd >= 0 && !fstat(fd, &is) && is.st_dev == was->st_dev && is.st_ino == was->st_ino
        && is.st_nlink == was->st_nlink;
}

static inline int logd_read_small(int dir, const char *name, char text[4097], struct stat *status)
{
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    ssize_t n = fd < 0 || fstat(fd, status) ? -1 : pread(fd, text, 4096, 0);
    text[n < 0 ? 0 : n] = 0;
    if (fd >= 0)
        close(fd);
    return n >= 0;
}

/* Finds the value of the line `name=value`; "" without one, or if it does not fit. */
static inline void logd_line(const char *text, const char *name, char *value, size_t size)
{
    size_t n = strlen(name);
    *value = 0;
    while (text) {
        size_t length = strcspn(text, "\n");
        if (length >= n && !strncmp(text, name, n) && length - n < size)
            snprintf(value, size, "%.*s", (int)(length - n), text + n);
        text = text[length] ? text + length + 1 : NULL;
    }
}

/* Opens the directory that the socket's daemon names; returns -1 and sets `why_none` on failure. */
static inline int logd_open_directory(struct logd_outbox *o, const char *socket_path)
{
    char path[4200], found[4097], text[4097], token[64], there[4097], space[64], ours[64];
    struct stat rendezvous, status;
    ssize_t n = readlink("/proc/self/ns/user", ours, sizeof ours - 1);
    int dir, flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    ours[n < 0 ? 0 : n] = 0;
    o->uid = geteuid();
    /* The file is beside the socket that links lead to, or else beside the given path. */
    snprintf(path, sizeof path, "%s.outboxes", realpath(socket_path, found) ? found : socket_path);
    if (access(path, F_OK))
        snprintf(path, sizeof path, "%s.outboxes", socket_path);
    if (!logd_read_small(AT_FDCWD, path, text, &rendezvous))
        return o->why_none = "the file beside the socket cannot be read", -1;
    logd_line(text, "directory=", o->dir_path, sizeof o->dir_path);
    logd_line(text, "token=", token, sizeof token);
    logd_line(text, "user_namespace=", space, sizeof space);
    if (*o->dir_path != '/' || strlen(token) != 32 || strspn(token, "0123456789abcdef") != 32)
        return o->why_none = "the file beside the socket names no directory and token", -1;
    if (getuid() != geteuid())
        return o->why_none = "the real and the effective user differ", -1;
    if (strcmp(space, ours)) /* or if the daemon does not name its own */
        return o->why_none = "the daemon is in another user namespace", -1;
    dir = open(o->dir_path, flags);
    if (dir < 0 && errno == EACCES)
        dir = open(o->dir_path, flags | O_PATH); /* mode 3733: others cannot list it */
    if (dir < 0 || fstat(dir, &o->dir) || o->dir.st_uid != rendezvous.st_uid
        || !logd_read_small(dir, "token", there, &status) || strcspn(there, "\n") != 32
        || strncmp(there, token, 32)) {
        if (dir >= 0)
            close(dir);
        return o->why_none = "the directory is not there, or another daemon's", -1;
    }
    return dir;
}

/* Creates the outbox of producer `id`; returns 0, EEXIST if the id is taken, or another errno. */
static inline int logd_make_outbox(struct logd_outbox *o, const char *socket_path, uint64_t id,
                                   uint64_t ring_bytes, uint64_t now_ns)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char temporary[sizeof o->name + 8];
    struct stat taken;
    int dir, error;
    o->header = NULL;
    o->fd = -1;
    if ((dir = logd_open_directory(o, socket_path)) < 0)
        return ENOENT;
    ring_bytes = ring_bytes < LOGD_RING_MIN ? LOGD_RING_MIN
               : ring_bytes > LOGD_RING_MAX ? LOGD_RING_MAX
                                            : ring_bytes & ~UINT64_C(7);
    snprintf(o->name, sizeof o->name, "%u-%016llx.outbox", o->uid, (unsigned long long)id);
    snprintf(temporary, sizeof temporary, ".new-%s", o->name);
    o->fd = openat(dir, temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    error = o->fd < 0 ? errno : !fstatat(dir, o->name, &taken, AT_SYMLINK_NOFOLLOW) ? EEXIST : 0;
    if (!error && fcntl(o->fd, F_SETLK, &lock))
        error = errno;
    if (!error) /* a full tmpfs fails here, not with SIGBUS later */
        error = posix_fallocate(o->fd, 0, (off_t)(sizeof *o->header + ring_bytes));
    if (!error && (fchmod(o->fd, 0660) || fstat(o->fd, &o->file)))
        error = errno;
    void *map = error ? MAP_FAILED
                      : mmap(NULL, sizeof *o->header + ring_bytes, PROT_READ | PROT_WRITE,
                             MAP_SHARED, o->fd, 0);
    if (!error && map == MAP_FAILED)
        error = errno;
    if (!error) {
        struct logd_header *header = map;
        header->version = 1;
        header->producer = id;
        header->ring_bytes = ring_bytes;
        header->pid = (uint64_t)getpid();
        header->created_ns = now_ns;
        memcpy(&now_ns, "LGDOUTBX", 8);
        header->magic = now_ns; /* last of these */
        if (renameat(dir, temporary, dir, o->name)) {
            error = errno;
            munmap(map, sizeof *o->header + ring_bytes);
        } else {
            o->header = header;
            o->ring = (unsigned char *)(header + 1);
            o->ring_bytes = ring_bytes;
            o->position = 0;
        }
    }
    if (error && o->fd >= 0) {
        unlinkat(dir, temporary, 0);
        close(o->fd);
        o->fd = -1;
    }
    if (error)
        o->why_none = strerror(error);
    close(dir);
    return error;
}

/* Copies into or out of the ring at a position, and around its end. */
static inline void logd_copy_in(struct logd_outbox *o, uint64_t position, const void *data,
                                size_t n)
{
    size_t at = (size_t)(position % o->ring_bytes), first = (size_t)o->ring_bytes - at;
    first = first < n ? first : n;
    memcpy(o->ring + at, data, first);
    memcpy(o->ring, (const char *)data + first, n - first);
}

static inline void logd_copy_out(struct logd_outbox *o, uint64_t position, void *data, size_t n)
{
    size_t at = (size_t)(position % o->ring_bytes), first = (size_t)o->ring_bytes - at;
    first = first < n ? first : n;
    memcpy(data, o->ring + at, first);
    memcpy((char *)data + first, o->ring, n - first);
}

/* Returns whether the file has lost its name; 0 if its path may lead to another directory now. */
static inline int logd_is_nameless(const struct logd_outbox *o)
{
    char path[sizeof o->dir_path + sizeof o->name];
    struct stat there, dir;
    snprintf(path, sizeof path, "%s/%s", o->dir_path, o->name);
    if (!lstat(path, &there))
        return there.st_ino != o->file.st_ino || there.st_dev != o->file.st_dev;
    return errno == ENOENT && !stat(o->dir_path, &dir) && dir.st_ino == o->dir.st_ino
        && dir.st_dev == o->dir.st_dev;
}

/* Unmaps the file; closes the descriptor, which frees the lock, if it is still the outbox's. */
static inline void logd_leave_outbox(struct logd_outbox *o, int unmap)
{
    struct stat is;
    if (o->fd >= 0 && !fstat(o->fd, &is) && is.st_dev == o->file.st_dev
        && is.st_ino == o->file.st_ino)
        close(o->fd);
    o->fd = -1;
    if (unmap && o->header) {
        munmap(o->header, sizeof *o->header + o->ring_bytes);
        o->header = NULL;
    }
}
#endif
