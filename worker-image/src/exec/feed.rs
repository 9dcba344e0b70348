//! A shard's input as bytes, one after the other: of its files, or a line for each item or number.

use hyperflow_core::plan::{Numbers, Shard};

use crate::{fault::Fault, stream::Stream};

/// What comes next.
#[derive(Debug)]
pub struct Feed<'a> {
    from: From<'a>,
}

#[derive(Debug)]
enum From<'a> {
    Files { stream: Stream<'a>, position: u64 },
    Items(&'a [String]),
    Numbers(Numbers),
}

impl<'a> Feed<'a> {
    /// All of a shard's input; `stream` is that of its files.
    pub fn new(shard: &'a Shard, stream: Option<Stream<'a>>) -> Self {
        let from = match (stream, shard.numbers) {
            (Some(stream), _) => From::Files { stream, position: 0 },
            (None, Some(numbers)) => From::Numbers(numbers),
            (None, None) => From::Items(&shard.items),
        };
        Self { from }
    }

    /// Puts about `most` bytes that come next in place of what is in `into`; none when there are no more.
    pub fn next(&mut self, into: &mut Vec<u8>, most: usize) -> Result<(), Fault> {
        into.clear();
        match &mut self.from {
            From::Files { stream, position } => {
                let left = usize::try_from(stream.length() - *position).unwrap_or(usize::MAX);
                into.resize(left.min(most), 0);
                stream.read(into, *position)?;
                *position += into.len() as u64;
            }
            From::Items(items) => {
                while let Some((item, rest)) = items.split_first().filter(|_| into.len() < most) {
                    into.extend_from_slice(item.as_bytes());
                    into.push(b'\n');
                    *items = rest;
                }
            }
            From::Numbers(numbers) => {
                while numbers.count > 0 && into.len() < most {
                    into.extend_from_slice(numbers.start.to_string().as_bytes());
                    into.push(b'\n');
                    *numbers = Numbers { start: numbers.start.saturating_add(1), count: numbers.count - 1 };
                }
            }
        }
        Ok(())
    }
}
