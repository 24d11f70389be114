/* What must hold, asserted where it could break.
 *
 *   check_served    when an owner begins to serve: it has the commits of the log's history and nothing else, every
 *                   acknowledged one among them, and can read each page.
 *   check_acknowledged  when a commit is acknowledged: every later owner that serves has it, and it is what the log's
 *                   history has at its number.
 *   check_root      when a root is published: it is the state of the entry that it names, of committed ones alone.
 *   check_reachable when something was condemned, or the register changed: the newest state, every state from the
 *                   horizon on, and every pinned state can be reconstructed.
 *   check_lawful    when somebody finds that it is fenced, overtaken or before a damaged log: it is not the one whom
 *                   the register names.  So a lawful owner is never fenced by a stale contender, and no sound log is
 *                   ever called damaged.  (The register names both a process and its copy, and one must go.) */

#define check_lawful(p) assert(!is_owner(p) || is_copied(p))

/* The commits that the entries up to `seq` hold. */
inline find_history(seq, ret_set)
{
    ret_set = 0;
    i_ = 1;
    do
    :: i_ <= seq ->
        if
        :: is_commit(history[i_]) -> put(ret_set, history[i_])
        :: else
        fi;
        i_++
    :: else -> break
    od
}

/* The objects that hold the pages of the disk after the entry `seq`: in each page the last commit that wrote it. */
inline find_visible(seq, ret_set)
{
    ret_set = 0;
    held_ = 0; /* pages found */
    i_ = seq;
    do
    :: i_ > 0 ->
        if
        :: is_commit(history[i_]) && !has(held_, page_of(history[i_])) ->
            put(held_, page_of(history[i_]));
            put(ret_set, history[i_])
        :: else
        fi;
        i_--
    :: else -> break
    od
}

/* From the root `base` and the entries above it to the disk after the entry `seq`. */
inline check_state(base, seq)
{
    assert(base <= seq);
    assert(has(pieces, base));
    assert((doomed & between(base, seq)) == 0);
    find_visible(seq, set_);
    assert((set_ & ~objects) == 0)
}

inline check_reachable()
{
    top_ = 0;
    do
    :: top_ < SLOTS && history[top_ + 1] != ABSENT -> top_++
    :: else -> break
    od;
    t_ = reg_horizon;
    do
    :: t_ <= top_ ->
        find_base(reg_roots, t_, base_);
        check_state(base_, t_);
        t_++
    :: else -> break
    od;
    j_ = 0;
    do
    :: j_ < KEEPERS ->
        if
        :: has(promised, j_) ->
            assert(has(reg_pins, j_));
            check_state(pin_base[j_], pin_at[j_])
        :: else
        fi;
        j_++
    :: else -> break
    od
}

inline check_served(p)
{
    find_history(position[p], set_);
    assert(content[p] == set_);
    assert((acknowledged & ~content[p]) == 0);
    find_visible(position[p], set_);
    assert((set_ & ~objects) == 0)
}

inline check_acknowledged(p, c)
{
    j_ = 0;
    do
    :: j_ < OWNERS ->
        assert(!has(serving, j_) || epoch[j_] <= epoch[p] || has(content[j_], c));
        j_++
    :: else -> break
    od;
    assert(history[slot_of[c]] == c)
}

inline check_root()
{
    find_history(reg_root, set_);
    assert(reg_content == set_)
}
