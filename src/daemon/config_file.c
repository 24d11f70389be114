/* The configuration file: INI, read by libinih.
 *
 * The library's callback does not know its line, so the reader that feeds it
 * counts them; and it would quietly cut a line that is too long, so the reader
 * refuses those. */
#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "daemon/config.h"

struct reading {
    FILE *file;
    const char *path;
    unsigned line;
    config_visit *visit;
    void *arg;
    struct error *error;
    int result; /* the first failure */
};

static char *next_line(char *line, int capacity, void *arg)
{
    struct reading *reading = arg;

    if (reading->result < 0 || fgets(line, capacity, reading->file) == NULL)
        return NULL;
    reading->line++;
    size_t length = strlen(line);
    if (length == (size_t)capacity - 1 && line[length - 1] != '\n') {
        reading->result = error_set(reading->error, EINVAL, "%s line %u: longer than %d bytes", reading->path,
                                    reading->line, capacity - 2);
        return NULL;
    }
    return line;
}

static int handle(void *arg, const char *section, const char *name, const char *value)
{
    struct reading *reading = arg;

    if (reading->result < 0)
        return 0;
    if (section[0] != '\0' && strcmp(section, "cairn") != 0)
        reading->result = error_set(reading->error, EINVAL,
                                    "%s line %u: there is no section [%s]: settings stand in [cairn], or before any "
                                    "section",
                                    reading->path, reading->line, section);
    else
        reading->result = reading->visit(reading->arg, name, value, reading->line, reading->error);
    return reading->result == 0;
}

int config_file_read(const char *path, config_visit *visit, void *arg, struct error *error)
{
    struct reading reading = { .path = path, .visit = visit, .arg = arg, .error = error };

    reading.file = fopen(path, "re");
    if (reading.file == NULL)
        return error_set_errno(error, errno, "cannot read %s", path);
    int line = ini_parse_stream(next_line, &reading, handle, &reading);
    int failed = ferror(reading.file) ? errno : 0;
    fclose(reading.file);
    if (reading.result < 0)
        return reading.result;
    if (failed != 0)
        return error_set_errno(error, failed, "cannot read %s", path);
    if (line != 0)
        return error_set(error, EINVAL, "%s line %d: neither a section nor a setting: write name = value", path, line);
    return 0;
}
