//! Looking for the input before there is a plan, and saying what to do when it is not there.

use std::{fs, io::ErrorKind, path::Path};

use hyperflow_api::message::FailureClass;
use hyperflow_core::job::file_path;

use crate::{
    fault::{self, Fault},
    store,
};

/// Names at least so alike are worth a hint.
const ALIKE: f64 = 0.6;
/// Most names compared.
const COMPARED: usize = 100_000;

/// Refuses a URL without a file.
pub fn is_there(url: &str) -> Result<(), Fault> {
    let path = Path::new(file_path(url).unwrap_or(url));
    match fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(found) if found.is_dir() => {
            let message = format!(
                "'{url}' is a directory: set `spec.source.files.url` to one file in it. It may be changed until there is \
                 a plan"
            );
            Err(fault::end_job(FailureClass::BadInput, "NoInput", message))
        }
        Ok(_) => Err(no_file(url)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Err(missing(url, path)),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let message = format!("cannot look at '{url}': {error}{}", fault::allow("read"));
            Err(fault::end_job(FailureClass::BadInput, "InputDenied", message))
        }
        Err(error) => Err(fault::input("look at", path)(error)),
    }
}

/// Something is there, and it is no file: a pipe, a device.
pub fn no_file(url: &str) -> Fault {
    let message = format!(
        "'{url}' is not a regular file: correct `spec.source.files.url`; it may be changed until there is a plan"
    );
    fault::end_job(FailureClass::BadInput, "NoInput", message)
}

fn missing(url: &str, path: &Path) -> Fault {
    let hint = nearest(path).map(|name| format!(". The nearest is '{name}'")).unwrap_or_default();
    let message =
        format!("no file at '{url}': correct `spec.source.files.url`; it may be changed until there is a plan{hint}");
    fault::end_job(FailureClass::BadInput, "NoInput", message)
}

/// The name in the same folder that is most alike.
fn nearest(path: &Path) -> Option<String> {
    let wanted = path.file_name()?.to_str()?.to_lowercase();
    let names = fs::read_dir(store::parent(path)).ok()?.take(COMPARED).filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        let alike = strsim::normalized_damerau_levenshtein(&wanted, &name.to_lowercase());
        (alike >= ALIKE).then_some((alike, name))
    });
    names.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, name)| name)
}
