/* cairn check: whether register, log, checkpoints and data objects agree.
 *
 *     register    is it sound, and that of this volume
 *     listing     what there is: first the log, then data objects, so that all that a listed entry names is listed
 *     roots       newest, older, of pins: every piece, and what they say of each other   (check_checkpoint.c)
 *     log         every entry that was listed, the chain, what it names                  (check_log.c)
 *     pages       with `data`: every frame that is in use                                (check_frames.c)
 *
 * A server may be at work on the volume meanwhile.  It writes each thing before
 * what names it, and deletes nothing; so whatever the register that was read
 * first names is there, and what came later is not asked for.
 *
 * Each object is judged by what it must be, and by what names it.  One fault
 * would be found again and again by everything that depends on it: where a piece
 * could not be read, nothing is said of counts that lack what stood in it, and the
 * same words about the same object are told once.
 *
 * Memory: 32 bytes for each data object, 72 for each object in use of each root,
 * 8 for each that has died.
 *
 * What can fail: the store.  An object that it has and does not give is a
 * finding; a store that cannot be reached ends the check. */
#include "vol/check.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/text.h"
#include "vol/check_internal.h"
#include "vol/format/codec.h"

/* ---- findings ---- */

/* Whether the same was told before; and remembers it. */
static bool told_before(struct checking *checking, enum check_kind kind, const char *key, const char *story)
{
    struct iovec pieces[] = { piece_of(&kind, sizeof kind), piece_of(key, strlen(key)),
                              piece_of(story, strlen(story)) };
    uint8_t hash[XXH128_BYTES];
    hash_xxh128(pieces, 3, hash);
    for (uint32_t i = 0; i < checking->told_count; i++)
        if (memcmp(checking->told + (size_t)i * XXH128_BYTES, hash, XXH128_BYTES) == 0)
            return true;
    if (checking->told_count < CHECK_FINDINGS_TOLD)
        memcpy(checking->told + (size_t)checking->told_count++ * XXH128_BYTES, hash, XXH128_BYTES);
    return false;
}

void check_found(struct checking *checking, enum check_kind kind, const char *key, const char *format, ...)
{
    char story[ERROR_STORY_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(story, sizeof story, format, arguments);
    va_end(arguments);
    bool full = checking->told_count == CHECK_FINDINGS_TOLD;
    if (told_before(checking, kind, key, story))
        return;
    checking->counts->findings++;
    struct check_finding finding = { .kind = kind, .key = key, .story = story };
    if (!full)
        checking->check->found(checking->check->arg, &finding);
}

bool check_judge(struct checking *checking, const char *key, int status, const struct error *error)
{
    enum check_kind kind;
    switch (status) {
    case -ENOENT:
        check_found(checking, CHECK_MISSING, key, "it is not there");
        return true;
    case -EBADMSG:
    case -EFBIG:
        kind = CHECK_DAMAGED;
        break;
    case -EMEDIUMTYPE:
        kind = CHECK_FOREIGN;
        break;
    case -EPROTONOSUPPORT:
        kind = CHECK_NEWER;
        break;
    case -EIO:
        kind = CHECK_UNREADABLE;
        break;
    default:
        if (checking->status == 0) {
            checking->status = status;
            checking->error = *error;
        }
        return false;
    }
    check_found(checking, kind, key, "%s", error->story);
    return true;
}

int check_get(struct checking *checking, const char *key, uint64_t offset, uint8_t *bytes, size_t length,
              struct error *error)
{
    struct iovec piece = { .iov_base = bytes, .iov_len = length };
    struct store_get get = { .key = key, .offset = offset, .pieces = &piece, .count = 1 };
    struct store_got got = { 0 };
    int status = store_get(checking->check->store, &get, &got, error);
    if (status == 0 && got.length < length)
        return error_set(error, EBADMSG, "truncated: it ends at byte %" PRIu64 ", and should go on to byte %" PRIu64,
                         got.size, offset + length);
    return status;
}

int check_frame(const uint8_t *bytes, uint32_t units, const struct frame_place *place, enum frame_kind kind,
                struct frame_header *ret_header, const uint8_t **ret_payload, struct error *error)
{
    size_t total = (size_t)units * FRAME_UNIT;
    struct frame_header header;
    int status = frame_decode_header(bytes, &header, error);
    if (status == 0 && frame_total_bytes(header.stored_bytes) != total)
        status = error_set(error, EBADMSG, "frame: %" PRIu32 " bytes with its padding, and %zu by what names it",
                           frame_total_bytes(header.stored_bytes), total);
    if (status == 0) {
        struct iovec payload = piece_of(bytes + FRAME_HEADER_BYTES, header.stored_bytes);
        status = frame_verify(bytes, place, &payload, 1, &header, error);
    }
    if (status == 0 && header.kind != kind)
        status = error_set(error, EBADMSG, "frame: of kind %d, and by what names it %d", (int)header.kind, (int)kind);
    size_t used = status == 0 ? FRAME_HEADER_BYTES + header.stored_bytes : 0;
    if (status == 0 && !bytes_are_zero(bytes + used, total - used))
        status = error_set(error, EBADMSG, "frame: its padding is not zeroes");
    if (status < 0) {
        error_context(error, "at byte %" PRIu64, place->offset);
        return status;
    }
    *ret_header = header;
    *ret_payload = bytes + FRAME_HEADER_BYTES;
    return 0;
}

/* ---- the register ---- */

static CO int get_register(struct checking *checking, struct register_body *ret_body, struct error *error)
{
    uint8_t *bytes;
    size_t length;
    char etag[STORE_ETAG_MAX];
    int status = store_get_whole(checking->check->store, checking->register_key, REGISTER_BYTES_MAX, &bytes, &length,
                                 etag, error);
    if (status < 0)
        return status;
    status = register_decode(bytes, length, ret_body, error);
    free(bytes);
    return status;
}

/* Whether there is more to check. */
static bool judge_register(struct checking *checking)
{
    const struct register_body *body = &checking->body;
    const struct check *check = checking->check;
    if (body->name_length != check->name_length || memcmp(body->name, check->name, check->name_length) != 0) {
        char name[64];
        text_quote(body->name, body->name_length, name, sizeof name);
        check_found(checking, CHECK_FOREIGN, checking->register_key, "it is the register of another volume, '%s'",
                    name);
        return false;
    }
    if (body->state != REGISTER_LIVE || body->has_parent) {
        check_found(checking, CHECK_NEWER, checking->register_key,
                    body->has_parent ? "the volume was forked from another, and this release knows nothing of that"
                                     : "the volume is not live, and this release knows nothing of that");
        return false;
    }
    checking->counts->size = body->newest.size;
    checking->counts->epoch = body->epoch;
    return true;
}

void check_epoch(struct checking *checking, uint64_t epoch, uint64_t seq)
{
    struct register_body now;
    struct error error = ERROR_NONE;
    if (epoch <= checking->body.epoch)
        return;
    /* Somebody may have taken the volume since its register was read. */
    int status = get_register(checking, &now, &error);
    if (status < 0) {
        check_judge(checking, checking->register_key, status, &error);
        return;
    }
    if (now.epoch < epoch)
        check_found(checking, CHECK_INCONSISTENT, checking->register_key,
                    "its epoch is %" PRIu64 ", and log entry %" PRIu64 " is of epoch %" PRIu64
                    ": it was put back to an older state",
                    now.epoch, seq, epoch);
    register_free(&now);
}

/* ---- roots ---- */

static void list_roots(struct checking *checking)
{
    const struct register_body *body = &checking->body;
    checking->roots = memory_array(1 + (size_t)body->older_count + body->pin_count, sizeof *checking->roots);
    checking->roots[checking->root_count++].root = &body->newest;
    for (uint32_t i = 0; i < body->older_count; i++)
        checking->roots[checking->root_count++].root = &body->older[i];
    for (uint32_t i = 0; i < body->pin_count; i++)
        checking->roots[checking->root_count++].root = &body->pins[i].base;
}

static CO void read_roots(struct checking *checking)
{
    for (uint32_t i = 0; i < checking->root_count && checking->status == 0; i++) {
        if (checking->roots[i].root->empty)
            continue;
        checking->counts->roots++;
        check_root_read(checking, &checking->roots[i]);
    }
}

/* ---- data objects that nothing names ---- */

static void count_unreferenced(struct checking *checking)
{
    for (size_t i = 0; i < checking->listing.count; i++) {
        if (checking->listing.objects[i].named)
            continue;
        checking->counts->unreferenced++;
        checking->counts->unreferenced_bytes += checking->listing.objects[i].bytes;
    }
}

/* ---- the story ---- */

static CO void check_volume(struct checking *checking)
{
    if (!judge_register(checking))
        return;
    checking->status = listing_read(checking, &checking->error);
    if (checking->status < 0)
        return;
    list_roots(checking);
    read_roots(checking);
    if (checking->status == 0)
        check_log_read(checking);
    if (checking->status == 0 && checking->check->data)
        check_frames_of_root(checking);
    count_unreferenced(checking);
}

static void release(struct checking *checking)
{
    for (uint32_t i = 0; i < checking->root_count; i++)
        check_root_free(&checking->roots[i]);
    free(checking->roots);
    free(checking->told);
    listing_free(&checking->listing);
    register_free(&checking->body);
}

int volume_check(const struct check *check, struct check_counts *ret_counts, struct error *error)
{
    struct checking checking = { .check = check, .counts = ret_counts };
    struct error why = ERROR_NONE;
    *ret_counts = (struct check_counts){ 0 };
    key_register(check->name, check->name_length, checking.register_key);
    int status = get_register(&checking, &checking.body, &why);
    if (status == -ENOENT)
        return error_copy(error, &why);
    checking.told = memory_array(CHECK_FINDINGS_TOLD, XXH128_BYTES);
    if (status == 0)
        check_volume(&checking);
    else
        check_judge(&checking, checking.register_key, status, &why);
    status = checking.status;
    if (status < 0)
        error_copy(error, &checking.error);
    release(&checking);
    return status;
}
