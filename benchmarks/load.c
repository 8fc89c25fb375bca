/* load: many TFTP clients in one thread, for judging servers; prints one JSON object.
 *
 * It shares nothing with the server that it was written beside, so that a fault of the one is no fault of the other.
 * The state machines are in load/transfers.c, sockets, losses and delays in load/path.c. Here: what was asked for, the
 * loop, and what came of it. Everything is bounded: clients, transfers, and the time (--max-s).
 *
 * Exit status 0: every transfer ended well and every byte was right; 1: not so; 2: it could not be done at all.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "load/path.h"
#include "load/transfers.h"

enum { MAX_TRANSFERS = 1000000, LONGEST_WAIT_NS = 20000000 /* so that the clock is looked at */ };

static struct load_options load = {
    .name = "file", .clients = 50, .blksize = 512, .windowsize = 1, .timeout_ns = SECOND_NS, .tries = 8};
static struct path_options path = {.server = {.sin_family = AF_INET}};
static const char *content_path;
static double max_s = 60;

/* ---- what was asked for ---------------------------------------------------------------------------------------- */

static const char usage[] =
    "usage: load --port PORT --file NAME --content PATH [option ...]\n"
    "  --host ADDRESS     of the server, within 127.0.0.0/8; default 127.0.0.1\n"
    "  --upload           write the content as NAME.0, NAME.1 ... instead of reading NAME and comparing\n"
    "  --clients N        1..16384; default 50\n"
    "  --transfers N      of all clients together, 1..1000000; default: one each\n"
    "  --blksize N        8..65464; 512 asks for nothing\n"
    "  --windowsize N     1..65535; 1 asks for nothing\n"
    "  --timeout-s S      0.01..255: of silence, then the last packet again; default 1\n"
    "  --tries N          1..100 times in a row; default 8\n"
    "  --max-s S          0.1..600 for all; default 60\n"
    "  --loss-percent P   0..50 of the datagrams of each direction\n"
    "  --delay-ms MS      0..10000, of the round trip\n"
    "  --seed N           of the losses\n";

static _Noreturn void refuse(const char *what) {
    fprintf(stderr, "load: %s\n%s", what, usage);
    exit(2);
}

static double number(const char *text, double least, double most) {
    char *end;
    double value = strtod(text, &end);
    if (*end || end == text || !(value >= least && value <= most)) refuse(text);
    return value;
}

static void set_host(const char *text) {
    if (inet_pton(AF_INET, text, &path.server.sin_addr) != 1) refuse(text);
    if (ntohl(path.server.sin_addr.s_addr) >> 24 != 127) refuse("only servers within 127.0.0.0/8 are loaded");
}

static void set_name(const char *text) {
    if (!*text || strlen(text) > MAX_NAME) refuse("the name must have 1..64 bytes");
    load.name = text;
}

static void read_options(int argc, char **argv) {
    static const struct option known[] = {
        {"host", 1, 0, 'h'},       {"port", 1, 0, 'p'},      {"file", 1, 0, 'f'},      {"content", 1, 0, 'l'},
        {"upload", 0, 0, 'u'},     {"clients", 1, 0, 'n'},   {"transfers", 1, 0, 'm'}, {"blksize", 1, 0, 'b'},
        {"windowsize", 1, 0, 'w'}, {"timeout-s", 1, 0, 't'}, {"tries", 1, 0, 'g'},     {"max-s", 1, 0, 'd'},
        {"loss-percent", 1, 0, 'L'}, {"delay-ms", 1, 0, 'D'}, {"seed", 1, 0, 'S'},     {0, 0, 0, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "", known, 0)) != -1) switch (option) {
        case 'h': set_host(optarg); break;
        case 'p': load.port = htons((uint16_t)number(optarg, 1, 65535)); break;
        case 'f': set_name(optarg); break;
        case 'l': content_path = optarg; break;
        case 'u': load.is_upload = 1; break;
        case 'n': load.clients = (int)number(optarg, 1, MAX_CLIENTS); break;
        case 'm': load.transfers = (long)number(optarg, 1, MAX_TRANSFERS); break;
        case 'b': load.blksize = (unsigned)number(optarg, 8, MAX_PAYLOAD); break;
        case 'w': load.windowsize = (unsigned)number(optarg, 1, 65535); break;
        case 't': load.timeout_ns = (uint64_t)(number(optarg, 0.01, 255) * SECOND_NS); break;
        case 'g': load.tries = (int)number(optarg, 1, 100); break;
        case 'd': max_s = number(optarg, 0.1, 600); break;
        case 'L': path.loss_percent = number(optarg, 0, 50); break;
        case 'D': path.delay_ns = (uint64_t)(number(optarg, 0, 10000) * 1e6); break;
        case 'S': path.seed = (uint64_t)number(optarg, 0, 1e15); break;
        default: refuse("unknown option");
        }
    if (!load.port || !content_path || optind < argc) refuse("--port and --content are needed, and nothing else");
    if (!load.transfers) load.transfers = load.clients;
    path.server.sin_port = load.port;
}

static void map_content(void) {
    int fd = open(content_path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    void *bytes;
    if (fd < 0 || fstat(fd, &status)) {
        perror("load: content");
        exit(2);
    }
    load.size = (size_t)status.st_size;
    bytes = mmap(0, load.size ? load.size : 1, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (bytes == MAP_FAILED) {
        perror("load: content");
        exit(2);
    }
    load.content = bytes;
    close(fd);
}

/* ---- what came of it ------------------------------------------------------------------------------------------- */

static int in_order(const void *one, const void *other) {
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static double cpu_s(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void print_quantile(const char *name, double share) {
    long n = result.finished;
    if (n) printf("\"%s\": %.6f, ", name, result.seconds[(long)((double)(n - 1) * share)]);
    else printf("\"%s\": null, ", name);
}

static void print_result(double wall_s) {
    qsort(result.seconds, (size_t)result.finished, sizeof *result.seconds, in_order);
    printf("{\"clients\": %d, \"transfers\": %ld, \"finished\": %ld, \"failed\": %ld, \"unfinished\": %ld, ", load.clients,
           load.transfers, result.finished, result.failed, load.transfers - result.finished - result.failed);
    printf("\"mismatches\": %ld, \"blocks\": %llu, \"bytes\": %llu, \"wall_s\": %.6f, ", result.mismatches,
           (unsigned long long)result.blocks, (unsigned long long)result.bytes, wall_s);
    print_quantile("p50_s", 0.5);
    print_quantile("p99_s", 0.99);
    print_quantile("max_s", 1);
    printf("\"blksize\": %u, \"windowsize\": %u, ", result.least_blksize, result.least_windowsize);
    printf("\"timeouts\": %ld, \"gaps\": %ld, \"duplicates\": %ld, \"strays\": %ld, ", result.timeouts, result.gaps,
           result.duplicates, result.strays);
    printf("\"lost\": %llu, \"overrun\": %llu, ", (unsigned long long)path_counters.lost,
           (unsigned long long)path_counters.overrun);
    printf("\"load_cpu_s\": %.6f, \"load_send_calls\": %llu, \"load_receive_calls\": %llu, ", cpu_s(),
           (unsigned long long)path_counters.send_calls, (unsigned long long)path_counters.receive_calls);
    printf("\"error\": \"%s\"}\n", result.error);
}

int main(int argc, char **argv) {
    uint64_t began, end;
    set_host("127.0.0.1");
    read_options(argc, argv);
    map_content();
    path_open(&path, load.clients);
    began = now_ns();
    end = began + (uint64_t)(max_s * SECOND_NS);
    transfers_begin(&load, began);
    path_flush();
    while (!transfers_all_ended() && now_ns() < end) {
        path_receive(transfers_receive, now_ns() + LONGEST_WAIT_NS);
        transfers_look_at_clock(now_ns());
        path_flush();
    }
    print_result((double)(now_ns() - began) / SECOND_NS);
    return transfers_all_ended() && !result.failed && !result.mismatches && !path_counters.overrun ? 0 : 1;
}
