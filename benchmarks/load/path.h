/* The path between all clients and the server: one UDP socket, datagrams in batches, and what a network does to them.
 *
 * Client i is the loopback address FIRST_CLIENT + i, chosen by IP_PKTINFO at each datagram, so that thousands of them
 * share the system calls and the load stays cheaper than the server. May know sockets; must not know TFTP.
 * What the path loses, it loses on sending and on receipt with the same chance; what it delays, it delays on receipt.
 * Errors that no run can survive end the program with a message and exit status 2.
 */
#ifndef LOAD_PATH_H
#define LOAD_PATH_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MAX_CLIENTS = 16384,
    HEAD_BYTES = 256,     /* what `path_send` copies of a datagram; the payload is not copied */
    MAX_PAYLOAD = 65464,  /* bytes of DATA (RFC 2348) */
    SECOND_NS = 1000000000
};

struct path_options {
    struct sockaddr_in server; /* within 127/8 */
    double loss_percent;       /* 0..50, of the datagrams of each direction */
    uint64_t delay_ns;         /* of the round trip */
    uint64_t seed;             /* of the losses */
};

struct path_counters {
    uint64_t lost;    /* datagrams, by `loss_percent` */
    uint64_t overrun; /* datagrams that found the queue of delayed ones full: the run is void */
    uint64_t send_calls, receive_calls;
};

typedef void path_receiver(int client, in_port_t port, const uint8_t *bytes, size_t size, uint64_t now_ns);

extern struct path_counters path_counters;

uint64_t now_ns(void); /* CLOCK_MONOTONIC */

/* Opens the socket. `clients` is how many addresses are listened to. */
void path_open(const struct path_options *options, int clients);

/* Queues one datagram to the server's `port` (network byte order): a head of at most HEAD_BYTES, which is copied, and a
 * payload that has to stay as it is until `path_flush`. Returns 0 where the path has lost it. */
int path_send(int client, in_port_t port, const void *head, size_t head_bytes, const void *payload, size_t payload_bytes);

void path_flush(void);

/* Waits until something arrives or is due, no longer than until `until_ns`, and hands all of it to `receiver`. */
void path_receive(path_receiver *receiver, uint64_t until_ns);

#endif
