/* Writes down, in their order, the calls of a server that change what is on its disk, and the ACKs that leave it.
 *
 *     SNOW_OWL_RECORD=FILE          a line a call, see power_cut.py
 *     SNOW_OWL_RECORD_WITHOUT=...   "unnamed": O_TMPFILE is not known here; "rename": rename fails with EBUSY
 *
 * A lock is held from before a call until its line is written, so the lines are in the order of the calls.
 * Must not: be preloaded into anything but a test's server.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int file = -1;
static int without_unnamed, without_rename;
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;

/* Without signals: the handler of one writes too, and would wait for its own thread. */
static void take_order(sigset_t *before)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, before);
    pthread_mutex_lock(&order);
}

static void leave_order(const sigset_t *before)
{
    pthread_mutex_unlock(&order);
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) \
        real = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("SNOW_OWL_RECORD"), *without = getenv("SNOW_OWL_RECORD_WITHOUT");
    if (path)
        file = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    without_unnamed = without && strstr(without, "unnamed");
    without_rename = without && strstr(without, "rename");
}

static unsigned long inode_of(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 && (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode)) ? status.st_ino : 0;
}

static unsigned long inode_at(int directory, const char *name, int flags)
{
    struct stat status;
    return fstatat(directory, name, &status, flags) == 0 ? status.st_ino : 0;
}

static void note(const char *format, ...)
{
    char line[1024];
    va_list list;
    int size;
    va_start(list, format);
    size = vsnprintf(line, sizeof line, format, list);
    va_end(list);
    if (file >= 0 && syscall(SYS_write, file, line, size) != size)
        abort();
}

/* Of a regular file only: DATA of the bytes follows in hex. */
static void note_write(int fd, const unsigned char *bytes, size_t size, long offset)
{
    struct stat status;
    char *text, *end;
    size_t i;
    if (file < 0 || fstat(fd, &status) != 0 || !S_ISREG(status.st_mode))
        return;
    end = text = malloc(2 * size + 80);
    end += sprintf(end, "write %lu %ld ", status.st_ino, offset);
    for (i = 0; i < size; i++)
        end += sprintf(end, "%02x", bytes[i]);
    *end++ = '\n';
    if (syscall(SYS_write, file, text, end - text) != end - text)
        abort();
    free(text);
}

#define IN_ORDER(call, done) \
    do { \
        sigset_t before; \
        take_order(&before); \
        result = (call); \
        if (result >= 0) { \
            int saved = errno; \
            done; \
            errno = saved; \
        } \
        leave_order(&before); \
    } while (0)

int openat64(int directory, const char *path, int flags, ...)
{
    REAL(int, openat64, int, const char *, int, ...);
    int result, mode = 0, is_unnamed = (flags & __O_TMPFILE) == __O_TMPFILE;
    va_list list;
    if (!(flags & O_CREAT) && !is_unnamed)
        return real(directory, path, flags);
    va_start(list, flags);
    mode = va_arg(list, int);
    va_end(list);
    if (is_unnamed && without_unnamed) {
        errno = EOPNOTSUPP;
        return -1;
    }
    IN_ORDER(real(directory, path, flags, mode),
             note("new %lu\n", inode_of(result)); /* which may have been another file's */
             if (!is_unnamed) note("link %lu %lu %s\n", inode_of(result), inode_of(directory), path));
    return result;
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t offset)
{
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    ssize_t result;
    IN_ORDER(real(fd, bytes, size, offset), note_write(fd, bytes, result, offset));
    return result;
}

ssize_t write(int fd, const void *bytes, size_t size)
{
    REAL(ssize_t, write, int, const void *, size_t);
    ssize_t result;
    IN_ORDER(real(fd, bytes, size), note_write(fd, bytes, result, lseek(fd, 0, SEEK_CUR) - result));
    return result;
}

int ftruncate64(int fd, off64_t size)
{
    REAL(int, ftruncate64, int, off64_t);
    int result;
    IN_ORDER(real(fd, size), note("truncate %lu %ld\n", inode_of(fd), (long)size));
    return result;
}

int posix_fallocate64(int fd, off64_t offset, off64_t size)
{
    REAL(int, posix_fallocate64, int, off64_t, off64_t);
    int result;
    IN_ORDER(real(fd, offset, size), if (result == 0) note("extend %lu %ld\n", inode_of(fd), (long)(offset + size)));
    return result;
}

int fsync(int fd)
{
    REAL(int, fsync, int);
    int result;
    IN_ORDER(real(fd), note("fsync %lu\n", inode_of(fd)));
    return result;
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    REAL(int, linkat, int, const char *, int, const char *, int);
    int result;
    IN_ORDER(real(from_fd, from, to_fd, to, flags),
             note("link %lu %lu %s\n", inode_at(to_fd, to, AT_SYMLINK_NOFOLLOW), inode_of(to_fd), to));
    return result;
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    REAL(int, renameat, int, const char *, int, const char *);
    int result;
    if (without_rename) {
        errno = EBUSY;
        return -1;
    }
    IN_ORDER(real(from_fd, from, to_fd, to),
             note("rename %lu %s %lu %s\n", inode_of(from_fd), from, inode_of(to_fd), to));
    return result;
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    REAL(int, renameat2, int, const char *, int, const char *, unsigned);
    int result;
    IN_ORDER(real(from_fd, from, to_fd, to, flags),
             note("rename %lu %s %lu %s\n", inode_of(from_fd), from, inode_of(to_fd), to));
    return result;
}

int unlinkat(int directory, const char *name, int flags)
{
    REAL(int, unlinkat, int, const char *, int);
    int result;
    IN_ORDER(real(directory, name, flags), note("unlink %lu %s\n", inode_of(directory), name));
    return result;
}

int mkdirat(int directory, const char *name, mode_t mode)
{
    REAL(int, mkdirat, int, const char *, mode_t);
    int result;
    IN_ORDER(real(directory, name, mode),
             note("mkdir %lu %lu %s\n", inode_at(directory, name, 0), inode_of(directory), name));
    return result;
}

int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
    REAL(int, sendmmsg, int, struct mmsghdr *, unsigned, int);
    int result, i;
    sigset_t before;
    take_order(&before);
    for (i = 0; i < (int)count; i++) { /* before it leaves: whoever has it may not find less */
        const unsigned char *bytes = messages[i].msg_hdr.msg_iov[0].iov_base;
        const struct sockaddr_in *to = messages[i].msg_hdr.msg_name;
        if (messages[i].msg_hdr.msg_iov[0].iov_len >= 4 && bytes[0] == 0 && bytes[1] == 4)
            note("ack %d %d\n", ntohs(to->sin_port), bytes[2] << 8 | bytes[3]);
    }
    leave_order(&before);
    result = real(fd, messages, count, flags);
    return result;
}
