//! While nothing else is read: replicas are read again, slowly, so that damage is found before they are needed. And the
//! job's folder is touched, so that nobody takes it for forgotten.

use std::{
    fs::File,
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant, SystemTime},
};

use super::{
    Keeper,
    error::{BlockError, disk},
};
use crate::logs;

/// Bytes a second.
const RATE: u64 = 8 << 20;
/// Each replica is read again after so long.
const PERIOD: Duration = Duration::from_secs(7 * 86_400);
/// Between two looks at what is due.
const ROUND: Duration = Duration::from_secs(60);
const TOUCH: Duration = Duration::from_secs(3600);
const NAP: Duration = Duration::from_secs(1);

/// Begins, in a thread of its own; it ends with the keeper.
pub fn begin(keeper: &Arc<Keeper>) {
    let keeper = Arc::downgrade(keeper);
    if let Err(error) = thread::Builder::new().name("scrub".into()).spawn(move || run(&keeper)) {
        tracing::error!(%error, "cannot start a thread: blocks are not read again");
    }
}

fn run(keeper: &Weak<Keeper>) {
    let (mut touched, mut looked) = (None::<Instant>, Instant::now());
    loop {
        let Some(keeper) = keeper.upgrade().filter(|keeper| !keeper.is_over()) else { return };
        if touched.is_none_or(|since| since.elapsed() >= TOUCH) {
            touched = Some(Instant::now());
            note(touch(&keeper), "the folder of blocks cannot be touched");
        }
        if looked.elapsed() >= ROUND {
            note(scrub(&keeper), "blocks cannot be read again");
            looked = Instant::now();
        }
        drop(keeper);
        thread::sleep(NAP);
    }
}

fn note(done: Result<(), BlockError>, what: &'static str) {
    if let Err(error) = done {
        tracing::warn!(error = logs::causes(&error), what, "upkeep of blocks failed");
    }
}

fn touch(keeper: &Keeper) -> Result<(), BlockError> {
    let folder = keeper.disk().folder();
    let touched = File::open(folder).and_then(|open| open.set_modified(SystemTime::now()));
    touched.map_err(disk("touch", folder))
}

/// Reads what is due, and stops as soon as there is something else to do.
pub fn scrub(keeper: &Keeper) -> Result<(), BlockError> {
    for group in keeper.disk().groups()? {
        for found in keeper.disk().list(group)? {
            if keeper.is_over() || !keeper.is_idle() {
                return Ok(());
            }
            let due = keeper.disk().verified_at(&found.name).is_none_or(|since| since.elapsed() >= PERIOD);
            if found.corrupt || !due {
                continue;
            }
            let pause = |bytes: u64| thread::sleep(Duration::from_micros(bytes * 1_000_000 / RATE));
            match keeper.disk().scrub(&found.name, pause) {
                Err(BlockError::Damaged { why, .. }) => keeper.damaged(&found.name, why),
                scrubbed => scrubbed?,
            }
        }
    }
    Ok(())
}
