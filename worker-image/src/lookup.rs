//! Looking for the input before there is a plan, and saying what to do when it is not there.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use hyperflow_api::message::FailureClass;
use hyperflow_core::paths::file_path;

use crate::{
    fault::{self, Fault},
    listing::walk::Seen,
    store,
};

/// Names at least so alike are worth a hint.
const ALIKE: f64 = 0.6;
/// Most names compared.
const COMPARED: usize = 100_000;
/// Most globs that a message shows.
const GLOBS: usize = 3;

/// Refuses a URL without a file.
pub fn is_there(url: &str) -> Result<(), Fault> {
    let path = Path::new(file_path(url).unwrap_or(url));
    match fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(found) if found.is_dir() => {
            Err(no_input(&format!("no file under '{url}': a directory must end with '/': use '{url}/'")))
        }
        Ok(_) => Err(no_file(url)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Err(missing(url, path)),
        Err(error) => Err(unreadable(url, path, error)),
    }
}

/// Refuses a URL that ends with '/' without a directory.
pub fn is_directory(url: &str) -> Result<(), Fault> {
    let plain = url.trim_end_matches('/');
    let path = Path::new(file_path(plain).unwrap_or(plain));
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(found) if found.is_file() => Err(no_input(&format!(
            "no directory at '{url}': it is a file, and only a directory ends with '/': use '{plain}'"
        ))),
        Ok(_) => Err(no_input(&format!("no directory at '{url}', but a socket, a pipe or a device"))),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            let hint = nearest(path).map(|name| format!(" (the nearest is '{name}')")).unwrap_or_default();
            Err(no_input(&format!("no directory at '{url}'{hint}")))
        }
        Err(error) => Err(unreadable(url, path, error)),
    }
}

fn unreadable(url: &str, path: &Path, error: io::Error) -> Fault {
    if error.kind() != ErrorKind::PermissionDenied {
        return fault::input("look at", path)(error);
    }
    let message = format!("cannot look at '{url}': {error}{}", fault::allow("read"));
    fault::end_job(FailureClass::BadInput, "InputDenied", message)
}

/// A directory of which nothing was selected.
pub fn no_match(url: &str, include: &[String], exclude: &[String], seen: &Seen) -> Fault {
    let mut notes = Vec::new();
    let mut what = format!("no file under '{url}'");
    if seen.files > 0 {
        let but_not = (!exclude.is_empty()).then(|| format!("`exclude` {}", few(exclude)));
        let rule = match (include, but_not) {
            ([], None) => String::new(),
            ([], Some(but_not)) => format!(" is left by {but_not}"),
            (_, None) => format!(" matches `include` {}", few(include)),
            (_, Some(but_not)) => format!(" matches `include` {} and not {but_not}", few(include)),
        };
        what.push_str(&rule);
        notes.push(format!("0 of {} files", seen.files));
    }
    notes.extend(seen.nearest.as_ref().map(|path| format!("the nearest is '{path}'")));
    for (count, of) in [
        (seen.linked_folders, "links to directories, which are not followed"),
        (seen.broken_links, "links to nothing"),
        (seen.special, "sockets, pipes and devices"),
    ] {
        if count > 0 {
            notes.push(format!("{of}: {count}"));
        }
    }
    if notes.is_empty() {
        return no_input(&format!("{what}: the directory is empty"));
    }
    no_input(&format!("{what} ({})", notes.join("; ")))
}

/// The first of many globs.
fn few(globs: &[String]) -> String {
    let first: Vec<String> = globs.iter().take(GLOBS).map(|glob| format!("'{glob}'")).collect();
    let more = globs.len() - first.len();
    let first = first.join(", ");
    if more == 0 { first } else { format!("{first} and {more} more") }
}

fn no_input(what: &str) -> Fault {
    let message = format!("{what}. Correct `spec.source.files`: it may be changed until there is a plan.");
    fault::end_job(FailureClass::BadInput, "NoInput", message)
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
pub fn nearest(path: &Path) -> Option<String> {
    let wanted = path.file_name()?.to_str()?.to_lowercase();
    let names = fs::read_dir(store::parent(path)).ok()?.take(COMPARED).filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        let alike = strsim::normalized_damerau_levenshtein(&wanted, &name.to_lowercase());
        (alike >= ALIKE).then_some((alike, name))
    });
    names.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::refused;

    fn told(fault: Result<(), Fault>) -> String {
        let failure = refused(fault);
        assert_eq!(
            (failure.class, failure.reason.as_str(), failure.ends_job),
            (FailureClass::BadInput, "NoInput", true)
        );
        failure.message
    }

    const CORRECT: &str = ". Correct `spec.source.files`: it may be changed until there is a plan.";

    #[test]
    fn the_slash_at_the_end_tells_a_directory_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("input")).unwrap();
        fs::write(folder.path().join("input/data"), b"x").unwrap();
        let root = format!("file://{}", folder.path().display());
        is_directory(&format!("{root}/input/")).unwrap();
        is_there(&format!("{root}/input/data")).unwrap();
        assert_eq!(
            told(is_there(&format!("{root}/input"))),
            format!("no file under '{root}/input': a directory must end with '/': use '{root}/input/'{CORRECT}")
        );
        let file = format!("{root}/input/data");
        assert_eq!(
            told(is_directory(&format!("{file}/"))),
            format!(
                "no directory at '{file}/': it is a file, and only a directory ends with '/': use '{file}'{CORRECT}"
            )
        );
        assert_eq!(
            told(is_directory(&format!("{root}/imput/"))),
            format!("no directory at '{root}/imput/' (the nearest is 'input'){CORRECT}")
        );
        assert_eq!(told(is_directory(&format!("{file}/x/"))), format!("no directory at '{file}/x/'{CORRECT}"));
    }

    #[test]
    fn nothing_selected_is_told_with_the_rules_the_count_and_the_nearest() {
        let url = "file:///data/in/";
        let said = |include: &[&str], exclude: &[&str], seen: Seen| {
            let [include, exclude] =
                [include, exclude].map(|globs| globs.iter().map(ToString::to_string).collect::<Vec<_>>());
            told(Err(no_match(url, &include, &exclude, &seen)))
        };
        let near = Seen { files: 1284, nearest: Some("a/report.PDF".into()), ..Seen::default() };
        assert_eq!(
            said(&["**/*.pdf"], &[], near.clone()),
            "no file under 'file:///data/in/' matches `include` '**/*.pdf' (0 of 1284 files; the nearest is \
             'a/report.PDF'). Correct `spec.source.files`: it may be changed until there is a plan."
        );
        assert_eq!(
            said(&["a", "b", "c", "d", "e"], &["f"], near),
            format!(
                "no file under '{url}' matches `include` 'a', 'b', 'c' and 2 more and not `exclude` 'f' (0 of 1284 \
                 files; the nearest is 'a/report.PDF'){CORRECT}"
            )
        );
        let seen = Seen { files: 2, ..Seen::default() };
        assert_eq!(
            said(&[], &["**"], seen),
            format!("no file under '{url}' is left by `exclude` '**' (0 of 2 files){CORRECT}")
        );
        assert_eq!(
            said(&["x"], &[], Seen::default()),
            format!("no file under '{url}': the directory is empty{CORRECT}")
        );
        let links = Seen { linked_folders: 2, broken_links: 1, special: 3, ..Seen::default() };
        assert_eq!(
            said(&[], &[], links),
            format!(
                "no file under '{url}' (links to directories, which are not followed: 2; links to nothing: 1; sockets, \
                 pipes and devices: 3){CORRECT}"
            )
        );
    }
}
