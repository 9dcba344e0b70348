//! Where records begin, for shards that are cut between lines.
//!
//! A record begins at the first byte of a file, and after each newline: with a prefix, only where the line starts with it.
//! It belongs to the shard in whose range of the plan it begins, however far it goes. So a shard is what lies between the
//! first beginning at or after its planned start and the first at or after its planned end; one in whose range no record
//! begins is empty. Every byte of the file is in exactly one shard, and no one needs to know of any other.

use std::ops::Range;

/// Bytes that are looked at in one step.
const STEP: usize = 64 << 10;

/// Finds the bytes of the shard that is planned as `planned` of a file of `size` bytes. `read` fills a buffer from an
/// offset on, whole.
///
/// # Errors
/// When `read` fails.
pub fn records_of<E>(
    planned: Range<u64>,
    size: u64,
    prefix: &str,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<Range<u64>, E> {
    let prefix = prefix.as_bytes();
    let Some(start) = first(planned.start, planned.end, size, prefix, &mut read)? else {
        return Ok(planned.end..planned.end);
    };
    let end = match planned.end >= size {
        true => size,
        false => first(planned.end, size, size, prefix, &mut read)?.unwrap_or(size),
    };
    Ok(start..end)
}

/// The first beginning of a record in `from..to`.
fn first<E>(
    from: u64,
    to: u64,
    size: u64,
    prefix: &[u8],
    read: &mut impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<Option<u64>, E> {
    if from == 0 {
        return Ok((to > 0).then_some(0));
    }
    let mut buffer = vec![0; STEP];
    // A beginning at `p` is seen by the newline at `p - 1`.
    let mut at = from - 1;
    while at + 1 < to {
        let length = usize::try_from((to - 1 - at).min(STEP as u64)).unwrap_or(STEP);
        let looked_at = &mut buffer[..length];
        read(at, looked_at)?;
        let mut within = 0;
        while let Some(newline) = looked_at[within..].iter().position(|byte| *byte == b'\n') {
            within += newline + 1;
            let begins = at + within as u64;
            if begins < size && starts_with(begins, size, prefix, read)? {
                return Ok(Some(begins));
            }
        }
        at += length as u64;
    }
    Ok(None)
}

fn starts_with<E>(
    at: u64,
    size: u64,
    prefix: &[u8],
    read: &mut impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<bool, E> {
    if prefix.is_empty() {
        return Ok(true);
    }
    if size - at < prefix.len() as u64 {
        return Ok(false);
    }
    let mut line = vec![0; prefix.len()];
    read(at, &mut line)?;
    Ok(line == prefix)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn shards<'a>(bytes: &'a [u8], per_shard: u64, prefix: &str) -> Vec<&'a [u8]> {
        let size = bytes.len() as u64;
        let read = |offset: u64, buffer: &mut [u8]| -> Result<(), Infallible> {
            let from = usize::try_from(offset).unwrap();
            buffer.copy_from_slice(&bytes[from..from + buffer.len()]);
            Ok(())
        };
        (0..size.div_ceil(per_shard))
            .map(|index| {
                let planned = index * per_shard..((index + 1) * per_shard).min(size);
                let Ok(range) = records_of(planned, size, prefix, read);
                &bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()]
            })
            .collect()
    }

    #[test]
    fn lines_stay_whole_and_belong_to_where_they_begin() {
        assert_eq!(shards(b"ab\ncd\nef", 4, ""), [&b"ab\ncd\n"[..], b"ef"]);
        assert_eq!(shards(b"ab\r\ncd\r\n", 4, ""), [&b"ab\r\n"[..], b"cd\r\n"]);
        assert_eq!(shards(b"a\nbbbbbbbbbbbbbb\nc\n", 5, ""), [&b"a\nbbbbbbbbbbbbbb\n"[..], b"", b"", b"c\n"]);
        assert_eq!(shards(b"\n\n\n\n", 2, ""), [&b"\n\n"[..], b"\n\n"]);
        assert_eq!(shards(b"no newline at all", 5, "")[0], b"no newline at all");
    }

    #[test]
    fn records_begin_where_their_prefix_stands() {
        let fasta = b"; header\n>one\nACGT\nAC>GT\n>two\nTT\n";
        assert_eq!(shards(fasta, 9, ">"), [&b"; header\n"[..], b">one\nACGT\nAC>GT\n", b">two\nTT\n", b""]);
        assert_eq!(shards(b"x\n>", 2, ">>").concat(), b"x\n>");
    }
}
