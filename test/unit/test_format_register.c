/* The register: golden bytes, round trips, unknown fields kept, every damage and every rule. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../lib/format_golden.h"
#include "../lib/format_samples.h"

static void test_golden(void **state)
{
    struct register_body body = sample_register();
    struct buffer bytes = BUFFER_EMPTY;
    assert_int_equal(register_encode(&body, &bytes, NULL), 0);
    assert_true(is_golden(bytes.data, bytes.length, golden_register));
    register_free(&body);
    buffer_clear(&bytes);
    body = sample_register_full();
    assert_int_equal(register_encode(&body, &bytes, NULL), 0);
    assert_true(is_golden(bytes.data, bytes.length, golden_full_register));
    register_free(&body);
    buffer_free(&bytes);
}

static void assert_roots_equal(const struct root *a, const struct root *b)
{
    assert_true(a->seq == b->seq && a->size == b->size && a->next_object_id == b->next_object_id);
    assert_memory_equal(a->hash, b->hash, sizeof(a->hash));
    assert_true(a->empty == b->empty);
    assert_true(uuid_equal(&a->uuid, &b->uuid));
    assert_true(a->object_id == b->object_id && a->epoch == b->epoch && a->n == b->n);
    assert_true(a->start == b->start && a->units == b->units);
    assert_memory_equal(&a->extra, &b->extra, sizeof(a->extra));
}

static void assert_names_equal(const char *a, size_t a_length, const char *b, size_t b_length)
{
    assert_int_equal(a_length, b_length);
    if (a_length > 0)
        assert_memory_equal(a, b, a_length);
    assert_int_equal(b[b_length], '\0');
}

static void assert_bodies_equal(const struct register_body *a, const struct register_body *b)
{
    assert_names_equal(a->name, a->name_length, b->name, b->name_length);
    assert_true(uuid_equal(&a->uuid, &b->uuid));
    assert_true(a->features_compatible == b->features_compatible && a->features_owner == b->features_owner &&
                a->features_incompatible == b->features_incompatible);
    assert_true(a->state == b->state && a->created_wall_ms == b->created_wall_ms && a->epoch == b->epoch);
    assert_true(nonce_equal(&a->owner, &b->owner) && nonce_equal(&a->write, &b->write));
    assert_true(nonce_equal(&a->renewal, &b->renewal));
    assert_true(a->held == b->held && a->counter == b->counter && a->lease_ms == b->lease_ms);
    assert_true(a->owned_since_wall_ms == b->owned_since_wall_ms && a->process == b->process);
    assert_string_equal(a->host, b->host);
    assert_string_equal(a->lock_path, b->lock_path);
    assert_memory_equal(a->boot_id, b->boot_id, BOOT_ID_BYTES);
    assert_true(a->lock_device == b->lock_device && a->lock_inode == b->lock_inode);
    assert_roots_equal(&a->newest, &b->newest);
    assert_int_equal(a->older_count, b->older_count);
    for (uint32_t i = 0; i < a->older_count; i++)
        assert_roots_equal(&a->older[i], &b->older[i]);
    assert_true(a->committed == b->committed && a->horizon == b->horizon);
    assert_int_equal(a->pin_count, b->pin_count);
    for (uint32_t i = 0; i < a->pin_count; i++) {
        const struct pin *x = &a->pins[i], *y = &b->pins[i];
        assert_true(nonce_equal(&x->id, &y->id) && x->seq == y->seq && x->has_child == y->has_child);
        assert_true(uuid_equal(&x->child, &y->child));
        assert_roots_equal(&x->base, &y->base);
        assert_names_equal(x->child_name, x->child_name_length, y->child_name, y->child_name_length);
        assert_memory_equal(&x->extra, &y->extra, sizeof(x->extra));
    }
    assert_true(a->has_parent == b->has_parent && uuid_equal(&a->parent, &b->parent));
    assert_true(a->parent_seq == b->parent_seq);
    assert_memory_equal(a->parent_hash, b->parent_hash, SHA256_BYTES);
    assert_int_equal(a->unknown_length, b->unknown_length);
    if (a->unknown_length > 0)
        assert_memory_equal(a->unknown, b->unknown, a->unknown_length);
}

static void test_round_trip(void **state)
{
    struct chance chance = { 4 };
    struct buffer bytes = BUFFER_EMPTY, again = BUFFER_EMPTY;
    for (int i = 0; i < 1000; i++) {
        struct register_body body = random_register(&chance), decoded, copy;
        struct error error = ERROR_NONE;
        size_t garbage = chance_below(&chance, 3);
        buffer_clear(&bytes);
        buffer_clear(&again);
        buffer_put_zeroes(&bytes, garbage); /* it appends */
        assert_int_equal(register_encode(&body, &bytes, &error), 0);
        assert_int_equal(register_decode(bytes.data + garbage, bytes.length - garbage, &decoded, &error), 0);
        assert_bodies_equal(&body, &decoded);
        register_copy(&decoded, &copy);
        register_free(&decoded);
        assert_bodies_equal(&body, &copy);
        assert_int_equal(register_encode(&copy, &again, &error), 0);
        assert_int_equal(again.length, bytes.length - garbage);
        assert_memory_equal(again.data, bytes.data + garbage, again.length);
        register_free(&copy);
        register_free(&body);
    }
    buffer_free(&bytes);
    buffer_free(&again);
}

static void test_zeroed_body_can_be_freed(void **state)
{
    struct register_body body = { 0 };
    register_free(&body);
    register_free(&body);
}

/* ---- damage ---- */

static int decode(const uint8_t *bytes, size_t length, struct error *error)
{
    struct register_body body;
    int result = register_decode(bytes, length, &body, error);
    if (result == 0)
        register_free(&body);
    return result;
}

static void test_every_bit_and_length_counts(void **state)
{
    struct register_body body = sample_register_full();
    struct buffer bytes = BUFFER_EMPTY;
    register_encode(&body, &bytes, NULL);
    register_free(&body);
    for (size_t i = 0; i < bytes.length; i++) {
        struct error error = ERROR_NONE;
        uint8_t *cut = memory_copy(bytes.data, i + 1); /* of its own, so that a read beyond is seen */
        assert_true(decode(cut, i, &error) < 0);
        assert_true(error.story[0] != '\0');
        free(cut);
        for (int bit = 0; bit < 8; bit++) {
            bytes.data[i] ^= (uint8_t)(1 << bit);
            assert_true(decode(bytes.data, bytes.length, &error) < 0);
            bytes.data[i] ^= (uint8_t)(1 << bit);
        }
    }
    buffer_put_u8(&bytes, 0);
    assert_int_equal(decode(bytes.data, bytes.length, NULL), -EBADMSG);
    buffer_free(&bytes);
}

static void test_outputs_are_untouched_on_failure(void **state)
{
    struct register_body body = sample_register(), before;
    struct buffer bytes = BUFFER_EMPTY;
    register_encode(&body, &bytes, NULL);
    register_free(&body);
    bytes.data[300] ^= 1;
    memset(&body, 0x55, sizeof(body));
    memcpy(&before, &body, sizeof(body));
    assert_int_equal(register_decode(bytes.data, bytes.length, &body, NULL), -EBADMSG);
    assert_memory_equal(&body, &before, sizeof(body));
    buffer_free(&bytes);
}

/* ---- rules ---- */

/* Where the value of a field of an encoded register begins; its header stands 8 bytes before. */
static size_t find_value(const struct buffer *bytes, uint16_t tag)
{
    size_t at = REGISTER_HEADER_BYTES;
    while ((uint16_t)load_u32le(bytes->data + at) != tag) {
        at += 8 + round_up(load_u32le(bytes->data + at + 4), 8);
        assert_true(at < bytes->length);
    }
    return at + 8;
}

struct change {
    uint16_t tag; /* 0: of the header */
    int at;       /* from the field's value on */
    int width;    /* bytes */
    uint64_t value;
    int expected;
};

static int decode_changed(const struct change *change, struct error *error)
{
    struct register_body body = sample_register_full();
    struct buffer bytes = BUFFER_EMPTY;
    register_encode(&body, &bytes, NULL);
    register_free(&body);
    size_t from = change->tag != 0 ? find_value(&bytes, change->tag) : 0;
    for (int i = 0; i < change->width; i++)
        bytes.data[(ptrdiff_t)from + change->at + i] = (uint8_t)(change->value >> (8 * i));
    register_seal(bytes.data, bytes.length);
    int result = decode(bytes.data, bytes.length, error);
    buffer_free(&bytes);
    return result;
}

static void test_rules(void **state)
{
    /* A root's fields behind its length: seq 8, size 48, next id 56, flags 64, uuid 72, object 88, epoch 96, start 112
     */
    static const struct change changes[] = {
        { 0, 8, 4, 2, -EPROTONOSUPPORT },
        { 0, 12, 4, 72, -EBADMSG },
        { 0, 16, 8, UINT64_MAX, 0 }, /* compatible features */
        { 0, 24, 8, 4, -EPROTONOSUPPORT },
        { 0, 32, 8, UINT64_MAX, 0 }, /* the owner's */
        { 0, 40, 4, 1, -EBADMSG },
        { 0, 44, 4, 24, -EBADMSG },
        { TAG_NAME, 0, 1, 0, -EBADMSG }, /* a NUL */
        { TAG_NAME, 2, 1, 1, -EBADMSG }, /* in the padding */
        { TAG_NAME, -4, 4, 4097, -EBADMSG },
        { TAG_NAME, -4, 4, UINT32_MAX, -EBADMSG },
        { TAG_NAME, -6, 2, 0, -EPROTONOSUPPORT }, /* flags */
        { TAG_NAME, -8, 2, 0, -EBADMSG },         /* a tag 0 */
        { TAG_UUID, -8, 2, TAG_NAME, -EBADMSG },  /* twice the same */
        { TAG_UUID, -8, 2, 3, -EBADMSG },
        { TAG_UUID, -4, 4, 9, -EBADMSG },
        { TAG_CREATED, -8, 2, 5, -EBADMSG },        /* missing then; 5 is optional and unknown */
        { TAG_EPOCH, -8, 2, 15, -EPROTONOSUPPORT }, /* unknown, must be understood */
        { TAG_STATE, 0, 8, 0, -EPROTONOSUPPORT },
        { TAG_STATE, 0, 8, 4, -EPROTONOSUPPORT },
        { TAG_STATE, 0, 8, UINT64_C(1) << 32 | 1, -EPROTONOSUPPORT },
        { TAG_STATE, 0, 8, REGISTER_TOMBSTONE, 0 },
        { TAG_EPOCH, 0, 8, 0, -EBADMSG },
        { TAG_EPOCH, 0, 8, NUMBER_MAX, 0 },
        { TAG_EPOCH, 0, 8, NUMBER_MAX + 1, -EBADMSG },
        { TAG_COUNTER, 0, 8, UINT64_MAX, -EBADMSG },
        { TAG_COMMITTED, 0, 8, UINT64_MAX, -EBADMSG },
        { TAG_HELD, 0, 8, 2, -EBADMSG },
        { TAG_HOST, 2, 1, 0, -EBADMSG },
        { TAG_LOCK_PATH, 14, 1, 0, -EBADMSG },
        { TAG_NEWEST, 0, 8, 111, -EBADMSG },
        { TAG_NEWEST, 0, 8, 113, -EBADMSG },
        { TAG_NEWEST, 0, 8, UINT64_MAX, -EBADMSG },
        { TAG_NEWEST, 8, 8, 2011, -EBADMSG }, /* beyond what is committed */
        { TAG_NEWEST, 8, 8, 0, -EBADMSG },
        { TAG_NEWEST, 48, 8, 0, -EBADMSG },
        { TAG_NEWEST, 48, 8, 511, -EBADMSG },
        { TAG_NEWEST, 48, 8, VOLUME_BYTES_MAX, 0 },
        { TAG_NEWEST, 48, 8, VOLUME_BYTES_MAX + 512, -EBADMSG },
        { TAG_NEWEST, 56, 8, 0, -EBADMSG },
        { TAG_NEWEST, 56, 8, 4999, -EBADMSG },
        { TAG_NEWEST, 56, 8, OBJECT_ID_READ_MAX, 0 },
        { TAG_NEWEST, 56, 8, OBJECT_ID_READ_MAX + 1, -EBADMSG },
        { TAG_NEWEST, 64, 8, 1, -EBADMSG }, /* empty, with a place */
        { TAG_NEWEST, 64, 8, 2, -EPROTONOSUPPORT },
        { TAG_NEWEST, 88, 8, 0, -EBADMSG },
        { TAG_NEWEST, 96, 8, 0, -EBADMSG },
        { TAG_NEWEST, 112, 4, OBJECT_UNITS_MAX - 8, -EBADMSG },
        { TAG_NEWEST, 116, 4, 1, -EBADMSG },
        { TAG_NEWEST, 116, 4, UINT32_MAX, -EBADMSG },
        { TAG_OLDER, 8, 8, 2001, -EBADMSG },
        { TAG_OLDER, 120, 8, 1000000, -EBADMSG },
        { TAG_COMMITTED, 0, 8, 1999, -EBADMSG },
        { TAG_PINS, 8 + 16, 8, 0, -EBADMSG },
        { TAG_PINS, 8 + 16, 8, 999, -EBADMSG }, /* before its base */
        { TAG_PINS, 8 + 24, 4, 2, -EPROTONOSUPPORT },
        { TAG_PINS, 8 + 28, 4, 1, -EBADMSG },
        { TAG_PINS, 8 + 32, 8, 1, -EBADMSG }, /* a child of nobody */
        { TAG_PINS, 0, 8, 0, -EBADMSG },
        { TAG_PINS, 0, 8, 47, -EBADMSG },
        { TAG_PARENT, -4, 4, 55, -EBADMSG },
        { 29, -6, 2, 1, -EPROTONOSUPPORT },
        { 29, 5, 1, 1, -EBADMSG }, /* padding of unknown ones too */
        { 29, 0, 4, 1, 0 },
        { 60000, -6, 2, 0xfffe, 0 },
    };
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        struct error error = ERROR_NONE;
        int result = decode_changed(&changes[i], &error);
        if (result != changes[i].expected)
            print_error("change %zu, field %u at %d: %d, %s\n", i, changes[i].tag, changes[i].at, result, error.story);
        assert_int_equal(result, changes[i].expected);
    }
}

static void test_stories_name_the_reason(void **state)
{
    struct error error = ERROR_NONE;
    decode_changed(&(struct change){ 0, 24, 8, UINT64_C(1) << 33, 0 }, &error);
    assert_non_null(strstr(error.story, "feature bit 33"));
    decode_changed(&(struct change){ 29, -6, 2, 1, 0 }, &error);
    assert_non_null(strstr(error.story, "field 29"));
    decode_changed(&(struct change){ TAG_CREATED, -8, 2, 5, 0 }, &error);
    assert_non_null(strstr(error.story, "'created' is missing"));
}

/* An older program renews a register that a newer one wrote: what it does not know stays. */
static void test_unknown_fields_survive_a_change(void **state)
{
    struct register_body body = sample_register_full(), decoded;
    struct buffer bytes = BUFFER_EMPTY, again = BUFFER_EMPTY;
    register_encode(&body, &bytes, NULL);
    assert_int_equal(register_decode(bytes.data, bytes.length, &decoded, NULL), 0);
    decoded.counter++;
    memset(decoded.write.bytes, 0x77, sizeof(decoded.write.bytes));
    register_encode(&decoded, &again, NULL);
    assert_int_equal(again.length, bytes.length);
    size_t at = find_value(&again, 29);
    assert_int_equal(at, find_value(&bytes, 29));
    assert_memory_equal(again.data + at, "hello", 5);
    assert_int_equal(find_value(&again, 60000), find_value(&bytes, 60000));
    at = find_value(&again, TAG_PINS);
    assert_memory_equal(again.data + at, bytes.data + at, 376);
    register_free(&decoded);
    register_free(&body);
    buffer_free(&bytes);
    buffer_free(&again);
}

static void test_limits(void **state)
{
    struct register_body body = sample_register(), decoded;
    struct buffer bytes = BUFFER_EMPTY;
    struct error error = ERROR_NONE;
    uint32_t most = 0;
    body.newest.seq = 1;
    body.committed = 1;
    body.older = memory_array(5000, sizeof(*body.older));
    for (uint32_t i = 0; i < 5000; i++)
        body.older[i] = (struct root){ .size = 512, .next_object_id = 1, .empty = true };
    for (body.older_count = 1; body.older_count <= 5000; body.older_count++) {
        buffer_clear(&bytes);
        if (register_encode(&body, &bytes, &error) < 0)
            break;
        most = body.older_count;
        if (body.older_count < 2050) /* the interesting ones are at the end */
            body.older_count += 100;
    }
    assert_int_equal(error.code, E2BIG);
    assert_int_equal(bytes.length, 0);
    body.older_count = most;
    assert_int_equal(register_encode(&body, &bytes, &error), 0);
    assert_true(bytes.length > REGISTER_BYTES_MAX - 200 && bytes.length <= REGISTER_BYTES_MAX);
    assert_int_equal(register_decode(bytes.data, bytes.length, &decoded, &error), 0);
    assert_int_equal(decoded.older_count, most);
    register_free(&decoded);
    register_free(&body);

    uint8_t *large = memory_new(REGISTER_BYTES_MAX + 8);
    memcpy(large, bytes.data, bytes.length);
    assert_int_equal(decode(large, REGISTER_BYTES_MAX + 8, NULL), -EBADMSG);
    free(large);
    buffer_free(&bytes);
}

static void test_longest_texts(void **state)
{
    struct register_body body = sample_register(), decoded;
    struct buffer bytes = BUFFER_EMPTY;
    struct error error = ERROR_NONE;
    memset(body.host, 'h', REGISTER_HOST_MAX - 1);
    memset(body.lock_path, 'l', REGISTER_LOCK_PATH_MAX - 1);
    free(body.name);
    body.name = memory_new(VOLUME_NAME_MAX);
    body.name_length = VOLUME_NAME_MAX;
    memset(body.name, 0xff, VOLUME_NAME_MAX);
    assert_int_equal(register_encode(&body, &bytes, &error), 0);
    assert_int_equal(register_decode(bytes.data, bytes.length, &decoded, &error), 0);
    assert_bodies_equal(&body, &decoded);
    register_free(&decoded);
    register_free(&body);
    buffer_free(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_zeroed_body_can_be_freed),
        cmocka_unit_test(test_every_bit_and_length_counts),
        cmocka_unit_test(test_outputs_are_untouched_on_failure),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_stories_name_the_reason),
        cmocka_unit_test(test_unknown_fields_survive_a_change),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_longest_texts),
    };
    return cmocka_run_group_tests_name("format_register", tests, NULL, NULL);
}
