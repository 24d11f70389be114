/* What an owner may delete, by the body of the register that has landed and names it.
 *
 *   a commit's entry   at or below the base of the horizon, and in no pin's replay range
 *   a root's pieces    older than the newest root, and of no root that the register names, as pins' bases or otherwise
 *   a data object      died at or below the horizon, and no pin lies in [born, died); or an orphan: of an older owner,
 *                      and of no commit that the present owner knows
 *   never              a fence, nor the register, nor what the own epoch has uploaded and not yet committed
 *
 * Condemned objects and pieces count as gone at once: nobody writes them again, nobody looks whether they are there, so
 * a DELETE that happens later is seen by fewer.  Log keys are put to again by late PUTs and read by contenders: theirs
 * stay in `doomed`, and the DELETE happens whenever it likes. */

/* The body by which deletion is judged. */
hidden short judged_roots; hidden byte judged_root; hidden byte judged_horizon; hidden byte judged_pins;

/* Whether a pin keeps what is there in the states from `born` to before `died`. */
inline find_pin(born, died, ret_pinned)
{
    ret_pinned = 0;
    k_ = 0;
    do
    :: k_ < KEEPERS ->
        if
        :: has(judged_pins, k_) && born <= pin_at[k_] && pin_at[k_] < died -> ret_pinned = 1
        :: else
        fi;
        k_++
    :: else -> break
    od
}

/* The seq of the first commit after `c`, among those that the owner knows, that writes the same page; 255: none. */
inline find_death(p, c, ret_died)
{
    ret_died = 255;
    k_ = 1;
    do
    :: k_ <= COMMITS ->
        if
        :: has(content[p], k_) && page_of(k_) == page_of(c) && slot_of[k_] > slot_of[c] && slot_of[k_] < ret_died ->
            ret_died = slot_of[k_]
        :: else
        fi;
        k_++
    :: else -> break
    od
}

inline condemn_entries()
{
    find_base(judged_roots, judged_horizon, base_);
    i_ = 1;
    do
    :: i_ <= base_ ->
        /* replaying up to a pin at t reads the entries (base, t] */
        kept_ = 0;
        j_ = 0;
        do
        :: j_ < KEEPERS ->
            if
            :: has(judged_pins, j_) && has(between(pin_base[j_], pin_at[j_]), i_) && !mutant(entries_of_pins_deleted) ->
                kept_ = 1
            :: else
            fi;
            j_++
        :: else -> break
        od;
        if
        :: (is_commit(history[i_]) || mutant(fences_deleted)) && !kept_ -> put(doomed, i_)
        :: else
        fi;
        i_++
    :: else -> break
    od
}

inline condemn_pieces()
{
    set_ = judged_roots;
    j_ = 0;
    do
    :: j_ < KEEPERS ->
        if
        :: has(judged_pins, j_) && !mutant(pieces_of_pins_deleted) -> put(set_, pin_base[j_])
        :: else
        fi;
        j_++
    :: else -> break
    od;
    if
    :: mutant(unpublished_pieces_deleted) -> pieces = pieces & set_
    :: else -> pieces = pieces & (set_ | ~up_to(judged_root))
    fi
}

inline condemn_objects(p)
{
    i_ = 1;
    do
    :: i_ <= commits ->
        if
        :: has(content[p], i_) ->
            find_death(p, i_, died_);
            find_pin(slot_of[i_], died_, kept_);
            if
            :: died_ <= judged_horizon && (!kept_ || mutant(objects_of_pins_deleted)) -> drop(objects, i_)
            :: died_ < 255 && mutant(horizon_ignored) && !kept_ -> drop(objects, i_)
            :: else
            fi
        :: !has(content[p], i_) && (epoch[author[i_]] < epoch[p] || mutant(own_uncommitted_deleted)) ->
            drop(objects, i_)
        :: else
        fi;
        i_++
    :: else -> break
    od
}

inline judge_by_register()
{
    judged_roots = reg_roots;
    judged_root = reg_root;
    judged_horizon = reg_horizon;
    judged_pins = reg_pins
}

/* By what the owner has sent: right only when it has landed. */
inline judge_by_intention(p)
{
    judge_by_register();
    if
    :: new_root[p] > reg_root -> judged_root = new_root[p]; put(judged_roots, judged_root)
    :: else
    fi;
    if
    :: new_horizon[p] > reg_horizon -> judged_horizon = new_horizon[p]
    :: else
    fi
}

inline condemn(p)
{
    /* Not beside a copy. */
    if
    :: DELETION || mutant(entries_deleted_beside_copy) -> condemn_entries()
    :: else
    fi;
    condemn_pieces();
    condemn_objects(p);
    check_reachable()
}
