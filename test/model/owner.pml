/* One owner: a process from its takeover to its end, however that comes.
 *
 * Owner 0 has created the volume: nobody was before it, so it serves at once.  Each later one takes over, at any
 * moment: after a release, a crash, or from a living owner by break-lease; without clocks these are one and the same.
 * Owners are numbered in the order of their takeovers. */

/* ---- the register's writer: one write at a time, under the condition that the body known still stands ---- */

#define is_owner(p) (reg_owner == name_of(p) && reg_epoch == epoch[p])

inline forget(p)
{
    new_root[p] = 0;
    new_content[p] = 0;
    new_horizon[p] = 0;
    new_committed[p] = 0
}

/* The write nonces of a copy differ from those of the one it was copied from. */
#define COPY_FIRST 8

inline fresh_nonce(p)
{
    if
    :: p >= OWNERS && written[p] < COPY_FIRST -> written[p] = COPY_FIRST
    :: else -> written[p]++
    fi
}

/* What the owner says: still there; perhaps a root, whose pieces it has uploaded, as of the present or of an earlier
 * entry, at which its checkpoint began; perhaps a higher horizon.  A root holds what is committed. */
inline compose(p, root, horizon)
{
    fresh_nonce(p);
    new_committed[p] = position[p];
    if
    :: root != 0 ->
        new_root[p] = root;
        if
        :: mutant(root_of_later_content) -> new_content[p] = content[p]
        :: else -> find_up_to(content[p], root, new_content[p])
        fi;
        if
        :: mutant(root_of_uncommitted) && in_flight[p] != 0 -> put(new_content[p], in_flight[p])
        :: else
        fi;
        if
        :: !mutant(root_before_pieces) -> put(pieces, root)
        :: else
        fi
    :: else
    fi;
    new_horizon[p] = horizon;
#if MUTANT == pins_forgotten || MUTANT == pins_judged_from_memory
    if
    :: has(current, p) -> seen_pins[p] = reg_pins
    :: else
    fi;
#endif
    if
    :: mutant(deleted_before_landing) ->
        judge_by_intention(p);
        condemn(p)
    :: else
    fi;
    writing[p] = SENT
}

/* The write lands: it says what the owner had to say, upon the body that it replaces. */
inline land(p)
{
    reg_owner = name_of(p);
    reg_epoch = epoch[p];
    reg_renewal = written[p];
    if
    :: new_committed[p] > reg_committed -> reg_committed = new_committed[p]
    :: else
    fi;
    if
    :: new_root[p] > reg_root ->
        reg_root = new_root[p];
        reg_content = new_content[p];
        check_root();
        put(reg_roots, reg_root);
        if
        :: mutant(base_recomputed) -> pin_base[0] = reg_root; pin_base[1] = reg_root
        :: else
        fi
    :: else
    fi;
    if
    :: new_horizon[p] > reg_horizon ->
        reg_horizon = new_horizon[p];
        if
        :: mutant(horizon_past_pins) && pin_at[0] < reg_horizon -> drop(reg_pins, 0)
        :: else
        fi
    :: else
    fi;
#if MUTANT == pins_forgotten
    reg_pins = reg_pins & seen_pins[p];
#endif
    find_base(reg_roots, reg_horizon, base_);
    reg_roots = reg_roots & ~(bit(base_) - 1); /* older roots that no state from the horizon on needs */
    if
    :: mutant(older_roots_dropped) -> reg_roots = bit(reg_root)
    :: else
    fi;
    forget(p);
    writing[p] = LANDED;
    current = bit(p);
    judge_by_register();
#if MUTANT == pins_judged_from_memory
    judged_pins = seen_pins[p];
#endif
    condemn(p)
}

/* The write was refused, or its answer did not come: the register tells what became of it.
 *   our owner nonce, our write as renewal    it landed, perhaps with a pin on top
 *   the version that it was to replace       not yet: the same is sent again
 *   our owner nonce, the renewal before      somebody has pinned: built anew upon the body read, and sent
 *   our owner nonce, another renewal         a copy of this process writes: over
 *   another owner                            over
 * While it names this owner, deletion may follow from the body read, whatever is on its way. */
inline look_what_became(p, ret_over)
{
    ret_over = false;
    if
    :: mutant(register_conflict_is_landed) && writing[p] == SENT && !has(current, p) ->
        judge_by_intention(p);
        condemn(p);
        writing[p] = IDLE
    :: !is_owner(p) && !mutant(renewal_after_conflict) ->
        forget(p);
        ret_over = true
    :: !is_owner(p) && mutant(renewal_after_conflict) -> put(current, p)
    :: is_owner(p) && reg_renewal != written[p] && reg_renewal != known[p] &&
       !mutant(renewal_ignored) ->
        check_lawful(p);
        forget(p);
        ret_over = true
    :: else ->
        judge_by_register();
        condemn(p);
        if
        :: reg_renewal == written[p] || mutant(renewal_ignored) ->
            assert(writing[p] == LANDED || (is_copied(p) && reg_renewal == written[p]));
            forget(p);
            writing[p] = IDLE
        :: else
        fi;
        known[p] = reg_renewal;
        put(current, p)
    fi
}

/* What an owner that is over knew, and nothing depends on any more: so that runs that differ in it alone are one. */
inline clear_table(p)
{
    in_flight[p] = 0;
    drop(releasing, p);
    over = false;
    result = 0;
    committed = 0;
    position[p] = 0;
    if
    :: !has(serving, p) -> content[p] = 0
    :: else
    fi;
    if
    :: !has(current, p) -> forget(p); writing[p] = IDLE; written[p] = 0; known[p] = 0
    :: else
    fi;
#if CLONES
    put(gone, p)
#endif
}

/* ---- taking over ---- */

/* The CAS that raises the epoch.  The body that it replaces, and otherwise keeps, names the newest root. */
inline take(p, ret_committed)
{
    taken++;
    reg_epoch++;
    if
    :: mutant(epoch_stands_still) -> reg_epoch--
    :: else
    fi;
    epoch[p] = reg_epoch;
    reg_owner = p;
    reg_renewal = 0;
    position[p] = reg_root;
    content[p] = reg_content;
    ret_committed = reg_committed;
    current = bit(p);
    if
    :: mutant(takeover_drops_pins) -> reg_pins = 0
    :: mutant(orphans_before_fence) -> condemn_objects(p); check_reachable()
    :: else
    fi
}

/* Reads entries upward as long as there are any. */
#define REPLAYED 0  /* to the first that is missing */
#define OWN_FENCE 1 /* to the own fence */
#define OVERTAKEN 2 /* to an entry of a later owner */

inline replay(p, ret_result)
{
    ret_result = REPLAYED;
    do
    :: entry[position[p] + 1] == ABSENT || ret_result != REPLAYED -> break
    :: else ->
        t_ = entry[position[p] + 1];
        if
        :: epoch_of(t_) > epoch[p] && !mutant(higher_epoch_ignored) -> ret_result = OVERTAKEN
        :: else ->
            position[p]++;
            if
            :: is_commit(t_) -> put(content[p], t_)
            :: t_ == fence_of(p) -> ret_result = OWN_FENCE
            :: else
            fi
        fi
    od
}

/* Whether something says that the log goes on behind its first missing entry. */
inline list_log(p, committed, ret_higher)
{
    ret_higher = committed > position[p];
    i_ = position[p] + 2;
    do
    :: i_ <= SLOTS -> ret_higher = ret_higher || entry[i_] != ABSENT; i_++
    :: else -> break
    od
}

/* ---- serving ---- */

inline send_commit(p, ret_commit)
{
    commits++;
    ret_commit = commits;
    author[ret_commit] = p;
    slot_of[ret_commit] = position[p] + 1;
    if
    :: !mutant(data_after_commit) -> put(objects, ret_commit)
    :: else
    fi
}

inline acknowledge(p, c)
{
    put(acknowledged, c);
    check_acknowledged(p, c)
}

inline finish_commit(p, c)
{
    position[p]++;
    put(content[p], c);
    if
    :: mutant(data_after_commit) -> put(objects, c)
    :: else
    fi;
    acknowledge(p, c)
}

/* ---- a copy of the whole process, as of a machine that was cloned or set back ---- */

#if CLONES
inline copy(from, p)
{
    epoch[p] = epoch[from];
    position[p] = position[from];
    content[p] = content[from];
    in_flight[p] = in_flight[from];
    put(serving, p);
    if
    :: has(releasing, from) -> put(releasing, p)
    :: else
    fi;
    /* It hears no answer to what the other has sent, and asks. */
    writing[p] = (writing[from] == IDLE -> IDLE : SENT);
    written[p] = written[from];
    known[p] = known[from];
    new_root[p] = new_root[from];
    new_content[p] = new_content[from];
    new_horizon[p] = new_horizon[from];
    new_committed[p] = new_committed[from];
    if
    :: has(current, from) && writing[from] != LANDED -> put(current, p)
    :: else
    fi
}
#endif

proctype owner(byte me)
{
    byte committed = 0; /* as the body said that this owner replaced */
    byte result = 0;
    bool over = false;
    byte root = 0;
    byte horizon = 0;

    if
    :: me == 0 -> goto serve
    :: else
    fi;
#if CLONES
    if
    :: me >= OWNERS -> atomic { !has(gone, 0) -> d_step { copy(0, me); skip }; goto serve }
    :: else
    fi;
#endif

    atomic { taken == me -> d_step { take(me, committed); skip } };
    if
    :: mutant(checkpoint_by_own_object) ->
        atomic { position[me] = reg_root; content[me] = reg_content }
    :: else
    fi;

read_log:
    atomic {
        d_step { replay(me, result) };
        if
        :: result == OVERTAKEN -> check_lawful(me); goto ended
        :: result == OWN_FENCE -> result = 0; goto look_again
        :: else
        fi
    };
    atomic {
        d_step { list_log(me, committed, result) };
        if
        :: result && mutant(damage_at_first_sight) -> check_lawful(me); goto ended
        :: result -> result = 0
        :: else ->
            if
            :: mutant(no_fence) -> goto look_again
            :: else -> put(fence_sent[me], position[me] + 1); goto await_fence
            fi
        fi
    };
    /* There are higher ones: the missing one has come, or somebody later has deleted it, or it is lost. */
    atomic {
        if
        :: entry[position[me] + 1] != ABSENT -> goto read_log
        :: else -> check_lawful(me); goto ended
        fi
    };

await_fence:
    atomic { entry[position[me] + 1] != ABSENT ->
        if
        :: mutant(entry_before_fence_skipped) && epoch_of(entry[position[me] + 1]) < epoch[me] -> position[me]++
        :: else
        fi;
        goto read_log
    };

look_again:
    atomic {
        if
        :: !is_owner(me) && !mutant(no_second_reading) -> goto ended
        :: else -> d_step { committed = 0; put(serving, me); check_served(me); skip }
        fi
    };

serve:
    do
    /* Commits: the data object is there, then the commit is sent. */
    :: atomic { in_flight[me] == 0 && commits < COMMITS && !has(releasing, me) ->
            d_step { send_commit(me, in_flight[me]) };
            if
            :: mutant(early_acknowledgement) -> d_step { acknowledge(me, in_flight[me]); skip }
            :: else
            fi
        }
    :: atomic { in_flight[me] != 0 && entry[position[me] + 1] == in_flight[me] ->
            d_step { finish_commit(me, in_flight[me]); in_flight[me] = 0; skip }
        }
    :: atomic { in_flight[me] != 0 && entry[position[me] + 1] != ABSENT &&
                entry[position[me] + 1] != in_flight[me] ->
            if
            :: mutant(commit_conflict_is_ours) ||
               (mutant(commit_told_by_nonce) && epoch_of(entry[position[me] + 1]) == epoch[me]) ->
                d_step { finish_commit(me, in_flight[me]); in_flight[me] = 0; skip }
            :: else -> check_lawful(me); goto ended
            fi
        }
    :: atomic { mutant(unknown_commit_rebatched) && in_flight[me] != 0 && entry[position[me] + 1] == ABSENT &&
                commits < COMMITS ->
            d_step { send_commit(me, in_flight[me]); skip }
        }

    /* The register's writer. */
    /* What has been published it knows from its last write: nobody else publishes while it is the owner.  One that is
     * not could begin a write as well, which would not land. */
    :: atomic { writing[me] == IDLE && is_owner(me) && !has(releasing, me) && writes < WRITES ->
            writes++;
            if
            :: in_flight[me] == 0 -> put(releasing, me)
            :: true
            fi;
            if
            :: position[me] > reg_root ->
                root = reg_root + 1;
                do
                :: root < position[me] -> root++
                :: root == position[me] || epoch_of(history[root + 1]) == epoch[me] -> break
                od
            :: true
            fi;
            horizon = reg_horizon;
            do
            :: horizon < position[me] -> horizon++
            :: true -> break
            od;
            skip;
            d_step { compose(me, root, horizon); root = 0; horizon = 0; skip }
        }
    :: atomic { writing[me] == LANDED -> /* answered */
            writing[me] = IDLE;
            known[me] = written[me];
            if
            :: has(releasing, me) -> goto ended
            :: else
            fi
        }
    :: atomic { writing[me] != IDLE -> /* refused, or not answered */
            d_step { look_what_became(me, over) };
            if
            :: over || (has(releasing, me) && writing[me] == IDLE) -> goto ended
            :: else
            fi
        }
    od;

ended:
    atomic { true; d_step { clear_table(me); skip } }
}
