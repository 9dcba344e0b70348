//! `file://` URLs and relative paths: one spelling each, and never out of where they may lead.

use hyperflow_api::workers::VolumeMount;

use crate::job::{Refusal, refuse};

/// The path of a `file://` URL, taken literally.
#[must_use]
pub fn file_path(url: &str) -> Option<&str> {
    url.strip_prefix("file://").filter(|path| path.starts_with('/'))
}

/// Whether a relative path has one spelling and stays where it is put: no empty part, no `.`, no `..`, no NUL.
#[must_use]
pub fn is_plain(path: &str) -> bool {
    !path.contains('\0') && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// The path below the innermost mount that `path` lies under.
#[must_use]
pub fn below_mount<'a>(path: &'a str, mounts: &[VolumeMount]) -> Option<&'a str> {
    let below = |mount: &VolumeMount| {
        path.strip_prefix(&mount.mount_path)?.strip_prefix('/').filter(|_| mount.mount_path.starts_with('/'))
    };
    mounts.iter().filter_map(below).min_by_key(|below| below.len())
}

/// Refuses a URL that is no plain `file://` URL.
pub(crate) fn check_url(field: &'static str, url: &str) -> Result<(), Refusal> {
    let Some(path) = file_path(url) else { return refuse(field, "must start with 'file:///'") };
    if path.split('/').any(|segment| segment == "..") {
        return refuse(field, "must not contain a '..' segment");
    }
    if path.contains('\0') {
        return refuse(field, "must not contain a NUL character");
    }
    // Two spellings of one path would hide what lies under `_hyperflow/`, or in the job's own output.
    let plain = path.strip_suffix('/').unwrap_or(path).split('/').skip(1);
    if plain.into_iter().any(|part| part.is_empty() || part == ".") {
        return refuse(field, "must be a plain path: no empty part and no '.'");
    }
    Ok(())
}

/// Refuses a URL that no volume holds.
pub(crate) fn check_mounted(field: &'static str, url: &str, mounts: &[VolumeMount]) -> Result<(), Refusal> {
    if file_path(url).is_some_and(|path| below_mount(path, mounts).is_some()) {
        return Ok(());
    }
    refuse(field, format!("'{url}' must lie under the `mountPath` of an entry in `workers.volumeMounts`"))
}

/// Refuses a URL that is no directory on a volume that can be written.
pub(crate) fn check_writable(field: &'static str, url: &str, mounts: &[VolumeMount]) -> Result<(), Refusal> {
    check_url(field, url)?;
    if !url.ends_with('/') {
        return refuse(field, "must end with '/': it names a directory");
    }
    let writable = |mount: &&VolumeMount| mount.read_only != Some(true);
    let writable: Vec<VolumeMount> = mounts.iter().filter(writable).cloned().collect();
    if file_path(url).is_some_and(|path| below_mount(path, &writable).is_some()) {
        return Ok(());
    }
    let message = "must lie under the `mountPath` of an entry in `workers.volumeMounts` that is not `readOnly`";
    refuse(field, format!("'{url}' {message}"))
}
