//! Deliberately broken variants of the core, each of which the simulator must catch, or it proves nothing.
//!
//! `make mutants` grows a copy of the workspace in whose core every mutant of `list.rs` sleeps, wakes one after the
//! other, and plays seeds until a promise is broken (`hunt.rs`). Nothing of this is in the core itself. Without
//! `MUTANTS_DIR` only this is tried: that what each of them breaks is still there.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test program")]
#![allow(clippy::disallowed_methods, reason = "where the copy grows comes from the environment")]

mod list;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use list::{MUTANTS, Mutant};

/// What the copied core learns: which mutant lives, in this thread.
const SWITCH: &str = r#"//! Which mutant lives, in this thread.

use std::cell::Cell;

thread_local! {
    static ALIVE: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Wakes a mutant; the one before it sleeps again.
pub fn wake(name: Option<&'static str>) {
    ALIVE.set(name);
}

/// Whether it lives.
#[must_use]
pub fn is(name: &str) -> bool {
    ALIVE.get() == Some(name)
}
"#;

fn core() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_mutant_has_its_place() {
    let names: BTreeSet<&str> = MUTANTS.iter().map(|mutant| mutant.name).collect();
    assert_eq!(names.len(), MUTANTS.len(), "two mutants have one name");
    for Mutant { name, rule, file, find, broken } in MUTANTS {
        assert!(!rule.is_empty(), "'{name}' breaks no rule");
        let text = fs::read_to_string(core().join("src").join(file)).unwrap();
        let times = text.matches(find).count();
        assert_eq!(times, 1, "'{name}' breaks '{find}', which stands {times} times in {file}: change the mutant too");
        assert!(broken.contains("MUTANT"), "'{name}' breaks nothing");
    }
}

#[test]
fn a_copy_of_the_core_grows() {
    let Some(folder) = std::env::var_os("MUTANTS_DIR").map(PathBuf::from) else { return };
    let root = core().join("../..");
    // The whole workspace, though the core alone is compiled: the packages it is made of are then shared with ours.
    for part in ["operator", "worker-image", "e2e"] {
        copy(&root.join(part), &folder.join(part));
    }
    for file in ["Cargo.toml", "Cargo.lock"] {
        write(&folder.join(file), &fs::read_to_string(root.join(file)).unwrap());
    }
    let (source, sim) = (folder.join("operator/core/src"), folder.join("operator/core/tests/sim"));
    for Mutant { name, file, find, broken, .. } in MUTANTS {
        let text = fs::read_to_string(source.join(file)).unwrap();
        assert_eq!(text.matches(find).count(), 1, "'{name}' is in the way of another");
        write(
            &source.join(file),
            &text.replace(find, &broken.replace("MUTANT", &format!("crate::mutant::is({name:?})"))),
        );
    }
    write(&source.join("mutant.rs"), SWITCH);
    add(&source.join("lib.rs"), "pub mod mutant;");
    for file in ["list.rs", "hunt.rs"] {
        write(&sim.join(file), &fs::read_to_string(core().join("tests/mutants").join(file)).unwrap());
    }
    add(&sim.join("main.rs"), "mod hunt;\nmod list;");
}

fn add(path: &Path, lines: &str) {
    let text = fs::read_to_string(path).unwrap();
    write(path, &format!("{text}\n{lines}\n"));
}

/// Unchanged files keep their times, so that nothing is compiled twice.
fn write(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return;
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}
