/* Stories: set, context in front, cut at the end, copied; events; state machines; memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/event.h"
#include "base/memory.h"
#include "base/state.h"
#include "base/text.h"

static void stories_grow_at_the_front(void **state)
{
    struct error error = ERROR_NONE;
    assert_int_equal(error_set_errno(&error, ENOSPC, "put %s", "v/x"), -ENOSPC);
    assert_int_equal(error.code, ENOSPC);
    assert_string_equal(error.story, "put v/x: No space left on device");
    assert_int_equal(error_context(&error, "commit %d", 17), -ENOSPC);
    assert_string_equal(error.story, "commit 17: put v/x: No space left on device");
    assert_int_equal(error_set(&error, EIO, "after: %s", error.story), -EIO);
    assert_string_equal(error.story, "after: commit 17: put v/x: No space left on device");
    assert_int_equal(error_set_errno(&error, 4000, "odd"), -4000);
    assert_string_equal(error.story, "odd: error 4000");
}

static void nobody_listens(void **state)
{
    assert_int_equal(error_set(NULL, EPERM, "x"), -EPERM);
    assert_int_equal(error_set_errno(NULL, EPERM, "x"), -EPERM);
    assert_int_equal(error_context(NULL, "x"), -EIO);
    assert_int_equal(error_copy(NULL, NULL), -EIO);
    struct error from = { .code = ESTALE, .story = "old" }, to = ERROR_NONE;
    assert_int_equal(error_copy(NULL, &from), -ESTALE);
    assert_int_equal(error_copy(&to, &from), -ESTALE);
    assert_string_equal(to.story, "old");
    assert_int_equal(error_copy(&to, &to), -ESTALE);
}

static void long_stories_lose_their_tail(void **state)
{
    char text[2 * ERROR_STORY_MAX];
    /* Two bytes a character, at both parities: a cut may fall into the middle of one. */
    for (size_t shift = 0; shift < 2; shift++) {
        memset(text, 'x', shift);
        for (size_t i = shift; i + 2 < sizeof text; i += 2)
            memcpy(text + i, "é", 3);
        struct error error = ERROR_NONE;
        error_set(&error, EIO, "%s", text);
        assert_in_range(strlen(error.story), ERROR_STORY_MAX - 2, ERROR_STORY_MAX - 1);
        assert_true(text_is_utf8(error.story, strlen(error.story)));
        error_context(&error, "head");
        assert_memory_equal(error.story, "head: ", 6);
        assert_true(text_is_utf8(error.story, strlen(error.story)));
        error_set_errno(&error, EIO, "%s", text);
        assert_true(text_is_utf8(error.story, strlen(error.story)));
    }
}

static int raised;
static char raised_text[2 * ERROR_STORY_MAX];

static void remember(struct event_sink *sink, enum event_level level, const char *subject, const char *text)
{
    raised++;
    snprintf(raised_text, sizeof raised_text, "%d %s: %s", level, subject, text);
}

static void events_reach_their_sink(void **state)
{
    struct event_sink sink = { .raise = remember, .least = EVENT_INFO };
    event_raise(NULL, EVENT_ERROR, "nobody", "x");
    event_raise(&sink, EVENT_DEBUG, "volume 'db'", "too quiet");
    assert_int_equal(raised, 0);
    event_raise(&sink, EVENT_WARNING, "volume 'db'", "number %d", 7);
    assert_int_equal(raised, 1);
    assert_string_equal(raised_text, "2 volume 'db': number 7");
}

static const char *const names[] = { "idle", "busy", "gone" };
static const uint32_t moves[] = { 1u << 1, 1u << 0 | 1u << 2, 0 };
static const struct state_table table = { .machine = "thing", .names = names, .moves = moves, .count = 3 };

static void allowed_moves(void **state)
{
    int at = 0;
    state_move(&table, &at, 1);
    state_move(&table, &at, 0);
    state_move(&table, &at, 1);
    state_move(&table, &at, 2);
    assert_int_equal(at, 2);
}

static void forbidden_moves_abort(void **state)
{
    pid_t child = fork();
    if (child == 0) {
        struct rlimit no_core = { 0, 0 };
        setrlimit(RLIMIT_CORE, &no_core);
        signal(SIGABRT, SIG_DFL);
        fclose(stderr);
        int at = 2;
        state_move(&table, &at, 0);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

static void memory_is_zeroed_and_copied(void **state)
{
    unsigned char *bytes = memory_new(100);
    for (int i = 0; i < 100; i++)
        assert_int_equal(bytes[i], 0);
    memset(bytes, 7, 100);
    bytes = memory_resize(bytes, 50, 4);
    assert_int_equal(bytes[99], 7);
    unsigned char *copy = memory_copy(bytes, 100);
    assert_memory_equal(copy, bytes, 100);
    char *string = memory_string("cairn");
    assert_string_equal(string, "cairn");
    uint64_t *array = memory_array(3, sizeof *array);
    assert_true(array[2] == 0);
    void *nothing = memory_new(0);
    assert_non_null(nothing);
    free(nothing);
    free(array);
    free(string);
    free(copy);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stories_grow_at_the_front),
        cmocka_unit_test(nobody_listens),
        cmocka_unit_test(long_stories_lose_their_tail),
        cmocka_unit_test(events_reach_their_sink),
        cmocka_unit_test(allowed_moves),
        cmocka_unit_test(forbidden_moves_abort),
        cmocka_unit_test(memory_is_zeroed_and_copied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
