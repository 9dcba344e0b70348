//! The copy of one shard: every byte of its input to each of its results.

use crate::{
    fault::Fault,
    progress::{Figures, Progress},
    stream::Stream,
};

/// Copies from where the attempt began to the end.
pub fn run(progress: &mut Progress<'_>, input: &mut Stream<'_>, figures: &mut Figures) -> Result<(), Fault> {
    while progress.position() < input.length() {
        let left = usize::try_from(input.length() - progress.position()).unwrap_or(usize::MAX);
        let want = left.min(progress.buffer.len());
        // Bytes read and bytes written both count.
        progress.pace((1 + progress.staged().len() as u64) * want as u64)?;
        let position = progress.position();
        input.read(&mut progress.buffer[..want], position)?;
        progress.append_buffer(want)?;
        progress.advance(want as u64, figures);
        if progress.position() < input.length() && progress.is_due() {
            progress.checkpoint(None)?;
        }
    }
    Ok(())
}
