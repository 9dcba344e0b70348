//! A task's input, read from blocks: from this store, from what is being loaded into it, from another worker, and from the
//! source only if none of them has it. No byte is used of a block that was not verified, or is not of the plan's version.

use std::{collections::VecDeque, sync::Arc};

use hyperflow_api::ids::ShardIndex;
use hyperflow_core::{
    blocks::{Block, blocks_of},
    plan::{InputFile, Shard},
};

use super::{
    Keeper,
    disk::Replica,
    error::{BlockError, disk, is_change},
    load::{self, Wanted},
    replica::Name,
};
use crate::{fault::Fault, input::Input, logs, plan_file::PlanFile, work::Work};

/// Blocks that are open at a time: where records are cut, those of two shards are read in turn.
const OPEN: usize = 2;
/// Shards whose place in the plan is known: the one, the one before and those after it.
const KNOWN: usize = 4;

/// Reads the files of one shard, and of its neighbours as far as its records go.
#[derive(Debug)]
pub struct Reader<'a> {
    work: &'a Work,
    keeper: &'a Arc<Keeper>,
    plan: Arc<PlanFile>,
    index: ShardIndex,
    known: VecDeque<Arc<Known>>,
    open: VecDeque<(Name, Held)>,
    source: Option<Input<'a>>,
    /// The piece of the shard that was read last.
    hint: usize,
}

/// A shard of the plan and its blocks.
#[derive(Debug)]
struct Known {
    index: ShardIndex,
    shard: Shard,
    /// Where each piece begins in the shard's input.
    starts: Vec<u64>,
    blocks: Vec<Block>,
}

#[derive(Debug)]
enum Held {
    Copy(Replica, &'static str),
    /// Nobody has it.
    Nowhere,
}

/// Bytes of a file in one block.
#[derive(Debug)]
struct Place {
    known: Arc<Known>,
    block: Block,
    /// Of the block.
    offset: u64,
    length: u64,
}

impl<'a> Reader<'a> {
    /// Of a shard. With `onChange: Fail`, a file that is there and is not the one planned is refused before a byte is read;
    /// one that is not there may be as it was.
    pub fn open(work: &'a Work, keeper: &'a Arc<Keeper>, index: ShardIndex, shard: &Shard) -> Result<Self, Fault> {
        let plan = work.plan_in_force()?;
        let use_when_changed = work.job.blocks.is_some_and(|policy| policy.use_when_changed);
        if !use_when_changed {
            for piece in &shard.pieces {
                refuse_changed(work, &piece.file)?;
            }
        }
        let (known, open) = (VecDeque::new(), VecDeque::new());
        Ok(Self { work, keeper, plan, index, known, open, source: None, hint: 0 })
    }

    /// Fills the buffer from a byte of a file on.
    pub fn read(&mut self, file: &'a InputFile, buffer: &mut [u8], offset: u64) -> Result<(), Fault> {
        let mut filled = 0;
        while filled < buffer.len() {
            let at = offset + filled as u64;
            let left = &mut buffer[filled..];
            let Some(place) = self.find(file, at)? else {
                // Not in the plan, which no reader asks for.
                return self.read_source(file, left, at);
            };
            let length = usize::try_from(place.length).unwrap_or(usize::MAX).min(left.len());
            self.read_block(file, &place, &mut left[..length], at)?;
            filled += length;
        }
        Ok(())
    }

    fn read_block(&mut self, file: &'a InputFile, place: &Place, into: &mut [u8], at: u64) -> Result<(), Fault> {
        let name = Name::of(&place.block, self.plan.plan().shards());
        if !self.open.iter().any(|(open, _)| *open == name) {
            let held = self.obtain(&name, place);
            self.open.truncate(OPEN - 1);
            self.open.push_front((name, held));
        }
        if let Some(&(_, Held::Copy(ref replica, from))) = self.open.iter().find(|(open, _)| *open == name) {
            match replica.read(into, place.offset) {
                Ok(()) => {
                    self.keeper.metrics().blocks.for_task(from, into.len() as u64);
                    return Ok(());
                }
                Err(error) => {
                    let error = disk("read a replica in", self.keeper.disk().folder())(error);
                    tracing::warn!(error = logs::causes(&error), block = ?name, "the source is read instead of a block");
                }
            }
        }
        self.read_source(file, into, at)
    }

    fn read_source(&mut self, file: &'a InputFile, into: &mut [u8], at: u64) -> Result<(), Fault> {
        let input = match self.source.take().filter(|input| input.is_of(file)) {
            Some(input) => input,
            None => Input::open(self.work, file)?,
        };
        input.read(into, at)?;
        // The next bytes may come from a block, so that this may have been the last look at the file.
        input.unchanged()?;
        self.keeper.metrics().blocks.for_task("source", into.len() as u64);
        self.source = Some(input);
        Ok(())
    }

    /// A verified copy of a block, wherever one is.
    fn obtain(&self, name: &Name, place: &Place) -> Held {
        if let Some(replica) = self.local(name, &place.block) {
            return Held::Copy(replica, "local");
        }
        if let Some(load) = self.keeper.loads().of(name.group) {
            // It is loaded anyway: this block now, and the others after it.
            let (shard, block) = (&place.known.shard, &place.block);
            let shards = self.plan.plan().shards();
            let wanted = Wanted { shard, block, shards, source: load.source, urgent: true };
            match load::obtain(self.keeper, &load, &wanted) {
                Ok(()) => {
                    if let Some(replica) = self.local(name, block) {
                        return Held::Copy(replica, "local");
                    }
                }
                Err(error) => tracing::info!(error = logs::causes(&error), block = ?name, "a block is not loaded"),
            }
        }
        match self.borrow(name, &place.block) {
            Ok(replica) => Held::Copy(replica, "peer"),
            Err(error) => {
                tracing::debug!(error = logs::causes(&error), block = ?name, "no other worker gives a block");
                Held::Nowhere
            }
        }
    }

    fn local(&self, name: &Name, block: &Block) -> Option<Replica> {
        self.keeper.local(name).filter(|replica| replica.head().length == block.length)
    }

    /// Gets a block from another worker, to be read once.
    fn borrow(&self, name: &Name, block: &Block) -> Result<Replica, BlockError> {
        let (from, grant) = self.keeper.access(name.group).unwrap_or_default();
        if from.is_empty() {
            return Err(BlockError::NoCopy { shard: block.shard, part: block.part, last: None });
        }
        let mut writing = self.keeper.disk().borrow(*name, block.length)?;
        self.keeper.peers().get(&from, &grant, &mut writing, false, &|| Ok(()))?;
        writing.lend()
    }

    /// In which block a byte of a file is: in one of the shard, or of its neighbours. Shards are in the order of files and
    /// of the bytes in them.
    fn find(&mut self, file: &InputFile, at: u64) -> Result<Option<Place>, Fault> {
        let own = self.know(self.index)?;
        let Some(own) = own else { return Ok(None) };
        if let Some(place) = self.place(&own, file, at) {
            return Ok(Some(place));
        }
        let before = own.shard.pieces.iter().any(|piece| is_same(&piece.file, file) && at < piece.offset);
        let mut index = self.index;
        loop {
            let next = if before { index.checked_sub(1) } else { index.checked_add(1) };
            let Some(next) = next else { return Ok(None) };
            let Some(known) = self.know(next)? else { return Ok(None) };
            if let Some(place) = self.place(&known, file, at) {
                return Ok(Some(place));
            }
            if !known.shard.pieces.iter().any(|piece| is_same(&piece.file, file)) {
                return Ok(None);
            }
            index = next;
        }
    }

    fn know(&mut self, index: ShardIndex) -> Result<Option<Arc<Known>>, Fault> {
        if let Some(known) = self.known.iter().find(|known| known.index == index) {
            return Ok(Some(known.clone()));
        }
        let Some(shard) = self.plan.shard(index)? else { return Ok(None) };
        let starts = shard.pieces.iter().scan(0, |next, piece| {
            let start = *next;
            *next += piece.length;
            Some(start)
        });
        let (starts, blocks) = (starts.collect(), blocks_of(index, &shard));
        let known = Arc::new(Known { index, shard, starts, blocks });
        self.known.truncate(KNOWN - 1);
        self.known.push_front(known.clone());
        Ok(Some(known))
    }

    fn place(&mut self, known: &Arc<Known>, file: &InputFile, at: u64) -> Option<Place> {
        let pieces = &known.shard.pieces;
        let has = |number: &usize| {
            let piece = pieces.get(*number);
            piece.is_some_and(|piece| {
                (piece.offset..piece.offset + piece.length).contains(&at) && is_same(&piece.file, file)
            })
        };
        // Of a hundred thousand files, it is the same as the last time or the next one.
        let hinted = [self.hint, self.hint + 1].into_iter().find(has);
        let number = hinted.or_else(|| (0..pieces.len()).find(has))?;
        self.hint = number;
        let piece = &pieces[number];
        let position = known.starts[number] + (at - piece.offset);
        let block = known.blocks.iter().rev().find(|block| block.offset <= position)?;
        let offset = position - block.offset;
        let length = (block.length - offset).min(piece.offset + piece.length - at);
        Some(Place { known: known.clone(), block: *block, offset, length })
    }
}

fn is_same(one: &InputFile, other: &InputFile) -> bool {
    one.url == other.url && one.version == other.version
}

/// Refuses a file that is there and is not the one planned. Whoever cannot look at it does not know that.
fn refuse_changed(work: &Work, file: &InputFile) -> Result<(), Fault> {
    match Input::open(work, file) {
        Err(fault) if is_change(&fault) => Err(fault),
        Err(fault @ Fault::Input { .. }) => {
            tracing::info!(error = logs::causes(&fault), "the source is away: its blocks are read");
            Ok(())
        }
        opened => opened.map(drop),
    }
}
