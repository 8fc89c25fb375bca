# Batched system calls: recvmmsg and sendmmsg with UDP_SEGMENT, or plain recvfrom and sendto when asked.
#
# Arrays stand side by side, an entry a message, which is filled in place.  Knows sockets and
# bytes, but no TFTP beyond the four bytes before a payload, and makes no decision: send_from reports
# where and why the kernel stopped, the worker decides what that means for the transfer.
#
# Kernel facts used: recvmmsg with MSG_DONTWAIT takes what is queued; its timeout argument is unusable
# and always NULL.  sendmmsg returns how many left before a bad message, whose errno comes when one
# resumes at it.  UDP_SEGMENT: only the last segment may be shorter; header/payload iovec pairs work.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset
from snow_owl_tftp._engine.base.addresses cimport Local, Peer
from snow_owl_tftp._engine.base.content cimport Source
from snow_owl_tftp._engine.base.counters cimport Counters, count_batch
from snow_owl_tftp._engine.base.transfer cimport Transfer
from snow_owl_tftp._engine.includes.files cimport pread
from snow_owl_tftp._engine.includes.net cimport (
    AF_INET, AF_INET6, CMSG_DATA, CMSG_FIRSTHDR, CMSG_LEN, CMSG_NXTHDR, CMSG_SPACE, EACCES, EAGAIN, ECONNREFUSED,
    EFAULT, EHOSTDOWN, EHOSTUNREACH, EINTR, EMSGSIZE, ENETUNREACH, ENOPROTOOPT, EOPNOTSUPP, EPROTO, IPPROTO_IP,
    IPPROTO_IPV6, IPPROTO_UDP, IPV6_PKTINFO, IPV6_RECVERR, IP_PKTINFO, IP_RECVERR, MSG_DONTWAIT, MSG_ERRQUEUE,
    MSG_NOSIGNAL, SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6, UDP_GRO, UDP_SEGMENT, cmsghdr, errno, in6_pktinfo, in_pktinfo,
    iovec, mmsghdr, msghdr, recvfrom, recvmmsg, recvmsg, sendmmsg, sendmsg, sendto, sock_extended_err, sockaddr)
from snow_owl_tftp._engine.protocol.seq cimport seq_block

cdef enum:
    EINTR_INTERNAL = 512          # ERESTARTSYS leaks out of recvmmsg when a signal met a half-full batch
    RECEIVE_CONTROL = 128         # PKTINFO and UDP_GRO
    ERROR_CONTROL = 512           # an extended error with its sender, PKTINFO
    SEND_TRIES = 3                # of one message, where an error may have been another's
    SLOT_SKEW_BYTES = 1088        # slots a power of two apart would all fall into the same cache sets


# --- sending -----------------------------------------------------------------------------------------

cdef int send_init(SendBatch *batch) noexcept nogil:
    """Returns -1 when there is no memory."""
    memset(batch, 0, sizeof(SendBatch))
    batch.socket = -1
    batch.serial = 1
    batch.messages = <mmsghdr *>calloc(SEND_MESSAGES, sizeof(mmsghdr))
    batch.items = <SendItem *>calloc(SEND_MESSAGES, sizeof(SendItem))
    batch.peers = <Peer *>calloc(SEND_MESSAGES, sizeof(Peer))
    batch.iov = <iovec *>calloc(SEND_MESSAGES * TRAIN_SEGMENTS * 2, sizeof(iovec))
    batch.headers = <uint8_t *>calloc(SEND_MESSAGES * TRAIN_SEGMENTS, 4)
    batch.scratch = <uint8_t *>calloc(SEND_MESSAGES, SCRATCH_BYTES)
    batch.control = <uint8_t *>calloc(SEND_MESSAGES, CONTROL_BYTES)
    batch.staging = <uint8_t *>malloc(STAGING_BYTES)
    batch.flat = <uint8_t *>malloc(65536)
    if (batch.messages == NULL or batch.items == NULL or batch.peers == NULL or batch.iov == NULL
            or batch.headers == NULL or batch.scratch == NULL or batch.control == NULL
            or batch.staging == NULL or batch.flat == NULL):
        return -1
    return 0


cdef void send_free(SendBatch *batch) noexcept nogil:
    free(batch.messages)
    free(batch.items)
    free(batch.peers)
    free(batch.iov)
    free(batch.headers)
    free(batch.scratch)
    free(batch.control)
    free(batch.staging)
    free(batch.flat)


cdef bint send_has_room(SendBatch *batch, uint32_t segments) noexcept nogil:
    return (batch.count < SEND_MESSAGES
            and batch.iov_used + 2 * segments <= SEND_MESSAGES * TRAIN_SEGMENTS * 2)


cdef void put_control(msghdr *header, uint8_t *control, const Local *local, uint16_t segment_bytes) noexcept nogil:
    """PKTINFO (answer from the address that was asked) and UDP_SEGMENT, where wanted."""
    cdef cmsghdr *c
    cdef in_pktinfo info4
    cdef in6_pktinfo info6
    cdef size_t used = 0
    if local.family == 0 and segment_bytes == 0:
        header.msg_control = NULL
        header.msg_controllen = 0
        return
    header.msg_control = control
    header.msg_controllen = CONTROL_BYTES
    c = CMSG_FIRSTHDR(header)
    if local.family == <uint32_t>AF_INET:
        memset(&info4, 0, sizeof(info4))
        memcpy(&info4.ipi_spec_dst, local.address, 4)
        c.cmsg_level = IPPROTO_IP
        c.cmsg_type = IP_PKTINFO
        c.cmsg_len = CMSG_LEN(sizeof(info4))
        memcpy(CMSG_DATA(c), &info4, sizeof(info4))
        used = CMSG_SPACE(sizeof(info4))
    elif local.family == <uint32_t>AF_INET6:
        memcpy(&info6.ipi6_addr, local.address, 16)
        # Only a link-local address needs its interface; elsewhere the routing table knows better.
        info6.ipi6_ifindex = local.ifindex if local.address[0] == 0xfe and local.address[1] & 0xc0 == 0x80 else 0
        c.cmsg_level = IPPROTO_IPV6
        c.cmsg_type = IPV6_PKTINFO
        c.cmsg_len = CMSG_LEN(sizeof(info6))
        memcpy(CMSG_DATA(c), &info6, sizeof(info6))
        used = CMSG_SPACE(sizeof(info6))
    if segment_bytes:
        c = <cmsghdr *>(control + used)
        c.cmsg_level = IPPROTO_UDP
        c.cmsg_type = UDP_SEGMENT
        c.cmsg_len = CMSG_LEN(2)                 # the kernel wants exactly a uint16
        memcpy(CMSG_DATA(c), &segment_bytes, 2)
        used += CMSG_SPACE(2)
    header.msg_controllen = used


cdef msghdr *next_message(SendBatch *batch, const Peer *peer, Transfer *owner, int64_t first,
                          uint32_t count) noexcept nogil:
    cdef uint32_t i = batch.count
    cdef msghdr *header = &batch.messages[i].msg_hdr
    batch.count += 1
    batch.items[i].owner = owner
    batch.items[i].owner_id = owner.id if owner != NULL else 0
    batch.items[i].first = first
    batch.items[i].count = count
    batch.items[i].staged = 0
    batch.peers[i] = peer[0]
    header.msg_name = &batch.peers[i].address    # send_forget() may have moved another message here
    header.msg_namelen = peer.size
    header.msg_iov = batch.iov + batch.iov_used
    return header


cdef uint8_t *send_control(SendBatch *batch, const Peer *peer, const Local *local, Transfer *owner,
                           uint32_t size) noexcept nogil:
    """A message of `size` (<= SCRATCH_BYTES) bytes, which the caller writes where the result points."""
    cdef uint8_t *bytes = batch.scratch + <size_t>batch.count * SCRATCH_BYTES
    cdef uint8_t *control = batch.control + <size_t>batch.count * CONTROL_BYTES
    cdef msghdr *header = next_message(batch, peer, owner, -1, 0)
    header.msg_iovlen = 1
    header.msg_iov.iov_base = bytes
    header.msg_iov.iov_len = size
    batch.iov_used += 1
    put_control(header, control, local, 0)
    return bytes


cdef void send_data(SendBatch *batch, Transfer *owner, int64_t first, uint32_t count, uint8_t *payload,
                    uint64_t size, bint staged) noexcept nogil:
    """DATA first .. first + count - 1 with `size` bytes of payload as one message (a train when count > 1)."""
    cdef uint8_t *control = batch.control + <size_t>batch.count * CONTROL_BYTES
    cdef msghdr *header = next_message(batch, &owner.peer, owner, first, count)
    cdef iovec *iov = header.msg_iov
    cdef uint8_t *four = batch.headers + <size_t>batch.iov_used * 2
    cdef uint32_t blksize = owner.flight.blksize_bytes, i
    cdef uint16_t block
    cdef uint64_t part
    batch.items[batch.count - 1].staged = staged
    batch.items[batch.count - 1].sent_end = owner.flight.sent_end
    owner.batch = batch.serial
    header.msg_iovlen = 2 * count
    batch.iov_used += 2 * count
    for i in range(count):
        block = seq_block(first + i, owner.flight.rollover)
        four[0] = 0
        four[1] = 3
        four[2] = block >> 8
        four[3] = block & 0xff
        part = size if size < blksize else blksize
        iov[0].iov_base = four
        iov[0].iov_len = 4
        iov[1].iov_base = payload
        iov[1].iov_len = part
        iov += 2
        four += 4
        payload += part
        size -= part
    put_control(header, control, &owner.local, <uint16_t>(blksize + 4) if count > 1 else 0)


cdef void send_forget(SendBatch *batch, uint32_t at, const Transfer *owner) noexcept nogil:
    """Takes the DATA of `owner` out of the messages from `at` on; the others move up, in order."""
    cdef uint32_t i, kept = at
    for i in range(at, batch.count):
        if batch.items[i].owner != owner or batch.items[i].first < 0:
            batch.items[kept] = batch.items[i]
            batch.messages[kept] = batch.messages[i]     # its pointers stay good: nothing is reused before the flush
            kept += 1
    batch.count = kept


cdef ssize_t send_flat(SendBatch *batch, uint32_t i) noexcept nogil:
    """One datagram by sendto.

    The payload is read with pread, not copied from the mapping: a page behind a new end of file would
    be a SIGBUS in our hands.
    """
    cdef msghdr *header = &batch.messages[i].msg_hdr
    cdef SendItem *item = &batch.items[i]
    cdef Source *source
    cdef uint8_t *flat = batch.flat
    cdef size_t size = header.msg_iov[0].iov_len
    cdef ssize_t n
    memcpy(flat, header.msg_iov[0].iov_base, size)
    if header.msg_iovlen > 1:
        if item.staged:
            memcpy(flat + size, header.msg_iov[1].iov_base, header.msg_iov[1].iov_len)
        else:
            source = item.owner.recipe.source
            n = pread(source.fd, flat + size, header.msg_iov[1].iov_len,
                      <uint8_t *>header.msg_iov[1].iov_base - source.map)
            if n < 0:
                source.failed_errno = errno
            if n != <ssize_t>header.msg_iov[1].iov_len:
                (&errno)[0] = EFAULT             # as sendmmsg says it: the file is not what it was
                return -1
        size += header.msg_iov[1].iov_len
    if header.msg_controllen:
        header.msg_iov[0].iov_base = flat
        header.msg_iov[0].iov_len = size
        header.msg_iovlen = 1
        return sendmsg(batch.fd, header, MSG_DONTWAIT | MSG_NOSIGNAL)
    return sendto(batch.fd, flat, size, MSG_DONTWAIT | MSG_NOSIGNAL, <sockaddr *>header.msg_name, header.msg_namelen)


cdef void count_sent(SendBatch *batch, uint32_t at, uint32_t n, Counters *counters) noexcept nogil:
    cdef uint32_t i, datagrams = 0
    for i in range(at, at + n):
        if batch.items[i].first >= 0:
            datagrams += batch.items[i].count
            counters.blocks_sent += batch.items[i].count
            if batch.items[i].count > 1:
                counters.gso_trains += 1
        else:
            datagrams += 1
        counters.bytes_sent += batch.messages[i].msg_len
    counters.datagrams_sent += datagrams
    count_batch(counters.send_histogram, datagrams)


cdef int send_from(SendBatch *batch, uint32_t *at, const Tuning *tuning, Counters *counters) noexcept nogil:
    """Sends messages at[0] .. count - 1.  Returns 0, or the errno of message at[0] (the ones before it left)."""
    cdef int n
    cdef uint32_t tries = 1
    cdef ssize_t size
    while at[0] < batch.count:
        if tuning.sendmmsg:
            counters.sendmmsg_calls += 1
            n = sendmmsg(batch.fd, batch.messages + at[0], batch.count - at[0], MSG_DONTWAIT | MSG_NOSIGNAL)
        else:
            counters.sendto_calls += 1
            size = send_flat(batch, at[0])
            n = 1 if size >= 0 else -1
            if size >= 0:
                batch.messages[at[0]].msg_len = <unsigned int>size
        if n > 0:
            count_sent(batch, at[0], n, counters)
            at[0] += n
            tries = 1
        elif errno == EINTR:
            continue
        elif tries < SEND_TRIES and may_be_anothers(errno):
            tries += 1
        else:
            return errno
    return 0


# --- ICMP ----------------------------------------------------------------------------------------------

cdef bint may_be_anothers(int error) noexcept nogil:
    """Whether an ICMP may have left it on the socket (ip(7), IP_RECVERR).

    Then the call that met it did nothing, was told for another peer's sake, and can be made again: the error is
    gone from the socket with the telling.
    """
    return (error == ECONNREFUSED or error == EHOSTUNREACH or error == ENETUNREACH or error == EHOSTDOWN
            or error == ENOPROTOOPT or error == EOPNOTSUPP or error == EPROTO or error == EACCES
            or error == EMSGSIZE)


cdef int receive_error(int fd, Peer *peer) noexcept nogil:
    """The next error in the queue of `fd`, and whom it is about: an errno that ICMP brought; 0: another kind of
    error; -1: there is none."""
    cdef uint8_t control[ERROR_CONTROL]
    cdef msghdr header
    cdef cmsghdr *c
    cdef sock_extended_err *extended
    memset(&header, 0, sizeof(header))
    header.msg_name = &peer.address
    header.msg_namelen = sizeof(peer.address)
    header.msg_control = control
    header.msg_controllen = sizeof(control)
    if recvmsg(fd, &header, MSG_ERRQUEUE | MSG_DONTWAIT) < 0:
        return -1
    peer.size = header.msg_namelen
    c = CMSG_FIRSTHDR(&header)
    while c != NULL:
        if ((c.cmsg_level == IPPROTO_IP and c.cmsg_type == IP_RECVERR)
                or (c.cmsg_level == IPPROTO_IPV6 and c.cmsg_type == IPV6_RECVERR)):
            extended = <sock_extended_err *>CMSG_DATA(c)
            if extended.ee_origin == SO_EE_ORIGIN_ICMP or extended.ee_origin == SO_EE_ORIGIN_ICMP6:
                return <int>extended.ee_errno
        c = CMSG_NXTHDR(&header, c)
    return 0


# --- receiving ---------------------------------------------------------------------------------------

cdef int receive_init(ReceiveBatch *batch, uint32_t capacity, uint32_t slot_bytes) noexcept nogil:
    """Returns -1 when there is no memory."""
    cdef uint32_t i
    memset(batch, 0, sizeof(ReceiveBatch))
    batch.capacity = capacity
    batch.slot_bytes = slot_bytes
    batch.stride_bytes = slot_bytes + SLOT_SKEW_BYTES
    batch.used = capacity
    batch.with_control = False
    batch.messages = <mmsghdr *>calloc(capacity, sizeof(mmsghdr))
    batch.iov = <iovec *>calloc(capacity, sizeof(iovec))
    batch.peers = <Peer *>calloc(capacity, sizeof(Peer))
    batch.control = <uint8_t *>calloc(capacity, RECEIVE_CONTROL)
    batch.buffers = <uint8_t *>malloc(<size_t>capacity * batch.stride_bytes)
    if (batch.messages == NULL or batch.iov == NULL or batch.peers == NULL or batch.control == NULL
            or batch.buffers == NULL):
        return -1
    for i in range(capacity):
        batch.iov[i].iov_base = batch.buffers + <size_t>i * batch.stride_bytes
        batch.iov[i].iov_len = slot_bytes
        batch.messages[i].msg_hdr.msg_iov = &batch.iov[i]
        batch.messages[i].msg_hdr.msg_iovlen = 1
        batch.messages[i].msg_hdr.msg_name = &batch.peers[i].address
    return 0


cdef void receive_free(ReceiveBatch *batch) noexcept nogil:
    free(batch.messages)
    free(batch.iov)
    free(batch.peers)
    free(batch.control)
    free(batch.buffers)


cdef void reset_slots(ReceiveBatch *batch, bint wants_control) noexcept nogil:
    """Only what the last call used: the kernel wrote lengths into those slots."""
    cdef uint32_t i
    cdef msghdr *header
    for i in range(batch.used):
        header = &batch.messages[i].msg_hdr
        header.msg_namelen = 28
        header.msg_flags = 0
        header.msg_control = batch.control + <size_t>i * RECEIVE_CONTROL if wants_control else NULL
        header.msg_controllen = RECEIVE_CONTROL if wants_control else 0
    batch.used = 0


cdef int receive_one(ReceiveBatch *batch, int fd, bint wants_control, Counters *counters) noexcept nogil:
    cdef msghdr *header = &batch.messages[0].msg_hdr
    cdef ssize_t n
    counters.recvfrom_calls += 1
    if wants_control:
        n = recvmsg(fd, header, MSG_DONTWAIT)
    else:
        n = recvfrom(fd, batch.iov[0].iov_base, batch.slot_bytes, MSG_DONTWAIT,
                     <sockaddr *>header.msg_name, &header.msg_namelen)
    if n < 0:
        if errno == EAGAIN:
            counters.recvfrom_empty += 1
        return -errno
    batch.messages[0].msg_len = <unsigned int>n
    return 1


cdef int receive(ReceiveBatch *batch, int fd, bint wants_control, const Tuning *tuning,
                 Counters *counters) noexcept nogil:
    """What is queued on `fd`, at most one batch: the number of datagrams, or -errno (-EAGAIN: nothing)."""
    cdef int n
    cdef uint32_t i, limit = tuning.max_batch if tuning.max_batch < batch.capacity else batch.capacity
    if batch.with_control != wants_control:
        batch.used = batch.capacity
        batch.with_control = wants_control
    reset_slots(batch, wants_control)
    if not tuning.recvmmsg:
        n = receive_one(batch, fd, wants_control, counters)
    else:
        counters.recvmmsg_calls += 1
        n = recvmmsg(fd, batch.messages, limit, MSG_DONTWAIT, NULL)
        if n < 0:
            if errno == EAGAIN:
                counters.recvmmsg_empty += 1
            return -EINTR if errno == EINTR_INTERNAL else -errno
    if n > 0:
        batch.used = n
        counters.datagrams_received += n
        count_batch(counters.receive_histogram, n)
        for i in range(<uint32_t>n):
            batch.peers[i].size = batch.messages[i].msg_hdr.msg_namelen
            counters.bytes_received += batch.messages[i].msg_len
    return n


cdef uint32_t received_segment(ReceiveBatch *batch, uint32_t i) noexcept nogil:
    """The size of the datagrams in slot `i` where UDP_GRO joined several; else 0."""
    cdef msghdr *header = &batch.messages[i].msg_hdr
    cdef cmsghdr *c = CMSG_FIRSTHDR(header) if header.msg_controllen else NULL
    cdef int segment
    while c != NULL:
        if c.cmsg_level == IPPROTO_UDP and c.cmsg_type == UDP_GRO:
            memcpy(&segment, CMSG_DATA(c), sizeof(segment))
            return <uint32_t>segment
        c = CMSG_NXTHDR(header, c)
    return 0


cdef void received_local(ReceiveBatch *batch, uint32_t i, Local *local) noexcept nogil:
    """The address that the datagram in slot `i` was sent to; family 0 where the socket does not tell."""
    cdef msghdr *header = &batch.messages[i].msg_hdr
    cdef cmsghdr *c = CMSG_FIRSTHDR(header) if header.msg_controllen else NULL
    cdef in_pktinfo info4
    cdef in6_pktinfo info6
    memset(local, 0, sizeof(Local))
    while c != NULL:
        if c.cmsg_level == IPPROTO_IP and c.cmsg_type == IP_PKTINFO:
            memcpy(&info4, CMSG_DATA(c), sizeof(info4))
            memcpy(local.address, &info4.ipi_addr, 4)
            local.ifindex = <uint32_t>info4.ipi_ifindex
            local.family = <uint32_t>AF_INET
        elif c.cmsg_level == IPPROTO_IPV6 and c.cmsg_type == IPV6_PKTINFO:
            memcpy(&info6, CMSG_DATA(c), sizeof(info6))
            memcpy(local.address, &info6.ipi6_addr, 16)
            local.ifindex = info6.ipi6_ifindex
            local.family = <uint32_t>AF_INET6
        c = CMSG_NXTHDR(header, c)
