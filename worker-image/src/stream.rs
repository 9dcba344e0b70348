//! The input of one shard: its pieces one after the other, each of a file as it was planned.

use std::ops::Range;

use hyperflow_api::ids::ShardIndex;
use hyperflow_core::{
    boundary::records_of,
    plan::{InputFile, Piece, Shard},
    source::Cut,
};

use crate::{blocks::reader::Reader, fault::Fault, input::Input, work::Work};

/// What a shard reads. One file is open at a time.
#[derive(Debug)]
pub struct Stream<'a> {
    work: &'a Work,
    parts: Vec<Part<'a>>,
    length: u64,
    /// Its files are read from blocks.
    blocks: Option<Box<Reader<'a>>>,
    open: Option<(usize, Input<'a>)>,
}

/// A piece, and where it is in the shard's input.
#[derive(Debug)]
struct Part<'a> {
    file: &'a InputFile,
    offset: u64,
    within: Range<u64>,
}

impl<'a> Stream<'a> {
    /// Finds what the shard reads: where it is cut between records, that takes a look at the file.
    pub fn open(work: &'a Work, index: ShardIndex, shard: &'a Shard, cut: &Cut) -> Result<Self, Fault> {
        let blocks = work.keeper().map(|keeper| Reader::open(work, keeper, index, shard).map(Box::new)).transpose()?;
        let parts = Vec::with_capacity(shard.pieces.len());
        let mut stream = Self { work, parts, length: 0, blocks, open: None };
        for piece in &shard.pieces {
            let Piece { file, offset, length } = piece;
            let range = match cut {
                Cut::Lines { prefix, .. } => stream.records(piece, prefix)?,
                _ => *offset..offset + length,
            };
            let start = stream.length;
            stream.length += range.end - range.start;
            stream.parts.push(Part { file, offset: range.start, within: start..stream.length });
        }
        Ok(stream)
    }

    fn records(&mut self, piece: &'a Piece, prefix: &str) -> Result<Range<u64>, Fault> {
        let planned = piece.offset..piece.offset + piece.length;
        if let Some(blocks) = &mut self.blocks {
            return records_of(planned, piece.file.size, prefix, |offset, buffer| {
                blocks.read(&piece.file, buffer, offset)
            });
        }
        let input = Input::open(self.work, &piece.file)?;
        let range = records_of(planned, piece.file.size, prefix, |offset, buffer| input.read(buffer, offset))?;
        self.open = Some((self.parts.len(), input));
        Ok(range)
    }

    /// Whether it reads blocks, and not the mounted files.
    pub fn is_of_blocks(&self) -> bool {
        self.blocks.is_some()
    }

    /// Bytes of the shard's input.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Number of files that it reads from, and of each the path and where it ends in the shard's input.
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&'a str, u64)> {
        self.parts.iter().map(|part| (part.file.path.as_str(), part.within.end))
    }

    /// The files that it reads from, and which bytes of each.
    pub fn pieces(&self) -> impl Iterator<Item = (&'a InputFile, Range<u64>)> {
        let range = |part: &Part<'_>| part.offset..part.offset + (part.within.end - part.within.start);
        self.parts.iter().map(move |part| (part.file, range(part)))
    }

    /// Fills the buffer from a position in the shard's input on, whole. Each file is seen to be the one planned when it is
    /// opened, and again after its last byte was read.
    pub fn read(&mut self, buffer: &mut [u8], position: u64) -> Result<(), Fault> {
        let (mut filled, mut position) = (0, position);
        while filled < buffer.len() {
            let place = self.parts.partition_point(|part| part.within.end <= position);
            let Some(part) = self.parts.get(place) else { return Ok(()) };
            let left = usize::try_from(part.within.end - position).unwrap_or(usize::MAX);
            let end = filled + left.min(buffer.len() - filled);
            let (offset, ends) = (part.offset + (position - part.within.start), left <= buffer.len() - filled);
            let file = part.file;
            if let Some(blocks) = &mut self.blocks {
                blocks.read(file, &mut buffer[filled..end], offset)?;
            } else {
                let input = self.input(place)?;
                input.read(&mut buffer[filled..end], offset)?;
                if ends {
                    input.unchanged()?;
                }
            }
            position += (end - filled) as u64;
            filled = end;
        }
        Ok(())
    }

    fn input(&mut self, place: usize) -> Result<&Input<'a>, Fault> {
        // The one before is closed first: of a hundred thousand files no two are open at a time.
        let input = match self.open.take().filter(|(open, _)| *open == place) {
            Some((_, input)) => input,
            None => Input::open(self.work, self.parts[place].file)?,
        };
        Ok(&self.open.insert((place, input)).1)
    }
}
