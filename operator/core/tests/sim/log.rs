//! What is remembered of a run: a hash that differs if anything was said differently, and the story if it is wanted.

use std::{
    fmt::{self, Debug, Write},
    hash::{DefaultHasher, Hasher},
};

/// Lines of a story that are kept: its end.
const KEPT: usize = 5000;

pub struct Log {
    hash: DefaultHasher,
    traced: bool,
    lines: std::collections::VecDeque<String>,
}

impl Log {
    pub fn new(seed: u64, traced: bool) -> Self {
        let mut hash = DefaultHasher::new();
        hash.write_u64(seed);
        Self { hash, traced, lines: std::collections::VecDeque::new() }
    }

    /// Something was said, and this is when.
    pub fn note(&mut self, now: u64, said: &impl Debug) {
        self.hash.write_u64(now);
        // Writing to a hash cannot fail.
        let _ = write!(Text(&mut self.hash), "{said:?}");
    }

    /// A line of the story.
    pub fn tell(&mut self, now: u64, line: impl FnOnce() -> String) {
        if self.traced {
            self.lines.push_back(format!("{now:>6} {:.400}", line()));
            if self.lines.len() > KEPT {
                self.lines.pop_front();
            }
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash.finish()
    }

    pub fn story(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}

struct Text<'a>(&'a mut DefaultHasher);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}
