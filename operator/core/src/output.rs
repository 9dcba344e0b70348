//! Names of results, from the template that the user wrote.

use hyperflow_api::{
    ids::ShardIndex,
    task::{self, Existing},
    workers::VolumeMount,
};

use crate::{
    job::{Refusal, refuse},
    layout::FOLDER,
    paths::{check_writable, is_plain},
};

/// Where results go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// `file:///…/`, as the user wrote it.
    pub url: String,
    /// The name template, as the user wrote it.
    pub path: String,
    /// Results of a deleted job with equal plan and task count as published (P31).
    pub reuse: bool,
    parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placeholder {
    Index,
    Id,
    Run,
    Copy,
    Dir,
    Name,
    Stem,
    Ext,
}

const PLACEHOLDERS: [(&str, Placeholder); 8] = [
    ("{index}", Placeholder::Index),
    ("{id}", Placeholder::Id),
    ("{run}", Placeholder::Run),
    ("{copy}", Placeholder::Copy),
    ("{dir}", Placeholder::Dir),
    ("{name}", Placeholder::Name),
    ("{stem}", Placeholder::Stem),
    ("{ext}", Placeholder::Ext),
];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Is(Placeholder),
}

/// What tells one result from another.
#[derive(Clone, Copy, Debug, Default)]
pub struct Named<'a> {
    /// The shard.
    pub index: ShardIndex,
    /// Its stable name.
    pub id: &'a str,
    /// Its file, relative to the source, where a shard is one whole file.
    pub file: &'a str,
    /// Which copy, from 1.
    pub copy: u32,
    /// Which run, from 1.
    pub run: u32,
}

impl Output {
    pub(crate) fn check(output: &task::Output, mounts: &[VolumeMount]) -> Result<Self, Refusal> {
        const PATH: &str = "spec.output.path";
        check_writable("spec.output.url", &output.url, mounts)?;
        let parts = parse(&output.path)?;
        if output.path.starts_with('/') || output.path.split('/').any(|part| part == "..") {
            return refuse(PATH, "must be relative and must not contain a '..' segment");
        }
        let tells = [Placeholder::Index, Placeholder::Id, Placeholder::Name, Placeholder::Stem];
        if !parts.iter().any(|part| matches!(part, Part::Is(is) if tells.contains(is))) {
            return refuse(
                PATH,
                "must contain {index}, {id}, {name} or {stem}, or every shard would have the same name",
            );
        }
        // `{dir}` ends with a slash, or is nothing.
        let within = output.path.strip_prefix("{dir}").unwrap_or(&output.path);
        if !is_plain(within) || within.split('/').next() == Some(FOLDER) || within.contains("{dir}") {
            let message = "must be a plain relative path: no empty part, no '.', no NUL, {dir} only at its beginning, \
                           and not under '_hyperflow/'";
            return refuse(PATH, message);
        }
        let reuse = match output.existing {
            Existing::Fail => false,
            Existing::Reuse => true,
            Existing::Unknown => {
                return refuse(
                    "spec.output.existing",
                    "is not known to this version of the operator; use 'Fail' or 'Reuse'",
                );
            }
        };
        Ok(Self { url: output.url.clone(), path: output.path.clone(), reuse, parts })
    }

    /// Refuses a name that is not a plain one beneath the output's directory.
    pub(crate) fn check_plain(field: &'static str, path: &str) -> Result<(), Refusal> {
        if is_plain(path) && path.split('/').next() != Some(FOLDER) {
            return Ok(());
        }
        let message =
            "must be a plain relative path: no '..', no empty part, no '.', no NUL, and not under '_hyperflow/'";
        refuse(field, message)
    }

    /// Whether results are named after the one file of their shard.
    #[must_use]
    pub fn names_files(&self) -> bool {
        use Placeholder::{Dir, Ext, Name, Stem};
        [Dir, Name, Stem, Ext].into_iter().any(|placeholder| self.has(placeholder))
    }

    /// Whether each copy has a name of its own.
    #[must_use]
    pub fn names_copies(&self) -> bool {
        self.has(Placeholder::Copy)
    }

    /// Whether each run has a name of its own.
    #[must_use]
    pub fn names_runs(&self) -> bool {
        self.has(Placeholder::Run)
    }

    /// Whether no two shards can have one name: there is a number, or an identity, in it.
    #[must_use]
    pub fn tells_shards_apart(&self) -> bool {
        self.has(Placeholder::Index)
    }

    fn has(&self, placeholder: Placeholder) -> bool {
        self.parts.contains(&Part::Is(placeholder))
    }

    /// Name of a result, relative to the output's directory.
    #[must_use]
    pub fn name(&self, named: Named<'_>) -> String {
        let (dir, name) = named.file.rsplit_once('/').map_or(("", named.file), |(dir, name)| (dir, name));
        let (stem, ext) = split_name(name);
        let mut text = String::with_capacity(self.path.len() + named.file.len());
        for part in &self.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Is(Placeholder::Index) => text.push_str(&format!("{:06}", named.index)),
                Part::Is(Placeholder::Id) => text.push_str(named.id),
                Part::Is(Placeholder::Run) => text.push_str(&named.run.to_string()),
                Part::Is(Placeholder::Copy) => text.push_str(&named.copy.to_string()),
                Part::Is(Placeholder::Dir) if dir.is_empty() => {}
                Part::Is(Placeholder::Dir) => {
                    text.push_str(dir);
                    text.push('/');
                }
                Part::Is(Placeholder::Name) => text.push_str(name),
                Part::Is(Placeholder::Stem) => text.push_str(stem),
                Part::Is(Placeholder::Ext) => text.push_str(ext),
            }
        }
        text
    }
}

/// `a.tar.gz` is `a.tar` and `.gz`; `.profile` has no extension.
fn split_name(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 => name.split_at(dot),
        _ => (name, ""),
    }
}

fn parse(path: &str) -> Result<Vec<Part>, Refusal> {
    const UNKNOWN: &str =
        "has an unknown placeholder; use {index}, {id}, {run}, {copy}, {dir}, {name}, {stem} or {ext}";
    let mut parts = Vec::new();
    let mut rest = path;
    while let Some(brace) = rest.find(['{', '}']) {
        if brace > 0 {
            parts.push(Part::Text(rest[..brace].into()));
        }
        rest = &rest[brace..];
        let known = PLACEHOLDERS.iter().find_map(|(text, is)| rest.strip_prefix(text).map(|rest| (*is, rest)));
        let Some((is, after)) = known else { return refuse("spec.output.path", UNKNOWN) };
        parts.push(Part::Is(is));
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.into()));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(path: &str) -> Output {
        let url = "file:///data/out/".into();
        let mount = VolumeMount { name: "data".into(), mount_path: "/data".into(), ..VolumeMount::default() };
        Output::check(&task::Output { url, path: path.into(), existing: Existing::Fail }, &[mount]).unwrap()
    }

    #[test]
    fn a_name_is_made_of_what_the_template_says() {
        let named = |file| Named { index: 17, id: "0a1b", file, copy: 2, run: 3 };
        for (path, file, name) in [
            ("part-{index}", "", "part-000017"),
            ("{id}-{run}", "", "0a1b-3"),
            ("copy-{copy}/part-{index}", "", "copy-2/part-000017"),
            ("{dir}{name}", "a/b/c.tar.gz", "a/b/c.tar.gz"),
            ("{dir}{stem}.json", "a/b/c.tar.gz", "a/b/c.tar.json"),
            ("{dir}{stem}{ext}", "c", "c"),
            ("{stem}|{ext}", ".profile", ".profile|"),
            ("x {index} \"'\n", "", "x 000017 \"'\n"),
        ] {
            assert_eq!(output(path).name(named(file)), name);
        }
        assert!(output("{dir}{name}").names_files() && !output("part-{index}").names_files());
    }
}
