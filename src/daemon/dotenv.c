/* The .env file: variables for one directory, in the form that shells, docker
 * and the like read.
 *
 *     # a comment
 *     NBD_PORT=10810
 *     export NBD_STORE="dir:/srv/disks"   # another
 *     NBD_UNIX='/tmp/a b'
 *
 * The file often serves several programs, so that variables of others are none
 * of our business (the caller passes over them); a line that is no assignment
 * is an error all the same, since it is more often a slip than meant. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "daemon/config.h"

static const char *skip_blanks(const char *at)
{
    while (*at == ' ' || *at == '\t')
        at++;
    return at;
}

static bool is_end(const char *at)
{
    at = skip_blanks(at);
    return *at == '\0' || *at == '#';
}

/* From behind the opening quote; returns what stands behind the closing one, NULL: there is none. */
static const char *quoted_value(const char *at, char quote, char *out)
{
    while (*at != quote) {
        if (*at == '\0')
            return NULL;
        if (quote == '"' && *at == '\\' && at[1] != '\0' && strchr("nt\"\\$", at[1]) != NULL) {
            at++;
            *out++ = *at == 'n' ? '\n' : *at == 't' ? '\t' : *at;
        } else {
            *out++ = *at;
        }
        at++;
    }
    *out = '\0';
    return at + 1;
}

/* Up to the end of the line, or to a '#' behind a blank. */
static void bare_value(const char *at, char *ret_value)
{
    size_t length = 0;

    while (at[length] != '\0' && !(at[length] == '#' && length > 0 && isblank((unsigned char)at[length - 1])))
        length++;
    if (at[0] == '#')
        length = 0;
    while (length > 0 && isblank((unsigned char)at[length - 1]))
        length--;
    memcpy(ret_value, at, length);
    ret_value[length] = '\0';
}

/* `line` has no newline; ret_name and ret_value have room for all of it.  An empty ret_name: a blank line. */
static int parse_line(const char *line, char *ret_name, char *ret_value, struct error *error)
{
    const char *at = skip_blanks(line);
    size_t length = 0;

    ret_name[0] = ret_value[0] = '\0';
    if (is_end(at))
        return 0;
    if (strncmp(at, "export", 6) == 0 && isblank((unsigned char)at[6]))
        at = skip_blanks(at + 6);
    while (isalnum((unsigned char)at[length]) || at[length] == '_')
        length++;
    if (length == 0 || isdigit((unsigned char)at[0]) || at[length] != '=')
        return error_set(error, EINVAL, "this is no assignment: write NAME=value, with no blank before '='");
    memcpy(ret_name, at, length);
    ret_name[length] = '\0';
    at = skip_blanks(at + length + 1);
    if (*at != '"' && *at != '\'') {
        bare_value(at, ret_value);
        return 0;
    }
    char quote = *at;
    at = quoted_value(at + 1, quote, ret_value);
    if (at == NULL)
        return error_set(error, EINVAL, "the quote %c is not closed", quote);
    if (!is_end(at))
        return error_set(error, EINVAL, "something stands behind the closing quote");
    return 0;
}

static int read_lines(FILE *file, const char *path, config_visit *visit, void *arg, struct error *error)
{
    char line[SETTING_VALUE_MAX], name[SETTING_VALUE_MAX], value[SETTING_VALUE_MAX];
    int result = 0;

    for (unsigned number = 1; result == 0 && fgets(line, sizeof line, file) != NULL; number++) {
        size_t length = strlen(line);
        if (length == sizeof line - 1 && line[length - 1] != '\n')
            return error_set(error, EINVAL, "%s line %u: longer than %zu bytes", path, number, sizeof line - 2);
        while (length > 0 && (line[length - 1] == '\n' || line[length - 1] == '\r'))
            line[--length] = '\0';
        result = parse_line(line, name, value, error);
        if (result < 0)
            return error_context(error, "%s line %u", path, number);
        if (name[0] != '\0')
            result = visit(arg, name, value, number, error);
    }
    if (result == 0 && ferror(file))
        return error_set_errno(error, errno, "cannot read %s", path);
    return result;
}

int dotenv_read(const char *path, config_visit *visit, void *arg, struct error *error)
{
    FILE *file = fopen(path, "re");

    if (file == NULL)
        return error_set_errno(error, errno, "cannot read %s", path);
    int result = read_lines(file, path, visit, arg, error);
    fclose(file);
    return result;
}
