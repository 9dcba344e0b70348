//! How many pods there should be, and which must go.

use std::collections::{BTreeMap, BTreeSet};

use super::{Coordinator, Effect, Pod, Verdict, WantedPods};
use crate::Now;

/// How long a refusal of the API server is shown after the last one: longer than until the next try.
const REFUSAL_MILLIS: u64 = 60_000;

/// What the kubelet says while it makes ready what containers need, without and with an init container. That takes a
/// moment, and no more.
pub const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// After so long something is missing.
const STARTING_MILLIS: u64 = 20_000;

/// The pods of a job as they are known, and those asked for.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pods: BTreeMap<String, Pod>,
    /// Names asked for and not seen yet: our own writes take time to come back by the watch.
    expected: BTreeSet<String>,
    seed: u64,
    drawn: u64,
    seen: bool,
    /// How many of them were stranded when it was last looked.
    stranded: usize,
    /// Since when pods are about to start, by UID.
    starting: BTreeMap<String, u64>,
    /// Those of them that have been for too long.
    stuck: BTreeSet<String>,
    /// Reason and message of the last refusal to create a pod, and when.
    pub(crate) refused: Option<(String, String, u64)>,
}

impl Pool {
    pub(super) fn new(seed: u64) -> Self {
        let (pods, expected) = (BTreeMap::new(), BTreeSet::new());
        let (starting, stuck) = (BTreeMap::new(), BTreeSet::new());
        Self { pods, expected, seed, drawn: 0, seen: false, stranded: 0, starting, stuck, refused: None }
    }

    pub(super) fn is_leaving(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|pod| pod.leaving)
    }

    pub(crate) fn node(&self, uid: &str) -> Option<&str> {
        self.pods.get(uid)?.node.as_deref()
    }

    pub(super) fn pod(&self, uid: &str) -> Option<&Pod> {
        self.pods.get(uid)
    }

    pub(super) fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    /// All pods are known, and each of them ends.
    pub(super) fn nobody_stays(&self) -> bool {
        self.seen && self.pods.values().all(|pod| pod.leaving)
    }

    /// Nobody has said yet which pods there are.
    pub(crate) fn is_unknown(&self) -> bool {
        !self.seen
    }

    pub(crate) fn is_empty(&self) -> bool {
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

    /// Why pods do not run, from the first that says so: the reason, what is said of it, and the pod's name.
    pub(crate) fn trouble(&self) -> Option<(&str, &str, &str)> {
        let in_trouble = || self.pods.values().filter(|pod| !pod.leaving && self.is_in_trouble(pod));
        let pod = in_trouble().find(|pod| !self.stuck.contains(&pod.uid)).or_else(|| in_trouble().next())?;
        pod.trouble.as_ref().map(|(reason, message)| (reason.as_str(), message.as_str(), pod.name.as_str()))
    }

    /// The cluster says why it does not run; or it is about to for so long that something must be missing.
    pub(super) fn is_in_trouble(&self, pod: &Pod) -> bool {
        pod.trouble.is_some() && (!starts(pod) || self.stuck.contains(&pod.uid))
    }

    fn note_starting(&mut self, now: u64) {
        let stays = |pod: &&Pod| !pod.leaving && starts(pod);
        let before = std::mem::take(&mut self.starting);
        let since = |pod: &Pod| (pod.uid.clone(), before.get(&pod.uid).copied().unwrap_or(now));
        self.starting = self.pods.values().filter(stays).map(since).collect();
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

/// Its containers are being made ready, if the kubelet is right that no more is needed.
fn starts(pod: &Pod) -> bool {
    pod.trouble.as_ref().is_some_and(|(reason, _)| STARTING.contains(&reason.as_str()))
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
        let before: Vec<Pod> = std::mem::replace(&mut self.pool.pods, pods).into_values().collect();
        self.pool.seen = true;
        self.pool.note_starting(now.millis);
        self.nodes.learn_zones(self.pool.pods());
        // All that was asked for is there.
        if self.pool.expected.is_empty() {
            self.pool.refused = None;
        }
        for worker in self.workers.values_mut() {
            worker.leaving |= self.pool.is_leaving(&worker.id.pod_uid);
            // It may have called before we saw where its pod was bound.
            if worker.node.is_empty() {
                worker.node = self.pool.node(&worker.id.pod_uid).unwrap_or_default().to_owned();
            }
        }
        self.blocks.stir();
        self.learn_of_pods(now, &before);
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

    /// Finds out which pods are stuck: no news of the cluster says so.
    pub(super) fn watch_starting(&mut self, now: Now) {
        let overdue = |(_, since): &(&String, &u64)| now.millis >= **since + STARTING_MILLIS;
        let stuck = self.pool.starting.iter().filter(overdue).map(|(uid, _)| uid.clone()).collect();
        if self.pool.stuck != stuck {
            self.pool.stuck = stuck;
            self.writer.touch();
        }
    }

    /// Workers in session.
    pub(crate) fn ready(&self) -> usize {
        self.workers.values().filter(|worker| worker.welcomed && worker.session.is_some()).count()
    }

    /// After a take-over: workers are about to call.
    pub(crate) fn is_settling(&self) -> bool {
        self.pool.is_unknown() || self.claims_until.is_some()
    }

    /// Pods there should be now.
    pub(crate) fn desired(&self) -> usize {
        if self.conclusion.is_some() || self.is_suspended() {
            return 0;
        }
        let slots = u64::from(self.job.slots);
        let shards = u64::from(self.shards.total() - self.shards.done().len() - self.shards.failed().len());
        let needed = match (&self.plan, &self.verdict) {
            (None, Some(_)) | (_, Some(Verdict::Deleted)) => 0,
            (None, None) | (Some(_), Some(_)) => 1,
            // All are done, and the last command needs somebody.
            (Some(_), None) if self.finally_is_due() => 1,
            (Some(_), None) => shards.div_ceil(slots),
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
        let staying = self.pool.pods.values().filter(|pod| self.is_to_stay(pod)).count();
        while staying + self.pool.expected.len() > desired && self.pool.expected.pop_last().is_some() {}
        while staying + self.pool.expected.len() < desired {
            let name = self.pool.draw_name(&self.seen.name);
            self.pool.expected.insert(name);
        }
        WantedPods {
            run: self.run,
            create: self.pool.expected.iter().cloned().collect(),
            delete: self.surplus(staying.saturating_sub(desired)).chain(self.stranded()).map(identity).collect(),
        }
    }

    /// A pod that may get work: one on a node that is cordoned, lost or under pressure gets no more, and one that is
    /// outdated comes to nothing, so another is made.
    fn is_to_stay(&self, pod: &Pod) -> bool {
        let fit = pod.node.as_deref().is_none_or(|node| self.nodes.unfit(node).is_none());
        !pod.leaving && fit && !self.is_outdated(pod) && !self.is_of_earlier_run(pod)
    }

    /// Pods on nodes that live and take no more work, when they have nothing to do any more. Those on nodes that are lost
    /// are left to Kubernetes, which knows when a node is; those that keep blocks wait for their nodes without end, and only
    /// the end of the job ends them (P30).
    fn stranded(&self) -> impl Iterator<Item = &Pod> {
        let holds = |uid: &str| self.workers.values().any(|worker| worker.id.pod_uid == uid && !worker.held.is_empty());
        let lost = |pod: &Pod| pod.node.as_deref().is_some_and(|node| self.nodes.gone(node).is_some());
        let ends = self.job.blocks.is_some() && self.desired() == 0;
        let unfit = move |pod: &&Pod| !pod.leaving && !self.is_to_stay(pod) && (ends || !lost(pod));
        self.pool.pods.values().filter(unfit).filter(move |pod| !holds(&pod.uid))
    }

    /// Whether pods became stranded that nobody was told to delete.
    pub(super) fn watch_stranded(&mut self, effects: &mut Vec<Effect>) {
        let stranded = self.stranded().count();
        if std::mem::replace(&mut self.pool.stranded, stranded) < stranded {
            effects.push(Effect::LookAtPool);
        }
    }

    /// The pods to delete: those without a session first, then the least busy, so that as little as possible moves. A
    /// pool that shrinks only because work runs out keeps its pods until the end: they hold what may still be needed.
    fn surplus(&self, count: usize) -> impl Iterator<Item = &Pod> {
        let (most, ending) = (self.job.parallelism as usize, self.desired() == 0);
        let mut pods: Vec<&Pod> = self.pool.pods.values().filter(|pod| self.is_to_stay(pod)).collect();
        let busy = |uid: &str| {
            let worker = self.workers.values().find(|worker| worker.id.pod_uid == uid);
            worker.map_or((false, 0), |worker| (worker.session.is_some(), worker.held.len()))
        };
        // What only one pod has goes last (P30).
        let has = |pod: &Pod| self.blocks.held_by_pod(&pod.uid, pod.node.as_deref());
        pods.sort_by_cached_key(|pod| (has(pod), busy(&pod.uid), pod.name.clone()));
        let keep = self.verdict == Some(Verdict::Deleted) && self.conclusion.is_none();
        let count = match (keep, ending) {
            // One of them may have to sweep.
            (true, _) => 0,
            (false, true) => count,
            (false, false) => count.min(pods.len().saturating_sub(most)),
        };
        pods.into_iter().take(count)
    }
}

fn identity(pod: &Pod) -> (String, String) {
    (pod.name.clone(), pod.uid.clone())
}
