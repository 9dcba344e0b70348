//! The copy of one shard: from the input to a segment of its own, with checkpoints, to the published result.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use hyperflow_api::{
    ids::ShardIndex,
    message::{FailureClass, Published},
};
use hyperflow_core::{
    checkpoint::{Manifest, Origin, Segment},
    job::Task,
    layout::Layout,
    plan::Piece,
};

use crate::{
    attempt::Attempt,
    checkpoints,
    fault::{self, Fault},
    input::Input,
    logs,
    publish::Publisher,
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
    let mut figures = Figures::default();
    // One look is cheaper than to know when it is needed: after a probe (P18), a retry, a zombie's late commit.
    let published = match publisher.found()? {
        Some(found) => found,
        None => match copy(&publisher, origin, &piece, &mut figures) {
            // The sweeper removes staging of committed shards: whoever still worked on one finds the commit.
            Err(gone) if gone.vanished() => publisher.found()?.ok_or(gone)?,
            done => done?,
        },
    };
    work.records.append(&records::path(root, work), &record(work, attempt, index, published, &figures))?;
    Ok(published)
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

fn copy(to: &Publisher<'_>, origin: Origin<'_>, piece: &Piece<'_>, figures: &mut Figures) -> Result<Published, Fault> {
    let input = Input::open(to.work, piece.file)?;
    let mut copy = Copy::begin(to, origin, figures)?;
    let read = copy.read(&input, piece, figures);
    let done = read.and_then(|()| input.unchanged()).and_then(|()| copy.publish(to));
    if matches!(done, Err(Fault::Stopped)) && to.attempt.wants_checkpoint() {
        copy.checkpoint().unwrap_or_else(|error| {
            tracing::warn!(error = logs::causes(&error), "left without a last checkpoint");
        });
    }
    done
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

    /// Output first, then its names, then the manifest, then the report (P20).
    fn checkpoint(&mut self) -> Result<(), Fault> {
        if self.own.length() == self.counted {
            return Ok(());
        }
        self.own.sync()?;
        if !self.named {
            store::sync_folder(&self.folder)?;
            store::sync_folder(store::parent(&self.folder))?;
            self.named = true;
        }
        let manifest = Manifest::new(self.origin, self.number + 1, self.position, self.segments());
        let checkpoint = checkpoints::write(self.work, self.root, self.attempt, &manifest)?;
        self.number = checkpoint.number;
        self.counted = self.own.length();
        self.since = Instant::now();
        self.attempt.checkpointed(checkpoint);
        Ok(())
    }

    fn segments(&self) -> Vec<Segment> {
        let own = Some(self.own.segment()).filter(|segment| segment.length > 0);
        self.older.iter().cloned().chain(own).collect()
    }

    fn publish(&mut self, to: &Publisher<'_>) -> Result<Published, Fault> {
        if self.older.is_empty() {
            self.own.sync()?;
            self.attempt.go_on()?;
            return to.commit(&self.own);
        }
        // Older segments may still be written to by a frozen attempt, so what is published is a file of our own.
        let name = Layout::private(segments::ASSEMBLED, self.attempt.grant().epoch, &self.work.worker);
        let mut whole = Writer::create(&self.folder, name)?;
        let all = self.segments();
        segments::assemble(self.work, self.attempt, &self.folder, &all, &mut whole, &mut self.buffer)?;
        whole.sync()?;
        self.attempt.go_on()?;
        to.commit(&whole)
    }
}

fn resume_from(to: &Publisher<'_>, origin: Origin<'_>, wanted: hyperflow_api::message::Checkpoint) -> Option<Manifest> {
    let found = checkpoints::find(to.work, to.root, wanted, origin);
    let usable = found.and_then(|manifest| {
        // A manifest beyond the end of the shard is of another cut.
        if manifest.position <= to.length {
            Ok(manifest)
        } else {
            Err(checkpoints::Unusable::Differs { number: wanted.number })
        }
    });
    usable
        .inspect_err(|error| {
            tracing::warn!(error = logs::causes(error), "the checkpoint is not used: the shard starts from zero");
        })
        .ok()
}
