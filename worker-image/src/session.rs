//! The loop of the process: it waits, asks the core, and does what the core says. It decides nothing.

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hyperflow_api::{
    ids::{JobUid, WorkerId},
    message::FromOperator,
};
use hyperflow_core::{
    Now,
    worker::{Effect, Event, Worker},
};
use tokio::{
    runtime::Handle,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    blocks::Keeper, connect::Dialer, logs, metrics::Metrics, runner::Runner, serve::Vitals, settings::Settings,
    uplink::Uplink,
};

/// The loop turns at least so often, which is what the liveness probe looks at.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// Reports of attempts on their way here; an attempt waits when there are more.
const REPORTS: usize = 1024;
/// Most events handled before what they cause is sent.
const BATCH: usize = 1024;

/// The session of one worker process.
pub struct Session {
    worker: Worker,
    runner: Runner,
    uplink: Uplink,
    reports: mpsc::Receiver<Event>,
    signals: Signals,
    keeper: Option<Arc<Keeper>>,
    vitals: Arc<Vitals>,
    started: Instant,
    terminated: Option<Instant>,
    /// Attempts that do not stop are not waited for longer than this.
    grace: Duration,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Session {
    /// The session of the process `id`, which has not begun.
    ///
    /// # Errors
    /// When signals cannot be heard.
    pub fn new(settings: &Settings, id: WorkerId, metrics: Arc<Metrics>, vitals: Arc<Vitals>) -> io::Result<Self> {
        let started = Instant::now();
        let grace = u64::try_from(settings.grace().as_millis()).unwrap_or(u64::MAX);
        let (sender, reports) = mpsc::channel(REPORTS);
        let job = JobUid(settings.job_uid.clone());
        let keeper = keeper(settings, (&job, &id), metrics.clone(), sender.clone());
        let worker = Worker::new(now(started), job, id.clone(), settings.slots).with_grace(grace);
        Ok(Self {
            worker: match &keeper {
                Some(keeper) => worker.with_host(keeper.host()),
                None => worker,
            },
            runner: Runner::new(id, settings.node.clone(), settings.slots, metrics, sender).with_keeper(keeper.clone()),
            uplink: Uplink::new(Dialer::new(settings.operator()), keeper.clone()),
            keeper,
            reports,
            signals: Signals {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            },
            vitals,
            started,
            terminated: None,
            grace: settings.grace(),
        })
    }

    /// The store for blocks, if there is one.
    pub fn keeper(&self) -> Option<Arc<Keeper>> {
        self.keeper.clone()
    }

    /// Runs until nothing is left to do; says why it ended.
    pub async fn run(mut self) -> &'static str {
        loop {
            // What is said meanwhile is heard at once then, and nobody is woken for each word.
            let rest = self.worker.may_rest();
            if rest > 0 {
                sleep(Duration::from_millis(rest)).await;
            }
            let mut events: VecDeque<Event> = self.wait().await.into_iter().collect();
            self.gather(&mut events);
            let exit = self.turn(events);
            self.vitals.turned(self.worker.is_in_session());
            self.runner.connected(self.uplink.is_open());
            let overdue = self.terminated.is_some_and(|since| since.elapsed() >= self.grace);
            if let Some(reason) = exit.or_else(|| overdue.then_some("attempts did not stop in time")) {
                self.uplink.close().await;
                end(self.runner, self.keeper).await;
                return reason;
            }
        }
    }

    async fn wait(&mut self) -> Option<Event> {
        let wake = self.started + Duration::from_millis(self.worker.next_wake());
        let latest = match self.terminated {
            Some(since) => since + self.grace,
            None => Instant::now() + LONGEST_SLEEP,
        };
        let event = tokio::select! {
            event = self.uplink.next() => event,
            report = self.reports.recv() => report,
            _ = self.signals.terminate.recv() => Some(Event::Terminate),
            _ = self.signals.interrupt.recv() => Some(Event::Terminate),
            () = sleep_until(wake.min(latest)) => None,
        };
        if event == Some(Event::Terminate) && self.terminated.is_none() {
            tracing::info!(grace = ?self.grace, "the worker is asked to stop");
            self.terminated = Some(Instant::now());
        }
        event
    }

    /// Everything that has happened meanwhile: one answer to all of it is cheaper than one to each.
    fn gather(&mut self, events: &mut VecDeque<Event>) {
        while events.len() < BATCH
            && let Some(event) = self.reports.try_recv().ok().or_else(|| self.uplink.ready())
        {
            events.push_back(event);
        }
    }

    /// Hands events to the core, then one flush, and does what it says; what that causes at once is an event as well.
    fn turn(&mut self, mut events: VecDeque<Event>) -> Option<&'static str> {
        let mut exit = None;
        let mut flushed = false;
        loop {
            let event = match events.pop_front() {
                Some(event) => event,
                None if flushed => return exit,
                None => Event::Flush,
            };
            flushed = event == Event::Flush;
            match &event {
                Event::Ended { run, .. } => self.runner.ended(*run),
                Event::Heard(FromOperator::Orders(orders)) if orders.leave && self.worker.is_in_session() => {
                    if let Some(keeper) = &self.keeper {
                        keeper.leave();
                    }
                }
                _ => {}
            }
            for effect in self.worker.handle(now(self.started), event) {
                match effect {
                    Effect::Send(message) => self.uplink.send(message),
                    Effect::Disconnect(why) => events.push_back(self.uplink.lose(why)),
                    Effect::Configure(welcome) => self.runner.configure(&welcome),
                    Effect::UsePlan(plan) => self.runner.use_plan(plan),
                    Effect::Start(assignment) => events.extend(self.runner.start(assignment)),
                    Effect::Stop { run, how } => events.extend(self.runner.stop(run, how)),
                    Effect::Blocks(order) => self.runner.order(order),
                    Effect::Clean(index) => self.runner.clean(index),
                    Effect::Exit(reason) => exit = Some(reason),
                }
            }
        }
    }
}

/// Opens the store for blocks. A worker whose volume does not work does without: its tasks read the source.
fn keeper(
    settings: &Settings,
    who: (&JobUid, &WorkerId),
    metrics: Arc<Metrics>,
    reports: mpsc::Sender<Event>,
) -> Option<Arc<Keeper>> {
    let opened = Keeper::open(&settings.blocks, who, settings.operator().ca_file, metrics, reports, Handle::current());
    opened.unwrap_or_else(|error| {
        tracing::error!(error = logs::causes(&error), "this worker keeps no blocks");
        None
    })
}

/// Programs that wait for shards have until now not been told that there are no more, and blocks of a job that is over may
/// not all be removed.
async fn end(runner: Runner, keeper: Option<Arc<Keeper>>) {
    let ended = tokio::task::spawn_blocking(move || {
        runner.end();
        if let Some(keeper) = keeper {
            keeper.left();
        }
    });
    if let Err(error) = ended.await {
        tracing::warn!(%error, "programs, or blocks of the job, may be left");
    }
}

/// The time, as the core wants it.
fn now(started: Instant) -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now {
        millis: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        unix: i64::try_from(unix.as_secs()).unwrap_or(i64::MAX),
    }
}
