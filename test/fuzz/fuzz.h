/* What every fuzz target has.
 *
 * A target is one function over bytes that nobody can trust.  It lives in a file
 * fuzz_<name>.c, and its seeds in corpus/<name>/.  With Clang and the option
 * `fuzz` it is linked with libFuzzer; in every build replay.c runs it over its
 * seeds, as one of the unit tests.
 *
 * Checksums guard what the decoders read, so a mutation alone would never get
 * past them: each target first tries the bytes as they are, then seals them anew
 * and tries again. What is accepted must hold what the decoder promises, and
 * be encoded again to the same bytes. */
#ifndef CAIRN_TEST_FUZZ_H
#define CAIRN_TEST_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A promise that was broken; unlike an assertion of the code under test, one about it. */
#define PROMISE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, #condition);                            \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

#endif
