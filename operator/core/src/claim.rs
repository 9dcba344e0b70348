//! Whose the names of results are (P8), and when they may become another job's (P31).
//!
//! A claim is created once, under a name that the name template decides. It is never changed: whoever takes it over from a
//! job that is gone creates a successor beside it, once for each owner. The last in the chain owns the names; commits stay
//! where the first one put them, so that a late worker of any of them meets the commits of all.

use hyperflow_api::{ids::JobUid, message::Owner};
use serde::{Deserialize, Serialize};

use crate::job::Job;

/// The content of a claim, and of a successor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Whose it is.
    pub uid: JobUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The name template.
    pub path: String,
    /// Digest of the program whose results they are.
    #[serde(default)]
    pub program: String,
    /// Where its plan is: `file:///…`.
    #[serde(default)]
    pub plan: String,
}

impl Claim {
    /// Whose it is.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner { uid: self.uid.clone(), namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

/// What a planner does about the claims that it finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nobody's: create the claim.
    Take,
    /// It is ours already, and was never another's.
    Ours,
    /// It is ours already, and was another's before: there are results.
    Heir,
    /// Create the successor of the last owner.
    Succeed,
    /// Ask the operator whether the last owner is gone.
    Ask(Owner),
    /// It stays another's.
    Refuse(Owner),
}

/// Decides from the chain of owners, the first one first; `heir_of` is the operator's word for who is gone.
#[must_use]
pub fn next(chain: &[Claim], us: &JobUid, reuse: bool, heir_of: Option<u64>) -> Next {
    let Some(last) = chain.last() else { return Next::Take };
    if last.uid == *us {
        return if chain.len() == 1 { Next::Ours } else { Next::Heir };
    }
    let owner = last.owner();
    match reuse {
        false => Next::Refuse(owner),
        true if heir_of == Some(digest(&last.uid)) => Next::Succeed,
        true => Next::Ask(owner),
    }
}

/// The first 64 bits of the BLAKE3 of a UID: by it an operator tells a worker of whom it speaks.
#[must_use]
pub fn digest(uid: &JobUid) -> u64 {
    crate::checkpoint::digest(uid.0.as_bytes())
}

/// `'file:///out/' with path 'part-{index}' belongs to ShardJob 'x', uid 5b1e0c44`, then `rest`, and the last remedy.
#[must_use]
pub fn belongs(job: &Job, owner: &Owner, rest: &str) -> String {
    let (url, path) = job.output.as_ref().map_or(("", ""), |output| (&output.url, &output.path));
    let uid = owner.uid.0.get(..8).unwrap_or(&owner.uid.0);
    format!(
        "'{url}' with path '{path}' belongs to ShardJob '{}', uid {uid}{rest}, or choose another `spec.output.url`.",
        owner.name
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(uid: &str) -> Claim {
        let (path, program, plan) = ("part-{index}".into(), "copy/1".into(), String::new());
        Claim { uid: JobUid(uid.into()), namespace: "n".into(), name: uid.into(), path, program, plan }
    }

    #[test]
    fn a_claim_is_taken_over_only_from_the_last_owner_who_is_known_to_be_gone() {
        let (a, b, us) = (claim("a"), claim("b"), JobUid("us".into()));
        assert_eq!(next(&[], &us, true, None), Next::Take);
        assert_eq!(next(&[claim("us")], &us, true, None), Next::Ours);
        assert_eq!(next(&[a.clone(), claim("us")], &us, false, None), Next::Heir);
        let gone = Some(digest(&a.uid));
        assert_eq!(next(std::slice::from_ref(&a), &us, true, gone), Next::Succeed);
        for (chain, reuse, heir_of) in [(vec![a.clone(), b.clone()], true, gone), (vec![a.clone()], true, None)] {
            assert!(matches!(next(&chain, &us, reuse, heir_of), Next::Ask(_)), "{chain:?}");
        }
        assert!(matches!(next(&[a], &us, false, gone), Next::Refuse(_)));
    }
}
