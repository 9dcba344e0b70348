//! A stored plan: read once to be verified, then looked into. A million lines are never held.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    ops::{ControlFlow, Range},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use hyperflow_api::{ids::ShardIndex, message::FailureClass};
use hyperflow_core::plan::{Plan, PlanError, Reading, Shard, Walk};

use crate::fault::{self, Fault};

/// Bytes read ahead when everything is wanted, and when one shard is.
const ALL: usize = 256 << 10;
const ONE: usize = 16 << 10;
/// Longest line: a path and a URL, each byte of them escaped.
const LONGEST: u64 = 64 << 10;

/// A plan and the file that it is in.
#[derive(Debug)]
pub struct PlanFile {
    file: File,
    path: PathBuf,
    plan: Plan,
}

impl PlanFile {
    /// Opens the plan at `path`; with `wanted`, only the one with that digest.
    pub fn open(path: &Path, wanted: Option<&str>) -> Result<Self, Fault> {
        Self::of(File::open(path).map_err(fault::output("open the plan", path))?, path, wanted)
    }

    /// Reads and verifies the plan in an open file.
    pub fn of(file: File, path: &Path, wanted: Option<&str>) -> Result<Self, Fault> {
        let mut reading = Reading::default();
        let mut lines = Lines::new(&file, 0, ALL);
        while let Some(line) = lines.next().map_err(fault::output("read the plan", path))? {
            reading.line(line).map_err(|error| damaged(path, &error))?;
        }
        let plan = reading.end(wanted).map_err(|error| damaged(path, &error))?;
        Ok(Self { file, path: path.into(), plan })
    }

    /// What is known of it without its entries.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The file that it is in.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What is in a shard; nothing beyond the last one.
    pub fn shard(&self, index: ShardIndex) -> Result<Option<Shard>, Fault> {
        let Some(walk) = self.plan.walk(index) else { return Ok(None) };
        match self.go(walk, ONE, |_, shard| ControlFlow::Break(shard.clone()))? {
            ControlFlow::Break(shard) => Ok(Some(shard)),
            ControlFlow::Continue(()) => Ok(None),
        }
    }

    /// Shows every shard, in order.
    pub fn each(&self, mut show: impl FnMut(ShardIndex, &Shard) -> Result<(), Fault>) -> Result<(), Fault> {
        let Some(walk) = self.plan.walk(0) else { return Ok(()) };
        let went = self.go(walk, ALL, |index, shard| match show(index, shard) {
            Ok(()) => ControlFlow::Continue(()),
            Err(fault) => ControlFlow::Break(fault),
        })?;
        match went {
            ControlFlow::Break(fault) => Err(fault),
            ControlFlow::Continue(()) => Ok(()),
        }
    }

    /// Shows some of the shards, in order.
    pub fn some(
        &self,
        shards: Range<ShardIndex>,
        mut show: impl FnMut(ShardIndex, &Shard) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let Some(walk) = self.plan.walk(shards.start).filter(|_| !shards.is_empty()) else { return Ok(()) };
        let went = self.go(walk, ALL, |index, shard| {
            if index >= shards.end {
                return ControlFlow::Break(Ok(()));
            }
            match show(index, shard) {
                Ok(()) if index + 1 == shards.end => ControlFlow::Break(Ok(())),
                Ok(()) => ControlFlow::Continue(()),
                Err(fault) => ControlFlow::Break(Err(fault)),
            }
        })?;
        match went {
            ControlFlow::Break(done) => done,
            ControlFlow::Continue(()) => Ok(()),
        }
    }

    fn go<B>(
        &self,
        mut walk: Walk,
        ahead: usize,
        mut show: impl FnMut(ShardIndex, &Shard) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, Fault> {
        let mut lines = Lines::new(&self.file, walk.offset(), ahead);
        while let Some(line) = lines.next().map_err(fault::output("read the plan", &self.path))? {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            let went = walk.line(text, &mut show).map_err(|error| damaged(&self.path, &error))?;
            if went.is_break() {
                return Ok(went);
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

fn damaged(path: &Path, error: &PlanError) -> Fault {
    let message = format!("'{}' is not the plan that was made: {error}. Create a new ShardJob", path.display());
    fault::end_job(FailureClass::Store, "PlanDamaged", message)
}

/// Lines with their newlines, from a byte on.
struct Lines<'a> {
    from: BufReader<At<'a>>,
    line: Vec<u8>,
}

/// Reads at a place of its own, for many read one file at a time.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

impl<'a> Lines<'a> {
    fn new(file: &'a File, offset: u64, ahead: usize) -> Self {
        Self { from: BufReader::with_capacity(ahead, At { file, offset }), line: Vec::new() }
    }

    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let read = (&mut self.from).take(LONGEST).read_until(b'\n', &mut self.line)?;
        Ok((read > 0).then_some(&self.line))
    }
}
