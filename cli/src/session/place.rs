//! Where a session's proxy runs: in a sidecar, or on this machine.

use std::path::Path;
use std::time::Instant;

use mirrord_protocol::control::{ProxyConfig, ProxyEvent};

use super::Plan;
use super::bring_up::{self, BringUp};
use super::containers::Running;
use super::door::Door;
use super::events::{Event, Step};
use super::here::{self, Folder};
use super::plan::Learned;
use super::plane::Here;
use crate::engine::connect::EngineError;
use crate::engine::containers::{Common, Names, Role, SidecarPlane};
use crate::engine::{Engine, entrypoint, image};
use crate::failure::Failure;

/// A place for a proxy.
pub enum Place {
    /// A container that was created.
    Sidecar {
        /// Where.
        engine: Engine,
        /// Its id.
        id: String,
    },
    /// A folder of this machine.
    Here {
        /// As long as it is held.
        folder: Folder,
        /// Which one.
        here: Here,
    },
}

impl Place {
    /// Where the proxy will take pipes over.
    pub fn door(&self) -> Door {
        match self {
            Self::Sidecar { engine, id } => {
                Door::Sidecar { engine: engine.clone(), id: id.clone() }
            }
            Self::Here { here, .. } => Door::Here { folder: here.private() },
        }
    }

    /// The sidecar whose volume others may share.
    pub fn volume(&self) -> Option<String> {
        match self {
            Self::Sidecar { id, .. } => Some(id.clone()),
            Self::Here { .. } => None,
        }
    }

    /// What is to be held as long as the session.
    pub fn into_folder(self) -> Option<Folder> {
        match self {
            Self::Sidecar { .. } => None,
            Self::Here { folder, .. } => Some(folder),
        }
    }
}

impl BringUp<'_> {
    /// Makes the proxy's place.
    pub async fn make_place(
        &self,
        engine: Option<&Engine>,
        names: &Names,
        learned: &Learned,
    ) -> Result<Place, Failure> {
        match (self.plan.plane.here(), engine) {
            (Some(here), _) => {
                let folder = Folder::make(here).map_err(|error| {
                    let text =
                        format!("cannot make the session's folder {}", here.folder.display());
                    Failure::caused_by(text, &error)
                })?;
                Ok(Place::Here { folder, here: here.clone() })
            }
            (None, Some(engine)) => {
                let id = self.create_sidecar(engine, names, &learned.image_ports).await?;
                Ok(Place::Sidecar { engine: engine.clone(), id })
            }
            (None, None) => Err(Failure::new("a sidecar needs an engine")),
        }
    }

    /// Starts the proxy in its place.
    pub async fn start_proxy(
        &self,
        place: &Place,
        config: &ProxyConfig,
        since: Instant,
    ) -> Result<Running, Failure> {
        let running = match place {
            Place::Sidecar { engine, id } => {
                let image = image::tag()?;
                let common = self.plan.common(engine, &image);
                let started = bring_up::start(&common, Role::Proxy, id.clone(), config).await;
                started.inspect_err(|failure| self.doubt_plane(failure))?
            }
            Place::Here { .. } => here::start_proxy(config)
                .await
                .map_err(|error| Failure::caused_by("cannot start the proxy", &error))?,
        };
        self.step(Step::Sidecar, since);
        Ok(running)
    }

    async fn create_sidecar(
        &self,
        engine: &Engine,
        names: &Names,
        image_ports: &[String],
    ) -> Result<String, Failure> {
        let Plan { session, rehomed, remote_dns, plane, .. } = self.plan;
        let image = image::tag()?;
        let common = self.plan.common(engine, &image);
        let layer = plane.loads_layer(&self.plan.layer);
        let sidecar = match plane.is_netns() {
            true => SidecarPlane::Netns { layer },
            false => SidecarPlane::Layer,
        };
        if layer {
            let (entrypoint, words) = (self.plan.app_entrypoint.as_deref(), &*self.plan.app_words);
            let line = entrypoint::Line { image: &self.plan.app_image, entrypoint, words };
            let program = entrypoint::look(engine, session, line).await?;
            match program.static_file {
                Some(path) if plane.is_netns() => self.pass_on(without_unix_sockets(&path)),
                Some(path) => return Err(cannot_be_loaded_into(&path)),
                None => {}
            }
            self.preloaded.replace(program.preloaded);
        }
        let userns = self.plan.app_userns.as_deref();
        let create = async || {
            common.create_sidecar(names, rehomed, image_ports, *remote_dns, sidecar, userns).await
        };
        let created = self.with_image(&common, create).await?;
        // The engine has its say on links, and the client would have passed it on.
        for message in created.warnings.into_iter().filter(|_| !rehomed.links.is_empty()) {
            self.reporter.say(&Event::Warning { message });
        }
        Ok(created.id)
    }

    /// Creates something from our image, which is made if it is not there.
    pub async fn with_image<T>(
        &self,
        common: &Common<'_>,
        create: impl AsyncFn() -> Result<T, EngineError>,
    ) -> Result<T, Failure> {
        match create().await {
            Err(error) if is_missing_image(&error) => {
                self.go_on()?;
                let began = Instant::now();
                self.reporter.say(&Event::MakesImage);
                image::make(common.engine, common.image).await?;
                self.step(Step::Image, began);
                self.go_on()?;
                Ok(create().await?)
            }
            other => Ok(other?),
        }
    }

    /// Something that the proxy says of the session as it comes up.
    pub fn pass_on(&self, said: ProxyEvent) {
        self.reporter.say(&Event::Proxy { said });
    }
}

fn cannot_be_loaded_into(path: &Path) -> Failure {
    Failure::new(format!(
        "{} is statically linked: no library can be loaded into it",
        path.display()
    ))
    .hint("let the kernel redirect: --plane netns, on an engine that grants capabilities")
}

fn without_unix_sockets(path: &Path) -> ProxyEvent {
    ProxyEvent::Warning {
        message: format!(
            "{} is statically linked: no library can be loaded into it, so unix_streams does \
             nothing for it",
            path.display()
        ),
    }
}

fn is_missing_image(error: &EngineError) -> bool {
    error.is_not_found() && error.message().to_lowercase().contains("no such image")
}
