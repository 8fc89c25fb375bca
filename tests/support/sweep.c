/* System calls that fail on demand, one by one: preloaded into a server, steered by another process.
 *
 *     SNOW_OWL_SWEEP=FILE  struct control, mapped and shared: whoever writes it arms a fault and reads what was counted
 *
 * Each wrapper counts its calls. Armed for a call, it lets `skip` of them pass and fails the next `times` with `error`,
 * or, where `error` is 0, does half of what a write was asked for. close(2) closes all the same, as the kernel does.
 *
 * Not failed: what the interpreter imports (files of Python itself), what glibc calls within itself, and memory that
 * the interpreter asks for: malloc and mmap fail only where the engine's own modules call them (sweep_learn_engine).
 * Must not: be preloaded into anything but a test's own process.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

/* In this order in tests/support/sweep.py. */
enum call {
    OPEN, OPENAT2, CLOSE, READ, PREAD, WRITE, PWRITE, FSYNC, LINK, RENAME, RENAMEAT2, UNLINK, MKDIR, FSTAT, STAT, STATX,
    FSTATVFS, FSTATFS, FTRUNCATE, FALLOCATE, FCHMOD, FCHOWN, GETXATTR, SETXATTR, READLINK, READDIR, FLOCK, FCNTL, DUP,
    MEMFD, MMAP, MADVISE, LSEEK, ACCESS, SOCKET, BIND, SETSOCKOPT, GETSOCKOPT, GETSOCKNAME, SOCKETPAIR, EPOLL_CREATE,
    EPOLL_CTL, EPOLL_WAIT, EVENTFD, PIPE, POLL, SENDMMSG, RECVMMSG, RECVMSG, THREAD, MALLOC, CALLS
};

struct control {
    volatile int call, skip, error, times, hits;
    char what[236];
    volatile int counts[CALLS];
};

struct control *sweep_control;
volatile int sweep_is_on; /* in the servers, not in what forks them */
#define control sweep_control
static struct { char *start, *end; } engine[8];
static unsigned engine_count;
static volatile char is_waker[4096]; /* eventfd, socketpair: they fail for no reason that a sick machine could give */

#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) \
        real = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)
#define CALLER __builtin_return_address(0)

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("SNOW_OWL_SWEEP");
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
    void *start;
    if (fd < 0)
        return;
    start = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    control = start == MAP_FAILED ? NULL : start;
}

static int note_module(struct dl_phdr_info *info, size_t size, void *unused)
{
    int i;
    (void)size, (void)unused;
    if (!strstr(info->dlpi_name, "/_engine/"))
        return 0;
    for (i = 0; i < info->dlpi_phnum && engine_count < 8; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD && info->dlpi_phdr[i].p_flags & PF_X) {
            engine[engine_count].start = (char *)info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
            engine[engine_count].end = engine[engine_count].start + info->dlpi_phdr[i].p_memsz;
            engine_count++;
        }
    return 0;
}

/* Call it when the engine's modules are loaded; returns how many there are. */
unsigned sweep_learn_engine(void)
{
    engine_count = 0;
    dl_iterate_phdr(note_module, NULL);
    return engine_count;
}

static int is_engine(const void *caller)
{
    unsigned i;
    for (i = 0; i < engine_count; i++)
        if ((const char *)caller >= engine[i].start && (const char *)caller < engine[i].end)
            return 1;
    return 0;
}

static int is_of_python(const char *path)
{
    return path && (strstr(path, "/lib/python") || strstr(path, "/src/snow_owl_tftp") || strstr(path, "/lib/x86_64")
                    || strncmp(path, "/etc/", 5) == 0);
}

/* Whether this call is the one to fail; errno is set then. */
static int strikes(enum call call, const char *path, int fd, const void *caller)
{
    int before;
    if (!control || !sweep_is_on || is_of_python(path))
        return 0;
    __sync_fetch_and_add(&control->counts[call], 1);
    if (control->call != (int)call)
        return 0;
    before = __sync_fetch_and_sub(&control->skip, 1);
    if (before > 0 || before <= -control->times)
        return 0;
    if (__sync_fetch_and_add(&control->hits, 1) == 0)
        snprintf(control->what, sizeof control->what, "%s fd %d, called by %s", path ? path : "", fd,
                 is_engine(caller) ? "the engine" : "Python");
    errno = control->error;
    return 1;
}

#define FAIL(call, path, fd) \
    if (strikes(call, path, fd, CALLER)) \
        return -1

#define IS_WAKER(fd) (fd >= 0 && fd < (int)sizeof is_waker && is_waker[fd])

#define MODE(mode, flags) \
    if (flags & (O_CREAT | __O_TMPFILE)) { \
        va_list list; \
        va_start(list, flags); \
        mode = va_arg(list, int); \
        va_end(list); \
    }

int open64(const char *path, int flags, ...)
{
    REAL(int, open64, const char *, int, ...);
    int mode = 0;
    MODE(mode, flags)
    FAIL(OPEN, path, -1);
    return real(path, flags, mode);
}

int openat64(int directory, const char *path, int flags, ...)
{
    REAL(int, openat64, int, const char *, int, ...);
    int mode = 0;
    MODE(mode, flags)
    FAIL(OPEN, path, directory);
    return real(directory, path, flags, mode);
}

long syscall(long number, ...)
{
    static long (*real)(long, ...);
    long a[6];
    int i;
    va_list list;
    if (!real)
        real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    va_start(list, number);
    for (i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    if (number == 437)
        FAIL(OPENAT2, (const char *)a[1], (int)a[0]);
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int close(int fd)
{
    REAL(int, close, int);
    struct stat64 status;
    /* What a file server may say; of anything else close never fails. */
    int may_fail = syscall(SYS_fstat, fd, &status) == 0 && (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode));
    int result = real(fd);
    if (fd >= 0 && fd < (int)sizeof is_waker)
        is_waker[fd] = 0;
    if (result == 0 && may_fail)
        FAIL(CLOSE, NULL, fd);
    return result;
}

ssize_t read(int fd, void *bytes, size_t size)
{
    REAL(ssize_t, read, int, void *, size_t);
    if (!IS_WAKER(fd))
        FAIL(READ, NULL, fd);
    return real(fd, bytes, size);
}

ssize_t pread64(int fd, void *bytes, size_t size, off64_t offset)
{
    REAL(ssize_t, pread64, int, void *, size_t, off64_t);
    FAIL(PREAD, NULL, fd);
    return real(fd, bytes, size, offset);
}

ssize_t write(int fd, const void *bytes, size_t size)
{
    REAL(ssize_t, write, int, const void *, size_t);
    if (!IS_WAKER(fd) && strikes(WRITE, NULL, fd, CALLER)) {
        if (control->error || size < 2)
            return -1;
        size /= 2;
    }
    return real(fd, bytes, size);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t offset)
{
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    if (strikes(PWRITE, NULL, fd, CALLER)) {
        if (control->error || size < 2)
            return -1;
        size /= 2;
    }
    return real(fd, bytes, size, offset);
}

int fsync(int fd)
{
    REAL(int, fsync, int);
    FAIL(FSYNC, NULL, fd);
    return real(fd);
}

int link(const char *from, const char *to)
{
    REAL(int, link, const char *, const char *);
    FAIL(LINK, to, -1);
    return real(from, to);
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    REAL(int, linkat, int, const char *, int, const char *, int);
    FAIL(LINK, to, to_fd);
    return real(from_fd, from, to_fd, to, flags);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    REAL(int, renameat, int, const char *, int, const char *);
    FAIL(RENAME, to, to_fd);
    return real(from_fd, from, to_fd, to);
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    REAL(int, renameat2, int, const char *, int, const char *, unsigned);
    FAIL(RENAMEAT2, to, to_fd);
    return real(from_fd, from, to_fd, to, flags);
}

int unlink(const char *path)
{
    REAL(int, unlink, const char *);
    FAIL(UNLINK, path, -1);
    return real(path);
}

int unlinkat(int directory, const char *path, int flags)
{
    REAL(int, unlinkat, int, const char *, int);
    FAIL(UNLINK, path, directory);
    return real(directory, path, flags);
}

int mkdirat(int directory, const char *path, mode_t mode)
{
    REAL(int, mkdirat, int, const char *, mode_t);
    FAIL(MKDIR, path, directory);
    return real(directory, path, mode);
}

int fstat64(int fd, struct stat64 *status)
{
    REAL(int, fstat64, int, struct stat64 *);
    FAIL(FSTAT, NULL, fd);
    return real(fd, status);
}

int stat64(const char *path, struct stat64 *status)
{
    REAL(int, stat64, const char *, struct stat64 *);
    FAIL(STAT, path, -1);
    return real(path, status);
}

int lstat64(const char *path, struct stat64 *status)
{
    REAL(int, lstat64, const char *, struct stat64 *);
    FAIL(STAT, path, -1);
    return real(path, status);
}

int fstatat64(int directory, const char *path, struct stat64 *status, int flags)
{
    REAL(int, fstatat64, int, const char *, struct stat64 *, int);
    FAIL(STAT, path, directory);
    return real(directory, path, status, flags);
}

int statx(int fd, const char *path, int flags, unsigned mask, struct statx *status)
{
    REAL(int, statx, int, const char *, int, unsigned, struct statx *);
    FAIL(STATX, path, fd);
    return real(fd, path, flags, mask, status);
}

int fstatvfs64(int fd, struct statvfs64 *status)
{
    REAL(int, fstatvfs64, int, struct statvfs64 *);
    FAIL(FSTATVFS, NULL, fd);
    return real(fd, status);
}

int fstatfs64(int fd, struct statfs64 *status)
{
    REAL(int, fstatfs64, int, struct statfs64 *);
    FAIL(FSTATFS, NULL, fd);
    return real(fd, status);
}

int fstatfs(int fd, struct statfs *status) /* by ctypes */
{
    REAL(int, fstatfs, int, struct statfs *);
    FAIL(FSTATFS, NULL, fd);
    return real(fd, status);
}

int ftruncate64(int fd, off64_t size)
{
    REAL(int, ftruncate64, int, off64_t);
    FAIL(FTRUNCATE, NULL, fd);
    return real(fd, size);
}

int posix_fallocate64(int fd, off64_t offset, off64_t size)
{
    REAL(int, posix_fallocate64, int, off64_t, off64_t);
    return strikes(FALLOCATE, NULL, fd, CALLER) ? control->error : real(fd, offset, size);
}

int fchmod(int fd, mode_t mode)
{
    REAL(int, fchmod, int, mode_t);
    FAIL(FCHMOD, NULL, fd);
    return real(fd, mode);
}

int fchown(int fd, uid_t user, gid_t group)
{
    REAL(int, fchown, int, uid_t, gid_t);
    FAIL(FCHOWN, NULL, fd);
    return real(fd, user, group);
}

ssize_t fgetxattr(int fd, const char *name, void *value, size_t size)
{
    REAL(ssize_t, fgetxattr, int, const char *, void *, size_t);
    FAIL(GETXATTR, name, fd);
    return real(fd, name, value, size);
}

ssize_t flistxattr(int fd, char *names, size_t size)
{
    REAL(ssize_t, flistxattr, int, char *, size_t);
    FAIL(GETXATTR, NULL, fd);
    return real(fd, names, size);
}

int fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)
{
    REAL(int, fsetxattr, int, const char *, const void *, size_t, int);
    FAIL(SETXATTR, name, fd);
    return real(fd, name, value, size, flags);
}

ssize_t readlink(const char *path, char *target, size_t size)
{
    REAL(ssize_t, readlink, const char *, char *, size_t);
    FAIL(READLINK, path, -1);
    return real(path, target, size);
}

ssize_t readlinkat(int directory, const char *path, char *target, size_t size)
{
    REAL(ssize_t, readlinkat, int, const char *, char *, size_t);
    FAIL(READLINK, path, directory);
    return real(directory, path, target, size);
}

struct dirent64 *readdir64(DIR *directory)
{
    REAL(struct dirent64 *, readdir64, DIR *);
    return strikes(READDIR, NULL, dirfd(directory), CALLER) ? NULL : real(directory);
}

int flock(int fd, int operation)
{
    REAL(int, flock, int, int);
    FAIL(FLOCK, NULL, fd);
    return real(fd, operation);
}

int fcntl64(int fd, int command, ...)
{
    REAL(int, fcntl64, int, int, ...);
    long argument;
    va_list list;
    va_start(list, command);
    argument = va_arg(list, long);
    va_end(list);
    FAIL(FCNTL, NULL, fd);
    return real(fd, command, argument);
}

int dup2(int fd, int other)
{
    REAL(int, dup2, int, int);
    FAIL(DUP, NULL, fd);
    return real(fd, other);
}

int dup3(int fd, int other, int flags)
{
    REAL(int, dup3, int, int, int);
    FAIL(DUP, NULL, fd);
    return real(fd, other, flags);
}

int memfd_create(const char *name, unsigned flags)
{
    REAL(int, memfd_create, const char *, unsigned);
    FAIL(MEMFD, name, -1);
    return real(name, flags);
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset)
{
    REAL(void *, mmap64, void *, size_t, int, int, int, off64_t);
    if (is_engine(CALLER) && strikes(MMAP, NULL, fd, CALLER))
        return MAP_FAILED;
    return real(address, length, protection, flags, fd, offset);
}

int madvise(void *address, size_t length, int advice)
{
    REAL(int, madvise, void *, size_t, int);
    FAIL(MADVISE, NULL, -1);
    return real(address, length, advice);
}

off64_t lseek64(int fd, off64_t offset, int whence)
{
    REAL(off64_t, lseek64, int, off64_t, int);
    FAIL(LSEEK, NULL, fd);
    return real(fd, offset, whence);
}

int access(const char *path, int mode)
{
    REAL(int, access, const char *, int);
    FAIL(ACCESS, path, -1);
    return real(path, mode);
}

int faccessat(int directory, const char *path, int mode, int flags)
{
    REAL(int, faccessat, int, const char *, int, int);
    FAIL(ACCESS, path, directory);
    return real(directory, path, mode, flags);
}

int socket(int family, int type, int protocol)
{
    REAL(int, socket, int, int, int);
    FAIL(SOCKET, NULL, -1);
    return real(family, type, protocol);
}

int bind(int fd, const struct sockaddr *address, socklen_t size)
{
    REAL(int, bind, int, const struct sockaddr *, socklen_t);
    FAIL(BIND, NULL, fd);
    return real(fd, address, size);
}

int setsockopt(int fd, int level, int option, const void *value, socklen_t size)
{
    REAL(int, setsockopt, int, int, int, const void *, socklen_t);
    FAIL(SETSOCKOPT, NULL, fd);
    return real(fd, level, option, value, size);
}

int getsockopt(int fd, int level, int option, void *value, socklen_t *size)
{
    REAL(int, getsockopt, int, int, int, void *, socklen_t *);
    FAIL(GETSOCKOPT, NULL, fd);
    return real(fd, level, option, value, size);
}

int getsockname(int fd, struct sockaddr *address, socklen_t *size)
{
    REAL(int, getsockname, int, struct sockaddr *, socklen_t *);
    FAIL(GETSOCKNAME, NULL, fd);
    return real(fd, address, size);
}

int socketpair(int family, int type, int protocol, int fds[2])
{
    REAL(int, socketpair, int, int, int, int *);
    int i, result;
    FAIL(SOCKETPAIR, NULL, -1);
    result = real(family, type, protocol, fds);
    for (i = 0; result == 0 && i < 2; i++)
        if (fds[i] < (int)sizeof is_waker)
            is_waker[fds[i]] = 1;
    return result;
}

int epoll_create1(int flags)
{
    REAL(int, epoll_create1, int);
    FAIL(EPOLL_CREATE, NULL, -1);
    return real(flags);
}

int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    REAL(int, epoll_ctl, int, int, int, struct epoll_event *);
    FAIL(EPOLL_CTL, NULL, fd);
    return real(epoll, operation, fd, event);
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout)
{
    REAL(int, epoll_wait, int, struct epoll_event *, int, int);
    FAIL(EPOLL_WAIT, NULL, epoll);
    return real(epoll, events, most, timeout);
}

int eventfd(unsigned value, int flags)
{
    REAL(int, eventfd, unsigned, int);
    int fd;
    FAIL(EVENTFD, NULL, -1);
    fd = real(value, flags);
    if (fd >= 0 && fd < (int)sizeof is_waker)
        is_waker[fd] = 1;
    return fd;
}

int pipe2(int fds[2], int flags)
{
    REAL(int, pipe2, int *, int);
    FAIL(PIPE, NULL, -1);
    return real(fds, flags);
}

int poll(struct pollfd *fds, nfds_t count, int timeout)
{
    REAL(int, poll, struct pollfd *, nfds_t, int);
    FAIL(POLL, NULL, count ? fds[0].fd : -1);
    return real(fds, count, timeout);
}

int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
    REAL(int, sendmmsg, int, struct mmsghdr *, unsigned, int);
    FAIL(SENDMMSG, NULL, fd);
    return real(fd, messages, count, flags);
}

int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout)
{
    REAL(int, recvmmsg, int, struct mmsghdr *, unsigned, int, struct timespec *);
    FAIL(RECVMMSG, NULL, fd);
    return real(fd, messages, count, flags, timeout);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    REAL(ssize_t, recvmsg, int, struct msghdr *, int);
    FAIL(RECVMSG, NULL, fd);
    return real(fd, message, flags);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    REAL(int, pthread_create, pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    return strikes(THREAD, NULL, -1, CALLER) ? control->error : real(thread, attributes, run, argument);
}

/* dlsym itself asks for memory, so these ask glibc by its own names. */
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);

void *malloc(size_t size)
{
    return is_engine(CALLER) && strikes(MALLOC, NULL, -1, CALLER) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return is_engine(CALLER) && strikes(MALLOC, NULL, -1, CALLER) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    return is_engine(CALLER) && strikes(MALLOC, NULL, -1, CALLER) ? NULL : __libc_realloc(old, size);
}
