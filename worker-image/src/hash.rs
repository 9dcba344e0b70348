//! Checksums of files that one attempt begins and another one ends: what has been summed so far fits into a checkpoint
//! (P20).

use std::fmt::{self, Write};

use crc_fast::{CrcAlgorithm, Digest as Crc};
use hyperflow_core::job::Sum;
use sha2::{
    Digest, Sha256,
    digest::common::hazmat::{SerializableState, SerializedState},
};

/// What separates the value of a CRC-32C from its register.
const CRC_FLIP: u32 = 0xffff_ffff;
/// Where the number of blocks stands in a state of SHA-256: after its eight words.
const BLOCKS: std::ops::Range<usize> = 32..40;
/// Most blocks that a state may have: an exbibyte. Beyond, the length would not fit into its 64 bits at the end.
const MOST_BLOCKS: u64 = 1 << 54;

/// A running checksum.
#[derive(Clone)]
pub enum Hash {
    /// CRC-32C.
    Crc32c(Box<Crc>),
    /// SHA-256.
    Sha256(Sha256),
}

// The parts have no form that says more.
impl fmt::Debug for Hash {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "Hash({})", self.state())
    }
}

impl Hash {
    /// Of nothing yet.
    pub fn new(sum: Sum) -> Self {
        match sum {
            Sum::Crc32c => Self::Crc32c(Box::new(Crc::new(CrcAlgorithm::Crc32Iscsi))),
            Sum::Sha256 => Self::Sha256(Sha256::new()),
        }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc32c(crc) => crc.update(bytes),
            Self::Sha256(sha) => sha.update(bytes),
        }
    }

    /// Everything that [`Hash::resume`] needs to go on: eight hexadecimal digits for CRC-32C, 208 for SHA-256.
    ///
    /// Those of SHA-256 are its eight words and the number of whole blocks, least byte first, then the length of the
    /// block that is not whole and its bytes, filled up with zeros.
    pub fn state(&self) -> String {
        match self {
            Self::Crc32c(crc) => hex(&value(crc).to_be_bytes()),
            Self::Sha256(sha) => hex(&sha.serialize()),
        }
    }

    /// Goes on from a state. None for what is none: the text comes from a store that others can write to.
    pub fn resume(sum: Sum, state: &str) -> Option<Self> {
        match sum {
            Sum::Crc32c => {
                let register = u32::from_be_bytes(unhex(state)?) ^ CRC_FLIP;
                Some(Self::Crc32c(Box::new(Crc::new_with_init_state(CrcAlgorithm::Crc32Iscsi, register.into()))))
            }
            Sum::Sha256 => {
                let bytes: [u8; 104] = unhex(state)?;
                let blocks = u64::from_le_bytes(bytes[BLOCKS].try_into().ok()?);
                let state = SerializedState::<Sha256>::from(bytes);
                (blocks <= MOST_BLOCKS).then(|| Sha256::deserialize(&state).ok().map(Self::Sha256))?
            }
        }
    }

    /// The checksum in hexadecimal digits: eight or 64.
    pub fn finish(self) -> String {
        match self {
            Self::Crc32c(crc) => hex(&value(&crc).to_be_bytes()),
            Self::Sha256(sha) => hex(&sha.finalize()),
        }
    }
}

fn value(crc: &Crc) -> u32 {
    // A 32-bit sum in a 64-bit type.
    (crc.finalize() & 0xffff_ffff) as u32
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes of exactly so many digits, none of them a capital.
fn unhex<const LENGTH: usize>(text: &str) -> Option<[u8; LENGTH]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != LENGTH || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; LENGTH];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// A line that `sha256sum --check` reads: the checksum of the file at `path`.
///
/// A path that would break the line is written as coreutils do it: a backslash before the checksum says that `\\`, `\n`
/// and `\r` in the path stand for a backslash, a newline and a carriage return.
pub fn sum_line(sum: &str, path: &str) -> String {
    match path {
        // Alone it means standard input.
        "-" => format!("{sum}  ./-\n"),
        path if path.contains(['\\', '\n', '\r']) => {
            let path = path.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
            format!("\\{sum}  {path}\n")
        }
        path => format!("{sum}  {path}\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use proptest::prelude::*;

    use super::*;

    const SUMS: [Sum; 2] = [Sum::Crc32c, Sum::Sha256];

    fn of(sum: Sum, bytes: &[u8]) -> String {
        let mut hash = Hash::new(sum);
        hash.update(bytes);
        hash.finish()
    }

    #[test]
    fn the_checksums_are_the_known_ones() {
        let cases = [
            (Sum::Crc32c, "", "00000000"),
            (Sum::Crc32c, "123456789", "e3069283"),
            (Sum::Sha256, "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (Sum::Sha256, "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                Sum::Sha256,
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            ),
        ];
        for (sum, text, known) in cases {
            assert_eq!(of(sum, text.as_bytes()), known);
        }
        // RFC 3720, B.4.
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(of(Sum::Crc32c, &ascending), "46dd794e");
    }

    #[test]
    fn whoever_resumes_at_any_byte_comes_to_the_same() {
        let bytes: Vec<u8> = (0..200_u8).map(|n| n.wrapping_mul(89)).collect();
        for sum in SUMS {
            for split in 0..=bytes.len() {
                let mut hash = Hash::new(sum);
                hash.update(&bytes[..split]);
                let state = hash.state();
                assert!(state.len() <= 256, "it must fit into a checkpoint");
                let mut hash = Hash::resume(sum, &state).unwrap();
                assert_eq!(hash.state(), state);
                hash.update(&bytes[split..]);
                assert_eq!(hash.finish(), of(sum, &bytes), "{sum:?} at {split}");
            }
        }
    }

    proptest! {
        #[test]
        fn however_often_it_is_stopped_it_comes_to_the_same(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8)) {
            for sum in SUMS {
                let mut hash = Hash::new(sum);
                for part in &parts {
                    hash = Hash::resume(sum, &hash.state()).unwrap();
                    hash.update(part);
                }
                prop_assert_eq!(hash.finish(), of(sum, &parts.concat()));
            }
        }

        // Nothing panics, neither at once nor later, and what is taken is written as it was read.
        #[test]
        fn a_text_is_a_state_or_it_is_refused(
            text in prop_oneof![".*", "[0-9a-f]{8}", "[0-9a-f]{208}", "[0-9a-f]{64}0000000000000000(0[0-9]|3f)0{126}", "[0-9a-fA-F+]{8}"],
        ) {
            for sum in SUMS {
                if let Some(mut hash) = Hash::resume(sum, &text) {
                    prop_assert_eq!(hash.state(), &*text);
                    hash.update(&[7; 1000]);
                    hash.finish();
                }
            }
        }
    }

    #[test]
    fn a_state_that_was_written_once_is_read_for_ever() {
        let half = b"The same text, of more than sixty-four bytes, so that a whole block is in it.";
        let written = [
            (Sum::Crc32c, "bffa3285"),
            (
                Sum::Sha256,
                concat!(
                    "7a9c02d3e97e3290a9baa186aad5e0288da2b945738ffa9df3eacc31a27ccc91",
                    "01000000000000000d6f636b20697320696e2069742e00000000000000000000",
                    "0000000000000000000000000000000000000000000000000000000000000000",
                    "0000000000000000",
                ),
            ),
        ];
        for (sum, state) in written {
            let mut hash = Hash::new(sum);
            hash.update(half);
            assert_eq!(hash.state(), state, "checkpoints in stores hold this: change `Task::program` with it");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let mut hash = Hash::new(Sum::Sha256);
        hash.update(b"abc");
        let good = hash.state();
        let with = |at: usize, text: &str| format!("{}{text}{}", &good[..at], &good[at + text.len()..]);
        assert!(Hash::resume(Sum::Sha256, &with(0, "00")).is_some(), "words may be any");
        for bad in [
            String::new(),
            good[2..].into(),
            format!("{good}00"),
            format!("{}é", &good[2..]),
            good.to_uppercase(),
            with(0, "g"),
            with(0, "+"),
            // A block of 64 bytes is whole, and one of 255 is none.
            with(80, "40"),
            with(80, "ff"),
            // Bytes after the end of the block that is not whole.
            with(90, "1"),
            // More than any file has.
            with(64, "ffffffffffffffff"),
            with(64, "0100000000004000"),
        ] {
            assert!(Hash::resume(Sum::Sha256, &bad).is_none(), "{bad}");
        }
        for bad in ["", "e306928", "e30692833", "E3069283", "+3069283", "0xe30692", "\u{e9}\u{e9}\u{e9}\u{e9}", &good] {
            assert!(Hash::resume(Sum::Crc32c, bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_longest_state_goes_on_without_an_overflow() {
        let longest = format!("{}0000000000004000{}", "00".repeat(32), "00".repeat(64));
        let mut hash = Hash::resume(Sum::Sha256, &longest).unwrap();
        hash.update(&[1; 100_000]);
        assert_eq!(hash.finish().len(), 64);
    }

    #[test]
    fn sha256sum_checks_the_lines_whatever_the_names() {
        let folder = tempfile::tempdir().unwrap();
        let names = [
            "plain.txt",
            " a  b ",
            "'single' \"double\" `tick` $HOME",
            "new\nline",
            "carriage\rreturn\r",
            "back\\slash\\n",
            "\\",
            "\\\n\r\\n",
            "ünïcode-名前-🦀",
            "-rf",
            "-",
            "--check",
            "*star",
            "#hash",
            "tab\there",
            "SHA256 (x) = y",
            "sub folder/file",
        ];
        fs::create_dir(folder.path().join("sub folder")).unwrap();
        let mut list = String::new();
        for name in names {
            fs::write(folder.path().join(name), name).unwrap();
            let line = sum_line(&of(Sum::Sha256, name.as_bytes()), name);
            assert_eq!(line.matches('\n').count(), 1, "{line:?}");
            list.push_str(&line);
        }
        fs::write(folder.path().join("SHA256SUMS"), &list).unwrap();
        let check = || {
            let mut check = Command::new("sha256sum");
            check.args(["--check", "--strict", "SHA256SUMS"]).current_dir(folder.path()).output().unwrap()
        };
        let checked = check();
        let text = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success(), "{text}{}", String::from_utf8_lossy(&checked.stderr));
        assert_eq!(text.matches(": OK").count(), names.len(), "{text}");
        fs::write(folder.path().join("new\nline"), "changed").unwrap();
        assert!(!check().status.success(), "it does look at the files");
    }
}
