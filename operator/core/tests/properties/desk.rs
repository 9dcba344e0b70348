//! A coordinator that a random sequence drives: workers come and go, work, fail and fall silent.

use std::collections::{BTreeMap, BTreeSet};

use hyperflow_api::{
    ShardJobStatus,
    ids::{Epoch, ShardIndex, WorkerId},
    message::{
        Checkpoint, Fact, Failure, FailureClass, FromOperator, Held, Hello, News, Orders, PROTOCOL, Planned, Published,
        Report, Target,
    },
};
use hyperflow_core::{
    Now,
    coordinator::{Coordinator, Effect, Event, Limits, Pod, Revision, Seen, SessionId},
};

/// What happens next. Pods are numbered; leases are counted in the order in which they are listed.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Open { pod: usize, slots: u32, same_process: bool },
    Close { pod: usize },
    Want { pod: usize, capacity: u32 },
    Beat { pod: usize },
    Say { pod: usize, lease: usize, said: Said },
    Pass { millis: u64 },
    PodGone { pod: usize },
    ProcessEnded { pod: usize, out_of_memory: bool },
    Store { accepted: bool },
    TakeOver { random: u64 },
}

/// What a worker says of a lease of its own. Of planning and sweeping it says that they are done.
#[derive(Clone, Copy, Debug)]
pub enum Said {
    Checkpointed { position: u64, digest: u64 },
    Published,
    Failed { class: FailureClass, unusable: bool },
    Released,
}

struct Worker {
    session: SessionId,
    nonce: u64,
    /// Of the newest fact.
    number: u64,
    held: BTreeMap<Target, Epoch>,
}

pub struct Desk {
    pub core: Coordinator,
    pub now: Now,
    pub seen: Seen,
    /// Shards that planning finds.
    shards: u32,
    pods: BTreeMap<usize, Pod>,
    workers: BTreeMap<usize, Worker>,
    /// Numbers of sessions, nonces, pods and checkpoints: never used twice.
    drawn: u64,
    storing: Option<(Revision, Box<ShardJobStatus>)>,
    /// What was given to be stored since it was last asked, when, and the books as they were then.
    pub written: Vec<(Now, Coordinator, Box<ShardJobStatus>)>,
    pub visited: BTreeSet<&'static str>,
}

impl Desk {
    pub fn new(seen: Seen, shards: u32) -> Self {
        let now = Now { millis: 1000, unix: 1_763_900_000 };
        let mut desk = Self {
            core: Coordinator::take_over(now, &seen, 7, 0, Limits::default()).unwrap(),
            now,
            seen,
            shards,
            pods: BTreeMap::new(),
            workers: BTreeMap::new(),
            drawn: 0,
            storing: None,
            written: Vec::new(),
            visited: BTreeSet::new(),
        };
        desk.handle(Event::Flush);
        desk
    }

    pub fn step(&mut self, step: Step) {
        match step {
            Step::Open { pod, slots, same_process } => self.open(pod, slots, same_process),
            Step::Close { pod } => {
                if let Some(worker) = self.workers.get(&pod) {
                    self.handle(Event::SessionClosed(worker.session));
                }
            }
            Step::Want { pod, capacity } => self.report(pod, |_| Report { capacity, ..Report::default() }),
            Step::Beat { pod } => {
                self.report(pod, |worker| Report { beat: true, held: worker.held(), capacity: 2, ..Report::default() });
            }
            Step::Say { pod, lease, said } => self.say(pod, lease, said),
            Step::Pass { millis } => {
                self.now.millis += millis;
                self.now.unix += i64::try_from(millis / 1000).unwrap();
            }
            Step::PodGone { pod } => {
                self.pods.remove(&pod);
                self.workers.remove(&pod);
                self.pods_seen();
            }
            Step::ProcessEnded { pod, out_of_memory } => self.process_ended(pod, out_of_memory),
            Step::Store { accepted } => self.store(accepted),
            Step::TakeOver { random } => self.take_over(random),
        }
        self.handle(Event::Flush);
    }

    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        self.drawn
    }

    fn open(&mut self, pod: usize, slots: u32, same_process: bool) {
        let (number, nonce) = (self.draw(), self.draw());
        let node = Some(format!("node-{}", pod % 2));
        let (name, uid) = (format!("j-{pod}"), format!("{number:08}-0000-4000-8000-000000000000"));
        let made = Pod {
            name,
            uid,
            node,
            zone: None,
            leaving: false,
            trouble: None,
            made_of: None,
            disruption: None,
            ends: 0,
            ended: None,
        };
        let pod_uid = self.pods.entry(pod).or_insert(made).uid.clone();
        self.pods_seen();
        let old = self.workers.remove(&pod).filter(|_| same_process);
        let (nonce, held) = old.map_or((nonce, BTreeMap::new()), |worker| (worker.nonce, worker.held));
        let worker = Worker { session: SessionId(number), nonce, number: 0, held };
        let hello = Hello {
            protocol: PROTOCOL,
            job: self.seen.uid.clone(),
            worker: WorkerId { pod_uid, nonce },
            slots,
            held: worker.held(),
            heard: 0,
            host: None,
        };
        let session = worker.session;
        self.workers.insert(pod, worker);
        self.handle(Event::SessionOpened { session, hello });
    }

    fn report(&mut self, pod: usize, report: impl Fn(&mut Worker) -> Report) {
        let Some(worker) = self.workers.get_mut(&pod) else { return };
        let (session, report) = (worker.session, report(worker));
        self.handle(Event::Reported { session, report });
    }

    fn say(&mut self, pod: usize, lease: usize, said: Said) {
        let (checkpoint, shards) = (self.draw(), self.shards);
        let leases = self.workers.get(&pod).map_or(0, |worker| worker.held.len());
        if leases == 0 {
            return;
        }
        self.report(pod, |worker| {
            let (target, epoch) =
                worker.held.iter().nth(lease % leases).map(|(&target, &epoch)| (target, epoch)).unwrap();
            let news = match target {
                Target::Shard(_) => news(said, checkpoint),
                Target::Plan => News::Planned(planned(shards)),
                Target::Finally => News::Finalized,
                Target::Sweep => News::Swept(None),
            };
            if !matches!(news, News::Checkpointed(_)) {
                worker.held.remove(&target);
            }
            worker.number += 1;
            let facts = vec![Fact { target, epoch, news }];
            Report { capacity: 2, first_number: worker.number, facts, ..Report::default() }
        });
    }

    fn process_ended(&mut self, pod: usize, out_of_memory: bool) {
        let reason = if out_of_memory { "OOMKilled" } else { "Error" };
        let Some(pod) = self.pods.get_mut(&pod) else { return };
        pod.ends += 1;
        pod.ended = Some((reason.into(), "exit code 137".into()));
        self.pods_seen();
    }

    fn pods_seen(&mut self) {
        self.handle(Event::PodsSeen(self.pods.values().cloned().collect()));
    }

    fn store(&mut self, accepted: bool) {
        let Some((revision, status)) = self.storing.take() else { return };
        if accepted {
            self.seen.status = *status;
            self.handle(Event::StatusStored(revision));
        } else {
            self.handle(Event::StatusRefused(revision));
        }
    }

    /// The operator dies; another reads what was stored, and workers call again, with what they hold.
    fn take_over(&mut self, random: u64) {
        self.now.millis += 100_000;
        self.core = Coordinator::take_over(self.now, &self.seen, random, 0, Limits::default()).unwrap();
        self.storing = None;
        self.visited.insert("taken over");
        self.pods_seen();
        self.handle(Event::Flush);
        self.store(true);
        let pods: Vec<usize> = self.workers.keys().copied().collect();
        pods.into_iter().for_each(|pod| self.open(pod, 2, true));
    }

    fn handle(&mut self, event: Event) {
        for effect in self.core.handle(self.now, event) {
            match effect {
                Effect::Send { session, message: FromOperator::Orders(orders) } => self.obey(session, &orders),
                Effect::Close { session, .. } => self.workers.retain(|_, worker| worker.session != session),
                Effect::StoreStatus { revision, status } => {
                    self.written.push((self.now, self.core.clone(), status.clone()));
                    self.storing = Some((revision, status));
                }
                Effect::Send { .. }
                | Effect::Announce(_)
                | Effect::LookAtPool
                | Effect::FindOwner(_)
                | Effect::Release => {}
            }
        }
    }

    fn obey(&mut self, session: SessionId, orders: &Orders) {
        let Some(worker) = self.workers.values_mut().find(|worker| worker.session == session) else { return };
        for revoked in &orders.revoked {
            worker.held.retain(|target, epoch| (*target, *epoch) != (revoked.target, revoked.epoch));
        }
        worker.held.extend(orders.grants.iter().map(|grant| (grant.target, grant.epoch)));
    }
}

impl Worker {
    fn held(&self) -> Vec<Held> {
        self.held.iter().map(|(&target, &epoch)| Held { target, epoch, position: 0 }).collect()
    }
}

fn news(said: Said, number: u64) -> News {
    match said {
        Said::Checkpointed { position, digest } => News::Checkpointed(Checkpoint { number, position, digest }),
        Said::Published => News::Published(Published { bytes: 1, crc32c: 2, found: false }),
        Said::Failed { class, unusable } => News::Failed(Failure {
            class,
            reason: "TaskFailed".into(),
            message: "it said \"no\"\nand ended".into(),
            ends_job: false,
            checkpoint_unusable: unusable,
            exit_code: None,
        }),
        Said::Released => News::Released,
    }
}

fn planned(shards: ShardIndex) -> Planned {
    let bytes = u64::from(shards) << 20;
    Planned { shards, files: 1, bytes, digest: "blake3:00".into(), url: "file:///data/out/plan".into() }
}
