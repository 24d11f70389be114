/* The real loop: libuv for descriptors, signals, threads; our own timers and
 * ready queue around it.
 *
 * A turn is one uv_run(): it blocks when nothing is ready, and its callbacks
 * do no more than note things and wake coroutines.  Then the timers that are
 * due fire, and then the coroutines that are ready are entered from here, so
 * none ever runs inside a callback of libuv.
 *
 * Being put to sleep and woken costs more than most requests, above all where
 * an idle processor is halted by a hypervisor.  So when the last waits were
 * short, the loop first looks for events a few times, letting others run in
 * between, and blocks only when none came (wait_awake()).  A client with one
 * request at a time is so answered twice as fast, and the requests of several
 * arrive in larger batches.  The time that this may waste is bounded: a look that
 * was in vain makes the next ones rarer, and a loop whose waits are long does
 * not look at all.
 *
 * All timers stand behind one uv_timer, the alarm.  It is moved only when the
 * first deadline comes nearer than what it is set to; when it goes off early,
 * the turn finds nothing due and sets it again.  libuv counts whole
 * milliseconds, so timers fire up to one late, never early.
 *
 * What can fail: making the loop, for want of descriptors; handing out work,
 * for want of threads, which is as fatal as a small allocation that fails. */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include "base/error.h"
#include "base/memory.h"
#include "rt/coroutine_internal.h"
#include "rt/loop_internal.h"
#include "rt/loop_uv.h"

/* Threads for calls that block and for heavy computing, shared by all loops: enough that a handful of slow
 * system calls do not hold up the rest.  UV_THREADPOOL_SIZE overrides it. */
#define WORKERS "16"

/* Coroutines entered in one turn before events get a look in, so that some that wake each other
 * for ever do not shut out the rest. */
#define TURN_ENTRIES 4096

#define ALARM_OFF UINT64_MAX

/* A wait is short when sleeping through it costs about as much as staying awake: what two wakes, ours and the
 * client's, take on a virtual machine at worst. */
#define SHORT_WAIT_NS (150 * UINT64_C(1000))
/* Looking for events goes on for so long: a client that has its reply, and is awake, sends its next request by then. */
#define AWAKE_NS (50 * UINT64_C(1000))
/* That many short waits in a row, long ones counting for LONG_WAIT_COUNTS, before the next is waited for awake. */
#define SHORT_WAITS_LEAST 4
#define SHORT_WAITS_MOST 8
#define LONG_WAIT_COUNTS 3
/* After a look in vain that many short waits go by before the next look; doubled each time, up to this. */
#define SKIPS_MOST 64
/* Processor pauses between two looks: about a quarter of a microsecond, so that looking does not fill the time with
 * system calls. */
#define LOOK_PAUSES 10

struct post {
    void (*fn)(void *arg);
    void *arg;
};

struct posts {
    struct post *items;
    size_t count, capacity;
};

struct loop_uv {
    struct loop loop;
    uv_loop_t uv;
    uv_timer_t alarm;
    uint64_t alarm_ms; /* in libuv's time, ALARM_OFF when it is not set */
    uint64_t now_ns;   /* 0: to be read afresh */
    uint64_t next_order;
    bool stopping;
    struct list signals;

    /* Whether to wait awake. */
    unsigned short_waits; /* lately, at most SHORT_WAITS_MOST */
    unsigned skips;       /* short waits still to go by */
    unsigned next_skips;  /* after the next look in vain */

    uv_async_t posted;
    pthread_mutex_t posts_lock; /* guards `posts` */
    struct posts posts;
    struct posts running_posts; /* memory swapped with `posts`, used by the loop's thread alone */
};

struct signal_watch {
    uv_signal_t handle;
    struct list link;
    void (*fn)(void *arg, int signal);
    void *arg;
};

struct work {
    uv_work_t request;
    struct coroutine *coroutine;
    void (*fn)(void *arg);
    void *arg;
    bool done;
};

static const struct loop_ops uv_ops;

static struct loop_uv *real(struct loop *loop)
{
    assert(loop->ops == &uv_ops);
    return container_of(loop, struct loop_uv, loop);
}

uv_loop_t *loop_uv_handle(struct loop *loop)
{
    return &real(loop)->uv;
}

/* ---- clocks and randomness ---- */

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec time;
    int result = clock_gettime(clock, &time);
    assert(result == 0);
    (void)result;
    return (uint64_t)time.tv_sec * NS_PER_S + (uint64_t)time.tv_nsec;
}

static uint64_t uv_now_ns(struct loop *loop)
{
    struct loop_uv *self = real(loop);
    if (self->now_ns == 0)
        self->now_ns = clock_ns(CLOCK_MONOTONIC);
    return self->now_ns;
}

static uint64_t uv_boottime_ns(struct loop *loop)
{
    return clock_ns(CLOCK_BOOTTIME);
}

static uint64_t uv_wall_ns(struct loop *loop)
{
    return clock_ns(CLOCK_REALTIME);
}

static void uv_random_bytes(struct loop *loop, void *bytes, size_t length)
{
    for (size_t done = 0; done < length;) {
        ssize_t got = getrandom((char *)bytes + done, length - done, 0);
        assert(got > 0 || errno == EINTR);
        if (got > 0)
            done += (size_t)got;
    }
}

/* ---- work and posts ---- */

static void work_on_thread(uv_work_t *request)
{
    struct work *work = container_of(request, struct work, request);
    work->fn(work->arg);
}

static void work_returned(uv_work_t *request, int status)
{
    struct work *work = container_of(request, struct work, request);
    assert(status == 0);
    work->done = true;
    coroutine_wake(work->coroutine);
}

static void uv_work(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    struct work work = { .coroutine = coroutine_self(), .fn = fn, .arg = arg };
    int result = uv_queue_work(&real(loop)->uv, &work.request, work_on_thread, work_returned);
    assert(result == 0);
    (void)result;
    while (!work.done)
        coroutine_park_shielded();
}

static void uv_post(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    struct loop_uv *self = real(loop);
    pthread_mutex_lock(&self->posts_lock);
    struct posts *posts = &self->posts;
    if (posts->count == posts->capacity) {
        posts->capacity = posts->capacity == 0 ? 16 : posts->capacity * 2;
        posts->items = memory_resize(posts->items, posts->capacity, sizeof *posts->items);
    }
    posts->items[posts->count++] = (struct post){ .fn = fn, .arg = arg };
    bool first = posts->count == 1;
    /* Inside the lock: once it is released the loop may run the post and be freed. */
    if (first)
        uv_async_send(&self->posted);
    pthread_mutex_unlock(&self->posts_lock);
}

static void run_posts(uv_async_t *posted)
{
    struct loop_uv *self = container_of(posted, struct loop_uv, posted);
    pthread_mutex_lock(&self->posts_lock);
    struct posts posts = self->posts;
    self->posts = self->running_posts;
    pthread_mutex_unlock(&self->posts_lock);
    for (size_t i = 0; i < posts.count; i++)
        posts.items[i].fn(posts.items[i].arg);
    posts.count = 0;
    self->running_posts = posts;
}

/* ---- the turn ---- */

/* libuv looks at its timers before it blocks, too; uv_stop() keeps it from blocking after that. */
static void alarm_went_off(uv_timer_t *alarm)
{
    container_of(alarm, struct loop_uv, alarm)->alarm_ms = ALARM_OFF;
    uv_stop(alarm->loop);
}

static void set_alarm(struct loop_uv *self)
{
    const struct timer_entry *first = timers_first(&self->loop.timers);
    if (first == NULL)
        return;
    uint64_t due_ms = first->deadline_ns / NS_PER_MS + (first->deadline_ns % NS_PER_MS != 0);
    if (due_ms >= self->alarm_ms)
        return;
    /* libuv's clock is the same one, in milliseconds, as of when it last looked. */
    uv_update_time(&self->uv);
    uint64_t now_ms = uv_now(&self->uv);
    int result = uv_timer_start(&self->alarm, alarm_went_off, due_ms > now_ms ? due_ms - now_ms : 0, 0);
    assert(result == 0);
    (void)result;
    self->alarm_ms = due_ms;
}

static void fire_due(struct loop_uv *self)
{
    const struct timer_entry *first = timers_first(&self->loop.timers);
    if (first == NULL)
        return;
    uint64_t now_ns = loop_now_ns(&self->loop);
    uint64_t limit = self->next_order; /* what a callback sets is for the next turn */
    for (; first != NULL && first->deadline_ns <= now_ns && first->order < limit;
         first = timers_first(&self->loop.timers))
        timers_fire_first(&self->loop.timers);
}

static bool is_idle(const struct loop_uv *self)
{
    return list_empty(&self->loop.ready) && list_empty(&self->loop.yielded);
}

/* Tells the processor that this is a loop which waits. */
static inline void processor_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Looks for events without blocking; true when a coroutine became ready. */
static bool wait_awake(struct loop_uv *self, uint64_t until_ns)
{
    do {
        sched_yield();
        for (int i = 0; i < LOOK_PAUSES; i++)
            processor_pause();
        uv_run(&self->uv, UV_RUN_NOWAIT);
        if (!is_idle(self))
            return true;
    } while (clock_ns(CLOCK_MONOTONIC) < until_ns);
    return false;
}

/* Nothing is ready: waits until events have come, or looks for them in vain; the next wait then blocks. */
static void wait_idle(struct loop_uv *self)
{
    uint64_t began_ns = clock_ns(CLOCK_MONOTONIC);
    if (self->short_waits >= SHORT_WAITS_LEAST && self->skips == 0) {
        if (wait_awake(self, began_ns + AWAKE_NS))
            self->next_skips /= 2;
        else
            self->skips = self->next_skips = self->next_skips < SKIPS_MOST / 2 ? self->next_skips * 2 + 1 : SKIPS_MOST;
        return; /* in any case: what came may have set a timer, or stopped the loop */
    }
    uv_run(&self->uv, UV_RUN_ONCE);
    if (clock_ns(CLOCK_MONOTONIC) - began_ns < SHORT_WAIT_NS) {
        self->short_waits += self->short_waits < SHORT_WAITS_MOST;
        self->skips -= self->skips > 0;
    } else {
        self->short_waits -= self->short_waits < LONG_WAIT_COUNTS ? self->short_waits : LONG_WAIT_COUNTS;
    }
}

/* A timer that was set to go off at once does not wait for libuv's next millisecond. */
static bool is_due(struct loop_uv *self)
{
    const struct timer_entry *first = timers_first(&self->loop.timers);
    return first != NULL && first->deadline_ns <= loop_now_ns(&self->loop);
}

static void turn(struct loop_uv *self)
{
    bool due = is_due(self);
    if (!due)
        set_alarm(self);
    self->now_ns = 0;
    if (is_idle(self) && !due)
        wait_idle(self);
    else
        uv_run(&self->uv, UV_RUN_NOWAIT);
    fire_due(self);
    loop_end_yield(&self->loop);
    for (int entries = 0; entries < TURN_ENTRIES && !list_empty(&self->loop.ready); entries++)
        loop_enter_one(&self->loop);
}

void loop_run(struct loop *loop)
{
    struct loop_uv *self = real(loop);
    assert(coroutine_self() == NULL);
    loop->thread = pthread_self();
    struct loop *before = loop_set_current(loop);
    self->stopping = false;
    while (!self->stopping || !is_idle(self))
        turn(self);
    loop_set_current(before);
}

void loop_stop(struct loop *loop)
{
    real(loop)->stopping = true;
}

/* The turn looks at both queues itself. */
static void uv_became(struct loop *loop)
{
}

/* ---- signals ---- */

static void signal_came(uv_signal_t *handle, int signal)
{
    struct signal_watch *watch = container_of(handle, struct signal_watch, handle);
    watch->fn(watch->arg, signal);
}

static void signal_closed(uv_handle_t *handle)
{
    free(container_of((uv_signal_t *)handle, struct signal_watch, handle));
}

int loop_on_signal(struct loop *loop, int signal, void (*fn)(void *arg, int signal), void *arg, struct error *error)
{
    struct loop_uv *self = real(loop);
    struct signal_watch *watch = memory_new(sizeof *watch);
    watch->fn = fn;
    watch->arg = arg;
    int result = uv_signal_init(&self->uv, &watch->handle);
    if (result != 0) {
        free(watch);
        return error_set_errno(error, -result, "watch signal %d", signal);
    }
    list_push_back(&self->signals, &watch->link);
    result = uv_signal_start(&watch->handle, signal_came, signal);
    if (result != 0) {
        list_remove(&watch->link);
        uv_close((uv_handle_t *)&watch->handle, signal_closed);
        return error_set_errno(error, -result, "watch signal %d", signal);
    }
    return 0;
}

/* ---- making and freeing ---- */

static void size_workers(void)
{
    setenv("UV_THREADPOOL_SIZE", WORKERS, 0);
}

int loop_uv_new(struct loop **ret_loop, struct error *error)
{
    static pthread_once_t workers_once = PTHREAD_ONCE_INIT;
    pthread_once(&workers_once, size_workers);
    struct loop_uv *self = memory_new(sizeof *self);
    loop_init(&self->loop, &uv_ops, &self->next_order);
    list_init(&self->signals);
    self->alarm_ms = ALARM_OFF;
    pthread_mutex_init(&self->posts_lock, NULL);
    int result = uv_loop_init(&self->uv);
    if (result != 0)
        goto no_loop;
    result = uv_async_init(&self->uv, &self->posted, run_posts);
    if (result != 0)
        goto no_async;
    result = uv_timer_init(&self->uv, &self->alarm);
    assert(result == 0);
    *ret_loop = &self->loop;
    return 0;
no_async:
    uv_loop_close(&self->uv);
no_loop:
    pthread_mutex_destroy(&self->posts_lock);
    loop_fini(&self->loop);
    free(self);
    return error_set_errno(error, -result, "make an event loop");
}

static void uv_free(struct loop *loop)
{
    struct loop_uv *self = real(loop);
    loop_fini(loop);
    /* A poster that found the queue empty may still hold the lock. */
    pthread_mutex_lock(&self->posts_lock);
    pthread_mutex_unlock(&self->posts_lock);
    uv_close((uv_handle_t *)&self->posted, NULL);
    uv_close((uv_handle_t *)&self->alarm, NULL);
    list_for_each_safe (node, &self->signals)
        uv_close((uv_handle_t *)&container_of(node, struct signal_watch, link)->handle, signal_closed);
    while (uv_loop_close(&self->uv) == UV_EBUSY)
        uv_run(&self->uv, UV_RUN_ONCE);
    pthread_mutex_destroy(&self->posts_lock);
    free(self->posts.items);
    free(self->running_posts.items);
    free(self);
}

static const struct loop_ops uv_ops = {
    .now_ns = uv_now_ns,
    .boottime_ns = uv_boottime_ns,
    .wall_ns = uv_wall_ns,
    .random = uv_random_bytes,
    .work = uv_work,
    .post = uv_post,
    .became_ready = uv_became,
    .became_yielded = uv_became,
    .free = uv_free,
};
