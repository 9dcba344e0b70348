//! Which directories are used again.

use super::*;

#[test]
fn only_a_directory_that_is_as_it_was_is_used_again() {
    let spare = Spare::default();
    let scratch = Scratch::new(&spare).unwrap();
    scratch.describe(b"a long description").unwrap();
    let root = scratch.root.clone();
    drop(scratch);
    let scratch = Scratch::new(&spare).unwrap();
    assert_eq!(scratch.root, root);
    scratch.describe(b"a short one").unwrap();
    assert_eq!(fs::read(scratch.description()).unwrap(), b"a short one");
    fs::create_dir(scratch.temporary().join("cache")).unwrap();
    fs::set_permissions(scratch.temporary(), Permissions::from_mode(0o500)).unwrap();
    drop(scratch);
    assert!(!root.exists());
    let scratch = Scratch::new(&spare).unwrap();
    fs::write(scratch.checkpoint(), b"x").unwrap();
    let root = scratch.root.clone();
    drop(scratch);
    assert!(!root.exists());
    let root = Scratch::new(&spare).unwrap().root.clone();
    drop(spare);
    assert!(!root.exists());
    let root = Scratch::alone().unwrap().root.clone();
    assert!(!root.exists(), "one that somebody may still write to is nobody else's");
}

#[test]
fn what_was_long_as_it_was_is_told_by_its_times() {
    let spoils: [fn(&Scratch<'_>); 4] = [
        |scratch| fs::write(scratch.result(), b"x").unwrap(),
        |scratch| fs::create_dir(scratch.temporary().join("cache")).unwrap(),
        |scratch| fs::set_permissions(scratch.temporary(), Permissions::from_mode(0o500)).unwrap(),
        |scratch| fs::remove_file(scratch.description()).unwrap(),
    ];
    for spoil in spoils {
        let spare = Spare::default();
        let take = || {
            let mut scratch = Scratch::new(&spare).unwrap();
            scratch.describe(b"what it is").unwrap();
            scratch.since += TELLING;
            scratch
        };
        let root = take().root.clone();
        // The clock of the file system must have moved on.
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(take().root, root);
        let scratch = take();
        assert!(scratch.untouched.as_ref().is_some_and(|it| scratch.since.duration_since(it.since) >= TELLING));
        spoil(&scratch);
        drop(scratch);
        assert!(!root.exists());
    }
}

#[test]
fn a_description_that_was_replaced_is_written_where_it_is_now() {
    let spare = Spare::default();
    let scratch = Scratch::new(&spare).unwrap();
    scratch.describe(b"the first").unwrap();
    let other = scratch.temporary().join("other");
    fs::write(&other, b"a program's own, and longer").unwrap();
    fs::set_permissions(&other, Permissions::from_mode(0o600)).unwrap();
    fs::rename(&other, scratch.description()).unwrap();
    drop(scratch);
    let scratch = Scratch::new(&spare).unwrap();
    scratch.describe(b"the second").unwrap();
    assert_eq!(fs::read(scratch.description()).unwrap(), b"the second");
}
