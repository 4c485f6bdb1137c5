//! What became of a line.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::words::Row;
use crate::lab::Lab;
use crate::mirrord::{binary, code_of};
use crate::wait;

/// How long a line may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What became of a line.
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    /// Its container as `docker inspect` shows it, if there is one.
    pub container: Option<Value>,
    /// The owner of its network, as long as it ran.
    pub owner: Option<Value>,
}

/// Runs the line, with us in front if there is a target, and removes its container.
pub fn of(
    lab: &Lab,
    name: &str,
    target: Option<&str>,
    words: &[String],
    row: &Row,
) -> Result<Outcome> {
    let mut command = match target {
        None => Command::new("docker"),
        Some(target) => {
            let mut command = Command::new(binary());
            command.args(["-t", target, "docker"]);
            command
        }
    };
    lab.docker.aim(&mut command);
    let (mut input, mut stdout, mut stderr) =
        (tempfile::tempfile()?, tempfile::tempfile()?, tempfile::tempfile()?);
    input.write_all(row.input.as_bytes())?;
    input.rewind()?;
    let mut child = command
        .args(words)
        .env("FROM_OUTSIDE", "outside")
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(stdout.try_clone()?))
        .stderr(Stdio::from(stderr.try_clone()?))
        .spawn()
        .context("start it")?;
    let seen = match row.live {
        true => Some(look(lab, name, &mut child)),
        false => None,
    };
    let status = wait::within(PATIENCE, "its end", || Ok(child.try_wait()?));
    if status.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let code = code_of(status.with_context(|| said(&mut stderr).unwrap_or_default())?);
    let left = left(lab, name)?;
    if left.is_some() {
        let _ = lab.docker.run(&["rm", "-fv", name]);
    }
    let (container, owner) = match seen {
        Some(Ok((container, owner))) => (Some(container), owner),
        _ => (left, None),
    };
    // The next run writes it again.
    for file in words.iter().filter(|word| word.contains("/cid-")) {
        let _ = std::fs::remove_file(file);
    }
    Ok(Outcome { code, stdout: said(&mut stdout)?, stderr: said(&mut stderr)?, container, owner })
}

fn said(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Looks at an app that runs and at the owner of its network, and kills it.
fn look(lab: &Lab, name: &str, child: &mut Child) -> Result<(Value, Option<Value>)> {
    let container = wait::within(PATIENCE, "it to run", || {
        let ended = child.try_wait()?.is_some();
        let found = inspect(lab, name);
        let running = found.as_ref().is_ok_and(|found| found["State"]["Running"] == true);
        Ok((ended || running).then_some(found))
    });
    let container = container.and_then(|found| found);
    let owner = container.as_ref().ok().and_then(|container| {
        let mode = container["HostConfig"]["NetworkMode"].as_str()?.strip_prefix("container:")?;
        inspect(lab, mode).ok()
    });
    let _ = lab.docker.run(&["kill", name]);
    Ok((container?, owner))
}

/// The container once it has ended, if it is still there then: with `-d` it outlives its client.
fn left(lab: &Lab, name: &str) -> Result<Option<Value>> {
    wait::within(PATIENCE, "the container's end", || match inspect(lab, name) {
        Ok(container) if container["State"]["Running"] == true => Ok(None),
        Ok(container) if container["State"]["Status"] == "removing" => Ok(None),
        found => Ok(Some(found.ok())),
    })
}

fn inspect(lab: &Lab, name: &str) -> Result<Value> {
    let text = lab.docker.run(&["container", "inspect", name])?;
    let list: Value = serde_json::from_str(&text)?;
    Ok(list[0].clone())
}
