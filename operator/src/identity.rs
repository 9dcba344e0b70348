//! Who a worker is: its projected token, reviewed by the API server, speaks for one pod of one job. From then on a
//! credential does, which needs no API server.

use hyperflow_api::{ids::JobUid, message::Hello};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};

use crate::{
    client::{CallError, call},
    credential::CredentialError,
};

/// The API server adds it to tokens that are bound to a pod.
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Why a worker may not speak.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Nobody could be asked: the worker should come again.
    #[error("cannot have the worker's token reviewed")]
    Unreviewed(#[from] CallError),
    /// The token is not accepted.
    #[error("the token is not valid for audience '{audience}': {reason}")]
    Rejected {
        /// What it had to be valid for.
        audience: String,
        /// The API server's words.
        reason: String,
    },
    /// The credential is not accepted: the worker should come again with its token.
    #[error("cannot take the credential for a proof")]
    Credential(#[from] CredentialError),
    /// The token is somebody else's.
    #[error("the token speaks for {part} '{actual}', not '{claimed}'")]
    Other {
        /// What differs.
        part: &'static str,
        /// As the token has it.
        actual: String,
        /// As the worker says.
        claimed: String,
    },
}

/// What a worker proves itself with, as it stands in the header `authorization`. Has no `Debug`: it must not be in a log.
pub enum Proof {
    /// `Bearer`: the projected service-account token.
    Token(String),
    /// `Hyperflow`: a credential.
    Credential(String),
}

impl Proof {
    /// From the value of the header.
    #[must_use]
    pub fn read(header: &str) -> Option<Self> {
        let (scheme, text) = header.split_once(' ').filter(|(_, text)| !text.is_empty())?;
        match scheme {
            "Bearer" => Some(Self::Token(text.into())),
            "Hyperflow" => Some(Self::Credential(text.into())),
            _ => None,
        }
    }

    /// For logs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::Credential(_) => "credential",
        }
    }
}

/// What a token of a worker of this job must be valid for.
#[must_use]
pub fn audience(job: &JobUid) -> String {
    format!("hyperflow.dev/{job}")
}

/// Has a worker's token reviewed. It must be for the job that the worker names, and be bound to its very pod.
///
/// # Errors
/// When the API server cannot be asked, or the token does not prove what the worker says.
pub async fn review(client: &Client, token: String, hello: &Hello, namespace: &str) -> Result<(), IdentityError> {
    let audience = audience(&hello.job);
    let review = TokenReview {
        spec: TokenReviewSpec { token: Some(token), audiences: Some(vec![audience.clone()]) },
        ..TokenReview::default()
    };
    let reviews: Api<TokenReview> = Api::all(client.clone());
    let subject = &hello.worker.pod_uid;
    let answer = call("review token of pod", subject, reviews.create(&PostParams::default(), &review)).await?;
    check(answer.status.unwrap_or_default(), audience, hello, namespace)
}

fn check(status: TokenReviewStatus, audience: String, hello: &Hello, namespace: &str) -> Result<(), IdentityError> {
    let TokenReviewStatus { audiences, authenticated, error, user } = status;
    if authenticated != Some(true) {
        return Err(IdentityError::Rejected { audience, reason: error.unwrap_or_else(|| "not authenticated".into()) });
    }
    // A server that knows nothing of audiences answers without them: such a token may be meant for anyone.
    if !audiences.unwrap_or_default().contains(&audience) {
        return Err(IdentityError::Rejected { audience, reason: "it is meant for others".into() });
    }
    let user = user.unwrap_or_default();
    let username = user.username.unwrap_or_default();
    let account = username.strip_prefix(SERVICE_ACCOUNT).and_then(|name| name.split_once(':'));
    same("namespace", account.map_or("", |(namespace, _)| namespace), namespace)?;
    let extra = user.extra.unwrap_or_default();
    let [pod_uid] = extra.get(POD_UID).map_or(&[][..], Vec::as_slice) else {
        return Err(IdentityError::Rejected { audience, reason: "it is not bound to a pod".into() });
    };
    same("pod", pod_uid, &hello.worker.pod_uid)
}

fn same(part: &'static str, actual: &str, claimed: &str) -> Result<(), IdentityError> {
    if actual == claimed && !actual.is_empty() {
        return Ok(());
    }
    Err(IdentityError::Other { part, actual: actual.into(), claimed: claimed.into() })
}

#[cfg(test)]
mod tests {
    use hyperflow_api::{ids::WorkerId, message::PROTOCOL};
    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    fn hello() -> Hello {
        let worker = WorkerId { pod_uid: "pod-1".into(), nonce: 1 };
        Hello {
            protocol: PROTOCOL,
            job: JobUid("job-1".into()),
            worker,
            slots: 1,
            held: Vec::new(),
            heard: 0,
            host: None,
        }
    }

    fn good() -> TokenReviewStatus {
        TokenReviewStatus {
            audiences: Some(vec!["hyperflow.dev/job-1".into()]),
            authenticated: Some(true),
            error: None,
            user: Some(UserInfo {
                username: Some("system:serviceaccount:team-a:default".into()),
                extra: Some([(POD_UID.into(), vec!["pod-1".into()])].into()),
                ..UserInfo::default()
            }),
        }
    }

    fn checked(status: TokenReviewStatus) -> Result<(), IdentityError> {
        check(status, audience(&hello().job), &hello(), "team-a")
    }

    #[test]
    fn a_token_of_the_pod_for_the_job_is_taken() {
        assert!(checked(good()).is_ok());
    }

    #[test]
    fn the_header_says_which_proof_it_is() {
        assert!(matches!(Proof::read("Bearer abc"), Some(Proof::Token(token)) if token == "abc"));
        assert!(matches!(Proof::read("Hyperflow 1.ab"), Some(Proof::Credential(text)) if text == "1.ab"));
        for wrong in ["Basic abc", "Bearer ", "Hyperflow ", "Bearer", ""] {
            assert!(Proof::read(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn everything_that_proves_less_is_refused() {
        let user = |change: fn(&mut UserInfo)| {
            let mut status = good();
            status.user.iter_mut().for_each(change);
            status
        };
        for (what, status) in [
            ("not authenticated", TokenReviewStatus { authenticated: Some(false), ..good() }),
            ("silent about it", TokenReviewStatus { authenticated: None, ..good() }),
            ("no audience echoed", TokenReviewStatus { audiences: None, ..good() }),
            ("another job", TokenReviewStatus { audiences: Some(vec!["hyperflow.dev/job-2".into()]), ..good() }),
            ("no user", TokenReviewStatus { user: None, ..good() }),
            ("another namespace", user(|u| u.username = Some("system:serviceaccount:team-b:default".into()))),
            ("a person", user(|u| u.username = Some("team-a".into()))),
            ("not bound", user(|u| u.extra = None)),
            ("another pod", user(|u| u.extra = Some([(POD_UID.into(), vec!["pod-2".into()])].into()))),
            ("two pods", user(|u| u.extra = Some([(POD_UID.into(), vec!["pod-1".into(), "pod-2".into()])].into()))),
        ] {
            assert!(checked(status).is_err(), "{what}");
        }
    }
}
