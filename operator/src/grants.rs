//! Grants: the right of one worker to read one group of blocks from the other workers of its job, for a while.
//!
//! The text is `{end}.{signature}`: when it ends, in Unix seconds, and 128 hexadecimal digits of an Ed25519 signature of
//! [`grant_content`]. Workers check it with the public key from their passports, and need nobody for that. The key is
//! derived from the authority's private key, as the one of credentials is: what one replica gives, the workers that
//! another one welcomed take.

use std::{collections::HashMap, fmt, sync::Arc};

use aws_lc_rs::{
    error::KeyRejected,
    signature::{Ed25519KeyPair, KeyPair},
};
use hyperflow_api::{
    ids::JobUid,
    message::FromOperator,
    replica::{BlockOrder, grant_content},
};

/// How long a grant is good for.
const LIFE: u64 = 600;
/// A grant is given again for so long: who gets it has two thirds of its life left.
const FRESH: u64 = 200;
/// Makes keys that are good for nothing else. Changed with the form of what is signed.
const CONTEXT: &str = "hyperflow block grant key 2026 v1";

/// Signs grants. Cheap to clone.
#[derive(Clone)]
pub struct GrantKey {
    pair: Arc<Ed25519KeyPair>,
}

impl fmt::Debug for GrantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GrantKey")
    }
}

impl GrantKey {
    /// The key of the authority with this private key.
    ///
    /// # Errors
    /// When the cryptography does not take it: it takes all seeds.
    pub fn new(authority_key: &[u8]) -> Result<Self, KeyRejected> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&blake3::derive_key(CONTEXT, authority_key))?;
        Ok(Self { pair: Arc::new(pair) })
    }

    /// What workers check grants with: 32 bytes.
    #[must_use]
    pub fn public(&self) -> Vec<u8> {
        self.pair.public_key().as_ref().to_vec()
    }

    /// A grant that ends then. None when it cannot be signed: the worker then reads from the source.
    fn sign(&self, job: &JobUid, pod: &str, group: u32, end: u64) -> Option<String> {
        let signature = self.pair.try_sign(&grant_content(job, pod, group, end)).ok()?;
        let digits: String = signature.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Some(format!("{end}.{digits}"))
    }
}

/// The grants of one job.
#[derive(Debug)]
pub struct Grants {
    key: GrantKey,
    job: JobUid,
    given: HashMap<(String, u32), Given>,
    /// When old ones were last forgotten.
    swept: u64,
}

/// A grant that may be given again.
#[derive(Debug)]
struct Given {
    text: String,
    since: u64,
}

impl Given {
    fn is_fresh(&self, now: u64) -> bool {
        // A clock that went back makes none last longer.
        now.checked_sub(self.since).is_some_and(|age| age < FRESH)
    }
}

impl Grants {
    /// None yet.
    #[must_use]
    pub fn new(key: GrantKey, job: JobUid) -> Self {
        Self { key, job, given: HashMap::new(), swept: 0 }
    }

    /// Fills in the grants that a message to a pod's worker needs; `now` in Unix seconds.
    pub fn fill(&mut self, message: &mut FromOperator, pod: &str, now: u64) {
        let FromOperator::Orders(orders) = message else { return };
        for order in &mut orders.blocks {
            let (BlockOrder::Load { group, from, grant, .. } | BlockOrder::Access { group, from, grant }) = order
            else {
                continue;
            };
            if !from.is_empty() {
                *grant = self.give(pod, *group, now);
            }
        }
    }

    fn give(&mut self, pod: &str, group: u32, now: u64) -> String {
        self.sweep(now);
        let key = (pod.to_owned(), group);
        if let Some(given) = self.given.get(&key).filter(|given| given.is_fresh(now)) {
            return given.text.clone();
        }
        let text = self.key.sign(&self.job, pod, group, now.saturating_add(LIFE)).unwrap_or_default();
        self.given.insert(key, Given { text: text.clone(), since: now });
        text
    }

    /// Forgets what is given to nobody any more, such as to pods that are gone.
    fn sweep(&mut self, now: u64) {
        if now.abs_diff(self.swept) >= FRESH {
            self.given.retain(|_, given| given.is_fresh(now));
            self.swept = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
    use hyperflow_api::{
        message::Orders,
        replica::{Dropped, Peer},
    };

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn key() -> GrantKey {
        GrantKey::new(b"the authority's private key").unwrap()
    }

    fn grants(job: &str) -> Grants {
        Grants::new(key(), JobUid(job.into()))
    }

    /// What a worker does with a grant.
    fn is_good(text: &str, job: &str, pod: &str, group: u32) -> bool {
        let (end, digits) = text.split_once('.').unwrap();
        let signature: Vec<u8> =
            (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect();
        let content = grant_content(&JobUid(job.into()), pod, group, end.parse().unwrap());
        UnparsedPublicKey::new(&ED25519, key().public()).verify(&content, &signature).is_ok()
    }

    #[test]
    fn a_grant_is_known_by_the_public_key_and_good_for_one_group_of_one_pod_of_one_job() {
        let text = grants("job-1").give("pod-1", 7, NOW);
        assert!(is_good(&text, "job-1", "pod-1", 7));
        assert!(text.starts_with(&format!("{}.", NOW + 600)), "{text}");
        for (job, pod, group) in [("job-2", "pod-1", 7), ("job-1", "pod-2", 7), ("job-1", "pod-1", 8)] {
            assert!(!is_good(&text, job, pod, group), "{job} {pod} {group}");
        }
        let longer = text.replace(&(NOW + 600).to_string(), &(NOW + 601).to_string());
        assert!(!is_good(&longer, "job-1", "pod-1", 7), "its end is signed too");
    }

    #[test]
    fn every_replica_with_the_same_authority_has_the_same_key() {
        let given = |key: &GrantKey| key.sign(&JobUid("job-1".into()), "pod-1", 7, NOW);
        assert_eq!((key().public(), given(&key())), (key().public(), given(&key())));
        let other = GrantKey::new(b"another authority's private key").unwrap();
        assert_ne!(other.public(), key().public());
        assert_ne!(given(&other), given(&key()));
        assert_eq!(key().public().len(), 32);
    }

    #[test]
    fn a_grant_is_signed_once_in_a_while_and_old_ones_are_forgotten() {
        let mut grants = grants("job-1");
        let first = grants.give("pod-1", 7, NOW);
        assert_eq!(grants.give("pod-1", 7, NOW + 199), first);
        assert_ne!(grants.give("pod-1", 7, NOW + 200), first);
        grants.give("pod-2", 7, NOW + 500);
        assert_eq!(grants.given.len(), 1, "the one of pod-1 is old");
        assert_ne!(grants.give("pod-2", 7, NOW), first, "a clock that went back gets new ones");
    }

    #[test]
    fn orders_that_name_others_get_one_and_no_other_orders_do() {
        let from = vec![Peer { pod: "pod-2".into(), address: "10.0.0.2:7701".into() }];
        let load = |from: &[Peer]| BlockOrder::Load {
            group: 1,
            order: 1,
            from: from.to_vec(),
            source: true,
            grant: String::new(),
        };
        let blocks = vec![
            load(&from),
            load(&[]),
            BlockOrder::Access { group: 2, from: from.clone(), grant: String::new() },
            BlockOrder::Drop { group: 3, what: Dropped::Surplus },
        ];
        let mut message = FromOperator::Orders(Orders { blocks, ..Orders::default() });
        grants("job-1").fill(&mut message, "pod-1", NOW);
        let FromOperator::Orders(Orders { blocks, .. }) = message else { panic!("other orders") };
        let [
            BlockOrder::Load { grant: one, .. },
            BlockOrder::Load { grant: none, .. },
            BlockOrder::Access { grant: two, .. },
            _,
        ] = &blocks[..]
        else {
            panic!("{blocks:?}")
        };
        assert!(is_good(one, "job-1", "pod-1", 1) && is_good(two, "job-1", "pod-1", 2));
        assert_eq!(none, "");
    }
}
