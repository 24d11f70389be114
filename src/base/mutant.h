/* Deliberate bugs, for the test of the tests.
 *
 * MUTANT(NAME) is a constant 0 in every program that is shipped.  The
 * simulator's second build defines CAIRN_MUTANTS; there it is true when the
 * mutant of that name was asked for, and the line beside it does something
 * wrong on purpose.  `make test` demands that the simulator catches each. */
#ifndef CAIRN_BASE_MUTANT_H
#define CAIRN_BASE_MUTANT_H

#ifdef CAIRN_MUTANTS
#include <string.h>
extern const char *mutant_active; /* NULL or a name */
#define MUTANT(name) (mutant_active != NULL && strcmp(mutant_active, #name) == 0)
#else
#define MUTANT(name) 0
#endif

#endif
