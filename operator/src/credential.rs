//! Credentials: what a worker whose token was reviewed may prove itself with from then on, without the API server (P22).
//!
//! The text is `{end}.{mac}`: when it ends, in Unix seconds, and 64 hexadecimal digits of a keyed BLAKE3 hash of the end
//! and of who it is for: job, namespace, pod and nonce. Who it is for is not in the text. The worker says that in its
//! Hello, and the text fits or does not, so that nothing is read from it but a number. The key is derived from the
//! authority's private key, which every replica reads from the one Secret: each accepts what any other gave.
//!
//! What is defended, and how far:
//! - Nobody without the Secret can make a credential, prolong one, or use it for another job, namespace, pod or process.
//! - Who steals one can speak for that one process of that one job, until it ends, at most an hour after it was given. A
//!   session that was opened with a credential is given no new one, or a stolen one would last for ever. A session that
//!   is open at the end goes on, as one that a token opened does.
//! - A session that it opens is given a passport for the key in its Hello, as any other, which is good for 30 days. Without
//!   a grant, which comes in the orders of an open session and ends after ten minutes, it opens no other worker's blocks.
//! - It proves who calls, and no more: only a pod that the job's desk knows is welcomed, so a deleted pod's is worthless.
//! - It cannot be taken back alone. A new authority takes all of them back, once the operators run with it.
//! - It travels inside TLS only, is in no log, and is kept in the memory of the worker alone.

use std::fmt;

use hyperflow_api::{message::Hello, wire::proto};

/// How long a credential is good for. With [`SKEW`] it is an hour.
const LIFE: u64 = 3540;
/// The clock of the replica that accepts may differ so much from the one that gave.
const SKEW: u64 = 60;
/// Makes keys that are good for nothing else. Changed with the form of what is hashed.
const CONTEXT: &str = "hyperflow session credential 2026 v1";

/// Why a credential proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// It is damaged, made by somebody else, or for another job, namespace, pod or process.
    #[error("the credential is not one of this worker")]
    Foreign,
    /// It was good once.
    #[error("the credential has expired")]
    Expired,
}

/// Gives credentials and knows them again.
#[derive(Clone)]
pub struct Mint {
    key: [u8; blake3::KEY_LEN],
}

impl fmt::Debug for Mint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mint")
    }
}

impl Mint {
    /// The mint of the authority with this private key.
    #[must_use]
    pub fn new(authority_key: &[u8]) -> Self {
        Self { key: blake3::derive_key(CONTEXT, authority_key) }
    }

    /// A credential for the worker that said this hello; `now` in Unix seconds.
    #[must_use]
    pub fn give(&self, hello: &Hello, namespace: &str, now: u64) -> proto::FromOperator {
        let end = now.saturating_add(LIFE);
        let text = format!("{end}.{}", self.mac(hello, namespace, end).to_hex());
        let seconds = u32::try_from(LIFE).unwrap_or(0);
        let credential = proto::Credential { text, seconds };
        proto::FromOperator { message: Some(proto::from_operator::Message::Credential(credential)) }
    }

    /// Whether a credential is this worker's, and still good.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&self, text: &str, hello: &Hello, namespace: &str, now: u64) -> Result<(), CredentialError> {
        let (end, mac) = text.split_once('.').ok_or(CredentialError::Foreign)?;
        let end: u64 = end.parse().map_err(|_no_number| CredentialError::Foreign)?;
        let mac = blake3::Hash::from_hex(mac).map_err(|_no_hash| CredentialError::Foreign)?;
        // This comparison takes the same time wherever the two differ.
        if mac != self.mac(hello, namespace, end) {
            return Err(CredentialError::Foreign);
        }
        // A replica whose clock is far ahead must not give more than an hour.
        let good = now <= end.saturating_add(SKEW) && end <= now.saturating_add(LIFE + SKEW);
        if good { Ok(()) } else { Err(CredentialError::Expired) }
    }

    fn mac(&self, hello: &Hello, namespace: &str, end: u64) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&end.to_le_bytes()).update(&hello.worker.nonce.to_le_bytes());
        // With their lengths, so that no two sets of names make the same bytes.
        for name in [&hello.job.0, namespace, &hello.worker.pod_uid] {
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
        }
        hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    use hyperflow_api::{
        ids::{JobUid, WorkerId},
        message::PROTOCOL,
    };
    use proto::from_operator::Message;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn mint() -> Mint {
        Mint::new(b"the authority's private key")
    }

    fn hello(job: &str, pod: &str, nonce: u64) -> Hello {
        let worker = WorkerId { pod_uid: pod.into(), nonce };
        Hello { protocol: PROTOCOL, job: JobUid(job.into()), worker, slots: 1, held: Vec::new(), heard: 0, host: None }
    }

    fn ours() -> Hello {
        hello("job-1", "pod-1", 7)
    }

    fn text() -> String {
        match mint().give(&ours(), "team-a", NOW).message {
            Some(Message::Credential(credential)) => credential.text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_given_is_known_again_by_every_replica_with_the_same_authority() {
        assert_eq!(mint().check(&text(), &ours(), "team-a", NOW), Ok(()));
        let another = Mint::new(b"another authority's private key");
        assert_eq!(another.check(&text(), &ours(), "team-a", NOW), Err(CredentialError::Foreign));
    }

    #[test]
    fn it_is_good_for_its_worker_alone() {
        for (what, other, namespace) in [
            ("job", hello("job-2", "pod-1", 7), "team-a"),
            ("pod", hello("job-1", "pod-2", 7), "team-a"),
            ("nonce", hello("job-1", "pod-1", 8), "team-a"),
            ("namespace", ours(), "team-b"),
            ("the same letters, cut elsewhere", hello("job-1t", "pod-1", 7), "eam-a"),
        ] {
            assert_eq!(mint().check(&text(), &other, namespace, NOW), Err(CredentialError::Foreign), "{what}");
        }
    }

    #[test]
    fn it_ends_within_the_hour_and_clocks_may_differ_by_a_minute() {
        let at = |now| mint().check(&text(), &ours(), "team-a", now);
        assert_eq!(at(NOW - 60), Ok(()), "the clock of this replica is late");
        assert_eq!(at(NOW + 3600), Ok(()));
        assert_eq!(at(NOW + 3601), Err(CredentialError::Expired));
        assert_eq!(at(NOW - 61), Err(CredentialError::Expired), "the one that gave it was far ahead");
    }

    #[test]
    fn a_forged_or_damaged_one_is_refused() {
        let (end, mac) = (NOW + 3540, "0".repeat(64));
        let longer = text().replace(&end.to_string(), &(end + 1).to_string());
        let mut flipped = text().into_bytes();
        let last = flipped.last_mut().unwrap();
        *last = if *last == b'0' { b'1' } else { b'0' };
        let flipped = String::from_utf8(flipped).unwrap();
        let short = text()[..70].to_owned();
        for forged in [longer, flipped, short, format!("{end}.{mac}"), String::new(), ".".into(), format!("-1.{mac}")] {
            assert_eq!(mint().check(&forged, &ours(), "team-a", NOW), Err(CredentialError::Foreign), "{forged}");
        }
    }
}
