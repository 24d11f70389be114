/* See mutants.h.  A mutant is caught when a run breaks a promise, aborts, or hangs. */
#include "mutants.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mutant.h"
#include "seeds.h"

#define LINE 256
#define MUTANTS_MAX 64

struct mutant {
    char name[64];
    uint64_t seed;
    char what[LINE];
};

static bool parse_line(const char *line, struct mutant *ret_mutant)
{
    struct mutant mutant = { .seed = 0 };
    if (sscanf(line, "%63s %" SCNu64 " %255[^\n]", mutant.name, &mutant.seed, mutant.what) != 3 || line[0] == '#')
        return false;
    *ret_mutant = mutant;
    return true;
}

static bool catches(const struct mutant *mutant, uint64_t seed)
{
    mutant_active = mutant->name;
    bool caught = runner_run(seed_quietly, NULL, seed, 1, 1, false).failed > 0;
    mutant_active = NULL;
    return caught;
}

/* The first seed that catches it; 0: none does. */
static uint64_t search_for(const struct mutant *mutant, uint64_t count)
{
    for (uint64_t seed = 1; seed <= count; seed++)
        if (catches(mutant, seed))
            return seed;
    return 0;
}

static bool try_mutant(const struct mutant *mutant, uint64_t search)
{
    bool caught = mutant->seed != 0 && catches(mutant, mutant->seed);
    uint64_t seed = mutant->seed;
    if (!caught && search > 0) {
        seed = search_for(mutant, search);
        caught = seed != 0;
    }
    printf("%-28s %8" PRIu64 "  %-10s %s\n", mutant->name, seed, caught ? "caught" : "NOT CAUGHT", mutant->what);
    fflush(stdout);
    return caught;
}

/* All of them, before the first child: children share what a stream has not read yet. */
static size_t read_file(const char *file, const char *only, struct mutant *ret_mutants)
{
    char line[LINE];
    size_t count = 0;
    FILE *in = fopen(file, "re");
    if (in == NULL) {
        perror(file);
        return 0;
    }
    while (count < MUTANTS_MAX && fgets(line, sizeof line, in) != NULL)
        if (parse_line(line, &ret_mutants[count]) && (only == NULL || strcmp(only, ret_mutants[count].name) == 0))
            count++;
    fclose(in);
    return count;
}

struct trial {
    struct mutant mutants[MUTANTS_MAX];
    uint64_t search;
};

static bool try_one(void *arg, uint64_t number)
{
    const struct trial *trial = arg;
    return try_mutant(&trial->mutants[number], trial->search);
}

struct runner_result mutants_run(const char *file, const char *only, uint64_t search, int jobs)
{
    static struct trial trial;
    trial.search = search;
    size_t count = read_file(file, only, trial.mutants);
    if (count == 0)
        return (struct runner_result){ .failed = 1 };
    printf("%-28s %8s  %-10s %s\n", "mutant", "seed", "", "what it does");
    return runner_run(try_one, &trial, 0, count, jobs, true);
}

bool mutant_seed(const char *name, uint64_t seed, bool verbose)
{
    mutant_active = name;
    return seed_run(seed, verbose);
}
