//! Whether compose is new enough.

use std::os::unix::process::parent_id;
use std::path::PathBuf;
use std::process::Command;

use super::messages;
use crate::failure::Failure;

/// The first version that gives variables to an app under their own names.
const SINCE: (u32, u32) = (5, 2);

/// Refuses a compose that called us and that can't hand on variables.
pub fn check() -> Result<(), Failure> {
    match messages::lacks_variables() {
        Some(false) => Ok(()),
        Some(true) => Err(too_old("this docker compose")),
        None => match callers() {
            Some(version) if number(&version).is_some_and(|number| number < SINCE) => {
                Err(too_old(&format!("docker compose {version}")))
            }
            _ => Ok(()),
        },
    }
}

fn too_old(which: &str) -> Failure {
    Failure::new(format!("{which} cannot give the app the target's variables under their names"))
        .hint(format!("docker compose {}.{}.0 or newer can", SINCE.0, SINCE.1))
}

/// The version of the compose that has called us.
fn callers() -> Option<String> {
    let parent = std::fs::read_link(format!("/proc/{}/exe", parent_id())).ok()?;
    let is_compose = parent.file_name()?.to_str()?.starts_with("docker-compose");
    let (program, words): (PathBuf, &[&str]) = match is_compose {
        true => (parent, &["version", "--short"]),
        false => ("docker".into(), &["compose", "version", "--short"]),
    };
    let output = Command::new(program).args(words).output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// The first two numbers of `v5.6.0`.
pub fn number(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let new = |version: &str| number(version).is_some_and(|number| number >= SINCE);
        assert!(new("5.2.0") && new("v5.10.1") && new("6.0.0-rc.1"));
        assert!(!new("5.1.4") && !new("2.40.3") && !new("unknown"));
    }
}
