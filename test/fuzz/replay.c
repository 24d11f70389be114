/* Runs a fuzz target over files: its seeds, or the input of a crash.
 *
 *     replay FILE|DIRECTORY…
 *
 * Stands in for libFuzzer's main() where there is none. */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/memory.h"
#include "fuzz.h"

#define PATH_BYTES 4096
#define INPUT_BYTES_MAX (1u << 20)

static unsigned inputs;

static void give_up(const char *path)
{
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    exit(1);
}

static void replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        give_up(path);
    uint8_t *room = memory_new(INPUT_BYTES_MAX);
    size_t length = fread(room, 1, INPUT_BYTES_MAX, file);
    fclose(file);
    uint8_t *exact = memory_copy(room, length); /* so that a sanitizer sees a read beyond */
    LLVMFuzzerTestOneInput(exact, length);
    free(exact);
    free(room);
    inputs++;
}

static void replay_directory(const char *path)
{
    DIR *directory = opendir(path);
    if (directory == NULL)
        give_up(path);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        char file[PATH_BYTES];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
        replay_file(file);
    }
    closedir(directory);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        struct stat stat_buffer;
        if (stat(argv[i], &stat_buffer) < 0)
            give_up(argv[i]);
        if (S_ISDIR(stat_buffer.st_mode))
            replay_directory(argv[i]);
        else
            replay_file(argv[i]);
    }
    printf("%u inputs\n", inputs);
    return inputs > 0 ? 0 : 1;
}
