//! What workers recorded, in the order of shards.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, ErrorKind, Read},
    path::{Path, PathBuf},
};

use hyperflow_api::ids::{Epoch, ShardIndex};

use super::BUFFER;
use crate::{
    fault::{self, Fault},
    listing::sort::{Sorted, Sorter},
    records::Record,
};

/// Bytes of records that are sorted in memory.
const HELD: usize = 16 << 20;
/// Most bytes of a line; a record has a few hundred.
pub(super) const LONGEST: u64 = 64 << 10;
/// Bytes before a record that it is sorted by: index, whether it was found, three numbers of the epoch.
const KEY: usize = 29;

/// What workers recorded, by shard.
#[derive(Debug)]
pub struct Recorded {
    sorted: Sorted,
    /// Where it is sorted.
    scratch: PathBuf,
    /// The first that is not of an earlier shard than was asked for.
    ahead: Option<Record>,
    /// Lines that are no records.
    pub(super) torn: u64,
}

impl Recorded {
    /// Reads all record files in `folders`, one folder for each job that results were taken over from (P31), and sorts
    /// them in `scratch`. A folder that is not there has none.
    pub fn read(folders: &[PathBuf], scratch: &Path) -> Result<Self, Fault> {
        Self::read_within(HELD, folders, scratch)
    }

    pub(super) fn read_within(held: usize, folders: &[PathBuf], scratch: &Path) -> Result<Self, Fault> {
        let mut sorter = Sorter::new(scratch, held);
        let mut torn = 0;
        for folder in folders {
            for path in files(folder)? {
                torn += read_file(&path, scratch, &mut sorter)?;
            }
        }
        let sorted = sorter.finish().map_err(fault::output("sort records in", scratch))?;
        let mut recorded = Self { sorted, scratch: scratch.into(), ahead: None, torn };
        recorded.advance()?;
        Ok(recorded)
    }

    /// The record of a shard that counts: of those who published it and did not find it published, the one of the first
    /// epoch; if all have found it, because its publisher died before it could say so, the first of them.
    pub(super) fn of(&mut self, index: ShardIndex) -> Result<Option<Record>, Fault> {
        while self.ahead.as_ref().is_some_and(|ahead| ahead.index < index) {
            self.advance()?;
        }
        Ok(self.ahead.as_ref().filter(|ahead| ahead.index == index).cloned())
    }

    fn advance(&mut self) -> Result<(), Fault> {
        let next = self.sorted.next().map_err(fault::output("read back", &self.scratch))?;
        let record = next.map(|sorted| serde_json::from_slice(sorted.get(KEY..).unwrap_or_default()));
        self.ahead = record.transpose().map_err(|error| fault::output("read back", &self.scratch)(error.into()))?;
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

/// Gives the records of a file to `sorter`, and says how many lines are none.
fn read_file(path: &Path, scratch: &Path, sorter: &mut Sorter) -> Result<u64, Fault> {
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
            Some(record) => sorter.push(&record).map_err(fault::output("sort records in", scratch))?,
            None => torn += 1,
        }
    }
}

/// A record after what it is sorted by. None for a line that a crash has torn: nothing was said on its strength.
fn sortable(line: &[u8]) -> Option<Vec<u8>> {
    let text = line.strip_suffix(b"\n")?;
    let record: Record = serde_json::from_slice(text).ok()?;
    let Epoch { takeover, sequence } = record.epoch.parse().ok()?;
    let mut sortable = Vec::with_capacity(KEY + text.len());
    sortable.extend(record.index.to_be_bytes());
    sortable.push(record.found.into());
    for number in [takeover.term, takeover.random, sequence] {
        sortable.extend(number.to_be_bytes());
    }
    sortable.extend(text);
    Some(sortable)
}
