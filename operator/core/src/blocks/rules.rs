//! What is done about a copy of a group: one table, one function.
//!
//! | the store reports | and | do |
//! | --- | --- | --- |
//! | by another plan, or nothing yet | | postpone: not counted, nothing deleted |
//! | whole, of the recorded digest | not more copies than wanted | count it |
//! | the same, and old or damaged replicas beside it | enough confirmed | drop those |
//! | the same | more confirmed than wanted, it is the first to go, and every store in session has told | drop it |
//! | whole, of another digest | enough confirmed elsewhere | drop it; until then keep it, uncounted |
//! | old, damaged or incomplete | too few copies | load: only what differs moves |
//! | old or damaged, and nothing good | enough confirmed elsewhere | drop the old and the damaged |
//! | some good ones | enough confirmed elsewhere | drop it |
//! | old, damaged or incomplete | neither | keep it: it may be the last |
//!
//! "Confirmed" copies are those that a store in session has told by an inventory in this term. Nothing is ever deleted
//! before a status of this term is stored (P29).

use hyperflow_api::replica::{Dropped, GroupHeld};

/// What a store has of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copy {
    /// Nothing.
    Missing,
    /// All of it, of the plan's version and the recorded digest.
    Ready,
    /// Not all of it, and nothing wrong.
    Partial,
    /// Something of another version.
    Stale,
    /// Something damaged.
    Corrupt,
    /// All of it, says the store, and other bytes than others have.
    Odd,
}

impl Copy {
    /// `digest` is what whole copies have, if there was one.
    pub(crate) fn of(held: &GroupHeld, digest: Option<u64>) -> Self {
        let whole = held.good >= held.blocks;
        match held {
            _ if whole && (held.blocks == 0 || digest.is_none_or(|digest| digest == held.digest)) => Self::Ready,
            _ if whole => Self::Odd,
            held if held.corrupt > 0 => Self::Corrupt,
            held if held.stale > 0 => Self::Stale,
            held if held.good > 0 => Self::Partial,
            _ => Self::Missing,
        }
    }
}

/// A copy and all that decides on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) copy: Copy,
    /// Replicas of the plan's version are there.
    pub(crate) some_good: bool,
    /// Old or damaged ones are there.
    pub(crate) leftovers: bool,
    /// The store has told what it has, by the plan in force and in this term.
    pub(crate) confirmed: bool,
    /// Confirmed whole copies on other nodes.
    pub(crate) elsewhere: usize,
    /// Copies wanted.
    pub(crate) wanted: usize,
    /// Fewer copies are known, or are being made, than wanted; or they are in fewer zones, and this one is in another.
    pub(crate) too_few: bool,
    /// Of all confirmed whole copies it is the farthest by rendezvous; the second ones on a node or in a zone come first.
    pub(crate) farthest: bool,
    /// Every store in session has told what it has.
    pub(crate) all_told: bool,
    /// A status of this term is stored.
    pub(crate) term_is_stored: bool,
}

/// What to do about a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Not counted, nothing deleted.
    Postpone,
    /// It is a copy.
    Count,
    /// It is none, and stays.
    Keep,
    /// It may be loaded.
    Load,
    /// It goes.
    Drop(Dropped),
}

/// The table above.
pub(crate) fn judge(case: Case) -> Rule {
    let Case { elsewhere, wanted, .. } = case;
    let may_drop = case.term_is_stored;
    match case.copy {
        _ if !case.confirmed => Rule::Postpone,
        Copy::Ready if may_drop && elsewhere >= wanted && case.farthest && case.all_told => {
            Rule::Drop(Dropped::Surplus)
        }
        Copy::Ready if may_drop && case.leftovers && elsewhere + 1 >= wanted => Rule::Drop(Dropped::Outdated),
        Copy::Ready => Rule::Count,
        Copy::Odd if may_drop && elsewhere >= wanted => Rule::Drop(Dropped::Surplus),
        Copy::Odd => Rule::Keep,
        _ if case.too_few => Rule::Load,
        Copy::Missing => Rule::Keep,
        _ if may_drop && elsewhere >= wanted && case.some_good => Rule::Drop(Dropped::Surplus),
        _ if may_drop && elsewhere >= wanted => Rule::Drop(Dropped::Outdated),
        _ => Rule::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASE: Case = Case {
        copy: Copy::Ready,
        some_good: true,
        leftovers: false,
        confirmed: true,
        elsewhere: 1,
        wanted: 2,
        too_few: false,
        farthest: false,
        all_told: true,
        term_is_stored: true,
    };
    const SURPLUS: Rule = Rule::Drop(Dropped::Surplus);
    const OUTDATED: Rule = Rule::Drop(Dropped::Outdated);

    #[test]
    fn a_copy_is_ready_only_when_it_is_whole_and_the_same() {
        let held = |blocks, good, stale, corrupt| GroupHeld {
            blocks,
            good,
            stale,
            corrupt,
            digest: 7,
            ..GroupHeld::default()
        };
        let cases = [
            (held(2, 2, 0, 0), None, Copy::Ready),
            (held(2, 2, 0, 0), Some(7), Copy::Ready),
            (held(2, 2, 0, 0), Some(8), Copy::Odd),
            (held(0, 0, 0, 0), Some(8), Copy::Ready),
            (held(2, 2, 1, 0), Some(7), Copy::Ready),
            (held(2, 1, 1, 0), Some(7), Copy::Stale),
            (held(2, 0, 1, 1), None, Copy::Corrupt),
            (held(2, 1, 0, 0), None, Copy::Partial),
            (held(2, 0, 0, 0), None, Copy::Missing),
        ];
        for (held, digest, copy) in cases {
            assert_eq!(Copy::of(&held, digest), copy, "{held:?}");
        }
    }

    #[test]
    fn what_was_not_told_by_the_plan_in_force_is_postponed() {
        for copy in [Copy::Ready, Copy::Stale, Copy::Corrupt, Copy::Odd, Copy::Partial] {
            let case = Case { copy, confirmed: false, elsewhere: 5, farthest: true, too_few: true, ..CASE };
            assert_eq!(judge(case), Rule::Postpone);
        }
    }

    #[test]
    fn only_the_farthest_of_more_than_wanted_goes_and_only_when_all_have_told() {
        let more = Case { elsewhere: 2, farthest: true, ..CASE };
        assert_eq!(judge(more), SURPLUS);
        assert_eq!(judge(Case { elsewhere: 1, ..more }), Rule::Count);
        assert_eq!(judge(Case { farthest: false, ..more }), Rule::Count);
        assert_eq!(judge(Case { all_told: false, ..more }), Rule::Count);
        assert_eq!(judge(Case { term_is_stored: false, ..more }), Rule::Count);
    }

    #[test]
    fn what_is_left_beside_a_whole_copy_goes_when_there_are_enough() {
        let beside = Case { leftovers: true, ..CASE };
        assert_eq!(judge(beside), OUTDATED);
        assert_eq!(judge(Case { elsewhere: 0, ..beside }), Rule::Count);
    }

    #[test]
    fn other_bytes_go_only_when_enough_others_agree() {
        let odd = Case { copy: Copy::Odd, too_few: true, ..CASE };
        assert_eq!(judge(odd), Rule::Keep, "a load would find nothing to do");
        assert_eq!(judge(Case { elsewhere: 2, too_few: false, ..odd }), SURPLUS);
    }

    #[test]
    fn what_is_not_whole_is_loaded_when_too_few_and_else_goes_when_the_group_is_clean() {
        for copy in [Copy::Stale, Copy::Corrupt] {
            let bad = Case { copy, some_good: false, leftovers: true, ..CASE };
            assert_eq!(judge(Case { too_few: true, ..bad }), Rule::Load);
            assert_eq!(judge(bad), Rule::Keep, "only one other is confirmed");
            assert_eq!(judge(Case { elsewhere: 2, ..bad }), OUTDATED);
            assert_eq!(judge(Case { elsewhere: 2, some_good: true, ..bad }), SURPLUS);
            assert_eq!(judge(Case { elsewhere: 2, term_is_stored: false, ..bad }), Rule::Keep);
        }
        assert_eq!(judge(Case { copy: Copy::Partial, too_few: true, ..CASE }), Rule::Load);
        assert_eq!(judge(Case { copy: Copy::Missing, too_few: true, ..CASE }), Rule::Load);
        assert_eq!(judge(Case { copy: Copy::Missing, elsewhere: 2, ..CASE }), Rule::Keep);
    }
}
