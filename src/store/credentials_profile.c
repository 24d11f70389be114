/* The shared files of the AWS SDKs: ~/.aws/config and ~/.aws/credentials.
 *
 *     [default]                         in both files
 *     region = eu-west-1
 *     [profile dev]                     in config; [dev] in credentials
 *     role_arn = arn:aws:iam::…
 *     services = local
 *     [services local]                  in config
 *     s3 =
 *       endpoint_url = http://localhost:9000
 *
 * Read as the AWS CLI reads them.  A line that is indented deeper than the
 * setting above it belongs to that: to a setting without a value as a nested
 * "key = value", otherwise as one more line of its value.  Lines that begin
 * with # or ; are comments; behind a value nothing is, since URLs and commands
 * have such characters too.  Keys are without case.  Of what is said twice the
 * later counts, and the credentials file goes before the config file.
 *
 * The parser is our own: libinih cuts lines after 200 bytes, and a session
 * token alone has a thousand.  It works in place: the file's bytes are kept,
 * cut into strings where they lie, and the settings point into them; so there
 * is one piece of memory with secrets to wipe.
 *
 * Malformed lines are named by number and never quoted, since a mistyped
 * secret looks just like one. */
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/memory.h"
#include "store/credentials_internal.h"

#define PASSWD_BYTES 4096 /* one line of the user database */

enum section { SECTION_NONE, SECTION_PROFILE, SECTION_SERVICES, SECTION_OTHER };

struct setting {
    enum section section;
    const char *name;  /* of the profile or the services */
    const char *outer; /* the setting that it is nested in; NULL: none */
    const char *key;   /* NULL: the section's own header */
    const char *value;
};

struct file {
    char *text;
    size_t size; /* of the memory */
    struct setting *settings;
    size_t count, capacity;
};

struct profiles {
    struct file files[PROFILE_FILES];
    char *where;
};

/* ---- the parser ---- */

struct parser {
    struct file *file;
    enum profile_file kind;
    const char *path;
    unsigned line;
    enum section section;
    const char *name;
    const char *outer; /* the last setting without a value, as long as nested ones may follow */
    size_t last;       /* the last setting that may go on; SIZE_MAX: none */
    size_t indent;     /* of that */
};

static int complain(const struct parser *parser, struct error *error, const char *what)
{
    return error_set(error, EINVAL, "%s, line %u: %s", parser->path, parser->line, what);
}

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

/* Cuts blanks off both ends, in place. */
static char *trim(char *text)
{
    while (blank(*text))
        text++;
    size_t length = strlen(text);
    while (length > 0 && blank(text[length - 1]))
        length--;
    text[length] = '\0';
    return text;
}

static struct setting *add(struct parser *parser)
{
    struct file *file = parser->file;
    if (file->count == file->capacity) {
        file->capacity = file->capacity > 0 ? file->capacity * 2 : 32;
        file->settings = memory_resize(file->settings, file->capacity, sizeof *file->settings);
    }
    struct setting *setting = &file->settings[file->count++];
    *setting = (struct setting){ .section = parser->section, .name = parser->name };
    return setting;
}

/* The name behind the first word, which may stand in quotes; NULL: there is none. */
static char *second_word(char *rest)
{
    char *name = trim(rest);
    size_t length = strlen(name);
    if (length >= 2 && (name[0] == '"' || name[0] == '\'') && name[length - 1] == name[0]) {
        name[length - 1] = '\0';
        name++;
    }
    return name[0] != '\0' ? name : NULL;
}

/* "profile dev", "services local", "default", and in the credentials file any name. */
static void begin_section(struct parser *parser, char *title)
{
    parser->section = SECTION_OTHER;
    parser->name = title;
    size_t word = strcspn(title, " \t");
    char *second = title[word] != '\0' ? second_word(title + word) : NULL;
    if (parser->kind == PROFILE_CREDENTIALS || strcmp(title, "default") == 0) {
        parser->section = SECTION_PROFILE;
    } else if (second != NULL && word == strlen("profile") && strncmp(title, "profile", word) == 0) {
        parser->section = SECTION_PROFILE;
        parser->name = second;
    } else if (second != NULL && word == strlen("services") && strncmp(title, "services", word) == 0) {
        parser->section = SECTION_SERVICES;
        parser->name = second;
    }
    add(parser);
    parser->last = SIZE_MAX;
    parser->outer = NULL;
}

static int parse_header(struct parser *parser, char *line, struct error *error)
{
    char *end = strchr(line, ']');
    if (end == NULL)
        return complain(parser, error, "a section's name without ']'");
    *end = '\0';
    const char *behind = trim(end + 1);
    if (behind[0] != '\0' && behind[0] != '#' && behind[0] != ';')
        return complain(parser, error, "something behind a section's name");
    char *title = trim(line + 1);
    if (title[0] == '\0')
        return complain(parser, error, "a section without a name");
    begin_section(parser, title);
    return 0;
}

/* "key = value" into its two parts; false: it is not that. */
static bool split(char *line, char **ret_key, char **ret_value)
{
    char *equals = strchr(line, '=');
    if (equals == NULL)
        return false;
    *equals = '\0';
    char *key = trim(line);
    if (key[0] == '\0')
        return false;
    for (char *at = key; *at != '\0'; at++)
        *at = (char)tolower((unsigned char)*at);
    *ret_key = key;
    *ret_value = trim(equals + 1);
    return true;
}

static int parse_setting(struct parser *parser, char *line, size_t indent, struct error *error)
{
    char *key, *value;
    if (parser->section == SECTION_NONE)
        return complain(parser, error, "a setting before the first [section]");
    if (!split(line, &key, &value))
        return complain(parser, error, "neither a [section], nor a setting 'key = value', nor a comment");
    struct setting *setting = add(parser);
    setting->key = key;
    setting->value = value;
    parser->last = parser->file->count - 1;
    parser->indent = indent;
    parser->outer = value[0] == '\0' ? key : NULL;
    return 0;
}

/* A line that belongs to the setting before it. */
static int parse_more(struct parser *parser, char *line, struct error *error)
{
    if (parser->outer != NULL) {
        char *key, *value;
        if (!split(line, &key, &value))
            return complain(parser, error, "a nested line that is not 'key = value'");
        struct setting *setting = add(parser);
        setting->outer = parser->outer;
        setting->key = key;
        setting->value = value;
        return 0;
    }
    /* The value ends before this line begins, with a line's end between them at least: so there is room to move the
     * line up. */
    char *value = (char *)parser->file->settings[parser->last].value;
    size_t length = strlen(value);
    char *more = trim(line);
    assert(value + length < more);
    value[length] = '\n';
    memmove(value + length + 1, more, strlen(more) + 1);
    return 0;
}

static int parse_line(struct parser *parser, char *line, struct error *error)
{
    size_t indent = 0;
    while (blank(line[indent]))
        indent++;
    char *text = trim(line);
    if (text[0] == '\0' || text[0] == '#' || text[0] == ';')
        return 0;
    if (parser->last != SIZE_MAX && indent > parser->indent)
        return parse_more(parser, text, error);
    if (text[0] == '[')
        return parse_header(parser, text, error);
    return parse_setting(parser, text, indent, error);
}

static void file_clear(struct file *file)
{
    if (file->text != NULL)
        explicit_bzero(file->text, file->size);
    free(file->text);
    free(file->settings);
    *file = (struct file){ 0 };
}

int profiles_parse(struct profiles *profiles, enum profile_file kind, const char *path, const void *bytes,
                   size_t length, struct error *error)
{
    static const char mark[] = "\xef\xbb\xbf"; /* some editors begin a file with it */
    struct file *file = &profiles->files[kind];
    struct parser parser = { .file = file, .kind = kind, .path = path, .last = SIZE_MAX };
    file_clear(file);
    if (length > 0 && memchr(bytes, 0, length) != NULL)
        return error_set(error, EINVAL, "%s is not text: it has a NUL in it", path);
    file->size = length + 1;
    file->text = memory_new(file->size);
    if (length > 0)
        memcpy(file->text, bytes, length);
    char *next = file->text;
    if (strncmp(next, mark, sizeof mark - 1) == 0)
        next += sizeof mark - 1;
    int failed = 0;
    while (next != NULL && failed == 0) {
        char *line = strsep(&next, "\n");
        parser.line++;
        failed = parse_line(&parser, line, error);
    }
    if (failed != 0)
        file_clear(file);
    return failed;
}

/* ---- looking things up ---- */

static const char *find(const struct file *file, enum section section, const char *name, const char *outer,
                        const char *key)
{
    for (size_t i = file->count; i-- > 0;) {
        const struct setting *setting = &file->settings[i];
        if (setting->section != section || setting->key == NULL || strcmp(setting->name, name) != 0 ||
            strcmp(setting->key, key) != 0 || (setting->outer == NULL) != (outer == NULL))
            continue;
        if (outer == NULL || strcmp(setting->outer, outer) == 0)
            return setting->value[0] != '\0' ? setting->value : NULL;
    }
    return NULL;
}

static bool has_section(const struct profiles *profiles, enum section section, const char *name)
{
    for (int kind = 0; kind < PROFILE_FILES; kind++) {
        const struct file *file = &profiles->files[kind];
        for (size_t i = 0; i < file->count; i++)
            if (file->settings[i].section == section && strcmp(file->settings[i].name, name) == 0)
                return true;
    }
    return false;
}

bool profiles_have(const struct profiles *profiles, const char *profile)
{
    return has_section(profiles, SECTION_PROFILE, profile);
}

bool profiles_have_services(const struct profiles *profiles, const char *services)
{
    return has_section(profiles, SECTION_SERVICES, services);
}

const char *profiles_get_from(const struct profiles *profiles, enum profile_file kind, const char *profile,
                              const char *key)
{
    return find(&profiles->files[kind], SECTION_PROFILE, profile, NULL, key);
}

const char *profiles_get(const struct profiles *profiles, const char *profile, const char *key)
{
    const char *value = profiles_get_from(profiles, PROFILE_CREDENTIALS, profile, key);
    return value != NULL ? value : profiles_get_from(profiles, PROFILE_CONFIG, profile, key);
}

const char *profiles_service(const struct profiles *profiles, const char *services, const char *service,
                             const char *key)
{
    return find(&profiles->files[PROFILE_CONFIG], SECTION_SERVICES, services, service, key);
}

const char *profiles_where(const struct profiles *profiles)
{
    return profiles->where != NULL ? profiles->where : "";
}

/* ---- reading ---- */

/* The user's own directory, owned by the caller; NULL: nobody knows. */
static char *home(void)
{
    const char *set = environment_text("HOME");
    if (set != NULL)
        return memory_string(set);
    char bytes[PASSWD_BYTES];
    struct passwd user, *found = NULL;
    if (getpwuid_r(getuid(), &user, bytes, sizeof bytes, &found) != 0 || found == NULL)
        return NULL;
    return memory_string(user.pw_dir);
}

static char *join(const char *directory, const char *name)
{
    size_t size = strlen(directory) + strlen(name) + 2;
    char *path = memory_new(size);
    snprintf(path, size, "%s/%s", directory, name);
    return path;
}

/* Where the file is looked for, owned by the caller; NULL: nowhere. */
static char *file_path(const char *variable, const char *name)
{
    const char *set = environment_text(variable);
    if (set != NULL && strncmp(set, "~/", 2) != 0)
        return memory_string(set);
    char *directory = home();
    if (directory == NULL)
        return NULL;
    char *path = join(directory, set != NULL ? set + 2 : name);
    free(directory);
    return path;
}

static int read_one(struct profiles *profiles, enum profile_file kind, const char *path, struct error *error)
{
    struct buffer bytes;
    struct error trouble = ERROR_NONE;
    if (path == NULL)
        return 0;
    int failed = credentials_read_file(path, &bytes, &trouble);
    if (failed == -ENOENT || failed == -ENOTDIR)
        return 0;
    if (failed != 0)
        return error_copy(error, &trouble);
    failed = profiles_parse(profiles, kind, path, bytes.data, bytes.length, error);
    secret_buffer_free(&bytes);
    return failed;
}

struct profiles *profiles_new(void)
{
    return memory_new(sizeof(struct profiles));
}

int profiles_read(struct profiles **ret_profiles, struct error *error)
{
    struct profiles *profiles = profiles_new();
    char *config = file_path("AWS_CONFIG_FILE", ".aws/config");
    char *credentials = file_path("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials");
    int failed = read_one(profiles, PROFILE_CREDENTIALS, credentials, error);
    if (failed == 0)
        failed = read_one(profiles, PROFILE_CONFIG, config, error);
    struct buffer where = BUFFER_EMPTY;
    buffer_printf(&where, "%s and %s", credentials != NULL ? credentials : "~/.aws/credentials",
                  config != NULL ? config : "~/.aws/config");
    profiles->where = (char *)where.data;
    free(config);
    free(credentials);
    if (failed == 0)
        *ret_profiles = profiles;
    else
        profiles_free(profiles);
    return failed;
}

void profiles_free(struct profiles *profiles)
{
    if (profiles == NULL)
        return;
    for (int kind = 0; kind < PROFILE_FILES; kind++)
        file_clear(&profiles->files[kind]);
    free(profiles->where);
    free(profiles);
}
