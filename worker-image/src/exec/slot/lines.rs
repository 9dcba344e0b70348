//! What comes from a pipe, line by line, however it is cut.

use hyperflow_core::program::slot::LONGEST;

/// Bytes that are not yet taken as lines.
#[derive(Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
    taken: usize,
}

impl Lines {
    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// There comes no more: what is left is a line.
    pub fn end(&mut self) {
        if self.bytes.len() > self.taken {
            self.push(b"\n");
        }
    }

    /// The next line without its newline; of one that has no end within what a line may have, what there is of it.
    pub fn next(&mut self) -> Option<&[u8]> {
        let left = &self.bytes[self.taken..];
        match left.iter().position(|byte| *byte == b'\n') {
            Some(length) => {
                self.taken += length + 1;
                Some(&left[..length])
            }
            None if left.len() > LONGEST => {
                self.taken = self.bytes.len();
                Some(left)
            }
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_come() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for part in ["on", "e\ntwo\n\nth", "ree"] {
            lines.push(part.as_bytes());
            while let Some(line) = lines.next() {
                seen.push(String::from_utf8(line.to_vec()).unwrap());
            }
        }
        assert_eq!(seen, ["one", "two", ""]);
        lines.end();
        assert_eq!(lines.next(), Some(&b"three"[..]));
        lines.end();
        assert_eq!(lines.next(), None);
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; LONGEST]);
        assert_eq!(lines.next(), None);
        lines.push(b"x");
        assert_eq!(lines.next().map(<[u8]>::len), Some(LONGEST + 1));
        assert_eq!(lines.next(), None);
    }
}
