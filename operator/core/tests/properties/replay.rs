//! Every input that is kept for a fuzz target is tried again: what crashed once does not come back unseen.

use std::{fs, path::Path};

use super::checks::CHECKS;

#[test]
fn every_kept_input_is_read_as_it_must() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    for (name, check) in CHECKS {
        check(b"");
        let seeds = replay(&fuzz.join("seeds").join(name), check);
        assert!(seeds > 0, "'{name}' has no seeds: it was renamed");
        replay(&fuzz.join("regressions").join(name), check);
    }
}

fn replay(folder: &Path, check: fn(&[u8])) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.iter().for_each(|path| check(&fs::read(path).unwrap()));
    paths.len()
}
