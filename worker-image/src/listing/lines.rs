//! Lines of a file that may be long or no text at all.

use std::io::{self, BufRead, Read};

/// Most bytes of a line.
pub const LONGEST: usize = 4096;

/// Reads lines without holding more than one, and of a long one only its beginning.
#[derive(Debug)]
pub struct Lines<R> {
    source: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    const MARK: &[u8] = b"\xef\xbb\xbf";

    /// From the beginning.
    pub fn new(source: R) -> Self {
        Self { source, line: Vec::new(), number: 0 }
    }

    /// The next line that is not empty, and its number. One that is too long is cut, and longer than `LONGEST`.
    pub fn next(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        let most = (Self::MARK.len() + LONGEST + b"\r\n".len()) as u64;
        let text = loop {
            self.line.clear();
            if self.source.by_ref().take(most).read_until(b'\n', &mut self.line)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            let start = if self.number == 1 && self.line.starts_with(Self::MARK) { Self::MARK.len() } else { 0 };
            let ends: &[&[u8]] = &[b"\r\n", b"\n"];
            let end = ends.iter().find(|end| self.line[start..].ends_with(end)).map_or(0, |end| end.len());
            let text = start..self.line.len() - end;
            if !text.is_empty() {
                break text;
            }
        };
        Ok(Some((self.number, &self.line[text])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_line_passes_and_a_longer_one_does_not_with_any_ending() {
        for end in ["\n", "\r\n", ""] {
            for mark in ["", "\u{feff}"] {
                for over in [0, 1, 2, 3, 4, 5, 4096] {
                    let text = [mark.as_bytes(), &vec![b'x'; LONGEST + over], end.as_bytes(), b"\ny"].concat();
                    let mut lines = Lines::new(&text[..]);
                    let length = lines.next().unwrap().unwrap().1.len();
                    assert_eq!(length > LONGEST, over > 0, "{over} {end:?} {mark:?}");
                    if over == 0 {
                        assert_eq!(length, LONGEST);
                        assert_eq!(lines.next().unwrap().unwrap().1, b"y");
                    }
                }
            }
        }
    }
}
