//! Blocks: pieces of the planned input that this worker keeps on a volume, gives to others, and reads for its tasks.
//!
//! The operator orders what is kept where; what is here does it and tells of it. Jobs without blocks have none of this.
//!
//! | what | where |
//! | --- | --- |
//! | the store: files on a volume | [`disk`], made ready in [`setting_up`]; a file's name and header: [`replica`] |
//! | a replica is written | [`writing`], within [`room`] |
//! | what is there of the plan, and the operator is told | [`inventory`], [`news`] |
//! | groups are loaded | [`load`]; no block twice at a time: [`flights`] |
//! | blocks from and for other workers | [`fetch`], [`serve`]; who may: [`passport`] |
//! | a task's input is read | [`reader`] |
//! | replicas are read again | [`upkeep`] |
//! | what goes wrong, is counted, is set | [`error`], [`metrics`], [`settings`] |

mod disk;
pub mod error;
mod fetch;
mod flights;
mod inventory;
mod load;
pub mod metrics;
mod news;
mod passport;
pub mod reader;
mod replica;
mod room;
pub mod serve;
mod setting_up;
pub mod settings;
#[cfg(test)]
mod tests;
mod upkeep;
mod writing;

use std::{
    collections::BTreeMap,
    fmt,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use hyperflow_api::{
    ids::{JobUid, WorkerId},
    replica::{BlockOrder, Dropped, GroupHeld, Host, Peer},
    wire::proto as p,
};
use hyperflow_core::worker::Event;
use tokio::{runtime::Handle, sync::mpsc};

use self::{
    disk::{Disk, Found, Replica},
    error::BlockError,
    fetch::Peers,
    flights::Flights,
    load::{Load, Loads},
    news::News,
    passport::Passports,
    replica::Name,
    settings::BlockSettings,
};
use crate::{
    logs,
    metrics::Metrics,
    work::{Work, locked},
};

/// Who has a group, and the right to read it from them.
type Access = (Vec<Peer>, String);

/// Everything about blocks in this process.
pub struct Keeper {
    disk: Disk,
    host: Host,
    peers: Peers,
    listener: Mutex<Option<TcpListener>>,
    access: Mutex<BTreeMap<u32, Access>>,
    loads: Loads,
    flights: Flights,
    news: News,
    held: Mutex<BTreeMap<u32, GroupHeld>>,
    metrics: Arc<Metrics>,
    reports: mpsc::Sender<Event>,
    current: Mutex<Option<Arc<Work>>>,
    over: AtomicBool,
    /// Removes what was kept for a job that is over.
    leaving: Mutex<Option<thread::JoinHandle<()>>>,
}

// Its parts are locks and connections, which say nothing.
impl fmt::Debug for Keeper {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Keeper({})", self.disk.uuid())
    }
}

impl Keeper {
    /// Opens the store, if there is a folder for one. What it has to say goes to `reports`.
    pub fn open(
        settings: &BlockSettings,
        (job, me): (&JobUid, &WorkerId),
        ca_file: PathBuf,
        metrics: Arc<Metrics>,
        reports: mpsc::Sender<Event>,
        handle: Handle,
    ) -> Result<Option<Arc<Self>>, BlockError> {
        let Some(folder) = &settings.blocks_dir else { return Ok(None) };
        let disk = Disk::open(folder, job, me, settings.blocks_limit)?;
        let passports = Passports::new(job.clone(), ca_file)?;
        let listen =
            |why: std::io::Error| BlockError::Peers { doing: "listen for other workers", why: why.to_string() };
        let listener = TcpListener::bind(settings.blocks_listen).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let bound = listener.local_addr().map_err(listen)?;
        let address = settings.pod_ip.map_or(bound, |ip| SocketAddr::new(ip, bound.port())).to_string();
        let host = Host {
            store: disk.uuid().into(),
            address,
            public_key: passports.public_key(),
            persistent: settings.blocks_persistent,
            capacity: disk.room().limit(),
        };
        tracing::info!(store = host.store, address = host.address, capacity = host.capacity, "blocks are kept");
        let peers = Peers::new(job.clone(), me.pod_uid.clone(), passports, handle, settings.blocks_rate);
        let keeper = Arc::new(Self {
            disk,
            host,
            peers,
            listener: Mutex::new(Some(listener)),
            access: Mutex::default(),
            loads: Loads::default(),
            flights: Flights::default(),
            news: News::default(),
            held: Mutex::default(),
            metrics,
            reports,
            current: Mutex::default(),
            over: AtomicBool::new(false),
            leaving: Mutex::default(),
        });
        upkeep::begin(&keeper);
        Ok(Some(keeper))
    }

    /// What the operator is told in each hello.
    pub fn host(&self) -> Host {
        self.host.clone()
    }

    /// Where other workers come, once.
    pub fn listener(&self) -> Option<TcpListener> {
        locked(&self.listener).take()
    }

    /// A session has brought a passport.
    pub fn show(&self, passport: &p::Passport) {
        match self.peers.show(passport) {
            Ok(()) => tracing::info!("this worker has a passport for the others of its job"),
            Err(error) => tracing::error!(error = logs::causes(&error), "a passport is of no use"),
        }
    }

    /// Does what the operator says.
    pub fn obey(self: &Arc<Self>, work: &Arc<Work>, order: BlockOrder) {
        if self.is_over() {
            return;
        }
        match order {
            BlockOrder::Load { group, order, from, source, grant } => {
                load::begin(self, Load::new(work.clone(), group, order, from, source, grant));
            }
            BlockOrder::Access { group, from, grant } => {
                locked(&self.access).insert(group, (from, grant));
            }
            BlockOrder::Drop { group, what } => {
                let (keeper, work) = (self.clone(), work.clone());
                let thread =
                    thread::Builder::new().name("drop".into()).spawn(move || keeper.drop_group(&work, group, what));
                if let Err(error) = thread {
                    tracing::warn!(%error, group, "cannot start a thread: replicas stay until they are dropped again");
                }
            }
        }
    }

    fn drop_group(&self, work: &Work, group: u32, what: Dropped) {
        let removed = match what {
            Dropped::Surplus => {
                self.loads.cancel(group);
                self.disk.list(group).and_then(|all| self.remove(&all))
            }
            Dropped::Outdated => self.view(work, group).and_then(|view| self.remove(&view.outdated)),
        };
        if let Err(error) = removed {
            tracing::warn!(error = logs::causes(&error), group, "replicas stay until they are dropped again");
        }
        self.tell(work, group, Vec::new());
    }

    fn remove(&self, all: &[Found]) -> Result<(), BlockError> {
        all.iter().try_for_each(|found| self.disk.remove(found))
    }

    /// A replica of this store whose data is verified. One that is not what it says is put aside.
    fn local(&self, name: &Name) -> Option<Replica> {
        self.open_with(name, Disk::open_sound)
    }

    /// The same for somebody who verifies the data while reading all of it.
    fn to_send(&self, name: &Name) -> Option<Replica> {
        self.open_with(name, Disk::open_unread)
    }

    fn open_with(
        &self,
        name: &Name,
        open: impl Fn(&Disk, &Name) -> Result<Option<Replica>, BlockError>,
    ) -> Option<Replica> {
        match open(&self.disk, name) {
            Ok(replica) => replica,
            Err(BlockError::Damaged { why, .. }) => {
                self.damaged(name, why);
                None
            }
            Err(error) => {
                tracing::warn!(error = logs::causes(&error), "a replica cannot be read");
                None
            }
        }
    }

    /// A replica was found damaged: it is never read again, and the operator hears of it.
    fn damaged(&self, name: &Name, why: &'static str) {
        tracing::error!(
            group = name.group,
            shard = name.shard,
            part = name.part,
            why,
            "a block on the disk is damaged"
        );
        if let Err(error) = self.disk.put_aside(name) {
            tracing::error!(error = logs::causes(&error), "a damaged replica keeps its name");
        }
        let work = locked(&self.current).clone();
        if let Some(work) = work {
            self.tell(&work, name.group, Vec::new());
        }
    }

    /// Where a group may be read.
    fn access(&self, group: u32) -> Option<Access> {
        locked(&self.access).get(&group).cloned()
    }

    /// The job is over: what was kept for it on a volume that outlives this pod goes.
    pub fn leave(self: &Arc<Self>) {
        if self.over.swap(true, Ordering::Relaxed) || !self.host.persistent {
            return;
        }
        self.loads.cancel_all();
        let keeper = self.clone();
        let thread = thread::Builder::new().name("leave".into()).spawn(move || {
            match setting_up::remove(keeper.disk.folder(), true) {
                Ok(()) => tracing::info!("the blocks of the job are removed"),
                Err(error) => tracing::warn!(error = logs::causes(&error), "blocks of the job stay for a while"),
            }
        });
        match thread {
            Ok(thread) => *locked(&self.leaving) = Some(thread),
            Err(error) => tracing::warn!(%error, "cannot start a thread: blocks of the job stay for a while"),
        }
    }

    /// Waits until what [`Self::leave`] began is done: a process that ends takes its threads with it. Blocks.
    pub fn left(&self) {
        let thread = locked(&self.leaving).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::warn!("blocks of the job may stay for a while");
        }
    }

    fn work_for(&self, work: &Arc<Work>) {
        *locked(&self.current) = Some(work.clone());
    }

    /// What groups hold, for the metrics.
    fn count(&self, groups: &[GroupHeld], all: bool) {
        let mut held = locked(&self.held);
        if all {
            held.clear();
        }
        held.extend(groups.iter().map(|group| (group.group, *group)));
        let total = |of: fn(&GroupHeld) -> u32| held.values().map(of).map(u64::from).sum();
        let blocks = &self.metrics.blocks;
        blocks.set("ready", total(|group| group.good));
        blocks.set("stale", total(|group| group.stale));
        blocks.set("corrupt", total(|group| group.corrupt));
        blocks.used.set(i64::try_from(self.disk.room().used()).unwrap_or(i64::MAX));
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn is_idle(&self) -> bool {
        self.loads.is_idle()
    }

    fn disk(&self) -> &Disk {
        &self.disk
    }

    fn peers(&self) -> &Peers {
        &self.peers
    }

    fn loads(&self) -> &Loads {
        &self.loads
    }

    fn flights(&self) -> &Flights {
        &self.flights
    }

    fn news(&self) -> &News {
        &self.news
    }

    fn reports(&self) -> &mpsc::Sender<Event> {
        &self.reports
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}
