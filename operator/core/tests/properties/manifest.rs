//! A checkpoint's manifest: used when it is whole and our own, and never otherwise.

use hyperflow_api::ids::{JobUid, MAX_SHARDS};
use hyperflow_core::checkpoint::{Manifest, ManifestError, Origin, Segment, digest};
use proptest::{collection::vec, prelude::*};

use super::checks::manifest;

#[derive(Clone, Debug)]
struct Made {
    job: JobUid,
    plan: String,
    program: String,
    index: u32,
    number: u64,
    segments: Vec<Segment>,
}

impl Made {
    fn origin(&self) -> Origin<'_> {
        Origin { job: &self.job, plan: &self.plan, program: &self.program, index: self.index }
    }

    fn position(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum()
    }

    fn manifest(&self) -> Manifest {
        Manifest::new(self.origin(), self.number, self.position(), self.segments.clone())
    }
}

fn made() -> impl Strategy<Value = Made> {
    let segment = any::<(String, u64, u32)>();
    let segment = segment.prop_map(|(name, length, crc32c)| Segment { name, length: length >> 3, crc32c });
    (any::<(String, String, String, u64)>(), 0..MAX_SHARDS, vec(segment, 0..8)).prop_map(|(parts, index, segments)| {
        let (job, plan, program, number) = parts;
        Made { job: JobUid(job), plan, program, index, number, segments }
    })
}

proptest! {
    #[test]
    fn whatever_is_in_it_is_read_back_by_its_own_alone(made in made()) {
        let bytes = made.manifest().encode().unwrap();
        let read = Manifest::decode(&bytes, digest(&bytes), made.origin()).unwrap();
        prop_assert_eq!((read.number, read.position, &read.segments), (made.number, made.position(), &made.segments));
        prop_assert_eq!(&read, &made.manifest());
        manifest::read(&bytes);
        manifest::only_the_one_spoken_of_is_resumed(&bytes, made.origin(), &read);
        manifest::foreign_is_refused(&bytes, made.origin());
        manifest::damaged_is_refused(&bytes, made.origin());
    }

    #[test]
    fn one_whose_segments_do_not_add_up_is_refused(made in made(), position in any::<u64>()) {
        prop_assume!(position != made.position());
        let bytes = Manifest::new(made.origin(), made.number, position, made.segments.clone()).encode().unwrap();
        let refused = Manifest::decode(&bytes, digest(&bytes), made.origin());
        let told = matches!(refused, Err(ManifestError::Length { position: told, .. }) if told == position);
        prop_assert!(told, "{refused:?}");
    }

    #[test]
    fn more_bytes_than_numbers_hold_are_no_segments(made in made(), least in 1_u64..) {
        let segment = |length| Segment { name: "s".into(), length, crc32c: 0 };
        let segments = vec![segment(u64::MAX), segment(least)];
        for position in [u64::MAX, least - 1] {
            let bytes = Manifest::new(made.origin(), 1, position, segments.clone()).encode().unwrap();
            prop_assert!(Manifest::decode(&bytes, digest(&bytes), made.origin()).is_err());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..100), text in r#"[\[\]{}":,a-z0-9]{0,60}"#) {
        manifest::read(&bytes);
        manifest::read(text.as_bytes());
    }
}

/// Every place, and every bit of it.
#[test]
fn no_damage_goes_unnoticed() {
    let segment = |name: &str, length| Segment { name: name.into(), length, crc32c: 7 };
    let segments = vec![segment("3.00000000de51b20c.24795-0d1f3c2a", 10), segment("a", 20)];
    let (job, plan, program) = (JobUid("5b1e0c44".into()), "blake3:1".into(), "copy/1".into());
    let made = Made { job, plan, program, index: 7, number: 3, segments };
    let bytes = made.manifest().encode().unwrap();
    let refused = |damaged: &[u8]| {
        let read = Manifest::decode(damaged, digest(&bytes), made.origin());
        assert!(matches!(read, Err(ManifestError::Digest { .. })), "{}", String::from_utf8_lossy(damaged));
    };
    for place in 0..bytes.len() {
        refused(&bytes[..place]);
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1 << bit;
            refused(&damaged);
        }
    }
    for byte in 0..=u8::MAX {
        refused(&[&bytes[..], &[byte]].concat());
        refused(&[&[byte], &bytes[..]].concat());
    }
}
