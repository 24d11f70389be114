/* Gathering the settings: see daemon/config.h for who wins.
 *
 * First the text of each setting is gathered from the weakest source to the
 * strongest, each beating what is there; then the texts that won are parsed,
 * so that a bad value is laid at the right door. */
#include "daemon/config.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/error.h"
#include "base/memory.h"
#include "daemon/config_internal.h"

void config_warn(struct config *config, const char *format, ...)
{
    char text[ERROR_STORY_MAX];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    config->warnings = memory_resize(config->warnings, config->warning_count + 1, sizeof *config->warnings);
    config->warnings[config->warning_count++] = memory_string(text);
}

/* Frees a text that may be a secret's. */
static void forget(char *text)
{
    if (text != NULL)
        explicit_bzero(text, strlen(text));
    free(text);
}

static void __attribute__((format(printf, 4, 5)))
offer(struct gathering *gathering, const struct setting *setting, const char *text, const char *origin, ...)
{
    struct candidate *candidate = &gathering->candidates[setting - setting_table];
    va_list arguments;

    assert(gathering->source >= candidate->source);
    forget(candidate->text);
    candidate->text = memory_string(text);
    candidate->source = gathering->source;
    va_start(arguments, origin);
    vsnprintf(candidate->origin, sizeof candidate->origin, origin, arguments);
    va_end(arguments);
}

static int unknown_name(const char *kind, const char *name, const char *prefix, struct error *error)
{
    const char *near = setting_suggest(name);

    if (near != NULL)
        return error_set(error, EINVAL, "%s '%s%s' is not known: did you mean '%s%s'?", kind, prefix, name, prefix,
                         near);
    return error_set(error, EINVAL, "%s '%s%s' is not known: see cairn serve --help", kind, prefix, name);
}

/* ---- variables: the environment and .env ---- */

static int take_variable(void *arg, const char *name, const char *value, unsigned line, struct error *error)
{
    struct gathering *gathering = arg;
    char where[ORIGIN_MAX];

    if (strncmp(name, "NBD_", 4) != 0 || value[0] == '\0')
        return 0;
    if (line == 0)
        snprintf(where, sizeof where, "%s in the environment", name);
    else
        snprintf(where, sizeof where, "%s in %s line %u", name, gathering->path, line);
    const struct setting *setting = setting_of_variable(name);
    if (setting != NULL)
        offer(gathering, setting, value, "%s", where);
    else
        config_warn(gathering->config, "%s is passed over: there is no such setting", where);
    return 0;
}

static int read_environment(struct gathering *gathering, struct error *error)
{
    gathering->source = SOURCE_ENVIRONMENT;
    for (char **at = gathering->request->environment; *at != NULL; at++) {
        const char *equals = strchr(*at, '=');
        char name[SETTING_NAME_MAX + 4];
        if (equals == NULL || strncmp(*at, "NBD_", 4) != 0)
            continue;
        snprintf(name, sizeof name, "%.*s", (int)(equals - *at), *at);
        int result = take_variable(gathering, name, equals + 1, 0, error);
        if (result < 0)
            return result;
    }
    return 0;
}

static int read_dotenv(struct gathering *gathering, struct error *error)
{
    struct error trouble = ERROR_NONE;

    gathering->source = SOURCE_DOTENV;
    gathering->path = gathering->request->dotenv_path;
    int result = dotenv_read(gathering->path, take_variable, gathering, &trouble);
    /* A directory of that name is somebody's Python environment. */
    return result == -ENOENT || result == -EISDIR ? 0 : error_copy(error, &trouble);
}

/* ---- the configuration file ---- */

static int take_key(void *arg, const char *name, const char *value, unsigned line, struct error *error)
{
    struct gathering *gathering = arg;
    const struct setting *setting = setting_find(name);
    char where[ORIGIN_MAX];

    snprintf(where, sizeof where, "%s line %u", gathering->path, line);
    if (setting == NULL) {
        unknown_name("the setting", name, "", error);
        return error_context(error, "%s", where);
    }
    if (setting == &setting_table[SETTING_CONFIG])
        return error_set(error, EINVAL, "%s: a configuration file cannot name another", where);
    struct candidate *before = &gathering->candidates[setting - setting_table];
    if (before->text != NULL)
        return error_set(error, EINVAL, "%s: '%s' stood there before, as %s", where, name, before->origin);
    offer(gathering, setting, value, "%s in %s line %u", name, gathering->path, line);
    return 0;
}

/* Its path may come from every stronger source; a file that was asked for must be there. */
static int read_config_file(struct gathering *gathering, const char *path, struct error *error)
{
    struct error trouble = ERROR_NONE;

    gathering->source = SOURCE_FILE;
    gathering->path = path != NULL ? path : gathering->request->default_config_path;
    int result = config_file_read(gathering->path, take_key, gathering, &trouble);
    return result == -ENOENT && path == NULL ? 0 : error_copy(error, &trouble);
}

/* ---- flags ---- */

static const struct config_flag *find_flag(const struct config_flag *flags, const char *name)
{
    for (; flags != NULL && flags->name != NULL; flags++)
        if (strcmp(flags->name, name) == 0)
            return flags;
    return NULL;
}

/* The value of a flag: behind its '=', or the next argument.  NULL: there is none. */
static const char *flag_value(const struct config_request *request, int *at, const char *attached)
{
    if (attached != NULL)
        return attached;
    return *at + 1 < request->argc ? request->argv[++*at] : NULL;
}

static int take_flag(struct gathering *gathering, int *at, struct error *error)
{
    const struct config_request *request = gathering->request;
    char name[SETTING_NAME_MAX];
    const char *word = request->argv[*at] + 2, *equals = strchr(word, '='), *attached = equals ? equals + 1 : NULL;

    snprintf(name, sizeof name, "%.*s", (int)(equals ? equals - word : (ptrdiff_t)strlen(word)), word);
    const struct config_flag *flag = find_flag(request->flags, name);
    const struct setting *setting = setting_find(name);
    if (flag == NULL && setting != NULL && (setting->groups & request->groups) == 0)
        return error_set(error, EINVAL, "--%s is a flag of cairn serve, not of this command", name);
    if (flag == NULL && setting == NULL)
        return unknown_name("the flag", name, "--", error);
    bool alone = flag != NULL ? flag->argument == NULL : setting->kind == SETTING_SWITCH;
    if (flag != NULL && alone && attached != NULL)
        return error_set(error, EINVAL, "--%s takes no value", name);
    const char *value = alone ? (attached ? attached : "yes") : flag_value(request, at, attached);
    if (value == NULL)
        return error_set(error, EINVAL, "--%s needs a value: --%s %s", name, name,
                         flag != NULL ? flag->argument : setting->argument);
    if (flag != NULL) {
        *flag->given = true;
        if (flag->value != NULL)
            *flag->value = value;
    } else {
        offer(gathering, setting, value, "--%s", name);
    }
    return 0;
}

static int read_flags(struct gathering *gathering, struct config_arguments *arguments, struct error *error)
{
    const struct config_request *request = gathering->request;
    bool flags_over = false;

    gathering->source = SOURCE_FLAG;
    for (int at = 0; at < request->argc; at++) {
        const char *word = request->argv[at];
        int result = 0;
        if (!flags_over && strcmp(word, "--") == 0)
            flags_over = true;
        else if (!flags_over && strncmp(word, "--", 2) == 0)
            result = take_flag(gathering, &at, error);
        else if (!flags_over && word[0] == '-' && word[1] != '\0')
            result = error_set(error, EINVAL, "the flag '%.*s' is not known: flags are whole words, such as --port",
                               (int)strcspn(word, "="), word);
        else if (arguments->count == request->positional_most)
            result = error_set(error, EINVAL, "'%s' is one argument too many", word);
        else
            arguments->positional[arguments->count++] = word;
        if (result < 0)
            return result;
    }
    return 0;
}

static bool wants_help(const struct config_request *request)
{
    for (int i = 0; i < request->argc && strcmp(request->argv[i], "--") != 0; i++)
        if (strcmp(request->argv[i], "--help") == 0 || strcmp(request->argv[i], "-h") == 0)
            return true;
    return false;
}

/* ---- all together ---- */

static int gather(struct gathering *gathering, struct config_arguments *arguments, struct error *error)
{
    struct candidate stronger[SETTING_COUNT] = { 0 };

    int result = read_dotenv(gathering, error);
    if (result == 0)
        result = read_environment(gathering, error);
    if (result == 0)
        result = read_flags(gathering, arguments, error);
    if (result < 0)
        return result;
    /* The file is weaker than what was just read, but what was read may name it. */
    memcpy(stronger, gathering->candidates, sizeof stronger);
    memset(gathering->candidates, 0, sizeof gathering->candidates);
    result = read_config_file(gathering, stronger[SETTING_CONFIG].text, error);
    for (int i = 0; i < SETTING_COUNT; i++)
        if (stronger[i].text != NULL) {
            forget(gathering->candidates[i].text);
            gathering->candidates[i] = stronger[i];
        }
    return result;
}

static int parse_all(struct gathering *gathering, struct config *config, struct error *error)
{
    for (int i = 0; i < SETTING_COUNT; i++) {
        const struct candidate *candidate = &gathering->candidates[i];
        const char *text = candidate->text != NULL ? candidate->text : setting_table[i].fallback;
        if (text == NULL || (setting_table[i].groups & gathering->request->groups) == 0)
            continue;
        if (setting_parse(&setting_table[i], text, config, error) < 0)
            return error_context(error, "%s", candidate->origin);
        config->source[i] = candidate->source;
    }
    return 0;
}

static int settle_memory(struct gathering *gathering, struct config *config, struct error *error)
{
    if ((gathering->request->groups & SETTINGS_SERVE) == 0)
        return 0;
    if (config->source[SETTING_WRITE_BUFFER] == SOURCE_DEFAULT)
        config->write_buffer_bytes = config->memory_bytes / 2;
    else if (config->write_buffer_bytes > config->memory_bytes / 2)
        return error_set(error, EINVAL,
                         "%s: '%s' is more than half of --memory, which also holds the read cache and "
                         "data on its way: write less, or raise --memory",
                         gathering->candidates[SETTING_WRITE_BUFFER].origin,
                         gathering->candidates[SETTING_WRITE_BUFFER].text);
    return 0;
}

/* Below this a store that is merely slow for a moment makes a server doubt its volumes. */
#define LEASE_SENSIBLE_MS 5000

static void settle_lease(struct gathering *gathering, struct config *config)
{
    if ((gathering->request->groups & SETTINGS_SERVE) == 0)
        return;
    /* A client that asks for a dead server's volume should not be refused a moment before it is free. */
    if (config->source[SETTING_OWNER_WAIT] == SOURCE_DEFAULT && config->owner_wait_ms < config->lease_ms * 3 / 2)
        config->owner_wait_ms = config->lease_ms * 3 / 2;
    if (config->lease_ms >= LEASE_SENSIBLE_MS)
        return;
    config_warn(config,
                "%s: a lease of %llu ms is short: whenever the store takes longer to answer, clients wait, and other "
                "servers may take the volumes; for anything but tests, 5s or more",
                gathering->candidates[SETTING_LEASE].origin, (unsigned long long)config->lease_ms);
}

int config_load(const struct config_request *request, struct config *ret_config, struct config_arguments *ret_arguments,
                struct error *error)
{
    struct config config = { 0 };
    struct config_arguments arguments = { 0 };
    struct gathering *gathering;
    int result = 0;

    assert(request->positional_most <= CONFIG_POSITIONAL_MAX);
    if (wants_help(request)) {
        arguments.help = true;
        *ret_config = config;
        *ret_arguments = arguments;
        return 0;
    }
    gathering = memory_new(sizeof *gathering);
    gathering->request = request;
    gathering->config = &config;
    result = gather(gathering, &arguments, error);
    if (result == 0)
        result = parse_all(gathering, &config, error);
    if (result == 0)
        result = config_settle_store(gathering, error);
    if (result == 0)
        result = settle_memory(gathering, &config, error);
    if (result == 0)
        settle_lease(gathering, &config);
    for (int i = 0; i < SETTING_COUNT; i++)
        forget(gathering->candidates[i].text);
    free(gathering);
    if (result < 0) {
        config_free(&config);
        return result;
    }
    *ret_config = config;
    *ret_arguments = arguments;
    return 0;
}

void config_free(struct config *config)
{
    /* config->store is the text of its setting, or was made by config_store.c; the same holds for the bucket. */
    for (int i = 0; i < SETTING_COUNT; i++)
        if (setting_table[i].kind == SETTING_TEXT || setting_table[i].kind == SETTING_SECRET)
            forget(*(char **)((char *)config + setting_table[i].offset));
    free(config->s3_prefix);
    for (size_t i = 0; i < config->warning_count; i++)
        free(config->warnings[i]);
    free(config->warnings);
    *config = (struct config){ 0 };
}

/* ---- --help ---- */

#define HELP_COLUMN 30
#define HELP_WIDTH 100

static void describe(const char *flag, const char *argument, const char *help, const char *fallback,
                     struct buffer *text)
{
    char head[SETTING_NAME_MAX * 2 + 8], body[ERROR_STORY_MAX];

    snprintf(head, sizeof head, "  --%s%s%s", flag, argument != NULL ? " " : "", argument != NULL ? argument : "");
    snprintf(body, sizeof body, "%s%s%s%s", help, fallback ? " (" : "", fallback ? fallback : "", fallback ? ")" : "");
    if (strlen(head) < HELP_COLUMN)
        buffer_printf(text, "%-*s", HELP_COLUMN, head);
    else
        buffer_printf(text, "%s\n%*s", head, HELP_COLUMN, "");
    for (const char *at = body; *at != '\0';) {
        size_t length = strlen(at), room = HELP_WIDTH - HELP_COLUMN;
        if (length > room)
            for (length = room; at[length] != ' ';)
                length--;
        buffer_printf(text, "%*s%.*s\n", at == body ? 0 : HELP_COLUMN, "", (int)length, at);
        at += length;
        at += *at == ' ';
    }
}

void config_describe(unsigned groups, const struct config_flag *flags, struct buffer *ret_text)
{
    for (; flags != NULL && flags->name != NULL; flags++)
        describe(flags->name, flags->argument, flags->help, NULL, ret_text);
    for (int i = 0; i < SETTING_COUNT; i++)
        if ((setting_table[i].groups & groups) != 0)
            describe(setting_table[i].name, setting_table[i].kind == SETTING_SWITCH ? NULL : setting_table[i].argument,
                     setting_table[i].help, setting_table[i].fallback, ret_text);
    describe("help", NULL, "show this help", NULL, ret_text);
}
