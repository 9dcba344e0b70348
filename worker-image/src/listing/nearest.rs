//! The path that comes nearest to a glob which nothing matches: most often a letter is in the wrong case, or a folder
//! is missing. It is for a message and decides nothing.

/// Most steps of comparing, all paths together: about a second.
const STEPS: usize = 300_000_000;
/// What a character costs that is missing, too many or another.
const WRONG: usize = 10;
/// What a character in the wrong case costs.
const CASE: usize = 1;

/// Remembers the best path so far.
#[derive(Debug)]
pub struct Nearest {
    globs: Vec<Vec<Part>>,
    best: Option<(usize, usize, String)>,
    steps: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Exactly(char),
    /// Any character but '/'.
    One,
    /// Any characters but '/'.
    Many,
    /// Any characters.
    All,
}

impl Nearest {
    /// Nothing is near to no glob.
    pub fn new(globs: &[String]) -> Self {
        Self { globs: globs.iter().map(|glob| parts(glob)).collect(), best: None, steps: 0 }
    }

    /// Compares one more path; after very many, no longer.
    pub fn consider(&mut self, path: &str) {
        let letters: Vec<char> = path.chars().collect();
        for glob in &self.globs {
            self.steps = self.steps.saturating_add(glob.len() * letters.len());
            if self.steps > STEPS {
                return;
            }
            let asked = glob.iter().filter(|part| matches!(part, Part::Exactly(_))).count();
            let cost = distance(glob, &letters);
            // One third of what is asked for may be wrong, and a single character always.
            if cost > WRONG.max(asked * WRONG / 3) {
                continue;
            }
            let found = (cost, letters.len(), path);
            if self.best.as_ref().is_none_or(|(cost, length, path)| found < (*cost, *length, path)) {
                self.best = Some((cost, letters.len(), path.into()));
            }
        }
    }

    /// The best of all.
    pub fn path(self) -> Option<String> {
        self.best.map(|(.., path)| path)
    }
}

fn parts(glob: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut letters = glob.chars().peekable();
    while let Some(letter) = letters.next() {
        let part = match letter {
            '*' if letters.next_if_eq(&'*').is_some() => {
                // Also no folder at all.
                letters.next_if_eq(&'/');
                Part::All
            }
            '*' => Part::Many,
            '?' => Part::One,
            '[' => {
                letters.by_ref().find(|letter| *letter == ']');
                Part::One
            }
            '{' => {
                letters.by_ref().find(|letter| *letter == '}');
                Part::Many
            }
            '\\' => letters.next().map_or(Part::One, Part::Exactly),
            letter => Part::Exactly(letter),
        };
        parts.push(part);
    }
    parts
}

/// What it costs to turn the path into one that matches.
fn distance(glob: &[Part], path: &[char]) -> usize {
    // The costs of each beginning of the path, for one beginning of the glob after the other.
    let mut row: Vec<usize> = (0..=path.len()).map(|length| length * WRONG).collect();
    for part in glob {
        let mut before = row[0];
        row[0] += match part {
            Part::Many | Part::All => 0,
            Part::One | Part::Exactly(_) => WRONG,
        };
        for (at, &letter) in path.iter().enumerate() {
            let (missing, surplus, both) = (row[at + 1], row[at], before);
            before = missing;
            let slash = if letter == '/' { WRONG } else { 0 };
            row[at + 1] = match *part {
                Part::All => missing.min(surplus),
                Part::Many => missing.min(surplus + slash),
                Part::One => (missing + WRONG).min(surplus + WRONG).min(both + slash),
                Part::Exactly(asked) => {
                    let other = match asked {
                        asked if asked == letter => 0,
                        asked if asked.to_lowercase().eq(letter.to_lowercase()) => CASE,
                        _ => WRONG,
                    };
                    (missing + WRONG).min(surplus + WRONG).min(both + other)
                }
            };
        }
    }
    row[path.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nearest(globs: &[&str], paths: &[&str]) -> Option<String> {
        let globs: Vec<String> = globs.iter().map(ToString::to_string).collect();
        let mut nearest = Nearest::new(&globs);
        paths.iter().for_each(|path| nearest.consider(path));
        nearest.path()
    }

    #[test]
    fn what_matches_costs_nothing() {
        for (glob, path) in [
            ("**/*.pdf", "report.pdf"),
            ("**/*.pdf", "a/b/report.pdf"),
            ("a/*/c?.txt", "a/b/c1.txt"),
            ("[ab]/{x,y}.txt", "b/x.txt"),
            (r"\*.txt", "*.txt"),
        ] {
            let letters: Vec<char> = path.chars().collect();
            assert_eq!(distance(&parts(glob), &letters), 0, "{glob} {path}");
        }
    }

    #[test]
    fn the_wrong_case_is_nearer_than_a_missing_folder_and_that_than_another_name() {
        let case = ["a/x.txt", "a/report.PDF", "a/report.pdf.gz"];
        assert_eq!(nearest(&["**/*.pdf"], &case).as_deref(), Some("a/report.PDF"));
        assert_eq!(nearest(&["*.pdf"], &["a/x.pdf", "b.txt"]).as_deref(), Some("a/x.pdf"));
        assert_eq!(nearest(&["2026/*.csv"], &["2025/x.csv", "y"]).as_deref(), Some("2025/x.csv"));
        assert_eq!(nearest(&["*.pdf", "*.csv"], &["x.CSV", "y.pdg"]).as_deref(), Some("x.CSV"));
    }

    #[test]
    fn of_equals_the_shortest_in_any_order() {
        for paths in [["bb.PDF", "a.PDF", "b.PDF"], ["b.PDF", "a.PDF", "bb.PDF"]] {
            assert_eq!(nearest(&["*.pdf"], &paths).as_deref(), Some("a.PDF"));
        }
    }

    #[test]
    fn what_is_far_away_is_no_help() {
        assert_eq!(nearest(&["**/*.pdf"], &["a/b.json"]), None);
        assert_eq!(nearest(&[], &["a/b.json"]), None);
    }
}
