/* limit: a TFTP read server that makes the system calls of a real one, and does nothing else; for comparison only.
 *
 * One thread, epoll, a batch in (recvmmsg) and a batch out (sendmmsg), a window as one train that the kernel cuts
 * (UDP_SEGMENT), one socket for all transfers. What it costs is about what the kernel costs: a server that serves
 * people, with rules, timers, a log and files that change, is measured beside it.
 *
 * It serves the benchmark and nobody else: 127.0.0.1, reads in octet, names without '/', blksize and windowsize as
 * asked. Files are mapped at their first request and never looked at again. Nothing is ever sent by a timer: a client
 * that misses something says so again. What it cannot do ends it with a message, so that its run has no figure.
 *
 * usage: limit ROOT PORT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103 /* linux/udp.h; older C libraries do not name it */
#endif

enum {
    RECEIVED = 64,        /* datagrams one recvmmsg takes, as many as ours takes by default */
    QUEUED = 128,         /* messages one sendmmsg takes, the same */
    REQUEST_BYTES = 512,  /* of an ACK and of any request that the load sends */
    ANSWER_BYTES = 64,    /* an OACK of two options */
    TRAIN_BLOCKS = 64,    /* UDP_MAX_SEGMENTS of older kernels */
    TRAIN_BYTES = 65507,  /* the largest UDP payload over IPv4 */
    HEADERS = QUEUED * TRAIN_BLOCKS,
    BUCKETS = 1 << 15,
    TRANSFERS = 20000,    /* at once; the largest load has 10,000 */
    FILES = 16,
    BUFFER_BYTES = 16 << 20 /* for a storm of requests; the kernel lowers it where it must */
};

struct file {
    char name[64];
    const uint8_t *data;
    size_t size;
};

struct transfer {
    in_addr_t address;
    in_port_t port;
    uint16_t window;   /* blocks */
    uint32_t blksize;  /* bytes */
    uint64_t acked;    /* blocks; 0: none yet */
    const struct file *file;
    struct transfer *next; /* in its bucket, or among the free ones */
};

static struct file files[FILES];
static struct transfer pool[TRANSFERS], *unused, *buckets[BUCKETS];
static int file_count, root, requests, transfers; /* `requests` and `transfers` are the two sockets */

/* What waits for the next sendmmsg. Parts and headers lie close together: in lock-step few of them are used. */
static struct mmsghdr queue[QUEUED];
static struct sockaddr_in names[QUEUED];
static uint8_t answers[QUEUED][ANSWER_BYTES];
static union {
    char bytes[CMSG_SPACE(sizeof(uint16_t))];
    struct cmsghdr align;
} controls[QUEUED];
static struct iovec parts[2 * HEADERS];
static uint8_t headers[HEADERS][4];
static int queued, used_parts, used_headers;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

/* ---- sending --------------------------------------------------------------------------------------------------- */

static void flush(void) {
    for (int sent = 0; sent < queued;) {
        int n = sendmmsg(transfers, queue + sent, (unsigned)(queued - sent), 0);
        struct pollfd writable = {.fd = transfers, .events = POLLOUT};
        if (n > 0) sent += n;
        else if (errno == EAGAIN || errno == ENOBUFS) poll(&writable, 1, 10);
        else if (errno != EINTR) fail("sendmmsg");
    }
    queued = used_parts = used_headers = 0;
}

static struct msghdr *next_message(in_addr_t address, in_port_t port) {
    struct msghdr *message;
    if (queued == QUEUED) flush(); /* so that headers and parts always suffice */
    names[queued] = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = address, .sin_port = port};
    message = &queue[queued].msg_hdr;
    *message = (struct msghdr){.msg_name = &names[queued], .msg_namelen = sizeof names[0], .msg_iov = parts + used_parts};
    queued++;
    return message;
}

static void add_part(struct msghdr *message, const void *bytes, size_t size) {
    parts[used_parts++] = (struct iovec){(void *)bytes, size};
    message->msg_iovlen++;
}

static void cut_into(struct msghdr *message, uint16_t datagram_bytes) {
    struct cmsghdr *control;
    message->msg_control = controls[queued - 1].bytes;
    message->msg_controllen = sizeof controls[0].bytes;
    control = CMSG_FIRSTHDR(message);
    control->cmsg_level = IPPROTO_UDP;
    control->cmsg_type = UDP_SEGMENT;
    control->cmsg_len = CMSG_LEN(sizeof datagram_bytes);
    memcpy(CMSG_DATA(control), &datagram_bytes, sizeof datagram_bytes);
}

static void queue_train(const struct transfer *t, uint64_t block, unsigned count) {
    struct msghdr *message = next_message(t->address, t->port);
    for (unsigned i = 0; i < count; i++, block++) {
        size_t offset = (block - 1) * t->blksize, left = t->file->size - offset;
        uint8_t *header = headers[used_headers++];
        header[0] = 0;
        header[1] = 3;
        header[2] = (uint8_t)(block >> 8);
        header[3] = (uint8_t)block;
        add_part(message, header, 4);
        add_part(message, t->file->data + offset, left < t->blksize ? left : t->blksize);
    }
    if (count > 1) cut_into(message, (uint16_t)(t->blksize + 4)); /* only the last datagram may be shorter */
}

static void queue_window(const struct transfer *t) {
    uint64_t last = t->file->size / t->blksize + 1, block = t->acked + 1, end = t->acked + t->window;
    unsigned most = TRAIN_BYTES / (t->blksize + 4);
    if (most > TRAIN_BLOCKS) most = TRAIN_BLOCKS;
    if (end > last) end = last;
    while (block <= end) {
        unsigned count = end - block + 1 < most ? (unsigned)(end - block + 1) : most;
        queue_train(t, block, count);
        block += count;
    }
}

static void queue_answer(const struct sockaddr_in *peer, const void *bytes, size_t size) {
    struct msghdr *message = next_message(peer->sin_addr.s_addr, peer->sin_port);
    memcpy(answers[queued - 1], bytes, size);
    add_part(message, answers[queued - 1], size);
}

/* ---- transfers ------------------------------------------------------------------------------------------------- */

static struct transfer **place_of(const struct sockaddr_in *peer) {
    uint32_t key = ntohl(peer->sin_addr.s_addr) * 2654435761u ^ peer->sin_port * 40503u;
    struct transfer **place = &buckets[key >> 17];
    while (*place && ((*place)->address != peer->sin_addr.s_addr || (*place)->port != peer->sin_port))
        place = &(*place)->next;
    return place;
}

static struct transfer *begin(const struct sockaddr_in *peer, const struct file *file) {
    struct transfer **place = place_of(peer), *t = *place;
    if (!t) {
        if (!unused) {
            fputs("limit: too many transfers\n", stderr);
            exit(1);
        }
        t = unused;
        unused = t->next;
        *place = t;
        t->next = 0;
    }
    t->address = peer->sin_addr.s_addr;
    t->port = peer->sin_port;
    t->blksize = 512;
    t->window = 1;
    t->acked = 0;
    t->file = file;
    return t;
}

static void end(struct transfer **place) {
    struct transfer *t = *place;
    *place = t->next;
    t->next = unused;
    unused = t;
}

static void on_ack(const uint8_t *bytes, const struct sockaddr_in *peer) {
    struct transfer **place = place_of(peer), *t = *place;
    uint16_t ahead;
    if (!t) return;
    ahead = (uint16_t)((bytes[2] << 8 | bytes[3]) - t->acked);
    if (ahead > t->window) return;
    t->acked += ahead;
    if (t->acked > t->file->size / t->blksize) end(place);
    else queue_window(t);
}

/* ---- requests -------------------------------------------------------------------------------------------------- */

static const struct file *find(const char *name) {
    struct stat status;
    struct file *file = files;
    int fd;
    while (file < files + file_count && strcmp(file->name, name)) file++;
    if (file < files + file_count) return file;
    if (strchr(name, '/') || strlen(name) >= sizeof file->name || file_count == FILES) return 0;
    fd = openat(root, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    if (fstat(fd, &status) || !S_ISREG(status.st_mode)) {
        close(fd);
        return 0;
    }
    file->size = (size_t)status.st_size;
    file->data = mmap(0, file->size ? file->size : 1, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (file->data == MAP_FAILED) fail("mmap");
    close(fd);
    strcpy(file->name, name);
    file_count++;
    return file;
}

/* The string at *cursor, which moves behind it; 0 at the end. The caller has ended the bytes with a NUL. */
static const char *next_string(const char **cursor, const char *past) {
    const char *text = *cursor;
    if (text >= past) return 0;
    *cursor += strlen(text) + 1;
    return text;
}

static unsigned within(const char *text, unsigned least, unsigned most) {
    unsigned long value = strtoul(text, 0, 10);
    return value < least ? least : value > most ? most : (unsigned)value;
}

static size_t granted(struct transfer *t, const char *cursor, const char *past, char *oack) {
    size_t size = 2;
    const char *name, *value;
    memcpy(oack, "\0\6", 2);
    while ((name = next_string(&cursor, past)) && (value = next_string(&cursor, past))) {
        unsigned given;
        if (!strcasecmp(name, "blksize")) given = t->blksize = within(value, 8, 65464);
        else if (!strcasecmp(name, "windowsize")) given = t->window = (uint16_t)within(value, 1, 65535);
        else continue;
        if (size + strlen(name) + 8 > ANSWER_BYTES) break;
        size += (size_t)sprintf(oack + size, "%s", name) + 1;
        size += (size_t)sprintf(oack + size, "%u", given) + 1;
    }
    return size;
}

static void on_request(uint8_t *bytes, size_t size, const struct sockaddr_in *peer) {
    static const char no_file[] = "\0\5\0\1no file"; /* with the NUL of the literal */
    const char *cursor = (const char *)bytes + 2, *past = (const char *)bytes + size, *name;
    const struct file *file;
    char oack[ANSWER_BYTES];
    bytes[size] = 0; /* there is one byte more than is received */
    name = next_string(&cursor, past);
    next_string(&cursor, past); /* the mode is octet */
    file = bytes[1] == 1 && name ? find(name) : 0;
    if (!file) queue_answer(peer, no_file, sizeof no_file);
    else {
        struct transfer *t = begin(peer, file);
        size_t oack_size = granted(t, cursor, past, oack);
        if (oack_size > 2) queue_answer(peer, oack, oack_size);
        else queue_window(t);
    }
}

/* ---- the loop -------------------------------------------------------------------------------------------------- */

static struct mmsghdr received[RECEIVED];
static struct sockaddr_in peers[RECEIVED];
static struct iovec places[RECEIVED];
static uint8_t buffers[RECEIVED][REQUEST_BYTES + 1];

static void take_all(int fd) {
    int n;
    do {
        for (int i = 0; i < RECEIVED; i++) received[i].msg_hdr.msg_namelen = sizeof peers[0];
        n = recvmmsg(fd, received, RECEIVED, MSG_DONTWAIT, 0);
        if (n < 0 && errno != EAGAIN && errno != EINTR) fail("recvmmsg");
        for (int i = 0; i < n; i++) {
            if (received[i].msg_len < 4) continue;
            if (fd == requests) on_request(buffers[i], received[i].msg_len, &peers[i]);
            else if (buffers[i][1] == 4) on_ack(buffers[i], &peers[i]);
        }
        flush();
    } while (n == RECEIVED); /* a short batch: the queue was empty */
}

static int open_socket(int port, int epoll) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), wanted = BUFFER_BYTES;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (void *)&here, sizeof here) || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) fail("socket");
    /* Without the right to more than the system's maximum that maximum has to do. */
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &wanted, sizeof wanted))
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &wanted, sizeof wanted);
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &wanted, sizeof wanted))
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &wanted, sizeof wanted);
    return fd;
}

static void lay_out(void) {
    for (int i = 0; i < RECEIVED; i++) {
        places[i] = (struct iovec){buffers[i], REQUEST_BYTES};
        received[i].msg_hdr = (struct msghdr){.msg_name = &peers[i], .msg_iov = &places[i], .msg_iovlen = 1};
    }
    for (int i = 0; i < TRANSFERS; i++) {
        pool[i].next = unused;
        unused = &pool[i];
    }
}

int main(int argc, char **argv) {
    int epoll = epoll_create1(EPOLL_CLOEXEC), port = argc == 3 ? atoi(argv[2]) : 0;
    if (port < 1 || port > 65535) {
        fputs("usage: limit ROOT PORT\n", stderr);
        return 2;
    }
    root = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (epoll < 0 || root < 0) fail(argv[1]);
    requests = open_socket(port, epoll);
    transfers = open_socket(0, epoll);
    lay_out();
    for (;;) {
        struct epoll_event events[2];
        int n = epoll_wait(epoll, events, 2, -1);
        if (n < 0 && errno != EINTR) fail("epoll_wait");
        for (int i = 0; i < n; i++) take_all(events[i].data.fd);
    }
}
