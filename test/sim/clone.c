/* See clone.h.
 *
 * Why this is as good as two machines: what two processes have in common is the
 * store, the time, and who checks their answers.  All three stay in the original:
 * a request to the store is put to it at the moment at which it takes effect, and
 * it answers before anything else happens there.  Neither side ever runs ahead of
 * the other: before the clone moves its clock it asks, and is answered when the
 * original has come to that time.  So a run with a clone is one sequence of events
 * like any other, and the same seed gives the same one.
 *
 * In the clone,
 *   - the cloned server goes on from where it was: what it had received, what was
 *     dirty, what was on its way to the store, the numbers that it will draw;
 *   - it may have stood still in between, as a snapshot does that is restored
 *     later: its boot-time clock knows nothing of that;
 *   - its connections are dead, and new clients come;
 *   - it draws the same random numbers as the original, until it looks at the
 *     register of a volume that it does not own: two copies that take one epoch
 *     under one nonce are more than the checkers can tell apart;
 *   - all else of the simulated world stands still for ever.  Requests of other
 *     servers that are on their way take effect in the original alone.
 *
 * The clone ends when its time is over, when the original says so by closing the
 * line, or with it. */
#include "clone.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/memory.h"
#include "line.h"
#include "rt/task.h"

#define HANG_SECONDS 60
#define CLONE_CLIENTS_MAX 4
#define FIRST_NUMBER 50 /* of its clients, for the trace */

struct clone {
    struct sim *sim;
    struct node *node;
    struct store *store; /* as the clone sees it */
    int socket;
    pid_t pid;
    bool over;
};

/* ---- in the original: what the clone asks ---- */

static void answer_get(struct clone *clone, struct message *message)
{
    struct error error = ERROR_NONE;
    size_t wanted = (size_t)message->numbers[1];
    uint8_t *bytes = memory_resize(NULL, wanted + 1, 1);
    struct iovec piece = { .iov_base = bytes, .iov_len = wanted };
    const struct store_get get = { .key = message->text, .offset = message->numbers[0], .pieces = &piece, .count = 1 };
    struct store_got got = { .length = 0 };
    int code = store_get(clone->store, &get, &got, &error);
    struct message answer = { .code = code, .numbers = { got.length, got.size }, .length = got.length, .bytes = bytes };
    memcpy(answer.etag, got.etag, sizeof answer.etag);
    snprintf(answer.text, sizeof answer.text, "%s", error.story);
    free(message->bytes);
    *message = answer;
}

static void answer_put(struct clone *clone, struct message *message)
{
    struct error error = ERROR_NONE;
    struct iovec piece = { .iov_base = message->bytes, .iov_len = message->length };
    const struct store_put put = { .key = message->text,
                                   .pieces = &piece,
                                   .count = 1,
                                   .condition = (enum store_condition)message->numbers[0],
                                   .etag = message->numbers[0] == STORE_MATCHES ? message->etag : NULL };
    struct message answer = { .bytes = message->bytes };
    answer.code = store_put(clone->store, &put, answer.etag, &error);
    snprintf(answer.text, sizeof answer.text, "%s", error.story);
    *message = answer;
}

/* Entries as "size key", each with its NUL. */
static void answer_list(struct clone *clone, struct message *message)
{
    struct error error = ERROR_NONE;
    struct store_listing listing = { .count = 0 };
    struct buffer lines = BUFFER_EMPTY;
    message->bytes[message->length] = '\0';
    int code = store_list(clone->store, message->text, (const char *)message->bytes, (size_t)message->numbers[0],
                          &listing, &error);
    struct message answer = { .code = code, .numbers = { listing.count, listing.more } };
    snprintf(answer.text, sizeof answer.text, "%s", error.story);
    for (size_t i = 0; i < listing.count; i++) {
        char line[STORE_KEY_MAX + 32];
        int length = snprintf(line, sizeof line, "%" PRIu64 " %s", listing.entries[i].size, listing.entries[i].key);
        buffer_put(&lines, line, (size_t)length + 1);
    }
    answer.length = lines.length;
    answer.bytes = memory_copy(lines.data, lines.length);
    buffer_free(&lines);
    store_listing_free(&listing);
    free(message->bytes);
    *message = answer;
}

static void *pointer(uint64_t name)
{
    return (void *)(uintptr_t)name;
}

static void answer_begin(struct message *message)
{
    struct checker_era *era = pointer(message->numbers[0]);
    struct checker_op *op;
    uint64_t offset = message->numbers[1], length = message->numbers[2];
    uint8_t *payload = NULL;
    if (message->kind == LINE_READ_BEGIN) {
        op = checker_read_begin(era, offset, length);
    } else if (message->kind == LINE_FLUSH_BEGIN) {
        op = checker_flush_begin(era);
    } else {
        op = checker_write_begin(era, offset, length, (enum checker_content)message->numbers[3],
                                 message->numbers[4] != 0);
        if (message->code != 0) {
            payload = memory_resize(NULL, length + 1, 1);
            checker_fill(op, payload);
        }
    }
    free(message->bytes);
    *message = (struct message){ .numbers = { (uint64_t)(uintptr_t)op },
                                 .length = payload != NULL ? length : 0,
                                 .bytes = payload };
}

/* What has no answer but whether it is fine. */
static void answer_checker(struct clone *clone, struct message *message)
{
    struct sim *sim = clone->sim;
    void *what = pointer(message->numbers[0]);
    bool fine = true;
    char story[CHECKER_STORY_MAX] = "";
    switch (message->kind) {
    case LINE_ERA_RELEASED:
        fine = checker_era_released(sim->disks[message->numbers[0]].checker, message->numbers[1], true, story);
        break;
    case LINE_ERA_ENDED:
        checker_era_ended(what);
        break;
    case LINE_ERA_LOST_ARE_OVER:
        checker_era_lost_are_over(what);
        break;
    case LINE_WRITE_END:
        fine = checker_write_end(what, story);
        break;
    case LINE_READ_END:
        fine = checker_read_end(what, message->bytes, story);
        break;
    case LINE_FLUSH_END:
        fine = checker_flush_end(what, story);
        break;
    case LINE_OP_FAILED:
        checker_op_failed(what);
        break;
    case LINE_OP_LOST:
        checker_op_lost(what);
        break;
    case LINE_FAIL:
        sim_fail(sim, "in the clone of %s: %s", clone->node->name, message->text);
        break;
    case LINE_LOST:
        tenure_lost(&sim->disks[message->numbers[0]], message->numbers[1], UNIVERSE_CLONE, world_now_ns(sim->world));
        break;
    case LINE_SENDS:
        tenure_sends(sim, clone->node, UNIVERSE_CLONE, message->text, message->bytes, message->length);
        break;
    case LINE_ANSWERED:
        tenure_answered(sim, &sim->disks[message->numbers[0]], clone->node, message->numbers[1], UNIVERSE_CLONE,
                        message->numbers[2], message->numbers[3]);
        break;
    default:
        assert(!"a message that nobody sends");
    }
    message->code = fine ? 0 : -EIO;
    memcpy(message->text, story, sizeof story);
    message->length = 0;
}

static void answer_era(struct clone *clone, struct message *message)
{
    struct checker *checker = clone->sim->disks[message->numbers[0]].checker;
    message->numbers[0] = (uint64_t)(uintptr_t)checker_era_of_fork(checker, message->numbers[1]);
    message->length = 0;
}

static void answer(struct clone *clone, struct message *message)
{
    if (message->kind == LINE_GET)
        answer_get(clone, message);
    else if (message->kind == LINE_PUT)
        answer_put(clone, message);
    else if (message->kind == LINE_LIST)
        answer_list(clone, message);
    else if (message->kind == LINE_ERA)
        answer_era(clone, message);
    else if (message->kind == LINE_WRITE_BEGIN || message->kind == LINE_READ_BEGIN || message->kind == LINE_FLUSH_BEGIN)
        answer_begin(message);
    else
        answer_checker(clone, message);
    message->date_ms = store_date_ms(clone->store);
}

static void end(struct clone *clone)
{
    int status;
    clone->over = true;
    close(clone->socket);
    waitpid(clone->pid, &status, 0);
    sim_trace(clone->sim, "the clone of %s is gone", clone->node->name);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        sim_fail(clone->sim, "the clone of %s died: %s", clone->node->name,
                 WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "it aborted");
}

static void go_on(void *clone);

/* Serves the clone until it wants to move its clock. */
static void serve(struct clone *clone)
{
    struct message message;
    while (line_receive(clone->socket, &message)) {
        if (message.kind == LINE_NEXT || message.kind == LINE_BYE) {
            uint64_t now_ns = world_now_ns(clone->sim->world), next_ns = message.numbers[0];
            free(message.bytes);
            if (message.kind == LINE_BYE)
                break;
            assert(next_ns >= now_ns);
            world_after(clone->sim->world, next_ns - now_ns, go_on, clone);
            return;
        }
        answer(clone, &message);
        bool sent = line_send(clone->socket, &message);
        free(message.bytes);
        if (!sent)
            break;
    }
    end(clone);
}

static void go_on(void *arg)
{
    struct clone *clone = arg;
    const struct message go = { .kind = LINE_NEXT };
    if (!clone->over && line_send(clone->socket, &go))
        serve(clone);
    else if (!clone->over)
        end(clone);
}

void clone_end(struct sim *sim)
{
    if (sim->clone == NULL || sim->clone->over)
        return;
    /* It waits for leave to go on, and takes the end of the line for its own. */
    end(sim->clone);
}

/* ---- in the clone ---- */

static void ask_to_go_on(void *arg, uint64_t next_ns)
{
    struct sim *sim = arg;
    struct message message = { .kind = LINE_NEXT, .numbers = { next_ns } };
    line_ask(sim->remote, &message);
    free(message.bytes);
}

void clone_fails(struct sim *sim, const char *story)
{
    struct message message = { .kind = LINE_FAIL };
    snprintf(message.text, sizeof message.text, "%s", story);
    line_ask(sim->remote, &message);
    _exit(0);
}

void clone_answered(struct sim *sim, const struct disk *disk, uint64_t epoch, uint64_t sent_ns)
{
    struct message message = {
        .kind = LINE_ANSWERED,
        .numbers = { (uint64_t)(disk - sim->disks), epoch, sim->hosts[sim->cloned->setup.host].lied_ns, sent_ns },
    };
    line_ask(sim->remote, &message);
    free(message.bytes);
}

void clone_lost(struct sim *sim, const struct disk *disk, uint64_t epoch)
{
    struct message message = { .kind = LINE_LOST, .numbers = { (uint64_t)(disk - sim->disks), epoch } };
    line_ask(sim->remote, &message);
    free(message.bytes);
}

void clone_sends(struct sim *sim, const char *key, const uint8_t *bytes, size_t length)
{
    struct message message = { .kind = LINE_SENDS, .length = length, .bytes = (uint8_t *)bytes };
    snprintf(message.text, sizeof message.text, "%s", key);
    line_ask(sim->remote, &message);
    free(message.bytes);
}

struct life {
    struct sim *sim;
    struct clone_plan plan;
    struct group group;
    uint64_t open; /* bit i: disk i is */
};

/* What the clone does until its end. */
static void live(void *arg)
{
    const struct life *life = arg;
    struct sim *sim = life->sim;
    const struct clone_plan *plan = &life->plan;
    int host = sim->cloned->setup.host;
    if (plan->snapshot_ns > 0) {
        host_stop(sim, host, true);
        sleep_ns(plan->snapshot_ns);
        host_wake(sim, host, plan->set_right);
    }
    for (int i = 0; i < sim->disk_count * plan->clients; i++)
        if ((life->open >> (i % sim->disk_count) & 1) != 0)
            client_start(sim, &sim->disks[i % sim->disk_count], FIRST_NUMBER + i, &plan->profile);
    sleep_ns(plan->life_ns);
    const struct message bye = { .kind = LINE_BYE };
    line_send(sim->remote, &bye);
    _exit(0);
}

CO static void become_clone(struct sim *sim, struct node *node, const struct clone_plan *plan, int socket)
{
    static struct life life;
    node->cloned_ns = world_now_ns(sim->world);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setitimer(ITIMER_PROF, &(struct itimerval){ .it_value = { .tv_sec = HANG_SECONDS } }, NULL);
    sim->remote = socket;
    sim->cloned = node;
    sim->crash_at = 0;
    sim_trace(sim, "this is the clone of %s", node->name);
    life = (struct life){ .sim = sim, .plan = *plan };
    list_for_each (link, &sim->nodes) {
        struct node *other = container_of(link, struct node, link);
        other->elsewhere = other != node;
        if (other != node && other->loop != NULL)
            loop_sim_pause(other->loop);
    }
    for (int i = 0; i < sim->disk_count; i++) {
        struct disk *disk = &sim->disks[i];
        life.open |= (uint64_t)(node_epoch(node, disk->name) != 0) << i;
        disk->home = node;
        disk->refused_ns = disk->healed_ns = 0;
    }
    struct loop *old = sim->outside;
    sim->outside = loop_sim_new(sim->world, "clients");
    loop_sim_reseed(sim->outside);
    loop_sim_pause(old);
    world_set_gate(sim->world, ask_to_go_on, sim);
    group_init(&life.group, sim->outside);
    group_spawn(&life.group, "clone", live, &life);
    for (;;)
        coroutine_park_shielded(); /* whoever directed the run does so in the original */
}

/* ---- cloning ---- */

CO void clone_make(struct sim *sim, struct node *node, const struct clone_plan *plan)
{
    int sockets[2];
    assert(sim->clone == NULL && sim->remote < 0 && node->state == NODE_UP);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) < 0)
        return;
    fflush(stdout);
    fflush(stderr);
    pid_t pid = fork();
    if (pid == 0) {
        close(sockets[0]);
        become_clone(sim, node, plan, sockets[1]);
    }
    close(sockets[1]);
    if (pid < 0) {
        close(sockets[0]);
        return;
    }
    struct clone *clone = memory_new(sizeof *clone);
    *clone = (struct clone){ .sim = sim, .node = node, .socket = sockets[0], .pid = pid };
    clone->store = tenure_watch(sim, node, UNIVERSE_CLONE, store_mem_open(sim->mem));
    sim->clone = clone;
    sim->counts.clones++;
    node->cloned_ns = world_now_ns(sim->world);
    for (int i = 0; i < sim->disk_count; i++)
        node->sent[i][UNIVERSE_CLONE] = node->sent[i][UNIVERSE_ORIGINAL];
    sim_trace(sim, "%s is cloned; the copy goes on %" PRIu64 " ms later", node->name, plan->snapshot_ns / NS_PER_MS);
    for (int i = 0; i < sim->disk_count; i++) {
        uint64_t epoch = node_epoch(node, sim->disks[i].name);
        if (epoch != 0)
            checker_fork(sim->disks[i].checker, epoch);
    }
    serve(clone);
}

void clone_free(struct sim *sim)
{
    if (sim->clone == NULL)
        return;
    assert(sim->clone->over);
    store_close(sim->clone->store);
    free(sim->clone);
}

/* ---- the store, in the clone ---- */

static int told(const struct message *message, struct error *error)
{
    return message->code < 0 ? error_set(error, -message->code, "%s", message->text) : message->code;
}

struct remote {
    struct store store;
    struct sim *sim;
};

static struct sim *sim_of(struct store *store)
{
    return container_of(store, struct remote, store)->sim;
}

static void ask_store(struct store *store, struct message *message)
{
    line_ask(sim_of(store)->remote, message);
    sim_of(store)->remote_date_ms = message->date_ms;
}

static int remote_get(struct store *store, const struct store_get *get, struct store_got *ret_got, struct error *error)
{
    struct message message = { .kind = LINE_GET, .numbers = { get->offset } };
    snprintf(message.text, sizeof message.text, "%s", get->key);
    for (int i = 0; i < get->count; i++)
        message.numbers[1] += get->pieces[i].iov_len;
    ask_store(store, &message);
    size_t at = 0;
    for (int i = 0; i < get->count && at < message.length; i++) {
        size_t left = message.length - at, part = get->pieces[i].iov_len < left ? get->pieces[i].iov_len : left;
        memcpy(get->pieces[i].iov_base, message.bytes + at, part);
        at += part;
    }
    free(message.bytes);
    if (message.code < 0)
        return told(&message, error);
    *ret_got = (struct store_got){ .length = message.numbers[0], .size = message.numbers[1] };
    memcpy(ret_got->etag, message.etag, sizeof ret_got->etag);
    return 0;
}

static int remote_put(struct store *store, const struct store_put *put, char ret_etag[STORE_ETAG_MAX],
                      struct error *error)
{
    struct buffer body = BUFFER_EMPTY;
    for (int i = 0; i < put->count; i++)
        buffer_put(&body, put->pieces[i].iov_base, put->pieces[i].iov_len);
    struct message message = {
        .kind = LINE_PUT, .numbers = { (uint64_t)put->condition }, .length = body.length, .bytes = body.data
    };
    snprintf(message.text, sizeof message.text, "%s", put->key);
    if (put->condition == STORE_MATCHES)
        snprintf(message.etag, sizeof message.etag, "%s", put->etag);
    ask_store(store, &message);
    buffer_free(&body);
    free(message.bytes);
    if (message.code == 0 && ret_etag != NULL)
        memcpy(ret_etag, message.etag, STORE_ETAG_MAX);
    return told(&message, error);
}

static int remote_delete(struct store *store, const char *key, struct error *error)
{
    assert(!"servers delete nothing");
    return error_set_errno(error, ENOSYS, "delete %s", key);
}

static int remote_list(struct store *store, const char *prefix, const char *after, size_t limit,
                       struct store_listing *ret_listing, struct error *error)
{
    struct message message = { .kind = LINE_LIST, .numbers = { limit } };
    message.bytes = (uint8_t *)after;
    message.length = strlen(after);
    snprintf(message.text, sizeof message.text, "%s", prefix);
    ask_store(store, &message);
    if (message.code == 0) {
        struct store_listing listing = { .count = message.numbers[0], .more = message.numbers[1] != 0 };
        listing.entries = memory_array(listing.count + 1, sizeof *listing.entries);
        const char *at = (const char *)message.bytes;
        for (size_t i = 0; i < listing.count; i++, at += strlen(at) + 1) {
            char *key;
            uint64_t size = strtoull(at, &key, 10);
            listing.entries[i] = (struct store_entry){ .key = memory_string(key + 1), .size = size };
        }
        *ret_listing = listing;
    }
    free(message.bytes);
    return told(&message, error);
}

static uint64_t remote_date_ms(struct store *store)
{
    return sim_of(store)->remote_date_ms;
}

static void remote_describe(struct store *store, char *ret_text, size_t capacity)
{
    snprintf(ret_text, capacity, "the original's memory");
}

static void remote_close(struct store *store)
{
    free(container_of(store, struct remote, store));
}

static const struct store_ops remote_ops = {
    .name = "remote",
    .get = remote_get,
    .put = remote_put,
    .delete = remote_delete,
    .list = remote_list,
    .date_ms = remote_date_ms,
    .describe = remote_describe,
    .close = remote_close,
};

struct store *clone_store(struct sim *sim)
{
    struct remote *remote = memory_new(sizeof *remote);
    *remote = (struct remote){ .store.ops = &remote_ops, .sim = sim };
    return &remote->store;
}
