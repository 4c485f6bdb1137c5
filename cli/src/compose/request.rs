//! What is asked for of a provider's service, from all who have a say.

use std::env;
use std::path::Path;

use serde_json::Value;

use super::network;
use super::service::{self, Service};
use super::told::Told;
use crate::config::Config;
use crate::docker_run::Rehomed;
use crate::failure::Failure;
use crate::settings::{Settings, variable};

/// What is asked for.
pub struct Request {
    /// All but the network.
    pub settings: Settings,
    /// What the sidecar has in the app's place; its networks may still be the compose file's.
    pub rehomed: Rehomed,
    /// Further names of the app.
    pub names: Vec<String>,
    /// Variables that the user gives the app.
    pub variables: Vec<String>,
    /// The app's image, if that is known.
    pub image: Option<String>,
}

impl Request {
    /// Of a provider's options and of its service's definition; that is the app's `own` if the provider
    /// stands on it, and the app has its name.
    ///
    /// # Errors
    /// Something that does not exist, or cannot be.
    pub fn of(
        options: &[(String, String)],
        own: Option<&str>,
        definition: &Value,
    ) -> Result<Self, Failure> {
        let Service { options, mut names } = Service::of(options)?;
        names.extend(own.map(str::to_owned));
        let mut rehomed = network::of(definition)?;
        let told = Told::of(definition)?.unwrap_or_default();
        for network in &mut rehomed.networks {
            if let Some(name) = told.networks.get(&network.name) {
                network.name.clone_from(name);
            }
        }
        let mut before = service::options(&told.words)?;
        before.target = before.target.filter(|_| told.targeted);
        let options = before.over(&options);
        let settings = match &told.config {
            None => Settings::of(&options)?,
            Some(config) => {
                let config = Config::of_value("x-mirrord", config)?;
                Settings::with(&options, &config, &variable)?
            }
        };
        let Told { variables, image, .. } = told;
        let whole = definition["image"].as_str().filter(|_| own.is_some());
        let image = image.or_else(|| whole.map(str::to_owned));
        Ok(Self { settings, rehomed, names, variables, image })
    }
}

/// This program, as compose can call it.
pub fn program() -> String {
    let exe = env::current_exe().unwrap_or_else(|_| Path::new("mirrord").to_owned());
    exe.to_string_lossy().into_owned()
}
