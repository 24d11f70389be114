/* The simulator's command line.
 *
 *     sim --seeds N [--first S] [--jobs J]    N runs, each from its seed
 *     sim --seed S [-v]                       one of them again, with its whole trace
 *     sim --check-determinism [--seeds N]     runs twice: the same seed gives the same trace
 *     sim --crash-points [--jobs J]           an accident at every store request of a short run
 *     sim --crash-pairs [--jobs J]            the same, with a second crash soon after: takes minutes
 *     sim --mutants [--search N]              deliberate bugs: each must be caught
 *     sim --only MUTANT --seed S [-v]         how one of them breaks a run
 *
 * The last line of output is "N passed, N failed, N skipped"; the exit status
 * is 0 when nothing failed. */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "crash_points.h"
#include "mutants.h"
#include "runner.h"
#include "scenario.h"
#include "seeds.h"

#define DEFAULT_JOBS 2
#define DEFAULT_SEARCH 100 /* seeds for a mutant that its recorded one does not catch any more */

static int usage(FILE *out, int status)
{
    fputs("usage: sim --seeds N [--first S] [--jobs J]\n"
          "       sim --seed S [-v]\n"
          "       sim --check-determinism [--seeds N] [--first S] [--jobs J]\n"
          "       sim --crash-points | --crash-pairs [--jobs J] [--point P [-v]]\n"
          "       sim --mutants [--file FILE] [--only NAME] [--search N] [--jobs J]\n"
          "       sim --only NAME --seed S [-v]\n",
          out);
    return status;
}

static int tell(struct runner_result result)
{
    printf("%" PRIu64 " passed, %" PRIu64 " failed, 0 skipped\n", result.passed, result.failed);
    return result.failed == 0 ? 0 : 1;
}

struct options {
    uint64_t seeds, first, seed, search, point;
    bool has_seed, has_point, verbose, determinism, crash_points, pairs, mutants;
    int jobs;
    const char *file, *only;
};

static bool parse(int argc, char **argv, struct options *ret_options)
{
    static const struct option longs[] = {
        { "seeds", required_argument, NULL, 'n' },
        { "first", required_argument, NULL, 'f' },
        { "seed", required_argument, NULL, 's' },
        { "jobs", required_argument, NULL, 'j' },
        { "check-determinism", no_argument, NULL, 'd' },
        { "crash-points", no_argument, NULL, 'c' },
        { "point", required_argument, NULL, 'p' },
        { "crash-pairs", no_argument, NULL, 'P' },
        { "mutants", no_argument, NULL, 'm' },
        { "file", required_argument, NULL, 'F' },
        { "only", required_argument, NULL, 'o' },
        { "search", required_argument, NULL, 'S' },
        { NULL, 0, NULL, 0 },
    };
    struct options options = {
        .seeds = 100, .first = 1, .jobs = DEFAULT_JOBS, .search = DEFAULT_SEARCH, .file = MUTANTS_FILE
    };
    int letter;
    while ((letter = getopt_long(argc, argv, "v", longs, NULL)) != -1) {
        uint64_t number = optarg != NULL ? strtoull(optarg, NULL, 10) : 0;
        switch (letter) {
        case 'n':
            options.seeds = number;
            break;
        case 'f':
            options.first = number;
            break;
        case 's':
            options.seed = number;
            options.has_seed = true;
            break;
        case 'j':
            options.jobs = (int)number;
            break;
        case 'd':
            options.determinism = true;
            break;
        case 'c':
            options.crash_points = true;
            break;
        case 'p':
            options.point = number;
            options.has_point = true;
            break;
        case 'P':
            options.crash_points = true;
            options.pairs = true;
            break;
        case 'm':
            options.mutants = true;
            break;
        case 'F':
            options.file = optarg;
            break;
        case 'o':
            options.only = optarg;
            break;
        case 'S':
            options.search = number;
            break;
        case 'v':
            options.verbose = true;
            break;
        default:
            return false;
        }
    }
    *ret_options = options;
    return optind == argc;
}

int main(int argc, char **argv)
{
    struct options options;
    if (!parse(argc, argv, &options))
        return usage(stderr, 2);
    if (options.has_seed && options.only != NULL)
        return mutant_seed(options.only, options.seed, options.verbose) ? 0 : 1;
    if (options.mutants)
        return tell(mutants_run(options.file, options.only, options.search, options.jobs));
    if (options.crash_points && options.has_point)
        return crash_points_one(options.point, options.verbose) ? 0 : 1;
    if (options.crash_points)
        return tell(options.pairs ? crash_pairs_run(options.jobs) : crash_points_run(options.jobs));
    if (options.has_seed)
        return seed_run(options.seed, options.verbose) ? 0 : 1;
    seeds_count();
    struct runner_result result = runner_run(options.determinism ? seed_twice : seed_quietly, NULL, options.first,
                                             options.seeds, options.jobs, true);
    seeds_tell(stdout);
    return tell(result);
}
