//! One attempt as its thread sees it: the lease, the order to stop, and the way to report.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use hyperflow_api::message::{Checkpoint, Grant};
use hyperflow_core::worker::{Assignment, Event, Outcome, Stop};
use tokio::sync::mpsc;

use crate::fault::Fault;

/// Least time between two reports of progress.
const PROGRESS: Duration = Duration::from_millis(200);

/// The order to stop, given from the session and seen by the attempt's thread at its next buffer.
#[derive(Debug, Default)]
pub struct StopFlag {
    order: AtomicU8,
    taken: AtomicBool,
}

const GO_ON: u8 = 0;
const AFTER_CHECKPOINT: u8 = 1;
const NOW: u8 = 2;

impl StopFlag {
    /// Whoever takes the attempt first has it: its thread, to begin, or who stops it while it waits in line.
    pub fn take(&self) -> bool {
        !self.taken.swap(true, Ordering::Relaxed)
    }

    /// Orders a stop; "now" is never taken back.
    pub fn order(&self, how: Stop) {
        let order = match how {
            Stop::AfterCheckpoint => AFTER_CHECKPOINT,
            Stop::Now => NOW,
        };
        self.order.fetch_max(order, Ordering::Relaxed);
    }

    fn ordered(&self) -> Option<Stop> {
        match self.order.load(Ordering::Relaxed) {
            GO_ON => None,
            AFTER_CHECKPOINT => Some(Stop::AfterCheckpoint),
            _ => Some(Stop::Now),
        }
    }
}

/// One attempt, in its own thread.
#[derive(Debug)]
pub struct Attempt {
    assignment: Assignment,
    stop: Arc<StopFlag>,
    reports: mpsc::Sender<Event>,
    progressed: Cell<Instant>,
    started: Instant,
}

impl Attempt {
    /// An attempt that begins now.
    pub fn new(assignment: Assignment, stop: Arc<StopFlag>, reports: mpsc::Sender<Event>) -> Self {
        let now = Instant::now();
        Self { assignment, stop, reports, progressed: Cell::new(now), started: now }
    }

    /// The lease.
    pub fn grant(&self) -> &Grant {
        &self.assignment.grant
    }

    /// Time since it began.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// An error once it was told to stop.
    pub fn go_on(&self) -> Result<(), Fault> {
        self.stop.ordered().map_or(Ok(()), |_| Err(Fault::Stopped))
    }

    /// Whether it was told to make a checkpoint before it stops.
    pub fn wants_checkpoint(&self) -> bool {
        self.stop.ordered() == Some(Stop::AfterCheckpoint)
    }

    /// Tells how far it is, now and then.
    pub fn progressed(&self, position: u64) {
        let now = Instant::now();
        if now.duration_since(self.progressed.get()) >= PROGRESS {
            self.progressed.set(now);
            self.report(Event::Progressed { run: self.assignment.run, position });
        }
    }

    /// Tells of a durable checkpoint.
    pub fn checkpointed(&self, checkpoint: Checkpoint) {
        self.report(Event::Checkpointed { run: self.assignment.run, checkpoint });
    }

    /// Tells how it ended. The last word.
    pub fn ended(&self, outcome: Outcome) {
        self.report(Event::Ended { run: self.assignment.run, outcome });
    }

    fn report(&self, event: Event) {
        // Nobody listens any more only when the process ends; then there is nobody to tell.
        let _ = self.reports.blocking_send(event);
    }
}
