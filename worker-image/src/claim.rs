//! Which job owns the names of results in an output directory (P8).

use std::{fs, path::Path};

use hyperflow_api::{ids::JobUid, message::FailureClass};
use hyperflow_core::{job::Output, layout::Layout};
use serde::{Deserialize, Serialize};

use crate::{
    fault::{self, Fault},
    store::{self, Created},
    work::Work,
};

/// The content of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    uid: JobUid,
    namespace: String,
    name: String,
    path: String,
}

impl Claim {
    /// Whether it is this job's.
    pub fn is_of(&self, work: &Work) -> bool {
        self.uid == work.brief.uid
    }

    /// What another job is told.
    pub fn refusal(&self, output: &Output) -> Fault {
        let uid = self.uid.0.get(..8).unwrap_or(&self.uid.0);
        let message = format!(
            "'{}' with path '{}' belongs to ShardJob '{}', uid {uid}. Nothing was written. Choose another \
             `spec.output.url`",
            output.url, output.path, self.name
        );
        fault::end_job(FailureClass::Store, "OutputClaimed", message)
    }
}

/// The claim on the names of `output`, if there is one.
pub fn of(folder: &Path, output: &Output) -> Result<Option<Claim>, Fault> {
    let path = folder.join(Layout::claim(&output.path));
    if store::look(&path)?.is_none() {
        return Ok(None);
    }
    let bytes = fs::read(&path).map_err(fault::output("read the claim", &path))?;
    let claim = serde_json::from_slice(&bytes).map_err(|error| {
        let message =
            format!("'{}' is no claim of a ShardJob: {error}. Choose another `spec.output.url`", path.display());
        fault::end_job(FailureClass::Store, "OutputClaimed", message)
    })?;
    Ok(Some(claim))
}

/// Claims the names of `output`, or says who has them. `aside` is a private name on the same file system.
pub fn take(work: &Work, aside: &Path, root: &Path, output: &Output) -> Result<Option<Claim>, Fault> {
    let path = root.join(Layout::claim(&output.path));
    let brief = &work.brief;
    let claim = Claim {
        uid: brief.uid.clone(),
        namespace: brief.namespace.clone(),
        name: brief.name.clone(),
        path: output.path.clone(),
    };
    let bytes = serde_json::to_vec(&claim).map_err(|error| fault::output("write", &path)(error.into()))?;
    if store::put_new(aside, &path, &bytes)? == Created::Us {
        return Ok(None);
    }
    store::sync_found(&path)?;
    Ok(of(root, output)?.filter(|owner| !owner.is_of(work)))
}
