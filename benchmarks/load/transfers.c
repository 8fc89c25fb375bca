/* See transfers.h. What both directions share, then the reader, then the writer. */
#define _GNU_SOURCE
#include "transfers.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "path.h"

enum opcode { RRQ = 1, WRQ, DATA, ACK, ERROR, OACK };
enum { LOOKS_A_TIMEOUT = 10, AGAIN_NS = 1000000 /* a window that is reported twice within this is sent once */ };

struct client {
    enum { RESTING, ASKED, RUNNING } state;
    in_port_t tid;               /* the server's, once it has answered */
    in_port_t last_tid;          /* of the transfer before: its last ACK may have been lost */
    uint16_t last_block;         /* of the same */
    int tries;                   /* in a row without an answer */
    int has_reported;            /* reading: this gap has been */
    unsigned blksize, windowsize; /* granted; 512 and 1 until then */
    unsigned in_window;           /* reading: blocks since the last ACK */
    uint64_t block;              /* reading: the last in order; writing: the last acknowledged */
    uint64_t began_ns, heard_ns, window_ns;
    long number;                 /* of the transfer */
};

struct load_result result;

static const struct load_options *load;
static struct client *clients;
static uint64_t looked_ns;
static uint8_t options_part[64]; /* mode and options: the same in every request */
static size_t options_size;

/* ---- both ------------------------------------------------------------------------------------------------------ */

static void add_word(const char *word) {
    size_t size = strlen(word) + 1;
    memcpy(options_part + options_size, word, size);
    options_size += size;
}

static void add_option(const char *name, unsigned value) {
    char text[12];
    snprintf(text, sizeof text, "%u", value);
    add_word(name);
    add_word(text);
}

static uint64_t last_block(const struct client *c) { return load->size / c->blksize + 1; }

static size_t bytes_of(const struct client *c, uint64_t block) {
    uint64_t offset = (block - 1) * c->blksize, left = load->size > offset ? load->size - offset : 0;
    return left < c->blksize ? (size_t)left : c->blksize;
}

static void send_request(int i) {
    uint8_t head[HEAD_BYTES];
    size_t size = 2;
    memcpy(head, load->is_upload ? "\0\2" : "\0\1", 2);
    if (load->is_upload) size += (size_t)sprintf((char *)head + size, "%s.%ld", load->name, clients[i].number) + 1;
    else size += (size_t)sprintf((char *)head + size, "%s", load->name) + 1;
    memcpy(head + size, options_part, options_size);
    path_send(i, load->port, head, size + options_size, 0, 0);
}

static void send_ack(int i, in_port_t tid, uint64_t block) {
    uint8_t head[4] = {0, ACK, (uint8_t)(block >> 8), (uint8_t)block};
    path_send(i, tid, head, sizeof head, 0, 0);
}

static void begin(int i, uint64_t now) {
    struct client *c = &clients[i];
    *c = (struct client){.last_tid = c->tid, .last_block = (uint16_t)c->block, .blksize = 512, .windowsize = 1};
    if (result.started == load->transfers) return; /* it rests */
    c->state = ASKED;
    c->began_ns = c->heard_ns = now;
    c->number = result.started++;
    send_request(i);
}

static void finish(int i, uint64_t now) {
    result.seconds[result.finished++] = (double)(now - clients[i].began_ns) / SECOND_NS;
    begin(i, now);
}

static void give_up(int i, const char *why, size_t size, uint64_t now) {
    if (!result.failed++) {
        if (size >= ERROR_TEXT) size = ERROR_TEXT - 1;
        for (size_t k = 0; k < size && why[k]; k++) {
            int c = (unsigned char)why[k];
            result.error[k] = (char)(c < 128 && isprint(c) && c != '"' && c != '\\' ? c : '?');
        }
    }
    begin(i, now);
}

static void lower(unsigned *least, unsigned value) {
    if (!*least || value < *least) *least = value;
}

/* Takes what the server's first answer grants. Returns 0 where that is nonsense. */
static int take_options(struct client *c, const uint8_t *bytes, size_t size) {
    char text[128];
    const char *name = text, *value;
    if (size >= sizeof text) return 0;
    memcpy(text, bytes, size);
    text[size] = 0;
    for (; name < text + size; name = value + strlen(value) + 1) {
        unsigned long number;
        value = name + strlen(name) + 1;
        if (value >= text + size) return 0;
        number = strtoul(value, 0, 10);
        if (!strcasecmp(name, "blksize") && number >= 8 && number <= load->blksize) c->blksize = (unsigned)number;
        else if (!strcasecmp(name, "windowsize") && number && number <= load->windowsize) c->windowsize = (unsigned)number;
        else return 0; /* more than was asked, or what was not asked */
    }
    return 1;
}

/* The first answer: from now on only this port is the server's. Returns 0 where the transfer has failed. */
static int meet(int i, in_port_t port, const uint8_t *options, size_t size, uint64_t now) {
    struct client *c = &clients[i];
    if (!take_options(c, options, size)) {
        give_up(i, "an OACK that was not asked for", 32, now);
        return 0;
    }
    lower(&result.least_blksize, c->blksize);
    lower(&result.least_windowsize, c->windowsize);
    c->state = RUNNING;
    c->tid = port;
    c->tries = 0;
    c->heard_ns = now;
    return 1;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static void acknowledge(int i) {
    clients[i].in_window = 0;
    send_ack(i, clients[i].tid, clients[i].block);
}

static void on_other_block(int i, uint16_t ahead) {
    struct client *c = &clients[i];
    if (ahead >= 0x8000) { /* seen before */
        result.duplicates++;
        if (ahead == 0xffff) acknowledge(i); /* the very last one: its ACK was lost */
        return;
    }
    result.gaps++;
    if (!c->has_reported) acknowledge(i); /* once a gap (RFC 7440, section 4) */
    c->has_reported = 1;
}

static void on_data(int i, const uint8_t *bytes, size_t size, uint64_t now) {
    struct client *c = &clients[i];
    uint16_t ahead = (uint16_t)((bytes[2] << 8 | bytes[3]) - (c->block + 1));
    size_t wanted = bytes_of(c, c->block + 1), got = size - 4;
    if (ahead) {
        on_other_block(i, ahead);
        return;
    }
    c->block++;
    if (got != wanted || memcmp(load->content + (c->block - 1) * c->blksize, bytes + 4, got)) result.mismatches++;
    result.blocks++;
    result.bytes += got;
    c->heard_ns = now;
    c->tries = c->has_reported = 0;
    if (got < c->blksize) {
        acknowledge(i);
        finish(i, now);
    } else if (c->block == last_block(c)) {
        give_up(i, "more blocks than the file has", 32, now);
    } else if (++c->in_window >= c->windowsize) {
        acknowledge(i);
    }
}

/* The end of the transfer before once more: its ACK was lost. Where that was DATA 1, it cannot be told from the next one's,
 * and the same answer does for both. */
static int is_last_again(const struct client *c, in_port_t port, const uint8_t *bytes) {
    uint16_t block = (uint16_t)(bytes[2] << 8 | bytes[3]);
    return c->state != RUNNING && port == c->last_tid && block == c->last_block && block != 1;
}

static void reader_receives(int i, enum opcode opcode, in_port_t port, const uint8_t *bytes, size_t size, uint64_t now) {
    struct client *c = &clients[i];
    if (opcode == OACK && c->state != RESTING) {
        if (c->state == RUNNING && c->block) result.duplicates++;
        else if (c->state == RUNNING || meet(i, port, bytes + 2, size - 2, now)) acknowledge(i);
    } else if (opcode == DATA && c->state == RUNNING) {
        on_data(i, bytes, size, now);
    } else if (opcode == DATA && is_last_again(c, port, bytes)) {
        result.duplicates++;
        send_ack(i, port, c->last_block);
    } else if (opcode == DATA && c->state == ASKED && bytes[2] == 0 && bytes[3] == 1 && meet(i, port, 0, 0, now)) {
        on_data(i, bytes, size, now);
    }
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

static void send_window(int i, uint64_t now) {
    struct client *c = &clients[i];
    uint64_t end = c->block + c->windowsize;
    if (end > last_block(c)) end = last_block(c);
    for (uint64_t block = c->block + 1; block <= end; block++) {
        uint8_t head[4] = {0, DATA, (uint8_t)(block >> 8), (uint8_t)block};
        path_send(i, c->tid, head, sizeof head, load->content + (block - 1) * c->blksize, bytes_of(c, block));
    }
    c->window_ns = now;
}

static void on_ack(int i, const uint8_t *bytes, uint64_t now) {
    struct client *c = &clients[i];
    uint16_t ahead = (uint16_t)((bytes[2] << 8 | bytes[3]) - c->block);
    if (!ahead && c->windowsize > 1 && now - c->window_ns > AGAIN_NS) {
        result.gaps++;
        send_window(i, now);
        return;
    }
    if (!ahead || ahead > c->windowsize || c->block + ahead > last_block(c)) {
        result.duplicates++;
        return;
    }
    for (uint64_t block = c->block + 1; block <= c->block + ahead; block++) result.bytes += bytes_of(c, block);
    result.blocks += ahead;
    c->block += ahead;
    c->heard_ns = now;
    c->tries = 0;
    if (c->block == last_block(c)) finish(i, now);
    else send_window(i, now);
}

static void writer_receives(int i, enum opcode opcode, in_port_t port, const uint8_t *bytes, size_t size, uint64_t now) {
    struct client *c = &clients[i];
    if (opcode == OACK && c->state == ASKED) {
        if (meet(i, port, bytes + 2, size - 2, now)) send_window(i, now);
    } else if (opcode == OACK && c->state == RUNNING && !c->block) {
        send_window(i, now); /* all of the first window was lost */
    } else if (opcode == ACK && c->state == RUNNING) {
        on_ack(i, bytes, now);
    } else if (opcode == ACK && c->state == ASKED && bytes[2] == 0 && bytes[3] == 0 && meet(i, port, 0, 0, now)) {
        send_window(i, now);
    }
}

/* ---- all ------------------------------------------------------------------------------------------------------- */

void transfers_begin(const struct load_options *options, uint64_t now) {
    load = options;
    clients = calloc((size_t)load->clients, sizeof *clients);
    result.seconds = calloc((size_t)load->transfers, sizeof *result.seconds);
    if (!clients || !result.seconds) {
        perror("calloc");
        exit(2);
    }
    add_word("octet");
    if (load->blksize != 512) add_option("blksize", load->blksize);
    if (load->windowsize != 1) add_option("windowsize", load->windowsize);
    looked_ns = now;
    for (int i = 0; i < load->clients; i++) begin(i, now);
}

void transfers_receive(int i, in_port_t port, const uint8_t *bytes, size_t size, uint64_t now) {
    struct client *c = &clients[i];
    enum opcode opcode;
    if (size < 4 || bytes[0] || (c->state == RUNNING && port != c->tid)) {
        result.strays++;
        return;
    }
    opcode = bytes[1];
    if (opcode == ERROR && c->state != RESTING) give_up(i, (const char *)bytes + 4, size - 4, now);
    else if (load->is_upload) writer_receives(i, opcode, port, bytes, size, now);
    else reader_receives(i, opcode, port, bytes, size, now);
}

static void say_again(int i, uint64_t now) {
    struct client *c = &clients[i];
    result.timeouts++;
    c->heard_ns = now;
    if (++c->tries > load->tries) give_up(i, "no answer", 32, now);
    else if (c->state == ASKED) send_request(i);
    else if (load->is_upload) send_window(i, now);
    else acknowledge(i);
}

void transfers_look_at_clock(uint64_t now) {
    if (now - looked_ns < load->timeout_ns / LOOKS_A_TIMEOUT) return;
    looked_ns = now;
    for (int i = 0; i < load->clients; i++)
        if (clients[i].state != RESTING && now - clients[i].heard_ns > load->timeout_ns) say_again(i, now);
}

int transfers_all_ended(void) { return result.finished + result.failed == load->transfers; }
