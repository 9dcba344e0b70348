//! What a program writes to stderr: copied to the pod's log, each line marked with its shard, and its end remembered.
//! However much that is, it costs a bounded amount of memory, and of log.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use hyperflow_core::program::ended::TAIL_BYTES;

/// Longest line in the log; a longer one is cut into several.
const LONGEST: usize = 8 << 10;
/// What an attempt may write to the log in a second, and has at its beginning.
const A_SECOND: u64 = 1 << 20;
/// What is remembered: enough for the last whole lines.
const REMEMBERED: usize = 4 * TAIL_BYTES;

/// The log of one attempt.
#[derive(Debug)]
pub struct Speech<W = io::Stderr> {
    to: W,
    mark: String,
    line: Vec<u8>,
    tail: Vec<u8>,
    left: u64,
    filled: Instant,
    dropped: u64,
}

impl<W: Write> Speech<W> {
    /// Copies to `to`.
    pub fn new(to: W, index: u32, attempt: u32) -> Self {
        Self::marked(to, format!("[{index:06} a{attempt}] "))
    }

    /// Copies to `to`, with `mark` before each line.
    pub fn marked(to: W, mark: String) -> Self {
        let (line, tail) = (Vec::new(), Vec::new());
        Self { to, mark, line, tail, left: A_SECOND, filled: Instant::now(), dropped: 0 }
    }

    /// What is said from now on is somebody else's.
    pub fn mark(&mut self, mark: String) {
        self.end();
        self.mark = mark;
        self.tail.clear();
    }

    /// The last of what was said.
    pub fn tail(&self) -> &[u8] {
        &self.tail
    }

    /// Takes what was said next.
    pub fn hear(&mut self, bytes: &[u8]) {
        self.remember(bytes);
        self.refill();
        let length = bytes.len() as u64;
        if self.dropped > 0 || length > self.left {
            self.dropped += length;
            return;
        }
        self.left -= length;
        let mut out = Vec::with_capacity(bytes.len() + 64);
        for &byte in bytes {
            if byte == b'\n' || self.line.len() >= LONGEST {
                self.end_line(&mut out);
            }
            if byte != b'\n' {
                self.line.push(byte);
            }
        }
        self.write(&out);
    }

    /// There comes no more: a last line without an end is written, and what was left out is told.
    pub fn end(&mut self) {
        let mut out = Vec::new();
        if !self.line.is_empty() {
            self.end_line(&mut out);
        }
        self.tell_dropped(&mut out);
        self.write(&out);
    }

    fn remember(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(REMEMBERED)..];
        let too_many = (self.tail.len() + bytes.len()).saturating_sub(REMEMBERED);
        self.tail.drain(..too_many.min(self.tail.len()));
        self.tail.extend_from_slice(bytes);
    }

    /// A second later there is room again.
    fn refill(&mut self) {
        if self.filled.elapsed() >= Duration::from_secs(1) {
            self.filled = Instant::now();
            self.left = A_SECOND;
            let mut out = Vec::new();
            self.tell_dropped(&mut out);
            self.write(&out);
        }
    }

    fn tell_dropped(&mut self, out: &mut Vec<u8>) {
        if self.dropped > 0 {
            if !self.line.is_empty() {
                self.end_line(out);
            }
            let note = format!("({} bytes are left out here: more than {A_SECOND} in a second)", self.dropped);
            self.line.extend_from_slice(note.as_bytes());
            self.end_line(out);
            self.dropped = 0;
        }
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.mark.as_bytes());
        out.append(&mut self.line);
        out.push(b'\n');
    }

    fn write(&mut self, out: &[u8]) {
        // A log that cannot be written must not end the work that it is about.
        if !out.is_empty() {
            let _ = self.to.write_all(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_marked_whole_and_the_last_needs_no_end() {
        let mut speech = Speech::new(Vec::new(), 42, 1);
        for part in ["one\ntw", "o\n", "\nthree"] {
            speech.hear(part.as_bytes());
        }
        speech.end();
        let lines = "[000042 a1] one\n[000042 a1] two\n[000042 a1] \n[000042 a1] three\n";
        assert_eq!(String::from_utf8(speech.to.clone()).unwrap(), lines);
        assert_eq!(speech.tail(), b"one\ntwo\n\nthree");
    }

    #[test]
    fn a_line_has_the_mark_of_who_said_it() {
        let mut speech = Speech::marked(Vec::new(), "[slot 0] ".into());
        speech.hear(b"loads\nhalf a");
        speech.mark("[000042 a1] ".into());
        assert_eq!(speech.tail(), b"");
        speech.hear(b" line\n");
        speech.end();
        let lines = "[slot 0] loads\n[slot 0] half a\n[000042 a1]  line\n";
        assert_eq!(String::from_utf8(speech.to.clone()).unwrap(), lines);
    }

    #[test]
    fn too_much_costs_neither_memory_nor_log_and_its_end_is_remembered() {
        let mut speech = Speech::new(Vec::new(), 0, 1);
        for _ in 0..64 {
            speech.hear(&b"noise ".repeat(10_000));
        }
        speech.hear(b"\nthe reason\n");
        speech.end();
        let log = String::from_utf8(speech.to.clone()).unwrap();
        assert!(log.len() < 3 << 20 && log.lines().all(|line| line.len() <= LONGEST + 20), "{}", log.len());
        assert!(log.contains(" bytes are left out here"), "{log:.100}");
        assert!(speech.tail().len() <= REMEMBERED && speech.tail().ends_with(b"\nthe reason\n"));
    }
}
