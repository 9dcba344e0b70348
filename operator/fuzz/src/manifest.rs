//! A checkpoint's manifest: what is used is whole, our own, and adds up.

use hyperflow_api::{ids::JobUid, message::Checkpoint};
use hyperflow_core::checkpoint::{Manifest, ManifestError, Origin, digest};
use serde_json::Value;

/// The bytes of a manifest, as status speaks of them. It is asked for as what it says it is, to get past the door.
pub fn read(bytes: &[u8]) {
    let said: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let text = |field: &str| said[field].as_str().unwrap_or_default();
    let job = JobUid(text("job").into());
    let index = said["index"].as_u64().and_then(|index| u32::try_from(index).ok()).unwrap_or(0);
    let origin = Origin { job: &job, plan: text("plan"), program: text("program"), index };
    let Ok(manifest) = Manifest::decode(bytes, digest(bytes), origin) else { return };
    let sum: u128 = manifest.segments.iter().map(|segment| u128::from(segment.length)).sum();
    assert_eq!(sum, u128::from(manifest.position));
    let again = manifest.encode().expect("every manifest is written");
    assert_eq!(Manifest::decode(&again, digest(&again), origin).expect("what we write is read"), manifest);
    only_the_one_spoken_of_is_resumed(bytes, origin, &manifest);
    foreign_is_refused(bytes, origin);
    damaged_is_refused(bytes, origin);
}

/// A lease names number and position too, and the shard has an end.
pub fn only_the_one_spoken_of_is_resumed(bytes: &[u8], origin: Origin<'_>, manifest: &Manifest) {
    let (number, position) = (manifest.number, manifest.position);
    let wanted = Checkpoint { number, position, digest: digest(bytes) };
    let resume = |wanted, length| Manifest::resume(bytes, wanted, origin, length);
    assert_eq!(&resume(wanted, position).expect("it is the one"), manifest);
    let short = position.checked_sub(1).map(|length| (wanted, length));
    let another = Checkpoint { number: number ^ 1, ..wanted };
    let elsewhere = Checkpoint { position: position ^ 1, ..wanted };
    for (wanted, length) in short.into_iter().chain([(another, u64::MAX), (elsewhere, u64::MAX)]) {
        let refused = resume(wanted, length);
        assert!(matches!(refused, Err(ManifestError::Differs { .. })), "{wanted:?} of {length}: {refused:?}");
    }
}

/// No other job, plan, program or shard takes it.
pub fn foreign_is_refused(bytes: &[u8], origin: Origin<'_>) {
    let other = JobUid(format!("{}x", origin.job));
    let (plan, program) = (format!("{}x", origin.plan), format!("{}x", origin.program));
    for foreign in [
        Origin { job: &other, ..origin },
        Origin { plan: &plan, ..origin },
        Origin { program: &program, ..origin },
        Origin { index: origin.index ^ 1, ..origin },
    ] {
        let refused = Manifest::decode(bytes, digest(bytes), foreign);
        assert!(matches!(refused, Err(ManifestError::Foreign(_))), "{foreign:?}: {refused:?}");
    }
}

/// No byte more, no byte less, and none that is another.
pub fn damaged_is_refused(bytes: &[u8], origin: Origin<'_>) {
    let wanted = digest(bytes);
    let torn = |bytes: &[u8]| matches!(Manifest::decode(bytes, wanted, origin), Err(ManifestError::Digest { .. }));
    // The place differs with the input, so that the fuzzer finds every one.
    let place = usize::try_from(wanted % bytes.len() as u64).expect("it is a place in the bytes");
    let flipped = bytes.iter().enumerate().map(|(at, byte)| if at == place { byte ^ 1 } else { *byte });
    assert!(torn(&flipped.collect::<Vec<u8>>()), "flipped at {place}");
    assert!(torn(&bytes[..place]), "cut at {place}");
    assert!(torn(&[bytes, b"\n"].concat()), "one byte more");
}
