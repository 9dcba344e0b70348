//! Loads: every block of a group that is missing, stale or damaged is got, from peers or else from the source.

use std::{
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use hyperflow_api::replica::{LoadEnd, Peer, Trouble};
use hyperflow_core::{
    blocks::{Block, blocks_of, shards_of},
    plan::Shard,
};

use super::{Keeper, error::BlockError, inventory, replica::Name, writing::Writing};
use crate::{
    input::Input,
    work::{Work, locked},
};

/// Groups that are loaded at a time.
const AT_A_TIME: u32 = 2;
/// Bytes read from the source at a time.
const STEP: usize = 1 << 20;

/// An order to load a group.
#[derive(Debug)]
pub struct Load {
    /// Which.
    pub group: u32,
    /// Names it.
    pub order: u64,
    /// Who has it, best first.
    pub from: Vec<Peer>,
    /// The source may be read.
    pub source: bool,
    /// The right to read the group from others.
    pub grant: String,
    cancelled: AtomicBool,
    from_peers: AtomicU64,
    from_source: AtomicU64,
    work: Arc<Work>,
}

/// A block that an order is to get.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Whose.
    pub shard: &'a Shard,
    /// Which.
    pub block: &'a Block,
    /// Shards of the plan.
    pub shards: u32,
    /// The source may be read.
    pub source: bool,
    /// A task waits for it: the limit of copies is not for it.
    pub urgent: bool,
}

/// Orders that have not ended.
#[derive(Debug, Default)]
pub struct Loads {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    orders: BTreeMap<u32, Arc<Load>>,
    waiting: VecDeque<u32>,
    threads: u32,
}

impl Load {
    /// An order that nobody works on yet.
    pub fn new(work: Arc<Work>, group: u32, order: u64, from: Vec<Peer>, source: bool, grant: String) -> Self {
        let (from_peers, from_source) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { group, order, from, source, grant, cancelled: AtomicBool::new(false), from_peers, from_source, work }
    }

    /// The order stands.
    fn go_on(&self) -> Result<(), BlockError> {
        if self.cancelled.load(Ordering::Relaxed) { Err(BlockError::Cancelled) } else { Ok(()) }
    }
}

impl Loads {
    /// The order that a group is loaded by.
    pub fn of(&self, group: u32) -> Option<Arc<Load>> {
        locked(&self.state).orders.get(&group).cloned()
    }

    /// Whether nothing is loaded.
    pub fn is_idle(&self) -> bool {
        locked(&self.state).threads == 0
    }

    /// Takes an order back; what it has got so far stays.
    pub fn cancel(&self, group: u32) {
        let mut state = locked(&self.state);
        if let Some(load) = state.orders.remove(&group) {
            load.cancelled.store(true, Ordering::Relaxed);
        }
        state.waiting.retain(|waiting| *waiting != group);
    }

    /// Takes all of them back.
    pub fn cancel_all(&self) {
        let groups: Vec<u32> = locked(&self.state).orders.keys().copied().collect();
        groups.into_iter().for_each(|group| self.cancel(group));
    }

    /// Takes the next order to work on; without one the thread is over.
    fn next(&self) -> Option<Arc<Load>> {
        let mut state = locked(&self.state);
        while let Some(group) = state.waiting.pop_front() {
            if let Some(load) = state.orders.get(&group) {
                return Some(load.clone());
            }
        }
        state.threads -= 1;
        None
    }

    fn ended(&self, load: &Arc<Load>) {
        let mut state = locked(&self.state);
        if state.orders.get(&load.group).is_some_and(|current| Arc::ptr_eq(current, load)) {
            state.orders.remove(&load.group);
        }
    }
}

/// Works on an order from now on, instead of the one for the same group before.
pub fn begin(keeper: &Arc<Keeper>, load: Load) {
    let (loads, group) = (keeper.loads(), load.group);
    loads.cancel(group);
    let load = Arc::new(load);
    let start = {
        let mut state = locked(&loads.state);
        state.orders.insert(group, load.clone());
        state.waiting.push_back(group);
        let start = state.threads < AT_A_TIME;
        state.threads += u32::from(start);
        start
    };
    if !start {
        return;
    }
    let worker = keeper.clone();
    let thread = thread::Builder::new().name("load".into()).spawn(move || {
        while let Some(load) = worker.loads().next() {
            work_on(&worker, &load);
        }
    });
    if let Err(error) = thread {
        locked(&loads.state).threads -= 1;
        loads.cancel(group);
        let trouble = trouble(Trouble::DISK, format!("cannot start a thread: {error}"));
        keeper.tell(&load.work, group, vec![end(&load, Some(trouble))]);
    }
}

fn trouble(reason: &str, message: String) -> Trouble {
    Trouble { reason: reason.into(), message }
}

fn end(load: &Load, trouble: Option<Trouble>) -> LoadEnd {
    let bytes = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let (from_peers, from_source) = (bytes(&load.from_peers), bytes(&load.from_source));
    LoadEnd { group: load.group, order: load.order, from_peers, from_source, trouble }
}

/// An order ends exactly once, unless it was taken back: also when something panics.
fn work_on(keeper: &Arc<Keeper>, load: &Arc<Load>) {
    let ended = catch_unwind(AssertUnwindSafe(|| run(keeper, load))).unwrap_or_else(|_panic| {
        tracing::error!(group = load.group, "a load panicked");
        Ok(Some(trouble(Trouble::DISK, "the load panicked".into())))
    });
    keeper.loads().ended(load);
    let trouble = match ended {
        Ok(trouble) => trouble,
        Err(error) => error.trouble(),
    };
    if load.go_on().is_err() {
        return;
    }
    if let Some(trouble) = &trouble {
        tracing::warn!(
            group = load.group,
            order = load.order,
            reason = trouble.reason,
            trouble.message,
            "a load is not complete"
        );
    }
    keeper.tell(&load.work, load.group, vec![end(load, trouble)]);
}

/// Goes through the group. Some trouble leaves the other blocks to be got, and some does not.
fn run(keeper: &Keeper, load: &Load) -> Result<Option<Trouble>, BlockError> {
    let plan = load.work.plan_in_force().map_err(BlockError::Source)?;
    let shards = plan.plan().shards();
    let (mut first, mut source, mut stopped) = (None, load.source, None);
    let read = plan.some(shards_of(load.group, shards), |index, shard| {
        for block in blocks_of(index, shard) {
            if stopped.is_some() {
                break;
            }
            let wanted = Wanted { shard, block: &block, shards, source, urgent: false };
            let Err(error) = obtain(keeper, load, &wanted) else { continue };
            match error.trouble() {
                // A source that is away is waited for once.
                Some(trouble) if matches!(error, BlockError::Source(_) | BlockError::NoCopy { .. }) => {
                    source &= trouble.reason != Trouble::UNREACHABLE;
                    first.get_or_insert(trouble);
                }
                _ => stopped = Some(error),
            }
        }
        Ok(())
    });
    read.map_err(BlockError::Source)?;
    // Only now are they of no use.
    let view = inventory::view(keeper.disk(), load.group, &inventory::planned(&plan, load.group)?)?;
    view.replaced().try_for_each(|found| keeper.disk().remove(found))?;
    match stopped {
        Some(error) => Err(error),
        None => Ok(first),
    }
}

/// Gets one block into the store, if it is not there.
pub fn obtain(keeper: &Keeper, load: &Load, wanted: &Wanted<'_>) -> Result<(), BlockError> {
    let Wanted { shard, block, shards, source, urgent } = *wanted;
    let go_on = || load.go_on();
    go_on()?;
    let name = Name::of(block, shards);
    let _flight = keeper.flights().claim(block.shard, block.part, &go_on)?;
    match keeper.disk().head(&name) {
        Ok(Some(head)) if head.length == block.length => return Ok(()),
        // What takes its place has the same name.
        Ok(Some(_)) | Err(BlockError::Damaged { .. }) => keeper.disk().put_aside(&name)?,
        Ok(None) => {}
        Err(error) => return Err(error),
    }
    let mut writing = keeper.disk().begin(name, block.length)?;
    let (from, counted) = match keeper.peers().get(&load.from, &load.grant, &mut writing, !urgent, &go_on) {
        Ok(()) => ("peer", &load.from_peers),
        Err(BlockError::NoCopy { .. }) if source => {
            writing.restart();
            read_source(&load.work, shard, block, &mut writing, &go_on)?;
            ("source", &load.from_source)
        }
        Err(error) => return Err(error),
    };
    keeper.disk().keep(writing)?;
    counted.fetch_add(block.length, Ordering::Relaxed);
    keeper.metrics().blocks.for_load(from, block.length);
    Ok(())
}

/// Reads a block where its input is: the files are seen to be those planned before and after.
fn read_source(
    work: &Work,
    shard: &Shard,
    block: &Block,
    writing: &mut Writing,
    go_on: &dyn Fn() -> Result<(), BlockError>,
) -> Result<(), BlockError> {
    let (first, end) = (block.offset, block.offset + block.length);
    let mut buffer = vec![0; usize::try_from(block.length).unwrap_or(STEP).min(STEP)];
    let mut start = 0;
    for piece in &shard.pieces {
        let (mut at, until) = (first.max(start), end.min(start + piece.length));
        if at < until {
            let input = Input::open(work, &piece.file).map_err(BlockError::Source)?;
            while at < until {
                let step = usize::try_from(until - at).unwrap_or(STEP).min(buffer.len());
                work.pace_load(step as u64, go_on)?;
                input.read(&mut buffer[..step], piece.offset + (at - start)).map_err(BlockError::Source)?;
                writing.append(&buffer[..step])?;
                at += step as u64;
            }
            input.unchanged().map_err(BlockError::Source)?;
        }
        start += piece.length;
    }
    Ok(())
}
