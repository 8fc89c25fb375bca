/* classical: a small TFTP read server with the classical layout, for comparison only.
 *
 * One socket per transfer, connected to its client; recvmmsg on the listener alone, as the earlier Rust
 * server had it (`batch`), or recvfrom there (`plain`). One thread, epoll, the file mapped. What it shows:
 * ACKs never reach the listener, so a batched receive on the listener has nothing to batch.
 *
 * It serves the benchmark and nobody else: plain names below ROOT, octet, no options, lock-step, a timer of
 * one second for all transfers. Every request for something else is answered with ERROR 1.
 *
 * LINGER_US is how long it waits before each batched receive, so that more requests gather: what a timeout of recvmmsg
 * is for, without that timeout's own fault (the kernel looks at it only after a datagram: recvmmsg(2), BUGS).
 *
 * usage: classical HOST PORT ROOT batch|plain LINGER_US
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, DATAGRAM_BYTES = 2048, BLOCK_BYTES = 512, EVENTS = 128, REPEAT_MS = 1000, GIVE_UP = 5 };

struct transfer {
    int fd;
    uint8_t *data;       /* the mapped file */
    size_t size;
    uint64_t block;      /* in flight, from 1 */
    uint64_t sent_ms;
    int repeats;
    struct transfer *next, **link;
};

static struct transfer *transfers;
static int listener, epoll, root;
static long linger_us;
static const char no_file[] = "\0\5\0\1no file";

static uint64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void send_block(struct transfer *t) {
    size_t offset = (t->block - 1) * BLOCK_BYTES, left = t->size - offset;
    uint8_t header[4] = {0, 3, t->block >> 8, t->block};
    struct iovec parts[2] = {{header, 4}, {t->data + offset, left < BLOCK_BYTES ? left : BLOCK_BYTES}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    t->sent_ms = now_ms();
    sendmsg(t->fd, &message, 0); /* lost, if the buffer is full: the timer repeats it */
}

static void finish(struct transfer *t) {
    if (t->size) munmap(t->data, t->size);
    close(t->fd); /* leaves epoll */
    *t->link = t->next;
    if (t->next) t->next->link = t->link;
    free(t);
}

static void refuse(const struct sockaddr_in *peer) {
    sendto(listener, no_file, sizeof no_file, 0, (const void *)peer, sizeof *peer);
}

static void begin(const struct sockaddr_in *peer, const struct sockaddr_in *here, int file, size_t size) {
    struct transfer *t = calloc(1, sizeof *t);
    struct sockaddr_in any = *here;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = t};
    if (!t) fail("calloc");
    any.sin_port = 0;
    t->size = size;
    t->block = 1;
    t->data = size ? mmap(0, size, PROT_READ, MAP_SHARED, file, 0) : 0;
    t->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    if (t->data == MAP_FAILED || t->fd < 0 || bind(t->fd, (void *)&any, sizeof any) ||
        connect(t->fd, (const void *)peer, sizeof *peer) || epoll_ctl(epoll, EPOLL_CTL_ADD, t->fd, &event))
        fail("transfer");
    t->next = transfers;
    t->link = &transfers;
    if (transfers) transfers->link = &t->next;
    transfers = t;
    send_block(t);
}

static void on_request(uint8_t *bytes, size_t size, const struct sockaddr_in *peer, const struct sockaddr_in *here) {
    struct stat status;
    int file;
    const char *name = (const char *)bytes + 2;
    if (size < 4 || bytes[1] != 1) return;
    bytes[size - 1] = 0;
    file = strchr(name, '/') ? -1 : openat(root, name, O_RDONLY);
    if (file < 0 || fstat(file, &status) || !S_ISREG(status.st_mode)) refuse(peer);
    else begin(peer, here, file, status.st_size);
    if (file >= 0) close(file);
}

static void on_listener(int is_batch, const struct sockaddr_in *here) {
    static uint8_t buffers[BATCH][DATAGRAM_BYTES];
    static struct sockaddr_in peers[BATCH];
    static struct iovec iov[BATCH];
    static struct mmsghdr messages[BATCH];
    socklen_t length = sizeof peers[0];
    int n;
    for (int i = 0; i < BATCH; i++) {
        iov[i] = (struct iovec){buffers[i], DATAGRAM_BYTES};
        messages[i].msg_hdr = (struct msghdr){.msg_name = &peers[i], .msg_namelen = sizeof peers[i], .msg_iov = &iov[i], .msg_iovlen = 1};
    }
    if (is_batch) {
        if (linger_us) usleep(linger_us);
        n = recvmmsg(listener, messages, BATCH, MSG_DONTWAIT, 0);
    } else {
        ssize_t got = recvfrom(listener, buffers[0], DATAGRAM_BYTES, MSG_DONTWAIT, (void *)&peers[0], &length);
        n = got < 0 ? -1 : 1;
        messages[0].msg_len = got < 0 ? 0 : got;
    }
    for (int i = 0; i < n; i++) on_request(buffers[i], messages[i].msg_len, &peers[i], here);
}

static void on_ack(struct transfer *t) {
    uint8_t ack[DATAGRAM_BYTES];
    ssize_t n = recv(t->fd, ack, sizeof ack, 0);
    if (n < 4 || ack[1] == 5) {
        if (n >= 4) finish(t);
        return;
    }
    if (ack[1] != 4 || (uint16_t)(ack[2] << 8 | ack[3]) != (uint16_t)t->block) return;
    t->repeats = 0;
    if (t->block > t->size / BLOCK_BYTES) {
        finish(t);
        return;
    }
    t->block++;
    send_block(t);
}

static void on_timer(void) {
    uint64_t now = now_ms();
    struct transfer *following;
    for (struct transfer *t = transfers; t; t = following) {
        following = t->next;
        if (now - t->sent_ms < REPEAT_MS) continue;
        if (t->repeats++ == GIVE_UP) finish(t);
        else send_block(t);
    }
}

int main(int count, char **arguments) {
    struct sockaddr_in here = {.sin_family = AF_INET};
    struct epoll_event events[EVENTS], event = {.events = EPOLLIN};
    struct rlimit limit;
    int buffer_bytes = 16 << 20;
    uint64_t looked_ms = now_ms();
    if (count != 6) {
        fprintf(stderr, "usage: classical HOST PORT ROOT batch|plain LINGER_US\n");
        return 2;
    }
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    inet_pton(AF_INET, arguments[1], &here.sin_addr);
    here.sin_port = htons(atoi(arguments[2]));
    root = open(arguments[3], O_RDONLY | O_DIRECTORY);
    linger_us = atol(arguments[5]);
    listener = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_RCVBUFFORCE, &buffer_bytes, sizeof buffer_bytes);
    epoll = epoll_create1(0);
    if (root < 0 || listener < 0 || bind(listener, (void *)&here, sizeof here)) fail("start");
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event); /* its event has no transfer */
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS, REPEAT_MS / 4);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr) on_ack(events[i].data.ptr);
            else on_listener(!strcmp(arguments[4], "batch"), &here);
        }
        if (now_ms() - looked_ms >= REPEAT_MS / 4) {
            looked_ms = now_ms();
            on_timer();
        }
    }
}
