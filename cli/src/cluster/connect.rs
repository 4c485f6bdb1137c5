//! A client of the cluster that kubectl would talk to.

mod error;
#[cfg(test)]
mod error_tests;
mod kubeconfig;

use std::time::Duration;

use kube::config::KubeConfigOptions;
use kube::{Client, Config};

pub use self::error::ClusterError;
use self::error::Place;
use self::kubeconfig::{Found, Sources};
use super::settings::Access;

/// An API server must have answered a new connection by then.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// And a question by then; watches and streams are no questions.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A cluster. Nothing is known to answer there until something was asked.
#[derive(Clone)]
pub struct Cluster {
    /// Its client, with the user's credentials.
    pub client: Client,
    /// The namespace that is meant where none is named.
    pub namespace: String,
    /// The kubeconfig's context; none inside a pod.
    pub context: Option<String>,
    /// Where the API server is, without anything secret.
    pub server: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("server", &self.server)
            .field("context", &self.context)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Finds the cluster as kubectl does, with credentials that may come from another program.
    ///
    /// # Errors
    /// There is no usable kubeconfig, or the credentials cannot be had. Nothing was asked of the
    /// API server yet.
    pub async fn connect(access: &Access) -> Result<Self, ClusterError> {
        let sources = Sources::of(access);
        let (mut config, context) = match sources.read()? {
            Found::Config(kubeconfig) => {
                let context = sources.choose(&kubeconfig)?;
                let options =
                    KubeConfigOptions { context: Some(context.clone()), ..Default::default() };
                let config = Config::from_custom_kubeconfig(*kubeconfig, &options).await;
                let config = config.map_err(|error| error::of_kubeconfig(&context, &error))?;
                (config, Some(context))
            }
            Found::Nothing(looked) => {
                let inside = Config::incluster().ok().filter(|_| access.context.is_none());
                (inside.ok_or(ClusterError::NoKubeconfig { looked })?, None)
            }
        };
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.accept_invalid_certs |= access.accept_invalid_certificates;
        let namespace = config.default_namespace.clone();
        let place = Place { server: shown(&config), context: context.clone() };
        // A plugin that gives credentials is run and waited for.
        let made = tokio::task::spawn_blocking(move || Client::try_from(config)).await;
        let made = made.map_err(|_| ClusterError::Stopped)?;
        let client = made.map_err(|error| place.explain("cannot make a client", error))?;
        Ok(Self { client, namespace, context, server: place.server })
    }

    /// Says what an error means, and what was being done.
    pub fn explain(&self, doing: &str, error: kube::Error) -> ClusterError {
        self.place().explain(doing, error)
    }

    /// Waits for an answer, and not for ever.
    ///
    /// # Errors
    /// The API server refuses, or does not answer.
    pub async fn ask<T>(
        &self,
        doing: &str,
        question: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ClusterError> {
        match tokio::time::timeout(ANSWER_TIMEOUT, question).await {
            Ok(answer) => answer.map_err(|error| self.explain(doing, error)),
            Err(_) => Err(self.place().silent()),
        }
    }

    fn place(&self) -> Place {
        Place { server: self.server.clone(), context: self.context.clone() }
    }
}

/// The API server's address without a user's name in it.
fn shown(config: &Config) -> String {
    let url = &config.cluster_url;
    let scheme = url.scheme_str().unwrap_or("https");
    let host = url.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{}", url.path().trim_end_matches('/'))
}
