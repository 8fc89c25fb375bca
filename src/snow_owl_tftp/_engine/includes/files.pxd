# What the engine borrows from C for file bytes: mappings, positioned reads and writes, file identity.
#
# Only declarations; openat2 has no wrapper in glibc, so the verbatim block gives it one, with the
# structure of linux/openat2.h.

from libc.stdint cimport int64_t, uint64_t


cdef extern from * nogil:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <stdint.h>
    #include <sys/mman.h>
    #include <sys/stat.h>
    #include <sys/syscall.h>
    #include <sys/sysmacros.h>
    #include <sys/uio.h>
    #include <sys/vfs.h>
    #include <unistd.h>
    #ifndef MADV_POPULATE_READ
    #define MADV_POPULATE_READ 22       /* linux/mman.h, Linux 5.14 */
    #endif
    #ifndef SYS_openat2
    #define SYS_openat2 437
    #endif
    struct owl_open_how { unsigned long long flags, mode, resolve; };
    #define OWL_RESOLVE_NO_XDEV 0x01ULL
    #define OWL_RESOLVE_NO_MAGICLINKS 0x02ULL
    #define OWL_RESOLVE_BENEATH 0x08ULL
    #define OWL_RESOLVE_CACHED 0x20ULL
    /* An O_PATH descriptor of PATH beneath DIR; never waits for a disk: EAGAIN where the path is not cached,
       EXDEV where it leads to another mount, whose file system may be one that asks a server. */
    static inline int owl_open_cached_path(int dir, const char *path) {
        struct owl_open_how how = { O_PATH | O_CLOEXEC, 0,
                                   OWL_RESOLVE_NO_XDEV | OWL_RESOLVE_NO_MAGICLINKS | OWL_RESOLVE_BENEATH
                                   | OWL_RESOLVE_CACHED };
        return (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
    }
    static inline long long owl_mtime_ns(const struct stat *s) {
        return s->st_mtim.tv_sec * 1000000000LL + s->st_mtim.tv_nsec;
    }
    static inline long long owl_ctime_ns(const struct stat *s) {
        return s->st_ctim.tv_sec * 1000000000LL + s->st_ctim.tv_nsec;
    }
    /* True for what may have to ask a process or another machine for a page, again and again (linux/magic.h). */
    static inline int owl_is_remote(int fd) {
        struct statfs s;
        if (fstatfs(fd, &s) < 0)
            return 1;
        switch ((uint32_t)s.f_type) {
        case 0x65735546u:                       /* FUSE, virtiofs */
        case 0x00006969u:                       /* NFS */
        case 0xFF534D42u: case 0xFE534D42u: case 0x0000517Bu:   /* CIFS, SMB2, smbfs */
        case 0x00C36400u:                       /* Ceph */
        case 0x01021997u:                       /* 9P */
        case 0x5346414Fu: case 0x6B414653u:     /* AFS */
        case 0x0BD00BD0u:                       /* Lustre */
        case 0x786F4256u:                       /* vboxsf */
            return 1;
        }
        return 0;
    }
    /* True where close() asks no process and no other machine; of overlayfs it may, as of what it lies on. */
    static inline int owl_is_near(int fd) {
        struct statfs s;
        if (fstatfs(fd, &s) < 0)
            return 0;
        switch ((uint32_t)s.f_type) {
        case 0x0000EF53u:                       /* ext2, ext3, ext4 */
        case 0x58465342u:                       /* xfs */
        case 0x9123683Eu:                       /* btrfs */
        case 0x01021994u:                       /* tmpfs */
        case 0x73717368u:                       /* squashfs */
        case 0xF2F52010u:                       /* f2fs */
        case 0xE0F5E1E2u:                       /* erofs */
            return 1;
        }
        return 0;
    }
    /* The first hole of FD's file from OFFSET on: its size when there is none, or when the file system cannot tell. */
    static inline uint64_t owl_hole(int fd, uint64_t offset, uint64_t size) {
        off_t hole = lseek(fd, (off_t)offset, SEEK_HOLE);
        return hole < 0 || (uint64_t)hole > size ? size : (uint64_t)hole;
    }
    /* Where the next bytes are that are no hole; SIZE when there are none. */
    static inline uint64_t owl_data(int fd, uint64_t offset, uint64_t size) {
        off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
        if (data < 0)
            return errno == ENXIO ? size : offset;
        return (uint64_t)data > size ? size : (uint64_t)data;
    }
    /* True when our page table holds every page of SIZE bytes from START, at most OWL_LOOK_PAGES, so that to read them
       faults in nothing (Documentation/admin-guide/mm/pagemap.rst: bit 63). Where nothing can be told: true. */
    #define OWL_LOOK_PAGES 32
    static inline int owl_in_page_table(int pagemap, const void *start, uint64_t size) {
        uint64_t entries[OWL_LOOK_PAGES], page = (uint64_t)sysconf(_SC_PAGESIZE);
        uint64_t first = (uintptr_t)start / page, count = ((uintptr_t)start + size - 1) / page - first + 1, i;
        ssize_t n;
        if (size == 0)
            return 1;
        n = pread(pagemap, entries, (count < OWL_LOOK_PAGES ? count : OWL_LOOK_PAGES) * 8, (off_t)(first * 8));
        for (i = 0; (ssize_t)((i + 1) * 8) <= n; i++)
            if (!(entries[i] >> 63))
                return 0;
        return 1;
    }
    /* A descriptor for owl_in_page_table(), or -1: without /proc, of a process that may not look at itself (one with
       file capabilities), before Linux 5.14, where what MADV_POPULATE_READ brings is the question, or in a sandbox
       whose page map is not true. */
    static inline int owl_open_pagemap(void) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), works;
        void *probe = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (fd >= 0 && probe != MAP_FAILED) {
            works = !owl_in_page_table(fd, probe, page) && madvise(probe, page, MADV_POPULATE_READ) == 0
                && owl_in_page_table(fd, probe, page);
            if (!works) {
                close(fd);
                fd = -1;
            }
        }
        if (probe != MAP_FAILED)
            munmap(probe, page);
        return fd;
    }
    struct owl_file { unsigned long long device, inode, size_bytes, links; long long mtime_ns, ctime_ns; };
    /* Which file FD is of, as far as the kernel knows without asking a file server (fstat on NFS or FUSE may wait for
       one); 0, or -1 with errno. Old kernels, and seccomp filters older than statx, only have fstat. */
    static inline int owl_look(int fd, struct owl_file *file) {
        struct statx x;
        struct stat s;
        if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS, &x) == 0) {
            file->device = makedev(x.stx_dev_major, x.stx_dev_minor);
            file->inode = x.stx_ino;
            file->size_bytes = x.stx_size;
            file->links = x.stx_nlink;
            file->mtime_ns = x.stx_mtime.tv_sec * 1000000000LL + x.stx_mtime.tv_nsec;
            file->ctime_ns = x.stx_ctime.tv_sec * 1000000000LL + x.stx_ctime.tv_nsec;
            return 0;
        }
        if ((errno != ENOSYS && errno != EPERM) || fstat(fd, &s) < 0)
            return -1;
        file->device = s.st_dev;
        file->inode = s.st_ino;
        file->size_bytes = s.st_size;
        file->links = s.st_nlink;
        file->mtime_ns = owl_mtime_ns(&s);
        file->ctime_ns = owl_ctime_ns(&s);
        return 0;
    }
    """
    struct owl_file:
        uint64_t device, inode, size_bytes, links
        int64_t mtime_ns, ctime_ns

    int owl_look(int, owl_file *)
    int owl_open_cached_path(int, const char *)

    bint owl_is_remote(int)
    bint owl_is_near(int)
    uint64_t owl_hole(int, uint64_t, uint64_t)
    uint64_t owl_data(int, uint64_t, uint64_t)

    bint owl_in_page_table(int, const void *, uint64_t)
    int owl_open_pagemap()

    int PROT_READ, PROT_WRITE, MAP_FIXED, MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE
    int MADV_POPULATE_READ, MADV_DONTNEED, MREMAP_FIXED, MREMAP_MAYMOVE
    void *MAP_FAILED
    void *mmap(void *, size_t, int, int, int, int64_t)
    int munmap(void *, size_t)
    void *mremap(void *, size_t, size_t, int, void *)
    int madvise(void *, size_t, int)
    ssize_t pread(int, void *, size_t, int64_t)
    ssize_t pwrite(int, const void *, size_t, int64_t)
