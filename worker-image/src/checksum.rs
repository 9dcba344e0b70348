//! The checksums of one shard's files: a line for each, as `sha256sum --check` reads them.

use hyperflow_core::job::Sum;

use crate::{
    fault::{self, Fault},
    hash::{Hash, sum_line},
    progress::{Figures, Progress},
    stream::Stream,
};

/// How far the sums are: which file, and its sum so far.
pub struct Sums {
    sum: Sum,
    file: usize,
    hash: Hash,
}

impl Sums {
    /// Where the attempt began.
    pub fn begin(sum: Sum, progress: &Progress<'_>) -> Result<Self, Fault> {
        let Some(state) = progress.resumed() else { return Ok(Self { sum, file: 0, hash: Hash::new(sum) }) };
        let read = state.split_once(':').and_then(|(file, hash)| Some((file.parse().ok()?, Hash::resume(sum, hash)?)));
        let damaged = || fault::damaged_checkpoint("a checkpoint's sum cannot be read: the shard starts again".into());
        let (file, hash) = read.ok_or_else(damaged)?;
        Ok(Self { sum, file, hash })
    }

    /// What the next attempt must know.
    pub fn state(&self) -> String {
        format!("{}:{}", self.file, self.hash.state())
    }

    /// Sums up from there to the end.
    pub fn run(
        &mut self,
        progress: &mut Progress<'_>,
        input: &mut Stream<'_>,
        figures: &mut Figures,
    ) -> Result<(), Fault> {
        let files: Vec<(&str, u64)> = input.files().collect();
        while let Some(&(path, end)) = files.get(self.file) {
            while progress.position() < end {
                let length = progress.fill(input, end, 0)?;
                self.hash.update(&progress.buffer[..length]);
                progress.advance(length as u64, figures);
                if progress.is_due() {
                    progress.checkpoint(Some(self.state()))?;
                }
            }
            let hash = std::mem::replace(&mut self.hash, Hash::new(self.sum));
            progress.append(sum_line(&hash.finish(), path).as_bytes())?;
            self.file += 1;
        }
        Ok(())
    }
}
