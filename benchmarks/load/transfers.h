/* The clients: N state machines that read or write one file again and again, and compare every byte that they read.
 *
 * May know TFTP and path.h; must not know sockets. Nothing here waits: datagrams and time come in, datagrams go out.
 * A client keeps its address and port for all its transfers, as the network sees a machine that boots again and again.
 */
#ifndef LOAD_TRANSFERS_H
#define LOAD_TRANSFERS_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

enum { MAX_NAME = 64, ERROR_TEXT = 80 };

struct load_options {
    const char *name;       /* of the file; a write adds ".K", K from 0 */
    const uint8_t *content; /* what the file holds, or what is written */
    size_t size;            /* bytes of it */
    in_port_t port;         /* where requests go, network byte order */
    int clients;            /* 1..MAX_CLIENTS */
    long transfers;         /* of all clients together */
    unsigned blksize;       /* asked for, 8..65464; 512: no option */
    unsigned windowsize;    /* asked for, 1..65535; 1: no option */
    uint64_t timeout_ns;    /* of silence, after which a client says its last again */
    int tries;              /* so many times in a row */
    int is_upload;
};

struct load_result {
    long started, finished, failed;
    long mismatches; /* blocks that differ from the content, or are no part of it */
    uint64_t blocks, bytes; /* of DATA, accepted or acknowledged: no block counts twice */
    long timeouts, gaps, duplicates, strays;
    unsigned least_blksize, least_windowsize; /* granted to any transfer; 0: none was answered */
    char error[ERROR_TEXT]; /* of the first that failed, printable */
    double *seconds;        /* of each finished transfer */
};

extern struct load_result result;

/* Lets every client ask. `options` has to stay. */
void transfers_begin(const struct load_options *options, uint64_t now_ns);

/* A path_receiver. */
void transfers_receive(int client, in_port_t port, const uint8_t *bytes, size_t size, uint64_t now_ns);

/* Lets those who have heard nothing for too long say their last again, or give up. */
void transfers_look_at_clock(uint64_t now_ns);

int transfers_all_ended(void);

#endif
