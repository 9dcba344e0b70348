//! How many pods there should be, and which must go.

use std::collections::{BTreeMap, BTreeSet};

use super::{Coordinator, Effect, Pod, WantedPods};
use crate::Now;

/// How long a refusal of the API server is shown after the last one.
const REFUSAL_MILLIS: u64 = 60_000;

/// The pods of a job as they are known, and those asked for.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pods: BTreeMap<String, Pod>,
    /// Names asked for and not seen yet: our own writes take time to come back by the watch.
    expected: BTreeSet<String>,
    seed: u64,
    drawn: u64,
    seen: bool,
    /// Reason and message of the last refusal to create a pod, and when.
    pub(crate) refused: Option<(String, String, u64)>,
}

impl Pool {
    pub(super) fn new(seed: u64) -> Self {
        let (pods, expected) = (BTreeMap::new(), BTreeSet::new());
        Self { pods, expected, seed, drawn: 0, seen: false, refused: None }
    }

    pub(super) fn knows(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    pub(super) fn is_leaving(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|pod| pod.leaving)
    }

    pub(crate) fn node(&self, uid: &str) -> Option<&str> {
        self.pods.get(uid)?.node.as_deref()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.seen && self.pods.is_empty() && self.expected.is_empty()
    }

    /// Every pod that is to stay satisfies this, and there are some.
    pub(super) fn all(&self, satisfies: impl Fn(&str) -> bool) -> bool {
        let mut staying = self.pods.values().filter(|pod| !pod.leaving).peekable();
        self.seen && staying.peek().is_some() && staying.all(|pod| satisfies(&pod.uid))
    }

    pub(crate) fn current(&self) -> usize {
        self.pods.len()
    }

    /// Why pods do not run, from the first that says so.
    pub(crate) fn trouble(&self) -> Option<&(String, String)> {
        self.pods.values().filter(|pod| !pod.leaving).find_map(|pod| pod.trouble.as_ref())
    }

    /// A name that no pod of this job ever had (B7: identities are not used again).
    fn draw_name(&mut self, job: &str) -> String {
        const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
        self.drawn += 1;
        let hash = blake3::hash(&[self.seed.to_be_bytes(), self.drawn.to_be_bytes()].concat());
        let letters = hash.as_bytes()[..8].iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)]));
        format!("{job}-{}", letters.collect::<String>())
    }
}

impl Coordinator {
    pub(super) fn pods_seen(&mut self, now: Now, pods: Vec<Pod>, effects: &mut Vec<Effect>) {
        let pods: BTreeMap<String, Pod> = pods.into_iter().map(|pod| (pod.uid.clone(), pod)).collect();
        if self.pool.seen && self.pool.pods == pods {
            return;
        }
        let gone = |uid: &String| !pods.contains_key(uid);
        let lost: Vec<String> = self.pool.pods.keys().filter(|uid| gone(uid)).cloned().collect();
        for pod in pods.values() {
            self.pool.expected.remove(&pod.name);
        }
        self.pool.pods = pods;
        self.pool.seen = true;
        for uid in lost {
            let seats: Vec<_> =
                self.workers.iter().filter(|(_, worker)| worker.id.pod_uid == uid).map(|(&seat, _)| seat).collect();
            for seat in seats {
                self.lose_worker(now, seat);
            }
        }
        self.writer.touch();
        self.welcome_known(now, effects);
    }

    pub(super) fn pod_refused(&mut self, now: Now, reason: String, message: String) {
        let known = self.pool.refused.as_ref().is_some_and(|(was, _, _)| *was == reason);
        if !known {
            self.announce(true, "WorkerRefused", format!("{reason}: {message}"));
            self.writer.touch();
        }
        self.pool.refused = Some((reason, message, now.millis));
    }

    /// Pods there should be now.
    pub(crate) fn desired(&self) -> usize {
        if self.conclusion.is_some() || self.seen.deleting {
            return 0;
        }
        let slots = u64::from(self.job.slots);
        let shards = u64::from(self.shards.total() - self.shards.done().len() - self.shards.failed().len());
        let needed = match (&self.plan, &self.verdict) {
            (None, None) | (Some(_), Some(_)) => 1,
            (Some(_), None) => shards.div_ceil(slots),
            (None, Some(_)) => 0,
        };
        usize::try_from(needed.min(u64::from(self.job.parallelism))).unwrap_or(usize::MAX)
    }

    /// What the pool should be: asked after every look at the cluster, answered from all that is known.
    pub fn wanted_pods(&mut self, now: Now) -> WantedPods {
        if !self.pool.seen || !self.writer.term_is_stored() {
            return WantedPods::default();
        }
        if self.pool.refused.as_ref().is_some_and(|(_, _, at)| now.millis >= at + REFUSAL_MILLIS) {
            self.pool.refused = None;
            self.writer.touch();
        }
        let desired = self.desired();
        let staying = self.pool.pods.values().filter(|pod| !pod.leaving).count();
        while staying + self.pool.expected.len() > desired && self.pool.expected.pop_last().is_some() {}
        while staying + self.pool.expected.len() < desired {
            let name = self.pool.draw_name(&self.seen.name);
            self.pool.expected.insert(name);
        }
        WantedPods {
            create: self.pool.expected.iter().cloned().collect(),
            delete: self.surplus(staying.saturating_sub(desired)),
        }
    }

    /// The pods to delete: those without a session first, then the least busy, so that as little as possible moves. A
    /// pool that shrinks only because work runs out keeps its pods until the end: they hold what may still be needed.
    fn surplus(&self, count: usize) -> Vec<(String, String)> {
        let shrinking = self.conclusion.is_some() || self.pool.pods.len() > self.job.parallelism as usize;
        if count == 0 || !shrinking {
            return Vec::new();
        }
        let busy = |uid: &str| {
            let worker = self.workers.values().find(|worker| worker.id.pod_uid == uid);
            worker.map_or((false, 0), |worker| (worker.session.is_some(), worker.held.len()))
        };
        let mut pods: Vec<&Pod> = self.pool.pods.values().filter(|pod| !pod.leaving).collect();
        pods.sort_by_key(|pod| (busy(&pod.uid), pod.name.clone()));
        let count = match &self.conclusion {
            Some(_) => count,
            None => count.min(pods.len().saturating_sub(self.job.parallelism as usize)),
        };
        pods.into_iter().take(count).map(|pod| (pod.name.clone(), pod.uid.clone())).collect()
    }
}
