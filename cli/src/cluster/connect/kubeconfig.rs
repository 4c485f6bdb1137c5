//! Which kubeconfig files there are, by kubectl's rules, and which of their contexts is meant.

use std::env;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use kube::config::{Kubeconfig, KubeconfigError};

use super::ClusterError;
use crate::cluster::settings::Access;

/// Where kubeconfigs may be.
pub struct Sources {
    files: Vec<PathBuf>,
    context: Option<String>,
}

/// What was there.
pub enum Found {
    /// The files, as one.
    Config(Box<Kubeconfig>),
    /// None of these places has a file.
    Nothing(Vec<String>),
}

impl Sources {
    /// `--kubeconfig`, else `KUBECONFIG`, else the file in the home folder.
    pub fn of(access: &Access) -> Self {
        let listed = |value: &std::ffi::OsStr| -> Vec<PathBuf> {
            env::split_paths(value).filter(|path| !path.as_os_str().is_empty()).collect()
        };
        let mut files = match (&access.kubeconfig, env::var_os("KUBECONFIG")) {
            (Some(value), _) => listed(value.as_ref()),
            (None, Some(value)) => listed(&value),
            (None, None) => Vec::new(),
        };
        if files.is_empty() {
            files.extend(env::home_dir().map(|home| home.join(".kube/config")));
        }
        Self { files, context: access.context.clone().filter(|name| !name.is_empty()) }
    }

    /// Reads all files that are there; what an earlier one says stands.
    pub fn read(&self) -> Result<Found, ClusterError> {
        let mut whole: Option<Kubeconfig> = None;
        for path in &self.files {
            let Some(next) = read(path)? else { continue };
            let merged = match whole {
                Some(before) => before.merge(next).map_err(|error| ClusterError::Content {
                    path: path.display().to_string(),
                    cause: error.to_string(),
                })?,
                None => next,
            };
            whole = Some(merged);
        }
        Ok(match whole {
            Some(whole) if !whole.contexts.is_empty() || self.context.is_some() => {
                Found::Config(Box::new(whole))
            }
            _ => Found::Nothing(self.files.iter().map(|path| path.display().to_string()).collect()),
        })
    }

    /// The context that is meant.
    pub fn choose(&self, config: &Kubeconfig) -> Result<String, ClusterError> {
        let known: Vec<String> =
            config.contexts.iter().map(|context| context.name.clone()).collect();
        let wanted = self.context.clone().or_else(|| config.current_context.clone());
        match wanted {
            None => Err(ClusterError::NoContext { known }),
            Some(name) if known.contains(&name) => Ok(name),
            Some(name) => Err(ClusterError::UnknownContext { name, known }),
        }
    }
}

fn read(path: &Path) -> Result<Option<Kubeconfig>, ClusterError> {
    let shown = || path.display().to_string();
    match Kubeconfig::read_from(path) {
        Ok(mut config) => {
            config.current_context = config.current_context.filter(|name| !name.is_empty());
            Ok(Some(config))
        }
        Err(KubeconfigError::ReadConfig(error, _)) if error.kind() == ErrorKind::NotFound => {
            Ok(None)
        }
        Err(KubeconfigError::ReadConfig(source, _)) => {
            Err(ClusterError::File { path: shown(), source })
        }
        // The parser quotes the lines around a mistake, and there may be a credential in them.
        Err(KubeconfigError::Parse(error)) => {
            let cause = match error.location() {
                Some(at) => format!("line {}, column {} is not understood", at.line(), at.column()),
                None => "it is not a kubeconfig".to_owned(),
            };
            Err(ClusterError::Content { path: shown(), cause })
        }
        Err(error) => Err(ClusterError::Content { path: shown(), cause: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    const FIRST: &str = "
contexts:
- {name: kind-one, context: {cluster: one, user: one, namespace: shop}}
clusters:
- {name: one, cluster: {server: 'https://one:6443'}}
current-context: ''
";
    const SECOND: &str = "
contexts:
- {name: two, context: {cluster: two, user: two}}
- {name: kind-one, context: {cluster: other, user: other}}
current-context: two
";

    fn sources(texts: &[&str], context: Option<&str>) -> (tempfile::TempDir, Sources) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut files = vec![folder.path().join("absent")];
        for (at, text) in texts.iter().enumerate() {
            let path = folder.path().join(at.to_string());
            std::fs::write(&path, text).expect("written");
            files.push(path);
        }
        (folder, Sources { files, context: context.map(str::to_owned) })
    }

    fn chosen(texts: &[&str], context: Option<&str>) -> Result<String, ClusterError> {
        let (_folder, sources) = sources(texts, context);
        match sources.read()? {
            Found::Config(config) => sources.choose(&config),
            Found::Nothing(looked) => Err(ClusterError::NoKubeconfig { looked }),
        }
    }

    #[test]
    fn files_are_one_and_what_is_said_first_stands() {
        let (_folder, sources) = sources(&[FIRST, SECOND], None);
        let Ok(Found::Config(config)) = sources.read() else { panic!("a config") };
        assert_eq!(sources.choose(&config).expect("the current one"), "two");
        let contexts: Vec<_> = config
            .contexts
            .iter()
            .map(|named| (named.name.as_str(), named.context.clone().expect("one").cluster))
            .collect();
        assert_eq!(contexts, [("kind-one", "one".to_owned()), ("two", "two".to_owned())]);
    }

    #[test]
    fn contexts_are_named_where_none_is_meant_or_known() {
        let failure = |context| Failure::from(chosen(&[FIRST], context).expect_err("no context"));
        assert_eq!(failure(None).sentence, "the kubeconfig has no current context");
        assert!(failure(None).hint.expect("a hint").contains("--context kind-one"));
        let unknown = failure(Some("kind-on"));
        assert_eq!(unknown.sentence, "the kubeconfig has no context \"kind-on\"");
        assert_eq!(unknown.hint.as_deref(), Some("did you mean kind-one?"));
    }

    #[test]
    fn no_file_names_where_it_was_looked_for() {
        let failure = Failure::from(chosen(&[], None).expect_err("nothing"));
        assert_eq!(failure.sentence, "there is no kubeconfig");
        assert!(failure.causes[0].ends_with("/absent"), "{:?}", failure.causes);
    }

    #[test]
    fn a_mistake_in_a_file_quotes_none_of_its_secrets() {
        let text = "users:\n- name: a\n  user:\n    token: hush\n    exec: [hush\n";
        let failure = Failure::from(chosen(&[text], None).expect_err("no YAML"));
        assert!(failure.sentence.starts_with("cannot understand the kubeconfig "), "{failure}");
        let told = format!("{failure:?}");
        assert!(!told.contains("hush") && told.contains("line "), "{told}");
    }
}
