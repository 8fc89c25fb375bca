/* fuzzer: a crowd of hostile TFTP clients in one process, for tests only.
 *
 * It has SOCKETS sockets on changing loopback addresses, hears what the server answers them, and sends what a client,
 * an attacker or a broken network might: valid and mutated RRQ, WRQ, DATA, ACK, ERROR and OACK. A careful one speaks to
 * the TID that answered it, so that its transfers go on in spite of all; a wild one speaks to the TIDs of others too,
 * and to any, and the server stops answering its address before long.
 *
 * What it sends follows from SEED and from what it hears. It waits where the server's queues fill up, since a
 * datagram that the kernel drops tests nothing; what is dropped all the same the server's sockets know.
 *
 * usage: fuzzer SEED COUNT LONGEST_TIMEOUT_S UPLOADS HOST PORT...
 *   HOST is the server's alone, so that nobody else's datagram gets among those that are counted. The first port is the
 *   request port, the others are TID ports. Names to ask for come on standard input, one a line. Prints "SENT HEARD"
 *   when COUNT datagrams have left.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    SOCKETS = 192, BATCH = 32, PORTS = 256, NAMES = 256, KEPT = 512,
    WILD = 24,              /* one socket in so many */
    LIFE = 300,             /* datagrams, on average, before a socket gets another address and port */
    PATIENCE_US = 1500000,   /* a careful one waits so long for an answer before it asks for something else */
    BYTES = 2048,           /* the longest datagram but for a few */
    HUGE_BYTES = 65000,
    LOOK_EVERY = 1024,      /* datagrams between two looks at the server's queues */
    QUEUED_BYTES = 1 << 19, /* in all queues together; of the 16 MiB each that the server asks for */
    WAITS = 20000           /* of a millisecond: then the server has died, and others say so */
};

struct talk {               /* what a socket knows of its transfer */
    int fd, tid;            /* the server's port, 0: no answer yet */
    unsigned block;         /* of the last DATA or ACK heard */
    unsigned blksize;       /* of the last request */
    int is_wild;
    uint64_t ask_us;        /* when it may ask again */
};

struct datagram { int size; uint8_t bytes[BYTES]; };

static struct talk talks[SOCKETS];
static struct datagram kept[KEPT];
static int kept_count, ports[PORTS], port_count, longest_timeout_s, takes_uploads;
static char names[NAMES][256];
static int name_count;
static uint64_t state, heard;
static struct in_addr host;

static uint32_t any(uint32_t limit) { /* xorshift64*: 0 .. limit - 1 */
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return (uint32_t)((state * 0x2545F4914F6CDD1DULL) >> 33) % limit;
}

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int one_in(uint32_t n) { return any(n) == 0; }

static void fail(const char *what) {
    perror(what);
    exit(1);
}

/* ---- parts of packets */

static void text(struct datagram *d, const char *bytes, size_t size) {
    if (d->size + size > BYTES - 8) return;
    memcpy(d->bytes + d->size, bytes, size);
    d->size += size;
}

static void string(struct datagram *d, const char *s) { text(d, s, strlen(s) + 1); }

static void begin(struct datagram *d, unsigned opcode, unsigned block, int has_block) {
    d->bytes[0] = opcode >> 8, d->bytes[1] = opcode;
    d->bytes[2] = block >> 8, d->bytes[3] = block;
    d->size = has_block ? 4 : 2;
}

static const char *boundary(void) {
    static const char *numbers[] = {
        "0", "1", "2", "7", "8", "9", "511", "512", "513", "1428", "1468", "8192", "32767", "32768", "65463", "65464",
        "65465", "65535", "65536", "65537", "-1", "-0", "+8", "0512", "00000000000000000000512", " 512", "512 ", "5.12",
        "0x200", "1e3", "", "\xff", "4294967295", "4294967296", "9223372036854775807", "9223372036854775808",
        "18446744073709551616", "99999999999999999999999999999999999999", "254", "256", "999999", "10000", "9999"};
    return numbers[any(sizeof numbers / sizeof *numbers)];
}

static unsigned usual_blksize(void) {
    static const unsigned sizes[] = {8, 9, 16, 512, 1024, 1428, 1468, 4096};
    return sizes[any(sizeof sizes / sizeof *sizes)];
}

static void option(struct datagram *d, struct talk *t) {
    static const char *known[] = {"blksize", "windowsize", "tsize", "timeout", "blksize2", "utimeout", "rollover",
                                  "cookie", "multicast", "BLKSIZE", "WindowSize", "x", ""};
    const char *name = known[any(sizeof known / sizeof *known)];
    char value[32];
    string(d, name);
    if (one_in(4)) {
        string(d, boundary());
        return;
    }
    if (!strcasecmp(name, "blksize")) snprintf(value, sizeof value, "%u", t->blksize = usual_blksize());
    else if (!strcasecmp(name, "windowsize")) snprintf(value, sizeof value, "%u", 1 + any(one_in(20) ? 65535 : 32));
    else if (!strcasecmp(name, "timeout")) snprintf(value, sizeof value, "%u", 1 + any(longest_timeout_s));
    else snprintf(value, sizeof value, "%u", any(100000));
    string(d, value);
}

static void request(struct datagram *d, struct talk *t) {
    static const char *modes[] = {"octet", "octet", "octet", "OcTeT", "netascii", "NETASCII", "mail", "", "octe", "octett"};
    char name[300];
    int is_upload = takes_uploads && one_in(4);
    begin(d, is_upload ? 2 : 1, 0, 0);
    if (is_upload && !one_in(8)) snprintf(name, sizeof name, "up/%u", any(24));
    else snprintf(name, sizeof name, "%s", names[any(name_count)]);
    string(d, name);
    t->blksize = 512;
    string(d, modes[any(one_in(3) ? 10 : 3)]);
    for (int left = any(one_in(10) ? 12 : 4); left > 0; left--) option(d, t);
    t->tid = t->block = 0;
}

static void data(struct datagram *d, struct talk *t) {
    static const int around[] = {0, 0, 0, -1, 1, -512, 100};
    unsigned blocks[] = {t->block + 1, t->block + 1, t->block + 1, t->block, t->block + 2, 0, 65535, any(65536)};
    int size = (int)t->blksize + around[any(7)];
    begin(d, 3, blocks[any(8)], 1);
    if (one_in(6)) size = 0;
    if (size < 0) size = 1;
    if (size > BYTES - 8) size = BYTES - 8;
    for (int i = 0; i < size; i++) d->bytes[4 + i] = (uint8_t)(i * 7 + d->bytes[3]);
    d->size = 4 + size;
}

static void ack(struct datagram *d, struct talk *t) {
    unsigned blocks[] = {t->block, t->block, t->block, t->block, t->block - 1, t->block + 1, 0, 65535, 32768, any(65536)};
    begin(d, 4, blocks[any(10)], 1);
}

static void error(struct datagram *d) {
    static const char *said[] = {"", "enough", "%s%n%x", "\x1b[2J\x07", "\xff\xfe\xfd", "line\nline\r"};
    begin(d, 5, one_in(2) ? any(10) : any(65536), 1);
    const char *why = said[any(6)];
    text(d, why, strlen(why) + !one_in(4)); /* the NUL may be missing */
    if (one_in(20)) { memset(d->bytes + d->size, 'e', 1200); d->size += 1200; }
}

static void oack(struct datagram *d, struct talk *t) {
    begin(d, 6, 0, 0);
    for (int left = any(4); left > 0; left--) option(d, t);
}

static void junk(struct datagram *d) {
    d->size = one_in(4) ? (int)any(6) : (int)any(one_in(8) ? BYTES - 8 : 64);
    for (int i = 0; i < d->size; i++) d->bytes[i] = any(256);
    if (one_in(2) && d->size >= 2) d->bytes[0] = 0, d->bytes[1] = any(12);
}

/* ---- what a bad network, or a bad mind, makes of a packet */

static void mutate(struct datagram *d) {
    int at = d->size ? (int)any(d->size) : 0, more;
    switch (any(8)) {
    case 0: if (d->size) d->bytes[at] ^= 1 << any(8); break;
    case 1: if (d->size) d->bytes[at] = any(256); break;
    case 2: d->size = at; break;
    case 3: /* bytes behind it */
        more = 1 + any(40);
        for (int i = 0; i < more && d->size < BYTES - 8; i++) d->bytes[d->size++] = one_in(2) ? 0 : any(256);
        break;
    case 4: if (d->size) d->bytes[at] = 0; break; /* a string ends here */
    case 5: /* ... or does not end */
        for (int i = 2; i < d->size; i++) if (!d->bytes[i] && one_in(2)) d->bytes[i] = 'z';
        break;
    case 6: /* a part again */
        more = d->size - at;
        if (d->size + more <= BYTES - 8) memcpy(d->bytes + d->size, d->bytes + at, more), d->size += more;
        break;
    default: if (d->size >= 2) d->bytes[1] = any(12), d->bytes[0] = one_in(10) ? 1 : 0;
    }
}

/* A server keeps to the `timeout` that was asked for, and whoever looks at its tables afterwards does not want to wait. */
static void keep_timeout_short(struct datagram *d) {
    static const char name[] = "timeout";
    d->bytes[d->size] = d->bytes[d->size + 1] = 0; /* there is room behind the longest */
    for (int at = 2; at + (int)sizeof name < d->size; at++) {
        char *value = (char *)d->bytes + at + sizeof name;
        if (strcasecmp((char *)d->bytes + at, name) || atoi(value) <= longest_timeout_s || atoi(value) > 255) continue;
        *value = 'x';
    }
}

/* ---- one datagram */

static int tid_port(struct talk *t) { /* its own transfer's, another socket's, or any */
    int other = talks[any(SOCKETS)].tid;
    if (t->tid && (!t->is_wild || !one_in(10))) return t->tid;
    if (other && !one_in(4)) return other;
    return ports[any(port_count)];
}

static int is_request(const struct datagram *d) { return d->size >= 2 && !d->bytes[0] && d->bytes[1] <= 2; }

static int compose(struct datagram *d, struct talk *t) { /* returns the port that it is for */
    uint32_t kind = any(100);
    if (!t->tid && (!t->is_wild || one_in(3))) kind = 0;
    if (kind < 5 || (t->is_wild && kind < 14)) request(d, t);
    else if (kind < 56) ack(d, t);
    else if (kind < 76) data(d, t);
    else if (kind < 78) error(d);
    else if (kind < 82) oack(d, t);
    else if (kind < 86) junk(d);
    else if (kept_count) *d = kept[any(kept_count)]; /* a replay */
    else junk(d);
    if (one_in(5)) mutate(d);
    if (one_in(200)) mutate(d), mutate(d), mutate(d);
    keep_timeout_short(d);
    if (one_in(8)) kept[kept_count < KEPT ? kept_count++ : (int)any(KEPT)] = *d;
    if (d->size >= 2 && d->bytes[1] == 5 && !one_in(4)) t->tid = 0; /* as far as it knows that was the end */
    /* Nobody answers what is no request any more. */
    if (is_request(d) || !t->tid) t->ask_us = now_us() + (is_request(d) ? PATIENCE_US : PATIENCE_US / 50);
    if (t->is_wild && one_in(25)) return ports[any(port_count)];
    return is_request(d) || !t->tid ? (t->is_wild && !is_request(d) ? tid_port(t) : ports[0]) : tid_port(t);
}

static int leave(struct talk *t, int count) { /* returns how many left */
    static struct datagram batch[BATCH];
    static struct sockaddr_in to[BATCH];
    struct iovec parts[BATCH];
    struct mmsghdr messages[BATCH] = {0};
    int sent;
    for (int i = 0; i < count; i++) {
        if (i && !t->tid && !t->is_wild) count = i + 1; /* it has just given up: one request more */
        to[i] = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(compose(&batch[i], t))};
        to[i].sin_addr = host;
        parts[i] = (struct iovec){batch[i].bytes, batch[i].size};
        messages[i].msg_hdr = (struct msghdr){.msg_name = &to[i], .msg_namelen = sizeof to[i], .msg_iov = &parts[i], .msg_iovlen = 1};
    }
    sent = sendmmsg(t->fd, messages, count, 0);
    if (sent < 0 && errno != EAGAIN && errno != ECONNREFUSED && errno != ENOBUFS) fail("sendmmsg");
    return sent < 0 ? 0 : sent;
}

static int leave_huge(struct talk *t) { /* a fragmented one, longer than any buffer of a server without uploads */
    static uint8_t bytes[HUGE_BYTES];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(one_in(2) ? ports[0] : tid_port(t))};
    to.sin_addr = host;
    bytes[1] = any(7), bytes[3] = t->block + 1;
    return sendto(t->fd, bytes, 1 + any(HUGE_BYTES - 1), 0, (void *)&to, sizeof to) > 0;
}

static void hear(struct talk *t) {
    static uint8_t bytes[BATCH][64];
    static struct sockaddr_in from[BATCH];
    struct iovec parts[BATCH];
    struct mmsghdr messages[BATCH];
    int n;
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){bytes[i], sizeof bytes[i]};
        messages[i].msg_hdr = (struct msghdr){.msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &parts[i], .msg_iovlen = 1};
    }
    n = recvmmsg(t->fd, messages, BATCH, MSG_DONTWAIT, 0);
    for (int i = 0; i < n; i++) {
        if (from[i].sin_addr.s_addr != host.s_addr) continue; /* meant for who had this port before */
        heard++;
        if (bytes[i][1] == 3 || bytes[i][1] == 4) t->block = bytes[i][2] << 8 | bytes[i][3];
        if (bytes[i][1] == 6) t->block = 0;
        if (bytes[i][1] != 5) t->tid = ntohs(from[i].sin_port);
        else if (!one_in(8)) t->tid = 0, t->ask_us = 0;
    }
}

/* ---- the server's queues */

static uint64_t look(void) { /* returns the bytes that wait in all of them */
    char line[512];
    uint64_t queued = 0;
    FILE *table = fopen("/proc/net/udp", "r");
    if (!table) fail("/proc/net/udp");
    while (fgets(line, sizeof line, table)) {
        unsigned address, waiting;
        if (sscanf(line, " %*u: %x:%*x %*x:%*x %*x %*x:%x", &address, &waiting) != 2 || address != host.s_addr) continue;
        queued += waiting;
    }
    fclose(table);
    return queued;
}

static void wait_for_server(uint64_t below) {
    for (int i = 0; look() > below && i < WAITS; i++) usleep(1000);
}

static void open_talk(struct talk *t) {
    struct sockaddr_in here = {.sin_family = AF_INET};
    int buffer_bytes = 256 << 10;
    *t = (struct talk){.blksize = 512, .is_wild = one_in(WILD)};
    t->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    here.sin_addr.s_addr = htonl(0x7f010000 + any(0x10000)); /* 127.1.0.0/16: anybody's who asks */
    if (t->fd < 0 || bind(t->fd, (void *)&here, sizeof here)) fail("socket");
    setsockopt(t->fd, SOL_SOCKET, SO_RCVBUF, &buffer_bytes, sizeof buffer_bytes);
}

static int speak(struct talk *t) { /* returns how many datagrams left; 0: it waits for an answer */
    int sent;
    hear(t);
    if (!t->is_wild && !t->tid && now_us() < t->ask_us) return 0;
    if (one_in(400)) sent = leave_huge(t);
    else if (!t->tid && !t->is_wild) sent = leave(t, 1 + one_in(8));
    else sent = leave(t, 1 + any(one_in(8) ? BATCH : 4));
    if (one_in(100)) t->tid = 0;          /* it goes silent, and does something else */
    if (one_in(LIFE / 3)) close(t->fd), open_talk(t); /* it vanishes: ICMP answers for it */
    return sent;
}

static void read_arguments(int count, char **arguments) {
    if (count < 7 || count - 6 > PORTS || !inet_aton(arguments[5], &host)) {
        fprintf(stderr, "usage: fuzzer SEED COUNT LONGEST_TIMEOUT_S UPLOADS HOST PORT...\n");
        exit(2);
    }
    state = strtoull(arguments[1], 0, 10) * 2 + 0x9E3779B97F4A7C15ULL;
    longest_timeout_s = atoi(arguments[3]);
    takes_uploads = atoi(arguments[4]);
    for (int i = 6; i < count; i++) ports[port_count++] = atoi(arguments[i]);
    while (name_count < NAMES && fgets(names[name_count], sizeof names[0], stdin)) {
        names[name_count][strcspn(names[name_count], "\n")] = 0;
        name_count++;
    }
}

int main(int count, char **arguments) {
    uint64_t wanted, sent = 0, looked = 0;
    int idle = 0;
    read_arguments(count, arguments);
    wanted = strtoull(arguments[2], 0, 10);
    for (int i = 0; i < SOCKETS; i++) open_talk(&talks[i]);
    while (sent < wanted) {
        int now = speak(&talks[any(SOCKETS)]);
        sent += now;
        idle = now ? 0 : idle + 1;
        if (idle > SOCKETS) idle = 0, usleep(200);
        if (sent - looked >= LOOK_EVERY) looked = sent, wait_for_server(QUEUED_BYTES);
    }
    wait_for_server(0);
    printf("%llu %llu\n", (unsigned long long)sent, (unsigned long long)heard);
    return 0;
}
