//! `mirrord.lock`: what a run depended on (`--lock`), and whether it still is so (`--locked`).
//!
//! It stands in the folder in which mirrord is called, is meant for version control, and holds no
//! value of a variable.

mod differ;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use bollard::models::ImageInspect;
use serde::{Deserialize, Serialize};

use crate::args::Options;
use crate::engine::Engine;
use crate::failure::Failure;
use crate::session::Plan;

/// The file's name.
const FILE: &str = "mirrord.lock";
/// The version of its form.
const FORM: u32 = 1;

/// What is done with the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Locking {
    /// Nothing.
    #[default]
    None,
    /// It is written.
    Write,
    /// The world is held against it.
    Check,
}

impl Locking {
    /// What the options ask for.
    pub fn of(options: &Options) -> Self {
        match (options.lock, options.locked) {
            (true, _) => Self::Write,
            (false, true) => Self::Check,
            (false, false) => Self::None,
        }
    }
}

/// What is known of the target itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// The container that is meant, in a cluster's pod.
    pub container: Option<String>,
    /// Its image, by what it holds.
    pub image: Option<String>,
    /// The ports that it says it listens on.
    pub ports: BTreeSet<String>,
}

/// What a run depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// mirrord's version.
    pub mirrord: String,
    /// Whose place is taken; nobody's for the cluster's network alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Its namespace, if one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its container, in a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Its image, by what it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_image: Option<String>,
    /// The ports that it says it listens on.
    #[serde(default)]
    pub ports: BTreeSet<String>,
    /// The names of its variables that the app gets.
    #[serde(default)]
    pub variables: BTreeSet<String>,
    /// The app's image, as it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The app's image, by what it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Locked {
    form: u32,
    runs: BTreeMap<String, Entry>,
}

impl Entry {
    /// Of a session and the variables that it brings.
    pub fn of<'a>(
        plan: &Plan,
        pinned: Pinned,
        variables: impl Iterator<Item = &'a String>,
    ) -> Self {
        Self {
            mirrord: env!("CARGO_PKG_VERSION").to_owned(),
            target: plan.target.as_ref().map(ToString::to_string),
            namespace: plan.cluster.namespace.clone().filter(|_| plan.is_remote()),
            container: pinned.container,
            target_image: pinned.image,
            ports: pinned.ports,
            variables: variables.cloned().collect(),
            image: None,
            image_digest: None,
        }
    }

    /// The same, with the app's image.
    ///
    /// # Errors
    /// It is not in the engine.
    pub async fn with_image(self, engine: &Engine, image: &str) -> Result<Self, Failure> {
        let found = engine.api().inspect_image(image).await.map_err(|error| {
            let error = engine.explain(&format!("cannot lock the image {image}"), error);
            Failure::from(error).hint(format!("it has to be here before: docker pull {image}"))
        })?;
        Ok(Self { image: Some(image.to_owned()), image_digest: digest(found), ..self })
    }
}

/// What other machines know an image by as well, if there is such a thing.
fn digest(image: ImageInspect) -> Option<String> {
    let of_registry = image.repo_digests.unwrap_or_default().into_iter();
    let mut digests = of_registry.filter_map(|name| Some(name.rsplit_once('@')?.1.to_owned()));
    digests.next().or(image.id)
}

/// Writes an entry of the file in this folder, or holds it against what is there.
///
/// # Errors
/// The file can't be read or written, or the world is another one.
pub fn settle(locking: Locking, run: &str, entry: &Entry) -> Result<(), Failure> {
    match locking {
        Locking::None => Ok(()),
        Locking::Write => write(run, entry)
            .map_err(|error| Failure::caused_by(format!("cannot write {FILE}"), &error)),
        Locking::Check => check(Path::new(FILE), run, entry),
    }
}

fn check(path: &Path, run: &str, entry: &Entry) -> Result<(), Failure> {
    let hint = "the same with --lock in the place of --locked writes it";
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            return Err(Failure::caused_by(format!("cannot read {FILE}"), &error).hint(hint));
        }
    };
    let locked = parse(&text).map_err(|error| {
        Failure::new(format!("{FILE} is not what mirrord writes"))
            .because(error.to_string())
            .hint(hint)
    })?;
    let Some(known) = locked.runs.get(run) else {
        let known: Vec<&str> = locked.runs.keys().map(String::as_str).collect();
        let failure = Failure::new(format!("{FILE} does not know {run}"));
        return Err(match known.is_empty() {
            true => failure.hint(hint),
            false => failure.because(format!("it knows {}", known.join(", "))).hint(hint),
        });
    };
    let differences = differ::between(known, entry);
    if differences.is_empty() {
        return Ok(());
    }
    let failure = Failure::new(format!("{run} is not as {FILE} has it"));
    Err(differences
        .into_iter()
        .fold(failure, Failure::because)
        .hint("bring it back, or take it as it is: --lock in the place of --locked"))
}

fn parse(text: &str) -> serde_json::Result<Locked> {
    let locked: Locked = serde_json::from_str(text)?;
    match locked.form {
        FORM => Ok(locked),
        form => Err(serde::de::Error::custom(format!("its form is {form}, and must be {FORM}"))),
    }
}

/// Others may write their own entries at the same time: who has the file locked has it alone.
fn write(run: &str, entry: &Entry) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(false).open(FILE)?;
    file.lock()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let mut locked = match text.is_empty() {
        true => Locked { form: FORM, ..Locked::default() },
        false => parse(&text)?,
    };
    locked.runs.insert(run.to_owned(), entry.clone());
    replace(&mut file, &(serde_json::to_string_pretty(&locked)? + "\n"))
}

fn replace(file: &mut File, text: &str) -> io::Result<()> {
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_lock_is_named_with_its_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FILE);
        let failure = |text: &str| {
            std::fs::write(&path, text).expect("written");
            check(&path, "x", &Entry::default()).expect_err("no lock").causes.join(": ")
        };
        assert!(failure("{\"form\": 1,\n \"rums\": {}}").contains("line 2"));
        assert!(failure("{\"form\": 7, \"runs\": {}}").contains("its form is 7, and must be 1"));
        assert!(
            failure("{\"form\": 1, \"runs\": {\"y\": {\"mirrord\": \"0\"}}}")
                .contains("it knows y")
        );
    }
}
