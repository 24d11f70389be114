/* Which deliberate bug is active, in builds that have them: see base/mutant.h. */
#include "base/mutant.h"

#ifdef CAIRN_MUTANTS
const char *mutant_active;
#endif
