//! Which services of a project are to stand in the places of targets: those that say so themselves,
//! and the one that the command line names.

use std::collections::BTreeMap;
use std::fs;

use mirrord_compose::Wanted;
use serde_json::{Map, Value};

use super::project::Project;
use super::service::{self, Service};
use super::told::Told;
use crate::config;
use crate::failure::Failure;

/// The key by which a service says so.
const KEY: &str = "x-mirrord";

/// What the command line says.
pub struct Typed<'a> {
    /// The words before `docker`.
    pub words: &'a [String],
    /// `-t`.
    pub target: Option<&'a str>,
    /// `--service`.
    pub service: Option<&'a str>,
}

/// The services, in the project's order.
///
/// # Errors
/// What is said of one is wrong.
pub fn all(project: &Project, typed: &Typed<'_>) -> Result<Vec<Wanted>, Failure> {
    let services = project.model["services"].as_object().cloned().unwrap_or_default();
    if typed.target.is_some() && typed.service.is_none() {
        return Err(Failure::new("-t says whose place is taken, but not by which service")
            .hint("add --service NAME"));
    }
    let mut all = Vec::new();
    for (name, definition) in &services {
        let said = &definition[KEY];
        let targeted = typed.service == Some(name);
        if !said.is_null() || targeted {
            all.push(one(project, typed, name, definition, targeted)?);
        }
    }
    match typed.service {
        // The overlay says which services there are.
        Some(name) if !services.contains_key(name) => {
            let (service, told) = (name.to_owned(), Told::default().variable()?);
            Ok(vec![Wanted { service, options: Vec::new(), told }])
        }
        _ => Ok(all),
    }
}

fn one(
    project: &Project,
    typed: &Typed<'_>,
    name: &str,
    definition: &Value,
    targeted: bool,
) -> Result<Wanted, Failure> {
    let (mut options, mut config) = (Vec::new(), None);
    match &definition[KEY] {
        Value::Null => {}
        Value::Object(said) => {
            check(project, name)?;
            let (ours, keys): (Map<_, _>, Map<_, _>) =
                said.clone().into_iter().partition(|(key, _)| service::is_option(key));
            options = ours.iter().flat_map(|(key, value)| words(key, value)).collect();
            config = Some(Value::Object(keys));
        }
        _ => {
            return Err(Failure::new(format!("{KEY} of service {name} must be an object"))
                .hint("for example x-mirrord: {target: deployment/orders, steal: true}"));
        }
    }
    Service::of(&options).map_err(|failure| failure.because(format!("{KEY} of service {name}")))?;
    let told = Told {
        words: typed.words.to_vec(),
        targeted,
        config,
        variables: keys(&definition["environment"]),
        image: definition["image"].as_str().map(str::to_owned),
        networks: networks(project),
    };
    Ok(Wanted { service: name.to_owned(), options, told: told.variable()? })
}

/// Holds what a service says against the table of keys, where its user wrote it.
fn check(project: &Project, name: &str) -> Result<(), Failure> {
    let way = ["services", name, KEY];
    let mut seen = false;
    for file in &project.files {
        let Ok(text) = fs::read_to_string(file) else { continue };
        if let Some(checked) = config::check_part(file, &text, &way, &service::is_option) {
            checked?;
            seen = true;
        }
    }
    match seen {
        true => Ok(()),
        // It comes from elsewhere, or from a file that is read by compose alone.
        false => {
            let place = "docker compose config";
            let checked = config::check_part(place, &project.text, &way, &service::is_option);
            Ok(checked.unwrap_or(Ok(()))?)
        }
    }
}

/// An option as a provider has it: a list gives it several times.
fn words(key: &str, value: &Value) -> Vec<(String, String)> {
    let word = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match value {
        Value::Array(items) => items.iter().map(|item| (key.to_owned(), word(item))).collect(),
        one => vec![(key.to_owned(), word(one))],
    }
}

fn keys(map: &Value) -> Vec<String> {
    map.as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default()
}

fn networks(project: &Project) -> BTreeMap<String, String> {
    let networks = project.model["networks"].as_object();
    let named =
        |(key, network): (&String, &Value)| Some((key.clone(), network["name"].as_str()?.into()));
    networks.into_iter().flatten().filter_map(named).collect()
}
