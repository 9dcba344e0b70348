//! How far an attempt is: the output so far, its checkpoints, and what earlier attempts left (P20).

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use hyperflow_api::message::Checkpoint;
use hyperflow_core::{
    checkpoint::{Manifest, Origin, Saving, Segment},
    job::Task,
    layout::Layout,
};

use crate::{
    attempt::Attempt,
    checkpoints,
    direct::Buffer,
    fault::Fault,
    logs,
    publish::Publisher,
    segments::{self, Writer},
    store,
    stream::Stream,
    work::Work,
};

/// What the record of the shard says beside the result.
#[derive(Debug, Default)]
pub struct Figures {
    /// Bytes of the shard's input that earlier attempts had read.
    pub resumed_from: u64,
    /// Bytes that earlier attempts had written and no checkpoint counted.
    pub read_again: u64,
    /// Bytes of input that this attempt read.
    pub read: u64,
}

/// The output of one shard on its way.
pub struct Progress<'a> {
    work: &'a Work,
    attempt: &'a Attempt,
    commits: &'a Path,
    origin: Origin<'a>,
    folder: PathBuf,
    /// Output of earlier attempts that counts.
    older: Vec<Segment>,
    own: Writer,
    /// More results with the same bytes, written with `own`; none for an attempt that resumes, which makes them at the end.
    more: Vec<Writer>,
    /// The whole results, once they had to be put together.
    whole: Vec<Writer>,
    /// How many results there are to be.
    results: usize,
    /// How far in the shard's input.
    position: u64,
    /// Where this attempt began, and what the one before left for it to know.
    resumed: Option<String>,
    /// Number of the last checkpoint of the shard.
    number: u64,
    /// Position, and bytes of `own`, in the last checkpoint.
    counted: (u64, u64),
    since: Instant,
    named: bool,
    /// For bytes on their way.
    pub buffer: Buffer,
}

impl<'a> Progress<'a> {
    /// Begins where the lease says, or at zero. The shard's input has `length` bytes.
    pub fn begin(to: &Publisher<'a>, origin: Origin<'a>, length: u64, figures: &mut Figures) -> Result<Self, Fault> {
        let Publisher { work, attempt, places, index, .. } = *to;
        let resume = attempt.grant().resume;
        let manifest = resume.and_then(|wanted| resume_from(to, origin, wanted, length));
        let (position, older, resumed) = match manifest {
            Some(manifest) => (manifest.position, manifest.segments, manifest.state),
            None => (0, Vec::new(), None),
        };
        let folder = places.commits.join(work.layout.stage_folder(index));
        figures.read_again = segments::uncounted(&folder, &older)?;
        figures.resumed_from = position;
        store::make_folder(&folder)?;
        let expected = if let Task::Copy { .. } = work.job.task { length } else { 0 };
        let name = Layout::segment(attempt.grant().epoch, &work.worker);
        let own = Writer::create(&folder, name.clone(), expected)?;
        let results = to.results();
        let mut more = Vec::new();
        if position == 0 {
            for copy in 2..=results {
                more.push(Writer::create(&folder, format!("{}{copy}-{name}", segments::COPY), expected)?);
            }
        }
        Ok(Self {
            work,
            attempt,
            commits: &places.commits,
            origin,
            folder,
            older,
            own,
            more,
            whole: Vec::new(),
            results,
            position,
            resumed,
            number: resume.map_or(0, |checkpoint| checkpoint.number),
            counted: (position, 0),
            since: Instant::now(),
            named: false,
            buffer: Buffer::new(work.chunk()),
        })
    }

    /// How far in the shard's input.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What the last attempt left for this one to know, if it goes on from there.
    pub fn resumed(&self) -> Option<&str> {
        self.resumed.as_deref()
    }

    /// Fills the buffer with the input that comes next, as far as `end`, and says how many bytes those are. Each of them
    /// is read once and will be written `writes` times, and the pace counts all of that.
    pub fn fill(&mut self, input: &mut Stream<'_>, end: u64, writes: u64) -> Result<usize, Fault> {
        let left = usize::try_from(end - self.position).unwrap_or(usize::MAX);
        let length = left.min(self.buffer.len());
        self.work.pace((1 + writes) * length as u64, self.attempt)?;
        input.read(&mut self.buffer[..length], self.position)?;
        Ok(length)
    }

    /// How many results are written at once.
    pub fn writers(&self) -> u64 {
        1 + self.more.len() as u64
    }

    /// Adds the first bytes of the buffer to the output.
    pub fn append_buffer(&mut self, length: usize) -> Result<(), Fault> {
        let bytes = &self.buffer[..length];
        self.work.metrics.bytes_written.inc_by(length as u64 * self.writers());
        self.own.append(bytes)?;
        self.more.iter_mut().try_for_each(|copy| copy.append(bytes))
    }

    /// Adds to the output.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.work.metrics.bytes_written.inc_by(bytes.len() as u64);
        self.own.append(bytes)
    }

    /// So many more bytes of input were read and used.
    pub fn advance(&mut self, bytes: u64, figures: &mut Figures) {
        self.position += bytes;
        figures.read += bytes;
        self.work.metrics.bytes_read.inc_by(bytes);
        self.attempt.progressed(self.position);
    }

    /// Whether it is time for a checkpoint.
    pub fn is_due(&self) -> bool {
        let millis = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.work.job.cadence.due(millis, self.position - self.counted.0)
    }

    /// Makes a checkpoint by the steps that the core says, in its order (P20).
    pub fn checkpoint(&mut self, state: Option<String>) -> Result<(), Fault> {
        if self.position == self.counted.0 {
            return Ok(());
        }
        let manifest = Manifest::new(self.origin, self.number + 1, self.position, self.segments());
        let manifest = match state {
            Some(state) => manifest.with_state(state),
            None => manifest,
        };
        let mut written = None;
        let mut step = Some(Saving::FIRST);
        while let Some(saving) = step {
            match saving {
                Saving::SyncOutput => self.own.sync()?,
                Saving::SyncNames => self.sync_names()?,
                Saving::Write => written = Some(checkpoints::write(self.work, self.commits, self.attempt, &manifest)?),
                Saving::SyncName => checkpoints::sync_names(self.work, self.commits, manifest.index)?,
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
            self.counted = (self.position, self.own.segment().length);
            self.since = Instant::now();
            self.work.metrics.checkpoints.inc();
            self.attempt.checkpointed(checkpoint);
        }
    }

    fn segments(&self) -> Vec<Segment> {
        let own = Some(self.own.segment()).filter(|segment| segment.length > 0);
        self.older.iter().cloned().chain(own).collect()
    }

    /// Older segments may still be written to by a frozen attempt, so what is published are files of our own.
    pub fn assemble(&mut self) -> Result<(), Fault> {
        if self.older.is_empty() && self.more.len() + 1 == self.results {
            return Ok(());
        }
        for copy in 1..=self.results {
            let what = format!("{}{copy}", segments::ASSEMBLED);
            let name = Layout::private(&what, self.attempt.grant().epoch, &self.work.worker);
            let all = self.segments();
            self.whole.push(Writer::create(&self.folder, name, self.position)?);
            let Some(whole) = self.whole.last_mut() else { continue };
            segments::assemble(self.work, self.attempt, &self.folder, &all, whole, &mut self.buffer)?;
        }
        Ok(())
    }

    /// Gives back the room of everything that no checkpoint counts.
    pub fn give_back(&self) -> Result<(), Fault> {
        self.whole.iter().chain(&self.more).try_for_each(|writer| writer.give_back(0))?;
        self.own.give_back(self.counted.1)
    }

    /// The files that hold the whole output, one for each result.
    pub fn staged(&self) -> Vec<&Writer> {
        match self.whole.is_empty() {
            false => self.whole.iter().collect(),
            true => std::iter::once(&self.own).chain(&self.more).collect(),
        }
    }
}

fn resume_from(to: &Publisher<'_>, origin: Origin<'_>, wanted: Checkpoint, length: u64) -> Option<Manifest> {
    checkpoints::find(to.work, &to.places.commits, wanted, origin, length)
        .inspect_err(|error| {
            tracing::warn!(error = logs::causes(error), "the checkpoint is not used: the shard starts from zero");
        })
        .ok()
}
