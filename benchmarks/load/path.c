/* See path.h. Batches, and the queue of what is under way. */
#define _GNU_SOURCE
#include "path.h"

#include <errno.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#ifndef UDP_GRO
#define UDP_GRO 104 /* linux/udp.h; older C libraries do not name it */
#endif

enum {
    RECEIVED = 128,
    QUEUED = 256,
    TRAIN_BYTES = 65536,     /* a train that GRO kept together must fit, or its end is lost */
    STRIDE = TRAIN_BYTES + 320, /* no power of two: else the first lines of all buffers share one set of the cache */
    DELAYED = 1 << 17,       /* datagrams under way: more than any load has in its windows */
    BATCHES_A_TURN = 64,     /* then timers and the time limit have their turn */
    BUFFER_BYTES = 32 << 20  /* a storm answers 10,000 clients at once */
};

struct delayed {
    uint64_t due_ns;
    uint8_t *bytes; /* owned; freed when delivered */
    size_t size;
    int client;
    in_port_t port;
};

union control {
    char bytes[CMSG_SPACE(sizeof(struct in_pktinfo)) + CMSG_SPACE(sizeof(int))];
    size_t align; /* of a cmsghdr */
};

struct path_counters path_counters;

static struct path_options path;
static int fd, client_count;
static const in_addr_t first_client = 0x7f400001; /* 127.64.0.1 */

static struct mmsghdr queue[QUEUED];
static struct sockaddr_in targets[QUEUED];
static struct iovec parts[QUEUED][2];
static union control sources[QUEUED];
static uint8_t heads[QUEUED][HEAD_BYTES];
static int queued;

static struct mmsghdr received[RECEIVED];
static struct sockaddr_in senders[RECEIVED];
static struct iovec places[RECEIVED];
static union control said[RECEIVED];
static uint8_t *buffers;

static struct delayed *delayed; /* a ring: the delay is the same for all, so the oldest is due first */
static uint64_t oldest, newest;
static uint64_t chance;

uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND_NS + (uint64_t)t.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(2);
}

/* splitmix64: any seed gives a good row. */
static double next_chance(void) {
    uint64_t z = chance += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) / 9007199254740992.0; /* 2^53 */
}

static int is_lost(void) {
    if (path.loss_percent <= 0 || next_chance() * 100 >= path.loss_percent) return 0;
    path_counters.lost++;
    return 1;
}

static void set_buffer(int forced, int plain) {
    int wanted = BUFFER_BYTES;
    /* Without the right to more than the system's maximum that maximum has to do. */
    if (setsockopt(fd, SOL_SOCKET, forced, &wanted, sizeof wanted))
        setsockopt(fd, SOL_SOCKET, plain, &wanted, sizeof wanted);
}

void path_open(const struct path_options *options, int clients) {
    struct sockaddr_in any = {.sin_family = AF_INET}; /* all addresses of the clients; others are not listened to */
    int on = 1;
    path = *options;
    client_count = clients;
    chance = options->seed;
    buffers = malloc((size_t)RECEIVED * STRIDE);
    delayed = calloc(DELAYED, sizeof *delayed);
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (!buffers || !delayed || fd < 0 || bind(fd, (void *)&any, sizeof any)) fail("socket");
    if (setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on)) fail("IP_PKTINFO");
    setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on); /* before Linux 5.0 datagrams come one by one */
    set_buffer(SO_RCVBUFFORCE, SO_RCVBUF);
    set_buffer(SO_SNDBUFFORCE, SO_SNDBUF);
    for (int i = 0; i < RECEIVED; i++) places[i] = (struct iovec){buffers + (size_t)i * STRIDE, TRAIN_BYTES};
}

/* ---- sending --------------------------------------------------------------------------------------------------- */

void path_flush(void) {
    for (int sent = 0; sent < queued;) {
        int n = sendmmsg(fd, queue + sent, (unsigned)(queued - sent), 0);
        struct pollfd writable = {.fd = fd, .events = POLLOUT};
        path_counters.send_calls++;
        if (n > 0) sent += n;
        else if (errno == EAGAIN || errno == ENOBUFS) poll(&writable, 1, 10);
        else if (errno != EINTR) fail("sendmmsg");
    }
    queued = 0;
}

static void leave_from(struct msghdr *message, union control *control, int client) {
    struct in_pktinfo info = {.ipi_spec_dst.s_addr = htonl(first_client + (in_addr_t)client)};
    struct cmsghdr *header;
    message->msg_control = control->bytes;
    message->msg_controllen = CMSG_SPACE(sizeof info);
    header = CMSG_FIRSTHDR(message);
    header->cmsg_level = IPPROTO_IP;
    header->cmsg_type = IP_PKTINFO;
    header->cmsg_len = CMSG_LEN(sizeof info);
    memcpy(CMSG_DATA(header), &info, sizeof info);
}

int path_send(int client, in_port_t port, const void *head, size_t head_bytes, const void *payload, size_t payload_bytes) {
    struct msghdr *message;
    if (is_lost()) return 0;
    if (queued == QUEUED) path_flush();
    memcpy(heads[queued], head, head_bytes);
    targets[queued] = path.server;
    targets[queued].sin_port = port;
    parts[queued][0] = (struct iovec){heads[queued], head_bytes};
    parts[queued][1] = (struct iovec){(void *)payload, payload_bytes};
    message = &queue[queued].msg_hdr;
    *message = (struct msghdr){.msg_name = &targets[queued],
                               .msg_namelen = sizeof targets[0],
                               .msg_iov = parts[queued],
                               .msg_iovlen = payload_bytes ? 2 : 1};
    leave_from(message, &sources[queued], client);
    queued++;
    return 1;
}

/* ---- receiving ------------------------------------------------------------------------------------------------- */

static void delay(int client, in_port_t port, const uint8_t *bytes, size_t size, uint64_t now) {
    struct delayed *place = &delayed[newest % DELAYED];
    if (newest - oldest == DELAYED) {
        path_counters.overrun++;
        return;
    }
    *place = (struct delayed){now + path.delay_ns, malloc(size ? size : 1), size, client, port};
    if (!place->bytes) fail("malloc");
    memcpy(place->bytes, bytes, size);
    newest++;
}

static void deliver_due(path_receiver *receiver, uint64_t now) {
    for (; oldest != newest && delayed[oldest % DELAYED].due_ns <= now; oldest++) {
        struct delayed *d = &delayed[oldest % DELAYED];
        receiver(d->client, d->port, d->bytes, d->size, now);
        free(d->bytes);
    }
}

/* Hands over one message: a datagram, or a train of them that the kernel kept together (UDP_GRO). */
static void take(struct mmsghdr *message, path_receiver *receiver, uint64_t now) {
    const uint8_t *bytes = message->msg_hdr.msg_iov->iov_base;
    const struct sockaddr_in *sender = message->msg_hdr.msg_name;
    size_t left = message->msg_len, segment = left ? left : 1;
    int64_t client = -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message->msg_hdr); c; c = CMSG_NXTHDR(&message->msg_hdr, c)) {
        struct in_pktinfo info;
        int size;
        if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
            memcpy(&size, CMSG_DATA(c), sizeof size);
            if (size > 0) segment = (size_t)size;
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            memcpy(&info, CMSG_DATA(c), sizeof info);
            client = (int64_t)ntohl(info.ipi_addr.s_addr) - first_client;
        }
    }
    if (client < 0 || client >= client_count || sender->sin_addr.s_addr != path.server.sin_addr.s_addr) return;
    for (; left; bytes += segment, left -= segment) {
        if (segment > left) segment = left;
        if (is_lost()) continue;
        if (path.delay_ns) delay((int)client, sender->sin_port, bytes, segment, now);
        else receiver((int)client, sender->sin_port, bytes, segment, now);
    }
}

static int take_batch(path_receiver *receiver) {
    uint64_t now;
    int n;
    for (int i = 0; i < RECEIVED; i++) {
        received[i].msg_hdr = (struct msghdr){.msg_name = &senders[i],
                                              .msg_namelen = sizeof senders[0],
                                              .msg_iov = &places[i],
                                              .msg_iovlen = 1,
                                              .msg_control = said[i].bytes,
                                              .msg_controllen = sizeof said[0].bytes};
    }
    n = recvmmsg(fd, received, RECEIVED, MSG_DONTWAIT, 0);
    path_counters.receive_calls++;
    if (n < 0 && errno != EAGAIN && errno != EINTR) fail("recvmmsg");
    now = now_ns();
    for (int i = 0; i < n; i++) take(&received[i], receiver, now);
    path_flush();
    return n;
}

static void wait_until(uint64_t due_ns) {
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    uint64_t now = now_ns(), left = due_ns > now ? due_ns - now : 0;
    struct timespec timeout = {(time_t)(left / SECOND_NS), (long)(left % SECOND_NS)};
    ppoll(&readable, 1, &timeout, 0);
}

void path_receive(path_receiver *receiver, uint64_t until_ns) {
    int turns = 0;
    if (oldest != newest && delayed[oldest % DELAYED].due_ns < until_ns) until_ns = delayed[oldest % DELAYED].due_ns;
    wait_until(until_ns);
    while (turns++ < BATCHES_A_TURN && take_batch(receiver) == RECEIVED) continue; /* a short batch: all was taken */
    deliver_due(receiver, now_ns());
    path_flush();
}
