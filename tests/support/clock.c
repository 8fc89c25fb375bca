/* clock: a wall clock that jumps, for a process that is started with LD_PRELOAD.
 *
 * Every look at CLOCK_REALTIME (clock_gettime, gettimeofday, time) finds it elsewhere: ten years on, ten years back, and
 * so on. Whoever decides anything by it decides nonsense. Other clocks are as they are. */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { TEN_YEARS_S = 315360000 };

static time_t jump(time_t now) {
    static atomic_int looks;
    return now + (atomic_fetch_add(&looks, 1) % 2 ? -TEN_YEARS_S : TEN_YEARS_S);
}

static int is_wall(clockid_t clock) { return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && is_wall(clock)) now->tv_sec = jump(now->tv_sec);
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    int failed = syscall(SYS_gettimeofday, now, zone);
    if (!failed) now->tv_sec = jump(now->tv_sec);
    return failed;
}

time_t time(time_t *out) {
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    now.tv_sec = jump(now.tv_sec);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
