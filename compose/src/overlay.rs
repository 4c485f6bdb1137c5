//! What is said on top of a project for services of it to stand in the places of targets.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value, json};

use crate::part::{KEYS, is_of_the_network};

/// A service that is to stand in a target's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub service: String,
    /// What the provider is asked for, in the open.
    pub options: Vec<(String, String)>,
    /// What it is told apart from that, as the value of one variable.
    pub told: (String, String),
}

/// Why a service can't stand in a target's place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not in the project.
    #[error("the project has no service {name:?}")]
    Unknown {
        /// Its name.
        name: String,
        /// Those that are.
        known: Vec<String>,
    },
    /// Several containers of it.
    #[error(
        "service {name} is to run {count} times, and only one container can take a target's place"
    )]
    Several {
        /// Its name.
        name: String,
        /// How many.
        count: u64,
    },
    /// It has no network of its own.
    #[error("service {name} has network_mode: {mode}")]
    Mode {
        /// Its name.
        name: String,
        /// The mode.
        mode: String,
    },
    /// Links are written into a container's own files.
    #[error("service {0} has links, which a container in another one's network cannot have")]
    Links(String),
    /// Somebody else runs it.
    #[error("service {0} has a provider, and no container")]
    Provider(String),
    /// What compose tells is no project.
    #[error("compose tells of no services")]
    NoProject,
}

/// One more file for compose.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overlay {
    services: Vec<(String, Vec<(String, Change)>)>,
    networks: Vec<String>,
    /// The services, each with what stands for it.
    pub stands: Vec<Stand>,
}

/// A service, and the provider's that owns its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stand {
    /// The user's service.
    pub service: String,
    /// The provider's.
    pub provider: String,
    /// The container whose network it joins.
    pub sidecar: String,
}

/// What is said of a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Merged into what is there, as compose does.
    Merge(Value),
    /// In the place of what is there.
    Override(Value),
    /// As if it were not there.
    Reset,
}

impl Overlay {
    /// For those services of a project, which compose has resolved; `program` is the provider's.
    ///
    /// # Errors
    /// One of them can't stand in a target's place.
    pub fn of(project: &Value, wanted: &[Wanted], program: &str) -> Result<Self, Refusal> {
        let services = project["services"].as_object().ok_or(Refusal::NoProject)?;
        let name = project["name"].as_str().unwrap_or_default();
        let mut overlay = Self::default();
        let mut taken: BTreeSet<String> = services.keys().cloned().collect();
        for wanted in wanted {
            let service = services.get(&wanted.service).ok_or_else(|| Refusal::Unknown {
                name: wanted.service.clone(),
                known: services.keys().cloned().collect(),
            })?;
            check(&wanted.service, service)?;
            let provider = free_name(&mut taken, &wanted.service);
            let sidecar = format!("{name}-{provider}");
            overlay.services.push((wanted.service.clone(), app(service, &provider, &sidecar)));
            overlay.services.push((provider.clone(), stand_in(wanted, service, program)));
            overlay.networks.extend(names(service));
            let stand = Stand { service: wanted.service.clone(), provider, sidecar };
            overlay.joiners(services, &stand);
            overlay.stands.push(stand);
        }
        overlay.networks.sort();
        overlay.networks.dedup();
        // A network that only a provider's service is in has to be named, even the default one.
        overlay.networks.retain(|network| network == "default");
        Ok(overlay)
    }

    /// Services that are in the network of one that now is in another's itself.
    fn joiners(&mut self, services: &Map<String, Value>, stand: &Stand) {
        let mode = format!("service:{}", stand.service);
        for (name, service) in services {
            if service["network_mode"].as_str() == Some(&mode) {
                self.services.push((name.clone(), joins(&stand.provider, &stand.sidecar)));
            }
        }
    }

    /// What is said, service by service.
    pub fn changes(&self) -> impl Iterator<Item = (&str, &str, &Change)> {
        self.services.iter().flat_map(|(service, changes)| {
            changes.iter().map(move |(key, change)| (service.as_str(), key.as_str(), change))
        })
    }

    /// Networks that are named, and nothing said of them.
    #[must_use]
    pub fn networks(&self) -> &[String] {
        &self.networks
    }
}

impl fmt::Display for Overlay {
    /// As a compose file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "services:")?;
        for (service, changes) in &self.services {
            writeln!(f, "  {}:", json!(service))?;
            for (key, change) in changes {
                match change {
                    Change::Merge(value) => writeln!(f, "    {key}: {}", literal(value))?,
                    Change::Override(value) => {
                        writeln!(f, "    {key}: !override {}", literal(value))?;
                    }
                    Change::Reset => writeln!(f, "    {key}: !reset null")?,
                }
            }
        }
        if !self.networks.is_empty() {
            writeln!(f, "networks:")?;
        }
        self.networks.iter().try_for_each(|network| writeln!(f, "  {}: {{}}", json!(network)))
    }
}

/// JSON is YAML; compose would take a dollar for a variable.
pub(crate) fn literal(value: &Value) -> String {
    value.to_string().replace('$', "$$")
}

fn check(name: &str, service: &Value) -> Result<(), Refusal> {
    let name = || name.to_owned();
    if !service["provider"].is_null() {
        return Err(Refusal::Provider(name()));
    }
    if let Some(mode) = service["network_mode"].as_str().filter(|mode| *mode != "bridge") {
        return Err(Refusal::Mode { name: name(), mode: mode.to_owned() });
    }
    let filled = |key: &str| service[key].as_array().is_some_and(|list| !list.is_empty());
    if filled("links") || filled("external_links") {
        return Err(Refusal::Links(name()));
    }
    let counts = [&service["scale"], &service["deploy"]["replicas"]];
    match counts.into_iter().filter_map(Value::as_u64).find(|count| *count > 1) {
        Some(count) => Err(Refusal::Several { name: name(), count }),
        None => Ok(()),
    }
}

/// A name for the provider's service that no other has.
fn free_name(taken: &mut BTreeSet<String>, service: &str) -> String {
    let first = format!("mirrord-{service}");
    let numbered = (2u32..).map(|number| format!("mirrord-{service}-{number}"));
    let free = [first.clone()].into_iter().chain(numbered).find(|name| !taken.contains(name));
    let free = free.unwrap_or(first);
    taken.insert(free.clone());
    free
}

/// What a container says that joins the sidecar's network.
fn joins(provider: &str, sidecar: &str) -> Vec<(String, Change)> {
    let depends = json!({provider: {"condition": "service_started"}});
    vec![
        ("network_mode".to_owned(), Change::Merge(json!(format!("container:{sidecar}")))),
        ("depends_on".to_owned(), Change::Merge(depends)),
    ]
}

/// The user's service without what is its sidecar's now.
fn app(service: &Value, provider: &str, sidecar: &str) -> Vec<(String, Change)> {
    let mut changes = joins(provider, sidecar);
    let there = KEYS.iter().filter(|key| !service[**key].is_null());
    changes.extend(there.map(|key| ((*key).to_owned(), Change::Reset)));
    let (ours, others) = sysctls(service);
    match (ours.is_empty(), others.is_empty()) {
        (true, _) => {}
        (false, true) => changes.push(("sysctls".to_owned(), Change::Reset)),
        (false, false) => changes.push(("sysctls".to_owned(), Change::Override(others.into()))),
    }
    changes
}

/// The provider's service, with what was the user's.
fn stand_in(wanted: &Wanted, service: &Value, program: &str) -> Vec<(String, Change)> {
    let options: Map<String, Value> =
        wanted.options.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let (name, value) = &wanted.told;
    let mut changes = vec![
        ("provider", json!({"type": program, "options": options})),
        ("environment", json!({name.as_str(): value})),
    ];
    for key in KEYS.iter().filter(|key| !service[**key].is_null()) {
        changes.push(match *key {
            "networks" => ("networks", networks(&wanted.service, service)),
            key => (key, service[key].clone()),
        });
    }
    if service["network_mode"].as_str() == Some("bridge") {
        changes.push(("network_mode", json!("bridge")));
    }
    let (ours, _) = sysctls(service);
    if !ours.is_empty() {
        changes.push(("sysctls", ours.into()));
    }
    changes.into_iter().map(|(key, value)| (key.to_owned(), Change::Merge(value))).collect()
}

fn names(service: &Value) -> Vec<String> {
    let networks = service["networks"].as_object();
    networks.map(|networks| networks.keys().cloned().collect()).unwrap_or_default()
}

/// Its networks, where peers know it by the names that compose gives a container.
fn networks(name: &str, service: &Value) -> Value {
    let own = [Some(name), service["container_name"].as_str()];
    let own: Vec<&str> = own.into_iter().flatten().collect();
    let named = |network: &Value| {
        let mut network = network.as_object().cloned().unwrap_or_default();
        let given = network.get("aliases").and_then(Value::as_array).cloned().unwrap_or_default();
        let ours = own.iter().map(|name| json!(name)).filter(|name| !given.contains(name));
        let all: Vec<Value> = given.iter().cloned().chain(ours).collect();
        network.insert("aliases".to_owned(), all.into());
        Value::Object(network)
    };
    let networks = service["networks"].as_object().cloned().unwrap_or_default();
    networks
        .iter()
        .map(|(key, network)| (key.clone(), named(network)))
        .collect::<Map<_, _>>()
        .into()
}

/// Kernel parameters of the network, and the others.
fn sysctls(service: &Value) -> (Map<String, Value>, Map<String, Value>) {
    let all = service["sysctls"].as_object().cloned().unwrap_or_default();
    all.into_iter().partition(|(name, _)| is_of_the_network(name))
}

#[cfg(test)]
#[path = "overlay_tests.rs"]
mod tests;
