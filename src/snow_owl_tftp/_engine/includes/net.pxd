# What the engine borrows from C for moving datagrams: sockets, batched calls, epoll, eventfd, clocks.
#
# Only declarations of the C library and of the kernel's UAPI belong here: no logic, no constants of
# our own.  Where Debian 12's headers are older than the kernel, the number from the kernel's UAPI
# header stands in the verbatim block.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, int32_t


cdef extern from * nogil:
    """
    #include <arpa/inet.h>
    #include <errno.h>
    #include <netinet/in.h>
    #include <time.h>
    #include <linux/errqueue.h>
    #include <sys/epoll.h>
    #include <sys/random.h>
    #include <sys/eventfd.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    #include <unistd.h>
    #ifndef UDP_SEGMENT
    #define UDP_SEGMENT 103     /* linux/udp.h */
    #endif
    #ifndef UDP_GRO
    #define UDP_GRO 104         /* linux/udp.h */
    #endif
    """
    ctypedef uint16_t sa_family_t
    ctypedef uint32_t socklen_t

    struct in_addr:
        uint32_t s_addr

    struct in6_addr:
        uint8_t s6_addr[16]

    struct sockaddr:
        sa_family_t sa_family

    struct sockaddr_in:
        sa_family_t sin_family
        uint16_t sin_port
        in_addr sin_addr

    struct sockaddr_in6:
        sa_family_t sin6_family
        uint16_t sin6_port
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id

    struct in_pktinfo:
        int ipi_ifindex
        in_addr ipi_spec_dst
        in_addr ipi_addr

    struct in6_pktinfo:
        in6_addr ipi6_addr
        unsigned int ipi6_ifindex

    struct iovec:
        void *iov_base
        size_t iov_len

    struct msghdr:
        void *msg_name
        socklen_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags

    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len

    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type

    struct sock_extended_err:
        uint32_t ee_errno
        uint8_t ee_origin

    struct timespec:
        long tv_sec
        long tv_nsec

    cmsghdr *CMSG_FIRSTHDR(msghdr *)
    cmsghdr *CMSG_NXTHDR(msghdr *, cmsghdr *)
    unsigned char *CMSG_DATA(cmsghdr *)
    size_t CMSG_LEN(size_t)
    size_t CMSG_SPACE(size_t)

    int AF_INET, AF_INET6
    int SOL_SOCKET, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_UDP
    int IP_PKTINFO, IPV6_PKTINFO
    int IP_RECVERR, IPV6_RECVERR, SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6
    int IP_MTU_DISCOVER, IP_PMTUDISC_DONT, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DONT
    int UDP_SEGMENT, UDP_GRO
    int MSG_DONTWAIT, MSG_ERRQUEUE, MSG_TRUNC, MSG_NOSIGNAL
    int EAGAIN, EBUSY, ECANCELED, EWOULDBLOCK, EINTR, ENOBUFS, EMSGSIZE, EINVAL, EIO, EFAULT, ENOMEM, ENOSYS
    int EDQUOT, EFBIG, ENOSPC, ETIMEDOUT
    int ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, EHOSTDOWN, ENOPROTOOPT, EOPNOTSUPP, EPROTO, EACCES

    ssize_t recvfrom(int, void *, size_t, int, sockaddr *, socklen_t *)
    ssize_t recvmsg(int, msghdr *, int)
    int recvmmsg(int, mmsghdr *, unsigned int, int, timespec *)
    int setsockopt(int, int, int, const void *, socklen_t)
    ssize_t sendto(int, const void *, size_t, int, const sockaddr *, socklen_t)
    ssize_t sendmsg(int, const msghdr *, int)
    int sendmmsg(int, mmsghdr *, unsigned int, int)

    ctypedef union epoll_data_t:
        uint64_t u64

    struct epoll_event:
        uint32_t events
        epoll_data_t data

    int EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLONESHOT
    int EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, EPOLL_CLOEXEC
    int EFD_NONBLOCK, EFD_CLOEXEC
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event *)
    int epoll_wait(int, epoll_event *, int, int)
    int eventfd(unsigned int, int)
    int close(int)
    ssize_t read(int, void *, size_t)
    ssize_t getrandom(void *, size_t, unsigned int)
    unsigned int GRND_NONBLOCK
    ssize_t write(int, const void *, size_t)

    int CLOCK_MONOTONIC
    int clock_gettime(int, timespec *)
    int nanosleep(const timespec *, timespec *)

    uint16_t htons(uint16_t)
    uint16_t ntohs(uint16_t)
    uint32_t ntohl(uint32_t)


cdef extern from "errno.h" nogil:
    int errno
