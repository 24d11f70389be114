/* cairn dump: any object of a store, as text. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "cli/command.h"
#include "cli/offline.h"
#include "vol/format/format.h"

static bool file_asked;
static const char *file_path;
static const struct config_flag flags[] = {
    { "file", "PATH", "read the object from this file; KEY is where it stands in its store", &file_asked, &file_path },
    { NULL, NULL, NULL, NULL, NULL },
};

static int print(const char *key, const void *bytes, size_t length, struct error *error)
{
    struct buffer text = BUFFER_EMPTY;

    int result = format_dump(key, bytes, length, &text, error);
    fwrite(text.data, 1, text.length, stdout);
    buffer_free(&text);
    return result < 0 ? error_context(error, "%s is damaged", key) : 0;
}

static CO int work_dump(struct offline *offline, void *arg, struct error *error)
{
    const char *key = arg;
    uint8_t *bytes;
    size_t length;
    char etag[STORE_ETAG_MAX];

    int result = store_get_whole(offline->store, key, STORE_OBJECT_MAX, &bytes, &length, etag, error);
    if (result == -ENOENT)
        return error_set(error, ENOENT, "there is no object '%s' in %s", key, offline->config->store);
    if (result < 0)
        return result;
    result = print(key, bytes, length, error);
    free(bytes);
    return result;
}

static int dump_file(const char *path, const char *key, struct error *error)
{
    struct buffer bytes = BUFFER_EMPTY;
    FILE *file = fopen(path, "re");
    int result = 0;

    if (file == NULL)
        return error_set_errno(error, errno, "cannot read %s", path);
    while (!feof(file) && !ferror(file) && bytes.length <= STORE_OBJECT_MAX) {
        buffer_reserve(&bytes, 1 << 16);
        bytes.length += fread(bytes.data + bytes.length, 1, 1 << 16, file);
    }
    if (ferror(file))
        result = error_set_errno(error, errno, "cannot read %s", path);
    else if (bytes.length > STORE_OBJECT_MAX)
        result = error_set(error, EFBIG, "%s is larger than any object of a store", path);
    else
        result = print(key, bytes.data, bytes.length, error);
    fclose(file);
    buffer_free(&bytes);
    return result;
}

static int run(const struct config *config, const struct config_arguments *arguments, struct error *error)
{
    const char *key = arguments->positional[0];
    int result;

    if (strlen(key) >= STORE_KEY_MAX || key[0] == '\0') {
        error_set(error, EINVAL, "'%.40s' is no key of an object", key);
        return EXIT_USAGE;
    }
    result = file_asked ? dump_file(file_path, key, error) : offline_run(config, true, work_dump, (void *)key, error);
    return result < 0 ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_dump = {
    .name = "dump",
    .arguments = "[FLAGS] KEY",
    .summary = "print any object of a store, and what is wrong with it",
    .description = "Prints the object under KEY as text: the marker, a register, a log entry or a data object.  Of a\n"
                   "damaged one, as much as can be made out is printed still, and what is wrong with it; then the\n"
                   "exit status is 1.  Reads only.",
    .examples = "  cairn dump cairn                      # the store's marker\n"
                "  cairn dump volumes/n.scratch          # the register of the volume 'scratch'\n"
                "  cairn dump --file lost+found/1234 volumes/n.scratch",
    .groups = SETTINGS_STORE,
    .flags = flags,
    .positional_least = 1,
    .positional_most = 1,
    .run = run,
};
