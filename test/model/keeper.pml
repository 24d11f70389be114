/* A third party: pins a state, later drops the pin.  Each step is one CAS of the register. */

/* What may be pinned at `at` by the body that stands there now: an entry that exists, from the horizon on, with the
 * newest root below it; or one that is pinned already, with the same base. */
inline choose_base(me, at, ret_base)
{
    ret_base = 255;
    if
    :: entry[at] != ABSENT && (at >= reg_horizon || mutant(pin_below_horizon)) ->
        if
        :: mutant(pin_below_horizon) && at < reg_horizon -> ret_base = 0
        :: else -> find_base(reg_roots, at, ret_base)
        fi
    :: at < reg_horizon && has(reg_pins, 1 - me) && pin_at[1 - me] == at -> ret_base = pin_base[1 - me]
    :: else
    fi
}

#define RENEWED_BY_PIN 255

inline pin(me, at, base)
{
    put(reg_pins, me);
    pin_at[me] = at;
    pin_base[me] = base;
    put(promised, me);
    if
    :: mutant(pin_counts_as_renewal) -> reg_renewal = RENEWED_BY_PIN
    :: else
    fi;
    current = 0;
    check_reachable()
}

inline unpin(me)
{
    drop(promised, me);
    drop(reg_pins, me);
    pin_at[me] = 0;
    pin_base[me] = 0;
    current = 0
}

proctype keeper(byte me)
{
    byte at = 0, base = 0;

choose:
    atomic {
        select(at : 1 .. SLOTS);
        skip;
        d_step { choose_base(me, at, base) };
        if
        :: base == 255 -> at = 0; base = 0; goto choose
        :: else -> put(current, keeper_number(me))
        fi
    };
    atomic {
        if
        :: has(current, keeper_number(me)) || mutant(pin_resent_blindly) ->
            d_step { pin(me, at, base); at = 0; base = 0; skip }
        :: else -> at = 0; base = 0; goto choose /* refused: from the beginning, upon what stands there now */
        fi
    };
    atomic { d_step { unpin(me); skip } }
}
