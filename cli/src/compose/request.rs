//! What is asked for of a provider's service, from all who have a say.

use std::env;
use std::path::Path;

use mirrord_compose::is_whole;
use serde_json::Value;

use super::network;
use super::service::{self, Service};
use super::told::Told;
use crate::config::Config;
use crate::docker_run::Rehomed;
use crate::failure::Failure;
use crate::session::standing::Place;
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
    /// Of a provider's options and of its service's definition.
    ///
    /// # Errors
    /// Something that does not exist, or cannot be.
    pub fn of(
        options: &[(String, String)],
        place: &Place,
        definition: &Value,
    ) -> Result<Self, Failure> {
        let Service { options, mut names } = Service::of(options)?;
        // A service that says what container it is has that one's name.
        let whole = is_whole(&place.project, &place.service, definition);
        names.extend(whole.then(|| place.service.clone()));
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
        let own = definition["image"].as_str().filter(|_| whole);
        let image = image.or_else(|| own.map(str::to_owned));
        Ok(Self { settings, rehomed, names, variables, image })
    }
}

/// This program, as compose can call it.
pub fn program() -> String {
    let exe = env::current_exe().unwrap_or_else(|_| Path::new("mirrord").to_owned());
    exe.to_string_lossy().into_owned()
}
