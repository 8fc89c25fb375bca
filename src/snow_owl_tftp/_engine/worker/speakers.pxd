# Who speaks: the peer itself, a stranger, or somebody who guesses.
#
# A stranger is told ERROR 5 once; an answer to another TID than that of its unanswered request ends that transfer
# without a word, since its owner would hear it.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t
from snow_owl_tftp._engine.base.addresses cimport Local, Peer
from snow_owl_tftp._engine.base.messages cimport OUT_ABORTED
from snow_owl_tftp._engine.base.peers cimport peer_hash
from snow_owl_tftp._engine.base.transfer cimport T_ACTIVE, T_REQUESTED, Transfer
from snow_owl_tftp._engine.memory.guesses cimport guessed_since
from snow_owl_tftp._engine.memory.slab cimport find_by_request
from snow_owl_tftp._engine.memory.strays cimport (
    OF_ENDED, OF_STRANGER, strays_may_answer, strays_recall, strays_remember)
from snow_owl_tftp._engine.protocol.opcodes cimport OP_ACK, OP_DATA, OP_ERROR, OP_OACK
from snow_owl_tftp._engine.protocol.seq cimport seq_block
from snow_owl_tftp._engine.worker.completions cimport keep_memory
from snow_owl_tftp._engine.worker.control cimport send_error
from snow_owl_tftp._engine.worker.doubt cimport network_entry, note_evidence, note_guess
from snow_owl_tftp._engine.worker.life cimport end, prefer, release, uncount_half_open
from snow_owl_tftp._engine.worker.state cimport Worker


cdef inline void end_guessed(Worker *w, const Peer *peer) noexcept nogil:
    """An answer in a peer's name came to another TID than that of its unanswered request.

    The peer itself would have answered where it was spoken to; so somebody else asked in its name, and guesses.  Its
    transfer ends without a word: if it was the peer after all, it asks again.
    """
    cdef Transfer *t = find_by_request(&w.slab, peer, peer_hash(peer, w.secret))
    if t == NULL:
        return
    if t.state == T_REQUESTED:
        w.counters.wrong_guesses += 1
        note_guess(w, peer)
        w.pending -= 1                           # Python's answer will find nobody
        release(w, t)
    elif t.state == T_ACTIVE and not t.flight.proven:
        w.counters.wrong_guesses += 1
        note_guess(w, peer)
        end(w, t, OUT_ABORTED, 0, b"an answer came to another TID", 29)


cdef inline void reject_stray(Worker *w, int32_t socket, const Peer *peer, const Local *local, uint8_t opcode,
                              uint32_t hash) noexcept nogil:
    """ERROR 5 to a stranger: never to an ERROR, never to an echo, once, and not many a second."""
    cdef uint32_t known = strays_recall(&w.strays, w.now_ns, hash)
    w.counters.strays += 1
    if known == OF_ENDED:
        return
    # An ERROR too: the one that hits ends a transfer whose TID would pass for an echo's from then on.
    if opcode == OP_DATA or opcode == OP_ACK or opcode == OP_ERROR:
        end_guessed(w, peer)
    if (opcode != OP_DATA and opcode != OP_ACK and opcode != OP_OACK) or known == OF_STRANGER:
        return
    if not strays_may_answer(&w.strays, w.now_ns):
        return
    w.counters.strays_answered += 1
    strays_remember(&w.strays, w.now_ns, hash, OF_STRANGER)
    send_error(w, socket, peer, local, 5, b"unknown transfer ID")


cdef inline bint may_be_guessed(Worker *w, Transfer *t, uint16_t block) noexcept nogil:
    """Whether the first answer in a peer's name proves nothing; the transfer has ended then.

    Since it began a TID was guessed wrongly in the name of this address: this may be the next guess.  Or the peer has
    sent another request since, and would not answer this one, but for the ACK of the one block that it got.
    """
    if t.superseded and block != seq_block(t.flight.last, t.flight.rollover):
        end_guessed(w, &t.peer)
    elif not w.guesses.last_ns or guessed_since(&w.guesses, &t.peer, w.now_ns) < t.started_ns:
        return False
    end(w, t, OUT_ABORTED, 0, b"an answer came to another TID", 29)
    return True


cdef inline void on_spoken(Worker *w, Transfer *t, bint is_done) noexcept nogil:
    """The peer has spoken."""
    if t.counted_half_open and t.flight.proven:
        uncount_half_open(w, t)
        if t.tid_bits and w.limits.network_bytes:
            note_evidence(w, network_entry(w, t.hash_network), t.tid_bits)
    if t.rival and t.flight.progress_ns == w.now_ns and not is_done:
        prefer(w, t)                             # else it has the file, and the other request may be its next
    if t.flight.patience.loses and not t.kept:
        keep_memory(w, t)                        # its other transfers need not learn it again
