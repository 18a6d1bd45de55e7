/* A disk that fails on demand, and a wall clock that jumps: loaded before libc into a process.
 *
 * FAULTY_DISK names a control file of one page that the test maps too, so that a fault begins and
 * ends while the process runs. Its words (64 bits, native) are the enum below; from NAMES_AT on
 * stand the ends of the paths concerned, one a line. A fault applies to a file whose path ends so.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum {
    FLUSH_DELAY_MS, /* each flush takes so much longer */
    FLUSH_ERRNO,    /* flushes fail with it (0: they do not) */
    FLUSH_SKIP,     /* so many succeed first */
    FLUSH_TIMES,    /* so many fail, then they succeed again; -1: all */
    FLUSHES,        /* seen */
    FLUSHES_FAILED,
    WRITE_ERRNO, WRITE_SKIP, WRITE_TIMES, WRITES, WRITES_FAILED, /* the same for writes */
    CLOCK_OFFSET_S, /* added to the wall clock */
};
#define NAMES_AT 512
#define PAGE 4096

static volatile int64_t *control;

__attribute__((constructor)) static void attach(void)
{
    const char *path = getenv("FAULTY_DISK");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *page = fd >= 0 ? mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;

    if (page != MAP_FAILED)
        control = page;
    if (fd >= 0)
        close(fd);
}

static int concerns(int fd)
{
    char link[64], path[PAGE];
    const char *name = control ? (const char *)control + NAMES_AT : NULL;
    ssize_t length;

    if (!name)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path);
    while (length > 0 && *name) {
        const char *end = strchrnul(name, '\n');
        ssize_t n = end - name;

        if (n && n <= length && memcmp(path + length - n, name, n) == 0)
            return 1;
        name = *end ? end + 1 : end;
    }
    return 0;
}

/* Counts the call; the errno that it fails with, or 0. `at` is FLUSH_ERRNO or WRITE_ERRNO. */
static int fault(int at)
{
    int error = (int)control[at];

    __atomic_add_fetch(&control[at + 3], 1, __ATOMIC_SEQ_CST);
    if (!error)
        return 0;
    if (control[at + 1] > 0) {
        control[at + 1]--;
        return 0;
    }
    if (control[at + 2] == 0)
        return 0;
    if (control[at + 2] > 0)
        control[at + 2]--;
    control[at + 4]++;
    return error;
}

static int flush(int fd, const char *name)
{
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int before = errno, error;
    int64_t ms;
    struct timespec left;

    if (!concerns(fd))
        return next(fd);
    error = fault(FLUSH_ERRNO);
    ms = control[FLUSH_DELAY_MS];
    left = (struct timespec){ms / 1000, ms % 1000 * 1000000L};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
    if (error) {
        errno = error;
        return -1;
    }
    errno = before;
    return next(fd);
}

int fsync(int fd) { return flush(fd, "fsync"); }
int fdatasync(int fd) { return flush(fd, "fdatasync"); }

static int write_fails(int fd)
{
    int before = errno;
    int error = concerns(fd) ? fault(WRITE_ERRNO) : 0;

    errno = error ? error : before;
    return error != 0;
}

ssize_t write(int fd, const void *bytes, size_t length)
{
    static ssize_t (*next)(int, const void *, size_t);

    if (!next)
        next = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    return write_fails(fd) ? -1 : next(fd, bytes, length);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset)
{
    static ssize_t (*next)(int, const void *, size_t, off_t);

    if (!next)
        next = (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
    return write_fails(fd) ? -1 : next(fd, bytes, length, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset)
{
    static ssize_t (*next)(int, const void *, size_t, off64_t);

    if (!next)
        next = (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    return write_fails(fd) ? -1 : next(fd, bytes, length, offset);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*next)(clockid_t, struct timespec *);
    int result;

    if (!next)
        next = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    result = next(clock, now);
    if (result == 0 && clock == CLOCK_REALTIME && control)
        now->tv_sec += control[CLOCK_OFFSET_S];
    return result;
}

time_t time(time_t *out)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec precise;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}
