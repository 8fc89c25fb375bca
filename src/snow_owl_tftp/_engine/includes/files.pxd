# What the engine borrows from C for file bytes: mappings, positioned reads and writes, file identity.
#
# Only declarations; openat2 has no wrapper in glibc, so the verbatim block gives it one, with the
# structure of linux/openat2.h.

from libc.stdint cimport int64_t, uint64_t


cdef extern from * nogil:
    """
    #include <fcntl.h>
    #include <sys/mman.h>
    #include <sys/stat.h>
    #include <sys/syscall.h>
    #include <sys/uio.h>
    #include <unistd.h>
    #ifndef MADV_POPULATE_READ
    #define MADV_POPULATE_READ 22       /* linux/mman.h, Linux 5.14 */
    #endif
    #ifndef SYS_openat2
    #define SYS_openat2 437
    #endif
    struct so_open_how { unsigned long long flags, mode, resolve; };
    #define SO_RESOLVE_NO_MAGICLINKS 0x02ULL
    #define SO_RESOLVE_BENEATH 0x08ULL
    #define SO_RESOLVE_CACHED 0x20ULL
    /* An O_PATH descriptor of PATH beneath DIR; never waits for a disk: EAGAIN where the path is not cached. */
    static inline int so_open_cached_path(int dir, const char *path) {
        struct so_open_how how = { O_PATH | O_CLOEXEC, 0,
                                   SO_RESOLVE_NO_MAGICLINKS | SO_RESOLVE_BENEATH | SO_RESOLVE_CACHED };
        return (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
    }
    static inline long long so_mtime_ns(const struct stat *s) {
        return s->st_mtim.tv_sec * 1000000000LL + s->st_mtim.tv_nsec;
    }
    static inline long long so_ctime_ns(const struct stat *s) {
        return s->st_ctim.tv_sec * 1000000000LL + s->st_ctim.tv_nsec;
    }
    """
    struct stat_t "stat":
        uint64_t st_dev
        uint64_t st_ino
        int64_t st_size
        unsigned int st_mode

    int fstat(int, stat_t *)
    int64_t so_mtime_ns(const stat_t *)
    int64_t so_ctime_ns(const stat_t *)
    int so_open_cached_path(int, const char *)

    int PROT_READ, MAP_SHARED, MADV_POPULATE_READ
    void *MAP_FAILED
    void *mmap(void *, size_t, int, int, int, int64_t)
    int munmap(void *, size_t)
    int madvise(void *, size_t, int)
    ssize_t pread(int, void *, size_t, int64_t)
    ssize_t pwrite(int, const void *, size_t, int64_t)
