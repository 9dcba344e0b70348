//! From the lines of a stored plan to shards.

use std::ops::ControlFlow;

use hyperflow_api::ids::ShardIndex;

use super::{Cutter, Entry, FileEntry, Foot, ItemEntry, Numbers, PlanError};
use crate::source::Cut;

/// What is in a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shard {
    /// Pieces of files, one after the other.
    pub pieces: Vec<Piece>,
    /// Or items.
    pub items: Vec<String>,
    /// Or numbers.
    pub numbers: Option<Numbers>,
}

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Of this file.
    pub file: InputFile,
    /// From this byte.
    pub offset: u64,
    /// So many bytes.
    pub length: u64,
}

/// An input file as it was planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// Where it is.
    pub url: String,
    /// Relative to the source.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// What tells this content from any other the file may have.
    pub version: String,
}

impl Shard {
    /// A name of the shard that is the same for all jobs which cut the same input in the same way: sixteen hexadecimal
    /// digits.
    #[must_use]
    pub fn id(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for Piece { file, offset, length } in &self.pieces {
            hasher.update(file.path.as_bytes()).update(&[0]);
            hasher.update(&offset.to_be_bytes()).update(&length.to_be_bytes());
        }
        for item in &self.items {
            hasher.update(item.as_bytes()).update(&[0]);
        }
        if let Some(Numbers { start, count }) = self.numbers {
            hasher.update(&start.to_be_bytes()).update(&count.to_be_bytes());
        }
        hasher.finalize().to_hex().as_str()[..16].into()
    }

    /// Bytes of its pieces.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.length).sum()
    }
}

/// On the way through the shards of a stored plan.
#[derive(Clone, Debug)]
pub struct Walk {
    base: String,
    cut: Cut,
    cutter: Cutter,
    offset: u64,
    from: ShardIndex,
    /// The shard that may get more of the next line.
    open: Option<(ShardIndex, Shard)>,
}

impl Walk {
    pub(super) fn new(base: &str, cut: &Cut, cutter: Cutter, offset: u64, from: ShardIndex) -> Self {
        Self { base: base.into(), cut: cut.clone(), cutter, offset, from, open: None }
    }

    /// From which byte of the stored plan on it wants lines.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the next line, without its newline, and shows every shard that is whole by it until `show` breaks off.
    ///
    /// # Errors
    /// When the line is none of a plan.
    pub fn line<B>(
        &mut self,
        text: &[u8],
        mut show: impl FnMut(ShardIndex, &Shard) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, PlanError> {
        let entry: Entry = match serde_json::from_slice(text) {
            Ok(entry) => entry,
            Err(_) if serde_json::from_slice::<Foot>(text).is_ok() => return Ok(self.show_open(show)),
            Err(error) => return Err(error.into()),
        };
        let more = PlanError::Form("it has more shards than a job may have");
        let shards = self.cutter.add(&self.cut, entry.size()).ok_or(more)?;
        if shards.end <= self.from {
            return Ok(ControlFlow::Continue(()));
        }
        if let Cut::Bytes { bytes: size } | Cut::Lines { bytes: size, .. } | Cut::Numbers { numbers: size } = self.cut {
            // Each of them is a piece of this entry alone; nothing is cut finer than the cutter does.
            let size = size.max(1);
            for index in shards.start.max(self.from)..shards.end {
                let shard = self.piece(&entry, u64::from(index - shards.start).saturating_mul(size), size);
                if let ControlFlow::Break(value) = show(index, &shard) {
                    return Ok(ControlFlow::Break(value));
                }
            }
            return Ok(ControlFlow::Continue(()));
        }
        if self.open.as_ref().is_some_and(|(index, _)| *index < shards.start)
            && let ControlFlow::Break(value) = self.show_open(show)
        {
            return Ok(ControlFlow::Break(value));
        }
        let more = self.piece(&entry, 0, u64::MAX);
        let (_, open) = self.open.get_or_insert_with(|| (shards.start, Shard::default()));
        open.pieces.extend(more.pieces);
        open.items.extend(more.items);
        Ok(ControlFlow::Continue(()))
    }

    fn show_open<B>(&mut self, mut show: impl FnMut(ShardIndex, &Shard) -> ControlFlow<B>) -> ControlFlow<B> {
        self.open.take().map_or(ControlFlow::Continue(()), |(index, shard)| show(index, &shard))
    }

    fn piece(&self, entry: &Entry, offset: u64, length: u64) -> Shard {
        match entry {
            Entry::Item(ItemEntry { item }) => Shard { items: vec![item.clone()], ..Shard::default() },
            Entry::Numbers(Numbers { start, count }) => {
                let offset = offset.min(*count);
                let start = start.saturating_add(i64::try_from(offset).unwrap_or(i64::MAX));
                let numbers = Numbers { start, count: (count - offset).min(length) };
                Shard { numbers: Some(numbers), ..Shard::default() }
            }
            Entry::File(FileEntry { path, url, size, version }) => {
                let url = url.clone().unwrap_or_else(|| format!("{}{path}", self.base));
                let offset = offset.min(*size);
                let file = InputFile { url, path: path.clone(), size: *size, version: version.clone() };
                let piece = Piece { file, offset, length: (size - offset).min(length) };
                Shard { pieces: vec![piece], ..Shard::default() }
            }
        }
    }
}
