//! Images of programs that a promise runs in the place of a user's: `e2e/images/build` makes them.

/// The whole name of `busybox`, `python` or `static`. Images that were pushed are where `HYPERFLOW_TEST_IMAGES` says.
#[must_use]
pub fn test_image(name: &str) -> String {
    let pushed = std::env::var("HYPERFLOW_TEST_IMAGES").ok().filter(|prefix| !prefix.is_empty());
    format!("{}/test-{name}:1", pushed.as_deref().unwrap_or("hyperflow.dev"))
}
