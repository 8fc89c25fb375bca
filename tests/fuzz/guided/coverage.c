/* coverage: tells libFuzzer which parts of the engine have run, for `make fuzz` only. Loaded by LD_PRELOAD.
 *
 * gcc calls __sanitizer_cov_trace_pc() at each basic block (-fsanitize-coverage=trace-pc). libFuzzer wants a counter for
 * each edge instead, in arrays that it is told of: here, one array, and a hash of the last block and this one is the
 * place in it. Two edges that share a counter hide each other: of 65,536 places some 12,000 are in use.
 *
 * gcc's ASan runtime has empty functions of the names that atheris calls, and they come first; so this library comes
 * before ASan and hands those calls on to the libFuzzer inside atheris. SNOW_OWL_LIBFUZZER is the path of that.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { PLACES = 1 << 16 };

struct pc { uintptr_t at, flags; };

static uint8_t counters[PLACES];
static struct pc pcs[PLACES]; /* libFuzzer wants one for each counter; ours have no address to show */
static __thread uintptr_t last;

static void *libfuzzer(const char *name) {
    const char *path = getenv("SNOW_OWL_LIBFUZZER");
    void *library = path ? dlopen(path, RTLD_LAZY) : NULL;
    void *found = library ? dlsym(library, name) : NULL;
    if (!found) {
        fprintf(stderr, "coverage: no %s in SNOW_OWL_LIBFUZZER=%s\n", name, path ? path : "");
        abort();
    }
    return found;
}

#define HAND_ON(name, type) \
    void name(type a, type b) { \
        static void (*call)(type, type); \
        if (!call) call = (void (*)(type, type))libfuzzer(#name); \
        call(a, b); \
    }

HAND_ON(__sanitizer_cov_8bit_counters_init, uint8_t *)
HAND_ON(__sanitizer_cov_pcs_init, const uintptr_t *)
HAND_ON(__sanitizer_cov_trace_cmp8, uint64_t)
HAND_ON(__sanitizer_cov_trace_const_cmp8, uint64_t)

/* Once, when atheris is there: from then on what the engine does counts. */
void snow_owl_count_edges(void) {
    for (uintptr_t i = 0; i < PLACES; i++) pcs[i].at = i + 1;
    __sanitizer_cov_8bit_counters_init(counters, counters + PLACES);
    __sanitizer_cov_pcs_init((const uintptr_t *)pcs, (const uintptr_t *)(pcs + PLACES));
}

void __sanitizer_cov_trace_pc(void) {
    uintptr_t here = ((uintptr_t)__builtin_return_address(0) * 0x9E3779B97F4A7C15ULL) >> 40;
    counters[(here ^ last) & (PLACES - 1)]++; /* threads may lose a count to each other, which is only a count */
    last = here >> 1;
}
