//! A replica's name and header: what says which bytes a file of the store has, and whether it still has them.

use crc_fast::{CrcAlgorithm, Digest};
use hyperflow_api::ids::{JobUid, ShardIndex};
use hyperflow_core::blocks::{Block, group_of};

/// Bytes before the data.
pub const HEADER: usize = 64;
const MAGIC: &[u8; 8] = b"HFBLOCK1";
/// What the names of damaged ones end with.
pub const CORRUPT: &str = ".corrupt";

/// Which block, in which version, of which group of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The folder that it is in.
    pub group: u32,
    /// Whose.
    pub shard: ShardIndex,
    /// Which of the shard's.
    pub part: u32,
    /// Of which bytes.
    pub version: u64,
}

impl Name {
    /// Of a block of a job with so many shards.
    pub fn of(block: &Block, shards: u32) -> Self {
        let Block { shard, part, version, .. } = *block;
        Self { group: group_of(shard, shards), shard, part, version }
    }

    /// Of its file.
    pub fn file(&self) -> String {
        format!("{}.{}.{:016x}", self.shard, self.part, self.version)
    }

    /// Reads the name of a file in a group's folder, and whether it was found damaged before. None for what is none of
    /// ours.
    pub fn read(group: u32, file: &str) -> Option<(Self, bool)> {
        let (text, corrupt) = match file.strip_suffix(CORRUPT) {
            Some(text) => (text, true),
            None => (file, false),
        };
        let mut parts = text.splitn(3, '.');
        let (shard, part, version) = (parts.next()?, parts.next()?, parts.next()?);
        let version = u64::from_str_radix(version, 16).ok().filter(|_| version.len() == 16)?;
        let name = Self { group, shard: shard.parse().ok()?, part: part.parse().ok()?, version };
        // One way to write each: otherwise two files would be one replica.
        (name.file() == text).then_some((name, corrupt))
    }
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Of this block.
    pub shard: ShardIndex,
    /// Of this block.
    pub part: u32,
    /// Of this version.
    pub version: u64,
    /// Bytes of data.
    pub length: u64,
    /// CRC-32C of the data.
    pub crc32c: u32,
}

/// What tells a job's replicas from another job's, in their headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobTag([u8; 16]);

impl JobTag {
    /// Of a job.
    pub fn new(job: &JobUid) -> Self {
        let mut tag = [0; 16];
        tag.copy_from_slice(&blake3::hash(job.0.as_bytes()).as_bytes()[..16]);
        Self(tag)
    }
}

impl Head {
    /// Of what was received as this block.
    pub fn new(name: &Name, length: u64, crc32c: u32) -> Self {
        Self { shard: name.shard, part: name.part, version: name.version, length, crc32c }
    }

    /// As it stands in a file.
    pub fn encode(&self, job: JobTag) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..24].copy_from_slice(&job.0);
        bytes[24..28].copy_from_slice(&self.shard.to_be_bytes());
        bytes[28..32].copy_from_slice(&self.part.to_be_bytes());
        bytes[32..40].copy_from_slice(&self.version.to_be_bytes());
        bytes[40..48].copy_from_slice(&self.length.to_be_bytes());
        bytes[48..52].copy_from_slice(&self.crc32c.to_be_bytes());
        let crc = crc32c(&bytes[..HEADER - 4]);
        bytes[HEADER - 4..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Reads the header of a file. None if it is damaged, or of another job.
    pub fn decode(bytes: &[u8; HEADER], job: JobTag) -> Option<Self> {
        let four = |at: usize| bytes[at..at + 4].try_into().ok().map(u32::from_be_bytes);
        let eight = |at: usize| bytes[at..at + 8].try_into().ok().map(u64::from_be_bytes);
        let sound = four(HEADER - 4)? == crc32c(&bytes[..HEADER - 4]);
        let ours = bytes[..8] == *MAGIC && bytes[8..24] == job.0;
        let head =
            Self { shard: four(24)?, part: four(28)?, version: eight(32)?, length: eight(40)?, crc32c: four(48)? };
        (sound && ours).then_some(head)
    }

    /// Whether it is of the block with that name.
    pub fn is_of(&self, name: &Name) -> bool {
        (self.shard, self.part, self.version) == (name.shard, name.part, name.version)
    }

    /// What it adds to the digest of a group.
    pub fn digest(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.shard.to_be_bytes()).update(&self.part.to_be_bytes());
        hasher.update(&self.version.to_be_bytes()).update(&self.length.to_be_bytes());
        hasher.update(&self.crc32c.to_be_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        u64::from_be_bytes(first)
    }
}

/// A running CRC-32C.
#[derive(Clone)]
pub struct Crc(Digest);

impl Crc {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Of what was added.
    pub fn value(&self) -> u32 {
        // A 32-bit sum in a 64-bit type.
        (self.0.finalize() & 0xffff_ffff) as u32
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Name = Name { group: 3, shard: 17, part: 2, version: 0xab };

    #[test]
    fn a_name_is_written_in_one_way_alone() {
        assert_eq!(NAME.file(), "17.2.00000000000000ab");
        assert_eq!(Name::read(3, &NAME.file()), Some((NAME, false)));
        assert_eq!(Name::read(3, "17.2.00000000000000ab.corrupt"), Some((NAME, true)));
        for other in
            ["17.2.00000000000000AB", "017.2.00000000000000ab", "17.2.ab", "17.2", "+17.2.00000000000000ab", "x"]
        {
            assert_eq!(Name::read(3, other), None, "{other}");
        }
    }

    #[test]
    fn a_header_with_any_bit_flipped_is_none() {
        let tag = JobTag::new(&JobUid("job".into()));
        let head = Head::new(&NAME, 5, 7);
        let bytes = head.encode(tag);
        assert_eq!(Head::decode(&bytes, tag), Some(head));
        assert_eq!(Head::decode(&bytes, JobTag::new(&JobUid("other".into()))), None);
        for bit in 0..HEADER * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::decode(&damaged, tag), None, "bit {bit}");
        }
    }
}
