//! The copy of one shard: every byte of its input to each of its results.

use crate::{
    fault::Fault,
    progress::{Figures, Progress},
    stream::Stream,
};

/// Copies from where the attempt began to the end.
pub fn run(progress: &mut Progress<'_>, input: &mut Stream<'_>, figures: &mut Figures) -> Result<(), Fault> {
    while progress.position() < input.length() {
        let (end, writers) = (input.length(), progress.writers());
        let length = progress.fill(input, end, writers)?;
        progress.append_buffer(length)?;
        progress.advance(length as u64, figures);
        if progress.position() < input.length() && progress.is_due() {
            progress.checkpoint(None)?;
        }
    }
    Ok(())
}
