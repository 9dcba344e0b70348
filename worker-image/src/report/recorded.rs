//! What workers recorded, in the order of shards.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, ErrorKind, Read},
    path::{Path, PathBuf},
};

use hyperflow_api::ids::{Epoch, ShardIndex};

use crate::{
    fault::{self, Fault},
    listing::sort::{Sorted, Sorter},
    records::{Failed, Record},
};

/// Bytes of records that are sorted in memory.
const HELD: usize = 16 << 20;
/// Bytes read at a time.
const BUFFER: usize = 64 << 10;
/// Most bytes of a line: a record has a few hundred, and a result and a message of a few KiB, however they are escaped.
pub(super) const LONGEST: u64 = 64 << 10;
/// Bytes before a record that it is sorted by: index, whether it failed, run, whether it was found, three numbers of the
/// epoch.
const KEY: usize = 34;

/// Kinds of lines, in the order in which they count for a shard.
const PUBLISHED: u8 = 0;
const FOUND: u8 = 1;
const FAILED: u8 = 2;

/// What counts for a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It is published.
    Published(Record),
    /// It is not, and this is the last attempt that failed.
    Failed(Failed),
}

impl Entry {
    fn read(sorted: &[u8]) -> serde_json::Result<Self> {
        let text = sorted.get(KEY..).unwrap_or_default();
        match sorted.get(4) {
            Some(1) => serde_json::from_slice(text).map(Self::Failed),
            _ => serde_json::from_slice(text).map(Self::Published),
        }
    }

    fn index(&self) -> ShardIndex {
        match self {
            Self::Published(record) => record.index,
            Self::Failed(failed) => failed.index,
        }
    }
}

/// What workers recorded, by shard.
#[derive(Debug)]
pub struct Recorded {
    sorted: Sorted,
    /// Where it is sorted.
    scratch: PathBuf,
    /// The first that is not of an earlier shard than was asked for.
    ahead: Option<Entry>,
    /// Lines that are no records.
    pub(super) torn: u64,
}

impl Recorded {
    /// Reads all record files in the job's `own` folder and in `others`, one for each job that results were taken over
    /// from (P31), and sorts them in `scratch`. A folder that is not there has none.
    pub fn read(own: &Path, others: &[PathBuf], scratch: &Path) -> Result<Self, Fault> {
        Self::read_within(HELD, own, others, scratch)
    }

    pub(super) fn read_within(held: usize, own: &Path, others: &[PathBuf], scratch: &Path) -> Result<Self, Fault> {
        let mut sorter = Sorter::new(scratch, held);
        let mut torn = 0;
        let others = others.iter().map(PathBuf::as_path).filter(|folder| *folder != own);
        for folder in std::iter::once(own).chain(others) {
            // What failed for another job says nothing of this one's attempts.
            let most = if folder == own { FAILED } else { FOUND };
            for path in files(folder)? {
                torn += read_file(&path, scratch, &mut sorter, most)?;
            }
        }
        let sorted = sorter.finish().map_err(fault::output("sort records in", scratch))?;
        let mut recorded = Self { sorted, scratch: scratch.into(), ahead: None, torn };
        recorded.advance()?;
        Ok(recorded)
    }

    /// What counts for a shard: of its last run that published it, and of those who did and did not find it published, the one of the first epoch; if
    /// all have found it, because its publisher died before it could say so, the first of them. If nobody has published
    /// it, the last that failed.
    pub(super) fn of(&mut self, index: ShardIndex) -> Result<Option<Entry>, Fault> {
        let mut counts = None;
        while let Some(ahead) = self.ahead.take_if(|ahead| ahead.index() <= index) {
            match ahead {
                ahead if ahead.index() < index || matches!(counts, Some(Entry::Published(_))) => {}
                ahead => counts = Some(ahead),
            }
            self.advance()?;
        }
        Ok(counts)
    }

    fn advance(&mut self) -> Result<(), Fault> {
        let next = self.sorted.next().map_err(fault::output("read back", &self.scratch))?;
        self.ahead = next
            .map(Entry::read)
            .transpose()
            .map_err(|error| fault::output("read back", &self.scratch)(error.into()))?;
        Ok(())
    }
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, Fault> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fault::output("list", folder)(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(fault::output("list", folder))?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            files.push(path);
        }
    }
    Ok(files)
}

/// Gives the lines of a file up to the kind `most` to `sorter`, and says how many lines are of no kind.
fn read_file(path: &Path, scratch: &Path, sorter: &mut Sorter, most: u8) -> Result<u64, Fault> {
    let file = File::open(path).map_err(fault::output("open", path))?;
    let mut lines = BufReader::with_capacity(BUFFER, file);
    let (mut line, mut torn) = (Vec::new(), 0);
    loop {
        line.clear();
        let read = lines.by_ref().take(LONGEST).read_until(b'\n', &mut line);
        if read.map_err(fault::output("read", path))? == 0 {
            return Ok(torn);
        }
        if line.last() != Some(&b'\n') {
            lines.skip_until(b'\n').map_err(fault::output("read", path))?;
        }
        match sortable(&line) {
            Some((kind, _)) if kind > most => {}
            Some((_, line)) => sorter.push(&line).map_err(fault::output("sort records in", scratch))?,
            None => torn += 1,
        }
    }
}

/// A line's kind, and it after what it is sorted by. None for a line that a crash has torn: nothing was said on its
/// strength.
fn sortable(line: &[u8]) -> Option<(u8, Vec<u8>)> {
    let text = line.strip_suffix(b"\n")?;
    let (index, run, kind, epoch) = match serde_json::from_slice(text) {
        Ok(Record { index, run, epoch, found, .. }) => (index, run, if found { FOUND } else { PUBLISHED }, epoch),
        Err(_) => {
            let Failed { index, epoch, .. } = serde_json::from_slice(text).ok()?;
            (index, 0, FAILED, epoch)
        }
    };
    let Epoch { takeover, sequence } = epoch.parse().ok()?;
    let mut sortable = Vec::with_capacity(KEY + text.len());
    sortable.extend(index.to_be_bytes());
    sortable.push(u8::from(kind == FAILED));
    // The last run comes first.
    sortable.extend((u32::MAX - run).to_be_bytes());
    sortable.push(kind);
    for number in [takeover.term, takeover.random, sequence] {
        sortable.extend(number.to_be_bytes());
    }
    sortable.extend(text);
    Some((kind, sortable))
}
