//! What users type: kubectl, helm and a shell, found in `PATH`.

use std::process::Stdio;

use tokio::{io::AsyncWriteExt, process::Command};

use crate::Result;

/// Runs a program to its end; what it printed.
///
/// # Errors
/// When it is not there, or with what it said when it ended with another code than 0.
pub async fn run(program: &str, args: &[&str]) -> Result<String> {
    run_with(program, args, "").await
}

/// Runs a program that reads `input`; what it printed.
///
/// # Errors
/// As [`run`].
pub async fn run_with(program: &str, args: &[&str], input: &str) -> Result<String> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let mut stdin = child.stdin.take().ok_or_else(|| format!("{program} takes no input"))?;
    // Who does not read its input may have ended already: its exit code says more.
    let _unread = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr).into()) }
}

/// A user who is refused: what the program said.
///
/// # Errors
/// When it was let through, with `what` was done.
pub fn refused(what: &str, outcome: Result<String>) -> Result<String> {
    match outcome {
        Ok(_) => Err(format!("{what}: was let through").into()),
        Err(error) => Ok(error.to_string()),
    }
}
