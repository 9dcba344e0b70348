//! What a run of the benchmark says: a table for people, and a line of JSON for each row.

use std::{fs, io::Write};

use hyperflow_e2e::Result;
use serde_json::{Value, json};

use crate::row::{Reach, Runs, Verdict};

const FILE: &str = "bench.jsonl";

/// Prints the table and writes the lines, in the order of the rows.
pub fn report(all: &[Runs]) -> Result {
    let mut lines = fs::File::create(FILE).map_err(|error| format!("{FILE}: {error}"))?;
    println!("\n{:<26}{:>12} {:<9}{:>12}{:>10}{:>9}  peer", "row", "ours", "", "peer", "ratio", "reach");
    for runs in all {
        let Some(verdict) = runs.verdict() else { continue };
        print(runs, verdict);
        writeln!(lines, "{}", line(runs, verdict))?;
    }
    Ok(())
}

fn print(runs: &Runs, verdict: Verdict) {
    let row = runs.row;
    let missed = if verdict.missed() { "  MISSED" } else { "" };
    println!(
        "{:<26}{:>12} {:<9}{:>12}{:>10}{:>9}  {}{missed}",
        row.name,
        digits(verdict.ours),
        row.unit,
        verdict.peer.map_or_else(|| "-".into(), digits),
        verdict.ratio.map_or_else(|| "-".into(), digits),
        digits(verdict.reach),
        runs.peer_name
    );
    if let Reach::Within(limit) = row.reach {
        println!("{:<26}{:>12} {}", "", format!("≤ {}", digits(limit)), row.unit);
    }
    println!("{:<26}ours {}; peer {}", "", spread(&runs.ours), spread(&runs.peer));
}

fn line(runs: &Runs, verdict: Verdict) -> Value {
    json!({
        "name": runs.row.name, "unit": runs.row.unit, "ours": verdict.ours, "peer": verdict.peer,
        "peer_name": runs.peer_name, "ratio": verdict.ratio, "reach": verdict.reach, "runs": runs.ours.len()
    })
}

fn spread(values: &[f64]) -> String {
    let ends = (values.iter().copied().min_by(f64::total_cmp), values.iter().copied().max_by(f64::total_cmp));
    match ends {
        (Some(least), Some(most)) => format!("{} to {} in {}", digits(least), digits(most), values.len()),
        _ => "-".into(),
    }
}

/// Three digits that tell something.
pub fn digits(value: f64) -> String {
    let places = match value.abs() {
        big if big >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        one if one >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.places$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{Of, Row};

    static ROW: Row = Row { name: "row", unit: "GB/s", reach: Reach::Times(4.0), of: Of::Median };

    #[test]
    fn a_line_has_the_documented_fields_and_null_for_a_peer_that_is_missing() {
        let mut runs = Runs::new(&ROW);
        runs.ours.push(2.0);
        runs.peer_name = "no peer: no network".into();
        let found = line(&runs, runs.verdict().unwrap());
        let wanted = json!({
            "name": "row", "unit": "GB/s", "ours": 2.0, "peer": null, "peer_name": "no peer: no network",
            "ratio": null, "reach": 4.0, "runs": 1
        });
        assert_eq!(found, wanted);
    }

    #[test]
    fn small_and_large_figures_are_both_told() {
        assert_eq!([0.052_34, 2.346, 23.46, 12_345.6].map(digits), ["0.052", "2.35", "23.5", "12346"]);
    }
}
