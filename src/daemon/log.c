/* One event, one line, one write(2): so lines of several threads do not mix,
 * and nothing is lost in a buffer when the process ends.  What cannot be
 * written is dropped: a log that blocks or fails must not stop the disks.
 *
 * Texts may quote what a client sent.  The libraries quote names themselves;
 * here the last control byte is made harmless, so that no event can forge a
 * line or steer a terminal. */
#include "daemon/log.h"

#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/list.h"
#include "base/memory.h"
#include "base/text.h"

/* A pipe takes this much in one piece (PIPE_BUF); the rest of a longer line is cut. */
#define LOG_LINE_MAX 4096
#define LOG_TEXT_MAX 2048

struct log {
    struct event_sink sink;
    int fd;
    enum log_format format;
    bool journal;
};

static const char *const level_names[] = { "DEBUG", "INFO", "WARNING", "ERROR" };
static const int journal_priorities[] = { 7, 6, 4, 3 }; /* of syslog */

/* systemd says in JOURNAL_STREAM which device and inode its stream has. */
static bool is_journal(int fd)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat status;

    return stream != NULL && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && fstat(fd, &status) == 0 &&
           status.st_dev == device && status.st_ino == inode;
}

static void format_time(const char *pattern, char *ret_text, size_t capacity, bool utc)
{
    struct timespec now;
    struct tm parts;

    clock_gettime(CLOCK_REALTIME, &now);
    if (utc)
        gmtime_r(&now.tv_sec, &parts);
    else
        localtime_r(&now.tv_sec, &parts);
    size_t length = strftime(ret_text, capacity, pattern, &parts);
    snprintf(ret_text + length, capacity - length, ".%03ld%s", now.tv_nsec / 1000000, utc ? "Z" : "");
}

static void put_printable(struct buffer *line, const char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            buffer_printf(line, "\\x%02x", (unsigned char)*text);
        else
            buffer_put_u8(line, (uint8_t)*text);
}

static void format_text(const struct log *log, enum event_level level, const char *subject, const char *text,
                        struct buffer *line)
{
    char moment[64];

    if (log->journal) {
        buffer_printf(line, "<%d>", journal_priorities[level]);
    } else {
        format_time("%Y-%m-%d %H:%M:%S", moment, sizeof moment, false);
        buffer_printf(line, "%s %-7s ", moment, level_names[level]);
    }
    put_printable(line, subject);
    buffer_printf(line, ": ");
    put_printable(line, text);
}

/* JSON knows Unicode only: other bytes are written as \xNN. */
static json_t *json_text(const char *text)
{
    char quoted[LOG_TEXT_MAX];

    if (text_is_utf8(text, strlen(text)))
        return json_string(text);
    text_quote(text, strlen(text), quoted, sizeof quoted);
    return json_string(quoted);
}

static void format_json(enum event_level level, const char *subject, const char *text, struct buffer *line)
{
    char moment[64];

    format_time("%Y-%m-%dT%H:%M:%S", moment, sizeof moment, true);
    json_t *object = json_pack("{s:s, s:s, s:o, s:o}", "time", moment, "level", level_names[level], "subject",
                               json_text(subject), "text", json_text(text));
    char *encoded = json_dumps(object, JSON_COMPACT);
    buffer_put(line, encoded, strlen(encoded));
    free(encoded);
    json_decref(object);
}

static void write_line(struct log *log, enum event_level level, const char *subject, const char *text)
{
    struct buffer line = BUFFER_EMPTY;

    if (log->format == LOG_JSON)
        format_json(level, subject, text, &line);
    else
        format_text(log, level, subject, text, &line);
    if (line.length > LOG_LINE_MAX - 1)
        line.length = LOG_LINE_MAX - 1;
    buffer_put_u8(&line, '\n');
    while (write(log->fd, line.data, line.length) < 0 && errno == EINTR)
        ;
    buffer_free(&line);
}

static void raise_event(struct event_sink *sink, enum event_level level, const char *subject, const char *text)
{
    write_line(container_of(sink, struct log, sink), level, subject, text);
}

struct event_sink *log_new(int fd, enum log_format format, enum event_level least)
{
    struct log *log = memory_new(sizeof *log);

    static_assert(offsetof(struct log, sink) == 0, "log_new's result is freed with free()");
    log->sink.raise = raise_event;
    log->sink.least = least;
    log->fd = fd;
    log->format = format;
    log->journal = is_journal(fd);
    return &log->sink;
}

void log_always(struct event_sink *sink, const char *subject, const char *format, ...)
{
    char text[LOG_TEXT_MAX];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    write_line(container_of(sink, struct log, sink), EVENT_INFO, subject, text);
}
