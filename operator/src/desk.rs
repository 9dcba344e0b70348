//! The desk of one ShardJob: the task that owns its coordinator. It waits, asks the core, and carries out what it says.
//!
//! Carrying out never waits for the network: the status is written by a child task, workers are spoken to through bounded
//! queues, and a worker that does not read is hung up on.

mod line;
mod mail;

use std::collections::{BTreeMap, VecDeque};

use hyperflow_api::{ShardJobStatus, ids::JobUid};
use hyperflow_core::coordinator::{Announcement, Coordinator, Effect, Event, Revision, SessionId};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Client, runtime::reflector::ObjectRef};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::{Duration, Instant, sleep_until},
};
use tonic::Status;
use tracing::{debug, warn};

use self::line::Line;
pub use self::mail::{Call, MAILBOX, Mail};
use crate::{
    announce::Announcer,
    apply::PodRefusal,
    clock,
    controller::Guarded,
    finalizer,
    grants::Grants,
    health::Promise,
    metrics::Metrics,
    nodes::Nodes,
    owner,
    report::{Ledger, Outcome},
    session,
};

/// Letters taken at most before the core is asked to speak and to store.
const BATCH: usize = 1024;
/// A desk turns at least so often, to show that it is alive.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);
/// The pause between figures of blocks in the metrics.
const FIGURES: Duration = Duration::from_secs(1);

/// Why a desk ended, in good order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing is left to do for the job.
    Over,
    /// The object is gone, or another has its name.
    Gone,
    /// Another process has taken the job over.
    Superseded,
    /// A worker knows an operator of this higher term.
    Outranked(u64),
    /// This process does not lead any more, or stops, or was told to let go of the job.
    Dismissed,
}

/// Why a desk ended, in disorder.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The status writer panicked.
    #[error("cannot go on without the status writer")]
    Writer(#[source] JoinError),
    /// The task that looks for another job panicked.
    #[error("cannot find out who owns the output")]
    Owner(#[source] JoinError),
    /// The task that lets the job go panicked.
    #[error("cannot let the job go")]
    Release(#[source] JoinError),
}

/// What a desk works with.
pub struct Desk {
    /// Decides.
    pub coordinator: Coordinator,
    /// What Events are about: namespace, name and UID of the job.
    pub about: ObjectReference,
    /// Letters.
    pub mailbox: mpsc::Receiver<Mail>,
    /// The same mailbox, for the sessions' readers.
    pub own_mailbox: mpsc::WeakSender<Mail>,
    /// Writes the status; away while it does.
    pub ledger: Option<Ledger>,
    /// Tells people.
    pub announcer: Announcer,
    /// The job, as reconciliation calls it.
    pub reference: ObjectRef<Guarded>,
    /// Asks for reconciliation.
    pub wake: mpsc::UnboundedSender<ObjectRef<Guarded>>,
    /// Its sender is dropped to dismiss the desk.
    pub dismissed: watch::Receiver<()>,
    /// Whether this process leads.
    pub leading: watch::Receiver<bool>,
    /// The cluster's nodes.
    pub nodes: watch::Receiver<Nodes>,
    /// Removes the finalizer.
    pub client: Client,
    /// Shows that the desk is alive.
    pub promise: Promise,
    /// Counts.
    pub metrics: Metrics,
    /// What lets workers read blocks from one another.
    pub grants: Grants,
}

/// Children of a desk: they end with it.
#[derive(Default)]
struct Children {
    lines: BTreeMap<SessionId, Line>,
    readers: JoinSet<SessionId>,
    writing: JoinSet<(Ledger, Revision, Outcome)>,
    releasing: JoinSet<()>,
    finding: JoinSet<(JobUid, Option<bool>)>,
}

impl Desk {
    /// Works until the job is over or somebody else's.
    ///
    /// # Errors
    /// When a child of the desk panicked.
    pub async fn run(mut self) -> Result<End, DeskError> {
        let mut children = Children::default();
        let end = self.work(&mut children).await;
        for line in children.lines.into_values() {
            line.hang_up(Status::unavailable("not leader"));
        }
        end
    }

    async fn work(&mut self, children: &mut Children) -> Result<End, DeskError> {
        let mut effects = VecDeque::from(self.nodes_changed());
        let mut shown = None;
        loop {
            effects.extend(self.ask(Event::Flush));
            while let Some(effect) = effects.pop_front() {
                effects.extend(self.carry_out(effect, children));
            }
            if self.coordinator.is_over() {
                return Ok(End::Over);
            }
            if let Some(term) = self.coordinator.outranked() {
                return Ok(End::Outranked(term));
            }
            self.promise.keep();
            self.show_blocks(&mut shown);
            let wake = clock::instant(self.coordinator.next_wake(clock::now())).min(Instant::now() + LONGEST_SLEEP);
            tokio::select! {
                () = sent_home(&mut self.leading, &mut self.dismissed) => return Ok(End::Dismissed),
                Some(written) = children.writing.join_next() => {
                    let (ledger, revision, outcome) = written.map_err(DeskError::Writer)?;
                    self.ledger = Some(ledger);
                    effects.extend(match outcome {
                        Outcome::Stored => self.ask(Event::StatusStored(revision)),
                        Outcome::Refused => self.ask(Event::StatusRefused(revision)),
                        Outcome::Superseded => return Ok(End::Superseded),
                        Outcome::Gone => return Ok(End::Gone),
                    });
                }
                Some(found) = children.finding.join_next() => {
                    let (uid, lives) = found.map_err(DeskError::Owner)?;
                    effects.extend(self.ask(Event::OwnerSeen { uid, lives }));
                }
                Some(released) = children.releasing.join_next() => released.map_err(DeskError::Release)?,
                // Without its sender there are no news of nodes any more, and the process ends.
                Ok(()) = self.nodes.changed() => effects.extend(self.nodes_changed()),
                // A reader that was aborted is one that we hung up on.
                Some(ended) = children.readers.join_next() => if let Ok(session) = ended {
                    effects.extend(self.lost(session, children));
                },
                Some(mail) = self.mailbox.recv() => {
                    effects.extend(self.open(mail, children));
                    for _ in 1..BATCH {
                        let Ok(mail) = self.mailbox.try_recv() else { break };
                        effects.extend(self.open(mail, children));
                    }
                }
                () = sleep_until(wake) => {}
            }
        }
    }

    fn ask(&mut self, event: Event) -> Vec<Effect> {
        self.coordinator.handle(clock::now(), event)
    }

    /// Tells of the nodes as they are, if they are known.
    fn nodes_changed(&mut self) -> Vec<Effect> {
        let nodes = self.nodes.borrow_and_update().clone();
        nodes.map_or_else(Vec::new, |nodes| self.ask(Event::NodesSeen(nodes.to_vec())))
    }

    fn open(&mut self, mail: Mail, children: &mut Children) -> Vec<Effect> {
        match mail {
            Mail::Look { job, pods, answer } => {
                let mut effects = self.ask(Event::JobSeen(job));
                effects.extend(self.ask(Event::PodsSeen(pods)));
                if answer.send(self.coordinator.wanted_pods(clock::now())).is_err() {
                    debug!(job = self.about.name, "nobody waits for the answer any more");
                }
                effects
            }
            Mail::PodRefused(PodRefusal { reason, message }) => self.ask(Event::PodRefused(reason.into(), message)),
            Mail::Call(call) => self.take_call(*call, children),
            Mail::Said(session, report) if children.lines.contains_key(&session) => {
                self.ask(Event::Reported { session, report })
            }
            // It was hung up on while the letter waited.
            Mail::Said(..) => Vec::new(),
        }
    }

    fn take_call(&mut self, call: Call, children: &mut Children) -> Vec<Effect> {
        let Call { session, hello, inbound, outbound, place } = call;
        let reader = session::read(session, inbound, outbound.clone(), self.own_mailbox.clone());
        let reader = children.readers.spawn(reader);
        let pod_uid = hello.worker.pod_uid.clone();
        children.lines.insert(session, Line::new(pod_uid, outbound, reader, place));
        self.ask(Event::SessionOpened { session, hello })
    }

    fn carry_out(&mut self, effect: Effect, children: &mut Children) -> Vec<Effect> {
        match effect {
            Effect::Send { session, mut message } => {
                let Some(line) = children.lines.get(&session) else { return Vec::new() };
                self.grants.fill(&mut message, &line.pod_uid, clock::unix());
                if line.outbound.try_send(Ok(message)).is_ok() {
                    return Vec::new();
                }
                debug!(session = session.0, "the worker is gone or does not read");
                return self.lost(session, children);
            }
            Effect::Close { session, reason } => {
                if let Some(line) = children.lines.remove(&session) {
                    line.hang_up(Status::aborted(reason));
                }
            }
            Effect::StoreStatus { revision, status } => return self.store(revision, *status, children),
            Effect::Announce(announcement) => self.announce(announcement),
            // It fails only when the controller has ended, and the process with it.
            Effect::LookAtPool => drop(self.wake.send(self.reference.clone())),
            Effect::Release => self.release(children),
            Effect::FindOwner(owner) => {
                children.finding.spawn(owner::lives(self.client.clone(), owner));
            }
        }
        Vec::new()
    }

    fn store(&mut self, revision: Revision, status: ShardJobStatus, children: &mut Children) -> Vec<Effect> {
        let Some(mut ledger) = self.ledger.take() else {
            warn!(job = self.about.name, "a status came before the last one was stored");
            return self.ask(Event::StatusRefused(revision));
        };
        if let (Some(counts), Some(namespace), Some(name)) = (&status.shards, &self.about.namespace, &self.about.name) {
            self.metrics.set_shards(namespace, name, counts);
        }
        children.writing.spawn(async move {
            let outcome = ledger.store(status).await;
            (ledger, revision, outcome)
        });
        Vec::new()
    }

    /// Shows the figures of blocks in the metrics, from time to time.
    fn show_blocks(&self, shown: &mut Option<Instant>) {
        if shown.is_some_and(|at| at.elapsed() < FIGURES) {
            return;
        }
        *shown = Some(Instant::now());
        if let (Some(figures), Some(namespace), Some(name)) =
            (self.coordinator.block_figures(), &self.about.namespace, &self.about.name)
        {
            self.metrics.set_blocks(namespace, name, &figures);
        }
    }

    /// The object may go. A desk that ends meanwhile leaves the rest to reconciliation.
    fn release(&self, children: &mut Children) {
        if children.releasing.is_empty() {
            children.releasing.spawn(finalizer::remove_at_last(self.client.clone(), self.about.clone()));
        }
    }

    /// A session has ended by itself. The core is told once.
    fn lost(&mut self, session: SessionId, children: &mut Children) -> Vec<Effect> {
        match children.lines.remove(&session) {
            Some(line) => {
                line.hang_up(Status::aborted("the session has ended"));
                self.ask(Event::SessionClosed(session))
            }
            None => Vec::new(),
        }
    }

    fn announce(&self, announcement: Announcement) {
        self.announcer.announce(self.about.clone(), announcement);
    }
}

/// Waits until this process does not lead any more, or the desk is dismissed.
async fn sent_home(leading: &mut watch::Receiver<bool>, dismissed: &mut watch::Receiver<()>) {
    // Either one's sender being gone means the same.
    tokio::select! {
        _ = leading.wait_for(|leads| !*leads) => {}
        _ = dismissed.changed() => {}
    }
}
