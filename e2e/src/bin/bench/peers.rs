//! Peers that are programs: installed once, beside the build, and run as their users run them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use hyperflow_e2e::{Result, ensure};

use crate::row::Peer;

/// Where the scripts of the peers are.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

/// Installs a peer, unless it is there; the program to run.
///
/// # Errors
/// When it cannot be installed, with the last line that says why.
pub fn install(peer: &str) -> Result<PathBuf> {
    let output = Command::new(format!("{SCRIPTS}/install")).arg(peer).stdin(Stdio::null()).output()?;
    let installed = said(&output, &format!("installing {peer}"))?;
    let program = installed.lines().last().ok_or_else(|| format!("installing {peer} named no program"))?;
    Ok(PathBuf::from(program))
}

/// Runs a script of ours with an interpreter and reads the number that it prints last.
///
/// # Errors
/// When it fails or prints none.
pub fn script(interpreter: &Path, name: &str, arguments: &[&str]) -> Result<f64> {
    let mut command = Command::new(interpreter);
    command.arg(format!("{SCRIPTS}/{name}")).args(arguments).stdin(Stdio::null());
    let printed = said(&command.output()?, name)?;
    let number = printed.lines().last().and_then(|line| line.trim().parse().ok());
    number.ok_or_else(|| format!("{name} printed no number last: {printed}").into())
}

/// Runs a program to its end; how long that took.
///
/// # Errors
/// When it fails.
pub fn time(command: &mut Command) -> Result<Duration> {
    let what = format!("{command:?}");
    let start = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let took = start.elapsed();
    said(&output, &what)?;
    Ok(took)
}

/// First line of what a program says of its version.
pub fn version(program: &Path) -> String {
    let output = Command::new(program).arg("version").stdin(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("of unknown version").to_owned()
}

/// A peer's figure, or why there is none: what a peer does wrong is no failure of ours.
pub fn measured(name: impl Into<String>, value: Result<f64>) -> Peer {
    let name = name.into();
    match value {
        Ok(value) => Peer::Measured { name, values: vec![value] },
        Err(error) => Peer::None(format!("no figure of {name}: {error}")),
    }
}

fn said(output: &Output, what: &str) -> Result<String> {
    let errors = String::from_utf8_lossy(&output.stderr);
    let last = || errors.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned();
    ensure(output.status.success(), || format!("{what} failed ({}): {}", output.status, last()))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
