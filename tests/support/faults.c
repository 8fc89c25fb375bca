/* A kernel that misbehaves on demand: preloaded before libc, steered through the faults_ variables (ctypes).
 *
 * Every wrapper does what the real call does until its variable is set. Variables are plain ints: tests set them while
 * nothing is in flight, or do not care which call is the first to see the change.
 * Must not: be preloaded into anything but a test's own process.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define MAX_RANGES 64

volatile int faults_send_errno;      /* sendmmsg fails with it ... */
volatile unsigned faults_send_every; /* ... each so many-th call */
volatile int faults_send_partial;    /* sendmmsg takes half of what it is given, at least one */
volatile int faults_train_errno;     /* sendmmsg refuses trains (more than one segment) with it ... */
volatile unsigned faults_train_pass; /* ... once it has let so many pass */
volatile int faults_bad_errno;       /* sendmmsg refuses what goes to faults_bad_port with it */
volatile unsigned faults_bad_port;
volatile int faults_write_errno;         /* pwrite fails with it ... */
volatile unsigned long faults_write_after; /* ... from this offset of the file on */
volatile int faults_write_short;         /* pwrite writes half, at least one byte */
volatile unsigned long faults_slow_inode; /* MADV_POPULATE_READ of this file sleeps faults_slow_ms, then ... */
volatile unsigned faults_slow_ms;
volatile int faults_slow_hangs;      /* before that it waits until this is 0 */
volatile int faults_read_errno;      /* ... fails with it, unless 0 */
volatile int faults_statx_errno;     /* statx fails with it */
volatile unsigned long faults_stat_inode; /* fstat of this file, and statx that asks its server, count as hits */
volatile int faults_map_errno;       /* this file cannot be mapped: MAP_SHARED fails with it */
volatile unsigned long faults_map_inode;
volatile unsigned faults_file_system; /* ... its file system is of this type, unless 0 */
volatile int faults_pread_errno;     /* pread of that file fails with it */
volatile unsigned long faults_close_inode; /* descriptors of this file: ... */
volatile int faults_closer;          /* ... the thread that closed the last one */
volatile int faults_pagemap_errno;   /* /proc/self/pagemap cannot be opened */
volatile unsigned faults_hits;       /* how often a fault was played */

static struct { char *start, *end; } slow_ranges[MAX_RANGES];
static volatile unsigned slow_count;
static volatile unsigned send_calls;

static int fail(int error)
{
    __sync_fetch_and_add(&faults_hits, 1);
    errno = error;
    return -1;
}

static int is_of(int fd, unsigned long inode)
{
    struct statx status;
    return inode && fd >= 0 && syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_INO, &status) == 0
        && status.stx_ino == inode;
}

static int is_refused(const struct msghdr *header, int *error)
{
    const struct sockaddr_in *to = header->msg_name;
    if (faults_train_errno && header->msg_iovlen > 2) {
        if (faults_train_pass == 0)
            return *error = faults_train_errno;
        faults_train_pass--;
    }
    if (faults_bad_errno && to && ntohs(to->sin_port) == faults_bad_port)
        return *error = faults_bad_errno;
    return 0;
}

int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
    static int (*real)(int, struct mmsghdr *, unsigned, int);
    unsigned i;
    int error = 0;
    if (!real)
        real = dlsym(RTLD_NEXT, "sendmmsg");
    if (faults_send_errno && ++send_calls % faults_send_every == 0)
        return fail(faults_send_errno);
    for (i = 0; i < count && !is_refused(&messages[i].msg_hdr, &error); i++)
        ;
    if (error && i == 0)
        return fail(error);
    if (i > 1 && faults_send_partial)
        i /= 2;
    if (i < count && !error) /* a refused message counts when it is at the head, once */
        __sync_fetch_and_add(&faults_hits, 1);
    return real(fd, messages, i, flags);
}

/* mmap64 and pwrite64: what code that is built for 64-bit offsets calls, as CPython's flags make ours be. */
void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset)
{
    static void *(*real)(void *, size_t, int, int, int, off64_t);
    struct stat status;
    char *start;
    if (!real)
        real = dlsym(RTLD_NEXT, "mmap64");
    if (faults_map_errno && is_of(fd, faults_map_inode)) {
        fail(faults_map_errno);
        return MAP_FAILED;
    }
    start = real(address, length, protection, flags, fd, offset);
    if (faults_slow_inode && fd >= 0 && start != MAP_FAILED && fstat(fd, &status) == 0
            && status.st_ino == faults_slow_inode && slow_count < MAX_RANGES) {
        slow_ranges[slow_count].start = start;
        slow_ranges[slow_count].end = start + length;
        slow_count++;
    }
    return start;
}

int munmap(void *address, size_t length)
{
    static int (*real)(void *, size_t);
    unsigned i;
    if (!real)
        real = dlsym(RTLD_NEXT, "munmap");
    for (i = 0; i < slow_count; i++)
        if (slow_ranges[i].start == address) /* another file may be mapped there next */
            slow_ranges[i].start = slow_ranges[i].end = NULL;
    return real(address, length);
}

int madvise(void *address, size_t length, int advice)
{
    static int (*real)(void *, size_t, int);
    struct timespec pause = {faults_slow_ms / 1000, faults_slow_ms % 1000 * 1000000L}, moment = {0, 1000000};
    unsigned i;
    if (!real)
        real = dlsym(RTLD_NEXT, "madvise");
    for (i = 0; advice == MADV_POPULATE_READ && i < slow_count; i++)
        if ((char *)address >= slow_ranges[i].start && (char *)address < slow_ranges[i].end) {
            while (faults_slow_hangs)
                nanosleep(&moment, NULL);
            nanosleep(&pause, NULL);
            if (faults_read_errno)
                return fail(faults_read_errno);
            __sync_fetch_and_add(&faults_hits, 1);
        }
    return real(address, length, advice);
}

int fstatfs64(int fd, struct statfs64 *status)
{
    static int (*real)(int, struct statfs64 *);
    int result;
    if (!real)
        real = dlsym(RTLD_NEXT, "fstatfs64");
    result = real(fd, status);
    if (result == 0 && faults_file_system && is_of(fd, faults_map_inode))
        status->f_type = faults_file_system;
    return result;
}

ssize_t pread64(int fd, void *bytes, size_t size, off64_t offset)
{
    static ssize_t (*real)(int, void *, size_t, off64_t);
    if (!real)
        real = dlsym(RTLD_NEXT, "pread64");
    if (faults_pread_errno && is_of(fd, faults_map_inode))
        return fail(faults_pread_errno);
    return real(fd, bytes, size, offset);
}

int open64(const char *path, int flags, ...)
{
    static int (*real)(const char *, int, ...);
    va_list arguments;
    mode_t mode = 0;
    if (!real)
        real = dlsym(RTLD_NEXT, "open64");
    if (faults_pagemap_errno && strcmp(path, "/proc/self/pagemap") == 0)
        return fail(faults_pagemap_errno);
    if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) {
        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
    }
    return real(path, flags, mode);
}

int close(int fd)
{
    static int (*real)(int);
    if (!real)
        real = dlsym(RTLD_NEXT, "close");
    if (is_of(fd, faults_close_inode))
        faults_closer = gettid();
    return real(fd);
}

int fstat64(int fd, struct stat64 *status)
{
    static int (*real)(int, struct stat64 *);
    int result;
    if (!real)
        real = dlsym(RTLD_NEXT, "fstat64");
    result = real(fd, status);
    if (result == 0 && faults_stat_inode && status->st_ino == faults_stat_inode)
        __sync_fetch_and_add(&faults_hits, 1);
    return result;
}

int statx(int fd, const char *path, int flags, unsigned mask, struct statx *status)
{
    static int (*real)(int, const char *, int, unsigned, struct statx *);
    int result;
    if (!real)
        real = dlsym(RTLD_NEXT, "statx");
    if (faults_statx_errno)
        return fail(faults_statx_errno);
    result = real(fd, path, flags, mask, status);
    if (result == 0 && faults_stat_inode && status->stx_ino == faults_stat_inode && !(flags & AT_STATX_DONT_SYNC))
        __sync_fetch_and_add(&faults_hits, 1);
    return result;
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t offset)
{
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real)
        real = dlsym(RTLD_NEXT, "pwrite64");
    if (faults_write_errno && (unsigned long)offset + size > faults_write_after)
        return fail(faults_write_errno);
    if (faults_write_short && size > 1) {
        __sync_fetch_and_add(&faults_hits, 1);
        size /= 2;
    }
    return real(fd, bytes, size, offset);
}
