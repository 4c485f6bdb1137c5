//! What a run depends on, before its app starts.

use mirrord_protocol::control::Target;

use super::{Front, Prepared};
use crate::engine::{Engine, podman};
use crate::failure::Failure;
use crate::lock::{self, Entry, Locking, Pinned};
use crate::stand;

impl Front<'_> {
    /// Writes down what the run depends on, or refuses it where that is not as it was.
    pub(super) async fn lock(
        &self,
        prepared: &Prepared,
        target: &Target,
        pinned: Pinned,
    ) -> Result<(), Failure> {
        let locking = self.settings.locking;
        if locking == Locking::None {
            return Ok(());
        }
        let env = target.env.clone();
        let delivery = self.settings.env.deliver(env, &prepared.users_variables());
        let entry = Entry::of(&self.plan, pinned, delivery.names());
        let mut endpoint = self.plan.endpoint.clone().filter(|_| !self.plan.app_image.is_empty());
        let service = podman::Service::start_for(&mut endpoint).await?;
        let entry = match endpoint {
            Some(endpoint) => {
                let engine = stand::answering(Engine::new(&endpoint)?).await?;
                entry.with_image(&engine, &self.plan.app_image).await?
            }
            None => entry,
        };
        if let Some(service) = service {
            service.end().await;
        }
        let run = self.plan.target.as_ref().map_or("targetless".to_owned(), ToString::to_string);
        lock::settle(locking, &run, &entry)
    }
}
