//! Sorting more records than fit into memory: sorted runs in unlinked files, merged when they are read.
//!
//! A record is any bytes and is compared as bytes, so what it is sorted by stands first in it. Equal records all stay.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, binary_heap::PeekMut},
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
    mem,
    path::{Path, PathBuf},
};

/// Most runs merged at a time, so that few files are open.
const FAN_IN: usize = 64;
/// Bytes read ahead of each run.
const READ: usize = 32 << 10;
/// Bytes gathered before a write.
const WRITE: usize = 256 << 10;
/// Most bytes held, whatever the caller allows: a place in the arena is 32 bits.
const MOST: usize = 1 << 30;

/// Takes records in any order.
#[derive(Debug)]
pub struct Sorter {
    folder: PathBuf,
    budget: usize,
    held: Held,
    /// Runs on disk; each level's are about `FAN_IN` times longer than those of the level before.
    levels: Vec<Vec<Run>>,
}

impl Sorter {
    /// Spills to `folder` whenever it holds `budget` bytes.
    pub fn new(folder: &Path, budget: usize) -> Self {
        Self { folder: folder.into(), budget: budget.min(MOST), held: Held::default(), levels: Vec::new() }
    }

    /// Adds a record.
    pub fn push(&mut self, record: &[u8]) -> io::Result<()> {
        if !self.held.places.is_empty() && self.held.bytes() + cost(record.len()) > self.budget {
            self.spill()?;
        }
        self.held.push(record)
    }

    /// No more records: now they can be read.
    pub fn finish(mut self) -> io::Result<Sorted> {
        if self.levels.is_empty() {
            self.held.places.sort_unstable_by(|one, other| self.held.arena.compare(one, other));
            return Ok(Sorted(From::Memory { held: self.held, next: 0 }));
        }
        if !self.held.places.is_empty() {
            self.spill()?;
        }
        self.held = Held::default();
        // The shortest first, and no more than must be: what is merged here is written once more.
        let mut runs: Vec<Run> = self.levels.into_iter().flatten().collect();
        while runs.len() > FAN_IN {
            let few = (runs.len() - FAN_IN + 1).min(FAN_IN);
            let merged = merge(&self.folder, runs.drain(..few).collect())?;
            runs.push(merged);
        }
        Ok(Sorted(From::Disk(Merge::new(runs)?)))
    }

    fn spill(&mut self) -> io::Result<()> {
        let mut run = self.held.spill(&self.folder)?;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            self.levels[level].push(run);
            if self.levels[level].len() < FAN_IN {
                break;
            }
            run = merge(&self.folder, mem::take(&mut self.levels[level]))?;
        }
        Ok(())
    }
}

/// Bytes that a record takes while it is held.
fn cost(length: usize) -> usize {
    length + size_of::<Place>()
}

/// Records in memory.
#[derive(Debug, Default)]
struct Held {
    arena: Arena,
    places: Vec<Place>,
}

#[derive(Debug, Default)]
struct Arena(Vec<u8>);

/// Where a record is. Its first bytes are here as well: they decide most comparisons without a look at the arena.
#[derive(Clone, Copy, Debug)]
struct Place {
    first: u64,
    start: u32,
    length: u32,
}

impl Arena {
    fn record(&self, place: &Place) -> &[u8] {
        let start = place.start as usize;
        &self.0[start..start + place.length as usize]
    }

    fn compare(&self, one: &Place, other: &Place) -> Ordering {
        one.first.cmp(&other.first).then_with(|| self.record(one).cmp(self.record(other)))
    }
}

impl Held {
    fn bytes(&self) -> usize {
        self.arena.0.len() + self.places.len() * size_of::<Place>()
    }

    fn push(&mut self, record: &[u8]) -> io::Result<()> {
        let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "a record of more than 4 GiB");
        let start = u32::try_from(self.arena.0.len()).map_err(too_long)?;
        let length = u32::try_from(record.len()).map_err(too_long)?;
        self.arena.0.extend_from_slice(record);
        self.places.push(Place { first: first(record), start, length });
        Ok(())
    }

    fn spill(&mut self, folder: &Path) -> io::Result<Run> {
        self.places.sort_unstable_by(|one, other| self.arena.compare(one, other));
        let mut run = Writer::new(folder)?;
        for place in &self.places {
            run.push(self.arena.record(place))?;
        }
        self.places.clear();
        self.arena.0.clear();
        run.finish()
    }
}

/// The first eight bytes as a number that is ordered as they are; bytes that are not there count as zero.
fn first(record: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let length = record.len().min(8);
    bytes[..length].copy_from_slice(&record[..length]);
    u64::from_be_bytes(bytes)
}

/// Sorted records in an unlinked file, each after its length.
#[derive(Debug)]
struct Run {
    file: File,
    records: u64,
}

struct Writer {
    file: BufWriter<File>,
    records: u64,
}

impl Writer {
    fn new(folder: &Path) -> io::Result<Self> {
        Ok(Self { file: BufWriter::with_capacity(WRITE, tempfile::tempfile_in(folder)?), records: 0 })
    }

    fn push(&mut self, record: &[u8]) -> io::Result<()> {
        // What is held has a length of 32 bits, and what is merged was held.
        let length = u32::try_from(record.len()).map_err(io::Error::other)?;
        self.file.write_all(&length.to_le_bytes())?;
        self.file.write_all(record)?;
        self.records += 1;
        Ok(())
    }

    fn finish(self) -> io::Result<Run> {
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(Run { file, records: self.records })
    }
}

fn merge(folder: &Path, runs: Vec<Run>) -> io::Result<Run> {
    let mut merge = Merge::new(runs)?;
    let mut merged = Writer::new(folder)?;
    while let Some(record) = merge.next()? {
        merged.push(record)?;
    }
    merged.finish()
}

/// Several runs as one.
#[derive(Debug)]
struct Merge {
    heads: BinaryHeap<Head>,
    current: Vec<u8>,
}

/// The least record of a run that is not given out yet.
#[derive(Debug)]
struct Head {
    record: Vec<u8>,
    rest: BufReader<File>,
    left: u64,
}

impl Head {
    /// Goes to the next record of the run; false at its end.
    fn advance(&mut self) -> io::Result<bool> {
        if self.left == 0 {
            return Ok(false);
        }
        self.left -= 1;
        let mut length = [0; 4];
        self.rest.read_exact(&mut length)?;
        self.record.resize(u32::from_le_bytes(length) as usize, 0);
        self.rest.read_exact(&mut self.record)?;
        Ok(true)
    }
}

// The greatest in the heap is the least record.
impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        other.record.cmp(&self.record)
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.record == other.record
    }
}

impl Eq for Head {}

impl Merge {
    fn new(runs: Vec<Run>) -> io::Result<Self> {
        let mut heads = BinaryHeap::with_capacity(runs.len());
        for Run { file, records } in runs {
            let mut head = Head { record: Vec::new(), rest: BufReader::with_capacity(READ, file), left: records };
            if head.advance()? {
                heads.push(head);
            }
        }
        Ok(Self { heads, current: Vec::new() })
    }

    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let Some(mut least) = self.heads.peek_mut() else { return Ok(None) };
        mem::swap(&mut self.current, &mut least.record);
        if !least.advance()? {
            PeekMut::pop(least);
        }
        Ok(Some(&self.current))
    }
}

/// Gives the records in order.
#[derive(Debug)]
pub struct Sorted(From);

#[derive(Debug)]
enum From {
    Memory { held: Held, next: usize },
    Disk(Merge),
}

impl Sorted {
    /// The next record, until there is none.
    pub fn next(&mut self) -> io::Result<Option<&[u8]>> {
        match &mut self.0 {
            From::Disk(merge) => merge.next(),
            From::Memory { held, next } => {
                let place = held.places.get(*next);
                *next += 1;
                Ok(place.map(|place| held.arena.record(place)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn sorted(records: &[Vec<u8>], budget: usize) -> Vec<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::new(folder.path(), budget);
        for record in records {
            sorter.push(record).unwrap();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "a run has no name");
        all(sorter.finish().unwrap())
    }

    fn all(mut sorted: Sorted) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        while let Some(record) = sorted.next().unwrap() {
            records.push(record.to_vec());
        }
        assert_eq!(sorted.next().unwrap(), None, "the end stays the end");
        records
    }

    fn in_order(records: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut records = records.to_vec();
        records.sort();
        records
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        // Few different bytes, so that many records are equal, or the beginning of another.
        #[test]
        fn it_gives_what_a_sort_in_memory_gives(
            records in prop::collection::vec(prop::collection::vec(prop::sample::select(vec![0, 1, 255]), 0..14), 0..300),
            budget in 0usize..4000,
        ) {
            prop_assert_eq!(sorted(&records, budget), in_order(&records));
        }
    }

    fn numbered(count: u32) -> Vec<Vec<u8>> {
        let scattered = |n: u32| n.wrapping_mul(2_654_435_761);
        (0..count).map(|n| [&scattered(n).to_be_bytes()[..], &n.to_be_bytes()].concat()).collect()
    }

    #[test]
    fn many_runs_are_merged_in_passes_and_few_files_are_open() {
        let folder = tempfile::tempdir().unwrap();
        let records = numbered(5000);
        // Each record is a run.
        let mut sorter = Sorter::new(folder.path(), 0);
        for record in &records {
            sorter.push(record).unwrap();
            let open: usize = sorter.levels.iter().map(Vec::len).sum();
            assert!(open < FAN_IN * 3, "{open}");
        }
        let sorted = sorter.finish().unwrap();
        let From::Disk(merge) = &sorted.0 else { panic!("it did spill") };
        assert!(merge.heads.len() <= FAN_IN, "{}", merge.heads.len());
        assert!(all(sorted) == in_order(&records));
    }

    #[test]
    fn as_many_runs_as_one_merge_takes_and_one_more() {
        for count in [1, 2, FAN_IN - 1, FAN_IN, FAN_IN + 1, 2 * FAN_IN - 1, FAN_IN * FAN_IN - 1] {
            let records = numbered(u32::try_from(count).unwrap());
            assert!(sorted(&records, 0) == in_order(&records), "{count}");
        }
    }

    #[test]
    fn what_fits_makes_no_file_and_what_does_not_is_a_run_of_its_own() {
        let nowhere = Path::new("/nowhere");
        let mut sorter = Sorter::new(nowhere, 3 * cost(4));
        for record in [b"bbbb", b"aaaa", b"cccc"] {
            sorter.push(record).unwrap();
        }
        assert!(sorter.push(b"dddd").is_err(), "there is no folder to spill to");
        let large = vec![vec![7; 100_000], vec![1; 200_000], vec![7]];
        assert!(sorted(&large, 1000) == in_order(&large));
    }

    #[test]
    fn a_run_that_ends_too_early_is_an_error_and_not_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::new(folder.path(), 0);
        sorter.push(b"one").unwrap();
        sorter.push(b"two").unwrap();
        sorter.levels[0][0].file.set_len(5).unwrap();
        assert_eq!(sorter.finish().map(|_| ()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
