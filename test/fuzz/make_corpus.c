/* Makes the seeds of the fuzz targets for the codecs of the store's format.
 *
 *     make_corpus DIRECTORY        test/fuzz/corpus, usually
 *
 * Run by hand when the format gets something new; the seeds are kept in the tree. */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "../lib/checkpoint_samples.h"

#define RANDOM_SEEDS 4

static const char *root;

/* `first`: a byte put before the object, or -1. */
static void write_seed(const char *target, const char *name, int first, const struct buffer *bytes)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", root, target);
    if (mkdir(path, 0777) < 0 && errno != EEXIST) {
        perror(path);
        exit(1);
    }
    snprintf(path, sizeof(path), "%s/%s/%s", root, target, name);
    FILE *file = fopen(path, "wb");
    if (file == NULL) {
        perror(path);
        exit(1);
    }
    if (first >= 0)
        fputc(first, file);
    fwrite(bytes->data, 1, bytes->length, file);
    if (fclose(file) != 0) {
        perror(path);
        exit(1);
    }
}

static void registers(void)
{
    struct chance chance = { 11 };
    struct buffer bytes = BUFFER_EMPTY;
    char name[32];
    for (int i = 0; i < 2 + RANDOM_SEEDS; i++) {
        struct register_body body = i == 0   ? sample_register()
                                    : i == 1 ? sample_register_full()
                                             : random_register(&chance);
        if (body.name_length > 64) /* seeds are small */
            body.name_length = 64;
        buffer_clear(&bytes);
        register_encode(&body, &bytes, NULL);
        register_free(&body);
        snprintf(name, sizeof(name), i < 2 ? "fixed-%d" : "random-%d", i);
        write_seed("register", name, -1, &bytes);
        if (i < 2)
            write_seed("dump", i == 0 ? "register" : "register-full", 0x80 | 2, &bytes);
    }
    buffer_free(&bytes);
}

static void entries(void)
{
    struct chance chance = { 12 };
    struct buffer bytes = BUFFER_EMPTY;
    uint8_t hash[SHA256_BYTES];
    char name[32];
    for (int i = 0; i < RANDOM_SEEDS; i++) {
        struct entry entry = random_entry(&chance);
        buffer_clear(&bytes);
        entry_encode(&entry, &bytes, hash);
        random_entry_free(&entry);
        snprintf(name, sizeof(name), "random-%d", i);
        write_seed("entry", name, -1, &bytes);
    }
    buffer_clear(&bytes);
    sample_commit_small(&bytes, hash);
    write_seed("dump", "commit", 3, &bytes);
    write_seed("dump", "commit-sealed", 0x80, &bytes);
    bytes.length -= 64 + PAGE_BYTES;
    write_seed("entry", "commit", -1, &bytes);
    buffer_clear(&bytes);
    sample_commit_full(&bytes, hash);
    bytes.length -= 258 * FRAME_UNIT;
    write_seed("entry", "commit-full", -1, &bytes);
    write_seed("dump", "commit-full", 4, &bytes);
    buffer_clear(&bytes);
    sample_fence(&bytes, hash);
    write_seed("entry", "fence", -1, &bytes);
    write_seed("dump", "fence", 3, &bytes);
    buffer_free(&bytes);
}

static void frames(void)
{
    struct buffer bytes = BUFFER_EMPTY;
    struct frame_place place = { .uuid = sample_uuid(), .kind = OBJECT_DATA, .epoch = 1, .n = 6 };
    sample_frame(&bytes, place, 3, 1u << 7);
    write_seed("frame", "pages", -1, &bytes);
    write_seed("dump", "data", 5, &bytes);
    /* A piece of a checkpoint: any payload. */
    struct frame_header header = { .kind = FRAME_LEAVES, .raw_bytes = 100, .stored_bytes = 100 };
    struct iovec piece = { .iov_base = bytes.data + FRAME_HEADER_BYTES, .iov_len = 100 };
    uint8_t head[FRAME_HEADER_BYTES];
    frame_encode(&header, &place, &piece, 1, head);
    struct buffer leaves = BUFFER_EMPTY;
    buffer_put(&leaves, head, sizeof(head));
    buffer_put(&leaves, bytes.data + FRAME_HEADER_BYTES, 100);
    write_seed("frame", "leaves", -1, &leaves);
    buffer_put_zeroes(&leaves, round_up(leaves.length, FRAME_UNIT) - leaves.length);
    buffer_put(&leaves, head, sizeof(head)); /* a second one, in the wrong place and cut */
    write_seed("dump", "leaves", 0x80 | 5, &leaves);
    buffer_free(&leaves);
    buffer_free(&bytes);
}

/* The first byte of these seeds chooses the kind of frame. */
enum { SEED_LEAVES, SEED_MID, SEED_ROOT, SEED_OBJECTS };

static void random_pieces(int round, struct chance *chance)
{
    struct buffer bytes = BUFFER_EMPTY;
    char name[32];
    struct random_leaves *leaves = memory_new(sizeof(*leaves));
    struct leaves_writer *writer = leaves_writer_new(PIECE_PAYLOAD_MAX);
    random_leaves(chance, leaves);
    for (uint32_t i = 0; i < leaves->leaf_count && i < 2; i++) { /* seeds are small */
        leaves->leaves[i].run_count = leaves->leaves[i].run_count < 20 ? leaves->leaves[i].run_count : 20;
        leaves_writer_add(writer, &leaves->leaves[i]);
    }
    leaves_writer_finish(writer, &bytes);
    leaves_writer_free(writer);
    free(leaves);
    snprintf(name, sizeof(name), "leaves-%d", round);
    write_seed("checkpoint", name, SEED_LEAVES, &bytes);

    struct mid_frame mid = random_mid(chance);
    mid.slot_count = mid.slot_count < 20 ? mid.slot_count : 20;
    buffer_clear(&bytes);
    mid_encode(&mid, &bytes);
    mid_frame_free(&mid);
    snprintf(name, sizeof(name), "mid-%d", round);
    write_seed("checkpoint", name, SEED_MID, &bytes);

    struct objects_frame objects;
    while ((objects = round % 2 == 0 ? random_chunk(chance) : random_graves(chance)).row_count == 0)
        objects_frame_free(&objects);
    objects.row_count = objects.row_count < 10 ? objects.row_count : 10;
    buffer_clear(&bytes);
    objects_encode(&objects, &bytes);
    objects_frame_free(&objects);
    snprintf(name, sizeof(name), "objects-%d", round);
    write_seed("checkpoint", name, SEED_OBJECTS, &bytes);

    struct root_frame frame = random_root_frame(chance);
    frame.mid_count = frame.mid_count < 5 ? frame.mid_count : 5;
    frame.chunk_count = frame.chunk_count < 5 ? frame.chunk_count : 5;
    buffer_clear(&bytes);
    root_frame_encode(&frame, &bytes);
    root_frame_free(&frame);
    snprintf(name, sizeof(name), "root-%d", round);
    write_seed("checkpoint", name, SEED_ROOT, &bytes);
    buffer_free(&bytes);
}

static void checkpoints(void)
{
    struct chance chance = { 13 };
    struct buffer bytes = BUFFER_EMPTY;
    sample_checkpoint(&bytes);
    write_seed("dump", "checkpoint", 6, &bytes);
    write_seed("dump", "checkpoint-sealed", 0x80 | 6, &bytes);
    static const struct {
        void (*make)(struct buffer *bytes);
        const char *name;
        uint8_t kind;
    } pieces[] = { { sample_leaves, "leaves", SEED_LEAVES },
                   { sample_mid, "mid", SEED_MID },
                   { sample_chunk, "chunk", SEED_OBJECTS },
                   { sample_graves, "graves", SEED_OBJECTS } };
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        buffer_clear(&bytes);
        pieces[i].make(&bytes);
        write_seed("checkpoint", pieces[i].name, pieces[i].kind, &bytes);
    }
    buffer_clear(&bytes);
    sample_root_payload(&bytes, 896);
    write_seed("checkpoint", "root", SEED_ROOT, &bytes);
    for (int i = 0; i < RANDOM_SEEDS; i++)
        random_pieces(i, &chance);
    buffer_free(&bytes);
}

static void texts(void)
{
    struct uuid uuid = sample_uuid();
    struct buffer bytes = BUFFER_EMPTY;
    char key[KEY_MAX], long_name[100];
    marker_encode(&uuid, &bytes);
    write_seed("key", "marker", -1, &bytes);
    write_seed("dump", "marker", 1, &bytes);
    static const char *const names[] = { "log", "data", "register", "hashed", "uuid", "name" };
    for (int i = 0; i < 6; i++) {
        switch (i) {
        case 0:
            key_log(&uuid, 17, key);
            break;
        case 1:
            key_data(&uuid, 3, UINT64_MAX, key);
            break;
        case 2:
            key_register("A/b c", 5, key);
            break;
        case 3:
            memset(long_name, '/', sizeof(long_name));
            key_register(long_name, sizeof(long_name), key);
            break;
        case 4:
            uuid_format(&uuid, key);
            break;
        case 5:
            strcpy(key, "M\xc3\xbcller's disk");
            break;
        }
        buffer_clear(&bytes);
        buffer_put(&bytes, key, strlen(key));
        write_seed("key", names[i], -1, &bytes);
    }
    buffer_free(&bytes);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: make_corpus DIRECTORY\n");
        return 2;
    }
    root = argv[1];
    registers();
    entries();
    frames();
    checkpoints();
    texts();
    return 0;
}
