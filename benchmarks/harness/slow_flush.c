/* Makes flushes SLOW_FLUSH_MS longer: preloaded before libc into the process under test. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

static atomic_long flushes;

/* Returns the number of flushes that this process has made. */
long flush_count(void)
{
    return atomic_load(&flushes);
}

static void wait_as_the_disk_would(void)
{
    const char *text = getenv("SLOW_FLUSH_MS");
    long ms = text ? strtol(text, NULL, 10) : 0;
    struct timespec left = {ms / 1000, ms % 1000 * 1000000L};
    int before = errno;

    atomic_fetch_add(&flushes, 1);
    while (ms > 0 && nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
    errno = before;
}

int fsync(int fd)
{
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    int result = next(fd);

    wait_as_the_disk_would();
    return result;
}

int fdatasync(int fd)
{
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    int result = next(fd);

    wait_as_the_disk_would();
    return result;
}
