/* The surroundings of tests of credentials: see credential_bench.h. */
#include "credential_bench.h"

#include <assert.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buffer.h"

extern char **environ;

static char home[64];
static struct buffer everything;
static char newest_event[1024];
static unsigned events[4];

static void raised(struct event_sink *sink, enum event_level level, const char *subject, const char *text)
{
    said(subject);
    said(text);
    events[level]++;
    snprintf(newest_event, sizeof newest_event, "%s", text);
}

struct event_sink credential_bench_events = { .raise = raised, .least = EVENT_DEBUG };

static void clean_environment(void)
{
    for (char **at = environ; *at != NULL;) {
        char name[64];
        size_t length = strcspn(*at, "=");
        if (strncmp(*at, "AWS_", 4) != 0 || length >= sizeof name) {
            at++;
            continue;
        }
        memcpy(name, *at, length);
        name[length] = '\0';
        unsetenv(name);
        at = environ;
    }
}

void credential_bench_begin(void)
{
    char path[128];
    clean_environment();
    strcpy(home, "/tmp/cairn-credentials-XXXXXX");
    char *made = mkdtemp(home);
    assert(made != NULL);
    snprintf(path, sizeof path, "%s/.aws", home);
    int failed = mkdir(path, 0700);
    assert(failed == 0);
    setenv("HOME", home, 1);
    setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
    newest_event[0] = '\0';
    memset(events, 0, sizeof events);
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    return remove(path);
}

void credential_bench_end(void)
{
    said("");
    if (strstr((const char *)everything.data, MARK) != NULL) {
        fprintf(stderr, "a secret was said:\n%s\n", (const char *)everything.data);
        abort();
    }
    buffer_free(&everything);
    nftw(home, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    clean_environment();
}

const char *credential_bench_home(void)
{
    return home;
}

const char *path_of(const char *name)
{
    static char paths[4][256];
    static unsigned next;
    char *path = paths[next++ % 4];
    bool aws = strcmp(name, "config") == 0 || strcmp(name, "credentials") == 0;
    snprintf(path, sizeof paths[0], "%s/%s%s", home, aws ? ".aws/" : "", name);
    return path;
}

void write_file(const char *name, const char *format, ...)
{
    va_list arguments;
    FILE *file = fopen(path_of(name), "w");
    assert(file != NULL);
    va_start(arguments, format);
    vfprintf(file, format, arguments);
    va_end(arguments);
    int failed = fclose(file);
    assert(failed == 0);
}

void said(const char *text)
{
    buffer_printf(&everything, "%s\n", text);
}

const char *last_event(void)
{
    return newest_event;
}

unsigned count_events(enum event_level least)
{
    unsigned count = 0;
    for (int level = (int)least; level <= EVENT_ERROR; level++)
        count += events[level];
    return count;
}
