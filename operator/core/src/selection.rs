//! Which of the files beneath a directory are input: globs on the path below it.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::job::{Refusal, refuse};

/// `include` without `exclude`.
#[derive(Clone, Debug)]
pub struct Selection {
    patterns: (Vec<String>, Vec<String>),
    include: GlobSet,
    exclude: GlobSet,
}

impl PartialEq for Selection {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

impl Selection {
    /// Reads the globs. Without `include` everything is.
    ///
    /// # Errors
    /// With the first glob that is none.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, Refusal> {
        Ok(Self {
            patterns: (include.to_vec(), exclude.to_vec()),
            include: set("spec.source.files.include", include)?,
            exclude: set("spec.source.files.exclude", exclude)?,
        })
    }

    /// Whether the file at this path, relative to the directory, is input.
    #[must_use]
    pub fn selects(&self, path: &str) -> bool {
        (self.include.is_empty() || self.include.is_match(path)) && !self.exclude.is_match(path)
    }

    /// The globs of `include`, as the user wrote them.
    #[must_use]
    pub fn include(&self) -> &[String] {
        &self.patterns.0
    }

    /// The globs of `exclude`, as the user wrote them.
    #[must_use]
    pub fn exclude(&self) -> &[String] {
        &self.patterns.1
    }
}

fn set(field: &'static str, patterns: &[String]) -> Result<GlobSet, Refusal> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        // '*' stays within a directory, as in a shell; only '**' crosses them.
        match GlobBuilder::new(pattern).literal_separator(true).build() {
            Ok(glob) => set.add(glob),
            Err(error) => return refuse(field, format!("'{pattern}' is no glob: {}", error.kind())),
        };
    }
    set.build().or_else(|error| refuse(field, format!("cannot be used together: {}", error.kind())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(include: &[&str], exclude: &[&str], path: &str) -> bool {
        let owned = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect::<Vec<_>>();
        Selection::new(&owned(include), &owned(exclude)).unwrap().selects(path)
    }

    #[test]
    fn two_stars_cross_directories_and_one_does_not() {
        for path in ["a.pdf", "x/a.pdf", "x/y/a.pdf"] {
            assert!(selects(&["**/*.pdf"], &[], path) && selects(&[], &[], path), "{path}");
        }
        assert!(selects(&["*.pdf"], &[], "a.pdf") && !selects(&["*.pdf"], &[], "x/a.pdf"));
        assert!(!selects(&["**/*.pdf"], &["x/**"], "x/a.pdf") && selects(&["**/*.pdf"], &["x/**"], "y/a.pdf"));
        assert!(!selects(&["**/*.pdf"], &[], "a.PDF"), "as in a shell, letters are what they are");
    }

    #[test]
    fn what_is_no_glob_is_refused_with_its_text() {
        let refusal = Selection::new(&["a[".into()], &[]).unwrap_err();
        assert_eq!(refusal.field, "spec.source.files.include");
        assert!(refusal.message.contains("'a['"), "{}", refusal.message);
    }
}
