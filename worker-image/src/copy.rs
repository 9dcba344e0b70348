//! The copy of one shard: from the input to a segment of its own, with checkpoints, to the published result.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use hyperflow_api::{
    ids::ShardIndex,
    message::{Checkpoint, FailureClass, Published},
};
use hyperflow_core::{
    checkpoint::{Manifest, Origin, Saving, Segment},
    job::Task,
    layout::Layout,
    plan::Piece,
    publish::{Answer, Content, PublishError, Step},
};

use crate::{
    attempt::Attempt,
    checkpoints,
    fault::{self, Fault},
    input::Input,
    logs,
    publish::{self, Publisher},
    records::{self, Record},
    segments::{self, Writer},
    store,
    work::Work,
};

/// What the record of the shard says beside the result.
#[derive(Debug, Default)]
struct Figures {
    resumed_from: u64,
    read_again: u64,
    read: u64,
}

/// Copies a shard, or finds it copied.
pub fn run(work: &Work, attempt: &Attempt, index: ShardIndex) -> Result<Published, Fault> {
    let (output, folder) = work.output()?;
    let root = &work.on_volume(FailureClass::Store, folder)?;
    let (plan, digest) = work.plan(root)?;
    let piece = plan.piece(index).ok_or_else(|| {
        let message = format!("shard {index} was leased, and the plan has {} shards", plan.shards());
        fault::try_again(FailureClass::WorkerLost, "PlanUnknown", message)
    })?;
    let publisher = Publisher { work, attempt, output, root, index, length: piece.length };
    let origin = Origin { job: &work.brief.uid, plan: &digest, program: Task::Copy.program(), index };
    let mut shard = Shard { publisher, origin, piece, copy: None, figures: Figures::default() };
    let done = shard.publish();
    if matches!(done, Err(Fault::Stopped)) && attempt.wants_checkpoint() {
        shard.leave_checkpoint();
    }
    done
}

/// One shard, from its input to its published result.
struct Shard<'a> {
    publisher: Publisher<'a>,
    origin: Origin<'a>,
    piece: Piece<'a>,
    copy: Option<Copy<'a>>,
    figures: Figures,
}

impl<'a> Shard<'a> {
    fn publish(&mut self) -> Result<Published, Fault> {
        let mut step = Step::Look;
        let mut gone = None;
        loop {
            if let Step::Report(published) = step {
                return Ok(published);
            }
            let answer = match self.carry_out(step) {
                Err(fault) if fault.is_full() && step == Step::Produce => {
                    self.give_back();
                    return Err(fault);
                }
                Err(fault) if fault.vanished() && matches!(step, Step::Produce | Step::Sync(_) | Step::Commit(_)) => {
                    gone = Some(fault);
                    Answer::Gone
                }
                answer => answer?,
            };
            step = step.next(answer).map_err(|error| match gone.take() {
                Some(fault) if error == PublishError::StagingGone => fault,
                _ => publish::out_of_order(error.to_string()),
            })?;
        }
    }

    fn carry_out(&mut self, step: Step) -> Result<Answer, Fault> {
        match step {
            Step::Produce => self.produce().map(Answer::Staged),
            Step::Record(published) => {
                let Publisher { work, attempt, root, index, .. } = self.publisher;
                let record = record(work, attempt, index, published, &self.figures);
                work.records.append(&records::path(root, work), &record).map(|()| Answer::Done)
            }
            step => self.publisher.carry_out(step, self.copy.as_ref().map(Copy::staged)),
        }
    }

    fn produce(&mut self) -> Result<Content, Fault> {
        let input = Input::open(self.publisher.work, self.piece.file)?;
        let copy = Copy::begin(&self.publisher, self.origin, &mut self.figures)?;
        let copy = self.copy.insert(copy);
        copy.read(&input, &self.piece, &mut self.figures)?;
        input.unchanged()?;
        copy.assemble()?;
        let segment = copy.staged().segment();
        Ok(Content { bytes: segment.length, crc32c: segment.crc32c })
    }

    /// There is no room, and nothing of this attempt is published: what it wrote since its checkpoint would be in the way
    /// of whoever tries next.
    fn give_back(&self) {
        let Some(copy) = &self.copy else { return };
        let whole = copy.whole.as_ref().map_or(Ok(()), |whole| whole.give_back(0));
        if let Err(error) = whole.and_then(|()| copy.own.give_back(copy.counted)) {
            tracing::warn!(error = logs::causes(&error), "what was written in vain still takes room");
        }
    }

    /// The worker leaves: what was done so far is kept for the next attempt.
    fn leave_checkpoint(&mut self) {
        if let Some(Err(error)) = self.copy.as_mut().map(Copy::checkpoint) {
            tracing::warn!(error = logs::causes(&error), "left without a last checkpoint");
        }
    }
}

fn record(work: &Work, attempt: &Attempt, index: ShardIndex, published: Published, figures: &Figures) -> Record {
    let grant = attempt.grant();
    Record {
        index,
        epoch: grant.epoch.to_string(),
        attempt: grant.attempt,
        worker: work.worker.to_string(),
        node: work.node.clone(),
        bytes: published.bytes,
        crc32c: format!("{:08x}", published.crc32c),
        resumed_from: figures.resumed_from,
        bytes_read_again: figures.read_again,
        bytes_read: figures.read,
        millis: u64::try_from(attempt.age().as_millis()).unwrap_or(u64::MAX),
        found: published.found,
    }
}

/// A copy under way.
struct Copy<'a> {
    work: &'a Work,
    attempt: &'a Attempt,
    root: &'a Path,
    origin: Origin<'a>,
    folder: PathBuf,
    /// Output of earlier attempts that counts.
    older: Vec<Segment>,
    own: Writer,
    /// All segments in one file, once there is more than one.
    whole: Option<Writer>,
    /// Bytes in all segments: how far in the shard's input.
    position: u64,
    /// Number of the last checkpoint of the shard.
    number: u64,
    /// Of `own`, in the last checkpoint.
    counted: u64,
    since: Instant,
    named: bool,
    buffer: Vec<u8>,
}

impl<'a> Copy<'a> {
    fn begin(to: &Publisher<'a>, origin: Origin<'a>, figures: &mut Figures) -> Result<Self, Fault> {
        let Publisher { work, attempt, root, index, .. } = *to;
        let resume = attempt.grant().resume;
        let manifest = resume.and_then(|wanted| resume_from(to, origin, wanted));
        let (position, older) = manifest.map_or((0, Vec::new()), |manifest| (manifest.position, manifest.segments));
        let folder = root.join(work.layout.stage_folder(index));
        figures.read_again = segments::uncounted(&folder, &older)?;
        figures.resumed_from = position;
        store::make_folder(&folder)?;
        let own = Writer::create(&folder, Layout::segment(attempt.grant().epoch, &work.worker))?;
        Ok(Self {
            work,
            attempt,
            root,
            origin,
            folder,
            older,
            own,
            whole: None,
            position,
            number: resume.map_or(0, |checkpoint| checkpoint.number),
            counted: 0,
            since: Instant::now(),
            named: false,
            buffer: vec![0; work.chunk()],
        })
    }

    fn read(&mut self, input: &Input<'_>, piece: &Piece<'_>, figures: &mut Figures) -> Result<(), Fault> {
        while self.position < piece.length {
            let left = usize::try_from(piece.length - self.position).unwrap_or(usize::MAX);
            let want = left.min(self.buffer.len());
            // Bytes read and bytes written both count.
            self.work.pace(2 * want as u64, self.attempt)?;
            let part = &mut self.buffer[..want];
            input.read(part, piece.offset + self.position)?;
            self.own.append(part)?;
            self.position += want as u64;
            figures.read += want as u64;
            self.work.metrics.bytes_read.inc_by(want as u64);
            self.work.metrics.bytes_written.inc_by(want as u64);
            self.attempt.progressed(self.position);
            let millis = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
            let more = self.position < piece.length;
            if more && self.work.job.cadence.due(millis, self.own.length() - self.counted) {
                self.checkpoint()?;
            }
        }
        Ok(())
    }

    /// Does the steps that the core says, in its order (P20).
    fn checkpoint(&mut self) -> Result<(), Fault> {
        if self.own.length() == self.counted {
            return Ok(());
        }
        let manifest = Manifest::new(self.origin, self.number + 1, self.position, self.segments());
        let mut written = None;
        let mut step = Some(Saving::FIRST);
        while let Some(saving) = step {
            match saving {
                Saving::SyncOutput => self.own.sync()?,
                Saving::SyncNames => self.sync_names()?,
                Saving::Write => written = Some(checkpoints::write(self.work, self.root, self.attempt, &manifest)?),
                Saving::SyncName => checkpoints::sync_names(self.work, self.root, manifest.index)?,
                Saving::Report => self.checkpointed(written),
            }
            step = saving.next();
        }
        Ok(())
    }

    /// Segments get their names once.
    fn sync_names(&mut self) -> Result<(), Fault> {
        if !self.named {
            store::sync_folder(&self.folder)?;
            store::sync_folder(store::parent(&self.folder))?;
            self.named = true;
        }
        Ok(())
    }

    fn checkpointed(&mut self, written: Option<Checkpoint>) {
        if let Some(checkpoint) = written {
            self.number = checkpoint.number;
            self.counted = self.own.length();
            self.since = Instant::now();
            self.work.metrics.checkpoints.inc();
            self.attempt.checkpointed(checkpoint);
        }
    }

    fn segments(&self) -> Vec<Segment> {
        let own = Some(self.own.segment()).filter(|segment| segment.length > 0);
        self.older.iter().cloned().chain(own).collect()
    }

    /// Older segments may still be written to by a frozen attempt, so what is published is a file of our own.
    fn assemble(&mut self) -> Result<(), Fault> {
        if self.older.is_empty() {
            return Ok(());
        }
        let name = Layout::private(segments::ASSEMBLED, self.attempt.grant().epoch, &self.work.worker);
        let all = self.segments();
        let whole = self.whole.insert(Writer::create(&self.folder, name)?);
        segments::assemble(self.work, self.attempt, &self.folder, &all, whole, &mut self.buffer)
    }

    /// The file that holds the whole output.
    fn staged(&self) -> &Writer {
        self.whole.as_ref().unwrap_or(&self.own)
    }
}

fn resume_from(to: &Publisher<'_>, origin: Origin<'_>, wanted: Checkpoint) -> Option<Manifest> {
    checkpoints::find(to.work, to.root, wanted, origin, to.length)
        .inspect_err(|error| {
            tracing::warn!(error = logs::causes(error), "the checkpoint is not used: the shard starts from zero");
        })
        .ok()
}
